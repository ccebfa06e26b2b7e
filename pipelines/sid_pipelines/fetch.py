"""Bring the files of a public dump: resumed where they stopped, and checked before they get their name.

Bytes go to `<name>.part`; what they are a part of stands in `<name>.part.json`. Whatever way they came,
the SHA-256 is taken over the whole file on disk, and only then is it renamed. A file that nobody pinned is
remembered in `<name>.sha256`, so that the next fetch is checked against the first. What there is to fetch
is in public_dumps.py.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import quote, urlsplit
from urllib.request import (
    url2pathname,
)

from sid_pipelines.download import CHUNK, MissError, Part, Progress, download
from sid_pipelines.public_dumps import Dump, DumpFile
from sid_pipelines.sources import SOURCES
from sid_schemas import RecipeError, SourceError
from sid_warehouse import files

MIRROR = "SIDMILL_MIRROR"
EARLIER = "an earlier fetch"


@dataclass(frozen=True)
class Pin:
    """The SHA-256 a file must have, and who says so."""

    sha256: str
    by: str


@dataclass(frozen=True)
class Fetched:
    """A file that is there now. place: where it came from, or "" where it was there before."""

    path: Path
    sha256: str
    bytes: int
    place: str
    pin: Pin | None

    @property
    def summary(self) -> str:
        """Say in one line what happened and how far the file can be trusted."""
        came = f"{self.bytes:,} bytes from {self.place}" if self.place else "already there"
        if self.pin:
            return f"{came}, SHA-256 as {self.pin.by} has it"
        return (
            f"{came}, NOT PINNED: nobody's SHA-256 to check it against; its own is {self.sha256}, kept in "
            f"{self.path.name}.sha256 for the next fetch"
        )

    @property
    def record(self) -> dict[str, Any]:
        """Give the same for a program to read."""
        pinned_by = self.pin.by if self.pin else None
        told = {"path": str(self.path), "bytes": self.bytes, "sha256": self.sha256}
        return {**told, "from": self.place or None, "pinned_by": pinned_by}


class Reporter(Protocol):
    """What shows progress: the console's reporters do."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """Show how far it is."""


def ready(dump: Dump, sha256: str | None = None) -> None:
    """Raise SourceError where a dump cannot be fetched, RecipeError where its --sha256 cannot be used."""
    if not dump.files:
        raise SourceError(
            f"{dump.name}: has no public URL. To get it, {dump.get_it}; then [source] kind = "
            f'"{dump.kind}" {"reads it" if dump.kind in SOURCES else "will read it, but is not there yet"}'
        )
    if sha256 is None:
        return
    if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise RecipeError(f"--sha256 {sha256}: expected 64 hexadecimal digits, got {len(sha256)} characters")
    if len(dump.files) > 1:
        names = ", ".join(file.name for file in dump.files)
        raise RecipeError(f"--sha256: {dump.name} has {len(dump.files)} files ({names}); expected one")
    known = dump.files[0].sha256
    if known not in (None, sha256.lower()):
        raise RecipeError(f"--sha256 {sha256}: {dump.name} is pinned to {known}; leave --sha256 out")


def mirrors_of(given: Sequence[str] | None) -> list[str]:
    """Give the mirrors in order: those given, then $SIDMILL_MIRROR."""
    mirrors = [*(given or ()), *filter(None, [os.environ.get(MIRROR)])]
    for mirror in mirrors:
        scheme = mirror.partition("://")[0].lower() if "://" in mirror else "file"
        if scheme not in ("http", "https", "file"):
            raise RecipeError(f"mirror {mirror}: expected http, https, file or a path, got {scheme}://")
        if scheme != "file" and not re.fullmatch(
            r"https?://[\w.-]+(:\d{1,5})?(/[!-~]*)?", mirror, re.I | re.A
        ):
            raise RecipeError(f"mirror {mirror!r}: expected a URL such as https://host/folder")
    return mirrors


def recipe_source(dump: Dump, folder: Path) -> dict[str, str] | None:
    """Give the [source] section that reads a fetched dump, or None where no kind of ours reads it yet."""
    if dump.kind not in SOURCES:
        return None
    alone = dump.files[0].name if len(dump.files) == 1 else ""
    return {"kind": dump.kind, "path": str(folder.resolve() / (dump.reads or alone))}


def recipe_lines(dump: Dump, section: dict[str, str] | None) -> str:
    """Give the same as the lines of a recipe, or say that there is no such kind yet."""
    if section is None:
        return f"no [source] kind reads this dump yet; {dump.kind!r} will"
    # A JSON string is a TOML basic string.
    return "\n".join(["[source]", *(f"{key} = {json.dumps(value)}" for key, value in section.items())])


def progress_to(report: Reporter, label: str) -> Progress:
    """Give a progress callback that tells a reporter, once the size is known."""

    def tell(done: int, total: int | None) -> None:
        if total:
            report.progress(label, done, total)

    return tell


