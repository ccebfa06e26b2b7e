"""How lines become fields: each line for itself, whatever stands beside it."""

import json
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from helpers import run_chain
from hypothesis import given, settings
from hypothesis import strategies as st

from sid_pipelines.sources.forms import Csv, Form, Json
from sid_pipelines.sources.lines import LineReader
from sid_warehouse.db import connect

TWO = Csv({"a": "a", "b": "b"}, names=("a", "b"))
PLAIN = Json({"a": "$.a", "n": "$.n"}, types={"n": pa.float64()})
ANY = Json({"a": "$.a", "n": "$.n"})


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    """One connection for all: to open one takes longer than to read some lines."""
    with connect() as connection:
        yield connection


def read(
    database: duckdb.DuckDBPyConnection, form: Form, folder: Path, lines: list[str]
) -> list[tuple[object, ...]]:
    path = folder / "lines"
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return [
        row
        for relation in form.relations(database, LineReader(path))
        for row in database.sql(f"select * exclude (raw) from ({relation.sql})").fetchall()
    ]


CELL = st.text(st.sampled_from('xy,"\r \\'), max_size=8)


@settings(max_examples=40)
@given(lines=st.lists(CELL, min_size=1, max_size=8))
def test_a_csv_line_is_read_alike_alone_and_among_others(
    database: duckdb.DuckDBPyConnection, lines: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("csv")
    lines = [line.removesuffix("\r") for line in lines]
    together = read(database, TWO, folder, lines)
    assert [row[0] for row in together] == list(range(1, len(lines) + 1))
    alone = [read(database, TWO, folder, [line])[0] for line in lines]
    assert [row[1:] for row in together] == [row[1:] for row in alone]


OBJECT = st.dictionaries(
    st.sampled_from(["a", "n", "x"]),
    st.one_of(
        st.none(), st.booleans(), st.integers(-5, 10**20), st.floats(), st.text(max_size=5), st.just([1])
    ),
)
LINE = st.one_of(
    OBJECT.map(json.dumps),
    st.sampled_from(
        ['{"a":"b"', '{"a":"1","a":"2"}', '{"a":"1","\\u0061":"2"}', "", "[1]", ' {"a":"x"}', "\t{}"]
    ),
    st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=10),
)


def number(text: object) -> object:
    try:
        return repr(float(str(text)))
    except ValueError:
        return text


@settings(max_examples=40)
@given(lines=st.lists(LINE, min_size=1, max_size=12))
def test_arrow_and_duckdb_read_the_same_json(
    database: duckdb.DuckDBPyConnection, lines: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("json")
    fast = [(row, a, number(n), bool(problem)) for row, a, n, problem in read(database, PLAIN, folder, lines)]
    slow = [(row, a, number(n), bool(problem)) for row, a, n, problem in read(database, ANY, folder, lines)]
    assert fast == slow


def test_a_key_that_stands_twice_is_told_however_it_is_spelled(
    database: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    lines = ['{"a":"1","a":"2"}', '{"a":"1","\\u0061":"2"}', '\t{"a":"\\u0061"}']
    for form in (PLAIN, ANY):
        problems = [row[-1] for row in read(database, form, tmp_path, lines)]
        assert problems == ["expected every key once, got 'a' twice"] * 2 + [None]


def test_pairs_are_of_all_descriptions_of_an_item(tmp_path: Path) -> None:
    reviews = ['{"reviewerID": "u", "asin": "A", "overall": 5.0, "unixReviewTime": 1400000000}']
    meta = [
        '{"asin": "A", "title": "x", "also_buy": ["B"]}',
        '{"asin": "A", "title": "x", "also_buy": ["C"]}',
        '{"asin": "A", "title": "y", "also_buy": ["D"]}',
        '{"asin": ["A"], "title": "z"}',
    ]
    found = []
    for order in (meta, meta[::-1]):
        (tmp_path / "X_5.json").write_text("\n".join(reviews))
        (tmp_path / "meta_X.json").write_text("\n".join(order))
        (tmp_path / "recipe.toml").write_text('dataset = "x"\n[source]\nkind = "amazon-2018"\npath = "."\n')
        given = ("source.path=['X_5.json', 'meta_X.json']", "clean.max_reject_rate=1.0")
        done = run_chain(tmp_path / "recipe.toml", tmp_path / "w", *given, until="ingest").outputs["ingest"]
        reasons = sorted(row["reason"].split(":")[0] for row in done.read("rejects").to_pylist())
        found.append(
            (done.read("raw_item_pairs").to_pylist(), reasons, done.read("raw_items")["title"].to_pylist())
        )
    assert found[0] == found[1]
    pairs, reasons, titles = found[0]
    assert [row["other_id"] for row in pairs] == ["B", "C", "D"]
    assert titles == ["x"]
    assert reasons == [
        "expected an item id (asin), got a list or an object",
        "item A is described in another way too, which was kept",
    ]
