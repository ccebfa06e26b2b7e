"""How the codes of each level are used: bars of items by code, most used first, dead ones at the end."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from sid_flows.report.figures import figure
from sid_flows.report.markup import bar, paragraph, section, table
from sid_flows.report.tables import Tables

LEVELS = 8  # of which figures are drawn; the table has all
BARS = 512  # codes drawn one by one; of more, as many runs of codes of about one use


def codes(tables: Tables) -> str:
    """Give the section."""
    tokenizer, levels = tables.metrics["tokenizer"], tables.metrics["collisions"]["levels"]
    said = (
        f"{tokenizer['tokenizer']}, fitted on {tokenizer['fit_items']:,} {tokenizer['fit_scope']}. Each bar "
        "is how many items have a code, after collisions were resolved, the most used code first. "
        "The line is even use; perplexity is a share of the codes, 1 being even use."
    )
    parts = []
    if tables.gives == "vectors":
        parts.append(paragraph("The scheme gives vectors; an item's number stands for a code.", "soft"))
    else:
        drawn = [usage(tables, one) for one in levels[:LEVELS]]
        parts.append(f'<div class="grid">{"".join(drawn)}</div>')
        if any(one["codes"] > BARS for one in levels):
            parts.append(
                paragraph(
                    f"Of a level with more than {BARS:,} codes, each bar is the mean of a run of codes.",
                    "note",
                )
            )
        if len(levels) > LEVELS:
            parts.append(paragraph(f"Drawn: the first {LEVELS} of {len(levels)} levels.", "note"))
    columns = [
        "level",
        "codes",
        "used",
        "dead",
        "perplexity",
        "entropy / ln K",
        "Gini",
        "largest",
        "prefixes",
    ]
    parts.append(table(columns, _rows(levels), label="use of codes by level"))
    return section(
        "codes",
        "Codes",
        said,
        parts,
        good="no dead codes, and bars that fall slowly. The first level matters most: a steep one puts many "
        "items behind one code. A level that only tells collisions apart is uneven by design.",
    )


def usage(tables: Tables, level: Mapping[str, Any]) -> str:
    """Give the figure of one level."""
    number, size = level["level"], level["codes"]
    counts = counted(tables, number, size)
    heights, widths, told = bars(counts)
    start = np.concatenate([[0], np.cumsum(widths)[:-1]])
    even = counts.sum() / max(size, 1)
    title = f"level {number}: {level['used']:,} of {size:,} codes used"
    dead = {
        "type": "rect", "xref": "x", "yref": "paper", "x0": level["used"], "x1": size, "y0": 0, "y1": 1,
        "fillcolor": "@c5", "opacity": 0.18, "line": {"width": 0},
    }  # fmt: skip
    line = {
        "type": "line", "xref": "paper", "yref": "y", "x0": 0, "x1": 1, "y0": even, "y1": even,
        "line": {"color": "@soft", "width": 1, "dash": "dot"},
    }  # fmt: skip
    trace = {
        "type": "bar",
        "x": (start + widths / 2).tolist(),
        "y": heights,
        "width": widths.tolist(),
        "customdata": told,
        "marker": {"color": "@c0", "line": {"width": 0}},
        "hovertemplate": "%{customdata}<br>%{y:,.6~g} items<extra></extra>",
    }
    layout = {
        "title": {
            "text": title,
            "font": {"size": 13, "color": "@text"},
            "x": 0,
            "xanchor": "left",
            "y": 0.97,
        },
        "margin": {"l": 8, "r": 8, "t": 34, "b": 8},
        "bargap": 0,
        "xaxis": {"range": [0, size], "title": {"text": "codes, most used first"}, "showgrid": False},
        "yaxis": {"rangemode": "tozero", "nticks": 5},
        "shapes": [line, dead] if level["dead"] else [line],
    }
    says = f"Bars of items by code, {title}, largest {level['max_count']:,}"
    return f"<div>{figure(f'usage-{number}', [trace], layout, says=says, height=230)}</div>"


def counted(tables: Tables, level: int, size: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Give how many items have each code of a level: (codes, items) by code, (size,) int64."""
    rows = tables.ask(
        "select sid[$1] as code, count(*) from sids where len(sid) >= $1 group by code order by code", level
    )
    found = np.zeros(size, dtype=np.int64)
    for code, number in rows:
        found[code] = number
    return found


def bars(counts: np.ndarray[Any, np.dtype[np.int64]]) -> tuple[list[float], Any, list[str]]:
    """Give heights, widths and names of bars, most used first: a code each, or the mean of a run of codes."""
    order = np.argsort(-counts, kind="stable")
    if len(counts) <= BARS:
        return counts[order].tolist(), np.ones(len(counts)), [f"code {one}" for one in order.tolist()]
    edges = np.linspace(0, len(counts), BARS + 1).astype(np.int64)
    widths = np.diff(edges)
    heights = np.add.reduceat(counts[order], edges[:-1]) / widths
    told = [f"codes {a + 1:,} to {b:,} by use" for a, b in pairwise(edges.tolist())]
    return heights.tolist(), widths, told


def _rows(levels: Sequence[Mapping[str, Any]]) -> Iterator[list[Any]]:
    for one in levels:
        yield [
            one["level"],
            one["codes"],
            one["used"],
            one["dead"],
            bar(one["perplexity_share"]),
            round(one["entropy_ratio"], 3),
            round(one["gini"], 3),
            one["max_count"],
            one["prefixes"],
        ]
