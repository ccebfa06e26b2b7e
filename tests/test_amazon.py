"""The Amazon dumps and Steam: known answers on real files, Python literals, and what broken lines become."""

import ast
import gzip
import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from helpers import ROOT, Run, run_chain
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sid_pipelines.sources.fields import price
from sid_pipelines.sources.literals import LONGEST, as_json, rewrite
from sid_schemas import RecipeError, SourceError
from sid_warehouse.db import connect

REAL = ROOT.parent / "shared" / "data"
SAMPLES = Path(__file__).parent / "data" / "sources"
needs_real_files = pytest.mark.skipif(not REAL.is_dir(), reason=f"the real dumps are not there: {REAL}")
Row = dict[str, Any]


def ingest(folder: Path, kind: str, path: Path, *overrides: str) -> Run:
    recipe = folder / "recipe.toml"
    recipe.write_text(
        f'dataset = "small"\n[source]\nkind = "{kind}"\npath = {json.dumps(str(path))}\n'
        "[clean]\nmax_reject_rate = 1.0\n"
    )
    return run_chain(recipe, folder / "warehouse", *overrides, until="ingest")


def read(run: Run, table: str) -> list[Row]:
    return run.outputs["ingest"].read(table).to_pylist()


# -- real files ------------------------------------------------------------------------------------


@pytest.mark.realdata
@needs_real_files
def test_gift_cards_of_2018(tmp_path: Path) -> None:
    meta = REAL / "amazon2018" / "meta_Gift_Cards.json.gz"
    reviews = REAL / "amazon2018" / "Gift_Cards_5.json.gz"
    run = ingest(tmp_path, "amazon-2018", reviews, f"source.items={json.dumps(str(meta))}")
    counts = {"raw_interactions": 2_972, "raw_items": 1_547, "raw_item_pairs": 55_779, "rejects": 0}
    assert run.outputs["ingest"].manifest["rows"] == counts
    events = read(run, "raw_interactions")
    assert len({event["user_id"] for event in events}) == 458
    assert len({event["item_id"] for event in events}) == 148
    assert {name: events[0][name] for name in ("user_id", "item_id", "ts", "event_type", "value")} == {
        "user_id": "A31UBHTUUIFJUT",
        "item_id": "B004LLIKVU",
        "ts": 1529193600000,
        "event_type": "review",
        "value": 5.0,
    }
    items = {item["item_id"]: item for item in read(run, "raw_items")}
    first = items["B001H53QE4"]
    assert first["title"] == "Amazon.com Gift Cards, Pack of 50 (Old Version) (Classic White Card Design)"
    assert (first["brand"], first["price"], first["domain"]) == ("Amazon", 1250.0, "Gift_Cards")
    assert first["category_path"] == ["Gift Cards", "Gift Cards"]
    assert first["image_ref"].endswith("/I/31T%2BQmXRSBL._SX38_SY50_CR,0,0,38,50_.jpg")
    assert first["description"].endswith("Free One-Day Shipping (where available)")  # the last feature
    # Of 362 prices four are style sheets or pieces of a page.
    assert sum(item["price"] is not None for item in items.values()) == 358
    assert {event["item_id"] for event in events} <= set(items)
    assert sorted(read(run, "raw_item_pairs"), key=str) == sorted(_pairs_of_2018(meta), key=str)


def _pairs_of_2018(meta: Path) -> list[Row]:
    """Read the pairs in the slow and obvious way."""
    lines = [json.loads(line) for line in gzip.decompress(meta.read_bytes()).splitlines()]
    return [
        {"item_id": line["asin"], "other_id": other, "kind": kind}
        for line in lines
        for kind in ("also_buy", "also_view")
        for other in set(line[kind]) - {line["asin"]}
    ]


@pytest.mark.realdata
@needs_real_files
def test_reviews_without_metadata_are_read(tmp_path: Path) -> None:
    run = ingest(tmp_path, "amazon-2018", REAL / "amazon2018" / "All_Beauty_5.json.gz")
    assert run.outputs["ingest"].manifest["rows"] == {"raw_interactions": 5_269, "raw_items": 0, "rejects": 0}
    events = read(run, "raw_interactions")
    assert len({event["user_id"] for event in events}) == 991
    assert len({event["item_id"] for event in events}) == 85


