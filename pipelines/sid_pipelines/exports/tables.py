"""What every table format needs of a release: whose folder it is, and tables as streams of plain columns.

No format here has fixed-size lists or 16-bit floats: both become lists of float32, so the width of a vector
is no longer in its type. Row order is kept on disk, but a format's readers need not keep it: sort by the key.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sid_schemas import RecipeError, WarehouseError
from sid_warehouse import files, locks, parquet
from sid_warehouse.reader import Release

MARK, LOCK = "sidmill-export.json", ".lock"  # whose folder it is, and whose turn
FINGERPRINT = "sidmill.fingerprint"
BATCH = 8192  # rows read at a time
GROUP_BYTES = 32 << 20  # of vectors in a row group: writers hold a whole one
TABLE = re.compile(r"[a-z][a-z0-9_]{0,99}")


@dataclass(frozen=True)
class Exported:
    """One table that is there now. version: the format's own. written: false where it was there before."""

    table: str
    rows: int
    version: int
    written: bool


def known_tables(release: Release, named: Sequence[str] | None) -> list[str]:
    """Give the tables to export, in order, or raise RecipeError where a release has none of that name."""
    there = sorted(release.record.get("rows", {}))
    for name in named or there or [""]:
        if name not in there or not TABLE.fullmatch(name):
            raise RecipeError(
                f"{release.ref}: no table {name!r} to export; there are: {', '.join(there) or 'none'}"
            )
    return list(dict.fromkeys(named or there))


@contextmanager
def claimed(to: Path, name: str, release: Release) -> Iterator[None]:
    """Hold an export's folder alone, made and marked where it is new; raises RecipeError for another's."""
    mark = {"format": name, "dataset": release.record["dataset"]}
    _is_new(to, mark)  # before anything is written there
    try:
        with locks.alone(to / LOCK):
            if _is_new(to, mark):
                with files.writing(to) as scratch:
                    files.write_json(scratch / MARK, mark)
                    (scratch / MARK).replace(to / MARK)
            yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise WarehouseError(
            f"{to}: cannot be written ({reason}). Choose another folder with --to"
        ) from error


def _is_new(to: Path, mark: Mapping[str, str]) -> bool:
    if to.exists() and not to.is_dir():
        raise RecipeError(f"{to}: is no folder; expected a new or empty one, or an earlier export")
    found = sorted(path.name for path in to.glob("*") if not path.name.startswith("."))
    if found and MARK not in found:
        raise RecipeError(f"{to}: holds {found[0]!r}; expected a new or empty folder, or an earlier export")
    if found and (theirs := files.read_json(to / MARK)) != mark:
        raise RecipeError(f"{to}: is an export of {theirs}; expected {mark}. Choose another folder with --to")
    return not found


def stamp(release: Release) -> dict[str, str]:
    """Give what every commit says of its release."""
    return {"sidmill.ref": release.ref, FINGERPRINT: release.record["fingerprint"]}


def schema_of(release: Release, table: str, note: str) -> pa.Schema:
    """Give the plain schema of a table; what each column means, with its unit, stands under `note`."""
    schema = pq.read_schema(parquet.parts(release.folder, table)[0])
    return pa.schema([_plain(field, note) for field in schema])


def _plain(field: pa.Field, note: str) -> pa.Field:
    kind = field.type
    if pa.types.is_fixed_size_list(kind):
        half = pa.types.is_float16(kind.value_type)
        kind = pa.list_(pa.float32() if half else kind.value_type)
    told = {name.decode(): text.decode() for name, text in (field.metadata or {}).items()}
    meaning, unit = told.get("description", ""), told.get("unit")
    metadata = {note: f"{meaning}; {unit}" if unit else meaning} if meaning else None
    return pa.field(field.name, kind, nullable=field.nullable, metadata=metadata)


def meaning(release: Release, table: str) -> str:
    """Give what a row of a table is."""
    schema = pq.read_schema(parquet.parts(release.folder, table)[0])
    told: bytes = (schema.metadata or {}).get(b"description", b"")
    return told.decode()


def batches(part: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a part in a plain schema, in stored order, BATCH at a time."""
    for batch in pq.ParquetFile(part, pre_buffer=False).iter_batches(BATCH):
        columns = [pc.cast(batch.column(field.name), field.type) for field in schema]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def rows_per_group(release: Release, table: str) -> int:
    """Give how many rows a row group of the copy may have, so that one of vectors is not huge."""
    schema = pq.read_schema(parquet.parts(release.folder, table)[0])
    widths: list[int] = [field.type.list_size for field in schema if pa.types.is_fixed_size_list(field.type)]
    return max(BATCH, min(parquet.ROWS_PER_GROUP, GROUP_BYTES // (4 * max([1, *widths]))))


def check_intact(release: Release, table: str) -> int:
    """Give a table's number of rows, or raise WarehouseError where it is not what was published."""
    for part in parquet.parts(release.folder, table):
        entry = release.record["files"].get(part.relative_to(release.folder).as_posix(), {})
        if entry.get("sha256") != files.sha256_once(part):
            raise WarehouseError(
                f"{part}: is not what was published. Run `sidmill verify {release.ref}`; nothing of this "
                "table was exported"
            )
    rows, expected = parquet.rows(release.folder, table), int(release.record["rows"][table])
    if rows != expected:
        raise WarehouseError(f"{release.folder / table}: expected {expected:,} rows, got {rows:,}")
    return rows
