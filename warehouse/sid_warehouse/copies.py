"""Copies of what lies in an object store, in the work folder that stands for it.

A release is downloaded when it is opened, all at once or not at all, and checked against the SHA-256 in its
record. It never changes, so one that is there needs no store. Tags do change: theirs are brought each time.
Each function does nothing where the warehouse is a local one.
"""

from collections.abc import Set
from pathlib import Path
from typing import Any

from sid_schemas import RecipeError, WarehouseError
from sid_warehouse import files, records
from sid_warehouse.names import DATASET, TAG, Ref
from sid_warehouse.origin import Origin, of, together
from sid_warehouse.records import Record


def bring(warehouse: Path, ref: Ref) -> None:
    """Download the release that a reference names, unless it is there.

    Raises RecipeError where the store has no such release, WarehouseError for a damaged one.
    """
    origin = of(warehouse)
    if origin is None or (ref.version and _local(warehouse, ref.dataset, ref.version).exists()):
        return
    version = _pull_tags(origin, warehouse, ref.dataset).get(ref.tag, 0) if ref.tag else ref.version
    record = origin.latest(ref.dataset) if version is None else origin.record(ref.dataset, version)
    if record is None:
        known = [f"{ref.dataset}@v{number}" for number in origin.records(ref.dataset)] or origin.datasets()
        listed = ", ".join(known) or "nothing yet: run `sidmill run RECIPE`"
        raise RecipeError(f"{origin.url}: holds no release {ref}; there is: {listed}")
    _bring(origin, warehouse, record)


def bring_all(warehouse: Path) -> None:
    """Download every release there is."""
    if origin := of(warehouse):
        for record in origin.everything():
            _bring(origin, warehouse, record)


def sync(warehouse: Path) -> None:
    """Download what the catalog copies: tags, the latest and the tagged releases."""
    if origin := of(warehouse):
        for dataset in origin.datasets():
            tagged = _pull_tags(origin, warehouse, dataset).values()
            wanted = [origin.latest(dataset), *(origin.record(dataset, one) for one in set(tagged))]
            for record in filter(None, wanted):
                _bring(origin, warehouse, record)


def listed(warehouse: Path) -> list[Path]:
    """Give a folder for each release in the store: its copy, or else one with its record and metrics only."""
    folders = []
    if origin := of(warehouse):
        for record in origin.everything():
            folder = _local(warehouse, record["dataset"], record["version"])
            if not folder.exists():
                folder = warehouse / "cards" / record["dataset"] / folder.name
                _download(origin, record, folder, only={"metrics.json"})
            folders.append(folder)
    return folders


def _local(warehouse: Path, dataset: str, version: int) -> Path:
    return warehouse / "releases" / dataset / f"v{version}"


def _bring(origin: Origin, warehouse: Path, record: Record) -> None:
    _download(origin, record, _local(warehouse, record["dataset"], record["version"]))


def _download(origin: Origin, record: Record, target: Path, only: Set[str] | None = None) -> None:
    """Bring a release into a folder; what is there is left as it is.

    Files that a release beside it has too are linked. only: the files to bring. Raises WarehouseError
    naming an object whose bytes are not those that were published, or a folder that is another release.
    """
    prefix = f"releases/{record['dataset']}/v{record['version']}"
    if target.exists():
        if files.read_json(target / records.NAME) != record:
            raise WarehouseError(
                f"{target}: is another release than {origin.url}/{prefix} is now. Remove the folder"
            )
        return
    files.sweep(target.parent)
    there = _by_content(target.parent) if only is None else {}
    with files.writing(target.parent) as folder, files.explained(target.parent):

        def fetch(name: str) -> None:
            sha256 = record["files"][name]["sha256"]
            if sha256 in there:
                if files.link_hashed(there[sha256], folder / name)["sha256"] == sha256:
                    return
                (folder / name).unlink()  # damaged since it was brought
            _fetch(origin, f"{prefix}/{name}", folder / name, sha256)

        together(fetch, [name for name in sorted(record["files"]) if only is None or name in only])
        files.write_json(folder / records.NAME, record)
        files.rename_folder(folder, target)


def _by_content(parent: Path) -> dict[str, Path]:
    """Give the files of the local releases of a data set by their SHA-256."""
    return {
        entry["sha256"]: path.parent / name
        for path in sorted(parent.glob(f"v*/{records.NAME}"))
        for name, entry in records.check(files.read_json(path), path)["files"].items()
    }


def _fetch(origin: Origin, key: str, path: Path, sha256: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    origin.objects.download(key, path)
    found = files.sha256(path)
    if found != sha256:
        raise WarehouseError(
            f"{origin.url}/{key}: was damaged after it was published; expected SHA-256 {sha256[:16]}..., "
            f"got {found[:16]}.... Restore the object from a copy, or publish the release anew"
        )


def pull_tags(warehouse: Path) -> None:
    """Make the tags of a work folder those of the store."""
    if origin := of(warehouse):
        here = (path.name for path in (warehouse / "tags").glob("*"))
        for dataset in {*here, *origin.names("tags")}:
            if DATASET.fullmatch(dataset):
                _pull_tags(origin, warehouse, dataset)


def _pull_tags(origin: Origin, warehouse: Path, dataset: str) -> dict[str, int]:
    """Make the tags of one data set those of the store, and give their versions by name."""
    there = {}
    folder = warehouse / "tags" / dataset
    for name in (key.removesuffix(".json") for key in origin.names(f"tags/{dataset}")):
        found = origin.read_json(tag_key(dataset, name)) if TAG.fullmatch(name) else None
        if found:
            there[name] = _version_in(found[0])
            with files.writing(folder) as scratch, files.explained(folder):
                files.write_json(scratch / name, found[0])
                (scratch / name).replace(folder / f"{name}.json")
    for path in folder.glob("*.json"):
        if path.stem not in there:
            path.unlink(missing_ok=True)
    return there


def _version_in(tag: Any) -> int:
    """Give the version that a tag says; 0, which no release has, where it says none."""
    version = tag.get("version") if isinstance(tag, dict) else None
    return version if isinstance(version, int) and 0 < version < 10**9 else 0


def push_tag(warehouse: Path, dataset: str, name: str, old: Any, new: Any) -> None:
    """Put a tag into the store, or remove it where `new` is None.

    old: what it said before, None where there was none. Raises WarehouseError where the store has
    another, because somebody moved it meanwhile.
    """
    origin = of(warehouse)
    if origin is None:
        return
    origin.check_conditional(if_match=True)
    key = tag_key(dataset, name)
    value, etag = origin.read_json(key) or (None, "")
    if value == old and new is None:
        origin.objects.remove(key)
    elif value != old or not origin.put_json(key, new, if_none_match=not etag, if_match=etag or None):
        raise WarehouseError(f"{origin.url}/{key}: was moved by another meanwhile. Look at it and run again")


def tag_key(dataset: str, name: str) -> str:
    """Give the key of a tag."""
    return f"tags/{dataset}/{name}.json"
