"""What a warehouse can do without: found, and removed so that no reader sees half of it.

Removed are releases that no rule keeps (retention.py), outputs of stages that no release names, what killed
processes left half written, what tasks of an engine gave each other in runs that ended, rows that gates
refused, and on request the vectors of encoders that no release was made with. Each is renamed away at once
and deleted then. Nothing outside the warehouse is touched: what lies behind a symbolic link stays, and of a
link only the link goes. In the folder that stands for a warehouse in an object store, releases are copies,
which can be brought again; in the store itself only unfinished uploads are removed.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sid_schemas import WarehouseError
from sid_warehouse import catalog, files, locks, origin, releases, retention, tags, unfinished
from sid_warehouse.names import Ref
from sid_warehouse.retention import Rules
from sid_warehouse.stages import REFUSED, SCRATCH

STAGE_DAYS = 7
# Where files.writing makes folders.
TEMPORARY = (
    "", "releases/*", "stages/*/*", "tags/*", "cards/*", "exports/*/*", "cache", "cache/*/*",
    f"{SCRATCH}/*", f"{REFUSED}/*", "evaluations/*",
)  # fmt: skip
READ = "a reader holds it"
IDENTITY = ("encoder", "weights", "precision", "device", "packages")
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Piece:
    """Something that can go.

    what: release, stage, leftover, cache; or upload, to an object store and never finished, which has no
    path here. bytes: what that frees, on disk or there.
    """

    what: str
    name: str
    path: Path | None
    bytes: int
    why: str


@dataclass(frozen=True)
class Kept:
    """A release that stays. bytes: the size of its files, some of which others may share."""

    ref: str
    bytes: int
    why: list[str]


@dataclass
class Found:
    """What can go and what stays."""

    remove: list[Piece] = field(default_factory=list)
    keep: list[Kept] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Give what removing it all frees on disk."""
        return sum(piece.bytes for piece in self.remove)


def find(warehouse: Path, rules: Rules, *, stage_days: float = STAGE_DAYS, cache: bool = False) -> Found:
    """Find what can go, without touching anything.

    stage_days: the age of outputs that no release names, and of what other machines left half written. cache:
    also the vectors of encoders that no release that stays was made with, where they are as old.
    """
    return _Search(warehouse, rules, stage_days, datetime.now(UTC)).find(cache=cache)


def remove(warehouse: Path, rules: Rules, *, stage_days: float = STAGE_DAYS, cache: bool = False) -> Found:
    """Remove what `find` finds now, and give it; raises WarehouseError where a run is under way."""
    # Left from right to left: what was renamed away is deleted last, when runs may start again.
    with ExitStack() as graves, files.explained(warehouse), locks.collecting(warehouse):
        found = find(warehouse, rules, stage_days=stage_days, cache=cache)
        done = Found(keep=found.keep)
        try:
            for piece in found.remove:
                if _take(warehouse, piece, graves):
                    done.remove.append(piece)
                elif piece.what == "release":
                    done.keep.append(Kept(piece.name, piece.bytes, [READ]))
        finally:
            if any(piece.what == "release" for piece in done.remove):
                catalog.refresh(warehouse)
    return done


def _take(warehouse: Path, piece: Piece, graves: ExitStack) -> bool:
    """Rename something away, to be deleted with the graves; False where somebody has come to need it."""
    if piece.path is None:
        store = origin.of(warehouse)
        return store is not None and unfinished.remove(store, Ref.parse(piece.name))
    with locks.unread(piece.path) if piece.what == "release" else nullcontext(True) as free:
        if free:
            piece.path.rename(graves.enter_context(files.writing(piece.path.parent)) / piece.path.name)
        return free


