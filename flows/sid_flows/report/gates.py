"""The gates: every check of every table, measured against expected; what does not hold stands first."""

from collections.abc import Mapping, Sequence
from typing import Any

from sid_flows.report.markup import Right, details, section, table
from sid_flows.report.tables import Tables

WORST = ("failed", "warning", "ok")  # anything else stands before them


def gates(tables: Tables) -> str:
    """Give the section."""
    results = sorted(tables.record["gates"], key=_rank)
    by_table: dict[str, list[Mapping[str, Any]]] = {}
    for one in results:
        by_table.setdefault(one["table"], []).append(one)
    said = summary(results)
    rows = [
        [name, _rows_of(tables, name), len(checks), sum(one["verdict"] != "ok" for one in checks)]
        for name, checks in by_table.items()
    ]
    parts = [table(["table", "rows", "checks", "not ok"], rows, label="checks by table")]
    for name, checks in by_table.items():
        opened = any(one["verdict"] != "ok" for one in checks)
        parts.append(details(f"{name}: {len(checks)} checks", [_checks(checks)], opened=opened))
    return section(
        "gates",
        "Gate checks",
        f"{said}. Great Expectations judged what DuckDB measured of every table before it was published.",
        parts,
        good="all hold. A release that breaks one is not published; only a leak may be made a warning.",
    )


def summary(results: Sequence[Mapping[str, Any]]) -> str:
    """Say how many checks hold, and how many only warn."""
    warned = sum(one["verdict"] == "warning" for one in results)
    held = f"{len(results) - warned} gate checks hold"
    return f"{held}, {warned} of [gates] leakage warn" if warned else held


def _checks(checks: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            one["verdict"],
            one["check"],
            Right(_shown(one["measured"])),
            Right(str(one["expected"])),
            one["why"],
        ]
        for one in checks
    ]
    return table(["verdict", "check", "measured", "expected", "why"], rows)


def _rank(one: Mapping[str, Any]) -> int:
    return WORST.index(one["verdict"]) if one["verdict"] in WORST else -1


def _shown(value: Any) -> str:
    return "none" if value is None else f"{value:,.6g}" if isinstance(value, int | float) else str(value)


def _rows_of(tables: Tables, name: str) -> int | None:
    rows = tables.record["rows"].get(name)
    return None if rows is None else int(rows)
