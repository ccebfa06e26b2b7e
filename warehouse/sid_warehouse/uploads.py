"""Publish into an object store: take a number, upload the files, commit by putting `release.json` last.

A store has no rename, but it can refuse to write over an object. That takes a number (`claim.json`) and
commits (`release.json`). A publisher that was killed leaves a claim without a release: readers pass it by,
its number is used up. Of appends to one base, each abandons the open ones with lower numbers before it
commits, by putting a `release.json` of its own into their place; so two can never both be there, and
nobody waits for the dead.
"""

import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sid_warehouse import records
from sid_warehouse.origin import Origin, record_key, together
from sid_warehouse.records import Record

ABANDONED = {"abandoned": True}


def publish(
    origin: Origin, dataset: str, folder: Path, record: dict[str, Any], complete: Callable[[int], Record]
) -> tuple[Record, bool]:
    """Publish the files of a folder; give the release, and whether it is new and not one that was there.

    record: what the release says beside version and files. complete: writes `release.json` for a version
    into the folder and gives it. Raises WarehouseError where the store cannot put conditionally.
    """
    origin.check_conditional()
    while True:
        if twin := records.settle(list(origin.records(dataset).values()), record):
            return twin, False
        version = _claim(origin, dataset, record)
        release = complete(version)
        _upload(origin, folder, release)
        _abandon_rivals(origin, release)
        if twin := records.settle(list(origin.records(dataset).values()), record):
            return twin, False
        text = (folder / records.NAME).read_bytes()
        if origin.objects.put(record_key(dataset, version), text, if_none_match=True):
            return release, True
        # Abandoned by a rival, or put by us and the answer got lost: settle finds out which.


def _claim(origin: Origin, dataset: str, record: dict[str, Any]) -> int:
    """Take the next number, which is given to nobody else, ever."""
    claim = {
        "fingerprint": record["fingerprint"],
        "kind": record.get("kind", "build"),
        "base": record.get("base"),
        "host": socket.gethostname(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    version = max(origin.numbers(dataset), default=0) + 1
    while not origin.put_json(claim_key(dataset, version), claim, if_none_match=True):
        version += 1
    return version


def claim_key(dataset: str, version: int) -> str:
    """Give the key of a claim."""
    return f"releases/{dataset}/v{version}/claim.json"


def _upload(origin: Origin, folder: Path, release: Record) -> None:
    prefix = f"releases/{release['dataset']}/v{release['version']}"
    together(lambda name: origin.objects.upload(folder / name, f"{prefix}/{name}"), release["files"])


def _abandon_rivals(origin: Origin, release: Record) -> None:
    """Keep appends to the same base that took a lower number and are not published from being so later."""
    base, dataset = records.base_version(release), release["dataset"]
    if base is None:
        return
    published = origin.records(dataset)
    for version in origin.numbers(dataset):
        if version < release["version"] and version not in published:
            claim = origin.read_json(claim_key(dataset, version))
            if claim and records.base_version(claim[0]) == base:
                origin.put_json(record_key(dataset, version), ABANDONED, if_none_match=True)
