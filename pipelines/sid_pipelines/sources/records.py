"""Records that are not lines: the elements of a JSON array, the rows of a Parquet file.

`source_row` is the element or row, from 1. Of an array, `raw` is the element's own text; of Parquet, the
row's mapped columns as JSON. Both stream: an array is cut at the commas between its elements, and only the
element being read is in memory; a Parquet file is read some rows at a time, but wholly in memory where it
is packed, up to PACKED_BYTES.

A broken element is one reject as long as its quotes and brackets go together. Where they do not, nobody
can tell where it ends, so the file is refused; two such mistakes that make up for each other pass, and all
between them is one reject.
"""

import io
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sid_pipelines.sources.archives import GZIP_MAGIC, CutOffError, DamagedError, blocks
from sid_pipelines.sources.forms import Form, Json, Relation, registered
from sid_pipelines.sources.lines import LONGEST, SCHEMA, LineReader, ahead
from sid_schemas import RecipeError, SourceError
from sid_warehouse.db import literal, quote

BLANKS = b" \t\r\n"
BLOCK = 2 << 20  # bytes of an array scanned at a time
ROWS = 16_384  # rows of a Parquet file at a time
PACKED_BYTES = 1 << 30  # of a Parquet file inside a .gz or .zip, which cannot be read piece by piece
STEP = re.compile(r'(?:^|\.)(?:"([^"]+)"|([^".\[\]]+))|\[([0-9]{1,6})\]')

Path = tuple[str | int, ...]


def parse_path(text: str) -> Path:
    """Give the steps of a path: keys and places from 0; a key with a dot or bracket stands in quotes.

    Raises RecipeError.

    >>> parse_path("images[0].large"), parse_path('details."Item Weight (kg.)"')
    (('images', 0, 'large'), ('details', 'Item Weight (kg.)'))
    """
    steps: list[str | int] = []
    end = 0
    for match in STEP.finditer(text):
        if match.start() != end:
            break
        quoted, bare, place = match.groups()
        steps.append(int(place) if place else quoted or bare)
        end = match.end()
    whole = end == len(text) and steps and not isinstance(steps[0], int) and not text.startswith(".")
    # DuckDB reads such keys as something else, quoted or not.
    if not whole or any(str(step) == "*" or str(step).endswith("\\") for step in steps):
        raise RecipeError(
            f"[source] columns: {text!r} is no path; expected keys and places such as images[0].large, a key "
            'with a dot in quotes: details."a.b"'
        )
    return tuple(steps)


def json_path(path: Path) -> str:
    """Give a path as DuckDB's JSON functions read it.

    >>> json_path(("images", 0, "large"))
    '$."images"[0]."large"'
    """
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f'."{step}"' for step in path)


@dataclass(frozen=True)
class JsonRecords(Json):
    """The elements of one JSON array, or where the file does not begin with `[`, one object a line."""

    def has_lines(self, reader: LineReader) -> bool:
        """Say whether the file is no array."""
        return not _elements(reader).is_array()

    def relations(self, connection: duckdb.DuckDBPyConnection, reader: LineReader) -> Iterator[Relation]:
        """Read element by element, or line by line."""
        elements = _elements(reader)
        if not elements.is_array():
            yield from super().relations(connection, reader)
            return
        for batch in elements.batches():
            yield from self.read(connection, batch, batch.column(1))
        reader.cut = elements.cut


def _elements(reader: LineReader) -> "ElementReader":
    return ElementReader(
        reader.path, reader.member, encoding=reader.encoding, truncated=reader.truncated, chunk=BLOCK
    )


