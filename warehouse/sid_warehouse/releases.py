"""Releases: complete, immutable, numbered folders that appear all at once or not at all.

    <warehouse>/releases/<dataset>/v<N>/release.json, <table>/part-*.parquet, *.arrow, ...

Everything is written and synced under a temporary name; then one rename makes it v<N>. The file
system refuses that rename when another publisher took the number first, which is the compare-and-swap:
we look again and take the next number, or find that the same release is already there. Where the folder
stands for a warehouse on s3://, uploads.py does the same there first, and what lies here is a copy.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sid_schemas import RecipeError, WarehouseError
from sid_warehouse import files, origin, records, tags, uploads
from sid_warehouse.names import DATASET, VERSION, Ref
from sid_warehouse.stages import package_versions


def publish(
    warehouse: Path,
    dataset: str,
    contents: Mapping[str, Path],
    record: Mapping[str, Any],
    *,
    expected: Mapping[str, str] | None = None,
    linked_from: Path | None = None,
) -> dict[str, Any]:
    """Publish files as the next release of a data set and give its `release.json`.

    contents: {path in the release: file to copy}. record: what `release.json` says beside the hashes;
    its "fingerprint" names the release's content: if it is published already, that release is given.
    expected: the SHA-256 that copied files must have; WarehouseError names one that was damaged since.
    linked_from: the folder of a release, for which files that it has too are linked, not copied.
    An append ("kind": "append", "base": {"version": ...}) is refused where its base has one already.
    """
    parent = warehouse / "releases" / dataset
    with files.writing(parent) as folder, files.explained(parent):
        copied = _gather(folder, contents, expected or {}, linked_from)

        def complete(version: int) -> dict[str, Any]:
            release = {
                "format": records.FORMAT,
                "dataset": dataset,
                "version": version,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                **record,
                "packages": package_versions(),
                "files": copied,
            }
            files.write_json(folder / records.NAME, release)
            return release

        if store := origin.of(warehouse):
            release, new = uploads.publish(store, dataset, folder, dict(record), complete)
            if new:
                files.rename_folder(folder, parent / f"v{release['version']}")
            return release
        while True:
            # The number first: whoever publishes the same after this look takes it, and we look again.
            version = max(_taken(parent), default=0) + 1
            if twin := records.settle(_records(warehouse, dataset), record):
                return twin
            release = complete(version)
            if files.rename_folder(folder, parent / f"v{version}"):
                return release


def _gather(
    folder: Path, contents: Mapping[str, Path], expected: Mapping[str, str], linked_from: Path | None
) -> dict[str, dict[str, Any]]:
    """Bring files into the folder of a release to be, by name, and give sizes and hashes by name."""
    named = read(linked_from)["files"].items() if linked_from else ()
    there = {entry["sha256"]: linked_from / name for name, entry in named if linked_from}
    gathered = {}
    for name, source in sorted(contents.items()):
        if known := there.get(expected.get(name, "")):
            gathered[name] = files.link_hashed(known, folder / name)
            if gathered[name]["sha256"] == expected[name]:
                continue
            (folder / name).unlink()  # the base is damaged; what we publish need not be
        gathered[name] = files.copy_hashed(source, folder / name)
    for name, sha256 in expected.items():
        if gathered[name]["sha256"] != sha256:
            raise WarehouseError(
                f"{contents[name]}: was damaged after it was written; expected SHA-256 {sha256[:16]}..., "
                f"got {gathered[name]['sha256'][:16]}.... Remove its folder and run again"
            )
    return gathered


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
    """Give the folder of a release, or raise RecipeError saying what there is instead.

    Raises WarehouseError where another release has taken the number that a tag says.
    """
    there = versions(warehouse, ref.dataset)
    tag = tags.read(warehouse, ref.dataset, ref.tag) if ref.tag else None
    said = tag.now.version if tag else ref.version
    version = there[-1] if there and ref == Ref(ref.dataset) else said
    if version not in there:
        known = [f"{ref.dataset}@v{number}" for number in there]
        known += [f"{ref.dataset}@{name}" for name in tags.names(warehouse, ref.dataset)] if there else []
        listed = ", ".join(known or datasets(warehouse)) or "nothing yet: run `sidmill run RECIPE`"
        gone = f" (it says v{said}, which is gone)" if tag else ""
        raise RecipeError(f"{warehouse}: holds no release {ref}{gone}; there is: {listed}")
    folder = warehouse / "releases" / ref.dataset / f"v{version}"
    if tag and (found := read(folder)["fingerprint"]) != tag.now.fingerprint:
        raise WarehouseError(
            f"{folder}: expected fingerprint {tag.now.fingerprint}, which {ref} says, got {found}: another "
            f"release has this number now. If it is the one: sidmill tag {ref.dataset}@v{version} {ref.tag}"
        )
    return folder


def read(folder: Path) -> dict[str, Any]:
    """Read a release's `release.json`; raises WarehouseError for one of a later format, or an unfit one."""
    path = folder / records.NAME
    return records.check(files.read_json(path), path)


def find_fingerprint(warehouse: Path, dataset: str, fingerprint: str) -> dict[str, Any] | None:
    """Give the newest release with this fingerprint, or None; where the warehouse is on s3://, look there."""
    store = origin.of(warehouse)
    there = list(store.records(dataset).values()) if store else _records(warehouse, dataset)
    return next((release for release in reversed(there) if release["fingerprint"] == fingerprint), None)


def _records(warehouse: Path, dataset: str) -> list[dict[str, Any]]:
    """Give the records of a data set's releases in this folder, ascending."""
    parent = warehouse / "releases" / dataset
    return [read(parent / f"v{version}") for version in versions(warehouse, dataset)]
