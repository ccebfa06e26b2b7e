"""Releases: complete, immutable, numbered folders that appear all at once or not at all.

    <warehouse>/releases/<dataset>/v<N>/release.json, <table>/part-*.parquet, *.arrow, ...

Everything is written and synced under a temporary name; then one rename makes it v<N>. The file
system refuses that rename when another publisher took the number first, which is the compare-and-swap:
we look again and take the next number, or find that the same release is already there.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sid_schemas import RecipeError, WarehouseError
from sid_warehouse import files
from sid_warehouse.names import DATASET, VERSION, Ref
from sid_warehouse.stages import package_versions

FORMAT = 1


def publish(
    warehouse: Path,
    dataset: str,
    contents: Mapping[str, Path],
    record: Mapping[str, Any],
    *,
    expected: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Publish files as the next release of a data set and give its `release.json`.

    contents: {path in the release: file to copy}. record: what `release.json` says beside the hashes;
    its "fingerprint" names the release's content: if it is published already, that release is given.
    expected: the SHA-256 that copied files must have; WarehouseError names one that was damaged since.
    """
    parent = warehouse / "releases" / dataset
    with files.writing(parent) as folder, files.explained(parent):
        copied = {name: files.copy_hashed(source, folder / name) for name, source in sorted(contents.items())}
        for name, sha256 in (expected or {}).items():
            if copied[name]["sha256"] != sha256:
                raise WarehouseError(
                    f"{contents[name]}: was damaged after it was written; expected SHA-256 {sha256[:16]}..., "
                    f"got {copied[name]['sha256'][:16]}.... Remove its folder and run again"
                )
        while True:
            # The number first: whoever publishes the same after this look takes it, and we look again.
            version = max(_taken(parent), default=0) + 1
            if twin := find_fingerprint(warehouse, dataset, record["fingerprint"]):
                return twin
            release = {
                "format": FORMAT,
                "dataset": dataset,
                "version": version,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                **record,
                "packages": package_versions(),
                "files": copied,
            }
            files.write_json(folder / "release.json", release)
            if files.rename_folder(folder, parent / f"v{version}"):
                return release


def datasets(warehouse: Path) -> list[str]:
    """Give the data sets that have releases, in order."""
    folders = (warehouse / "releases").glob("*/v*/release.json")
    return sorted({path.parent.parent.name for path in folders if DATASET.fullmatch(path.parts[-3])})


def versions(warehouse: Path, dataset: str) -> list[int]:
    """Give the published version numbers of a data set, ascending."""
    parent = warehouse / "releases" / dataset
    return [number for number in _taken(parent) if (parent / f"v{number}" / "release.json").is_file()]


def _taken(parent: Path) -> list[int]:
    """Give the numbers of all version folders, ascending, even of one that is no release."""
    matches = (VERSION.fullmatch(path.name) for path in parent.glob("v*"))
    return sorted(int(match[1]) for match in matches if match)


def folder_of(warehouse: Path, ref: Ref) -> Path:
    """Give the folder of a release, or raise RecipeError saying what there is instead."""
    there = versions(warehouse, ref.dataset)
    version = ref.version or (there[-1] if there else None)
    if version not in there:
        known = ", ".join(f"{ref.dataset}@v{number}" for number in there)
        known = known or ", ".join(datasets(warehouse)) or "nothing yet: run `sidmill run RECIPE`"
        raise RecipeError(f"{warehouse}: holds no release {ref}; there is: {known}")
    return warehouse / "releases" / ref.dataset / f"v{version}"


def read(folder: Path) -> dict[str, Any]:
    """Read a release's `release.json`; raises WarehouseError for one of a later format."""
    release: dict[str, Any] = files.read_json(folder / "release.json")
    if release.get("format") != FORMAT:
        raise WarehouseError(
            f"{folder}/release.json: expected format {FORMAT}, got {release.get('format')!r}. "
            "It was written by another version of sidmill"
        )
    return release


def find_fingerprint(warehouse: Path, dataset: str, fingerprint: str) -> dict[str, Any] | None:
    """Give the release with this fingerprint, or None."""
    for version in reversed(versions(warehouse, dataset)):
        release = read(warehouse / "releases" / dataset / f"v{version}")
        if release["fingerprint"] == fingerprint:
            return release
    return None