class ElementReader(LineReader):
    """The elements of a JSON array, as LineReader gives the lines of a file."""

    def is_array(self) -> bool:
        """Say whether the first character that is not blank is an opening bracket."""
        for block in self._decoded_or_less():
            if start := block.lstrip(BLANKS):
                return start.startswith(b"[")
        return False

    def _decoded_or_less(self) -> Iterator[bytes]:
        """Yield what can be read; what cannot is told when the elements are read."""
        try:
            yield from self._decoded()
        except (CutOffError, DamagedError, UnicodeDecodeError):
            return

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield (source_row int64 from 1, raw string), blanks around elements taken off."""
        return ahead(self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        cutter = Cutter()
        self._row = 1
        try:
            for block in self._decoded():
                yield from self._elements(cutter.cut(block))
                if cutter.overclosed:
                    raise SourceError(
                        f"{self.name}, element {cutter.overclosed}: closes more brackets than it opens; "
                        "expected as many, as those after it cannot be told apart. Mend it, or an element "
                        "before it in which a quote is never closed"
                    )
                if cutter.size > LONGEST:
                    raise SourceError(
                        f"{self.name}, row {self._row}: the element is longer than {LONGEST:,} bytes; "
                        "expected an array of objects. Is a quote or bracket in it never closed?"
                    )
        except CutOffError as error:
            if self.truncated == "error":
                raise SourceError(
                    f"{self.name}, row {self._row}: the gzip stream ends here; expected it to go on to its "
                    f"end marker. {self._row - 1:,} elements were readable. Download the file again, or take "
                    'those with [source] truncated = "keep"'
                ) from error
            self.cut = (self._row, cutter.rest().decode("utf-8", errors="replace"))
            return
        except DamagedError as error:
            raise SourceError(
                f"{self.name}, after row {self._row - 1}: the compressed stream is damaged "
                f"({str(error).rstrip('.')}). Download the file again"
            ) from error
        except UnicodeDecodeError as error:
            raise SourceError(self._not_text(self._row, error)) from error
        if missing := cutter.missing():
            raise SourceError(
                f"{self.name}, element {self._row}: does not end; expected {missing}. Mend it, or download "
                "the file again if it ends too early"
            )
        yield from self._elements(cutter.finish(first=self._row == 1))

    def _elements(self, cut: tuple[bytes, npt.NDArray[np.int64]]) -> Iterator[pa.RecordBatch]:
        text, offsets = cut
        count = len(offsets) - 1
        if count < 1:
            return
        elements = pa.StringArray.from_buffers(
            count, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(text)
        )
        try:
            elements.validate(full=True)
        except pa.ArrowInvalid:
            for n, (start, end) in enumerate(itertools.pairwise(offsets)):
                try:
                    text[start:end].decode("utf-8")
                except UnicodeDecodeError as error:
                    raise SourceError(self._not_text(self._row + n, error)) from error
            raise
        rows = pa.array(np.arange(self._row, self._row + count, dtype=np.int64))
        self._row += count
        trimmed = pc.utf8_trim(elements, BLANKS.decode())
        yield pa.RecordBatch.from_arrays([rows, trimmed], schema=SCHEMA)

    def _not_text(self, row: int, error: UnicodeDecodeError) -> str:
        found = error.object[error.start : error.start + 1]
        return (
            f"{self.name}, row {row}: byte {found!r} is not {error.encoding}; expected {error.encoding} "
            'text. If the file is in another encoding, name it: [source] encoding = "latin-1"'
        )


class Cutter:
    """Cuts the text of an array at the commas between its elements, block by block.

    Brackets, and commas outside of strings, are found in whole blocks; state goes on from one to the next.
    overclosed: the first element, from 1, that closes more brackets than it opens, and is not the last.
    """

    def __init__(self) -> None:
        """Stand before the array."""
        self._held: list[bytes] = []
        self.size = 0  # bytes held: of the element that is not complete
        self._begun = False
        self._quoted = 0  # 1 within a string
        self._escaped = False  # whether the block before ended in a backslash that escapes
        self._depth = 1
        self._count = 0  # of elements given
        self.overclosed: int | None = None

    def cut(self, block: bytes) -> tuple[bytes, npt.NDArray[np.int64]]:
        """Give the text of the elements that are complete now, and their offsets in it, (n + 1,)."""
        if not self._begun:
            block = block.lstrip(BLANKS)
            self._begun = bool(block)
            block = block[1:]  # the bracket that opens the array
        commas = self._commas(block)
        if not len(commas):
            self._hold(block)
            return b"", np.zeros(1, dtype=np.int64)
        last = int(commas[-1])
        ends = commas + self.size
        text = np.frombuffer(b"".join([*self._held, block[:last]]), dtype=np.uint8)
        self._held, self.size = [], 0
        self._hold(block[last + 1 :])
        inner = ends[:-1]
        offsets = np.concatenate([[0], inner - np.arange(len(inner)), [len(text) - len(inner)]])
        return np.delete(text, inner).tobytes(), offsets

    def rest(self) -> bytes:
        """Give what no comma has ended."""
        return b"".join(self._held).strip(BLANKS)

    def finish(self, *, first: bool) -> tuple[bytes, npt.NDArray[np.int64]]:
        """Give the last element of an array in which nothing is missing."""
        last = self.rest()[:-1]
        if first and not last.strip(BLANKS):
            return b"", np.zeros(1, dtype=np.int64)  # an array of nothing
        return last, np.array([0, len(last)], dtype=np.int64)

    def missing(self) -> str | None:
        """Say what must stand before the end of the file for the array to be closed; None where it is."""
        if self._quoted:
            return "every quote in it closed, as what follows would be taken for a part of it"
        if self._depth > 0:
            return "every bracket in it closed, and ',' or ']' after it"
        if self._depth == 0 and self.rest().endswith(b"]"):
            return None
        return "as many brackets closed as opened, ']' at the end and nothing after it"

    def _hold(self, part: bytes) -> None:
        self._held.append(part)
        self.size += len(part)

    def _commas(self, block: bytes) -> npt.NDArray[np.int64]:
        """Give where the commas between elements stand in a block, and go on with the state."""
        if not block:
            return np.zeros(0, dtype=np.int64)
        text = np.frombuffer(block, dtype=np.uint8)
        marks = np.flatnonzero(STRUCTURE[text])
        kinds = text[marks]
        if b"\\" in block or self._escaped:
            keep = ~((kinds == QUOTE) & self._is_escaped(text, marks))
            marks, kinds = marks[keep], kinds[keep]
        quotes = kinds == QUOTE
        outside = ((np.cumsum(quotes) + self._quoted) & 1) == 0  # a closing quote too, which is no bracket
        steps = np.where(outside, DEPTH[kinds], 0)
        depths = self._depth + np.cumsum(steps)
        self._quoted = (self._quoted + int(quotes.sum())) & 1
        if len(depths):
            self._depth = int(depths[-1])
        tail = len(block) - len(block.rstrip(b"\\"))
        self._escaped = bool((tail + (self._escaped and tail == len(block))) & 1)
        # Where brackets do not go together, depth may stay below 1; commas there divide too.
        ending = outside & (kinds == COMMA) & (depths <= 1)
        commas: npt.NDArray[np.int64] = marks[ending]
        below = np.flatnonzero(depths[ending] < 1)
        if self.overclosed is None and len(below):
            self.overclosed = self._count + int(below[0]) + 1
        self._count += len(commas)
        return commas

    def _is_escaped(self, text: npt.NDArray[np.uint8], marks: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Say of each mark whether an odd number of backslashes stands before it."""
        odd = np.zeros(len(marks), dtype=np.bool_)
        going = np.arange(len(marks))
        places = marks - 1
        while len(going):
            inside = places >= 0
            back = np.where(inside, text[np.maximum(places, 0)] == BACKSLASH, False)
            back |= (places == -1) & self._escaped
            going, places = going[back], places[back] - 1
            odd[going] = ~odd[going]
        return odd


