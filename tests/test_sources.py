"""The contract of every source, run on small hand-made dumps in its true format.

A folder `tests/data/sources/<kind>[-variant]/` is a dump and an `expected.json`:

    options   what stands beside `kind` in [source]; default {}
    path      which files or folders of it [source] path names; default all
    items     which of its files [source] items names, where the source needs that
    ignored   file names in it that the source does not read
    encoding  of its files, where it is not what their layouts say and the source finds out
    counts    rows of raw_interactions, raw_items, raw_impressions, raw_item_pairs, rejects; default 0
    skipped   reason -> lines that were left out for it
    first_interaction, first_item, first_impression, first_item_pair   columns of the first row
    raw_interactions, raw_items, ...   a list of columns of every row, in the table's order
"""

import ast
import gzip
import json
import re
import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from helpers import run_chain
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sid_pipelines.ingest import IngestParams, Reading
from sid_pipelines.sources import SOURCES, Candidate, RawFile, ReadOptions, Source, candidates
from sid_pipelines.sources.base import ROLES, Layout
from sid_pipelines.sources.forms import Csv, Delimited
from sid_pipelines.text import parse as parse_template
from sid_schemas import SourceError
from sid_schemas.tables import EVENT_TYPES, FIRST_MS, LAST_MS
from sid_warehouse.db import connect
from sid_warehouse.stages import StageOutput

FOLDER = Path(__file__).parent / "data" / "sources"
FIRSTS = {
    "first_interaction": "raw_interactions",
    "first_item": "raw_items",
    "first_impression": "raw_impressions",
    "first_item_pair": "raw_item_pairs",
}


@dataclass(frozen=True)
class Sample:
    """A hand-made dump."""

    folder: Path

    def __str__(self) -> str:
        return self.folder.name

    @property
    def expected(self) -> dict[str, Any]:
        return json.loads((self.folder / "expected.json").read_text(encoding="utf-8"))

    @property
    def kind(self) -> str:
        """Give the longest kind that the folder's name begins with."""
        name = self.folder.name
        kinds = [kind for kind in SOURCES if name == kind or name.startswith(f"{kind}-")]
        return max(kinds, key=len, default="")

    @property
    def options(self) -> dict[str, Any]:
        return self.expected.get("options", {})

    @property
    def source(self) -> Source:
        return SOURCES[self.kind](**self.options)

    def encoding(self, layout: Layout) -> str:
        return self.expected.get("encoding", layout.encoding)

    def files(self, key: str = "path") -> list[Path]:
        """Give the files that `path` or `items` names, relative to the folder."""
        everything = sorted(
            file.relative_to(self.folder)
            for file in self.folder.rglob("*")
            if file.is_file() and file.name != "expected.json"
        )
        given = self.expected.get(key, "." if key == "path" else [])
        named = [Path(one) for one in ([given] if isinstance(given, str) else given)]
        return [file for file in everything if any(file == one or one in file.parents for one in named)]

    def find(self, folder: Path) -> list[RawFile]:
        """Find the dump's files in a copy of it, whose packed files go by their own names."""
        groups = [
            [
                Candidate(file, None, file.parent.name)
                for one in self.files(key)
                for file in _there(folder / one)
            ]
            for key in ("path", "items")
        ]
        return self.source.find(*groups)


def _there(file: Path) -> list[Path]:
    packed = file.with_name(f"{file.name}.gz")
    return [one for one in (file, packed) if one.exists()]


SAMPLES = [Sample(file.parent) for file in sorted(FOLDER.glob("*/expected.json"))]
FILES = [(sample, file) for sample in SAMPLES for file in [*sample.files(), *sample.files("items")]]
each_sample = pytest.mark.parametrize("sample", SAMPLES, ids=str)
each_file = pytest.mark.parametrize(
    ("sample", "file"), FILES, ids=[f"{sample}-{file}" for sample, file in FILES]
)


# -- what a source says of itself ------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(SOURCES))
def test_every_source_has_a_sample_and_says_what_it_is(kind: str) -> None:
    source = SOURCES[kind]
    assert source.kind == kind
    assert any(sample.kind == kind for sample in SAMPLES), (
        f"make tests/data/sources/{kind}/ with expected.json"
    )
    assert source.title
    assert source.licence
    assert source.url.startswith("http")
    assert source.tested_on
    assert parse_template(source.template)


@each_sample
def test_every_sample_is_of_a_kind_and_its_files_are_found_plain_and_packed(
    sample: Sample, tmp_path: Path
) -> None:
    assert sample.kind, f"no kind of source begins the name of {sample.folder}"
    plain = sample.find(_copy(sample, tmp_path / "plain"))
    packed = sample.find(_copy(sample, tmp_path / "packed", pack=True))
    assert [file.layout for file in packed] == [file.layout for file in plain]
    read = {file.path.name for file in plain}
    given = {file.name for file in [*sample.files(), *sample.files("items")]}
    assert given - read == set(sample.expected.get("ignored", []))


