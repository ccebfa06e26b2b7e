"""Clean against a slow, obvious twin, step by step, and against published counts of real dumps."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import EXAMPLE, ROOT, Run, run_chain, small_dump, write_dump
from hypothesis import given, settings
from hypothesis import strategies as st

from sid_pipelines import buckets, kcore, published
from sid_pipelines.buckets import bounds, sorted_by_user
from sid_pipelines.kcore import degrees, k_core, largest_k, single_pass
from sid_pipelines.rows import Parts
from sid_schemas import DataError, RecipeError
from sid_warehouse.db import connect

DATA = ROOT.parent / "shared" / "data"
MOVIES = [f"{m:07d}::Film {m} (1950)::Drama" for m in range(20)]
PAIRS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=60)
realdata = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real dumps are not there: {DATA}")


def slow_k_core(pairs: list[tuple[int, int]], k_user: int, k_item: int) -> list[bool]:
    """Remove one offending event at a time until there is none."""
    keep = [True] * len(pairs)
    while True:
        users = Counter(u for (u, _), kept in zip(pairs, keep, strict=True) if kept)
        items = Counter(i for (_, i), kept in zip(pairs, keep, strict=True) if kept)
        for n, (u, i) in enumerate(pairs):
            if keep[n] and (users[u] < k_user or items[i] < k_item):
                keep[n] = False
                break
        else:
            return keep


def arrays(pairs: list[tuple[int, int]]) -> list[Any]:
    return [np.array(column, dtype=np.int32) for column in zip(*pairs, strict=True)]


@given(pairs=PAIRS, k_user=st.integers(0, 4), k_item=st.integers(0, 4), chunk=st.sampled_from([1, 7, 1000]))
def test_k_core_is_the_slow_one(pairs: list[tuple[int, int]], k_user: int, k_item: int, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kcore, "CHUNK", chunk)
        assert k_core(*arrays(pairs), k_user, k_item).tolist() == slow_k_core(pairs, k_user, k_item)


@given(pairs=PAIRS)
def test_largest_k_is_the_last_that_keeps_something(pairs: list[tuple[int, int]]) -> None:
    k = largest_k(*arrays(pairs))
    assert any(slow_k_core(pairs, k, k))
    assert not any(slow_k_core(pairs, k + 1, k + 1))


@given(pairs=PAIRS, k=st.integers(0, 4))
def test_a_single_pass_counts_once(pairs: list[tuple[int, int]], k: int) -> None:
    users, items = Counter(u for u, _ in pairs), Counter(i for _, i in pairs)
    expected = [users[u] >= k and items[i] >= k for u, i in pairs]
    assert single_pass(*arrays(pairs), k, k).tolist() == expected


@given(pairs=PAIRS, rows=st.integers(1, 30))
def test_buckets_sort_like_a_sort(
    pairs: list[tuple[int, int]], rows: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    users, times = arrays(pairs)
    table = pa.table({"user_index": users, "ts": times.astype(np.int64), "row": np.arange(len(users))})
    firsts = bounds(degrees(users, np.ones(len(users), dtype=bool)), rows)
    made = sorted_by_user(table.to_batches(max_chunksize=5), firsts, tmp_path_factory.mktemp("b"))
    found = [tuple(row.values()) for batch in made for row in batch.to_pylist()]
    assert found == sorted(zip(users.tolist(), times.tolist(), range(len(users)), strict=True))


# Events as rows of a table dump: user, item, ts in seconds, type, value.
EVENT = st.tuples(
    st.sampled_from(["u1", "u2", "u3", "ü4"]),
    st.sampled_from(["i1", "i2", "i3", "i4"]),
    st.integers(1_000_000_000, 1_000_000_003),
    st.sampled_from(["view", "buy"]),
    st.sampled_from([1.0, 2.0, 3.0]),
)
OPTIONS = st.fixed_dictionaries(
    {
        "exact_duplicates": st.sampled_from(["drop", "keep"]),
        "dedupe": st.sampled_from(["first", "last", "all"]),
        "events": st.sampled_from([[], ["purchase"]]),
        "min_value": st.sampled_from([None, 2.0]),
        "until": st.sampled_from([None, 1_000_000_002_000]),
        "max_events_per_user": st.sampled_from([None, 5]),
        "k_core": st.integers(0, 3),
    }
)


def write_table(folder: Path, events: list[tuple[Any, ...]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["user,item,when,what,stars", *(",".join(map(str, event)) for event in events)]
    (folder / "events.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    recipe = folder / "recipe.toml"
    recipe.write_text(
        'dataset = "t"\n[source]\nkind = "table"\npath = "events.csv"\ntime_unit = "s"\n'
        'columns = {user_id = "user", item_id = "item", ts = "when", event_type = "what", value = "stars"}\n'
        'events = {view = "view", buy = "purchase"}\n'
    )
    return recipe


def slow_clean(events: list[tuple[Any, ...]], options: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Clean with lists; an event is (user, item, ts in ms, type, value)."""
    left = [(u, i, s * 1000, {"buy": "purchase"}.get(t, t), v) for u, i, s, t, v in events]
    if options["events"]:
        left = [event for event in left if event[3] in options["events"]]
    if options["min_value"] is not None:
        left = [event for event in left if event[4] >= options["min_value"]]
    if options["until"] is not None:
        left = [event for event in left if event[2] < options["until"]]
    if options["exact_duplicates"] == "drop":
        left = list(dict.fromkeys(left))
    if options["dedupe"] != "all":
        choose = min if options["dedupe"] == "first" else max
        pairs = dict.fromkeys(event[:2] for event in left)
        left = [choose(event for event in left if event[:2] == pair) for pair in pairs]
    if options["max_events_per_user"] is not None:
        number = Counter(event[0] for event in left)
        left = [event for event in left if number[event[0]] <= options["max_events_per_user"]]
    users = sorted({event[0] for event in left})
    items = sorted({event[1] for event in left})
    keep = slow_k_core([(users.index(e[0]), items.index(e[1])) for e in left], *[options["k_core"]] * 2)
    return sorted(event for event, kept in zip(left, keep, strict=True) if kept)