@pytest.mark.realdata
@needs_real_files
def test_cut_off_files_of_2014_are_refused_or_their_whole_lines_kept(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"row 6909: the gzip stream ends here.* 6,908 lines were readable"):
        ingest(tmp_path, "amazon-2014", REAL / "amazon2014")
    run = ingest(tmp_path, "amazon-2014", REAL / "amazon2014", "source.truncated=keep")
    counts = {"raw_interactions": 6_908, "raw_items": 7_419, "raw_item_pairs": 352_447, "rejects": 2}
    assert run.outputs["ingest"].manifest["rows"] == counts
    seen = run.outputs["ingest"].facts["files"]
    assert [(file["rows"], file["rejects"], file["cut_off"]) for file in seen.values()] == [
        (6_909, 1, True),
        (7_420, 1, True),
    ]
    for reject in read(run, "rejects"):
        assert reject["reason"].startswith("the gzip stream ends here")
    item = read(run, "raw_items")[0]
    del item["source_file"]
    assert item == {
        "item_id": "5555991584",
        "title": "Memory of Trees",
        "description": None,
        "brand": None,
        "price": 9.49,
        "category_path": ["CDs & Vinyl", "New Age", "Celtic New Age"],
        "image_ref": "http://ecx.images-amazon.com/images/I/51b5WDjdhPL._SX300_.jpg",
        "domain": "Digital_Music",
        "source_row": 1,
    }


@pytest.mark.realdata
@needs_real_files
def test_real_literals_are_rewritten_to_what_python_reads(tmp_path: Path) -> None:
    run = ingest(tmp_path, "amazon-2014", REAL / "amazon2014", "source.truncated=keep")
    lines = _whole_lines(REAL / "amazon2014" / "meta_Digital_Music.json.gz")
    assert len(lines) == 7_419
    with connect() as connection:
        rewritten = as_json(connection, pa.array(lines)).to_pylist()
    parsed = [ast.literal_eval(line) for line in lines]
    assert [json.loads(line) for line in rewritten] == parsed
    items = {item["item_id"]: item for item in read(run, "raw_items")}
    for line in parsed:
        item = items[line["asin"]]
        assert item["title"] == (line.get("title", "").strip() or None)
        assert item["price"] == line.get("price")
        assert item["category_path"] == line["categories"][0]


def _whole_lines(path: Path) -> list[str]:
    lines = []
    try:
        with gzip.open(path, "rb") as file:
            for line in file:
                lines.append(line)
    except EOFError:
        pass
    return [line.decode().removesuffix("\n") for line in lines if line.endswith(b"\n")]


# -- Python literals -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def database() -> Any:
    with connect() as connection:
        yield connection


ODD_TEXTS = [
    "u", " u", "True", "None", "it's", '"', "\\", "\\x41", "\n", "\x01", "\x02rue", "{'a': u'b'}", '\\"', "/",
]  # fmt: skip
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12) | st.sampled_from(ODD_TEXTS)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def as_python_2_writes(value: Any) -> str:
    """Write a value as repr does in Python 2, where texts have a `u`, or are escaped to ASCII."""
    if isinstance(value, str):
        return "u" + ascii(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(as_python_2_writes, value)) + "]"
    if isinstance(value, dict):
        inside = (f"{as_python_2_writes(key)}: {as_python_2_writes(one)}" for key, one in value.items())
        return "{" + ", ".join(inside) + "}"
    return repr(value)


@settings(max_examples=300)
@given(value=st.dictionaries(texts, values, max_size=5))
@example({"a": "I love u", "True": True, "b": ["u'", None]})
def test_the_fast_way_reads_what_the_slow_way_reads(database: duckdb.DuckDBPyConnection, value: Row) -> None:
    lines = [repr(value), as_python_2_writes(value)]
    for line, fast in zip(lines, as_json(database, pa.array(lines)).to_pylist(), strict=True):
        assert json.loads(rewrite(line)) == value
        assert json.loads(fast) == value


