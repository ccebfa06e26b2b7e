"""Tables as folders of Parquet parts: strict schema in, the same bytes for the same rows out.

A table is `<folder>/<table>/part-*.parquet`, which pandas, polars, Spark, pyarrow and DuckDB all open
as one table. Rows are cut into row groups and parts by count alone, so batch sizes leave no trace.
"""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sid_schemas import Table, WarehouseError
from sid_warehouse import files

ROWS_PER_GROUP = 131_072
ROWS_PER_PART = 64 * ROWS_PER_GROUP
IPC_BATCH = 65_536


def parts(folder: Path, table: str) -> list[Path]:
    """Give the parts of a table in order; raises WarehouseError where there are none."""
    found = sorted(part for part in (folder / table).glob("part-*.parquet") if part.is_file())
    if not found:
        raise WarehouseError(f"{folder}: holds no table {table!r}; there are: {_tables(folder)}")
    return found


def _tables(folder: Path) -> str:
    names = sorted({path.parent.name for path in folder.glob("*/part-*.parquet")})
    return ", ".join(names) or "none"


def read(folder: Path, table: str, columns: list[str] | None = None) -> pa.Table:
    """Read a table, all of it or some columns, rows in stored order."""
    with _readable(folder, table):
        return pa.concat_tables([pq.read_table(part, columns=columns) for part in parts(folder, table)])


def rows(folder: Path, table: str) -> int:
    """Give the number of rows from the footers alone."""
    with _readable(folder, table):
        return sum(pq.read_metadata(part).num_rows for part in parts(folder, table))


@contextmanager
def _readable(folder: Path, table: str) -> Iterator[None]:
    """Turn what pyarrow says of files that are no Parquet, or not of one table, into one line."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        said = str(error).partition("\n")[0]
        raise WarehouseError(
            f"{folder / table}: cannot be read as a table ({said}). Restore its parts from a copy, or make "
            "the folder anew"
        ) from error


def write(
    folder: Path, table: Table, batches: pa.Table | Iterable[pa.RecordBatch], *, first_part: int = 0
) -> int:
    """Write a table in its own schema and give the number of rows.

    first_part: the number of its first part, where there are others before it. A column that is missing, of
    another type, or null where it must not be, is an error of ours and raises ValueError. An empty table is
    one part without rows.
    """
    schema = table.arrow()
    if isinstance(batches, pa.Table):
        batches = batches.to_batches()
    target = folder / table.name
    target.mkdir(parents=True, exist_ok=first_part > 0)
    written, number = 0, first_part
    writer = _writer(target, number, schema)
    try:
        for group in _groups(batches, schema, ROWS_PER_GROUP):
            if written and written % ROWS_PER_PART == 0:
                writer.close()
                number += 1
                writer = _writer(target, number, schema)
            writer.write_table(group, row_group_size=ROWS_PER_GROUP)
            written += len(group)
    finally:
        writer.close()
    return written


def extend(
    folder: Path, table: Table, base: Sequence[Path], batches: pa.Table | Iterable[pa.RecordBatch]
) -> int:
    """Write a table that begins with the parts of another, linked as they are; give the number of all rows.

    Raises ValueError where those parts have another schema.
    """
    (folder / table.name).mkdir(parents=True)
    rows = 0
    for number, part in enumerate(base):
        if not pq.read_schema(part).equals(table.arrow()):
            raise ValueError(f"{part}: expected columns {table.names}, got {pq.read_schema(part).names}")
        rows += pq.read_metadata(part).num_rows
        link(part, folder / table.name / f"part-{number:05d}.parquet")
    if isinstance(batches, pa.Table):
        batches = batches.to_batches()
    there = (batch for batch in batches if batch.num_rows)
    first = next(there, None)
    if first is not None:
        rows += write(folder, table, chain([first], there), first_part=len(base))
    return rows


def link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system cannot."""
    if not files.link(source, target):
        shutil.copyfile(source, target)


def write_ipc(folder: Path, table: Table) -> None:
    """Write the uncompressed twin of a table, `<table>.arrow`, to be memory-mapped.

    Its record batches have IPC_BATCH rows, the last one fewer. The table streams through.
    """
    schema = table.arrow()
    files = (pq.ParquetFile(part, pre_buffer=False) for part in parts(folder, table.name))
    batches = (batch for file in files for batch in file.iter_batches())
    path = folder / f"{table.name}.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for group in _groups(batches, schema, IPC_BATCH):
            writer.write_table(group)


def _writer(folder: Path, number: int, schema: pa.Schema) -> pq.ParquetWriter:
    # Dictionaries and statistics of random floats are waste; splitting their bytes helps zstd, but DuckDB
    # reads no float16 that is split.
    vectors = [field for field in schema if _is_vector(field)]
    floats = [f"{field.name}.list.element" for field in vectors if field.type.value_type == pa.float32()]
    plain = [field.name for field in schema if field not in vectors]
    return pq.ParquetWriter(
        folder / f"part-{number:05d}.parquet",
        schema,
        compression="zstd",
        use_dictionary=plain if vectors else True,
        use_byte_stream_split=floats or False,
    )


def _is_vector(field: pa.Field) -> bool:
    return bool(pa.types.is_fixed_size_list(field.type))


def _groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema, size: int) -> Iterator[pa.Table]:
    """Cut batches of any size into tables of `size` rows, the last one shorter."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        held.append(conform(batch, schema))
        count += batch.num_rows
        while count >= size:
            table = pa.Table.from_batches(held, schema)
            yield table.slice(0, size).combine_chunks()
            held = table.slice(size).to_batches()
            count -= size
    if count:
        yield pa.Table.from_batches(held, schema).combine_chunks()


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Cast a batch to a schema, by column name; raises ValueError where that loses something."""
    columns = []
    for field in schema:
        column = batch.column(field.name)
        if not field.nullable and column.null_count:
            raise ValueError(f"column {field.name!r} holds {column.null_count} nulls")
        columns.append(column if column.type == field.type else pc.cast(column, field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)
