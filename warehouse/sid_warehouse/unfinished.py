"""Uploads that never became a release: found in an object store, and taken out of it.

A publisher that was killed leaves files under a number of its own. The number is abandoned first, which one
that is only slow notices and then takes another (uploads.py). The claim stays, so that the number is given
to nobody again.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sid_warehouse import names
from sid_warehouse.names import Ref
from sid_warehouse.origin import Origin, record_key, together
from sid_warehouse.uploads import ABANDONED, claim_key

AGE = timedelta(days=1)  # no upload takes that long


@dataclass(frozen=True)
class Upload:
    """What lies under a number that is no release. bytes: of the files there."""

    ref: Ref
    bytes: int
    claimed: str


def find(origin: Origin, now: datetime | None = None) -> list[Upload]:
    """Give the uploads that were begun a day ago or earlier, never committed, and left files."""
    now = now or datetime.now(UTC)
    datasets = [name for name in origin.names("releases") if names.DATASET.fullmatch(name)]
    claimed = [Ref(name, number) for name in datasets for number in origin.numbers(name)]
    found = together(lambda ref: _unfinished(origin, ref, now), claimed)
    return [upload for upload in found if upload]


def remove(origin: Origin, ref: Ref) -> bool:
    """Remove the files under a number; False where it has become a release meanwhile."""
    assert ref.version
    origin.put_json(record_key(ref.dataset, ref.version), ABANDONED, if_none_match=True)
    if origin.record(ref.dataset, ref.version):
        return False
    together(origin.objects.remove, _files(origin, ref))
    return True


def _unfinished(origin: Origin, ref: Ref, now: datetime) -> Upload | None:
    assert ref.version
    if origin.record(ref.dataset, ref.version):
        return None
    claim = origin.read_json(claim_key(ref.dataset, ref.version))
    try:
        claimed = str(claim[0]["created"]) if claim else ""
        if now - datetime.fromisoformat(claimed) < AGE:
            return None
    except (KeyError, TypeError, ValueError):
        return None  # made by no publisher of ours
    sizes = _files(origin, ref)
    return Upload(ref, sum(sizes.values()), claimed) if sizes else None


def _files(origin: Origin, ref: Ref) -> dict[str, int]:
    assert ref.version
    prefix = f"releases/{ref.dataset}/v{ref.version}"
    kept = {claim_key(ref.dataset, ref.version), record_key(ref.dataset, ref.version)}
    return {key: size for key, size in origin.objects.sizes(prefix).items() if key not in kept}
