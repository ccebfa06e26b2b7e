"""Ingest: raw files to Parquet; every line becomes a record, is left out for a stated reason, or a reject.

Nothing is judged here beyond being readable; `clean` decides what stays. Of an item that a dump
describes in several ways the description first in text order stays, whatever the row order, and the
others go to the rejects. Everything streams: what must wait is spilled to disk.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sid_pipelines.sources import RawFile, ReadOptions, Source, source_named
from sid_pipelines.sources.fields import OTHER_UNIT
from sid_pipelines.sources.lines import ahead
from sid_pipelines.stage import Outcome, Stage, Work, count
from sid_schemas import DataError, SourceError
from sid_schemas.tables import RAW_IMPRESSIONS, RAW_INTERACTIONS, RAW_ITEM_PAIRS, RAW_ITEMS, REJECTS
from sid_warehouse import files
from sid_warehouse.db import connect, quote, scan

EXAMPLES = 3  # rejects per file that messages and reports show
REASONS = 10  # reasons per file, the most frequent first
DESCRIBED = ("title", "description", "brand", "price", "category_path", "image_ref", "domain")


@dataclass(frozen=True)
class IngestParams:
    """What ingest depends on: the kind of dump and its options, how it is read, and its files' content."""

    kind: str
    options: Mapping[str, Any]
    encoding: str
    truncated: Literal["error", "keep"]
    empty: Literal["error", "keep"]
    files: tuple[Mapping[str, Any], ...]  # label, role, layout, part, member and sha256 of each, in order
    paths: tuple[str, ...] = field(metadata={"keyed": False})

    def source(self) -> Source:
        """Give the source with its options."""
        return source_named(self.kind)(**self.options)

    def raw_files(self) -> list[RawFile]:
        """Give the files in order."""
        return [
            RawFile(Path(path), one["label"], one["role"], one["layout"], one["part"], one["member"])
            for path, one in zip(self.paths, self.files, strict=True)
        ]


@dataclass
class FileTally:
    """What came out of one file: rows = records + skipped + rejects."""

    rows: int = 0
    records: int = 0
    rejects: int = 0
    headers: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    examples: list[dict[str, Any]] = field(default_factory=list)
    cut_off: bool = False
    first_time: tuple[int, int] | None = None  # row and ts of the first record
    other_units: int = 0
    other_unit: dict[str, Any] | None = None  # the first row whose time is of another unit

    def add_records(self, records: pa.Table) -> None:
        """Count records."""
        self.records += len(records)
        if self.first_time is None and len(records) and "ts" in records.column_names:
            self.first_time = (records["source_row"][0].as_py(), records["ts"][0].as_py())

    def add_rejects(self, rejects: pa.Table) -> None:
        """Count rejected rows and remember the first few."""
        self.rejects += len(rejects)
        # Without what was got, which differs from row to row.
        self.reasons.update(reason.split(", got ")[0] for reason in rejects["reason"].to_pylist())
        columns = ["source_row", "reason", "raw"]
        self.examples += rejects.select(columns).slice(0, EXAMPLES - len(self.examples)).to_pylist()
        other = rejects.filter(pc.match_substring(rejects["reason"], OTHER_UNIT))
        self.other_units += len(other)
        if len(other) and self.other_unit is None:
            [self.other_unit] = other.select(columns).slice(0, 1).to_pylist()

    def check_units(self, label: str) -> None:
        """Raise SourceError where times are of another unit than declared, showing rows."""
        if self.other_unit is None:
            return
        row, raw = self.other_unit["source_row"], self.other_unit["raw"][:120]
        if self.first_time is None:
            raise SourceError(
                f"{label}, row {row}: {self.other_unit['reason']}, and so in all {self.other_units:,} rows, "
                f"as in {raw!r}. Is [source] kind right, and for a table its time_unit?"
            )
        good_row, good = self.first_time
        others = f"{count(self.other_units, 'row')} {'is' if self.other_units == 1 else 'are'} not"
        raise SourceError(
            f"{label}: times in two units. Row {good_row} is as declared ({good} in milliseconds), {others}, "
            f"first row {row}: {self.other_unit['reason']}, as in {raw!r}. Bring the column to one unit"
        )

    def facts(self) -> dict[str, Any]:
        """Give the tally as JSON."""
        return {
            "rows": self.rows,
            "records": self.records,
            "rejects": self.rejects,
            "headers": self.headers,
            "skipped": dict(self.skipped.most_common(REASONS)),
            "reasons": dict(self.reasons.most_common(REASONS)),
            "examples": self.examples,
            "cut_off": self.cut_off,
        }


