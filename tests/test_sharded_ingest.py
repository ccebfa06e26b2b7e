"""Ingest by shards: what the local stage gives of every kind of dump, wherever the pieces of a file end."""

import gzip
import json
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import small_dump
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sharding import assert_same, stage_by_shards
from test_sources import SAMPLES, Sample, ingested

from sid_flows.plan import PlannedStage, make_plan
from sid_pipelines.ingest import own_roles
from sid_pipelines.sharded.inline import Inline
from sid_pipelines.sharded.job import Task
from sid_pipelines.sharded.stages import described, ingest
from sid_pipelines.sharded.stages.pieces import Cut, PieceReader, cut, text_of
from sid_pipelines.sources.lines import LineReader
from sid_pipelines.stage import Resources, Work
from sid_schemas import SidmillError, SourceError, WarehouseError
from sid_warehouse.stages import StageOutput, StageStore

TABLE = 'kind = "table"\npath = {path}\ncolumns = {{user_id = "u", item_id = "i", ts = "t"}}\n'


def planned_of(recipe: Path) -> PlannedStage:
    [planned] = make_plan(recipe, recipe.parent / "plan", until="ingest").stages
    return planned


def recipe_of(folder: Path, source: str, files: Mapping[str, bytes]) -> Path:
    """Write files and a recipe over them."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    recipe = folder / "recipe.toml"
    recipe.write_text(f'dataset = "d"\n[clean]\nmax_reject_rate = 1.0\n[source]\n{source}', encoding="utf-8")
    return recipe


def locally(planned: PlannedStage, folder: Path) -> StageOutput:
    """Run the local stage, without what the flow adds to errors."""
    stage, store = planned.stage, StageStore(folder, "local")
    with store.write(stage.name, planned.key, stage.identity(planned.params, {})) as draft:
        work = Work(planned.params, {}, draft, Resources(memory="1GiB"), lambda done, total: None)
        outcome = stage.run(work)
        return draft.commit(outcome.facts, outcome.summary)


def by_pieces(
    planned: PlannedStage, folder: Path, *, size: int = 200, whole: int = 0, count: int = 0, seed: int = 0
) -> StageOutput:
    """Run the stage by shards, with pieces of so many bytes. whole: of a packed file that is not cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest, "PIECE", size)
        patch.setattr(ingest, "WHOLE", whole)
        return stage_by_shards(planned, {}, folder, count, Inline(seed))


def assert_alike(recipe: Path, **options: int) -> StageOutput:
    """Run both ways and compare; give the local output."""
    planned, folder = planned_of(recipe), recipe.parent
    local = locally(planned, folder / "local")
    name = "-".join(map(str, options.values()))
    assert_same(local, by_pieces(planned, folder / f"shards-{name}", **options))
    return local


def refused(recipe: Path, **options: int) -> str:
    """Run both ways, and give the error that both raise."""
    planned, told = planned_of(recipe), []
    for way in (lambda: locally(planned, recipe.parent / "local"),
                lambda: by_pieces(planned, recipe.parent / "shards", **options)):  # fmt: skip
        with pytest.raises(SidmillError) as caught:
            way()
        told.append((type(caught.value), str(caught.value)))
    assert told[0] == told[1]
    return told[0][1]