SNIPPETS = [
    "{", "}", "[", "]", "(", ")", ",", ":", "'", '"', "u", "b", "r", "a", "1", "-", ".", "e", "\\", "x41",
    "#", "True", "False", "None", "true", "nan", "inf", " ", "'a'", "u'b'", '"c"', "'a': ",
    "\x01", "\x02", "\t",
]  # fmt: skip


@settings(max_examples=500)
@given(line=st.lists(st.sampled_from(SNIPPETS), max_size=10).map("".join).map("{{'k': {}}}".format))
@example("{'k': 'b'rue}")
@example("{'k': 'a'} '")
@example("{'k': 'a'}u")
@example("{'k': [1,],}")
def test_the_fast_way_takes_only_what_is_a_literal(database: duckdb.DuckDBPyConnection, line: str) -> None:
    [fast] = as_json(database, pa.array([line])).to_pylist()
    if fast == line:
        return  # neither: it becomes a reject, or it was JSON before
    # As DuckDB reads it, which passes over a last comma, as Python does.
    [[read_by_duckdb]] = database.execute("select json($1)", [fast]).fetchall()
    assert json.loads(read_by_duckdb) == json.loads(rewrite(line))


@pytest.mark.parametrize(
    "line",
    [
        "-" * 100_000 + "1", "(" * 100_000, "[" * 300 + "]" * 300, "1" + "+1" * 100_000, "1" * 10_000,
        "not " * 99_999, "{'asin': {1, 2}}", "{'asin': b'x'}", "{'asin': 1j}", "{'asin': ...}", "{1: 'asin'}",
        "{'asin': {1: 2}}", "{None: 1}", "{**{}}", "{[]: 1}", "{{}: 1}", "{'asin': set()}", "{'asin': x}",
        "{'asin': __import__('os')}", "{'asin': f'{1}'}", "{'asin': '\\N{nothing}'}", "{'asin': '\0'}",
        "{'asin': nan}", "{'asin': null}", "{'asin': 'x' for x in y}", "{'asin': 1", "asin", "", " ",
        "\ufeff{}",
        "'" + "\\'" * (LONGEST // 2) + "\\a'",
    ],
)  # fmt: skip
def test_what_is_no_literal_stays_as_it_is(database: duckdb.DuckDBPyConnection, line: str) -> None:
    assert rewrite(line) == line
    assert as_json(database, pa.array([line])).to_pylist() == [line]


def test_lines_that_are_no_literals_are_rejects_that_say_so(tmp_path: Path) -> None:
    run = ingest(tmp_path, "amazon-2014", SAMPLES / "amazon-2014")
    rejects = read(run, "rejects")
    reasons = {(Path(row["source_file"]).name, row["source_row"]): row["reason"] for row in rejects}
    dict_expected = "expected a JSON object or a Python dict, got "
    assert reasons["meta_Toys.json", 6] == "expected an item id (asin), got nothing"
    assert reasons["meta_Toys.json", 7] == "expected every key once, got 'title' twice"
    assert reasons["meta_Toys.json", 8] == dict_expected + "{'asin': 'B0TOY00007', 'sizes': {1, 2}}"
    assert reasons["meta_Toys.json", 9] == dict_expected + '["asin", "B0TOY00008"]'
    assert reasons["meta_Toys.json", 10] == dict_expected + "{'asin': 'B0TOY00009', 'title': 'Cut o"
    titles = [item["title"] for item in read(run, "raw_items")]
    assert titles == ["Red Kite", "Drummer's First Drum", "Ball étoile “big”", "Already JSON", "C:\\\\toys"]


def test_a_key_stands_twice_however_the_line_is_read(database: duckdb.DuckDBPyConnection) -> None:
    assert rewrite("{'a': 1, 'a': {'b': 2}}") == '{"a": 1, "a": {"b": 2}}'
    [fast] = as_json(database, pa.array(["{'a': 1, 'a': {'b': 2}}"])).to_pylist()
    assert fast == '{"a": 1, "a": {"b": 2}}'


# -- prices ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("9.49", 9.49), ("$25.00", 25.0), (" $1,250.00 ", 1250.0), ("$10.00 - $50.00", 10.0), ("10-50", 10.0),
        ("from 14.99", 14.99), ("From $14.99", 14.99), ("0", 0.0), ("None", None), ("", None), ("—", None),
        ("-5", None), ("$", None), (".a-box-inner{background-color:#fff}", None), ("9" * 400, None),
        ("NaN", None), ("12 pieces", None), ("[1]", None), (None, None),
    ],
)  # fmt: skip
def test_a_price_is_a_number_or_nothing(
    database: duckdb.DuckDBPyConnection, text: str | None, number: float | None
) -> None:
    sql = f"select {price('told').sql} from (select $1::varchar as told)"
    assert database.execute(sql, [text]).fetchall() == [(number,)]


