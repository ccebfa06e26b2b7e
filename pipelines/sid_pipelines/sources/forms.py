"""How the lines of a file become named fields: delimited, CSV, JSON. Python literals are in literals.py.

A form reads batch by batch and gives, for each, the SQL of a relation with `source_row`, `raw`,
`problem` (what is wrong with the line as such, or null) and one VARCHAR column for every field. A value
that is missing or JSON null is null; a nested JSON value is its JSON text.
"""

import csv
import io
import itertools
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv
import pyarrow.json as arrow_json

from sid_pipelines.sources.lines import LONGEST, LineReader, Lines
from sid_schemas import SourceError
from sid_warehouse.db import literal, quote

PLAIN_SLICE = 8_192  # lines that Arrow's JSON reader gets at a time, and goes on without where it fails
SLICE = 2_048  # lines of a batch that DuckDB gives one thread at a time


csv.field_size_limit(LONGEST)  # of the whole process; its own limit of 128 KiB is less than descriptions have


@dataclass(frozen=True)
class Relation:
    """One batch: SQL that gives it while its tables are registered, its lines, and how many are headers."""

    sql: str
    lines: int
    headers: int = 0


class Form(ABC):
    """A way to write records on lines. fields: the names of what it gives, or a mapping from them."""

    fields: Iterable[str]
    quote: str | None = None  # where given, a record may go on over line ends between two of these

    @property
    def headed(self) -> bool:
        """Say whether the first record of a file names the fields."""
        return False

    def has_lines(self, reader: LineReader) -> bool:
        """Say whether the records of a file are lines, so that it may be read in pieces."""
        return True

    @abstractmethod
    def relations(self, connection: duckdb.DuckDBPyConnection, reader: LineReader) -> Iterator[Relation]:
        """Give the batches of a file; each is valid until the next is asked for.

        Raises SourceError where the file as such is not of this form.
        """


@dataclass(frozen=True)
class Delimited(Form):
    """Fields between separators of any length, nothing quoted.

    header: the first line names the fields and must be the very names, in any letter case. optional:
    how many of the last fields may be missing.
    """

    separator: str
    fields: tuple[str, ...]
    header: bool = False
    optional: int = 0

    @property
    def headed(self) -> bool:
        """Say whether the first record of a file names the fields."""
        return self.header

    def relations(self, connection: duckdb.DuckDBPyConnection, reader: LineReader) -> Iterator[Relation]:
        """Split every line."""
        named = ", ".join(f"f[{n}] as {quote(name)}" for n, name in enumerate(self.fields, start=1))
        most, least = len(self.fields), len(self.fields) - self.optional
        expected = f"{most}" if most == least else f"{least} to {most}"
        separator = literal(self.separator)
        shown = literal(f"expected {expected} fields separated by {self.separator!r}, got ")
        for batch, headers in _after_header(reader, self._check_header if self.header else None):
            with registered(connection, "lines", batch):
                yield Relation(
                    f"""select source_row, raw, {named},
                        case when len(f) not between {least} and {most} then {shown} || len(f) end as problem
                    from (select source_row, raw, string_split(raw, {separator}) as f from lines)""",
                    batch.num_rows + headers,
                    headers,
                )

    def _check_header(self, reader: LineReader, line: str) -> None:
        names = [name.strip().lower() for name in line.split(self.separator)]
        if names != [name.lower() for name in self.fields]:
            raise SourceError(
                f"{reader.name}, row 1: expected a header with {', '.join(self.fields)}, got {line[:200]!r}"
            )


@dataclass(frozen=True)
class Csv(Form):
    """Comma-separated values with quotes.

    fields: name here -> name in the header, for a file with a header; optional ones may be missing there
    and are null then. names: the columns in order, for a file without a header. multiline: quoted values
    may hold line ends. mark: the quote; "" where nothing is quoted.
    """

    fields: Mapping[str, str]
    optional: tuple[str, ...] = ()
    names: tuple[str, ...] | None = None
    delimiter: str = ","
    mark: str = '"'
    multiline: bool = False

    @property
    def quote(self) -> str | None:  # type: ignore[override]
        """Give the quote where records may go on over line ends."""
        return self.mark if self.multiline else None

    @property
    def headed(self) -> bool:
        """Say whether the first record of a file names the fields."""
        return self.names is None

    def relations(self, connection: duckdb.DuckDBPyConnection, reader: LineReader) -> Iterator[Relation]:
        """Parse every batch with Arrow, and line by line where that does not give one row per line."""
        columns: list[str] = list(self.names or ())

        def header(reader: LineReader, line: str) -> None:
            columns.extend(self._header(reader, line))

        for batch, headers in _after_header(reader, None if self.names else header):
            table = _parse_csv(batch, len(columns), self)
            named = [
                f"{f'f{columns.index(theirs)}' if theirs in columns else 'null::varchar'} as {quote(ours)}"
                for ours, theirs in self.fields.items()
            ]
            with registered(connection, "lines", table):
                sql = f"select source_row, raw, problem, {', '.join(named)} from lines"
                yield Relation(sql, batch.num_rows + headers, headers)

    def _header(self, reader: LineReader, line: str) -> list[str]:
        try:
            [names] = csv.reader([line], delimiter=self.delimiter, **_quoting(self.mark))
        except csv.Error as error:
            raise SourceError(
                f"{reader.name}, row 1: expected a header, got {line[:200]!r} ({error})"
            ) from error
        names = [name.strip() for name in names]
        for ours, theirs in self.fields.items():
            if theirs not in names and ours not in self.optional:
                raise SourceError(
                    f"{reader.name}, row 1: expected a column {theirs!r}, got "
                    f"{', '.join(map(repr, names))[:300]}. Check [source] kind and its columns"
                )
        if repeated := [name for name in self.fields.values() if names.count(name) > 1]:
            raise SourceError(f"{reader.name}, row 1: the column {repeated[0]!r} stands there twice")
        return names