def overrides(options: dict[str, Any]) -> list[str]:
    return [f"clean.{name}={value!r}" for name, value in options.items() if value is not None]


@settings(max_examples=40)
@given(
    events=st.lists(EVENT, min_size=1, max_size=40),
    options=OPTIONS,
    shuffle=st.randoms(use_true_random=False),
)
def test_clean_is_the_slow_one_whatever_the_row_order(
    tmp_path_factory: pytest.TempPathFactory,
    events: list[tuple[Any, ...]],
    options: dict[str, Any],
    shuffle: random.Random,
) -> None:
    expected = slow_clean(events, options)
    shuffle.shuffle(events)
    folder = tmp_path_factory.mktemp("clean")
    recipe = write_table(folder, events)
    if not expected:
        with pytest.raises(DataError, match="nothing"):
            run_chain(recipe, folder / "w", *overrides(options), until="clean")
        return
    done = run_chain(recipe, folder / "w", *overrides(options), until="clean").outputs["clean"]
    users = done.read("users")["user_id"].to_pylist()
    items = done.read("items_clean")["item_id"].to_pylist()
    assert users == sorted({event[0] for event in expected}, key=str.encode)
    assert items == sorted({event[1] for event in expected}, key=str.encode)
    found = [
        (users[row["user_index"]], items[row["item_index"]], row["ts"], row["event_type"], row["value"])
        for row in done.read("events").to_pylist()
    ]
    assert sorted(found) == expected
    assert [row[0] for row in found] == sorted(row[0] for row in found)
    ledger = done.facts["ledger"]
    assert ledger[0]["interactions"] - sum(row["removed"] for row in ledger) == len(expected)
    assert (ledger[-1]["users"], ledger[-1]["items"]) == (len(users), len(items))


def test_the_bound_on_memory_changes_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    events = [
        (
            f"u{draw.integers(30)}",
            f"i{draw.integers(20)}",
            1_000_000_000 + int(draw.integers(50)),
            "view",
            1.0,
        )
        for _ in range(2_000)
    ]
    recipe = write_table(tmp_path, events)
    whole = run_chain(recipe, tmp_path / "a", "clean.k_core=3", until="clean").outputs["clean"].manifest
    monkeypatch.setattr(kcore, "CHUNK", 101)
    monkeypatch.setattr(buckets, "ROWS", 97)
    monkeypatch.setattr(buckets.bounds, "__defaults__", (97,))
    parts = run_chain(recipe, tmp_path / "b", "clean.k_core=3", until="clean").outputs["clean"].manifest
    assert parts["files"] == whole["files"]
    assert parts["facts"] == whole["facts"]


@pytest.mark.parametrize(
    ("given", "step", "left"),
    [
        ("clean.events=['purchase']", "event_types", 2),
        ("clean.min_value=3", "value_below", 2),
        ("clean.max_value=2.5", "value_above", 3),
        ("clean.since=2001-09-09", "time_window", 4),
        ("clean.until='2001-09-09T01:46:42'", "time_window", 2),
        ("clean.max_events_per_user=2", "bots", 2),
    ],
)
def test_every_filter_stands_in_the_ledger(tmp_path: Path, given: str, step: str, left: int) -> None:
    events = [
        ("a", "x", 999_990_000, "view", 1.0),  # 2001-09-08
        ("a", "y", 1_000_000_001, "buy", 2.0),
        ("a", "z", 1_000_000_002, "view", 3.0),
        ("b", "x", 1_000_000_003, "buy", 4.0),
        ("c", "x", 1_000_000_003, "view", 2.0),
    ]
    recipe = write_table(tmp_path, events)
    done = run_chain(recipe, tmp_path / "w", "clean.k_core=0", given, until="clean").outputs["clean"]
    [entry] = [row for row in done.facts["ledger"] if row["step"] == step]
    assert entry["removed"] == 5 - left == 5 - done.manifest["rows"]["events"]
    assert entry["reason"]


