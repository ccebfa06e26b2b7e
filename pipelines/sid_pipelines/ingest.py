"""Ingest: raw files to Parquet; every line becomes a record, is left out for a stated reason, or a reject.

Nothing is judged here beyond being readable; `clean` decides what stays. Of an item that a dump
describes in several ways the description first in text order stays, whatever the row order, and the
others go to the rejects. Everything streams: what must wait is spilled to disk.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa

from sid_pipelines.sources import RawFile, ReadOptions, Source, source_named
from sid_pipelines.sources.base import ROLES, Parsed
from sid_pipelines.sources.lines import ahead
from sid_pipelines.stage import Outcome, Stage, Work, count
from sid_pipelines.tallies import FileTally, Spilled
from sid_schemas import DataError, SourceError, Table
from sid_schemas.tables import RAW_IMPRESSIONS, RAW_INTERACTIONS, RAW_ITEM_PAIRS, RAW_ITEMS, REJECTS
from sid_warehouse import files
from sid_warehouse.db import connect, quote

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

    def passes_over(self, file: RawFile) -> bool:
        """Say whether a file is empty and may be."""
        return self.empty == "keep" and not file.path.stat().st_size

    def hashes(self) -> dict[str, str]:
        """Give the SHA-256 that each path had when the run was planned."""
        return {path: one["sha256"] for path, one in zip(self.paths, self.files, strict=True)}


Write = Callable[[Table, pa.Table | Iterable[pa.RecordBatch]], int]


def run(work: Work) -> Outcome:
    """Read every raw file into `raw_interactions`, `raw_items`, `rejects`, and what else the dump has."""
    params: IngestParams = work.params
    with connect(spill=work.out.spill, memory=work.resources.duckdb) as connection:
        outcome = read_dump(params, connection, work.out.spill, work.out.write)
        for path, sha256 in params.hashes().items():
            check_unchanged(path, sha256)
    return outcome


def read_dump(
    params: IngestParams, connection: duckdb.DuckDBPyConnection, spill: Path, write: Write
) -> Outcome:
    """Read all files and write all tables; raises SourceError for a file that cannot be read."""
    reading = Reading(params, connection, spill)
    reading.stage_own_roles()
    counts = {"interactions": write(RAW_INTERACTIONS, reading.records("interactions"))}
    if "impressions" in reading.filled:
        counts["impressions"] = write(RAW_IMPRESSIONS, reading.records("impressions"))
    described = Spilled(spill / "items.parquet")
    for batch in reading.records("items"):
        described.add(pa.Table.from_batches([batch]))
    if described.rows:
        counts |= write_items(
            connection, described.close(), reading.rejects, write, pairs=has_pairs(reading.source)
        )
    else:
        write(RAW_ITEMS, RAW_ITEMS.arrow().empty_table())
    source = reading.rejects.close() if reading.rejects.rows else None
    counts["rejects"] = write_rejects(connection, source, write)
    return told(reading.tally, counts, described.rows)


def told(tally: Mapping[str, FileTally], counts: Mapping[str, int], described: int) -> Outcome:
    """Say what came out: by file, rows by table (and `conflicts` of items), and rows that describe items."""
    interactions, items = counts["interactions"], counts.get("items", 0)
    also = {name: counts[name] for name in ("impressions", "item_pairs") if name in counts}
    facts = {
        "files": {label: seen.facts() for label, seen in tally.items()},
        "interactions": interactions,
        "items": items,
        "repeated_descriptions": described - items,
        "conflicting_descriptions": counts.get("conflicts", 0),
        "rejects": counts["rejects"],
        "also": also,
    }
    said = [count(interactions, "interaction"), count(items, "item")]
    said += [count(number, name.removesuffix("s").replace("_", " ")) for name, number in also.items()]
    said.append(count(counts["rejects"], "reject"))
    cut = [label for label, seen in tally.items() if seen.cut_off]
    return Outcome(facts, ", ".join(said) + (f"; cut off: {', '.join(cut)}" if cut else ""))


class Reading:
    """The files of a dump on their way: records by role, tallies, and rejects on the side."""

    def __init__(self, params: IngestParams, connection: duckdb.DuckDBPyConnection, spill: Path) -> None:
        """Take what is to be read."""
        self.params, self.files, self.source = params, params.raw_files(), params.source()
        self.options = ReadOptions(params.encoding, params.truncated)
        self.connection, self.spill = connection, spill
        self.tally: dict[str, FileTally] = {}
        self.rejects = Spilled(spill / "rejects.parquet")
        own = {file.role for file in self.files}
        self.filled = own | {role for role in self.source.derived if own & own_roles(self.source)}

    def stage_own_roles(self) -> None:
        """Read what is no role of ours into views named by its role, for the source's SQL."""
        for role in sorted(own_roles(self.source)):
            staged = Spilled(self.spill / f"{role}.parquet")
            for batch in self._parsed(role):
                staged.add(pa.Table.from_batches([batch]))
            # Where no file of the role is there, or none gave a batch, the source's SQL still needs the view.
            [layout] = [layout for layout in self.source.layouts if layout.role == role][:1]
            rows = f"from {staged.close()}" if staged.started else layout.nothing()
            self.connection.execute(f"create view {quote(role)} as {rows}")

    def records(self, role: str) -> Iterator[pa.RecordBatch]:
        """Yield the records of a role: those of its files, then those derived."""
        yield from self._parsed(role)
        if role in self.source.derived and own_roles(self.source) & {file.role for file in self.files}:
            yield from self.connection.sql(self.source.derived[role]).to_arrow_reader()

    def _parsed(self, role: str) -> Iterable[pa.RecordBatch]:
        for file in self.files:
            if file.role != role:
                continue
            seen = self.tally[file.label] = FileTally()
            if self.params.passes_over(file):
                continue
            yield from tallied(self.source.parse(self.connection, file, self.options), seen, self.rejects)
            seen.check(file.label)


