"""Raw files by pieces: a file is cut, its pieces are parsed apart, and it is checked once all are read.

    cut (a file) -> parse (a piece) -> close (a file, or REST: descriptions and rejects, see described.py)

The first job of ingest.py. Where a file may be cut is said by pieces.py, what lines mean by the source.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa

from sid_pipelines.ingest import IngestParams, check_unchanged, has_pairs, read_dump, tallied
from sid_pipelines.sharded.job import Task
from sid_pipelines.sharded.shards import numbered
from sid_pipelines.sharded.stages.described import DESCRIBED, REJECTED, REST, close_rest, send_spilled
from sid_pipelines.sharded.stages.pieces import Cut, PieceReader, cut, is_plain, text_of
from sid_pipelines.sharded.tables import pass_parts, send_parts
from sid_pipelines.sources import RawFile, ReadOptions
from sid_pipelines.tallies import FileTally, Spilled
from sid_schemas.tables import RAW_IMPRESSIONS, RAW_INTERACTIONS, RAW_ITEM_PAIRS, RAW_ITEMS, REJECTS
from sid_warehouse import parquet

TABLES = {
    "interactions": RAW_INTERACTIONS,
    "impressions": RAW_IMPRESSIONS,
    "items": RAW_ITEMS,
    "item_pairs": RAW_ITEM_PAIRS,
    "rejects": REJECTS,
}


@dataclass(frozen=True)
class Plan:
    """What the tasks are told.

    size: bytes of a piece; whole: of a file that is not cut; count: shards of items, 0 where their number
    decides.
    """

    ingest: IngestParams
    size: int
    whole: int
    count: int

    @property
    def paths(self) -> list[str]:
        """Give the files on disk, of which a zip may hold several raw files."""
        return list(self.ingest.hashes())


def read_whole(task: Task) -> dict[str, Any]:
    """Read a dump that is not divided, as the local stage does."""
    params: IngestParams = task.params.ingest
    with task.connect() as connection:
        outcome = read_dump(params, connection, task.spill, partial(parquet.write, task.out))
    for path, sha256 in params.hashes().items():
        check_unchanged(path, sha256)
    for table in TABLES.values():
        if (task.out / table.name).is_dir():
            send_parts(task, table)
    return {"facts": outcome.facts, "summary": outcome.summary}


def cut_file(task: Task) -> dict[str, Any]:
    """Cut one raw file into pieces, each of which is a task."""
    plan: Plan = task.params
    file = plan.ingest.raw_files()[int(task.key)]
    how = _how(task, plan, file)
    how.write(task.out / "cut.json")
    for number in range(len(how.pieces) or 1):
        key = f"{task.key}-{numbered(number)}"
        task.emit(key, task.out / "cut.json", name="cut")
        if how.way == "text":
            task.emit(key, text_of(task.out, number), name="text")
    return {"lines": sum(piece.lines for piece in how.pieces), "way": how.way}


def _how(task: Task, plan: Plan, file: RawFile) -> Cut:
    """Cut a file where it can be."""
    params = plan.ingest
    if params.passes_over(file):
        return Cut("nothing", {}, "")
    source, options = params.source(), ReadOptions(params.encoding, params.truncated)
    # One object is told of the first file of the role too, with which the others must agree.
    alike = [one for one in params.raw_files() if one.role == file.role and not params.passes_over(one)]
    with task.connect() as connection:
        for one in dict.fromkeys([alike[0], file]):
            known, own = source.told(connection, one, options)
    opened, reader = source.opened(file, known, own)
    layout = opened.layouts[file.layout]
    small = not is_plain(reader) and file.path.stat().st_size <= plan.whole
    if small or not layout.form.has_lines(reader):
        return Cut("file", known, own.encoding)
    way, pieces = cut(reader, task.out, plan.size)
    how = Cut(way, known, own.encoding, pieces, cut_off=reader.cut is not None)
    if not layout.form.headed or len(pieces) == 1:
        return how
    text = text_of(task.out, 0) if way == "text" else None
    first = next(PieceReader(layout.reader(file, own), how, 0, text).batches())
    return replace(how, header=first.column("raw")[0].as_py())


def parse(task: Task) -> dict[str, Any]:
    """Parse one piece of a file: records to tables, descriptions of items and rejects on the side."""
    plan: Plan = task.params
    params, (number, piece) = plan.ingest, map(int, task.key.split("-"))
    described, *text = task.paths
    how, file, seen = Cut.load(described), params.raw_files()[number], FileTally()
    closing = numbered(plan.paths.index(str(file.path)))
    task.emit(closing)
    if how.way == "nothing":
        return {"tally": vars(seen), "lines": 0}
    source, reader = params.source().opened(file, how.told, ReadOptions(how.encoding, params.truncated))
    if how.pieces:
        reader = PieceReader(reader, how, piece, text[0] if text else None)
    items, rejects = (Spilled(task.out / f"{name}.parquet") for name in (DESCRIBED, REJECTED))
    with task.connect() as connection:
        records = tallied(source.read(connection, file, reader), seen, rejects)
        if file.role == "items":
            for batch in records:
                items.add(pa.Table.from_batches([batch]))
        else:
            parquet.write(task.out, TABLES[file.role], records)
            send_parts(task, TABLES[file.role], closing)
    for spilled in (items, rejects):
        send_spilled(task, spilled, REST)
    return {"tally": vars(seen), "lines": reader.row - reader.first if how.pieces else 0}


def close(task: Task) -> dict[str, Any]:
    """Check that a file is what was planned, and send its parts on; or see to descriptions and rejects."""
    plan: Plan = task.params
    if task.key == REST:
        return close_rest(task, plan.count, pairs=has_pairs(plan.ingest.source()))
    path = plan.paths[int(task.key)]
    check_unchanged(path, plan.ingest.hashes()[path])
    pass_parts(task, RAW_INTERACTIONS, RAW_IMPRESSIONS)
    return {}