@pytest.mark.parametrize("kind", sorted(SOURCES))
def test_the_samples_show_every_layout(kind: str, tmp_path: Path) -> None:
    declared, shown = set(), set()
    for sample in (one for one in SAMPLES if one.kind == kind):
        layouts = sample.source.layouts
        declared |= {(layout.role, layout.name) for layout in layouts}
        found = sample.find(sample.folder)
        shown |= {(layouts[file.layout].role, layouts[file.layout].name) for file in found}
    assert shown == declared


@each_sample
def test_two_files_that_hold_the_same_are_refused(sample: Sample, tmp_path: Path) -> None:
    for number, file in enumerate(sample.find(sample.folder)):
        folder = _copy(sample, tmp_path / str(number))
        twin = folder / file.path.relative_to(sample.folder)
        _pack(twin, keep=True)
        with pytest.raises(SourceError, match="both hold the"):
            sample.find(folder)


# -- what a dump gives -----------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["plain", "gz", "zip"])
@each_sample
def test_a_sample_gives_what_it_is_known_to_hold(sample: Sample, form: str, tmp_path: Path) -> None:
    output, expected = ingested(sample, form, tmp_path), sample.expected
    assert _filled(output) == {name: rows for name, rows in expected["counts"].items() if rows}
    skipped: Counter[str] = Counter()
    for seen in output.facts["files"].values():
        assert seen["rows"] == seen["records"] + sum(seen["skipped"].values()) + seen["rejects"]
        skipped.update(seen["skipped"])
    assert skipped == expected.get("skipped", {})
    for key, table in FIRSTS.items():
        if key in expected:
            [row] = output.read(table).slice(0, 1).to_pylist()
            assert {name: row[name] for name in expected[key]} == expected[key]
    for table in {*expected} & {*FIRSTS.values()}:
        rows = output.read(table).to_pylist()
        pairs = zip(rows, expected[table], strict=True)
        assert [{name: row[name] for name in wanted} for row, wanted in pairs] == expected[table]
    promised = {f"raw_{role}" for role in sample.source.yields}
    assert set(_filled(output)) - {"rejects"} <= promised


@pytest.mark.parametrize("kind", sorted(SOURCES))
def test_the_samples_fill_every_role_that_the_source_yields(kind: str, tmp_path: Path) -> None:
    promised, filled = set(), set()
    for sample in (one for one in SAMPLES if one.kind == kind):
        promised |= {f"raw_{role}" for role in sample.source.yields}
        filled |= {name for name, rows in sample.expected["counts"].items() if rows}
    assert filled - {"rejects"} == promised


def ingested(sample: Sample, form: str, tmp_path: Path) -> StageOutput:
    """Ingest a sample by a recipe: as it is, each file packed by gzip, or all in one zip."""
    _copy(sample, tmp_path / "dump", pack=form == "gz")
    lines = ['dataset = "sample"', "[clean]", "max_reject_rate = 1.0", "[source]", f'kind = "{sample.kind}"']
    for key in ("path", "items"):
        files = sample.files(key)
        if not files:
            continue
        if form == "zip":
            with zipfile.ZipFile(tmp_path / f"{key}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                for file in files:
                    archive.write(tmp_path / "dump" / file, str(file))
            named = [f"{key}.zip"]
        elif key in sample.expected:
            named = [f"dump/{file}.gz" if form == "gz" else f"dump/{file}" for file in files]
        else:
            named = sorted({str(Path("dump") / file.parent) for file in files})
        lines.append(f"{key} = {_toml(named)}")
    lines += [f"{name} = {_toml(value)}" for name, value in sample.options.items()]
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("\n".join(lines), encoding="utf-8")
    return run_chain(recipe, tmp_path / "warehouse", until="ingest").outputs["ingest"]


def _filled(output: StageOutput) -> dict[str, int]:
    return {name: rows for name, rows in output.manifest["rows"].items() if rows}


def _copy(sample: Sample, folder: Path, *, pack: bool = False) -> Path:
    """Copy a sample's files, without what is expected of them, and pack each if so asked."""
    for file in {*sample.files(), *sample.files("items")}:
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sample.folder / file, target)
        if pack:
            _pack(target)
    return folder


def _pack(file: Path, *, keep: bool = False) -> None:
    file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    if not keep:
        file.unlink()