def test_a_wrong_key_says_what_is_known(tmp_path: Path) -> None:
    recipe = write_table(tmp_path, [("a", "x", 1_000_000_000, "view", 1.0)])
    with pytest.raises(RecipeError, match=r"no event type is called 'buy'; there are: rating"):
        run_chain(recipe, tmp_path / "w", "clean.events=['buy']", until="clean")
    with pytest.raises(RecipeError, match=r"clean.since: expected milliseconds or a time such as"):
        run_chain(recipe, tmp_path / "w", "clean.since=yesterday", until="clean")


def amazon(tmp_path: Path, name: str, *given: str) -> Run:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'dataset = "amazon"\n[source]\nkind = "amazon-2018"\npath = "{DATA / "amazon2018" / name}.json.gz"\n'
    )
    return run_chain(recipe, tmp_path / "w", *given, until="split")


@realdata
@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "given", "counts"),
    [
        ("All_Beauty_5", (), (137, 24, 686)),
        ("All_Beauty_5", ("clean.k_core_method=single-pass",), (180, 47, 907)),
        ("All_Beauty_5", ("clean.dedupe=all", "clean.exact_duplicates=keep"), (961, 49, 5_084)),
        ("Gift_Cards_5", (), (453, 147, 2_941)),
        ("Gift_Cards_5", ("clean.k_core_method=single-pass",), (455, 147, 2_949)),
        ("Gift_Cards_5", ("clean.dedupe=all", "clean.exact_duplicates=keep"), (456, 147, 2_960)),
    ],
)
def test_known_answers_of_the_small_amazon_files(
    tmp_path: Path, name: str, given: tuple[str, ...], counts: tuple[int, int, int]
) -> None:
    done = amazon(tmp_path, name, *given)
    rows = done.outputs["clean"].manifest["rows"]
    assert (rows["users"], rows["items_clean"], rows["events"]) == counts
    [said] = published.compare(done.outputs)
    if given:
        assert said["verdict"] == "not comparable"
        assert "because clean." in said["says"]
        assert f"{counts[0]:,} users here" in said["says"]
    else:
        assert said["says"].startswith(f"matches the published statistics of Amazon-2018 {name}")


def test_a_difference_is_told_exactly(tmp_path: Path) -> None:
    lines = [
        f'{{"reviewerID": "u{u}", "asin": "i{i}", "overall": 5.0, "unixReviewTime": 1400000000}}'
        for u in range(5)
        for i in range(5)
    ]
    (tmp_path / "Gift_Cards_5.json").write_text("\n".join(lines))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('dataset = "g"\n[source]\nkind = "amazon-2018"\npath = "Gift_Cards_5.json"\n')
    [said] = published.compare(run_chain(recipe, tmp_path / "w", until="clean").outputs)
    assert said["verdict"] == "differs"
    assert "users 5 instead of 453 (-448); items 5 instead of 147 (-142); interactions 25" in said["says"]


def test_the_real_dump_gives_the_known_counts(example: Run) -> None:
    rows = example.outputs["clean"].manifest["rows"]
    assert (rows["users"], rows["items_clean"], rows["events"]) == (2_311, 1_342, 27_329)
    ledger = example.outputs["clean"].facts["ledger"]
    steps = ["raw", "exact_duplicates", "repeated_items", "no_metadata", "k_core"]
    assert [row["step"] for row in ledger] == steps
    assert ledger[0]["interactions"] - sum(row["removed"] for row in ledger) == 27_329


def test_an_empty_k_core_says_what_would_keep_some(tmp_path: Path) -> None:
    folder = Path(__file__).parent / "data" / "movietweetings-10k"
    with pytest.raises(
        DataError, match=r"the 5/5-core .* is empty: nothing is left of 10,000.*k = [234] keeps some"
    ):
        run_chain(EXAMPLE, tmp_path, f'source.path="{folder}"', until="clean")


def test_an_empty_k_core_of_a_small_dump(tmp_path: Path) -> None:
    recipe = write_dump(tmp_path, [f"{u}::{u:07d}::7::1365029107" for u in range(9)], MOVIES)
    with pytest.raises(DataError, match=r"the 2/2-core .* is empty.*no k above 1 keeps any"):
        run_chain(recipe, tmp_path / "w", until="clean")


