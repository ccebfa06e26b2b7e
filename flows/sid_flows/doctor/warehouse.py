"""The warehouse: room on its disk, what its file system can do, and what lies in it.

Everything is looked for in the local folder; of a warehouse in an object store this is the folder with
copies, and the store itself is not asked.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from sid_flows.doctor.finding import Finding
from sid_flows.doctor.installed import version_of
from sid_schemas import SidmillError
from sid_warehouse import catalog, files, origin, records, releases, tags
from sid_warehouse.garbage import TEMPORARY

GIB = 1 << 30
FULL, TIGHT = 1, 10  # GiB that are free
MOUNTS = Path("/proc/mounts")


def of_warehouse(place: Path) -> Iterator[Finding]:
    """Give what is found of a warehouse and of the disk that it is on."""
    there = place if place.is_dir() else next(one for one in place.parents if one.is_dir())
    yield room(there)
    yield abilities(there)
    if there != place:
        if place.exists():
            do = "name a folder with --warehouse or $SIDMILL_WAREHOUSE"
            yield Finding("warehouse", "problem", f"{place}: is no folder", do)
        else:
            yield Finding("warehouse", "note", f"{place}: not there yet", "`sidmill run RECIPE` makes it")
        return
    try:
        yield from in_store(place)
        yield from inside(place)
    except (SidmillError, OSError) as error:
        yield Finding("warehouse", "problem", str(error), "restore it from a copy, or name another")


def room(folder: Path) -> Finding:
    """Say how much room there is."""
    usage = shutil.disk_usage(folder)
    said = f"{usage.free / GIB:.1f} GiB free of {usage.total / GIB:.0f} on the disk of {folder}"
    do = "make room (`sidmill gc` lists what can go), or choose another disk with --warehouse"
    if usage.free < FULL * GIB:
        return Finding("warehouse", "problem", said, do)
    return (
        Finding("warehouse", "note", said, do)
        if usage.free < TIGHT * GIB
        else Finding("warehouse", "ok", said)
    )


def abilities(folder: Path) -> Finding:
    """Try in a temporary folder what publishing relies on: rename, lock, hard link."""
    kind = kind_of_file_system(folder)
    try:
        with files.writing(folder) as scratch:
            lacks = [name for name, tried in TRIALS.items() if not _works(tried, scratch)]
    except SidmillError:
        do = "reading works; to build, mend the permissions or choose another place with --warehouse"
        return Finding("warehouse", "note", f"{folder} ({kind}) is read-only for us", do)
    if "renames a folder" in lacks or "locks a file" in lacks:
        said = f"{folder} ({kind}) does not do what publishing needs: {', '.join(lacks)}"
        return Finding("warehouse", "problem", said, "choose a local disk or NFSv4 with --warehouse")
    if lacks:
        said = f"{folder} ({kind}) has no hard links: appends copy files instead, which takes room"
        return Finding("warehouse", "note", said)
    return Finding("warehouse", "ok", f"{folder} ({kind}) renames, locks and links")


def _rename(scratch: Path) -> None:
    (scratch / "old").mkdir()
    (scratch / "old").rename(scratch / "new")


def _lock(scratch: Path) -> None:
    with (scratch / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _link(scratch: Path) -> None:
    (scratch / "one").write_text("1")
    os.link(scratch / "one", scratch / "two")


TRIALS = {"renames a folder": _rename, "locks a file": _lock, "links a file": _link}


def _works(tried: object, scratch: Path) -> bool:
    assert callable(tried)
    try:
        tried(scratch)
    except OSError:
        return False
    return True


def kind_of_file_system(folder: Path) -> str:
    """Give the kind of file system that a folder is on, as the system calls it."""
    try:
        mounts = [line.split()[1:3] for line in MOUNTS.read_text().splitlines()]
    except OSError:
        return "file system unknown"
    above = [(at, kind) for at, kind in mounts if folder.resolve().is_relative_to(at)]
    return max(above, key=lambda mount: len(mount[0]))[1] if above else "file system unknown"


def in_store(place: Path) -> Iterator[Finding]:
    """Say which object store a folder stands for, and whether it can be reached for at all."""
    if store := origin.of(place):
        if version_of("s3fs"):
            yield Finding("warehouse", "ok", f"{place} has copies of {store.url}, which is not asked here")
        else:
            said = f"{store.url} needs s3fs, which is not installed"
            yield Finding("warehouse", "problem", said, "pip install 'sidmill[s3]'")


def inside(place: Path) -> Iterator[Finding]:
    """Give what is found of releases, tags, the catalog, and what was left unfinished."""
    top = place / "releases"
    if os.path.lexists(top) and not top.is_dir():
        yield Finding("warehouse", "problem", f"{top}: is no folder", "move it away; releases are kept there")
    good, bad = [], []
    for name in releases.datasets(place):
        for version in releases.versions(place, name):
            try:
                releases.read(top / name / f"v{version}")
                good.append(f"{name}@v{version}")
            except SidmillError as error:
                bad.append(str(error))
    yield Finding("warehouse", "ok", f"{len(good)} releases" if len(good) != 1 else f"1 release, {good[0]}")
    for said in bad:
        yield Finding("warehouse", "problem", said, "restore that release from a copy, or remove its folder")
    yield from pointless(place)
    if (place / catalog.NAME).exists() or good:
        if catalog.is_current(place):
            yield Finding("warehouse", "ok", f"{catalog.NAME} is current")
        else:
            do = "`sidmill catalog` brings it up to date"
            yield Finding("warehouse", "note", f"{catalog.NAME} does not show the releases there are", do)
    yield from leftovers(place)


def pointless(place: Path) -> Iterator[Finding]:
    """Find tags that name a release which is gone, or is another one by now."""
    for name in tags.datasets(place):
        for tag in tags.of(place, name):
            folder = place / "releases" / name / f"v{tag.now.version}"
            try:
                there = (folder / records.NAME).is_file()
                other = there and releases.read(folder)["fingerprint"] != tag.now.fingerprint
            except SidmillError:
                continue  # a damaged release is told already
            if origin.of(place) is None and not there:
                said = f"tag {tag.ref} names v{tag.now.version}, which is gone"
            elif other:
                said = f"tag {tag.ref} was set on another v{tag.now.version} than the one there"
            else:
                continue
            yield Finding("warehouse", "problem", said, f"`sidmill tag {name}@vN {tag.name}` names a release")


def leftovers(place: Path) -> Iterator[Finding]:
    """Count what killed processes left half written."""
    found = [path for one in TEMPORARY for path in place.glob(f"{one}/{files.TEMPORARY}*".lstrip("/"))]
    gone = [path for path in found if files.is_running(path) is False]
    if gone:
        said = f"unfinished folders of killed processes: {len(gone)}, as {gone[0].relative_to(place)}"
        yield Finding("warehouse", "note", said, "`sidmill gc --yes` removes them; the next run goes on")
