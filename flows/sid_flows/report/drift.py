"""Drift: whether the codebooks still fit the items that an append added."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from sid_flows.report.figures import figure
from sid_flows.report.markup import Right, paragraph, percent, section, sentence, table
from sid_flows.report.tables import Tables

BOUNDS = (
    ("error_ratio", "max_error_ratio", "error of new items over that of fitted ones"),
    ("pressure", "max_pressure", "new items whose codes another item has"),
    ("cold_user_rate", "max_cold_users", "users of the dump that no release knew"),
)


def drift(tables: Tables) -> str | None:
    """Give the section, or None where nothing was appended."""
    found = {"": tables.metrics["collisions"].get("drift")}
    for name, one in tables.metrics.get("sids", {}).items():
        found[name] = one["collisions"].get("drift")
    parts = []
    for name, one in found.items():
        if one:
            parts += [f"<h3>{escape(name)}</h3>"] if name else []
            parts += _told(name, one)
    if not parts:
        return None
    return section(
        "drift",
        "Drift",
        "How the items of this append differ from those that the codebooks were fitted on.",
        parts,
        good="every number is below its limit: PSI below 0.25, or below what as few items give by chance.",
    )


def _told(name: str, one: Mapping[str, Any]) -> Iterator[str]:
    retrain = one["retrain"]
    if not one["items"]:
        yield paragraph("No item is new: there is nothing to measure.")
        return
    if retrain:
        yield paragraph("Retraining is recommended, with sidmill retokenize:", "lead")
        yield from (paragraph(sentence(why)) for why in retrain)
    else:
        yield paragraph("No limit is exceeded: the codebooks still fit.")
    if one["levels"]:
        yield _psi(name, one)
        columns = ["level", "PSI", "by chance up to", "limit", "KL", "codes unused before"]
        limit = one["limits"]["max_psi"]
        yield table(
            columns,
            [
                [
                    row["level"],
                    *_three(row["psi"], row["psi_by_chance"]),
                    _limit(limit),
                    *_three(row["kl"]),
                    row["unused_before"],
                ]
                for row in one["levels"]
            ],
        )
    rows = [["new items", Right(f"{one['items']:,}"), "", ""]]
    for key, limit, says in BOUNDS:
        value = one.get(key)
        shown = "none" if value is None else f"{value:.2f}" if key == "error_ratio" else percent(value)
        bound = one["limits"].get(limit)
        judged = "" if value is None or bound is None else "exceeded" if value > bound else "holds"
        rows.append([says, Right(shown), _limit(bound), judged])
    if one.get("pressure_before") is not None:
        rows.append(
            ["published items whose codes another had", Right(percent(one["pressure_before"])), "", ""]
        )
    yield table(["", "measured", "limit", "verdict"], rows, label="drift, measured and allowed")


def _psi(name: str, one: Mapping[str, Any]) -> str:
    levels = [f"level {row['level']}" for row in one["levels"]]
    traces: list[dict[str, Any]] = [
        {
            "type": "bar",
            "name": label,
            "x": levels,
            "y": [row[key] for row in one["levels"]],
            "marker": {"color": colour},
            "hovertemplate": "%{x}: %{y:.3f}<extra>" + label + "</extra>",
        }
        for key, label, colour in (("psi", "PSI", "@c5"), ("psi_by_chance", "by chance", "@rest"))
    ]
    limit = one["limits"]["max_psi"]
    line = {
        "type": "line", "xref": "paper", "yref": "y", "x0": 0, "x1": 1, "y0": limit, "y1": limit,
        "line": {"color": "@text", "width": 1, "dash": "dot"},
    }  # fmt: skip
    layout = {
        "barmode": "group",
        "showlegend": True,
        "margin": {"l": 8, "r": 12, "t": 30, "b": 8},
        "xaxis": {"type": "category", "showgrid": False},
        "yaxis": {"rangemode": "tozero", "title": {"text": "PSI"}},
        "shapes": [] if limit is None else [line],
    }
    drawn = f"psi-{name}" if name else "psi"
    return figure(
        drawn, traces, layout, says="Bars of PSI by level beside chance; a line at the limit", height=260
    )


def _three(*values: float) -> list[Right]:
    return [Right(f"{value:.3f}") for value in values]


def _limit(value: float | None) -> Right:
    return Right("none" if value is None else f"{value:g}")
