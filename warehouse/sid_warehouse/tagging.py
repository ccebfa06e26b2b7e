"""Moving tags: set, roll back, remove. Each move is recorded, and the catalog follows it.

Taggers wait for each other, so that of two at once neither's entry is lost. Where the warehouse stands for
one in an object store, the tag is moved there first, only over what was found there, and then here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sid_schemas import RecipeError, WarehouseError
from sid_warehouse import catalog, copies, files, locks, releases, tags
from sid_warehouse.names import Ref, check_tag
from sid_warehouse.tags import Entry, Move, Tag

LOCK = ".lock"


def move(warehouse: Path, ref: Ref, name: str) -> Tag:
    """Make a tag say a release, and give the tag; nothing is recorded where it says that already.

    Raises RecipeError for a name or a release that is none, WarehouseError where files of it are missing.
    """
    check_tag(name)
    with _tagging(warehouse):
        tag = tags.read(warehouse, ref.dataset, name)
        entry = _entry(warehouse, ref, "tag")
        if tag and (tag.now.version, tag.now.fingerprint) == (entry.version, entry.fingerprint):
            return tag
        return _write(warehouse, Tag(ref.dataset, name, tag.entries if tag else ()), entry)


def rollback(warehouse: Path, ref: Ref, *, to: int | None = None) -> Tag:
    """Move a tag back to the release that it said before, and give the tag; a second one goes on from there.

    to: a version that it said still earlier. Raises RecipeError where it said none, WarehouseError where
    the release is gone or another one has its number.
    """
    with _tagging(warehouse):
        tag = _there(warehouse, ref)
        before = {entry.version: entry for entry in tag.trail[:-1]}
        version = to or (tag.earlier.version if tag.earlier else None)
        if version not in before:
            wanted = f"v{to}" if to else "an earlier release"
            said = ", ".join(f"v{one}" for one in before) or "none"
            raise RecipeError(
                f"{tag.ref}: is at v{tag.now.version} and cannot roll back to {wanted}; before, it was at "
                f"{said}. To move it to any release: sidmill tag {tag.dataset}@vN {tag.name}"
            )
        entry = _entry(warehouse, Ref(tag.dataset, version), "rollback")
        if entry.fingerprint != before[version].fingerprint:
            raise WarehouseError(
                f"{tag.dataset}@v{version}: expected fingerprint {before[version].fingerprint}, which "
                f"{tag.ref} said, got {entry.fingerprint}: another release has this number now"
            )
        return _write(warehouse, tag, entry)


def remove(warehouse: Path, ref: Ref, name: str) -> Tag:
    """Remove a tag, which then keeps no release from gc any more, and give what it said.

    Raises RecipeError where there is none, or where `ref` names a version that it is not at.
    """
    with _tagging(warehouse):
        tag = _there(warehouse, Ref(ref.dataset, tag=check_tag(name)))
        if ref.version not in (None, tag.now.version):
            raise RecipeError(
                f"{tag.ref}: expected it at v{ref.version}, got v{tag.now.version}; nothing is removed"
            )
        copies.push_tag(warehouse, ref.dataset, name, tags.as_json(tag.entries), None)
        tags.remove(warehouse, ref.dataset, name)
        catalog.refresh(warehouse)
        return tag


def _there(warehouse: Path, ref: Ref) -> Tag:
    if not ref.tag:
        raise RecipeError(f"{ref}: expected a tag, DATASET@TAG, as in {ref.dataset}@production")
    if tag := tags.read(warehouse, ref.dataset, ref.tag):
        return tag
    known = ", ".join(f"{ref.dataset}@{name}" for name in tags.names(warehouse, ref.dataset)) or "none"
    raise RecipeError(f"{warehouse}: holds no tag {ref}; there is: {known}")


def _entry(warehouse: Path, ref: Ref, how: Move) -> Entry:
    """Give the entry for a release whose files are all there; `sidmill verify` would also hash them."""
    copies.bring(warehouse, ref)
    folder = releases.folder_of(warehouse, ref)
    record = releases.read(folder)
    for name, entry in record["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != entry["bytes"]:
            raise WarehouseError(
                f"{path}: missing or cut short; expected {entry['bytes']} bytes. "
                "Restore the release from a copy, or tag another one"
            )
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return Entry(int(folder.name.removeprefix("v")), record["fingerprint"], now, how)


def _write(warehouse: Path, old: Tag, entry: Entry) -> Tag:
    new = Tag(old.dataset, old.name, (*old.entries, entry))
    said = tags.as_json(old.entries) if old.entries else None
    copies.push_tag(warehouse, new.dataset, new.name, said, tags.as_json(new.entries))
    tags.write(warehouse, new)
    catalog.refresh(warehouse)
    return new


@contextmanager
def _tagging(warehouse: Path) -> Iterator[None]:
    with (
        files.explained(warehouse),
        locks.building(warehouse),  # so that gc does not remove what is being tagged
        locks.alone(warehouse / tags.FOLDER / LOCK),
    ):
        copies.pull_tags(warehouse)
        yield
