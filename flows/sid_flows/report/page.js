// Draws the figures of the page: unpacks plotly.js, which stands in the page, and nothing from elsewhere.
(async () => {
  "use strict";
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const COLOURS = /color$|^colors$/;
  const figures = [...document.querySelectorAll("script[data-plot]")].map((one) => ({
    place: document.getElementById(one.dataset.plot),
    ...JSON.parse(one.textContent),
  }));

  // Give a copy in which "@name" under a key of colours is the style sheet's --name.
  function painted(value, style, key = "") {
    if (Array.isArray(value)) return value.map((one) => painted(one, style, key));
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([k, one]) => [k, painted(one, style, k)]));
    const named = COLOURS.test(key) && typeof value === "string" && value[0] === "@";
    return named ? style.getPropertyValue(`--${value.slice(1)}`).trim() : value;
  }

  function draw(one) {
    const style = getComputedStyle(root);
    const config = { displayModeBar: false, responsive: true, showTips: false };
    const { narrow, ...layout } = painted(one.layout, style);
    const data = painted(one.data, style);
    if (narrow && one.place.clientWidth < 480) data.forEach((trace) => (trace.texttemplate = narrow));
    return Plotly.react(one.place, data, layout, config);
  }

  const drawAll = () => figures.forEach(draw);

  try {
    const packed = atob(document.getElementById("library").textContent);
    const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    root.classList.add("drawn");
    for (const one of figures) {
      await draw(one);
      await new Promise((next) => setTimeout(next)); // the page stays usable meanwhile
    }
  } catch (error) {
    root.classList.remove("drawn");
    document.getElementById("undrawn").hidden = false;
    console.error(error);
    return;
  }
  dark.addEventListener("change", drawAll);
  // Paper is white.
  addEventListener("beforeprint", () => { root.dataset.theme = "light"; drawAll(); });
  addEventListener("afterprint", () => { delete root.dataset.theme; drawAll(); });
  root.dataset.ready = "";
})();