# -- Steam -----------------------------------------------------------------------------------------


def test_a_reviewer_is_known_by_id_or_by_name(tmp_path: Path) -> None:
    run = ingest(tmp_path, "steam", SAMPLES / "steam")
    users = [event["user_id"] for event in read(run, "raw_interactions")]
    ids = ["76561190000000001", "76561190000000002"]
    assert users == ["Kite ☆ Flyer", *ids, "u'", "76561190000000003", "json"]
    run = ingest(tmp_path, "steam", SAMPLES / "steam", "source.user=name")
    users = [event["user_id"] for event in read(run, "raw_interactions")]
    assert users == ["Kite ☆ Flyer", "drum", "drum", "u'", "json"]
    with pytest.raises(RecipeError, match="user"):
        ingest(tmp_path, "steam", SAMPLES / "steam", "source.user=both")


def test_games_without_an_id_are_rejects_and_words_are_no_price(tmp_path: Path) -> None:
    run = ingest(tmp_path, "steam", SAMPLES / "steam")
    reasons = [row["reason"] for row in read(run, "rejects") if row["source_file"].endswith("games.json")]
    assert reasons == [
        "expected a game id, got nothing",
        "expected a game id, got nothing",
        "expected a JSON object or a Python dict, got {u'id': u'400', u'title': b'bytes'}",
    ]
    items = [(item["title"], item["brand"], item["price"]) for item in read(run, "raw_items")]
    assert items == [("Kites™", "Ingame", 14.99), ("Drums", "Tower", 0.0), ("Toll", None, None)]


# -- broken reviews --------------------------------------------------------------------------------

REVIEW = {"reviewerID": "A1", "asin": "B1", "overall": 5.0, "unixReviewTime": 1529193600}
GOOD = json.dumps(REVIEW)
NUL, HALF_A_PAIR = GOOD.replace("A1", "A\0"), GOOD.replace("A1", "\\ud800")


def with_(**values: Any) -> str:
    return json.dumps(REVIEW | values)


