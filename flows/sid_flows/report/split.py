"""The split: events by time and split, what leaks and what ties."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from sid_flows.report.figures import LAYOUT, figure
from sid_flows.report.markup import details, paragraph, section, table
from sid_flows.report.tables import Tables

COLOURS = {"train": "@c0", "valid": "@c1", "test": "@c3", "context": "@rest"}
SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
STEPS = (
    1, 10, 100, SECOND, 10 * SECOND, MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR,
    DAY, 2 * DAY, 7 * DAY, 14 * DAY, 28 * DAY, 91 * DAY, 182 * DAY, 365 * DAY, 1461 * DAY,
)  # fmt: skip
BINS, GRAINS = 64, 20_000  # bars at most, and steps of time that the rare ends are found by
TAIL = 0.002  # share of events before the first bar's end, and after the last one's start, at least
Counts = npt.NDArray[np.int64]


def split(tables: Tables) -> str:
    """Give the section."""
    facts = tables.metrics["split"]
    audit = facts["audit"]
    edges, counts = timeline(tables)
    parts = []
    if len(edges) > 1:
        note = (
            f"Each bar is {_span(int(np.median(np.diff(edges))))}, from {_date(edges[0])} to "
            f"{_date(edges[-1])}, UTC. The first and the last bar hold what is rarer before and after, so "
            "that a few odd times do not squeeze the rest."
        )
        parts = [_figure(edges, counts), paragraph(note, "note")]
    rows = [[name, int(values.sum())] for name, values in counts.items()]
    parts += [
        table(["split", "events"], rows),
        paragraph(
            f"Equal times are ordered by {facts['ties']}. {audit['test_ties']:,} test targets "
            f"({audit['test_tie_rate']:.2%}) share their time with the event before: which of the two is the "
            f"target is arbitrary. Known leak: {audit['leaks']}."
        ),
        *_audited(tables.metrics["audit"]),
    ]
    return section(
        "split",
        f"Split: {facts['protocol']}",
        "When the events of each split happened, and what the audit of leaks and ties found, breaches first.",
        parts,
        good="no breach, few ties, and valid and test where you will serve: after train, where that matters.",
    )


def timeline(tables: Tables) -> tuple[list[int], dict[str, Counts]]:
    """Give the edges of bars in milliseconds, and how many events of each split lie between them.

    Bars are a whole step of time each, such as a day. All events are in a bar; those outside of the middle
    1 - 2 TAIL are in the first and the last.
    """
    [(first, last)] = tables.ask("select min(ts), max(ts) from interactions")
    if first is None:
        return [], {}
    low, high = _middle(tables, first, last)
    step = next((one for one in STEPS if (high - low) // one < BINS - 2), STEPS[-1])
    start, stop = low // step, high // step
    rows = tables.ask(
        """select split, least(greatest(ts // $1, $2), $3) as step, count(*) from interactions
        group by split, step order by split, step""",
        step,
        start,
        stop,
    )
    counts = {
        name: np.zeros(stop - start + 1, dtype=np.int64)
        for name in COLOURS
        if any(r[0] == name for r in rows)
    }
    for name, place, number in rows:
        counts[name][place - start] = number
    inner = [step * one for one in range(start + 1, stop + 1)]
    return [min(first, step * start), *inner, max(last, step * (stop + 1))], counts


def _middle(tables: Tables, first: int, last: int) -> tuple[int, int]:
    """Give the times between which 1 - 2 TAIL of the events are, to within a GRAINS-th of the whole."""
    grain = max((last - first) // GRAINS, 1)
    rows = tables.ask(
        "select (ts - $1) // $2 as step, count(*) from interactions group by step order by step", first, grain
    )
    total = np.cumsum([number for _, number in rows])
    low, high = (int(np.searchsorted(total, share * total[-1])) for share in (TAIL, 1 - TAIL))
    return first + grain * rows[low][0], min(first + grain * (rows[high][0] + 1), last)


def _figure(edges: Sequence[int], counts: Mapping[str, Counts]) -> str:
    drawn, width = list(edges), int(np.median(np.diff(edges)))
    if len(edges) > 3:  # the outer bars are drawn as wide as the others; their hover says what they hold
        drawn[0], drawn[-1] = edges[1] - width, edges[-2] + width
    middles = [(a + b) / 2 for a, b in pairwise(drawn)]
    spans = [f"{_date(a)} to {_date(b)}" for a, b in pairwise(edges)]
    traces = [
        {
            "type": "bar",
            "name": name,
            "x": middles,
            "y": values.tolist(),
            "width": [b - a for a, b in pairwise(drawn)],
            "customdata": spans,
            "marker": {"color": COLOURS[name], "line": {"width": 0}},
            "hovertemplate": "%{customdata}<br>%{y:,} " + name + "<extra></extra>",
        }
        for name, values in counts.items()
    ]
    layout = {
        "barmode": "stack",
        "bargap": 0,
        "showlegend": True,
        "legend": {**LAYOUT["legend"], "traceorder": "normal"},
        "margin": {"l": 8, "r": 12, "t": 30, "b": 8},
        "xaxis": {"type": "date", "showgrid": False},
        "yaxis": {"rangemode": "tozero", "title": {"text": "events"}, "tickformat": ",d"},
    }
    return figure("timeline", traces, layout, says="Bars of events by time, stacked by split", height=300)


def _audited(findings: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Give the audit's findings: breaches and what the protocol allows, then what was not found."""
    columns = ["finding", "rule", "events", "of", "what it says"]
    worst = {"breach": 0, "allowed": 1, "ok": 2}
    ordered = sorted(findings, key=lambda one: worst[one["verdict"]])
    told = [one for one in ordered if one["verdict"] != "ok"]
    yield table(columns, map(_finding, told)) if told else paragraph("The audit found nothing.")
    rest = [one for one in ordered if one["verdict"] == "ok"]
    if rest:
        yield details(f"{len(rest)} rules of which nothing was found", [table(columns, map(_finding, rest))])


def _finding(one: Mapping[str, Any]) -> list[Any]:
    rule = one["rule"].replace("_", " ") + (f", {one['split']}" if one.get("split") else "")
    return [one["verdict"], rule, one["count"], one["of"], one["says"]]


def _date(ts: int) -> str:
    return datetime.fromtimestamp(ts / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _span(milliseconds: int) -> str:
    """Give a length of time in its largest unit.

    >>> _span(7 * DAY), _span(HOUR)
    ('7 days', '1 hour')
    """
    for unit, size in (("day", DAY), ("hour", HOUR), ("minute", MINUTE), ("second", SECOND)):
        if milliseconds >= size:
            number = milliseconds / size
            return f"{number:g} {unit}{'' if number == 1 else 's'}"
    return f"{milliseconds} ms"