def _toml(value: Any) -> str:
    """Write a value as TOML, which is JSON but for tables."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["userId,mov\rieId,rating,timestamp", "", '"userId,movieId', "\x00"])
def test_a_header_that_is_none_is_refused_in_one_line(header: str, tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_bytes(f"{header}\n1,10,5.0,1147880044\n".encode())
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n10,Ten,Drama\n")
    source = SOURCES["movielens"]()
    file = source.find(candidates(tmp_path))[0]
    with connect() as connection, pytest.raises(SourceError, match=r"^\S+ratings\.csv, row 1: .*$"):
        list(source.parse(connection, file, ReadOptions()))


def test_what_is_missing_is_named_in_every_form_it_could_have(tmp_path: Path) -> None:
    (tmp_path / "tags.csv").write_text("userId,movieId,tag,timestamp\n")
    with pytest.raises(SourceError, match=r"no u\.data or ratings\.dat or ratings\.csv there .*/tags\.csv"):
        SOURCES["movielens"]().find(candidates(tmp_path))


# -- fuzzing: any line is a record, left out for a reason, or a reject -----------------------------

ODD = [
    "", " ", "{}", "[]", "null", "true", "NaN", "-Infinity", '""', '"', "'", "{", "]", "\x00", "\\", "\r",
    "::", "\t", ",", "|", ";", "-1", "0", "1e999", "0x1f", "9" * 20, "9" * 400, "1.5", "nan", "é", "😀",
    "1356998400", "1356998400000", "1356998400000000", "2013-01-01 00:00:00", "[null]", '{"a": [1, {}]}',
    '["a", 1, null, ["b"]]', "%s", "$.a", "\u2028", "\x85", "\ufeff",
]  # fmt: skip
odd_text = st.sampled_from(ODD) | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
odd_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | odd_text
    | st.sampled_from([10**30, 1356998400, 1356998400000, "1356998400"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd_text, inner, max_size=3),
    max_leaves=4,
)
SEPARATORS = ["\t", "::", ",", "|", ";", "\x01", " "]


@st.composite
def spoilt(draw: st.DrawFn, line: str) -> str:
    """Give a line with something done to it: to its characters, its fields, or a value in its JSON."""
    ways: list[Callable[[], str]] = [
        lambda: line,
        lambda: draw(odd_text),
        lambda: _cut(draw, line),
        lambda: _other_field(draw, line),
    ]
    if line.lstrip().startswith(("{", "[")):
        ways += [lambda: _other_value(draw, line)] * 3
    return ways[draw(st.integers(0, len(ways) - 1))]()


def _cut(draw: st.DrawFn, line: str) -> str:
    start = draw(st.integers(0, len(line)))
    end = draw(st.integers(start, min(len(line), start + 8)))
    return line[:start] + draw(odd_text) + line[end:]


def _other_field(draw: st.DrawFn, line: str) -> str:
    separator = draw(st.sampled_from([one for one in SEPARATORS if one in line] or [" "]))
    fields = line.split(separator)
    place = draw(st.integers(0, len(fields) - 1))
    fields[place : place + 1] = draw(st.lists(odd_text | st.just(fields[place]), max_size=2))
    return separator.join(fields)


def _other_value(draw: st.DrawFn, line: str) -> str:
    """Give a JSON object (or Python literal) with another value, or without one."""
    write: Callable[[Any], str] = json.dumps
    try:
        parsed = json.loads(line)
    except ValueError:
        try:
            parsed, write = ast.literal_eval(line), repr
        except (ValueError, SyntaxError):
            return line
    inner = parsed
    while isinstance(inner, dict | list) and inner:
        key = draw(st.sampled_from(list(inner) if isinstance(inner, dict) else list(range(len(inner)))))
        if not isinstance(inner[key], dict | list) or not inner[key] or draw(st.booleans()):
            if draw(st.booleans()):
                inner[key] = draw(odd_json)
            else:
                del inner[key]
            break
        inner = inner[key]
    return write(parsed)


@st.composite
def spoilt_lines(draw: st.DrawFn, lines: list[str]) -> list[str]:
    """Give the lines, each spoilt in some way, in which line ends stay line ends."""
    made = [draw(spoilt(line)) for line in lines]
    made += draw(st.lists(odd_text, max_size=2))
    # What is a line end to the reader, or no part of its first line, would make the count untrue.
    return [one.replace("\n", " ").rstrip("\r").lstrip("\ufeff") for one in made]


def _lines(file: Path, encoding: str) -> list[str]:
    return file.read_bytes().decode(encoding).removesuffix("\n").split("\n")


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    with connect() as connection:
        yield connection


fuzz = settings(max_examples=15, suppress_health_check=list(HealthCheck))


@each_file
@fuzz
@given(data=st.data())
def test_whatever_a_line_holds_it_is_accounted_for(
    database: duckdb.DuckDBPyConnection, sample: Sample, file: Path, data: st.DataObject
) -> None:
    found = [one for one in sample.find(sample.folder) if one.path == sample.folder / file]
    if not found:
        return  # a file that is not read
    layout = sample.source.layouts[found[0].layout]
    header = isinstance(layout.form, Delimited) and layout.form.header
    header = header or (isinstance(layout.form, Csv) and layout.form.names is None)
    encoding = sample.encoding(layout)
    lines = _lines(sample.folder / file, encoding)
    kept, rest = (lines[:1], lines[1:]) if header else ([], lines)
    spoilt_header = bool(kept) and data.draw(st.integers(0, 9)) == 0
    if spoilt_header:
        kept = [data.draw(spoilt_lines(kept))[0]]
    made = [*kept, *(data.draw(spoilt_lines(rest)) or ["x"])]
    lines = [line.encode(encoding, "replace").decode(encoding) for line in made]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file.name
        path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
        raw = RawFile(path, found[0].label, found[0].role, found[0].layout, found[0].part)
        refused = ""
        try:
            parsed = list(sample.source.parse(database, raw, ReadOptions(encoding)))
        except SourceError as error:
            refused = str(error)
    if refused:
        assert spoilt_header, refused  # a header is the only line that speaks for the file
        assert "\n" not in refused
        return
    records = pa.concat_tables([one.records for one in parsed])
    rejects = pa.concat_tables([one.rejects for one in parsed])
    skipped = sum(sum(one.skipped.values()) for one in parsed)
    headers = sum(one.headers for one in parsed)
    rows = records["source_row"].to_pylist() + rejects["source_row"].to_pylist()
    assert len(set(rows)) == len(rows)
    assert sum(one.lines for one in parsed) == len(rows) + skipped + headers
    if layout.form.quote is None:
        assert len(rows) + skipped + headers == len(lines)
    for reject in rejects.to_pylist():
        assert reject["reason"]
        first = reject["source_row"] - 1
        if layout.form.quote is None:
            assert reject["raw"] == lines[first]
        else:
            assert "\n".join(lines[first:]).startswith(reject["raw"])
    _check_records(layout.role, records)


@pytest.mark.parametrize("sample", [one for one in SAMPLES if one.kind and one.source.derived], ids=str)
@fuzz
@given(data=st.data())
def test_whatever_the_files_hold_what_is_derived_stands(sample: Sample, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = _copy(sample, Path(name))
        for raw in sample.find(folder):
            layout = sample.source.layouts[raw.layout]
            lines = _lines(raw.path, sample.encoding(layout))
            made = [*lines[:1], *data.draw(spoilt_lines(lines[1:])), "x"]
            raw.path.write_bytes(
                "".join(f"{line}\n" for line in made).encode(sample.encoding(layout), "replace")
            )
        _check_derived(sample, folder)


@pytest.mark.parametrize("sample", [one for one in SAMPLES if one.kind and one.source.derived], ids=str)
def test_what_is_derived_stands_where_a_file_has_no_good_line(sample: Sample, tmp_path: Path) -> None:
    for number, raw in enumerate(sample.find(sample.folder)):
        folder = _copy(sample, tmp_path / str(number))
        file = folder / raw.path.relative_to(sample.folder)
        file.write_bytes(file.read_bytes().split(b"\n")[0] + b"\nx\n")
        _check_derived(sample, folder)


def _check_derived(sample: Sample, folder: Path) -> None:
    """Read a dump as ingest does, and check what its files and the source's SQL give."""
    found = sample.find(folder)
    files = [
        {"label": one.label, "role": one.role, "layout": one.layout, "part": one.part, "member": None}
        for one in found
    ]
    params = IngestParams(
        sample.kind, sample.options, "", "error", "error", tuple(files), tuple(str(one.path) for one in found)
    )
    with connect() as connection:
        reading = Reading(params, connection, folder / "spill")
        refused = "another unit"
        try:
            reading.stage_own_roles()
            for role in ROLES:
                for batch in reading.records(role):
                    _check_records(role, pa.Table.from_batches([batch]))
        except SourceError as error:
            refused = str(error)
    assert re.search("another unit|two units", refused)  # spoilt times may be, and ingest refuses them


def _check_records(role: str, records: pa.Table) -> None:
    """Check that records hold what their table demands."""
    if role not in ROLES:
        return
    for name in (
        "user_id",
        "item_id",
        "ts",
        "event_type",
        "items",
        "category_path",
        "source_file",
        "source_row",
    ):
        if name in records.column_names:
            assert records[name].null_count == 0, name
    for row in records.to_pylist():
        assert FIRST_MS <= row.get("ts", FIRST_MS) <= LAST_MS
        assert row.get("event_type", "rating") in EVENT_TYPES
        for name in ("value", "price"):
            assert row.get(name) is None or abs(row[name]) < float("inf"), name
        for name in ("category_path", "items", "clicked", "positions"):
            assert None not in row.get(name, [])
        if role == "impressions":
            assert len({len(row[name]) for name in ("items", "clicked", "positions")}) == 1