@dataclass(frozen=True)
class Json(Form):
    """One JSON object a line. fields: name here -> JSON path (`$.asin`, `$.details.brand`).

    types: of fields that are plain numbers, pa.int64() or pa.float64(); where it is given, the others are
    plain texts, all stand at the top, and lines are read by Arrow as long as they keep to that, which
    takes half the time. A key that stands twice in one object is a problem of the line: readers differ
    in which one they take.
    """

    fields: Mapping[str, str]
    types: Mapping[str, pa.DataType] | None = None
    expected: ClassVar[str] = "a JSON object"

    def relations(self, connection: duckdb.DuckDBPyConnection, reader: LineReader) -> Iterator[Relation]:
        """Read the fields of every line in one pass."""
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            for lines in reader.blocks():
                if self.types is None:
                    found = self._extracted(connection, lines.batch.column(1))
                else:
                    starts = range(0, lines.batch.num_rows, PLAIN_SLICE)
                    slices = list(threads.map(lambda start, of=lines: self._plain(of, start), starts))
                    found = self._completed(connection, slices)
                yield from self._relation(connection, lines.batch, found)

    def _plain(self, lines: Lines, start: int) -> "_Slice":
        """Read some lines with Arrow, but for those that are odd; all are, where that does not work.

        A line that begins with `{` and ends with `}` cannot be the first part of an object that goes on
        over line ends, since no string holds a line end: so as many objects as lines are one on each.
        """
        assert self.types is not None
        text = lines.batch.column(1).slice(start, PLAIN_SLICE)
        odd = pc.invert(pc.and_(pc.starts_with(text, "{"), pc.ends_with(text, "}"))).to_numpy(
            zero_copy_only=False
        )
        begins = np.concatenate([[0], lines.ends + 1])[start : start + len(text) + 1]
        edges = np.concatenate([[-1], np.flatnonzero(odd), [len(text)]])
        block = b"".join(
            lines.block[begins[before + 1] : begins[after]]
            for before, after in itertools.pairwise(edges.tolist())
        )
        wanted = pa.schema(
            [
                (path.removeprefix("$."), self.types.get(name, pa.string()))
                for name, path in self.fields.items()
            ]
        )
        everything = _Slice(text, np.ones(len(text), dtype=bool), None)
        if not block:
            return everything
        try:
            table = arrow_json.read_json(
                pa.BufferReader(block),
                read_options=arrow_json.ReadOptions(use_threads=False, block_size=len(block)),
                parse_options=arrow_json.ParseOptions(
                    explicit_schema=wanted, unexpected_field_behavior="ignore"
                ),
            )
        except pa.ArrowInvalid:
            return everything
        if len(table) != np.count_nonzero(~odd):
            return everything
        columns = [table[path.removeprefix("$.")].cast(pa.string()) for path in self.fields.values()]
        plain = pa.table([*columns, pa.nulls(len(table), pa.string())], names=[*self.fields, "problem"])
        return _Slice(text, odd, plain)

    def _completed(self, connection: duckdb.DuckDBPyConnection, slices: Sequence["_Slice"]) -> pa.Table:
        """Put what DuckDB reads from the odd lines into the places that Arrow left out."""
        plain = [one.plain for one in slices if one.plain is not None]
        odd = np.concatenate([one.odd for one in slices])
        if not odd.any():
            return pa.concat_tables(plain)
        text = pa.chunked_array([one.text for one in slices]).filter(pa.array(odd)).combine_chunks()
        slow = self._extracted(connection, text)
        return pa.concat_tables([*plain, slow]).take(_places(odd))

    def read(
        self, connection: duckdb.DuckDBPyConnection, batch: pa.RecordBatch, text: pa.StringArray
    ) -> Iterator[Relation]:
        """Give the relation of a batch whose lines say the same as the JSON in `text`, (n,)."""
        yield from self._relation(connection, batch, self._extracted(connection, text))

    def _relation(
        self, connection: duckdb.DuckDBPyConnection, batch: pa.RecordBatch, found: pa.Table
    ) -> Iterator[Relation]:
        found = found.add_column(0, "source_row", batch.column(0)).add_column(1, "raw", batch.column(1))
        with registered(connection, "lines", found):
            yield Relation("from lines", batch.num_rows)

    def _extracted(self, connection: duckdb.DuckDBPyConnection, text: pa.StringArray) -> pa.Table:
        """Read any lines with DuckDB: the fields as text, and what is wrong with a line."""
        paths = ", ".join(literal(path) for path in self.fields.values())
        named = ", ".join(f"f[{n}] as {quote(name)}" for n, name in enumerate(self.fields, start=1))
        with registered(connection, "json_lines", pa.table([text], names=["t"])):
            found = connection.sql(f"""
                select {named}, case when f is null or ltrim(t, e' \\t\\r')[1] <> '{{' then
                    'expected {self.expected}, got ' || coalesce(nullif(left(t, 60), ''), 'nothing')
                    end as problem
                from (select t, case when json_valid(t) then json_extract_string(t, [{paths}]) end as f
                    from json_lines)""").to_arrow_table()
            for key in self._repeated(found, text):
                found = self._mark_repeated(connection, found, key)
        return found

    def _repeated(self, found: pa.Table, text: pa.StringArray) -> list[str]:
        """Give the keys that may stand twice in a line: those found more often than lines have a value.

        Counting in the whole block costs a fraction of asking every line for its keys.
        """
        if found["problem"].null_count < len(found):  # what is no JSON object has no keys
            text = text.filter(pc.is_null(found["problem"]).combine_chunks())
        block = _joined(text)
        escaped = b"\\u00" in block and ESCAPED_KEY.search(block)  # which counting does not see
        repeated = []
        for key in sorted({_first_key(path) for path in self.fields.values()}):
            own = [name for name, path in self.fields.items() if _first_key(path) == key]
            least = max(len(found) - found[name].null_count for name in own)
            if escaped or block.count(f'"{key}"'.encode()) > least:
                repeated.append(key)
        return repeated

    def _mark_repeated(self, connection: duckdb.DuckDBPyConnection, found: pa.Table, key: str) -> pa.Table:
        """Make a problem of each line in which a key really stands twice; `json_lines` has the lines."""
        twice = literal(f"expected every key once, got {key!r} twice")
        [marks] = connection.sql(f"""
            select case when json_valid(t)
                and len(list_filter(json_keys(t), lambda k: k = {literal(key)})) > 1 then {twice}
                end as problem
            from json_lines""").to_arrow_table()
        place = found.column_names.index("problem")
        return found.set_column(place, "problem", pc.coalesce(found["problem"], marks))