class Spilled:
    """A table that waits on disk, written batch by batch, read by DuckDB."""

    def __init__(self, path: Path, connection: duckdb.DuckDBPyConnection) -> None:
        """Name the file; it is there once something was added."""
        self.path, self.connection = path, connection
        self.rows = 0
        self._writer: pq.ParquetWriter | None = None

    def add(self, table: pa.Table) -> None:
        """Write rows; the first table decides the schema."""
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self.path, table.schema, compression="zstd")
        self._writer.write_table(table.cast(self._writer.schema))
        self.rows += len(table)

    @property
    def started(self) -> bool:
        """Say whether there is a file, which may hold no row."""
        return self._writer is not None

    def close(self) -> str:
        """End the file and give the SQL that reads it."""
        assert self._writer is not None
        self._writer.close()
        return scan([self.path])


def run(work: Work) -> Outcome:
    """Read every raw file into `raw_interactions`, `raw_items`, `rejects`, and what else the dump has."""
    params: IngestParams = work.params
    with connect(spill=work.out.spill, memory=work.resources.duckdb) as connection:
        reading = Reading(params, connection, work.out.spill)
        reading.stage_own_roles()
        counts = {}
        interactions = reading.records("interactions")
        counts["interactions"] = work.out.write(RAW_INTERACTIONS, interactions)
        if "impressions" in reading.filled:
            counts["impressions"] = work.out.write(RAW_IMPRESSIONS, reading.records("impressions"))
        described = Spilled(work.out.spill / "items.parquet", connection)
        for batch in reading.records("items"):
            described.add(pa.Table.from_batches([batch]))
        counts["items"] = counts["conflicts"] = 0
        if described.rows:
            counts |= _write_items(work, connection, described, reading)
        else:
            work.out.write(RAW_ITEMS, RAW_ITEMS.arrow().empty_table())
        _check_unchanged(params)
        rejects = _write_rejects(work, connection, reading.rejects)
    also = {name: counts[name] for name in ("impressions", "item_pairs") if name in counts}
    facts = {
        "files": {label: seen.facts() for label, seen in reading.tally.items()},
        "interactions": counts["interactions"],
        "items": counts["items"],
        "repeated_descriptions": described.rows - counts["items"],
        "conflicting_descriptions": counts["conflicts"],
        "rejects": rejects,
        "also": also,
    }
    said = [count(counts["interactions"], "interaction"), count(counts["items"], "item")]
    said += [count(number, name.removesuffix("s").replace("_", " ")) for name, number in also.items()]
    said.append(count(rejects, "reject"))
    cut = [label for label, seen in reading.tally.items() if seen.cut_off]
    return Outcome(facts, ", ".join(said) + (f"; cut off: {', '.join(cut)}" if cut else ""))


class Reading:
    """The files of a dump on their way: records by role, tallies, and rejects on the side."""

    def __init__(self, params: IngestParams, connection: duckdb.DuckDBPyConnection, spill: Path) -> None:
        """Take what is to be read."""
        self.files, self.source = params.raw_files(), params.source()
        self.options, self.empty = ReadOptions(params.encoding, params.truncated), params.empty
        self.connection, self.spill = connection, spill
        self.tally: dict[str, FileTally] = {}
        self.rejects = Spilled(spill / "rejects.parquet", connection)
        own = {file.role for file in self.files}
        self.filled = own | {role for role in self.source.derived if own & self._staged_roles()}

    def _staged_roles(self) -> set[str]:
        standard = {"interactions", "items", "impressions"}
        return {layout.role for layout in self.source.layouts} - standard

    def stage_own_roles(self) -> None:
        """Read what is no role of ours into views named by its role, for the source's SQL."""
        for role in sorted(self._staged_roles()):
            staged = Spilled(self.spill / f"{role}.parquet", self.connection)
            for batch in self._parsed(role):
                staged.add(pa.Table.from_batches([batch]))
            # Where no file of the role is there, or none gave a batch, the source's SQL still needs the view.
            [layout] = [layout for layout in self.source.layouts if layout.role == role][:1]
            rows = f"from {staged.close()}" if staged.started else layout.nothing()
            self.connection.execute(f"create view {quote(role)} as {rows}")

    def records(self, role: str) -> Iterator[pa.RecordBatch]:
        """Yield the records of a role: those of its files, then those derived."""
        yield from self._parsed(role)
        if role in self.source.derived and self._staged_roles() & {file.role for file in self.files}:
            yield from self.connection.sql(self.source.derived[role]).to_arrow_reader()

    def _parsed(self, role: str) -> Iterable[pa.RecordBatch]:
        for file in self.files:
            if file.role != role:
                continue
            seen = self.tally[file.label] = FileTally()
            if self.empty == "keep" and not file.path.stat().st_size:
                continue
            # A thread parses the batch after, while this one writes the batch before.
            for parsed in ahead(self.source.parse(self.connection, file, self.options)):
                seen.rows += parsed.lines - parsed.headers
                seen.headers += parsed.headers
                seen.skipped.update(parsed.skipped)
                if len(parsed.rejects):
                    seen.add_rejects(parsed.rejects)
                    self.rejects.add(parsed.rejects.select(REJECTS.names))
                if parsed.records.num_columns:
                    seen.add_records(parsed.records)
                    empty = pa.RecordBatch.from_pylist([], parsed.records.schema)
                    yield from parsed.records.to_batches() or [empty]
                else:
                    seen.cut_off = True
            lost = seen.rows - seen.records - seen.rejects - sum(seen.skipped.values())
            assert lost == 0, f"{file.label}: {lost} lines lost"
            seen.check_units(file.label)


