"""A map of items: their vectors in two dimensions, coloured by the first code of their SID."""

from typing import Any

import numpy as np

from sid_flows.report.figures import HUES, figure, plain
from sid_flows.report.markup import paragraph, section, table
from sid_flows.report.tables import Tables
from sid_flows.report.vectors import Looked, principal

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "pentagon")
TITLE = "Map of items"
SAYS = (
    "Each point is an item, where the two widest directions of its vector (PCA) put it; points of one colour "
    "have the same first code."
)


def items_map(tables: Tables, looked: Looked | None) -> str:
    """Give the section."""
    if looked is None or not len(looked.sample):
        missing = "The release has no vectors that were tokenized, so that there is no map."
        return section("map", TITLE, SAYS, [paragraph(missing, "soft")])
    found, shares = principal(looked.X)
    traces, rows = coloured(tables, looked, found)
    axes = {
        name: {"title": {"text": f"{share:.1%} of the variance"}, "zeroline": False, "nticks": 6}
        for name, share in zip(("xaxis", "yaxis"), shares, strict=True)
    }
    layout = {
        "showlegend": len(traces) > 1,
        "margin": {"l": 8, "r": 8, "t": 50, "b": 8},
        "hovermode": "closest",
    }
    among = "the first of each row group" if looked.keep > 1 else "those in order of id"
    of = "" if len(looked.sample) == tables.items else f" of {tables.items:,}, evenly from {among}"
    name = tables.metrics["tokenizer"]["vectors"].removeprefix("embeddings_")
    note = (
        f"{len(looked.sample):,} items{of}; vectors: {name}. The two directions hold {sum(shares):.1%} of "
        "the variance: what lies apart here is apart, what lies together need not be. Below, spread is the "
        "mean distance of a code's items to their centre."
    )
    says = f"Scatter plot of {len(looked.sample):,} items by two principal components"
    parts = [figure("map", traces, {**layout, **axes}, says=says, height=560), paragraph(note, "note")]
    if rows:
        columns = ["first code", "items on the map", "spread, all items being 1"]
        parts.append(table(columns, rows, label="first codes on the map"))
    good = "each colour is one cloud, small beside the whole; colours may overlap in two dimensions."
    return section("map", TITLE, SAYS, parts, good=good)


def coloured(tables: Tables, looked: Looked, found: Any) -> tuple[list[dict[str, Any]], list[list[Any]]]:
    """Give a trace for each of the largest first codes, the rest beneath, and the same in words."""
    titles = tables.titles(looked.sample.tolist())
    told = [plain(titles[item]) for item in looked.sample.tolist()]
    if tables.gives == "vectors":
        return [_trace("items", found, told, "@c0", "circle", None)], []
    rows = tables.ask(
        """select item_index, sid[1], tokens[1] from sids
        where item_index in (select unnest($1::int[])) order by item_index""",
        looked.sample.tolist(),
    )
    first = np.array([code for _, code, _ in rows])
    largest = tables.ask(
        "select sid[1] as code, min(tokens[1]) from sids group by code order by count(*) desc, code limit $1",
        HUES,
    )
    shown = np.isin(first, [code for code, _ in largest])
    tokens = [plain(token) for _, _, token in rows]
    traces, words = [], []
    if not shown.all():
        traces.append(_trace("other codes", found, told, "@rest", "circle-open", tokens, ~shown))
    radius = _radius(looked.X)
    for place, (code, token) in enumerate(largest):
        own = first == code
        if own.any():
            traces.append(_trace(plain(token), found, told, f"@c{place}", SYMBOLS[place], tokens, own))
            words.append(
                [token, int(own.sum()), round(_radius(looked.X[own]) / radius, 3) if radius else None]
            )
    return traces, words


def _radius(X: Any) -> float:
    return float(np.linalg.norm(X - X.mean(axis=0), axis=1).mean())


def _trace(
    name: str,
    found: Any,
    told: list[str],
    colour: str,
    symbol: str,
    tokens: list[str] | None,
    own: Any = None,
) -> dict[str, Any]:
    chosen = np.flatnonzero(own) if own is not None else np.arange(len(found))
    texts = [told[one] for one in chosen]
    if tokens:
        texts = [f"{text}<br>{tokens[one]}" for text, one in zip(texts, chosen, strict=True)]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [float(f"{value:.4g}") for value in found[chosen, 0]],
        "y": [float(f"{value:.4g}") for value in found[chosen, 1]],
        "text": texts,
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "color": colour,
            "symbol": symbol,
            "size": 6,
            "opacity": 0.55 if colour == "@rest" else 0.9,
        },
    }
