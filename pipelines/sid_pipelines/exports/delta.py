"""Delta: one Delta table per table of a release; each next release is each table's next version.

A table's version is a commit of its own, all or nothing; several tables are no atom. Every commit names its
release (`sidmill.ref`, `sidmill.fingerprint`), so that a reader can tell which versions belong together.
"""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from sid_pipelines.exports.tables import (
    FINGERPRINT,
    Exported,
    batches,
    check_intact,
    meaning,
    rows_per_group,
    schema_of,
    stamp,
)
from sid_schemas import MissingExtraError, WarehouseError
from sid_warehouse import parquet
from sid_warehouse.reader import Release

# Versions stay until somebody vacuums: what a release was must not go after 30 days by itself.
KEPT = {"delta.enableExpiredLogCleanup": "false"}
UPKEEP = {"OPTIMIZE", "VACUUM START", "VACUUM END", "SET TBLPROPERTIES"}  # commits that change no row


def write(release: Release, to: Path, tables: Sequence[str]) -> list[Exported]:
    """Write tables as the newest version of `to/<table>`, unless that is this release already."""
    try:
        import deltalake  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("Exporting to Delta (deltalake)", "delta") from error
    return [_write(release, to / table, table) for table in tables]


def _write(release: Release, to: Path, table: str) -> Exported:
    from deltalake import CommitProperties, DeltaTable, WriterProperties, write_deltalake
    from deltalake.exceptions import DeltaError

    rows = check_intact(release, table)
    schema = schema_of(release, table, note="comment")
    stream = chain.from_iterable(batches(part, schema) for part in parquet.parts(release.folder, table))
    try:
        if _newest(to) == release.record["fingerprint"]:
            return Exported(table, rows, DeltaTable(to).version(), written=False)
        write_deltalake(
            to,
            pa.RecordBatchReader.from_batches(schema, stream),
            mode="overwrite",
            schema_mode="overwrite",
            name=table,
            description=meaning(release, table),
            configuration=KEPT,
            writer_properties=WriterProperties(
                compression="ZSTD", max_row_group_size=rows_per_group(release, table)
            ),
            commit_properties=CommitProperties(stamp(release)),
        )
        return Exported(table, rows, DeltaTable(to).version(), written=True)
    except (DeltaError, OSError, ValueError) as error:
        raise WarehouseError(
            f"{to}: could not be written as a Delta table ({' '.join(str(error).split())}). The version "
            "before is untouched; mend what is said, or choose another folder with --to"
        ) from error


def _newest(to: Path) -> str | None:
    """Give the fingerprint of the release that a Delta table holds, or None where it holds none."""
    from deltalake import DeltaTable

    if not DeltaTable.is_deltatable(str(to)):
        return None
    commits: list[dict[str, Any]] = DeltaTable(to).history()
    last = next((one for one in commits if one["operation"] not in UPKEEP), {})
    return last.get(FINGERPRINT)