def _write_items(
    work: Work, connection: duckdb.DuckDBPyConnection, described: Spilled, reading: Reading
) -> dict[str, int]:
    """Write one row per item, what is said of pairs, and as rejects the rows that say something else.

    The row first in text order stays; row order has no say. A row that repeats it is no reject. Pairs are
    taken from all rows.
    """
    source = described.close()
    order = ", ".join([*DESCRIBED, "source_file", "source_row"])
    differs = " or ".join(f"other.{name} is distinct from kept.{name}" for name in DESCRIBED)
    connection.execute(f"""
        create temp table repeated as select item_id from {source} group by item_id having count(*) > 1;
        create temp table kept as from (from {source} semi join repeated using (item_id))
            qualify row_number() over (partition by item_id order by {order}) = 1""")
    conflicts = 0
    conflicting = connection.sql(f"""
        select other.source_file, other.source_row, other.raw,
            'item ' || item_id || ' is described in another way too, which was kept: ' || left(kept.raw, 500)
                as reason
        from {source} as other join kept using (item_id) where {differs}""")
    for batch in conflicting.to_arrow_reader():
        conflicts += batch.num_rows
        reading.rejects.add(pa.Table.from_batches([batch]).select(REJECTS.names))
    connection.execute(f"""
        create temp view one_each as
        from {source} anti join repeated using (item_id) union all by name from kept""")
    columns = ", ".join(RAW_ITEMS.names)
    items = connection.sql(f"select {columns} from one_each order by item_id")
    counts = {"items": work.out.write(RAW_ITEMS, items.to_arrow_reader()), "conflicts": conflicts}
    pairs = connection.sql(f"""
        select distinct item_id, pair.other as other_id, pair.kind as kind
        from (select item_id, unnest(pairs) as pair from {source})
        where pair.other is not null and trim(pair.other) <> '' and pair.other <> item_id
        order by item_id, kind, other_id""")
    if any("pairs" in layout.columns for layout in reading.source.layouts):
        counts["item_pairs"] = work.out.write(RAW_ITEM_PAIRS, pairs.to_arrow_reader())
    return counts


def _write_rejects(work: Work, connection: duckdb.DuckDBPyConnection, rejects: Spilled) -> int:
    if not rejects.rows:
        return work.out.write(REJECTS, REJECTS.arrow().empty_table())
    ordered = connection.sql(f"select * from {rejects.close()} order by source_file, source_row, reason")
    return work.out.write(REJECTS, ordered.to_arrow_reader())


def _check_unchanged(params: IngestParams) -> None:
    """Raise SourceError where a file is no longer what the plan hashed: its key would be untrue."""
    for path, sha256 in {
        path: one["sha256"] for path, one in zip(params.paths, params.files, strict=True)
    }.items():
        if files.sha256(Path(path)) != sha256:
            raise SourceError(f"{path}: changed while it was read. Run again once it is complete")


def check_rejects(facts: Mapping[str, Any], max_reject_rate: float) -> None:
    """Raise DataError where a file lost more rows than allowed, showing the first and why."""
    for label, seen in facts["files"].items():
        # The line a truncated file ends in was asked for with the file.
        if seen["rejects"] - seen["cut_off"] <= max_reject_rate * seen["rows"]:
            continue
        rate = seen["rejects"] / seen["rows"]
        first = seen["examples"][0]
        raise DataError(
            f"{label}: {seen['rejects']:,} of {seen['rows']:,} rows rejected ({rate:.1%}, allowed "
            f"{max_reject_rate:.1%}). First: row {first['source_row']}: {first['reason']}, got "
            f"{first['raw'][:120]!r}. Mend the file or [source], or raise [clean] max_reject_rate"
        )


STAGE = Stage("ingest", revision=6, parents=(), run=run)
