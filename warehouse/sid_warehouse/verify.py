"""Is a release still what was published? Hash every file, check every schema, look for strangers."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sid_schemas.tables import table_named
from sid_warehouse import files, releases


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a release."""

    file: str
    problem: str


def verify(folder: Path) -> list[Finding]:
    """Give everything that is wrong with the release in a folder; an empty list means it is intact."""
    release = releases.read(folder)
    findings = []
    for name, entry in release["files"].items():
        problem = _problem(folder / name, entry["bytes"], entry["sha256"])
        if not problem and name.endswith(".parquet"):
            problem = _schema_problem(folder / name)
        if problem:
            findings.append(Finding(name, problem))
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    strangers = sorted(there - set(release["files"]) - {"release.json"})
    findings += [Finding(name, "is not part of the release") for name in strangers]
    return findings


def _problem(path: Path, size: int, sha256: str) -> str | None:
    if not path.is_file():
        return "is missing"
    if path.stat().st_size != size:
        return f"expected {size} bytes, got {path.stat().st_size}"
    found = files.sha256(path)
    return None if found == sha256 else f"expected SHA-256 {sha256[:16]}..., got {found[:16]}..."


def _schema_problem(path: Path) -> str | None:
    found: pa.Schema = pq.read_schema(path)
    expected = table_named(path.parent.name, found).arrow()
    return None if found.equals(expected) else f"expected columns {expected.names}, got {found.names}"