# -- every kind of dump --------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "sample"), list(enumerate(SAMPLES)), ids=map(str, SAMPLES))
def test_every_kind_of_dump(number: int, sample: Sample, tmp_path: Path) -> None:
    local = ingested(sample, ("plain", "gz", "zip")[number % 3], tmp_path)
    contents = [file.path.read_bytes() for file in sample.find(sample.folder)]
    smallest = min(map(len, contents))
    planned, shards = planned_of(tmp_path / "recipe.toml"), tmp_path / "shards"
    assert_same(local, by_pieces(planned, shards, size=smallest // 3, count=number % 4, seed=number))
    if not own_roles(sample.source):
        pieces = [number for _, number in sorted(pieces_of(shards).items())]
        for number, content in zip(pieces, contents, strict=True):
            assert number > 1 or content.count(b"\n") < 2, "a file that is not cut shows nothing"


def pieces_of(folder: Path) -> Counter[str]:
    """Give how many pieces each file was cut into, from what the tasks left."""
    return Counter(task.name.split("-")[0] for task in folder.glob("scratch/*/*/read/parse/*-*"))


@pytest.mark.parametrize("count", [1, 3, 20])
def test_any_number_of_shards(tmp_path: Path, count: int) -> None:
    local = assert_alike(small_dump(tmp_path), size=900, count=count, seed=count)
    assert local.manifest["rows"]["raw_items"] == 9


# -- where pieces end ----------------------------------------------------------------------------------


def table(*names: str, more: str = "") -> str:
    return TABLE.format(path=json.dumps(list(names))) + more


SECONDS = 'time_unit = "s"\n'
ROWS = [f"u{n % 3},i{n % 5},{1_400_000_000 + n}" for n in range(12)]
HEADED = ["u,i,t", *ROWS]


@pytest.mark.parametrize(
    ("content", "more"),
    [
        ("\n".join(HEADED).encode(), ""),  # no line end after the last
        ("\r\n".join([*HEADED, ""]).encode(), ""),
        (b"\xef\xbb\xbf" + "\n".join([*HEADED, ""]).encode(), ""),
        ("\n".join([*HEADED, "", "é,ï,1400000000", ""]).encode("latin-1"), 'encoding = "latin-1"\n'),
        ("\n".join([*HEADED, "ü,i,1400000000"]).encode("utf-16"), 'encoding = "utf-16"\n'),
        ("\n".join(["u,i,t", "a,b", *ROWS, "c,d,never", "", "e,f,1,2", '"g,h,1"', ",x,14"]).encode(), ""),
        (
            b'"u","i\n","t"\r\n"a\nb\n","c",1400000000\n\n"d ""\n"" e",f,1400000001\n'
            + b'g,"h\r\n\r\n",1400000002',
            "multiline = true\n",
        ),
        ("\n".join(ROWS).encode(), 'names = ["u", "i", "t"]\n'),
        (b"u,i,t\n", ""),  # nothing but a header
    ],
    ids=["open", "crlf", "bom", "latin-1", "utf-16", "broken", "quotes", "headless", "header"],
)  # fmt: skip
@pytest.mark.parametrize(("packed", "size"), [(False, 90), (True, 140)], ids=["plain", "gz"])
def test_records_are_read_alike_wherever_a_piece_ends(
    tmp_path: Path, content: bytes, more: str, packed: bool, size: int
) -> None:
    name = "events.csv.gz" if packed else "events.csv"
    more += SECONDS
    files = {name: gzip.compress(content) if packed else content}
    assert_alike(recipe_of(tmp_path, table(name, more=more), files), size=size)
    [pieces] = pieces_of(tmp_path / f"shards-{size}").values()
    assert pieces > 1 or len(content) < size


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 1.0])
def test_a_stream_that_ends_too_early_gives_what_it_has(tmp_path: Path, share: float) -> None:
    draw = random.Random(0)
    lines = [f"{draw.random()},{draw.random()},{1_400_000_000 + n}\n" for n in range(300)]
    whole = gzip.compress("".join(["u,i,t\n", *lines]).encode())
    kept = whole[: 40 + int(share * (len(whole) - 48))]
    source = table("events.csv.gz", more='truncated = "keep"\ntime_unit = "s"\n')
    recipe = recipe_of(tmp_path, source, {"events.csv.gz": kept})
    local = assert_alike(recipe, size=4000)
    assert_alike(recipe, size=4000, whole=100_000)
    assert local.manifest["summary"].endswith("cut off: " + f"{tmp_path.name}/events.csv.gz")


