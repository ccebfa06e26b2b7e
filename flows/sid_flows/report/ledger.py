"""What was read, and what cleaning removed: a waterfall from raw rows to the events of the release."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sid_flows.report.figures import figure
from sid_flows.report.markup import bar, details, section, table
from sid_flows.report.tables import Tables


def ledger(tables: Tables) -> str:
    """Give the section."""
    steps = tables.metrics["ledger"]
    kept = steps[-1]["interactions"] / max(steps[0]["interactions"], 1)
    parts = [
        figure(
            "ledger",
            [waterfall(steps)],
            {
                "yaxis": {"autorange": "reversed", "type": "category"},
                "xaxis": {"rangemode": "tozero", "tickformat": ",d"},
            },
            says=f"Waterfall of interactions: {steps[0]['interactions']:,} raw, "
            f"{steps[-1]['interactions']:,} kept",
            height=70 + 34 * (len(steps) + 1),
        ),
        table(
            ["step", "interactions", "users", "items", "removed", "kept", "reason"],
            _rows(steps),
            label="ledger",
        ),
    ]
    files = tables.metrics.get("files")  # a release of before 0.2 has not kept it
    if files:
        columns = ["file", "rows", "records", "left out", "rejected", "why"]
        parts.append(details("What was read, file by file", [table(columns, _files_read(files))]))
    return section(
        "cleaning",
        "What cleaning removed",
        f"{kept:.1%} of the interactions that could be read were kept. Each step counts what it left.",
        parts,
        good="you know why the largest step is as large as it is. A k-core removes much of a sparse dump.",
    )


def waterfall(steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Give the trace: the first step whole, each other by what it removed, the rest as a total."""
    first, *others = steps
    removed = [one["removed"] for one in others]
    return {
        "type": "waterfall",
        "orientation": "h",
        "y": [*(_said(one["step"]) for one in steps), "kept"],
        "x": [first["interactions"], *(-number for number in removed), steps[-1]["interactions"]],
        "measure": ["absolute", *("relative" for _ in others), "total"],
        "text": [
            f"{first['interactions']:,}",
            *(f"\u2212{number:,}" if number else "0" for number in removed),
            f"{steps[-1]['interactions']:,}",
        ],
        "textposition": "auto",
        "customdata": [*(one["reason"] for one in steps), "what is left"],
        "hovertemplate": "%{y}: %{text}<br>%{customdata}<extra></extra>",
        "totals": {"marker": {"color": "@c0"}},
        "increasing": {"marker": {"color": "@c2"}},
        "decreasing": {"marker": {"color": "@c5"}},
        "connector": {"line": {"color": "@grid", "width": 1}},
    }


def _said(step: str) -> str:
    return step.replace("_", " ")


def _rows(steps: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[Any]]:
    first = steps[0]["interactions"]
    for row in steps:
        numbers = [row[name] for name in ("step", "interactions", "users", "items", "removed")]
        yield [*numbers, bar(row["interactions"] / max(first, 1)), row["reason"]]


def _files_read(seen: Mapping[str, Mapping[str, Any]]) -> Iterable[Sequence[Any]]:
    for label, one in seen.items():
        why = [f"{number:,} x {reason}" for reason, number in {**one["reasons"], **one["skipped"]}.items()]
        why += ["the file is cut off"] if one["cut_off"] else []
        skipped = sum(one["skipped"].values())
        yield [label, one["rows"], one["records"], skipped, one["rejects"], "; ".join(why)]