QUOTE, COMMA, BACKSLASH = ord('"'), ord(","), ord("\\")
STRUCTURE = np.zeros(256, dtype=np.bool_)
STRUCTURE[list(b'"[]{},')] = True
DEPTH = np.zeros(256, dtype=np.int64)
DEPTH[list(b"[{")] = 1
DEPTH[list(b"]}")] = -1


@dataclass(frozen=True)
class ParquetRecords(Form):
    """The rows of a Parquet file. fields: name here -> path; optional ones may be missing and are null then.

    Numbers, times and truth values become text, lists and structs JSON text. A column may be called by a
    name with dots: a column of that very name goes before a path. ids: of fields, those that hold ids. In
    them a float that is whole is written as an integer (up to where floats skip some), and NaN is null.
    """

    fields: Mapping[str, str]
    optional: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()

    def has_lines(self, reader: LineReader) -> bool:
        """Say that it has none."""
        return False

    def relations(self, connection: duckdb.DuckDBPyConnection, reader: LineReader) -> Iterator[Relation]:
        """Read some rows at a time, of the mapped columns only."""
        try:
            file = pq.ParquetFile(_packed(reader) or str(reader.path), pre_buffer=False)
            schema = file.schema_arrow
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise SourceError(_no_parquet(reader, error)) from error
        columns: list[str] = []
        named = ", ".join(
            f"{self._column(reader, schema, columns, name, path)} as {quote(name)}"
            for name, path in self.fields.items()
        )
        row = 1
        for batch in ahead(_batches(reader, file, columns)):
            rows = pa.array(np.arange(row, row + batch.num_rows, dtype=np.int64))
            row += batch.num_rows
            # By place, as DuckDB takes names that differ only in letter case for one.
            table = pa.table([rows, *batch.columns], names=["source_row", *map(_nth, range(len(columns)))])
            try:
                with registered(connection, "rows_read", table):
                    yield Relation(_sql(columns, named), batch.num_rows)
            except duckdb.NotImplementedException as error:
                raise SourceError(
                    f"{reader.name}: has a column of a type that is not read here ({_one_line(error)}); "
                    "write it as text or numbers"
                ) from error

    def _column(self, reader: LineReader, schema: pa.Schema, columns: list[str], name: str, path: str) -> str:
        """Give the SQL of a field's text; the top column it is read from is added to those read."""
        steps: Path = (path,) if path in schema.names else parse_path(path)
        top = str(steps[0])
        if schema.names.count(top) > 1:
            raise SourceError(f"{reader.name}: the column {top!r} stands there twice")
        if top not in schema.names:
            if name in self.optional:
                return "null::varchar"
            raise SourceError(_lacks(reader, path, schema.names))
        if top not in columns:
            columns.append(top)
        try:
            made = _step_into(
                _nth(columns.index(top)), schema.field(top).type, steps[1:], is_id=name in self.ids
            )
        except _AmbiguousError as error:
            raise SourceError(
                f"{reader.name}: the path {path!r} leads to fields that differ only in letter case "
                f"({error}); expected one of them, as they are not told apart here. Rename one in the file"
            ) from error
        if made is None:
            raise SourceError(_lacks(reader, path, [f"{top} {schema.field(top).type}"]))
        return made


