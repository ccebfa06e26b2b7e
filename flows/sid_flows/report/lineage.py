"""Where the release comes from: raw files, stages and how long they took, what ran them."""

from collections.abc import Iterator, Mapping
from typing import Any

from sid_flows.report.markup import Right, bar, code, paragraph, section, table
from sid_flows.report.tables import Tables


def lineage(tables: Tables) -> str:
    """Give the section."""
    record = tables.record
    total = sum(one["seconds"] for one in record["stages"].values())
    files = [[one["label"], one["bytes"], code(one["sha256"])] for one in record["raw_files"]]
    engine = record["recipe"].get("engine", {})
    formats = record["recipe"].get("export", {}).get("formats", [])
    ran = f"Engine: {engine.get('kind', 'local')}, {engine.get('memory', 'no bound')} of memory. "
    ran += f"The recipe exports as {', '.join(formats)}." if formats else "The recipe asks for no exports."
    return section(
        "lineage",
        "Lineage",
        f"What the release was made of. Its stages took {total:,.1f} seconds, reused ones included.",
        [
            table(["raw file", "bytes", "SHA-256"], files),
            table(["stage", "key", "what it did", "seconds", "share"], _stages(record["stages"], total)),
            paragraph(ran, "note"),
        ],
        good="the raw files are those you meant.",
    )


def _stages(stages: Mapping[str, Mapping[str, Any]], total: float) -> Iterator[list[Any]]:
    for name, one in stages.items():
        seconds = Right(f"{one['seconds']:,.1f}")
        yield [name, code(one["key"]), one["summary"], seconds, bar(one["seconds"] / (total or 1))]
