"""Pieces of a raw file: some of its records in a row, read apart from the others as if among them.

A file is gone through once, by the reader of the local stage. Where it is UTF-8 as it lies on disk, a piece
is a range of its bytes, and nothing is copied; of what is packed or in another encoding the text is written
out, as UTF-8 in Arrow IPC. A piece never begins or ends inside a record, so a reader of it that knows its
first row and the header of the file gives the very rows, rejects and errors that one of the whole file gives.
"""

import codecs
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from sid_pipelines.sources.archives import GZIP_MAGIC, CutOffError
from sid_pipelines.sources.lines import LineReader, ahead
from sid_warehouse import files

TEXT = pa.schema([pa.field("text", pa.large_binary())])
PACKED = pa.ipc.IpcWriteOptions(compression="lz4")


@dataclass(frozen=True)
class Piece:
    """Consecutive records. row: of the first line; lines: in it. start, end: its bytes, of a range."""

    row: int
    lines: int
    start: int = 0
    end: int = 0


@dataclass(frozen=True)
class Cut:
    """How one raw file is read by pieces.

    way: "range" of the file's bytes, "text" written out, the "file" as a whole where its records are no
    lines, or "nothing" of one that is empty and may be. told, encoding: what the file told before it was
    read. header: its first record, where that names the fields and there are pieces after the first.
    cut_off: whether a gzip stream ended too early, after the last piece.
    """

    way: Literal["range", "text", "file", "nothing"]
    told: Mapping[str, Any]
    encoding: str
    pieces: tuple[Piece, ...] = ()
    header: str | None = None
    cut_off: bool = False

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Cut":
        """Read it back."""
        known = files.read_json(path)
        return cls(**{**known, "pieces": tuple(Piece(**one) for one in known["pieces"])})


@dataclass(frozen=True)
class _Block:
    """Text on its way into a piece."""

    piece: int
    row: int
    lines: int
    text: bytes


def cut(reader: LineReader, folder: Path, size: int) -> tuple[Literal["range", "text"], tuple[Piece, ...]]:
    """Cut what a reader reads into pieces of about `size` bytes; text is written to `text_of(folder, n)`.

    Raises what the reader raises, but for bytes that are not UTF-8 where the file is said to be: who reads
    the piece tells.
    """
    reader.chunk = max(min(reader.chunk, size), len(codecs.BOM_UTF32))  # a byte order mark is read whole
    grouped = groupby(ahead(_blocks(reader, size)), key=lambda block: block.piece)
    if is_plain(reader):
        return "range", tuple(_ranges(reader.path, (list(_untied(blocks)) for _, blocks in grouped)))
    return "text", tuple(_written(text_of(folder, number), blocks) for number, blocks in grouped)


def text_of(folder: Path, number: int) -> Path:
    """Give where the text of a piece is written."""
    return folder / f"{number:05d}.arrow"


def _blocks(reader: LineReader, size: int) -> Iterator[_Block]:
    """Give the text, and last what a stream that ends too early holds of a record."""
    number = held = 0
    for text in reader.records():
        if held and held + len(text) > size:
            number, held = number + 1, 0
        row = reader.row
        yield _Block(number, row, reader.pass_over(text), text)
        held += len(text)
    if reader.cut:
        row, rest = reader.cut
        yield _Block(number, row, 0, rest.encode())


def _untied(blocks: Iterator[_Block]) -> Iterator[Piece]:
    """Give what is to be known of blocks without their text; `end` is its length."""
    return (Piece(block.row, block.lines, 0, len(block.text)) for block in blocks)


def _ranges(path: Path, grouped: Iterator[list[Piece]]) -> Iterator[Piece]:
    """Give ranges of a file's bytes; the last may end behind the file, where that ends in no line end."""
    with path.open("rb") as file:
        start = len(codecs.BOM_UTF8) if file.read(3) == codecs.BOM_UTF8 else 0
    for blocks in grouped:
        end = start + sum(block.end for block in blocks)
        yield Piece(blocks[0].row, sum(block.lines for block in blocks), start, end)
        start = end


def _written(path: Path, blocks: Iterator[_Block]) -> Piece:
    """Write the text of a piece."""
    row, lines = 0, 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, TEXT, options=PACKED) as writer:
        for block in blocks:
            row, lines = row or block.row, lines + block.lines
            writer.write_batch(pa.record_batch([pa.array([block.text], pa.large_binary())], schema=TEXT))
    return Piece(row, lines)


def is_plain(reader: LineReader) -> bool:
    """Say whether the lines are read as they lie on disk."""
    if reader.member is not None or not reader.is_utf8:
        return False
    with reader.path.open("rb") as file:
        return not file.read(len(GZIP_MAGIC)).startswith(GZIP_MAGIC)


class PieceReader(LineReader):
    """The lines of one piece, with the numbers, and the errors, that they have in their file."""

    def __init__(self, reader: LineReader, how: Cut, number: int, text: Path | None) -> None:
        """Take the reader of the whole file. text: of the piece, where it was written out."""
        super().__init__(
            reader.path,
            reader.member,
            encoding=reader.encoding,
            truncated=reader.truncated,
            quote=reader.quote,
            chunk=reader.chunk,
        )
        self.piece, self.text = how.pieces[number], text
        self.first = self._row = self.piece.row
        self.header = how.header if number else None
        self.ends_early = how.cut_off and number == len(how.pieces) - 1

    def _decoded(self) -> Iterator[bytes]:
        yield from self._range() if self.text is None else _unpacked(self.text)
        if self.ends_early:
            raise CutOffError

    def _range(self) -> Iterator[bytes]:
        left = self.piece.end - self.piece.start
        with self.path.open("rb") as file:
            file.seek(self.piece.start)
            while left and (block := file.read(min(self.chunk, left))):
                left -= len(block)
                yield block


def _unpacked(path: Path) -> Iterator[bytes]:
    with pa.OSFile(str(path), "rb") as file, pa.ipc.open_stream(file) as stream:
        for batch in stream:
            yield batch.column(0)[0].as_py()
