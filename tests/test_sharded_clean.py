"""Clean by shards against the local stage: equal in every option, however rows and users are divided."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import Run, run_chain
from hypothesis import given, settings
from hypothesis import strategies as st
from sharding import assert_same, by_shards, stage_by_shards
from test_clean import EVENT, OPTIONS, PAIRS, arrays, overrides, slow_k_core, write_table

from sid_flows.execute import execute
from sid_flows.plan import make_plan
from sid_pipelines.clean import CleanParams
from sid_pipelines.kcore import degrees, k_core, largest_k, single_pass
from sid_pipelines.sharded.inline import Inline
from sid_pipelines.sharded.job import ALL, Ref, Results, Step
from sid_pipelines.sharded.shards import Shards, numbered
from sid_pipelines.sharded.slices import cut, read
from sid_pipelines.sharded.stages import clean as sharded_clean
from sid_pipelines.sharded.stages.dividing import PREFIX, prefixes
from sid_pipelines.sharded.stages.rounds import ALIVE, DEGREES, ROWS, SETTLED, largest, rounds
from sid_pipelines.stage import Resources
from sid_schemas import DataError, WarehouseError
from sid_warehouse.stages import StageOutput

RESOURCES = Resources(memory="1GiB")


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make do with two rounds a job, so that some tests need several."""
    monkeypatch.setattr(sharded_clean, "ROUNDS", 2)


