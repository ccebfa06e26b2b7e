"""Files that are whole or absent: hash, copy, write under a temporary name, sync, rename."""

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from isal import isal_zlib
from safetensors import SafetensorError

from sid_schemas import WarehouseError

TEMPORARY = ".tmp-"
BLOCK, DIGITS = 1 << 20, 8  # bytes that a checksum of `blocks` stands for, and its hex digits
UNLINKABLE = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP}


def sha256(path: Path) -> str:
    """Give the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_once(path: Path) -> str:
    """Give the SHA-256 of a file, computed once per process while size and time stay the same."""
    status = path.stat()
    return _sha256_of(path, status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=4096)
def _sha256_of(path: Path, size: int, modified: int, inode: int) -> str:
    return sha256(path)


def digest(value: Any) -> str:
    """Give the SHA-256 of a JSON value in canonical form (sorted keys, no spaces), in hex."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def as_json(value: Any) -> Any:
    """Give a value as it comes back from JSON: tuples as lists, keys as strings."""
    return json.loads(json.dumps(value))


def copy_hashed(source: Path, target: Path) -> dict[str, Any]:
    """Copy a file, sync it, and give its `hashes`, all in one pass over the bytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as reader, target.open("xb") as writer:
        found = _hash(reader, writer)
        writer.flush()
        os.fsync(writer.fileno())
    return found


def link_hashed(source: Path, target: Path) -> dict[str, Any]:
    """Give a file a second name and give its `hashes`; a copy where the file system can link it no more.

    Both names are one file on disk, so what damages one damages the other.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if not link(source, target):
        return copy_hashed(source, target)
    sync(target.parent)
    return hashes(target)


def link(source: Path, target: Path) -> bool:
    """Give a file a second name; False where the file system can link it no more."""
    try:
        os.link(source.resolve(), target)  # not the symbolic link, where it is one
    except OSError as error:
        if error.errno not in UNLINKABLE:
            raise
        return False
    return True


def hashes(path: Path) -> dict[str, Any]:
    """Give {"bytes": size, "sha256": in hex, "blocks": DIGITS hex digits of CRC-32 for each BLOCK bytes}."""
    with path.open("rb") as reader:
        return _hash(reader)


def _hash(reader: BinaryIO, writer: BinaryIO | None = None) -> dict[str, Any]:
    """Hash what is left of a file, and write it to another one on the way."""
    hasher, size, blocks = hashlib.sha256(), 0, []
    while block := reader.read(BLOCK):
        hasher.update(block)
        blocks.append(f"{isal_zlib.crc32(block):0{DIGITS}x}")
        if writer:
            writer.write(block)
        size += len(block)
    return {"bytes": size, "sha256": hasher.hexdigest(), "blocks": "".join(blocks)}


def crc32(path: Path) -> str:
    """Give the CRC-32 of a file's bytes, as DIGITS hex digits."""
    found = 0
    with path.open("rb") as reader:
        while block := reader.read(BLOCK):
            found = isal_zlib.crc32(block, found)
    return f"{found:0{DIGITS}x}"


def inventory(folder: Path) -> dict[str, dict[str, Any]]:
    """Give size and SHA-256 of every file below a folder, by relative path in sorted order."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in files
    }


def sync_tree(folder: Path) -> None:
    """Force a folder, all its files and its subfolders to disk."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def sync(path: Path) -> None:
    """Force one file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON, key order kept; raises ValueError for NaN or infinity, which JSON has not."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON, or raise WarehouseError naming the file that is missing, not ours to read or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WarehouseError(
            f"{path}: cannot be read ({error.strerror}). Mend its permissions, or restore the folder"
        ) from error
    except (ValueError, RecursionError) as error:
        raise WarehouseError(f"{path}: cannot be read as JSON ({error}); the folder is damaged") from error


@contextmanager
def writing(parent: Path) -> Iterator[Path]:
    """Give a fresh temporary folder below `parent`, removed again unless it was renamed away."""
    with explained(parent):
        parent.mkdir(parents=True, exist_ok=True)
        owner = f"{socket.gethostname()}-{os.getpid()}"
        folder = parent / f"{TEMPORARY}{owner}-{uuid.uuid4().hex[:8]}"
        folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def rename_folder(folder: Path, target: Path) -> bool:
    """Rename a complete folder into place at once; False where the target exists already."""
    sync_tree(folder)
    try:
        folder.rename(target)
    except OSError:
        if target.exists():
            return False
        raise
    sync(target.parent)
    return True


def sweep(folder: Path) -> None:
    """Remove what killed processes of this machine left half written in a folder."""
    for leftover in folder.glob(f"{TEMPORARY}*"):
        if is_running(leftover) is False:
            shutil.rmtree(leftover, ignore_errors=True)


def is_running(leftover: Path) -> bool | None:
    """Say whether the process that is writing a folder still runs; None for one of another machine."""
    prefix = f"{TEMPORARY}{socket.gethostname()}-"
    pid = leftover.name.removeprefix(prefix).partition("-")[0]
    if not (leftover.name.startswith(prefix) and pid.isdigit()):
        return None
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


REFUSALS = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO,
    errno.ENOTDIR, errno.EEXIST,
}  # fmt: skip


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn a refused write below `path` into one line that says what to do; other errors pass."""
    try:
        yield
    except OSError as error:
        named = Path(error.filename) if isinstance(error.filename, str | Path) else path
        ours = named.is_relative_to(path) or path.is_relative_to(named)
        if error.errno not in REFUSALS or not ours:
            raise
        raise _refused(path, error.errno) from error
    except SafetensorError as error:  # Rust tells its number in the text alone
        said = re.search(r"\(os error (\d+)\)", str(error))
        if not said or int(said[1]) not in REFUSALS:
            raise
        raise _refused(path, int(said[1])) from error


def _refused(path: Path, number: int) -> WarehouseError:
    return WarehouseError(
        f"{path}: cannot be written ({os.strerror(number)}). Mend the permissions or the disk, "
        "or choose another place with --warehouse"
    )
