"""Where the items' images are, whether they may be read, and one digest over a folder of them.

Nothing is decoded here (image_decoding.py) and nothing is downloaded: an address is counted, not fetched.
A reference comes out of raw data and is not trusted: it names a file below one of the roots or nothing.
Symbolic links below a root are followed, because only the folder's owner can have put them there.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from sid_pipelines.image_decoding import Limits, UnreadableError
from sid_schemas import WarehouseError
from sid_warehouse import files

STATUSES = {  # of an item's image
    "ok": "it has a vector",
    "no_reference": "the item names no image",
    "remote": "the reference is an address; nothing is downloaded",
    "outside": "the reference leads out of the images' folders",
    "missing_file": "there is no such file",
    "broken": "the file is cut short, damaged or no image",
    "too_large": "the file or the image is over the limits",
    "crashed": "the process that decoded it died",
    "hung": "decoding took too long",
}
SUFFIXES = {
    "", ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff",
}  # fmt: skip
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|//|data:")
UNREADABLE = "unreadable"  # in place of a SHA-256
EXAMPLES = 3  # of each status that is not "ok"
MEMO = "image-files.json"
FORMAT = 1
RACY = 2_000_000_000  # nanoseconds: a file changed so recently may change again under the same time
THREADS = 8


@dataclass(frozen=True)
class Found:
    """The image of each item: where it is and the key of its content, or why there is none.

    A path and a key are None where the status is not "ok". reasons: by item number.
    """

    paths: list[str | None]
    keys: list[bytes | None]
    statuses: list[str]
    reasons: dict[int, str]

    def fail(self, item: int, error: UnreadableError) -> None:
        """Note that an item's image gives no vector."""
        self.paths[item] = self.keys[item] = None
        self.statuses[item], self.reasons[item] = error.status, error.reason

    def facts(self, item_ids: Sequence[str], references: Sequence[str | None]) -> dict[str, Any]:
        """Count the statuses, and name the first few items of each that is not "ok"."""
        counts = dict.fromkeys(STATUSES, 0)
        examples: dict[str, list[dict[str, Any]]] = {}
        for item, status in enumerate(self.statuses):
            counts[status] += 1
            if status != "ok" and counts[status] <= EXAMPLES:
                example = {"item_id": item_ids[item], "image_ref": references[item]}
                examples.setdefault(status, []).append({**example, "reason": self.reasons[item]})
        return {"images": counts, "image_examples": examples}


def find(references: Sequence[str | None], roots: Sequence[Path], limits: Limits) -> Found:
    """Find each item's image file and read it once, for the key of its content."""
    found = Found([], [], [], {})
    known: dict[str, tuple[str, bytes] | UnreadableError] = {}
    for item, reference in enumerate(references):
        found.paths.append(None)
        found.keys.append(None)
        found.statuses.append("ok")
        if (outcome := known.get(reference or "")) is None:
            try:
                path = locate(reference, roots)
                outcome = os.fspath(path), _key(path, limits)
            except UnreadableError as error:
                outcome = error
            known[reference or ""] = outcome
        if isinstance(outcome, UnreadableError):
            found.fail(item, outcome)
        else:
            found.paths[item], found.keys[item] = outcome
    return found


def locate(reference: str | None, roots: Sequence[Path]) -> Path:
    """Give the file that a reference names: the first root that has it. Raises UnreadableError.

    >>> locate("https://example.org/1.jpg", [])
    Traceback (most recent call last):
    sid_pipelines.image_decoding.UnreadableError: an address; images are read from files alone
    """
    if not reference or not reference.strip():
        raise UnreadableError("no_reference", "no image is named")
    if ADDRESS.match(reference):
        raise UnreadableError("remote", "an address; images are read from files alone")
    named = PurePath(reference)
    if named.is_absolute():
        roots = [root for root in roots if named.is_relative_to(root)]
        if not roots:
            raise UnreadableError("outside", "an absolute path outside the images' folders")
        named = named.relative_to(roots[0])
    if "\0" in reference or any(part.startswith(".") for part in named.parts):
        raise UnreadableError("outside", "it has '..', a hidden name or a null in it")
    if not _may_be_image(named.name):
        raise UnreadableError(
            "broken", f"{named.suffix!r} is no ending of a JPEG, PNG, WebP, GIF, BMP or TIFF"
        )
    for root in roots:
        try:
            if (path := root / named).is_file():
                return path
        except OSError:  # such as a name that is too long
            continue
    raise UnreadableError("missing_file", f"no such file in {named_roots(roots)}")