ESCAPED_KEY = re.compile(rb'"[^"\\]*\\u00[2-7][0-9a-fA-F][^"]*"\s*:')


@dataclass(frozen=True)
class _Slice:
    """Some lines: which are odd, and what Arrow read of the others."""

    text: pa.StringArray
    odd: npt.NDArray[np.bool_]
    plain: pa.Table | None


def _places(odd: npt.NDArray[np.bool_]) -> pa.Array:
    """Give where each line stands among the even ones followed by the odd ones."""
    return pa.array(np.argsort(np.concatenate([np.flatnonzero(~odd), np.flatnonzero(odd)])))


def _first_key(path: str) -> str:
    """Give the first key of a JSON path.

    >>> _first_key("$.details.brand"), _first_key('$."Item Weight".x')
    ('details', 'Item Weight')
    """
    rest = path.removeprefix("$.")
    return rest[1:].split('"')[0] if rest.startswith('"') else rest.split(".")[0].split("[")[0]


def _after_header(reader: LineReader, check: object) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Give the batches; where `check` is given, the first line goes to it and is counted as a header.

    Lines that begin after the first have its text in `reader.header`, and none of them is one.
    """
    if check is not None and reader.header is not None:
        check(reader, reader.header)  # type: ignore[operator]
        check = None
    for number, batch in enumerate(reader.batches()):
        if number == 0 and check is not None:
            check(reader, batch.column(1)[0].as_py())  # type: ignore[operator]
            yield batch.slice(1), 1
        else:
            yield batch, 0


class registered:  # noqa: N801 (a context manager, used as a word)
    """Make an Arrow table or batch known to DuckDB under a name, in slices that threads can share."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, name: str, data: pa.RecordBatch | pa.Table
    ) -> None:
        """Name what to register."""
        self.connection, self.name = connection, name
        table = pa.Table.from_batches([data]) if isinstance(data, pa.RecordBatch) else data
        slices = table.to_batches(max_chunksize=SLICE)
        self.table = pa.Table.from_batches(slices, table.schema)

    def __enter__(self) -> None:
        """Register."""
        self.connection.register(self.name, self.table)

    def __exit__(self, *_: object) -> None:
        """Forget."""
        self.connection.unregister(self.name)


