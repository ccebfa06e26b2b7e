"""Download one URL into a part file: resumed where it stopped, tried again where that may help.

The part knows what it is a part of (`<name>.part.json`), so bytes of two files are never put together. What
is fetched from where, and what it must be, is in fetch.py.
"""

import fcntl
import http.client
import json
import os
import re
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

from sid_schemas import SourceError
from sid_warehouse import files

CHUNK = 1 << 20
TIMEOUT = 60.0  # seconds without a byte
IDLE, MOST = 5, 100  # attempts at one URL: that bring nothing new, and in all
PAUSE, LONGEST = 1.0, 60.0  # seconds before the second attempt, doubled each time, and at most
PASSING = {408, 425, 429, 500, 502, 503, 504}  # HTTP statuses that another attempt may mend
AGENT = "sidmill"

Progress = Callable[[int, int | None], None]  # bytes there, bytes in all where known


class MissError(Exception):
    """A place that does not give the file; the next one is tried."""


class CutError(Exception):
    """An attempt that broke off; another may go on. wait: seconds the server asks for, or None."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        """Say why, and how long to wait."""
        super().__init__(reason)
        self.wait = wait


class Part:
    """What has come of a file so far, on disk; one process at a time has it."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        """Take the open part."""
        self._path, self._file = path, file
        self._state = path.with_name(f"{path.name}.json")

    @classmethod
    @contextmanager
    def of(cls, final: Path) -> Iterator["Part"]:
        """Open the part of a file and keep others from it; an empty one is gone afterwards."""
        path = final.with_name(f"{final.name}.part")
        with path.open("ab+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SourceError(f"{path}: another fetch is writing it; wait for that one") from None
            part = cls(path, file)
            try:
                yield part
            finally:
                if part.size == 0:
                    path.unlink(missing_ok=True)
                    part._state.unlink(missing_ok=True)

    @property
    def size(self) -> int:
        """Give the number of bytes that are there."""
        return self._file.seek(0, os.SEEK_END)

    def begin(self, place: str, validator: str) -> None:
        """Start over with the bytes of a place."""
        self.drop()
        self.came_from(place, validator)

    def came_from(self, place: str, validator: str) -> None:
        """Note what the bytes are a part of."""
        self._state.write_text(json.dumps({"place": place, "validator": validator}), encoding="utf-8")

    def resumable(self, url: str, pinned: bool) -> tuple[int, str]:
        """Give from which byte on to ask a URL, and what it must still be. Without a pin it must say so."""
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            state = {}
        validator = str(state.get("validator", "")) if state.get("place") == url else ""
        return (self.size, validator) if validator or pinned else (0, "")

    def write(self, chunk: bytes) -> None:
        """Add bytes at the end."""
        self._file.write(chunk)

    def drop(self) -> None:
        """Forget all bytes."""
        self._file.truncate(0)
        self._state.unlink(missing_ok=True)

    def sha256(self) -> str:
        """Give the SHA-256 of all bytes, read back from the file."""
        self._file.flush()
        return files.sha256(self._path)

    def keep_as(self, final: Path) -> None:
        """Give the file its name, once it is safely on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        if final.exists():
            raise SourceError(f"{final}: appeared while it was fetched; it is left as it is")
        self._path.rename(final)
        files.sync(final.parent)
        self._state.unlink(missing_ok=True)


def download(url: str, part: Part, pinned: bool, progress: Progress) -> None:
    """Try a URL until the part is whole; raises MissError when that leads nowhere."""
    idle, best = 0, part.size
    for attempt in range(1, MOST + 1):
        try:
            _receive(url, part, pinned, progress)
            return
        except CutError as cut:
            idle, best = (0, part.size) if part.size > best else (idle + 1, best)
            if idle == IDLE or attempt == MOST:
                raise MissError(f"{cut} (after {attempt} attempts)") from cut
            time.sleep(min(PAUSE * 2**idle if cut.wait is None else cut.wait, LONGEST))


def _receive(url: str, part: Part, pinned: bool, progress: Progress) -> None:
    """Send one request and take what comes; raises CutError where another request may bring the rest."""
    offset, validator = part.resumable(url, pinned)
    request = Request(url, headers={"User-Agent": AGENT, "Accept-Encoding": "identity"})
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    if offset and validator:
        request.add_header("If-Range", validator)
    try:
        response = _opener().open(request, timeout=TIMEOUT)
    except HTTPError as error:
        with error:
            if error.code == 416 and offset:
                if _range(error.headers)[1] == offset:
                    return  # nothing is missing
                part.drop()  # the file has shrunk: the part is of an older one
                raise CutError("its part is of another file", wait=0) from error
            told = f"HTTP {error.code} {error.reason}"
            if error.code in PASSING:
                raise CutError(told, _number(error.headers.get("Retry-After"))) from error
            raise MissError(told) from error
    except (OSError, http.client.HTTPException) as error:
        raise _told(error) from error
    with response:
        headers = response.headers
        if response.status == 206:
            start, total = _range(headers)
            length = _number(headers.get("Content-Length"))
            total = offset + length if total is None and length is not None else total
            if start != part.size:
                part.drop()
                raise CutError(f"sent bytes from {start} on; expected {offset}")
            if not validator:
                part.came_from(url, "")  # of two places now: only a pin can tell whether they fit
        elif response.status == 200:
            total = _number(headers.get("Content-Length"))
            if total is None and not pinned and not response.chunked:
                raise MissError("does not say how long the file is, so that a cut one would look whole")
            part.begin(url, _validator(headers))  # a server that does not know ranges: from the start
        else:
            raise MissError(f"HTTP {response.status}; expected 200 or 206")
        _drain(response, part, total, progress)


def _drain(response: Any, part: Part, total: int | None, progress: Progress) -> None:
    progress(part.size, total)
    while True:
        try:
            chunk = response.read(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise CutError(f"broke off after {part.size:,} bytes ({error})") from error
        if not chunk:
            break
        part.write(chunk)
        progress(part.size, total)
    if total is not None and part.size != total:
        raise CutError(f"broke off after {part.size:,} of {total:,} bytes")


def _told(error: Exception) -> Exception:
    """Say what went wrong with a connection, and whether another attempt may help."""
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return MissError(f"its certificate is not trusted ({reason.verify_message})")
    lasting = isinstance(reason, ConnectionRefusedError | http.client.InvalidURL)
    if isinstance(reason, TimeoutError | ConnectionError | http.client.HTTPException) and not lasting:
        return CutError(str(reason) or type(reason).__name__)
    return MissError(f"cannot be reached ({getattr(reason, 'strerror', None) or reason})")


def _validator(headers: Message) -> str:
    """Give what If-Range takes: a strong ETag, else the date; "" where there is neither."""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified", "")


def _range(headers: Message) -> tuple[int | None, int | None]:
    """Give first byte and length of the whole from Content-Range, each None where it does not say."""
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", headers.get("Content-Range", "").strip())
    start, total = match.groups() if match else (None, None)
    return (int(start) if start else None, int(total) if total and total != "*" else None)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,18}", text.strip()) else None


class _Redirects(HTTPRedirectHandler):
    """Follows redirects to https, or from http to http; never from https to anything less."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> Request | None:
        """Give the next request, or refuse."""
        if urlsplit(newurl).scheme not in {"https", urlsplit(req.full_url).scheme}:
            raise MissError(f"redirects to {newurl}; expected https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> OpenerDirector:
    return build_opener(_Redirects)