RATINGS = [
    "1::0000001::5::1000",
    "1::0000001::5::1000",  # the same again
    "1::0000001::9::3000",  # changed their mind
    "1::0000002::6::2000",
    "2::0000001::7::1000",
    "2::0000002::8::1000",  # at the same time
    "2::9999999::8::1500",  # a movie that movies.dat does not know
]


@pytest.mark.parametrize(("dedupe", "values"), [("first", [5.0]), ("last", [9.0]), ("all", [5.0, 9.0])])
def test_dedupe_keeps_what_it_says(tmp_path: Path, dedupe: str, values: list[float]) -> None:
    recipe = write_dump(tmp_path, RATINGS, MOVIES)
    done = run_chain(recipe, tmp_path / "w", f"clean.dedupe={dedupe}", "clean.k_core=0", until="clean")
    events = done.outputs["clean"].read("events").to_pylist()
    assert [
        event["value"] for event in events if (event["user_index"], event["item_index"]) == (0, 0)
    ] == values
    removed = {row["step"]: row["removed"] for row in done.outputs["clean"].facts["ledger"]}
    assert removed["exact_duplicates"] == 1
    assert removed["no_metadata"] == 1


def test_the_whole_catalogue_can_get_ids(tmp_path: Path) -> None:
    recipe = small_dump(tmp_path)
    with (tmp_path / "dump" / "movies.dat").open("a") as file:
        file.write("7777777::Never Rated (2000)::Drama\n")
    release = run_chain(recipe, tmp_path / "w", "items.universe=catalog").release
    items = {item["item_id"]: item for item in release.table("items").to_pylist()}
    assert len(items) == 10
    assert (items["7777777"]["popularity_train"], items["7777777"]["first_ts"]) == (0, None)
    assert len(set(release.table("sids")["sid_key"].to_pylist())) == 10
    assert release.metrics["tokenizer"]["fit_items"] == 9
    assert release.metrics["tokenizer"]["reconstruction"]["held_out"]["squared_error"] > 0
    assert run_chain(recipe, tmp_path / "w").release.table("items").num_rows == 9


def test_too_little_memory_names_the_key_to_raise(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"needs more than \[engine\] memory = '2MB'; raise it"):
        run_chain(EXAMPLE, tmp_path, "engine.memory=2MB", until="clean")


@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    group=st.integers(1, 4),
    seed=st.integers(0, 9),
)
def test_rows_are_numbered_in_the_order_of_parts(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], group: int, seed: int
) -> None:
    folder, rows = tmp_path_factory.mktemp("parts"), iter(range(sum(lengths)))
    names = random.Random(seed).sample(["a'", "b", "c=1", "[d]", "e*", "f"], len(lengths))
    parts = [folder / f"{name}.parquet" for name in names]
    for part, length in zip(parts, lengths, strict=True):
        table = pa.table({"v": pa.array([next(rows) for _ in range(length)], pa.int64())})
        pq.write_table(table, part, row_group_size=group)
    source = Parts(parts)
    with connect() as connection:
        found = connection.sql(f"select n, v from {source.sql('v')} order by n").fetchall()
        some = connection.sql(f"select n from {source.sql('v')} where v > 5 order by n").fetchall()
    assert found == [(n, n) for n in range(source.n)]
    assert some == [(n,) for n in range(6, source.n)]


def test_duckdb_runs_on_as_many_threads_as_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDMILL_CORES", "3")
    with connect() as connection:
        assert connection.sql("select current_setting('threads')").fetchall() == [(3,)]


def test_buckets_hold_rows_of_files_with_other_names(tmp_path: Path) -> None:
    def batch(users: list[int], file: str) -> pa.RecordBatch:
        times, names = range(len(users), 0, -1), pa.array([file] * len(users)).dictionary_encode()
        columns = {"user_index": pa.array(users, pa.int32()), "ts": pa.array(times), "source_file": names}
        return pa.RecordBatch.from_pydict(columns)

    batches = [batch([0, 3, 1], "a"), batch([2, 0, 3], "b"), batch([1, 2], "c")]
    made = [
        row
        for one in sorted_by_user(batches, np.array([2], dtype=np.int32), tmp_path)
        for row in one.to_pylist()
    ]
    assert [(row["user_index"], row["ts"], row["source_file"]) for row in made] == [
        (0, 2, "b"), (0, 3, "a"), (1, 1, "a"), (1, 2, "c"),
        (2, 1, "c"), (2, 3, "b"), (3, 1, "b"), (3, 2, "a"),
    ]  # fmt: skip
