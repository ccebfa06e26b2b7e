"""Ingest: raw files to Parquet, every line a record or a reject with its reason.

Nothing is judged here beyond being readable; `clean` decides what stays. Of an item that a dump
describes in several ways the description first in text order stays, whatever the row order, and the
others go to the rejects.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from sid_pipelines.sources import RawFile, source_named
from sid_pipelines.stage import Outcome, Stage, Work, count
from sid_schemas import DataError, SourceError
from sid_schemas.tables import RAW_INTERACTIONS, RAW_ITEMS, REJECTS
from sid_warehouse import files
from sid_warehouse.db import connect

EXAMPLES = 3  # rejects per file that messages and reports show
REASONS = 10  # reasons per file, the most frequent first


@dataclass(frozen=True)
class IngestParams:
    """What ingest depends on: the kind of dump, its encoding, and the content of its files."""

    kind: str
    encoding: str
    files: tuple[Mapping[str, str], ...]  # label, role and sha256 of each file, in order
    paths: tuple[str, ...] = field(metadata={"keyed": False})

    def of_role(self, role: str) -> list[RawFile]:
        """Give the files with one role, in order."""
        return [
            RawFile(Path(path), entry["label"], entry["role"])
            for path, entry in zip(self.paths, self.files, strict=True)
            if entry["role"] == role
        ]


@dataclass
class FileTally:
    """What came out of one file."""

    rows: int = 0
    rejects: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: list[dict[str, Any]] = field(default_factory=list)

    def add_rejects(self, rejects: pa.Table) -> None:
        """Count rejected rows and remember the first few."""
        self.rejects += len(rejects)
        self.reasons.update(rejects["reason"].to_pylist())
        wanted = EXAMPLES - len(self.examples)
        columns = ["source_row", "reason", "raw"]
        self.examples += rejects.select(columns).slice(0, wanted).to_pylist()

    def facts(self) -> dict[str, Any]:
        """Give the tally as JSON."""
        reasons = dict(self.reasons.most_common(REASONS))
        return {
            "rows": self.rows,
            "rejects": self.rejects,
            "reasons": reasons,
            "examples": self.examples,
        }


def run(work: Work) -> Outcome:
    """Read every raw file into `raw_interactions`, `raw_items` and `rejects`."""
    params: IngestParams = work.params
    source = source_named(params.kind)
    tally: dict[str, FileTally] = {}
    rejects: list[pa.Table] = []

    with connect(spill=work.out.spill, memory=work.resources.memory) as connection:

        def records(of_role: Iterable[RawFile]) -> Iterator[pa.Table]:
            for file in of_role:
                seen = tally[file.label] = FileTally()
                for parsed in source.parse(connection, file, params.encoding):
                    seen.rows += len(parsed.records) + len(parsed.rejects)
                    if len(parsed.rejects):
                        seen.add_rejects(parsed.rejects)
                        rejects.append(parsed.rejects)
                    yield parsed.records

        interactions = work.out.write(
            RAW_INTERACTIONS,
            (batch for table in records(params.of_role("interactions")) for batch in table.to_batches()),
        )
        described = pa.concat_tables(list(records(params.of_role("items"))))
        items, conflicting = _one_per_item(connection, described)
    _check_unchanged(params)
    work.out.write(RAW_ITEMS, items)
    rejected = pa.concat_tables([table.select(REJECTS.names) for table in [*rejects, conflicting]])
    rejected = rejected.sort_by([("source_file", "ascending"), ("source_row", "ascending")])
    work.out.write(REJECTS, rejected)
    facts = {
        "files": {label: seen.facts() for label, seen in tally.items()},
        "interactions": interactions,
        "items": len(items),
        "repeated_descriptions": len(described) - len(items),
        "conflicting_descriptions": len(conflicting),
        "rejects": len(rejected),
    }
    parts = [count(interactions, "interaction"), count(len(items), "item"), count(len(rejected), "reject")]
    return Outcome(facts, ", ".join(parts))


def _one_per_item(connection: duckdb.DuckDBPyConnection, described: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Give one row per item, and as rejects the rows that say something else of it.

    The row first in text order stays; row order has no say. A row that repeats it is no reject.
    """
    content = ["title", "description", "brand", "price", "category_path", "image_ref", "domain"]
    order = ", ".join([*content, "source_file", "source_row"])
    differs = " or ".join(f"other.{name} is distinct from kept.{name}" for name in content)
    connection.register("described", described)
    connection.execute(f"""
        create temp table kept as from described qualify row_number() over (
            partition by item_id order by {order}) = 1""")
    items = connection.sql("from kept order by item_id").to_arrow_table()
    conflicting = connection.sql(f"""
        select other.source_file, other.source_row, other.raw,
            format('item {{}} is described in another way too, which was kept: {{}}', item_id, kept.raw)
                as reason
        from described as other join kept using (item_id) where {differs}""").to_arrow_table()
    connection.unregister("described")
    return items, conflicting


def _check_unchanged(params: IngestParams) -> None:
    """Raise SourceError where a file is no longer what the plan hashed: its key would be untrue."""
    for path, entry in zip(params.paths, params.files, strict=True):
        if files.sha256(Path(path)) != entry["sha256"]:
            raise SourceError(f"{path}: changed while it was read. Run again once it is complete")


def check_rejects(facts: Mapping[str, Any], max_reject_rate: float) -> None:
    """Raise DataError where a file lost more rows than allowed, showing the first and why."""
    for label, seen in facts["files"].items():
        if seen["rejects"] <= max_reject_rate * seen["rows"]:
            continue
        rate = seen["rejects"] / seen["rows"]
        first = seen["examples"][0]
        raise DataError(
            f"{label}: {seen['rejects']:,} of {seen['rows']:,} rows rejected ({rate:.1%}, allowed "
            f"{max_reject_rate:.1%}). First: row {first['source_row']}: {first['reason']}, got "
            f"{first['raw'][:120]!r}. Mend the file or [source], or raise [clean] max_reject_rate"
        )


STAGE = Stage("ingest", revision=2, parents=(), run=run)