class _Search:
    """One look through a warehouse."""

    def __init__(self, warehouse: Path, rules: Rules, stage_days: float, now: datetime) -> None:
        self.warehouse, self.rules, self.stage_days, self.now = warehouse, rules, stage_days, now
        self.root = warehouse.resolve()
        self.links: dict[tuple[int, int], int] = {}
        self.found = Found()
        self.staying: list[Record] = []
        self.damaged: set[str] = set()

    def find(self, *, cache: bool) -> Found:
        for dataset in releases.datasets(self.warehouse):
            self._releases(dataset)
        self._stages()
        self._leftovers()
        self._scratch()
        self._refused()
        if cache:
            self._caches()
        self._uploads()
        return self.found

    def _releases(self, dataset: str) -> None:
        there: dict[int, Record] = {}
        why: dict[int, list[str]] = {}
        for version in releases.versions(self.warehouse, dataset):
            try:
                there[version] = _read(self._folder(dataset, version))
            except (WarehouseError, RecursionError):
                why[version] = ["it cannot be read: see `sidmill verify`"]
                self.damaged.add(dataset)
        if there:
            why |= retention.reasons(there, tags.of(self.warehouse, dataset), self.rules, self.now)
        for version in [version for version in there if not why[version]]:
            if not self._is_ours(self._folder(dataset, version)):
                why[version].append("it lies behind a symbolic link")
                continue
            with locks.unread(self._folder(dataset, version)) as free:
                if not free:
                    why[version].append(READ)
        retention.keep_bases(there, why)
        for version in sorted(why):
            folder, ref = self._folder(dataset, version), f"{dataset}@v{version}"
            if why[version]:
                self.found.keep.append(Kept(ref, sum(one.st_size for one in _files(folder)), why[version]))
                self.staying += [there[version]] if version in there else []
            else:
                self._add("release", ref, folder, retention.said(self.rules))

    def _folder(self, dataset: str, version: int) -> Path:
        return self.warehouse / "releases" / dataset / f"v{version}"

    def _stages(self) -> None:
        named = {key for record in self.staying for key in record["keys"]}
        for folder in sorted(self.warehouse.glob("stages/*/*/[!.]*")):
            dataset, stage, key = folder.parts[-3:]
            age = self._days(folder / "manifest.json" if (folder / "manifest.json").exists() else folder)
            if key not in named and dataset not in self.damaged and age >= self.stage_days:
                why = f"no release that stays was made from it, {age:.0f} days old"
                self._add("stage", f"{dataset}/{stage}/{key}", folder, why)

    def _leftovers(self) -> None:
        for place in TEMPORARY:
            for path in sorted(self.warehouse.glob(f"{place}/{files.TEMPORARY}*".lstrip("/"))):
                running, name = files.is_running(path), path.relative_to(self.warehouse).as_posix()
                if running is False:
                    self._add("leftover", name, path, "its process is gone")
                elif running is None and (days := self._days(path)) >= self.stage_days:
                    self._add("leftover", name, path, f"left by another machine {days:.0f} days ago")

    def _scratch(self) -> None:
        """Find what tasks gave each other: a next run goes on from it, until the output is there."""
        for folder in sorted(self.warehouse.glob(f"{SCRATCH}/*/[!.]*")):
            stage, _, key = folder.name.rpartition("-")[0].rpartition("-")
            name = folder.relative_to(self.warehouse).as_posix()
            done = self.warehouse / "stages" / folder.parent.name / stage / key / "manifest.json"
            # Each task that ends is renamed into the folder of its step.
            days = min(map(self._days, (folder, *folder.glob("*"), *folder.glob("*/*"))))
            if stage and done.exists():
                self._add("leftover", name, folder, "the output that its tasks were to make is there")
            elif days >= self.stage_days:
                self._add("leftover", name, folder, f"no task of its run has ended for {days:.0f} days")
        for lock in sorted(self.warehouse.glob(f"{SCRATCH}/*/.*.lock")):
            if (days := self._days(lock)) >= self.stage_days:
                name = lock.relative_to(self.warehouse).as_posix()
                self._add("leftover", name, lock, f"of a run {days:.0f} days ago")

    def _refused(self) -> None:
        for folder in sorted(self.warehouse.glob(f"{REFUSED}/*/[!.]*")):
            if (days := self._days(folder)) >= self.stage_days:
                name = folder.relative_to(self.warehouse).as_posix()
                self._add("leftover", name, folder, f"rows of a release refused {days:.0f} days ago")

    def _caches(self) -> None:
        embeddings = [facts for record in self.staying for facts in record.get("embeddings", {}).values()]
        for folder in sorted(self.warehouse.glob("cache/vectors/[!.]*")):
            used = self.damaged or any(_made_with(facts, _identity(folder)) for facts in embeddings)
            if not used and self._days(folder) >= self.stage_days:
                self._add("cache", folder.name, folder, "no release that stays was made with this encoder")

    def _uploads(self) -> None:
        if store := origin.of(self.warehouse):
            for upload in unfinished.find(store):
                why = f"in {store.url}, begun {upload.claimed} and never finished"
                self.found.remove.append(Piece("upload", str(upload.ref), None, upload.bytes, why))

    def _add(self, what: str, name: str, path: Path, why: str) -> None:
        if self._is_ours(path):
            self.found.remove.append(Piece(what, name, path, self._frees(path), why))

    def _is_ours(self, path: Path) -> bool:
        """Say whether a path lies in the warehouse itself, not behind a symbolic link."""
        return path.parent.resolve() == self.root / path.parent.relative_to(self.warehouse)

    def _days(self, path: Path) -> float:
        try:
            return (self.now.timestamp() - path.lstat().st_mtime) / 86_400
        except FileNotFoundError:
            return 0  # a run has just finished it

    def _frees(self, path: Path) -> int:
        """Give what is free once this is gone too: a file of several names goes with its last one."""
        freed = 0
        for one in _files(path):
            file = (one.st_dev, one.st_ino)
            self.links[file] = self.links.get(file, one.st_nlink) - 1
            freed += 0 if self.links[file] else one.st_size
        return freed


def _files(path: Path) -> Iterator[os.stat_result]:
    """Give the status of every regular file below a path, or of the file itself; follows no link."""
    found = [path]
    if not path.is_symlink():
        found += (Path(at, name) for at, _, names in os.walk(path) for name in names)
    for one in found:
        try:
            status = one.lstat()
        except FileNotFoundError:
            continue  # removed meanwhile
        if stat.S_ISREG(status.st_mode):
            yield status


def _read(folder: Path) -> Record:
    """Read a release's record, with the `keys` of the stage outputs that it was made from."""
    record = releases.read(folder)
    try:
        stages = record.get("stages", {}).values()
        keys = [str(key) for one in stages for key in (one["key"], *one["parents"].values())]
    except (AttributeError, KeyError, TypeError) as error:
        raise WarehouseError(f"{folder}: 'stages' cannot be read ({error!r})") from error
    return {**record, "keys": keys}


def _identity(folder: Path) -> Mapping[str, Any]:
    try:
        return dict(files.read_json(folder / "identity.json"))
    except (TypeError, ValueError, WarehouseError):
        return {}


def _made_with(facts: Record, identity: Mapping[str, Any]) -> bool:
    """Say whether an embedding was made by the encoder of a cache; in doubt, yes."""
    encoder = facts.get("encoder")
    told = encoder if isinstance(encoder, dict) else {name: facts[name] for name in IDENTITY if name in facts}
    return all(identity.get(name, value) == value for name, value in told.items())
