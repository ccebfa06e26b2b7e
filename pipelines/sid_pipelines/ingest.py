"""Ingest: raw files to Parquet, every line a record or a reject with its reason.

Nothing is judged here beyond being readable; `clean` decides what stays. An item that a dump
describes twice keeps the description that comes first in text order, whatever the row order, and the
other goes to the rejects.
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
from sid_schemas import DataError
from sid_schemas.tables import RAW_INTERACTIONS, RAW_ITEMS, REJECTS
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

        def records(files: Iterable[RawFile]) -> Iterator[pa.Table]:
            for file in files:
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
        kept, repeated = _one_per_item(connection, described)
    for row in repeated.to_pylist():
        tally[row["source_file"]].add_rejects(pa.Table.from_pylist([row], repeated.schema))
    items = work.out.write(RAW_ITEMS, kept)
    rejected = work.out.write(
        REJECTS, (batch for table in [*rejects, repeated] for batch in table.to_batches())
    )
    facts = {
        "files": {label: seen.facts() for label, seen in tally.items()},
        "interactions": interactions,
        "items": items,
        "rejects": rejected,
    }
    parts = [count(interactions, "interaction"), count(items, "item"), count(rejected, "reject")]
    return Outcome(facts, ", ".join(parts))


def _one_per_item(connection: duckdb.DuckDBPyConnection, described: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Give one row per item, and the other rows as rejects. Row order has no say in which stays."""
    content = "title, description, brand, price, category_path, image_ref, domain"
    connection.register("described", described)
    connection.execute(f"""
        create or replace temp table ranked as
        select *, row_number() over (
            partition by item_id order by {content}, source_file, source_row) as place,
            first(title) over (
            partition by item_id order by {content}, source_file, source_row) as kept_title
        from described""")
    kept = connection.sql("from ranked where place = 1 order by item_id").to_arrow_table()
    repeated = connection.sql("""
        select source_file, source_row,
            'item ' || item_id || ' is described more than once; kept ''' ||
                coalesce(kept_title, '') || '''' as reason,
            item_id || ': ' || coalesce(title, '') as raw
        from ranked where place > 1 order by source_file, source_row""").to_arrow_table()
    connection.unregister("described")
    return kept, repeated


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


STAGE = Stage("ingest", revision=1, parents=(), run=run)
