"""Raw lines with their numbers, in bounded memory; broken files are told apart exactly.

A reader thread decompresses and cuts lines while the caller parses the batch before.
"""

import codecs
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sid_pipelines.sources.archives import CutOffError, DamagedError, blocks
from sid_schemas import SourceError

CHUNK = 16 << 20
LONGEST = 256 << 20  # bytes of one line: beyond, the file has no lines
LONGEST_RECORD = 10_000  # lines of one record: beyond, a stray quote has swallowed others
AHEAD = 2  # batches the reader thread may be ahead
SCHEMA = pa.schema([pa.field("source_row", pa.int64()), pa.field("raw", pa.string())])

T = TypeVar("T")


@dataclass(frozen=True)
class Lines:
    """Consecutive lines. batch: (source_row, raw). block: their text, in which line n ends at ends[n]."""

    batch: pa.RecordBatch
    block: bytes
    ends: npt.NDArray[np.int64]


class LineReader:
    """The lines of one file. After the last batch, `cut` has what a truncated file ended with.

    header: the first record of the file, for who reads lines after it (sid_pipelines.sharded.stages.pieces).
    """

    header: str | None = None
    first = 1  # row of the first line

    def __init__(
        self,
        path: Path,
        member: str | None = None,
        *,
        encoding: str = "utf-8",
        truncated: Literal["error", "keep"] = "error",
        quote: str | None = None,
        chunk: int = CHUNK,
    ) -> None:
        """Name the file.

        truncated: whether a gzip stream that ends too early is an error, or its whole lines are kept.
        quote: where given, line ends between two such characters do not end a line (CSV). Two stray ones
            less than LONGEST_RECORD lines apart cannot be told from a pair that holds what is between.
        """
        self.path, self.member, self.encoding = path, member, encoding
        self.truncated, self.quote, self.chunk = truncated, quote, chunk
        self.name = str(path) if member is None else f"{path}/{member}"
        self.cut: tuple[int, str] | None = None  # row and text of the line a truncated file ended in
        self._row = self.first

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield (source_row int64 from 1, raw string), line ends and byte order mark taken off.

        Raises SourceError, with the line, for a missing or empty file, a truncated or damaged stream,
        bytes that are not of the encoding, a line longer than LONGEST, and a quote that is not closed
        within LONGEST_RECORD lines or the file. A last line without a line end counts as a line.
        """
        return (lines.batch for lines in self.blocks())

    def blocks(self) -> Iterator[Lines]:
        """Yield the same with the text that the lines were cut from."""
        return ahead(self._lines())

    def _lines(self) -> Iterator[Lines]:
        return map(self._batch, self.records())

    @property
    def row(self) -> int:
        """Give the row of the line that comes next."""
        return self._row

    @property
    def is_utf8(self) -> bool:
        """Say whether the content is read as it is."""
        return codecs.lookup(self.encoding).name == "utf-8"

    def pass_over(self, block: bytes) -> int:
        """Count on the lines of a block of `records` that is not cut into them, and give their number."""
        lines = block.count(b"\n")
        self._row += lines
        return lines

    def records(self) -> Iterator[bytes]:
        """Yield the text in blocks of whole records, UTF-8; who takes a block counts on its lines.

        Raises what `batches` raises, but for bytes that are not UTF-8 where the file is said to be.
        """
        held: list[bytes] = []
        size = inner = 0  # of the record that is not complete: bytes, and line ends between its quotes
        self._row = self.first
        try:
            for block in self._decoded():
                cut = self._whole(block, held)
                if not cut:
                    held.append(block)
                    size += len(block)
                    inner = self._inner(block, inner)
                    if size > LONGEST:
                        raise SourceError(
                            f"{self.name}, row {self._row}: the line is longer than {LONGEST:,} bytes; "
                            "expected lines. Is the file of another format, or a quote in it never closed?"
                        )
                    continue
                yield b"".join([*held, block[:cut]])
                held, size = [block[cut:]], len(block) - cut
                inner = self._inner(held[0])
        except CutOffError as error:
            rest = b"".join(held)
            if self.truncated == "error":
                readable = self._row - 1 + rest.count(b"\n")
                raise SourceError(
                    f"{self.name}, row {readable + 1}: the gzip stream ends here; expected it to go on to "
                    f"its end marker. {readable:,} lines were readable. Download the file again, or take "
                    'those with [source] truncated = "keep"'
                ) from error
            self.cut = (self._row, rest.decode("utf-8", errors="replace"))
            return
        except DamagedError as error:
            raise SourceError(
                f"{self.name}, after row {self._row - 1}: the compressed stream is damaged "
                f"({str(error).rstrip('.')}). Download the file again"
            ) from error
        except UnicodeDecodeError as error:
            row = self._row + b"".join(held).count(b"\n") + error.object[: error.start].count(b"\n")
            raise SourceError(_encoding_message(self.name, row, error)) from error
        rest = b"".join(held)
        if self.quote is not None and rest.count(self.quote.encode()) % 2:
            raise SourceError(self._open("and never closed", self._row))
        if rest:
            yield rest + b"\n"
        elif self._row == 1:
            raise SourceError(
                f"{self.name}: is empty; expected lines. Is the download complete? If none are meant, "
                'set [source] empty = "keep"'
            )

    def _inner(self, held: bytes, before: int = 0) -> int:
        """Count on the line ends of a record that is not complete, all between quotes."""
        if self.quote is None:
            return 0
        inner = before + held.count(b"\n")
        self._check_length(self._row, inner + 1)
        return inner

    def _check_length(self, row: int, lines: int) -> None:
        if lines > LONGEST_RECORD:
            raise SourceError(self._open(f"and not closed within {LONGEST_RECORD:,} lines", row))

    def _open(self, how: str, row: int) -> str:
        return (
            f"{self.name}, row {row}: a quote is opened here {how}; expected another where the value ends, "
            "as what follows would be taken for a part of it. Mend the row; if values hold no line ends, "
            "leave [source] multiline out"
        )

    def _whole(self, block: bytes, held: list[bytes]) -> int:
        """Give how much of a block ends in a line end (that no quote holds open)."""
        if self.quote is None:
            return block.rfind(b"\n") + 1
        mark = self.quote.encode()
        quotes = sum(part.count(mark) for part in held)
        ends, cut = quotes + block.count(mark), len(block)
        while True:  # from the back: the last line end with an even number of quotes before it
            end = block.rfind(b"\n", 0, cut)
            if end < 0:
                return 0
            ends -= block.count(mark, end, cut)
            if ends % 2 == 0:
                return end + 1
            cut = end

    def _decoded(self) -> Iterator[bytes]:
        """Yield the content in chunks of UTF-8 (or what claims to be UTF-8: _batch checks it)."""
        decoder = None
        if not self.is_utf8:
            decoder = codecs.getincrementaldecoder(self.encoding)()
        first = True
        for block in _rechunked(blocks(self.path, self.member), self.chunk):
            text = decoder.decode(block).encode("utf-8") if decoder else block
            if first:
                text, first = text.removeprefix(codecs.BOM_UTF8), False
            yield text
        if decoder:
            yield decoder.decode(b"", True).encode("utf-8")

    def _batch(self, block: bytes) -> Lines:
        """Cut a block that ends in a line end into lines, without a Python object per line."""
        if b"\r" in block:
            block = block.replace(b"\r\n", b"\n")
        ends = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == 0x0A)
        physical = len(ends)
        first_rows = np.arange(self._row, self._row + physical, dtype=np.int64)
        if self.quote is None:
            text = block.replace(b"\n", b"")
            offsets = np.concatenate([[0], ends - np.arange(physical)]).astype(np.int32)
        else:
            text = block
            closed = _closed(block, ends, self.quote)
            first_rows = first_rows[np.concatenate([[True], closed[:-1]])]
            lengths = np.diff(first_rows, append=self._row + physical)
            longest = int(np.argmax(lengths > LONGEST_RECORD))  # the first of them, or of all
            self._check_length(int(first_rows[longest]), int(lengths[longest]))
            offsets = np.concatenate([[0], ends[closed] + 1]).astype(np.int32)
        lines = pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(text))
        try:
            lines.validate(full=True)
        except pa.ArrowInvalid:
            for number, line in enumerate(block.split(b"\n"), start=self._row):
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise SourceError(_encoding_message(self.name, number, error)) from error
            raise
        if self.quote is not None:
            lines = pc.utf8_rtrim(lines, "\r\n")
        self._row += physical
        batch = pa.RecordBatch.from_arrays([pa.array(first_rows), lines], schema=SCHEMA)
        return Lines(batch, block, ends)


def _closed(block: bytes, ends: npt.NDArray[np.int64], quote: str) -> npt.NDArray[np.bool_]:
    """Say of each line end whether an even number of quotes stands before it, as does before the last."""
    marks = np.cumsum(np.frombuffer(block, dtype=np.uint8) == ord(quote))
    closed: npt.NDArray[np.bool_] = marks[ends] % 2 == 0
    return closed


def _rechunked(parts: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Gather small blocks to about `size` bytes, and cut larger ones."""
    held: list[bytes] = []
    count = 0
    try:
        for part in parts:
            held.append(part)
            count += len(part)
            if count >= size:
                whole = b"".join(held)
                whole_end = len(whole) - len(whole) % size
                for start in range(0, whole_end, size):
                    yield whole[start : start + size]
                held, count = [whole[whole_end:]], len(whole) - whole_end
    except (CutOffError, DamagedError):
        yield b"".join(held)
        raise
    if count:
        yield b"".join(held)


class _Failed:
    """An exception on its way from the reader thread."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield what an iterator yields, made in a thread a few items ahead."""
    made: queue.Queue[T | _Failed | None] = queue.Queue(AHEAD)
    stopped = threading.Event()

    def put(item: T | _Failed | None) -> None:
        while not stopped.is_set():
            try:
                made.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:  # told to the caller, whatever it is
            put(_Failed(error))

    thread = threading.Thread(target=work, name="sidmill-lines", daemon=True)
    thread.start()
    try:
        while (item := made.get()) is not None:
            if isinstance(item, _Failed):
                raise item.error
            yield item
    finally:
        stopped.set()
        thread.join()


def _encoding_message(name: str, row: int, error: UnicodeDecodeError) -> str:
    found = error.object[error.start : error.start + 1]
    offset = error.start - (error.object.rfind(b"\n", 0, error.start) + 1)
    return (
        f"{name}, row {row}: byte {found!r} at offset {offset} of the row is not "
        f"{error.encoding}; expected {error.encoding} text. "
        'If the file is in another encoding, name it: [source] encoding = "latin-1"'
    )
