"""Every call of this process to the file system below a folder, told before it is made.

Python announces most of them as audit events; writes, syncs and the like are wrapped. What DuckDB and
Arrow call themselves is not heard here. An audit hook cannot be taken off: tap only in a forked process.
"""

import builtins
import io
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What a call does decides which errors it can give: only what makes something can find the disk full.
EVENTS = {
    "open": "read",  # or "make", by its flags
    "os.listdir": "read",
    "os.scandir": "read",
    "shutil.rmtree": "read",
    "shutil.copyfile": "read",
    "fcntl.flock": "lock",
    "os.mkdir": "make",
    "os.rename": "make",
    "os.link": "make",
    "os.symlink": "make",
    "os.truncate": "make",
    "os.remove": "remove",
    "os.rmdir": "remove",
    "os.chmod": "make",
    "os.utime": "make",
}
WRAPPED = ("fsync", "fdatasync", "sendfile", "copy_file_range", "write", "pwrite")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True)
class Call:
    """One call that is about to be made. does: read, lock, make or remove."""

    number: int
    name: str
    does: str
    path: str

    def __str__(self) -> str:
        return f"{self.number} {self.name} {self.path}"


def tap(root: Path, hear: Callable[[Call], None]) -> None:
    """Tell `hear` each call below a folder before it is made; what it raises, the call raises."""
    prefix, count = str(root), 0
    real_open = io.open

    def told(name: str, does: str, path: str) -> None:
        nonlocal count
        count += 1
        hear(Call(count, name, does, path.removeprefix(prefix)))

    def audited(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in EVENTS:
            return
        heard = arguments[:1] if event == "open" else arguments  # what follows is its mode
        paths = [os.fsdecode(one) for one in heard if isinstance(one, str | bytes | os.PathLike)]
        # Relative to a descriptor, as in rmtree, or a descriptor itself: nobody but us does that below.
        ours = [path for path in paths if path.startswith(prefix) or not path.startswith("/")]
        if not paths and event != "open":
            ours = [f"<{arguments[0]}>"]
        if ours:
            writes = event == "open" and arguments[2] & WRITING
            told(event, "make" if writes else EVENTS[event], ours[-1])

    def opened(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        made = real_open(file, mode, *arguments, **options)
        named = not isinstance(file, int) and os.fspath(file)
        ours = named and os.fsdecode(named).startswith(prefix) and set(mode) & set("wxa+")
        return _Torn(made, lambda: told("write", "make", os.fsdecode(named))) if ours else made

    def wrapped(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*arguments: Any, **options: Any) -> Any:
            path = str(Path(f"/proc/self/fd/{arguments[0]}").readlink())
            if path.startswith(prefix):
                told(name, "make", path)
            return real(*arguments, **options)

        return call

    for name in WRAPPED:
        setattr(os, name, wrapped(name))
    io.open = builtins.open = opened  # type: ignore[assignment]
    sys.addaudithook(audited)


class _Torn:
    """A file that is written in two halves, both of which reach the disk, so that a write can be torn."""

    def __init__(self, file: Any, tell: Callable[[], None]) -> None:
        self._file, self._tell = file, tell

    def write(self, data: Any) -> int:
        for half in (data[: len(data) // 2], data[len(data) // 2 :]):
            self._tell()
            self._file.write(half)
            self._file.flush()
        return len(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_Torn":
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()
