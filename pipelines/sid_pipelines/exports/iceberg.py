"""Iceberg: one Iceberg table per table of a release, in a catalog of one SQLite file, `catalog.db`.

Like delta.py a table's snapshot is a commit of its own and names its release. Unlike it, paths in an Iceberg
table are absolute: the folder cannot be moved. Files are written here and then added, all in one snapshot:
pyiceberg's own streaming writer takes the whole stream into memory (0.12.0, executor.map over the batches).
"""

import uuid
import warnings
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from sid_pipelines.exports.tables import (
    BATCH,
    FINGERPRINT,
    Exported,
    batches,
    check_intact,
    meaning,
    rows_per_group,
    schema_of,
    stamp,
)
from sid_schemas import MissingExtraError, RecipeError, WarehouseError
from sid_warehouse import parquet
from sid_warehouse.reader import Release

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table.snapshots import Snapshot

CATALOG = "catalog.db"


def write(release: Release, to: Path, tables: Sequence[str]) -> list[Exported]:
    """Write tables as the current snapshot of `<dataset>.<table>`, unless that is this release already."""
    try:
        from pyiceberg.exceptions import CommitFailedException
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError as error:
        raise MissingExtraError("Exporting to Iceberg (pyiceberg)", "iceberg") from error
    if set("?#%") & set(str(to)):
        raise RecipeError(
            f"{to}: Iceberg's paths are URLs, which have no '?', '#' or '%'; choose another --to"
        )
    try:
        catalog = open_catalog(to)
        catalog.create_namespace_if_not_exists(release.record["dataset"])
        return [_write(catalog, release, to / table, table) for table in tables]
    except (CommitFailedException, SQLAlchemyError, OSError) as error:
        raise WarehouseError(
            f"{to}: could not be written as Iceberg tables ({' '.join(str(error).split())}). Snapshots "
            "before are untouched; mend what is said, or choose another folder with --to"
        ) from error


def open_catalog(to: Path) -> "Catalog":
    """Open the catalog of an export."""
    from pyiceberg.catalog.sql import SqlCatalog
    from sqlalchemy import URL

    uri = URL.create("sqlite", database=str(to / CATALOG)).render_as_string()
    return SqlCatalog("sidmill", uri=uri, warehouse=str(to))


def _write(catalog: "Catalog", release: Release, to: Path, table: str) -> Exported:
    rows = check_intact(release, table)
    schema, name = schema_of(release, table, note="doc"), (release.record["dataset"], table)
    there = catalog.load_table(name) if catalog.table_exists(name) else None
    if (
        there
        and (newest := there.current_snapshot())
        and _fingerprint(newest) == release.record["fingerprint"]
    ):
        return Exported(table, rows, newest.snapshot_id, written=False)
    made: list[Path] = []
    try:
        _copy(release, table, schema, to / "data", made)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Delete operation did not match any records")
            if there:
                change = there.transaction()
                change.update_schema().union_by_name(schema).commit()
                change.delete("true", snapshot_properties=stamp(release))
            else:
                told = {"comment": meaning(release, table)}
                change = catalog.create_table_transaction(name, schema, location=str(to), properties=told)
            change.add_files([str(path) for path in made], snapshot_properties=stamp(release))
            snapshot = change.commit_transaction().current_snapshot()
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        raise
    assert snapshot
    return Exported(table, rows, snapshot.snapshot_id, written=True)


def _copy(release: Release, table: str, schema: pa.Schema, folder: Path, made: list[Path]) -> None:
    """Copy the parts of a table into files that no snapshot names yet; `made` gets the path of each."""
    folder.mkdir(parents=True, exist_ok=True)
    mark, group = uuid.uuid4().hex, rows_per_group(release, table) // BATCH
    for number, part in enumerate(parquet.parts(release.folder, table)):
        path, stream = folder / f"{mark}-{number:05d}.parquet", batches(part, schema)
        made.append(path)
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            while held := list(islice(stream, group)):
                writer.write_table(pa.Table.from_batches(held, schema))


def _fingerprint(snapshot: "Snapshot") -> str | None:
    return snapshot.summary.get(FINGERPRINT) if snapshot.summary else None