def fetch_file(
    dump: Dump,
    file: DumpFile,
    folder: Path,
    *,
    mirrors: Sequence[str] = (),
    sha256: str | None = None,
    progress: Progress = lambda done, total: None,
) -> Fetched:
    """Bring one file of a dump into a folder, or find it there already.

    mirrors: base URLs, folders or files, tried first. sha256: pins a file that the table does not pin.
    Raises SourceError naming every place that was tried, or what stands in the way in the folder.
    """
    if not re.fullmatch(r"[\w-][\w.-]*", file.name):
        raise SourceError(f"{file.name!r}: expected a plain file name, got a path; it is not fetched")
    final = folder / file.name
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        pin = _pin(file, final, sha256)
        if final.exists():
            fetched = _there(final, pin)
        else:
            with Part.of(final) as part:
                fetched = _brought(file, _places(dump, file, mirrors), part, final, pin, progress)
        if not file.sha256:
            _remember(fetched)
    return fetched


def _pin(file: DumpFile, final: Path, sha256: str | None) -> Pin | None:
    """Give what the file must be: by the table, by --sha256, or as it came the first time."""
    if file.sha256:
        return Pin(file.sha256, "the table of dumps")
    note = _note(final)
    words = note.read_text(encoding="utf-8").split() if note.exists() else []
    first = words[0] if words and re.fullmatch(r"[0-9a-f]{64}", words[0]) else None
    if note.exists() and first is None:
        raise SourceError(f"{note}: expected a SHA-256 and a file name; mend or delete this file")
    if sha256 and first and first != sha256.lower():
        raise SourceError(f"{note}: holds {first}, but --sha256 is {sha256}; delete the file if it is wrong")
    if sha256:
        return Pin(sha256.lower(), "--sha256")
    return Pin(first, EARLIER) if first else None


def _note(final: Path) -> Path:
    return final.with_name(f"{final.name}.sha256")


def _remember(fetched: Fetched) -> None:
    """Write the SHA-256 beside a file, as `sha256sum -c` reads it."""
    note = _note(fetched.path)
    if not note.exists():
        note.write_text(f"{fetched.sha256}  {fetched.path.name}\n", encoding="utf-8")


def _there(final: Path, pin: Pin | None) -> Fetched:
    digest = files.sha256(final)
    if pin and digest != pin.sha256:
        raise SourceError(
            f"{final}: is there already with SHA-256 {digest}; expected {pin.sha256}, as {pin.by} has it. "
            "Move it away, or fetch to another folder with --to"
        )
    return Fetched(final, digest, final.stat().st_size, "", pin)


def _brought(
    file: DumpFile, places: list[str | Path], part: Part, final: Path, pin: Pin | None, progress: Progress
) -> Fetched:
    """Try the places in order until one gives the file that is expected."""
    tried = []
    for place in places:
        try:
            if isinstance(place, Path):
                _copy(place, part, progress)
                digest = part.sha256()
            else:
                digest = _from_url(place, part, pin, progress)
            if pin and digest != pin.sha256:
                part.drop()
                raise MissError(f"expected SHA-256 {pin.sha256} ({pin.by}), got {digest}")
        except MissError as miss:
            tried.append(f"{place}: {miss}")
            continue
        size = part.size
        part.keep_as(final)
        return Fetched(final, digest, size, str(place), pin)
    renewed = f"; if the dump was renewed, delete {_note(final)}" if pin and pin.by == EARLIER else ""
    raise SourceError(
        f"{file.name}: could not be fetched. Tried {'; '.join(tried)}. Check the network, or name a copy "
        f"with --mirror or ${MIRROR}{renewed}"
    )


def _places(dump: Dump, file: DumpFile, mirrors: Sequence[str]) -> list[str | Path]:
    """Give the places of a file, mirrors first."""
    return [*(_at_mirror(mirror, file.name, len(dump.files) == 1) for mirror in mirrors), *file.urls]


def _at_mirror(mirror: str, name: str, alone: bool) -> str | Path:
    parts = urlsplit(mirror)
    if "://" in mirror and parts.scheme.lower() in ("http", "https"):
        return mirror if parts.path.endswith(f"/{name}") else f"{mirror.rstrip('/')}/{quote(name)}"
    path = Path(url2pathname(parts.path) if "://" in mirror else mirror).expanduser()
    is_the_file = path.is_file() and (alone or path.name == name)
    return path if is_the_file else path / name


def _copy(source: Path, part: Part, progress: Progress) -> None:
    """Copy a local file into the part, from its start; a copy, so that the mirror may go."""
    try:
        reader, total = source.open("rb"), source.stat().st_size
    except OSError as error:
        raise MissError(error.strerror or str(error)) from error
    with reader:
        part.begin(str(source), "")
        while chunk := _read(reader):
            part.write(chunk)
            progress(part.size, total)


def _read(reader: IO[bytes]) -> bytes:
    """Read a block of a mirror's file; a failure must not look as if ours could not be written."""
    try:
        return reader.read(CHUNK)
    except OSError as error:
        raise MissError(error.strerror or str(error)) from error


def _from_url(url: str, part: Part, pin: Pin | None, progress: Progress) -> str:
    """Bring a URL's bytes into the part and give their SHA-256."""
    went_on = part.size > 0
    download(url, part, pin is not None, progress)
    digest = part.sha256()
    if went_on and pin and digest != pin.sha256:  # the old part was of another file: once more, whole
        part.drop()
        download(url, part, True, progress)
        digest = part.sha256()
    return digest


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn an error of the local disk into one line that says what to do."""
    try:
        yield
    except OSError as error:
        where, reason = error.filename or folder, error.strerror or str(error)
        raise SourceError(
            f"{where}: cannot be written or read ({reason}). Mend the permissions or the disk, or fetch to "
            "another folder with --to"
        ) from error