def test_what_is_not_divided_is_read_alike(tmp_path: Path) -> None:
    rows = [{"u": f"u{n}", "i": f"i{n % 3}", "t": 1_400_000_000 + n} for n in range(9)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    files = {
        "b.json": json.dumps(rows).encode(),
        "c.json": "\n".join(map(json.dumps, rows)).encode(),
        "d.jsonl": "\n".join(map(json.dumps, rows)).encode(),
    }
    assert_alike(recipe_of(tmp_path, table("a.parquet", *files), files), size=200)


def test_several_files_one_of_which_is_empty(tmp_path: Path) -> None:
    files = {"a.csv": b"", "b.csv": "\n".join(HEADED).encode(), "c.csv": "\n".join(HEADED[:2]).encode()}
    assert_alike(recipe_of(tmp_path, table(*files, more='empty = "keep"\n'), files), size=120)
    only = tmp_path / "only"
    only.mkdir()
    local = assert_alike(recipe_of(only, table("a.csv", more='empty = "keep"\n'), {"a.csv": b""}))
    assert local.manifest["rows"]["raw_interactions"] == 0


# -- items -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "most"), [(1, 256), (2, 256), (9, 256), (9, 2)])
def test_descriptions_and_pairs_are_settled_alike_in_any_number_of_ranges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, most: int
) -> None:
    monkeypatch.setattr(described, "MOST", most)
    draw = random.Random(1)
    rows = [
        {
            "i": draw.choice(["", "a", "aé", "b", "Z", "z", "ÿ", "\U0001f600", "10", "9"])
            + str(draw.randrange(4)),
            "title": draw.choice(["one", "two", None]),
            "also": [f"a{draw.randrange(4)}" for _ in range(draw.randrange(3))],
        }
        for _ in range(80)
    ]
    files = {
        "events.jsonl": b"".join(
            json.dumps({"u": "x", "i": row["i"], "t": 1_400_000_000}).encode() + b"\n" for row in rows
        ),
        "items.jsonl": b"".join(json.dumps(row).encode() + b"\n" for row in rows) + b"[broken\n",
    }
    source = table("events.jsonl", more=(
        'items = "items.jsonl"\nitem_columns = {item_id = "i", title = "title"}\n'
        'item_pairs = {also = "also"}\n'
    ))  # fmt: skip
    local = assert_alike(recipe_of(tmp_path, source, files), size=1800, count=count, seed=count)
    dividing = list(tmp_path.glob("shards-*/scratch/*/*/items/divide/described-*"))
    assert bool(dividing) == (count > 1)
    assert len(dividing) <= most
    assert local.facts["conflicting_descriptions"] > 9
    assert local.facts["repeated_descriptions"] > 20
    assert local.manifest["rows"]["raw_item_pairs"] > 20


# -- what is refused -----------------------------------------------------------------------------------


