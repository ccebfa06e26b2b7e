"""Raw lines with their numbers, plain or gzip, in bounded memory; broken files are told apart exactly."""

import codecs
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sid_schemas import SourceError

CHUNK = 16 << 20
SCHEMA = pa.schema([pa.field("source_row", pa.int64()), pa.field("raw", pa.string())])
GZIP_MAGIC = b"\x1f\x8b"


def line_batches(path: Path, *, encoding: str = "utf-8", chunk: int = CHUNK) -> Iterator[pa.RecordBatch]:
    """Yield the lines of a file as (source_row int64 from 1, raw string), line ends and BOM taken off.

    Raises SourceError, with the line, for a missing or empty file, a truncated or damaged gzip, and
    bytes that are not of the encoding. A last line without a line end counts as a line.
    """
    row, held = 1, b""
    for block in _blocks(path, encoding, chunk):
        cut = block.rfind(b"\n") + 1
        if not cut:
            held += block
            continue
        batch = _batch(path, held + block[:cut], row, encoding)
        held = block[cut:]
        row += batch.num_rows
        yield batch
    if held:
        yield _batch(path, held + b"\n", row, encoding)
    elif row == 1:
        raise SourceError(f"{path}: is empty; expected lines. Is the download complete?")


def _blocks(path: Path, encoding: str, size: int) -> Iterator[bytes]:
    """Yield the file's content as UTF-8 bytes (or what claims to be UTF-8: _batch checks it)."""
    decoder = None
    if codecs.lookup(encoding).name != "utf-8":
        decoder = codecs.getincrementaldecoder(encoding)()
    read_lines, first = 0, True
    try:
        with _open(path) as file:
            last = False
            while not last:
                block = file.read(size)
                last = not block
                if decoder:
                    block = decoder.decode(block, last).encode("utf-8")
                if first:
                    block, first = block.removeprefix(codecs.BOM_UTF8), False
                read_lines += block.count(b"\n")
                yield block
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(
            f"{path}, row {read_lines + 1}: the gzip stream is truncated or damaged here "
            f"({str(error).rstrip('.')}); expected it to go on to its end marker. "
            f"{read_lines} lines were readable. Download the file again"
        ) from error
    except UnicodeDecodeError as error:
        row = read_lines + error.object[: error.start].count(b"\n") + 1
        raise SourceError(_encoding_message(path, row, error)) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise SourceError(f"{path}: cannot be read ({reason}). Check [source] path") from error


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        zipped = file.read(2) == GZIP_MAGIC
    return cast("IO[bytes]", gzip.open(path)) if zipped else path.open("rb")


def _batch(path: Path, block: bytes, row: int, encoding: str) -> pa.RecordBatch:
    """Cut a block that ends in a line end into lines, without a Python object per line."""
    ends = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == 0x0A) + 1
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    lines = pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(block))
    try:
        lines.validate(full=True)
    except pa.ArrowInvalid:
        for number, line in enumerate(block.split(b"\n"), start=row):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise SourceError(_encoding_message(path, number, error)) from error
        raise
    rows = np.arange(row, row + len(ends), dtype=np.int64)
    return pa.RecordBatch.from_arrays([pa.array(rows), pc.utf8_rtrim(lines, "\r\n")], schema=SCHEMA)


def _encoding_message(path: Path, row: int, error: UnicodeDecodeError) -> str:
    found = error.object[error.start : error.start + 1]
    offset = error.start - (error.object.rfind(b"\n", 0, error.start) + 1)
    return (
        f"{path}, row {row}: byte {found!r} at offset {offset} of the row is not "
        f"{error.encoding}; expected {error.encoding} text. "
        'If the file is in another encoding, name it: [source] encoding = "latin-1"'
    )