class _AmbiguousError(Exception):
    """Fields of a struct that DuckDB takes for one."""


def _nth(place: int) -> str:
    return f"c{place}"


def _sql(columns: Sequence[str], named: str) -> str:
    """Give the SQL of a batch. Its `raw` is put together as text, in which names may be anything."""
    keys = [literal(f"{json.dumps(column, ensure_ascii=False)}:") for column in columns]
    values = [f"coalesce(to_json({_nth(n)})::varchar, 'null')" for n in range(len(columns))]
    packed = ", ',', ".join(f"{key}, {one}" for key, one in zip(keys, values, strict=True))
    return f"""
        select source_row, concat('{{', {packed}, '}}') as raw, null::varchar as problem, {named}
        from rows_read"""


def _step_into(sql: str, kind: pa.DataType, steps: Sequence[str | int], *, is_id: bool) -> str | None:
    """Give the SQL of the text of what steps lead to, or None where they lead nowhere."""
    for step in steps:
        if isinstance(step, int) and _is_list(kind):
            sql, kind = f"{sql}[{step + 1}]", kind.value_type
        elif isinstance(step, str) and pa.types.is_struct(kind) and kind.get_field_index(step) >= 0:
            alike = [one.name for one in kind if one.name.lower() == step.lower()]
            if len(alike) > 1:
                raise _AmbiguousError(", ".join(map(repr, alike)))
            sql, kind = f"{sql}.{quote(step)}", kind.field(step).type
        else:
            return None
    if is_id and _is_list(kind) and pa.types.is_floating(kind.value_type):
        return f"to_json(list_transform({sql}, lambda x: {_float_id('x', kind.value_type)}))::varchar"
    if is_id and pa.types.is_floating(kind):
        return _float_id(sql, kind)
    if _is_list(kind) or pa.types.is_nested(kind):
        return f"to_json({sql})::varchar"
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return f"try(decode({sql}))"  # as some writers store text
    return f"({sql})::varchar"


def _float_id(sql: str, kind: pa.DataType) -> str:
    """Give the SQL of an id that a column of floats holds, as integers with gaps become in many tools."""
    exact = 1 << (24 if pa.types.is_float32(kind) else 53)  # beyond, it may be another integer, rounded
    return (
        f"case when isfinite({sql}) then case when {sql} = floor({sql}) and abs({sql}) < {exact} "
        f"then {sql}::bigint::varchar else {sql}::varchar end end"
    )


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _batches(reader: LineReader, file: pq.ParquetFile, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of some columns; raises SourceError where they cannot be read or are no text."""
    try:
        for batch in file.iter_batches(batch_size=ROWS, columns=list(columns), use_threads=False):
            batch.validate(full=True)
            yield batch.select(list(columns))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise SourceError(_no_parquet(reader, error)) from error


def _packed(reader: LineReader) -> IO[bytes] | None:
    """Give the content of a file that is packed, in memory; None where it can be opened as it is."""
    if reader.member is None:
        with reader.path.open("rb") as file:
            if not file.read(2).startswith(GZIP_MAGIC):
                return None
    content = bytearray()
    try:
        for block in blocks(reader.path, reader.member):
            content += block
            if len(content) > PACKED_BYTES:
                raise SourceError(
                    f"{reader.name}: unpacks to more than {PACKED_BYTES:,} bytes; a packed Parquet file is "
                    "held in memory, so expected less. Unpack it, and name the unpacked file"
                )
    except (CutOffError, DamagedError) as error:
        raise SourceError(
            f"{reader.name}: the compressed stream is cut off or damaged. Download it again"
        ) from error
    return io.BytesIO(content)


def _no_parquet(reader: LineReader, error: Exception) -> str:
    return (
        f"{reader.name}: cannot be read as Parquet ({_one_line(error)}); expected a whole Parquet file. "
        "Is the download complete, and [source] format right?"
    )


def _lacks(reader: LineReader, path: str, there: Sequence[str]) -> str:
    shown = ", ".join(map(repr, there))[:300]
    return f"{reader.name}: expected a column {path!r}, got {shown}. Check [source] columns"


def _one_line(error: Exception) -> str:
    return (str(error).splitlines() or ["unknown"])[0].rstrip(".")[:160]