def reviews(folder: Path, content: bytes) -> Run:
    dump = folder / "dump"
    dump.mkdir()
    (dump / "Toys_5.json").write_bytes(content)
    return ingest(folder, "amazon-2018", dump)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (with_(overall=float("nan")), "expected a number as rating"),
        (with_(overall=float("inf")), "expected a number as rating"),
        (with_(overall=float("-inf")), "expected a number as rating"),
        (GOOD.replace("5.0", "nan"), "expected a number as rating"),
        (GOOD.replace("5.0", "1e999"), "expected a number as rating"),
        (with_(overall=[5]), "expected a number as rating"),
        (with_(overall=True), "expected a number as rating"),
        (with_(overall=None), "expected a number as rating"),
        (with_(overall=6), "expected a rating from 1 to 5"),
        (with_(reviewerID=None), "expected a user id (reviewerID), got nothing"),
        (with_(reviewerID=" "), "expected a user id (reviewerID), got nothing"),
        (with_(asin=None), "expected an item id (asin), got nothing"),
        (with_(asin=""), "expected an item id (asin), got nothing"),
        (with_(unixReviewTime=None), "expected whole unix seconds as time"),
        (with_(unixReviewTime=1529193600.5), "expected whole unix seconds as time"),
        (with_(unixReviewTime="1 June 2018"), "expected whole unix seconds as time"),
        (with_(unixReviewTime=float("nan")), "expected whole unix seconds as time"),
        (with_(unixReviewTime=-1), "expected unix seconds from 1970 to 2100"),
        (with_(unixReviewTime=253402300799), "expected unix seconds from 1970 to 2100"),  # the year 9999
        (with_(unixReviewTime=10**30), "expected whole unix seconds as time"),
        (GOOD.replace('"asin"', '"asin": "B2", "asin"'), "expected every key once, got 'asin' twice"),
        (f"[{GOOD}]", f"expected a JSON object, got [{GOOD[:59]}"),
        ("[]", "expected a JSON object, got []"),
        ("null", "expected a JSON object, got null"),
        ("", "expected a JSON object, got nothing"),
        (GOOD[:-1], f"expected a JSON object, got {GOOD[:60]}"),
        (f"{GOOD}{GOOD}", f"expected a JSON object, got {GOOD[:60]}"),
        (NUL, f"expected a JSON object, got {NUL[:60]}"),
        (HALF_A_PAIR, f"expected a JSON object, got {HALF_A_PAIR[:60]}"),
    ],
)
def test_a_broken_review_is_a_reject_with_its_reason(tmp_path: Path, line: str, reason: str) -> None:
    run = reviews(tmp_path, f"{GOOD}\n{line}\n{GOOD}\n".encode())
    [reject] = read(run, "rejects")
    assert reject == {"source_file": "dump/Toys_5.json", "source_row": 2, "reason": reason, "raw": line}
    assert [event["source_row"] for event in read(run, "raw_interactions")] == [1, 3]


def test_marks_line_ends_and_long_lines_do_no_harm(tmp_path: Path) -> None:
    long = with_(reviewText="word " * 2_000_000)
    odd = with_(reviewerID="A\0B", asin="Bé", style={"reviewerID": "not this one"})
    content = "\r\n".join([GOOD, long, odd, GOOD]).encode()
    run = reviews(tmp_path, b"\xef\xbb\xbf" + content)
    assert read(run, "rejects") == []
    events = [(event["user_id"], event["item_id"]) for event in read(run, "raw_interactions")]
    assert events == [("A1", "B1"), ("A1", "B1"), ("A\0B", "Bé"), ("A1", "B1")]


def test_a_last_line_that_is_cut_is_a_reject(tmp_path: Path) -> None:
    run = reviews(tmp_path, f"{GOOD}\n{GOOD[:30]}".encode())
    [reject] = read(run, "rejects")
    assert (reject["source_row"], reject["raw"]) == (2, GOOD[:30])


def test_a_whole_file_that_is_one_array_is_one_reject(tmp_path: Path) -> None:
    run = reviews(tmp_path, json.dumps([REVIEW, REVIEW]).encode())
    assert run.outputs["ingest"].manifest["rows"]["rejects"] == 1


def test_seconds_and_milliseconds_in_one_file_are_refused(tmp_path: Path) -> None:
    mixed = with_(unixReviewTime=1529193600000)
    with pytest.raises(SourceError, match=r"Toys_5\.json: times in two units.* first row 2"):
        reviews(tmp_path, f"{GOOD}\n{mixed}\n".encode())


def test_the_same_of_2023_in_seconds_is_refused(tmp_path: Path) -> None:
    line = {"user_id": "A1", "parent_asin": "B1", "rating": 5.0, "timestamp": 1588687728}
    (tmp_path / "Toys.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(SourceError, match="another unit, and so in all 1 rows"):
        ingest(tmp_path, "amazon-2023", tmp_path / "Toys.jsonl")


def test_ratings_and_reviews_of_one_category_exclude_each_other(tmp_path: Path) -> None:
    for name in ("amazon-2018/Toys_5.json", "amazon-2018-ratings/Toys.csv"):
        (tmp_path / Path(name).name).write_bytes((SAMPLES / name).read_bytes())
    with pytest.raises(SourceError, match="both hold the interactions of Toys"):
        ingest(tmp_path, "amazon-2018", tmp_path)