LONG = "".join(f"{random.Random(n).random()},i,{1_400_000_000 + n}\n" for n in range(300))
REFUSED: dict[str, tuple[bytes, str, str]] = {
    "empty": (b"", "", "is empty"),
    "cut off": (gzip.compress(f"u,i,t\n{LONG}".encode())[:-900], "", "the gzip stream ends here"),
    "damaged": (
        gzip.compress(f"u,i,t\n{LONG}".encode(), 9)[:-8] + b"\0\0\0\0\0\0\0\0",
        "",
        "stream is damaged",
    ),
    "not UTF-8": ("\n".join([*HEADED, "é,b,1400000000", *ROWS]).encode("latin-1"), "", "row 14: byte"),
    "not ASCII": ("\n".join([*HEADED, "é,b,1400000000"]).encode(), 'encoding = "ascii"\n', "row 14: byte"),
    "open quote": ("\n".join([*HEADED, 'a,"b,1400000000']).encode(), "multiline = true\n", "row 14: a quote"),
    "two units": ("\n".join([*HEADED, "a,b,1400000000000", *ROWS]).encode(), SECONDS, "in two units"),
    "another unit": (
        "\n".join(["u,i,t", *(f"{row}000" for row in ROWS)]).encode(), SECONDS, "and so in all",
    ),
    "no unit": (b"u,i,t\na,b,7\n", "", "cannot tell the unit"),
    "another header": ("\n".join(["u,i,x", *ROWS]).encode(), SECONDS, "expected a column 't'"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_with_a_file_is_told_alike(tmp_path: Path, case: str) -> None:
    content, more, shown = REFUSED[case]
    more += "" if "time_unit" in more or case == "no unit" else SECONDS
    source = table("events.csv", more=more)
    assert shown in refused(recipe_of(tmp_path, source, {"events.csv": content}), size=150)


def test_files_of_different_units_are_refused_alike(tmp_path: Path) -> None:
    files = {f"{name}.csv": "\n".join(HEADED).encode() for name in "ab"}
    files["c.csv"] = "\n".join(["u,i,t", *(f"{row}000" for row in ROWS)]).encode()
    told = refused(recipe_of(tmp_path, table(*files), files), size=50)
    assert "c.csv: times are unix milliseconds, but in" in told


def test_a_file_that_changed_since_the_plan_is_refused_alike(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, table("events.csv"), {"events.csv": "\n".join(HEADED).encode()})
    planned = planned_of(recipe)
    (tmp_path / "events.csv").write_bytes("\n".join(HEADED[:-1]).encode())
    for way in (locally, by_pieces):
        with pytest.raises(SourceError, match="changed while it was read"):
            way(planned, tmp_path / way.__name__)


@pytest.mark.parametrize(
    ("kept", "shown"),
    [
        ("lines", "rows: lines of"),
        ("records", "rows: records"),
        ("descriptions", "rows: descriptions 11, expected 12"),
        ("items", "rows: items 5, expected 4"),
    ],
)
def test_what_the_engine_loses_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str, shown: str
) -> None:
    text = "\n".join(HEADED).encode()
    more = 'items = "items.csv"\nitem_columns = {item_id = "i"}\n'
    recipe = recipe_of(tmp_path, table("events.csv", more=more), {"events.csv": text, "items.csv": text})
    parse, published, settled = ingest.parse, ingest._published, ingest._settled

    def losing(task: Task) -> dict[str, Any]:
        facts = parse(task)
        return {**facts, "lines": 0} if task.key.endswith("1") else facts

    if kept == "lines":
        monkeypatch.setattr(ingest, "parse", losing)
    elif kept in ("descriptions", "items"):
        monkeypatch.setattr(ingest, "_settled", lambda done: settled(done) - Counter({kept: 1}))
    else:
        monkeypatch.setattr(ingest, "_published", lambda *told: published(*told) | {"interactions": 3})
    with pytest.raises(WarehouseError, match=shown):
        by_pieces(planned_of(recipe), tmp_path / "shards", size=40)


# -- pieces of any text --------------------------------------------------------------------------------


pieced = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(alphabet='ab"\n\r,é\u2028\U0001f600', min_size=1, max_size=80)


@pieced
@given(
    text=TEXT, size=st.integers(1, 40), packed=st.booleans(), lost=st.integers(0, 12),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]), quote=st.sampled_from([None, '"']),
)  # fmt: skip
def test_the_pieces_of_a_file_are_the_file(
    tmp_path_factory: pytest.TempPathFactory,
    text: str, size: int, packed: bool, lost: int, encoding: str, quote: str | None,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("pieces")
    path, content = folder / "file", text.encode(encoding)
    if packed:
        content = gzip.compress(content)
        content = content[: len(content) - lost]
    path.write_bytes(content)

    def reader() -> LineReader:
        said = "utf-8" if encoding == "utf-8-sig" else encoding
        return LineReader(path, encoding=said, quote=quote, truncated="keep", chunk=7)

    whole, cutting, refused = reader(), reader(), ""
    try:
        expected = [row for batch in whole.batches() for row in batch.to_pylist()]
    except SourceError as error:
        refused = str(error)
    if refused:
        with pytest.raises(SourceError) as caught:
            cut(cutting, folder, size)
        assert str(caught.value) == refused
        return
    way, pieces = cut(cutting, folder, size)
    how = Cut(way, {}, encoding, pieces, cut_off=cutting.cut is not None)
    found, rest = [], None
    for number, piece in enumerate(pieces):
        one = PieceReader(reader(), how, number, text_of(folder, number) if way == "text" else None)
        found += [row for batch in one.batches() for row in batch.to_pylist()]
        assert one.row - piece.row == piece.lines
        rest = rest or one.cut
    assert found == expected
    assert rest == whole.cut
    assert (way == "range") is (encoding != "utf-16" and not packed)


LINE = st.one_of(
    st.sampled_from([*ROWS, "a,b", '"a,b",c,1400000000', '"a', "", ",x,1400000000", "é,i,1400000000"]),
    st.text(alphabet='ab",19 \r', max_size=12),
)


@settings(max_examples=5, suppress_health_check=list(HealthCheck), deadline=None)
@given(lines=st.lists(LINE, max_size=20), size=st.integers(1, 120), seed=st.integers(0, 99))
def test_whatever_lines_say_pieces_give_what_the_file_gives(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], size: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("lines")
    source = table("events.csv", more=SECONDS)
    recipe = recipe_of(folder, source, {"events.csv": "\n".join(["u,i,t", *lines]).encode()})
    assert_alike(recipe, size=size, seed=seed)
