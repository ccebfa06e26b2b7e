"""Stage outputs, kept under the fingerprint of everything that made them; written once, never edited.

    <warehouse>/stages/<dataset>/<stage>/<key>/<table>/part-*.parquet, manifest.json

A folder with this name is complete: it was renamed into place after its manifest was written.
"""

import importlib.metadata
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from sid_schemas import Table, WarehouseError
from sid_warehouse import files, parquet
from sid_warehouse.names import check_member

FORMAT = 1
SCRATCH = "scratch"  # the warehouse's folder for <dataset>/<stage>-<key>-<shape>: what tasks give each other
REFUSED = "refused"  # the warehouse's folder for <dataset>/<key>: failing rows of what its gates refused
PACKAGES = (
    "sidmill", "numpy", "pyarrow", "duckdb", "scikit-learn", "faiss-cpu", "safetensors",
    "sentence-transformers", "transformers", "tokenizers", "torch", "model2vec", "onnxruntime", "pillow",
    "sentencepiece", "implicit", "great-expectations", "prefect", "apache-beam", "distributed",
)  # fmt: skip


@dataclass(frozen=True)
class StageOutput:
    """A finished stage output on disk."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def facts(self) -> dict[str, Any]:
        """Give what the stage noted about its work: counts, ledger, metrics."""
        facts: dict[str, Any] = self.manifest["facts"]
        return facts

    def parts(self, table: str) -> list[Path]:
        """Give the Parquet parts of a table, in order."""
        return parquet.parts(self.folder, table)

    def read(self, table: str, columns: list[str] | None = None) -> pa.Table:
        """Read a table into memory."""
        return parquet.read(self.folder, table, columns)


class StageStore:
    """All stage outputs of one data set."""

    def __init__(self, warehouse: Path, dataset: str) -> None:
        """Look at `<warehouse>/stages/<dataset>`, which need not exist yet."""
        self.dataset = dataset
        self.warehouse = warehouse
        self.root = warehouse / "stages" / dataset

    def find(self, stage: str, key: str) -> StageOutput | None:
        """Give the output under a key, or None; raises WarehouseError where files of it are gone."""
        folder = self.root / stage / key
        if not folder.exists():
            return None
        manifest = _read(folder)
        for name, entry in manifest["files"].items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != entry["bytes"]:
                raise WarehouseError(
                    f"{path}: missing or cut short; expected {entry['bytes']} bytes. "
                    f"Remove the folder {folder} and run again"
                )
        return StageOutput(folder, manifest)

    def newest(self, stage: str, name: str | None = None) -> StageOutput | None:
        """Give the output of a stage that was written last, or None; name: of those with this parameter."""
        manifests = list((self.root / stage).glob("*/manifest.json"))
        for path in sorted(manifests, key=lambda path: (path.stat().st_mtime_ns, path), reverse=True):
            output = StageOutput(path.parent, _read(path.parent))
            if name is None or output.manifest["params"].get("name") == name:
                return output
        return None

    @contextmanager
    def write(self, stage: str, key: str, identity: dict[str, Any]) -> Iterator["StageDraft"]:
        """Give a draft; it becomes the output under `key` when the block calls `commit`."""
        with files.writing(self.root / stage) as folder:
            yield StageDraft(self, stage, key, identity, folder, {}, time.monotonic())

    def sweep(self) -> None:
        """Remove what killed runs of this data set left half written, in stages and releases."""
        for folder in (
            self.warehouse,
            self.warehouse / "releases" / self.dataset,
            *self.root.glob("*"),
        ):
            files.sweep(folder)


@dataclass(frozen=True)
class StageDraft:
    """A stage output in the making: the folder it is written into, and the tables written so far."""

    store: StageStore
    stage: str
    key: str
    identity: dict[str, Any]
    folder: Path
    rows: dict[str, int]
    started: float

    def write(self, table: Table, batches: pa.Table | Iterable[pa.RecordBatch]) -> int:
        """Write one table and give its number of rows."""
        self.rows[table.name] = parquet.write(self.folder, table, batches)
        return self.rows[table.name]

    def extend(
        self, table: Table, base: Sequence[Path], batches: pa.Table | Iterable[pa.RecordBatch] = ()
    ) -> int:
        """Write a table that begins with another's parts, and give its number of rows."""
        self.rows[table.name] = parquet.extend(self.folder, table, base, batches)
        return self.rows[table.name]

    @property
    def spill(self) -> Path:
        """Give a folder for DuckDB to spill into; it never becomes part of the output."""
        return self.folder / ".spill"

    def commit(
        self, facts: dict[str, Any], summary: str, engine: dict[str, Any] | None = None
    ) -> StageOutput:
        """Write the manifest and rename the folder into place; a twin that won the race is kept.

        engine: what ran it, where that was not this process alone.
        """
        shutil.rmtree(self.spill, ignore_errors=True)
        manifest = {
            "format": FORMAT,
            "dataset": self.store.dataset,
            "stage": self.stage,
            "key": self.key,
            **self.identity,
            "summary": summary,
            "facts": facts,
            "rows": self.rows,
            "files": files.inventory(self.folder),
            "seconds": round(time.monotonic() - self.started, 3),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "packages": package_versions(),
            **({"engine": engine} if engine else {}),
        }
        files.write_json(self.folder / "manifest.json", manifest)
        files.rename_folder(self.folder, self.store.root / self.stage / self.key)
        done = self.store.find(self.stage, self.key)
        assert done is not None
        return done


def _read(folder: Path) -> dict[str, Any]:
    """Read a manifest, or raise WarehouseError where it is none or names files outside of its folder."""
    path = folder / "manifest.json"
    manifest = files.read_json(path)
    try:
        missing = {"key", "summary", "facts", "rows", "files"} - set(manifest)
        for name, entry in manifest["files"].items():
            check_member(name)
            entry["bytes"], entry["sha256"]
    except (WarehouseError, AttributeError, LookupError, TypeError) as error:
        raise WarehouseError(f"{path}: is no manifest ({error}). Remove the folder and run again") from error
    if missing:
        raise WarehouseError(f"{path}: lacks {sorted(missing)}. Remove the folder and run again")
    return dict(manifest)


@cache
def package_versions() -> dict[str, str]:
    """Give the installed versions of the packages that shape results; looked up once, as it reads files."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
