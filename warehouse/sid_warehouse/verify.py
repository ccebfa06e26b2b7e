"""Is a release still what was published? Hash every file, check every schema, look for strangers.

Here bytes are compared; sid_pipelines.recheck measures again what the gates promised of them.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sid_schemas.tables import table_named
from sid_warehouse import files, records, releases


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a release: with a file, or with a table where its rows are wrong."""

    file: str
    problem: str


def verify(folder: Path) -> list[Finding]:
    """Give everything that is wrong with the files of the release in a folder; nothing where it is intact.

    Schemas are looked at only where all hashes hold: what is damaged need not be parsed to be known for it.
    Raises WarehouseError where `release.json` cannot be read or says nonsense.
    """
    release = releases.read(folder)
    findings = [*_changed(folder, release["files"]), *_strangers(folder, release["files"])]
    return findings or list(_misshapen(folder, release))


def _changed(folder: Path, recorded: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Find files that are not, byte for byte, those that were published."""
    for name, entry in recorded.items():
        path = folder / name
        if not path.is_file():
            yield Finding(name, "is missing")
        elif problem := _difference(path, entry):
            yield Finding(name, problem)


def _difference(path: Path, entry: Mapping[str, Any]) -> str | None:
    size = path.stat().st_size
    if size != entry["bytes"]:
        return f"expected {entry['bytes']} bytes, got {size}"
    found = files.hashes(path)
    if found["sha256"] == entry["sha256"]:
        return None
    problem = f"expected SHA-256 {entry['sha256'][:16]}..., got {found['sha256'][:16]}..."
    if bad := _bad_blocks(entry.get("blocks", ""), found["blocks"]):
        first = bad[0] * files.BLOCK
        last = min(first + files.BLOCK, size) - 1
        problem += f"; first bad in bytes {first} to {last}"
        problem += f", and {len(bad) - 1} more blocks of 1 MiB" if len(bad) > 1 else ""
    return problem


def _bad_blocks(expected: str, got: str) -> list[int]:
    """Give the numbers of the blocks whose checksums differ; none for a release older than checksums."""
    if len(expected) != len(got):
        return []
    size = files.DIGITS
    return [n for n in range(len(got) // size) if expected[n * size :][:size] != got[n * size :][:size]]


def _strangers(folder: Path, recorded: Mapping[str, Any]) -> Iterator[Finding]:
    """Find what lies in the folder and is no file of the release."""
    known = {records.NAME, *recorded}
    for at, folders, names in os.walk(folder):
        for path in sorted(Path(at, name) for name in [*folders, *names]):
            name = path.relative_to(folder).as_posix()
            if path.is_symlink():
                # What it points to may change, or be gone after a move: it is no part of the release.
                yield Finding(name, f"is a symbolic link to {path.readlink()}; expected the file itself")
            elif not path.is_dir() and name not in known:
                yield Finding(name, "is not part of the release")


def _misshapen(folder: Path, release: Mapping[str, Any]) -> Iterator[Finding]:
    """Find Parquet files of another schema, and tables with another number of rows than recorded."""
    expected = release.get("rows", {})
    rows = dict.fromkeys(expected, 0)
    for name in release["files"]:
        if not name.endswith(".parquet"):
            continue
        table = PurePosixPath(name).parent.name
        try:
            with pq.ParquetFile(folder / name) as file:
                found, number = file.schema_arrow, file.metadata.num_rows
        except (pa.ArrowException, OSError) as error:
            yield Finding(name, f"cannot be read as Parquet ({str(error).splitlines()[0]})")
            continue
        rows[table] = rows.get(table, 0) + number
        if problem := _schema_problem(table, found):
            yield Finding(name, problem)
    for table, number in rows.items():
        if number != expected.get(table):
            yield Finding(table, f"expected {expected.get(table, 'no')} rows, got {number}")


def _schema_problem(table: str, found: pa.Schema) -> str | None:
    try:
        expected = table_named(table, found).arrow()
    except (KeyError, AttributeError):  # no such table; a vector that is no list
        return f"expected columns of a table of sidmill, got {table!r} with {found.names}"
    if found.equals(expected):
        return None
    wrong = [field for field in found if field not in list(expected)]
    types = f" as {', '.join(f'{field.name} {field.type}' for field in wrong)}" if wrong else ""
    return f"expected columns {expected.names}, got {found.names}{types}"