def named_roots(roots: Sequence[Path]) -> str:
    """Name the folder there is, or say how many there are."""
    return str(roots[0]) if len(roots) == 1 else f"any of {len(roots)} folders"


def _may_be_image(name: str) -> bool:
    """Say by a file's name whether it may be an image; a name without an ending may be."""
    return PurePath(name).suffix.lower() in SUFFIXES


def _key(path: Path, limits: Limits) -> bytes:
    try:
        with path.open("rb") as file:
            if (size := os.fstat(file.fileno()).st_size) > limits.bytes:
                raise UnreadableError("too_large", f"{size:,} bytes; the limit is {limits.bytes:,}")
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
    except OSError as error:
        raise UnreadableError("missing_file", error.strerror or str(error)) from error


def image_folder_digest(roots: Sequence[Path], cache: Path) -> str:
    """Give the SHA-256 over name and content of every file below the roots that may be an image.

    The hash of a file is remembered in `cache` while its path, size, times and inode stay as they were, so
    that planning does not read 100,000 images again. What is remembered may be lost or damaged: it is then
    made anew. A file or folder that cannot be read counts as such, by its name; it is never remembered.
    """
    memo, settled = _read_memo(cache / MEMO), time.time_ns() - RACY
    paths = [(number, path) for number, root in enumerate(roots) for path in _walk(root)]
    with ThreadPoolExecutor(THREADS) as threads:
        entries = list(threads.map(lambda one: _entry(one[1], memo), paths))
    listed = [
        (number, path.relative_to(roots[number]).as_posix().encode(errors="surrogateescape").hex(), entry[-1])
        for (number, path), entry in zip(paths, entries, strict=True)
    ]
    others = {
        name: entry
        for name, entry in memo.items()
        if not any(PurePath(name).is_relative_to(root) for root in roots)
    }
    here = {
        os.fspath(path): entry
        for (_, path), entry in zip(paths, entries, strict=True)
        if entry[-1] != UNREADABLE and max(entry[1], entry[2]) < settled
    }
    if (kept := others | here) != memo:
        _write_memo(cache / MEMO, kept)
    return files.digest(sorted(listed))


def _walk(root: Path) -> Iterator[Path]:
    """Give the files that `locate` may find below a root, and the folders that cannot be read.

    Links are followed but where they lead in a circle: back to a folder on the way from the root.
    """
    unreadable: list[OSError] = []
    for folder, inner, names in os.walk(root, onerror=unreadable.append, followlinks=True):
        here = Path(folder)
        passed = {os.path.realpath(one) for one in (here, *here.parents) if one.is_relative_to(root)}
        inner[:] = sorted(
            name for name in inner if name[0] != "." and os.path.realpath(here / name) not in passed
        )
        for name in sorted(names):
            if name[0] != "." and _may_be_image(name) and _is_file(here / name):
                yield here / name
    yield from (Path(error.filename) for error in unreadable if not isinstance(error, FileNotFoundError))


def _is_file(path: Path) -> bool:
    """Say whether a path is a file, or may be one, where it cannot be looked at."""
    try:
        return path.is_file()
    except OSError:
        return True


def _entry(path: Path, memo: Mapping[str, list[Any]]) -> list[Any]:
    """Give [size, changed, status changed, inode, SHA-256 or UNREADABLE] of a file."""
    try:
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        known = memo.get(os.fspath(path))
        return known if known and known[:-1] == stamp else [*stamp, files.sha256(path)]
    except OSError:  # the stage names the items that miss it
        return [0, 0, 0, 0, UNREADABLE]


def _read_memo(path: Path) -> dict[str, list[Any]]:
    """Give what is remembered; nothing where the file is damaged or was written by another version."""
    try:
        memo = json.loads(path.read_text(encoding="utf-8"))
        entries = memo["files"]
        if memo["format"] != FORMAT or memo["sha256"] != files.digest(entries):
            return {}
        return dict(entries)
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _write_memo(path: Path, entries: dict[str, list[Any]]) -> None:
    try:
        memo = {"format": FORMAT, "sha256": files.digest(entries), "files": entries}
        with files.writing(path.parent) as draft:
            (draft / path.name).write_text(json.dumps(memo), encoding="utf-8")
            (draft / path.name).replace(path)
    except (OSError, UnicodeError, WarehouseError):
        return  # a memo that cannot be kept costs time alone
