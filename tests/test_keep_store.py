"""Tags and gc where the warehouse lies in an object store."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from s3fs import S3FileSystem
from test_object_store import Store, publish, server, store  # noqa: F401 (fixtures)

from sid_schemas import WarehouseError
from sid_warehouse import catalog, copies, garbage, origin, releases, tagging, tags, unfinished
from sid_warehouse.names import Ref
from sid_warehouse.reader import Warehouse
from sid_warehouse.retention import Rules


@pytest.fixture(autouse=True)
def other_settings() -> Iterator[None]:
    """Let s3fs forget the clients of another file's server; it keeps them by the credentials."""
    S3FileSystem.clear_instance_cache()
    yield
    S3FileSystem.clear_instance_cache()


@pytest.fixture(autouse=True)
def no_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "refresh", lambda warehouse: None)


def test_a_tag_is_moved_in_the_store_from_any_machine(store: Store) -> None:  # noqa: F811
    for mark in ("one", "two"):
        publish(store.machine("x"), mark)
    tagging.move(store.machine("x"), Ref("d", 1), "production")
    tagging.move(store.machine("y"), Ref("d", 2), "production")  # brings what it tags, and its history
    assert Warehouse(store.machine("x")).release("d@production").record["fingerprint"] == "two"
    tagging.rollback(store.machine("z"), Ref("d", tag="production"))
    release = Warehouse(store.machine("y")).release("d@production")
    assert (release.record["version"], release.ref) == (1, "d@v1")
    tag = tags.read(store.machine("y"), "d", "production")
    assert tag
    assert [entry.version for entry in tag.entries] == [1, 2, 1]
    tagging.remove(store.machine("x"), Ref("d"), "production")
    copies.pull_tags(store.machine("y"))
    assert tags.names(store.machine("y"), "d") == []


def test_of_two_machines_that_move_a_tag_at_once_one_is_told(
    store: Store,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for mark in ("one", "two", "three"):
        publish(store.machine("x"), mark)
    tagging.move(store.machine("x"), Ref("d", 1), "production")
    there = {name: store.machine(name) for name in "xy"}
    real = tagging.copies.push_tag

    def beaten(*arguments: object) -> None:
        monkeypatch.setattr(tagging.copies, "push_tag", real)
        tagging.move(there["y"], Ref("d", 3), "production")
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(tagging.copies, "push_tag", beaten)
    with pytest.raises(WarehouseError, match=r"tags/d/production\.json: was moved by another meanwhile"):
        tagging.move(there["x"], Ref("d", 2), "production")
    assert Warehouse(there["x"]).release("d@production").record["version"] == 3


def abandon_one(store: Store) -> Path:  # noqa: F811
    """Publish v1, v3 and v5; leave v2 and v4 half uploaded, v4 today."""
    machine = store.machine("x")
    old = (datetime.now(UTC) - timedelta(hours=30)).isoformat()
    for version, created in ((2, old), (4, datetime.now(UTC).isoformat())):
        publish(machine, f"before-{version}")
        store.put(
            f"releases/d/v{version}/claim.json", f'{{"created": "{created}", "kind": "build"}}'.encode()
        )
        for name, size in (("a.bin", 1_000), ("deep/er/b.bin", 500), ("deep/c.bin", 7)):
            store.put(f"releases/d/v{version}/{name}", bytes(size))
    publish(machine, "last")
    return machine


def test_unfinished_uploads_go_and_their_numbers_are_not_used_again(store: Store) -> None:  # noqa: F811
    machine = abandon_one(store)
    objects = origin.of(machine).objects  # type: ignore[union-attr]
    before = objects.sizes("releases")
    found = garbage.find(machine, Rules())
    assert [(piece.what, piece.name, piece.bytes) for piece in found.remove] == [("upload", "d@v2", 1_507)]
    assert objects.sizes("releases") == before
    assert garbage.remove(machine, Rules()).remove == found.remove
    left = objects.sizes("releases")
    gone = {key for key in before if key not in left}
    assert gone == {f"releases/d/v2/{name}" for name in ("a.bin", "deep/er/b.bin", "deep/c.bin")}
    assert set(left) - set(before) == {"releases/d/v2/release.json"}  # so that a slow publisher cannot commit
    assert garbage.find(machine, Rules()).remove == []
    assert publish(machine, "next")["version"] == 6
    other = Warehouse(store.machine("y"))
    assert [release.record["version"] for release in other.releases()] == [1, 3, 5, 6]


def test_an_upload_that_is_committed_meanwhile_stays(store: Store) -> None:  # noqa: F811
    machine = abandon_one(store)
    place = origin.of(machine)
    assert place
    assert not unfinished.remove(place, Ref("d", 3))
    assert releases.versions(machine, "d") == [1, 3, 5]
    assert Warehouse(store.machine("y")).release("d@v3").record["version"] == 3


def test_gc_removes_copies_which_the_store_still_has(store: Store) -> None:  # noqa: F811
    for mark in ("one", "two"):
        publish(store.machine("x"), mark)
    machine = store.machine("x")
    found = garbage.remove(machine, Rules(last=1))
    assert [piece.name for piece in found.remove] == ["d@v1"]
    assert releases.versions(machine, "d") == [2]
    assert Warehouse(machine).release("d@v1").record["fingerprint"] == "one"
    assert releases.versions(machine, "d") == [1, 2]
