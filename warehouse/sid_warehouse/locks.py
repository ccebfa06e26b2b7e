"""Who is at work on a warehouse. The kernel lets go of these locks when a process ends, however it ends.

    .lock          shared by runs and whatever else adds to a warehouse; gc takes it alone
    .lock-DATASET  one run of a data set at a time
    .catalog-lock  one refresh of the catalog at a time
    tags/.lock     one move of a tag at a time
    release.json   shared by the readers of a release, which gc then leaves

Readers lock a file that is there anyhow, opened for reading: nothing is written, so that pins work where
the warehouse is mounted read-only. Where a file system has no locks, work goes on without, and gc refuses.
"""

import errno
import fcntl
import os
import socket
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sid_schemas import WarehouseError

NAME = ".lock"
# NFS without a lock service, and what FUSE and cluster file systems say that know no flock.
UNSUPPORTED = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


@contextmanager
def building(warehouse: Path) -> Iterator[None]:
    """Tell gc that this warehouse is being added to; any number of runs may say so at once.

    Hold it from before stages are looked up until the release is published: between the two, outputs that
    the run counts on belong to no release yet. Waits while a gc removes something.
    """
    warehouse.mkdir(parents=True, exist_ok=True)
    with _locked(warehouse / NAME, fcntl.LOCK_SH):
        yield


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a lock file alone, made where it is not there; waits for whoever has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path, fcntl.LOCK_EX):
        yield


@contextmanager
def in_turn(path: Path, waits: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock file alone, and note in it who does. Where another has it, say so once and wait.

    waits: told who has it, as that one noted. Unlike `alone` it is for what may take hours.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            _flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waits(os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process")
            _flock(descriptor, fcntl.LOCK_EX)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}, since {now}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def collecting(warehouse: Path) -> Iterator[None]:
    """Keep runs from starting while gc removes something; raises WarehouseError where one is under way."""
    with ExitStack() as held:
        try:
            held.enter_context(_locked(warehouse / NAME, fcntl.LOCK_EX | fcntl.LOCK_NB, needed=True))
        except BlockingIOError as error:
            raise WarehouseError(
                f"{warehouse}: a run is under way; expected none while something is removed. "
                "Try again when it is done"
            ) from error
        yield


@contextmanager
def _locked(path: Path, how: int, *, needed: bool = False) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not _flock(descriptor, how) and needed:
            raise WarehouseError(
                f"{path}: this file system has no locks, so that runs and readers cannot be seen. "
                "Remove nothing while somebody may use the warehouse"
            )
        yield
    finally:
        os.close(descriptor)


def _flock(descriptor: int, how: int) -> bool:
    """Lock an open file; False where the file system cannot. Raises BlockingIOError for LOCK_NB."""
    try:
        fcntl.flock(descriptor, how)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return False
    return True


class Pin:
    """A reader's hold on a release, so that gc leaves it: until closed, collected, or the process ends.

    A forked process holds it too, a pickled one pins anew. A folder without `release.json` is not pinned.
    Raises WarehouseError where the release was removed meanwhile.
    """

    def __init__(self, folder: Path) -> None:
        """Lock the release's `release.json` for reading."""
        self.folder = folder
        self._let_go: Callable[[], Any] | None = None
        try:
            descriptor = os.open(folder / "release.json", os.O_RDONLY)
        except OSError:  # not there, or not ours to read: whoever opens it says so
            return
        # Closed, never unlocked: that would let go for the processes forked from this one.
        self._let_go = weakref.finalize(self, os.close, descriptor)
        _flock(descriptor, fcntl.LOCK_SH)
        if not _is_at(descriptor, folder / "release.json"):
            self.close()
            raise WarehouseError(
                f"{folder}: was removed while it was opened. `sidmill releases` lists what is there"
            )

    def close(self) -> None:
        """Let go; a second time does nothing."""
        if self._let_go:
            self._let_go()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pin anew in the process that it is sent to."""
        return Pin, (self.folder,)


@contextmanager
def unread(folder: Path) -> Iterator[bool]:
    """Keep readers from opening a release meanwhile; gives False where one holds it, or it is gone."""
    path = folder / "release.json"
    with ExitStack() as held:
        try:
            try:
                descriptor = os.open(path, os.O_RDWR)  # NFS gives a lock alone only for writing
            except OSError:
                descriptor = os.open(path, os.O_RDONLY)
            held.callback(os.close, descriptor)
            free = _flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, FileNotFoundError):
            free = False
        yield free


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
