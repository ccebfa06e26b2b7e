"""Figures as plotly reads them: plain JSON that the page's script draws, in colours of the reader's theme.

A colour is written as "@name" and stands in page.css as --name, once for light and once for dark. Only what
stands under a key of colours is looked up, so that a title may begin with @.
"""

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

HUES = 8  # of --c0 ... --c7, told apart by those who see few colours; the rest is --rest
FONT = {"family": "system-ui, sans-serif", "size": 12, "color": "@text"}
AXIS = {
    "automargin": True,
    "gridcolor": "@grid",
    "linecolor": "@grid",
    "zerolinecolor": "@grid",
    "tickcolor": "@grid",
    "fixedrange": True,
}
LAYOUT: Mapping[str, Any] = {
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "font": FONT,
    "margin": {"l": 8, "r": 12, "t": 12, "b": 8},
    "showlegend": False,
    "dragmode": False,
    "hoverlabel": {"align": "left", "bgcolor": "@panel", "bordercolor": "@grid", "font": FONT},
    "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "title": {"text": ""}},
}


def figure(
    name: str,
    traces: Sequence[Mapping[str, Any]],
    layout: Mapping[str, Any] | None = None,
    *,
    says: str,
    height: int = 320,
) -> str:
    """Give a figure as HTML. name: unique on the page. says: what it shows, for those who do not see it."""
    given = {**LAYOUT, **(layout or {})}
    for axis in ("xaxis", "yaxis"):
        given[axis] = {**AXIS, **given.get(axis, {})}
    drawn = {"data": traces, "layout": {**given, "height": height}}
    own = escape(f"plot-{name}")
    return (
        f'<div class="plot" id="{own}" role="img" aria-label="{escape(says)}" '
        f'style="height:{height}px"></div>'
        f'<script type="application/json" data-plot="{own}">{embedded(drawn)}</script>'
    )


def embedded(value: Any) -> str:
    """Give JSON that may stand in a <script>: nothing in it ends the script or opens a comment.

    >>> embedded({"title": "</script>\\u2028", "x": float("nan")})
    '{"title":"\\\\u003c/script\\\\u003e\\\\u2028","x":null}'
    """
    text = json.dumps(_finite(value), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def plain(text: str) -> str:
    """Give a text of data for a place where plotly reads a little HTML: links and tags are shown, not made.

    >>> plain('<a href="x">&amp;')
    '&lt;a href="x"&gt;&amp;amp;'
    """
    return escape(text, quote=False)


def _finite(value: Any) -> Any:
    """Put null for NaN and infinity, which JSON does not have; floats are cut to six digits."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
