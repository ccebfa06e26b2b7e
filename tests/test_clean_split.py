"""Clean and split against slow, obvious twins; order of the rows never matters under ties = "hash"."""

import hashlib
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers import EXAMPLE, Run, run_chain, small_dump, write_dump
from hypothesis import given, settings
from hypothesis import strategies as st

from sid_pipelines.clean import k_core, largest_k
from sid_schemas import DataError

PAIRS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=60)
MOVIES = [f"{m:07d}::Film {m} (1950)::Drama" for m in range(20)]


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


@given(pairs=PAIRS, k_user=st.integers(0, 4), k_item=st.integers(0, 4))
def test_k_core_is_the_slow_one(pairs: list[tuple[int, int]], k_user: int, k_item: int) -> None:
    users, items = (np.array(column, dtype=np.int32) for column in zip(*pairs, strict=True))
    assert k_core(users, items, k_user, k_item).tolist() == slow_k_core(pairs, k_user, k_item)


@given(pairs=PAIRS)
def test_largest_k_is_the_last_that_keeps_something(pairs: list[tuple[int, int]]) -> None:
    users, items = (np.array(column, dtype=np.int32) for column in zip(*pairs, strict=True))
    k = largest_k(users, items)
    assert any(slow_k_core(pairs, k, k))
    assert not any(slow_k_core(pairs, k + 1, k + 1))


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


EVENTS = st.lists(
    st.tuples(st.integers(1, 4), st.integers(0, 6), st.integers(1000, 1004)), min_size=1, max_size=40
)


@settings(max_examples=25)
@given(events=EVENTS, shuffle=st.randoms(use_true_random=False), seed=st.integers(0, 3))
def test_leave_one_out_is_the_slow_one(
    tmp_path_factory: pytest.TempPathFactory,
    events: list[tuple[int, int, int]],
    shuffle: random.Random,
    seed: int,
) -> None:
    shuffle.shuffle(events)
    folder = tmp_path_factory.mktemp("split")
    recipe = write_dump(folder, [f"{u}::{m:07d}::7::{s}" for u, m, s in events], MOVIES)
    done = run_chain(recipe, folder / "w", "clean.k_core=0", f"split.seed={seed}", until="split")

    def tie(user: int, movie: int, second: int) -> str:
        parts = [str(seed), str(user), str(second * 1000), f"{movie:07d}", "rating", "7.0"]
        return hashlib.md5(chr(31).join(parts).encode()).hexdigest()

    first: dict[tuple[int, int], int] = {}
    for user, movie, second in events:
        first[user, movie] = min(second, first.get((user, movie), second))
    expected = []
    for user in sorted({user for user, _ in first}, key=str):
        own = sorted((s, tie(u, m, s), m) for (u, m), s in first.items() if u == user)
        splits = ["train"] * len(own)
        if len(own) >= 3:
            splits[-2:] = ["valid", "test"]
        expected += [
            (str(user), f"{m:07d}", s * 1000, split) for (s, _, m), split in zip(own, splits, strict=True)
        ]
    users = done.outputs["clean"].read("users")["user_id"].to_pylist()
    items = done.outputs["clean"].read("items_clean")["item_id"].to_pylist()
    found = [
        (users[row["user_index"]], items[row["item_index"]], row["ts"], row["split"])
        for row in done.outputs["split"].read("interactions").to_pylist()
    ]
    assert found == expected


def test_ties_by_source_follow_the_file(tmp_path: Path) -> None:
    rows = [f"1::{m:07d}::7::1000" for m in (4, 2, 9, 1)]
    recipe = write_dump(tmp_path, rows, MOVIES)
    done = run_chain(recipe, tmp_path / "w", "clean.k_core=0", "split.ties=source", until="split")
    assert done.outputs["split"].read("interactions")["source_row"].to_pylist() == [1, 2, 3, 4]
    assert done.outputs["split"].facts["audit"]["test_ties"] == 1


def test_the_audit_counts_what_leaks(example: Run) -> None:
    audit = example.outputs["split"].facts["audit"]
    assert audit["events"] == {"train": 22_707, "valid": 2_311, "test": 2_311}
    assert audit["unseen_users"] == {"valid": 0, "test": 0}
    interactions = example.release.table("interactions").to_pylist()
    last = max(row["ts"] for row in interactions if row["split"] == "train")
    before = sum(row["split"] == "test" and row["ts"] < last for row in interactions)
    assert audit["test_targets_before_last_train_event"] == before > 0
    trained = {row["item_index"] for row in interactions if row["split"] == "train"}
    unseen = sum(row["split"] == "test" and row["item_index"] not in trained for row in interactions)
    assert audit["unseen_items"]["test"] == unseen


def test_too_little_memory_names_the_key_to_raise(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"needs more than \[engine\] memory = '2MB'; raise it"):
        run_chain(EXAMPLE, tmp_path, "engine.memory=2MB", until="clean")