def _parse_csv(batch: pa.RecordBatch, width: int, form: Csv) -> pa.Table:
    """Give (source_row, raw, f0..., problem): each line a row; where its width is wrong, a problem.

    Arrow reads the lines without quotes; what a quote or a carriage return in a line means is decided
    line by line, so that no line is read otherwise because of its neighbours.
    """
    rows, raw = batch.column(0), batch.column(1)
    odd = pc.match_substring_regex(raw, f"[{re.escape(form.mark)}\\r\\n]" if form.mark else "[\\r\\n]")
    plain = _arrow_csv(raw.filter(pc.invert(odd)), width, form)
    if plain is None:
        fields, problems = _slow_csv(raw.to_pylist(), width, form)
    else:
        slow = _slow_csv(raw.filter(odd).to_pylist(), width, form)
        is_odd = odd.to_numpy(zero_copy_only=False)
        places = _places(is_odd)
        fields = [pa.concat_arrays(pair).take(places) for pair in zip(plain[0], slow[0], strict=True)]
        problems = pa.concat_arrays([plain[1], slow[1]]).take(places)
    names = ["source_row", "raw", *(f"f{n}" for n in range(width)), "problem"]
    return pa.table([rows, raw, *fields, problems], names=names)


def _joined(raw: pa.StringArray) -> bytes:
    """Give the lines with line ends again."""
    ended = pc.binary_join_element_wise(raw, "\n", "")
    data = ended.buffers()[2]
    return b"" if data is None else data.to_pybytes()


Parsed = tuple[list[pa.Array], pa.Array]


def _arrow_csv(lines: pa.StringArray, width: int, form: Csv) -> Parsed | None:
    """Parse lines without quotes at once; None where rows and lines do not go together one by one."""
    if not len(lines):
        return [pa.nulls(0, pa.string())] * width, pa.nulls(0, pa.string())
    bad: dict[int, int] = {}

    def invalid(row: arrow_csv.InvalidRow) -> str:
        bad[row.number - 1] = row.actual_columns
        return "skip"

    block, names = _joined(lines), [f"f{n}" for n in range(width)]
    try:
        table = arrow_csv.read_csv(
            io.BytesIO(block),
            read_options=arrow_csv.ReadOptions(
                use_threads=False, column_names=names, block_size=len(block) + 1
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter=form.delimiter,
                quote_char=False,
                ignore_empty_lines=False,
                invalid_row_handler=invalid,
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types={name: pa.string() for name in names}, strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid:
        return None
    if len(table) + len(bad) != len(lines):
        return None
    fields = [table[name].combine_chunks() for name in names]
    if not bad:
        return fields, pa.nulls(len(lines), pa.string())
    # The rows that Arrow left out come back as nulls, each with its problem.
    good = np.ones(len(lines), dtype=bool)
    good[list(bad)] = False
    places = pa.array(np.cumsum(good) - 1, mask=~good)
    problems = [None if kept else _width_problem(bad[n], width) for n, kept in enumerate(good)]
    return [field.take(places) for field in fields], pa.array(problems, pa.string())


def _slow_csv(lines: list[str], width: int, form: Csv) -> Parsed:
    """Parse line by line, the slow and obvious way; a quote that is not closed is a problem."""
    columns: list[list[str | None]] = [[] for _ in range(width)]
    problems: list[str | None] = []
    for line in lines:
        values: list[str] = []
        try:
            reader = csv.reader(
                io.StringIO(line, newline=""), delimiter=form.delimiter, strict=True, **_quoting(form.mark)
            )
            values = next(reader, [""])
            extra = next(reader, None)
            problem = None if len(values) == width else _width_problem(len(values), width)
            if extra is not None:
                problem = "expected one record on a line, got a line end inside it"
        except csv.Error as error:
            problem = f"expected comma-separated values, got {error}"
        problems.append(problem)
        for n, column in enumerate(columns):
            column.append(None if problem else values[n])
    return [pa.array(column, pa.string()) for column in columns], pa.array(problems, pa.string())


def _quoting(mark: str) -> dict[str, Any]:
    """Give what csv.reader is to know of quotes; without a mark nothing is quoted."""
    return {"quotechar": mark} if mark else {"quotechar": None, "quoting": csv.QUOTE_NONE}


def _width_problem(got: int, width: int) -> str:
    return f"expected {width} columns, got {got}"