@pytest.fixture(scope="module")
def tangled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Give recipe and warehouse of events that try every rule: repeats, ties, gaps, odd ids, a busy user."""
    folder = tmp_path_factory.mktemp("tangled")
    draw = np.random.default_rng(0)
    long = "x" * PREFIX
    users = [
        "busy",
        *(f"u{n}" for n in range(25)),
        f"{long}a",
        f"{long}é",
        long,
        "ü",
        "\u2028",
        "愛",
        "A'",
    ]
    items = [*(f"i{n:02d}" for n in range(20)), "愛", "i 'quoted'", "I", "é"]
    with (folder / "events.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(900):
            user = users[0] if draw.random() < 0.4 else users[int(draw.integers(len(users)))]
            place = int(len(items) * draw.random() ** 1.5)
            event = {"u": user, "i": items[place], "t": 1_400_000_000 + int(draw.integers(40))}
            event |= {"a": ["view", "buy"][int(draw.integers(2))], "s": f"s{draw.integers(3)}"}
            event |= {"v": [None, 1.0, 2.5, -3.0][int(draw.integers(4))], "p": int(draw.integers(3))}
            event |= {"q": [None, "what", "ah"][int(draw.integers(3))]}
            file.write((json.dumps(event) + "\n") * (1 + int(draw.random() < 0.1)))
    with (folder / "items.jsonl").open("w", encoding="utf-8") as file:
        for number, item in enumerate([*items[3:], "without events", "z"]):
            told = {"id": item, "title": f"Title {number}" if number % 4 else None}
            file.write(json.dumps(told | ({"cat": ["A"]} if number % 5 else {})) + "\n")
    recipe = folder / "recipe.toml"
    recipe.write_text(
        'dataset = "tangled"\n[source]\nkind = "table"\npath = "events.jsonl"\nitems = "items.jsonl"\n'
        'time_unit = "s"\ncolumns = {user_id = "u", item_id = "i", ts = "t", event_type = "a", value = "v", '
        'session_id = "s", query = "q", position = "p"}\nevents = {view = "view", buy = "purchase"}\n'
        'item_columns = {item_id = "id", title = "title", category_path = "cat"}\n[clean]\nk_core = 2\n'
    )
    return recipe, folder / "w"


def both(
    recipe: Path, warehouse: Path, folder: Path, count: int, *given: str, seed: int = 0
) -> tuple[StageOutput | str, StageOutput | str]:
    """Clean locally and by shards; an error as its text."""
    plan = make_plan(recipe, warehouse, given, "clean")
    [ingest, planned] = plan.stages
    inputs = {ingest.label: execute(plan, ingest, {})}

    def text_or(run: Callable[[], StageOutput]) -> StageOutput | str:
        try:
            return run()
        except DataError as error:
            return str(error)

    parents = planned.inputs(inputs)
    return (
        text_or(lambda: execute(plan, planned, inputs)),
        text_or(lambda: stage_by_shards(planned, parents, folder, count, Inline(seed))),
    )


def assert_both(local: StageOutput | str, sharded: StageOutput | str) -> None:
    if isinstance(local, str) or isinstance(sharded, str):
        assert sharded == local
    else:
        assert_same(local, sharded)


@pytest.mark.parametrize(("count", "seed"), [(1, 0), (2, 1), (3, 2), (7, 3), (20, 4)])
def test_any_number_of_shards_gives_the_local_tables(
    small: Run, tmp_path: Path, count: int, seed: int
) -> None:
    assert_same(small.outputs["clean"], by_shards(small, "clean", tmp_path, count, seed=seed))


@pytest.mark.parametrize("count", [1, 4])
def test_a_real_dump_gives_the_local_tables(example: Run, tmp_path: Path, count: int) -> None:
    assert_same(example.outputs["clean"], by_shards(example, "clean", tmp_path, count))


@pytest.mark.parametrize(
    ("count", "given"),
    [
        (7, ()),
        (1, ("exact_duplicates='keep'", "dedupe='all'")),
        (4, ("exact_duplicates='keep'", "dedupe='last'")),
        (4, ("dedupe='last'", "split.ties='source'")),
        (3, ("dedupe='first'", "split.ties='source'", "exact_duplicates='keep'")),
        (2, ("dedupe='all'", "k_core_method='single-pass'", "k_core=12")),
        (3, ("dedupe='all'", "k_core=0")),
        (3, ("events=['purchase']", "min_value=-5", "max_value=2.0")),
        (4, ("since=1400000005000", "until=1400000030000")),
        (2, ("max_events_per_user=20",)),
        (4, ("without_metadata='keep'",)),
        (1, ("require=['title', 'category_path']",)),
        (3, ("k_core={user = 5, item = 3}",)),
    ],
)
def test_every_option_gives_the_local_tables(
    tangled: tuple[Path, Path], tmp_path: Path, count: int, given: tuple[str, ...]
) -> None:
    keys = [one if one.startswith("split.") else f"clean.{one}" for one in given]
    assert_both(*both(*tangled, tmp_path, count, *keys, seed=count))


def test_the_whole_catalogue_comes_from_one_task(tangled: tuple[Path, Path], tmp_path: Path) -> None:
    local, sharded = both(*tangled, tmp_path, 4, "items.universe='catalog'")
    assert_both(local, sharded)
    assert isinstance(sharded, StageOutput)
    assert "without events" in sharded.read("items_clean")["item_id"].to_pylist()


@pytest.mark.parametrize(
    ("count", "given", "said"),
    [
        (1, "clean.events=['search']", "step 'event_types'"),
        (3, "clean.min_value=100", "step 'value_below'"),
        (4, "clean.require=['brand']", "step 'no_brand'"),
        (2, "clean.k_core=19", "keeps some"),
        (3, "clean.k_core={user = 1, item = 800}", "keeps some"),
    ],
)
def test_errors_are_the_local_ones(
    tangled: tuple[Path, Path], tmp_path: Path, count: int, given: str, said: str
) -> None:
    local, sharded = both(*tangled, tmp_path, count, given)
    assert sharded == local
    assert said in str(local)


def test_no_k_above_1_keeps_any(tmp_path: Path) -> None:
    recipe = write_table(tmp_path, [(f"u{n}", f"i{n}", 1_000_000_000, "view", 1.0) for n in range(9)])
    local, sharded = both(recipe, tmp_path / "w", tmp_path / "s", 3, "clean.k_core=2")
    assert sharded == local
    assert "no k above 1 keeps any" in str(local)


@settings(max_examples=4)
@given(
    events=st.lists(EVENT, min_size=1, max_size=40),
    options=OPTIONS,
    count=st.integers(1, 7),
    seed=st.integers(0, 9),
)
def test_random_dumps_and_shards_give_the_local_tables(
    tmp_path_factory: pytest.TempPathFactory,
    events: list[tuple[Any, ...]],
    options: dict[str, Any],
    count: int,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("random")
    recipe = write_table(folder, events)
    assert_both(*both(recipe, folder / "w", folder / "s", count, *overrides(options), seed=seed))


def chain_of(length: int) -> list[tuple[int, int]]:
    """Give pairs that a 2/2-core takes from one end to the other, one pair after the other."""
    return [pair for n in range(length) for pair in ((n, n), (n, n + 1))]


def test_a_chain_takes_more_jobs(tmp_path: Path) -> None:
    # A square that stays, and a chain through all buckets that does not.
    pairs = [*chain_of(12), (90, 90), (90, 91), (91, 90), (91, 91)]
    events = [(f"u{7 * u % 100:02d}", f"i{i:02d}", 1_000_000_000, "view", 1.0) for u, i in pairs]
    local, sharded = both(
        write_table(tmp_path, events), tmp_path / "w", tmp_path / "s", 4, "clean.k_core=2", seed=1
    )
    assert_both(local, sharded)
    assert isinstance(sharded, StageOutput)
    assert sharded.manifest["rows"]["events"] == 4


def test_rows_that_an_engine_loses_are_missed(tangled: tuple[Path, Path], tmp_path: Path) -> None:
    run = run_chain(*tangled, until="clean")
    rows = run.outputs["ingest"].manifest["rows"]
    more = rows | {"raw_interactions": rows["raw_interactions"] + 1}
    ingest = replace(run.outputs["ingest"], manifest=run.outputs["ingest"].manifest | {"rows": more})
    run = replace(run, outputs=run.outputs | {"ingest": ingest})
    with pytest.raises(WarehouseError, match=r"clean: .* rows: rows judged 1,009, expected 1,010"):
        by_shards(run, "clean", tmp_path, 3)


def test_items_that_an_engine_loses_are_missed(
    tangled: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_chain(*tangled, until="clean")
    told = sharded_clean._core_entry

    def one_more(*given: Any) -> dict[str, Any]:
        entry = told(*given)
        return entry | {"items": entry["items"] + 1}

    monkeypatch.setattr(sharded_clean, "_core_entry", one_more)
    with pytest.raises(WarehouseError, match=r"clean: .* rows: items \d+, expected \d+"):
        by_shards(run, "clean", tmp_path, 3)


def params(k_user: int, k_item: int, method: str = "iterative") -> CleanParams:
    return CleanParams(
        "drop",
        "first",
        (),
        None,
        None,
        None,
        None,
        None,
        "auto",
        (),
        k_user,
        k_item,
        method,
        "hash",
        "catalog",
    )


def by_rounds(
    pairs: list[tuple[int, int]], of: list[int], wanted: CleanParams, per_job: int, scratch: Path, seed: int
) -> tuple[list[bool], int]:
    """Find the core by rounds; of: the bucket of each user. Give which pairs stay, and the number of jobs."""
    users, items = arrays(pairs)
    bucket = np.array(of)[users]
    refs = []
    scratch.mkdir()
    np.save(scratch / "degrees.npy", degrees(items, np.ones(len(items), dtype=bool)))
    for number in np.unique(bucket):
        here = bucket == number
        table = pa.table({"user_index": users[here], "item_index": items[here]})
        path = scratch / f"{number}.arrow"
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
        key = numbered(number)
        refs += [Ref(key, ROWS, str(path)), Ref(key, DEGREES, str(scratch / "degrees.npy"))]
    refs.append(Ref(ALL, DEGREES, str(scratch / "degrees.npy")))
    shards, jobs = Shards(Inline(seed), scratch, RESOURCES), 0
    while not any(ref.name == SETTLED for ref in refs):
        refs = list(shards.run(f"rounds-{jobs}", refs, *rounds(wanted, per_job)).refs)
        jobs += 1
    alive = {ref.key: np.load(ref.path) for ref in refs if ref.name == ALIVE}
    keep = np.zeros(len(pairs), dtype=bool)
    for number in np.unique(bucket):
        keep[bucket == number] = alive[numbered(number)]
    return keep.tolist(), jobs


@settings(max_examples=20)
@given(
    pairs=PAIRS,
    of=st.lists(st.integers(0, 3), min_size=9, max_size=9),
    k=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    per_job=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_the_core_by_rounds_is_the_slow_one(
    tmp_path_factory: pytest.TempPathFactory,
    pairs: list[tuple[int, int]],
    of: list[int],
    k: tuple[int, int],
    per_job: int,
    seed: int,
) -> None:
    scratch = tmp_path_factory.mktemp("rounds") / "s"
    keep, _ = by_rounds(pairs, of, params(*k), per_job, scratch, seed)
    assert keep == slow_k_core(pairs, *k) == k_core(*arrays(pairs), *k).tolist()


@settings(max_examples=10)
@given(pairs=PAIRS, of=st.lists(st.integers(0, 3), min_size=9, max_size=9), k=st.integers(0, 4))
def test_a_single_pass_is_one_round(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[int, int]], of: list[int], k: int
) -> None:
    scratch = tmp_path_factory.mktemp("rounds") / "s"
    keep, jobs = by_rounds(pairs, of, params(k, k, "single-pass"), 5, scratch, 0)
    assert (keep, jobs) == (single_pass(*arrays(pairs), k, k).tolist(), 1)


def test_a_bucket_goes_on_by_itself(tmp_path: Path) -> None:
    """A chain within one bucket takes one round and one that finds nothing; dealt out, it takes many."""
    pairs = chain_of(8)
    assert by_rounds(pairs, [0] * 8, params(2, 2), 1, tmp_path / "one", 0) == ([False] * 16, 2)
    keep, jobs = by_rounds(pairs, [n % 2 for n in range(8)], params(2, 2), 1, tmp_path / "two", 0)
    assert keep == [False] * 16
    assert jobs > 4


@settings(max_examples=15)
@given(pairs=PAIRS, of=st.lists(st.integers(0, 3), min_size=9, max_size=9))
def test_the_largest_k_of_all_buckets(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[int, int]], of: list[int]
) -> None:
    scratch = tmp_path_factory.mktemp("largest")
    refs, (users, items) = [], arrays(pairs)
    for number in range(4):
        here = np.array(of)[users] == number
        table = pa.table({"user_index": users[here], "item_index": items[here]})
        with pa.ipc.new_file(scratch / f"{number}.arrow", table.schema) as writer:
            writer.write_table(table)
        refs.append(Ref(ALL, numbered(number), str(scratch / f"{number}.arrow")))
    done = Shards(Inline(), scratch, RESOURCES).run("largest", refs, Step("largest", largest))
    assert done.of("largest") == [{"k": largest_k(users, items)}]


@given(
    lengths=st.lists(st.integers(0, 20), min_size=1, max_size=4),
    group=st.integers(1, 9),
    count=st.integers(1, 90),
)
def test_slices_hold_every_row_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], group: int, count: int
) -> None:
    folder, first = tmp_path_factory.mktemp("slices"), 0
    for number, length in enumerate(lengths):
        table = pa.table({"n": np.arange(first, first + length), "s": ["a"] * length})
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=group)
        first += length
    made = cut(sorted(folder.iterdir()), count)
    assert len(made) == min(count, first) or not first
    sizes = [sum(one.rows for one in slices) for slices in made]
    assert max(sizes, default=0) <= -(-first // count) + group - 1
    assert [n for slices in made for n in numbers_in(read(slices, ["n"]))] == list(range(first))


def numbers_in(batches: Iterator[pa.RecordBatch]) -> list[int]:
    return [n for batch in batches for n in batch["n"].to_pylist()]


@given(st.lists(st.text(max_size=6).map(lambda text: text * 20), min_size=1))
def test_prefixes_sort_as_bytes_do(ids: list[str]) -> None:
    found = prefixes(pa.chunked_array([ids, ids[:1]]), 0)
    expected = [text.encode()[:PREFIX].rstrip(b"\0") for text in (*ids, ids[0])]
    assert found.tolist() == expected
    assert np.argsort(found, kind="stable").tolist() == sorted(range(len(found)), key=expected.__getitem__)
    behind = prefixes(pa.chunked_array([[f"愛{one}" for one in ids]]), len("愛".encode()))
    assert behind.tolist() == expected[:-1]


def test_what_all_ids_begin_with_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begins = "https://example.org/" + "x" * PREFIX + "é"  # é and è begin with the same byte
    events = [
        (f"{begins}{'éè'[n % 2]}{n:02d}", f"i{n % 3}", 1_000_000_000 + n, "view", 1.0) for n in range(30)
    ]
    buckets = []

    def judged(done: Results, total: int) -> list[dict[str, Any]]:
        buckets.append(sum(facts["rows"] > 0 for key, facts in done.facts["judge"].items() if key != ALL))
        return told(done, total)

    told = sharded_clean._judged
    monkeypatch.setattr(sharded_clean, "_judged", judged)
    recipe = write_table(tmp_path, events)
    assert_both(*both(recipe, tmp_path / "w", tmp_path / "s", 5, "clean.k_core=0"))
    assert buckets == [5]


def test_of_too_many_rows_an_empty_core_gives_no_hint(
    tangled: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharded_clean, "HINTED", 100)
    local, sharded = both(*tangled, tmp_path, 2, "clean.k_core=19")
    assert isinstance(local, str)
    assert sharded == re.sub(r" \(k = \d+ keeps some\)", "", local) != local