def own_roles(source: Source) -> set[str]:
    """Give the roles of a source that are none of ours: its SQL makes ours of them, of a whole dump."""
    return {layout.role for layout in source.layouts} - set(ROLES)


def has_pairs(source: Source) -> bool:
    """Say whether a source tells of pairs of items."""
    return any("pairs" in layout.columns for layout in source.layouts)


def tallied(parsed: Iterator[Parsed], seen: FileTally, rejects: Spilled) -> Iterator[pa.RecordBatch]:
    """Yield the records of what is parsed, count all of it, and set the rejects aside."""
    # A thread parses the batch after, while this one writes the batch before.
    for one in ahead(parsed):
        seen.rows += one.lines - one.headers
        seen.headers += one.headers
        seen.skipped.update(one.skipped)
        if len(one.rejects):
            seen.add_rejects(one.rejects)
            rejects.add(one.rejects.select(REJECTS.names))
        if one.records.num_columns:
            seen.add_records(one.records)
            empty = pa.RecordBatch.from_pylist([], one.records.schema)
            yield from one.records.to_batches() or [empty]
        else:
            seen.cut_off = True


def write_items(
    connection: duckdb.DuckDBPyConnection, source: str, rejects: Spilled, write: Write, *, pairs: bool
) -> dict[str, int]:
    """Write one row per item, what is said of pairs, and as rejects the rows that say something else.

    source: SQL of all rows that describe these items. The row first in text order stays; row order has no
    say. A row that repeats it is no reject. Pairs are taken from all rows.
    """
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
        rejects.add(pa.Table.from_batches([batch]).select(REJECTS.names))
    connection.execute(f"""
        create temp view one_each as
        from {source} anti join repeated using (item_id) union all by name from kept""")
    columns = ", ".join(RAW_ITEMS.names)
    items = connection.sql(f"select {columns} from one_each order by item_id")
    counts = {"items": write(RAW_ITEMS, items.to_arrow_reader()), "conflicts": conflicts}
    if pairs:
        paired = connection.sql(f"""
            select distinct item_id, pair.other as other_id, pair.kind as kind
            from (select item_id, unnest(pairs) as pair from {source})
            where pair.other is not null and trim(pair.other) <> '' and pair.other <> item_id
            order by item_id, kind, other_id""")
        counts["item_pairs"] = write(RAW_ITEM_PAIRS, paired.to_arrow_reader())
    return counts


def write_rejects(connection: duckdb.DuckDBPyConnection, source: str | None, write: Write) -> int:
    """Write the rejects, of which SQL tells, by file and row; None where there are none."""
    if source is None:
        return write(REJECTS, REJECTS.arrow().empty_table())
    ordered = connection.sql(f"select * from {source} order by source_file, source_row, reason")
    return write(REJECTS, ordered.to_arrow_reader())


def check_unchanged(path: str, sha256: str) -> None:
    """Raise SourceError where a file is no longer what the plan hashed: its key would be untrue."""
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


STAGE = Stage("ingest", revision=8, parents=(), run=run)
