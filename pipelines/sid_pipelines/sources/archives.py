"""The content of a raw file, block by block: plain, gzip, or a member of a zip; bombs and odd names refused.

Nothing is ever unpacked to disk, so a member's name cannot lead anywhere; a name that tries is refused
all the same, because an archive made by an attacker is no dump.
"""

import lzma
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from isal import isal_zlib

from sid_schemas import SourceError

GZIP_MAGIC = b"\x1f\x8b"
ZIP_MAGIC = b"PK\x03\x04"
READ = 1 << 20  # compressed bytes at a time
BOMB_BYTES, BOMB_RATIO = 1 << 30, 400  # texts shrink by 3 to 20, a bomb by 1,000


class CutOffError(Exception):
    """A gzip stream that ends before its end marker, as an unfinished download does."""


class DamagedError(Exception):
    """A compressed stream whose content is not what its checks say."""


def is_zip(path: Path) -> bool:
    """Say whether a file is a zip archive, by its first bytes."""
    with path.open("rb") as file:
        return file.read(4) == ZIP_MAGIC


def members(path: Path) -> list[str]:
    """Give the names of the files in a zip, sorted; raises SourceError for one that must not be trusted."""
    with _archive(path) as archive:
        infos = [info for info in archive.infolist() if not info.filename.endswith("/")]
    for info in infos:
        name = PurePosixPath(info.filename.replace("\\", "/"))
        if not name.parts:
            raise SourceError(
                f"{path}: holds a member called {info.filename!r}, which is no name; expected plain names. "
                "Do not use this archive"
            )
        if name.is_absolute() or ".." in name.parts or ":" in name.parts[0]:
            raise SourceError(
                f"{path}: holds a member called {info.filename!r}, which points out of the archive; "
                "expected plain names. Do not use this archive"
            )
    full, packed = sum(info.file_size for info in infos), path.stat().st_size
    if full > BOMB_BYTES and full > BOMB_RATIO * packed:
        raise SourceError(_bomb(path, full, packed))
    return sorted(info.filename for info in infos if not info.filename.startswith("__MACOSX/"))


def blocks(path: Path, member: str | None = None) -> Iterator[bytes]:
    """Yield a file's content, decompressed, in blocks of any size.

    Raises SourceError for a file that cannot be read or a bomb, DamagedError, and CutOffError after the
    last block that could be read.
    """
    try:
        if member is None:
            with path.open("rb") as file:
                yield from _content(path, file)
        else:
            with _archive(path) as archive, archive.open(member) as inner:
                yield from _content(path, inner)
    except OSError as error:
        if member is not None and error.errno is None:  # how bz2 tells damage, unlike the system
            raise DamagedError(str(error)) from error
        reason = error.strerror or str(error)
        raise SourceError(f"{path}: cannot be read ({reason}). Check [source] path") from error
    except KeyError as error:
        raise SourceError(f"{path}: has no member {member!r} any more") from error
    except RuntimeError as error:  # how zipfile tells an encrypted member
        raise SourceError(f"{path}: {error}; unpack it yourself and name the folder") from error
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError) as error:
        raise DamagedError(str(error)) from error


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError) as error:  # the latter of a version there never was
        raise SourceError(
            f"{path}: is a damaged or truncated zip archive ({error}); expected a central directory at its "
            "end. Download it again"
        ) from error


def _content(path: Path, file: IO[bytes]) -> Iterator[bytes]:
    first = file.read(READ)
    if not first.startswith(GZIP_MAGIC):
        while first:
            yield first
            first = file.read(READ)
        return
    packed = full = 0
    stream = isal_zlib.decompressobj(31)
    block = first
    while block:
        packed += len(block)
        while block:
            if stream.eof:  # another gzip member follows, or padding
                block = block.lstrip(b"\0")
                if not block:
                    break
                stream = isal_zlib.decompressobj(31)
            try:
                plain = stream.decompress(block)
            except isal_zlib.error as error:  # type: ignore[misc]
                raise DamagedError(str(error)) from error
            full += len(plain)
            if full > BOMB_BYTES and full > BOMB_RATIO * packed:
                raise SourceError(_bomb(path, full, packed))
            if plain:
                yield plain
            block = stream.unused_data if stream.eof else b""
        block = file.read(READ)
    if not stream.eof:
        raise CutOffError


def _bomb(path: Path, full: int, packed: int) -> str:
    return (
        f"{path}: {packed:,} bytes unpack to more than {full:,}, as a zip bomb does; expected at most "
        f"{BOMB_RATIO} times as much. If the file is honest, unpack it yourself and name the folder"
    )
