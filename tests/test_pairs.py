"""Item pairs: each derived kind against a slow, obvious twin, and the stage with and without pairs."""

import json
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import ROOT, run_chain, small_dump
from hypothesis import given
from hypothesis import strategies as st

from sid_pipelines import probes
from sid_pipelines.collaborative import TrainEvents
from sid_pipelines.collaborative import cooccurrence as sharing
from sid_pipelines.collaborative.item_pairs import cooccurrence_pairs, swing_pairs, u2i_pairs
from sid_pipelines.pairs import PairsParams
from sid_schemas import DataError

REAL = ROOT.parent / "shared" / "data" / "ml-100k"
ITEMS = 7
ALL = 1000  # a `top` that cuts nothing off
histories = st.lists(st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=8), min_size=1, max_size=8)
Scores = dict[tuple[int, int], float]


def events_of(lists: list[list[int]]) -> TrainEvents:
    users = np.repeat(np.arange(len(lists)), [len(own) for own in lists]).astype(np.int32)
    items = np.array([item for own in lists for item in own], np.int32)
    return TrainEvents(users, items, len(lists), ITEMS)


def scores_of(parts: Any) -> Scores:
    found: Scores = {}
    for items, others, scores in parts:
        for item, other, score in zip(items.tolist(), others.tolist(), scores.tolist(), strict=True):
            assert (item, other) not in found
            found[item, other] = score
    return found


def swing(lists: list[list[int]], alpha: float) -> Scores:
    sets, found = [set(own) for own in lists], Counter[tuple[int, int]]()
    for a, b in combinations(range(len(sets)), 2):
        both = sets[a] & sets[b]
        weight = (len(sets[a]) * len(sets[b])) ** -0.5 / (alpha + len(both))
        for pair in combinations(sorted(both), 2):
            found[pair] += weight
            found[pair[::-1]] += weight
    return dict(found)


def sharers(lists: list[list[int]], window: int) -> dict[tuple[int, int], int]:
    found: dict[tuple[int, int], set[int]] = {}
    for user, own in enumerate(lists):
        for a, b in combinations(range(len(own)), 2):
            if own[a] != own[b] and (not window or b - a <= window):
                found.setdefault((own[a], own[b]), set()).add(user)
                found.setdefault((own[b], own[a]), set()).add(user)
    return {pair: len(users) for pair, users in found.items()}


@given(histories, st.sampled_from([0.5, 1.0, 3.0]))
def test_swing_is_the_sum_over_pairs_of_users(lists: list[list[int]], alpha: float) -> None:
    found = swing_pairs(
        events_of(lists), top=ALL, alpha=alpha, max_users_per_item=0, max_items_per_user=0, seed=0
    )
    assert scores_of(found) == pytest.approx(swing(lists, alpha))


@given(histories, st.integers(0, 3), st.sampled_from(["count", "cosine", "jaccard", "pmi"]))
def test_cooccurrence_counts_users_who_have_both(lists: list[list[int]], window: int, measure: Any) -> None:
    counts = sharers(lists, window)
    of = Counter(item for own in lists for item in set(own))
    measures = {
        "count": lambda c, a, b: c,
        "cosine": lambda c, a, b: c / (a * b) ** 0.5,
        "jaccard": lambda c, a, b: c / (a + b - c),
        "pmi": lambda c, a, b: np.log(c * len(lists) / (a * b)),
    }
    expected = {(i, j): measures[measure](c, of[i], of[j]) for (i, j), c in counts.items()}
    expected = {pair: score for pair, score in expected.items() if score > 0}
    found = cooccurrence_pairs(events_of(lists), top=ALL, window=window, measure=measure)
    assert scores_of(found) == pytest.approx(expected)


@given(histories, st.integers(1, 4))
def test_u2i_takes_the_likest_of_the_items_before(lists: list[list[int]], history: int) -> None:
    counts = sharers(lists, 0)
    of = Counter(item for own in lists for item in set(own))
    expected: Counter[tuple[int, int]] = Counter()
    for own in lists:
        for place, target in enumerate(own):
            before = [item for item in own[max(place - history, 0) : place][::-1] if item != target]
            likeness = [counts[target, item] / of[item] ** 0.5 for item in before]
            if before:
                expected[target, before[int(np.argmax(np.round(likeness, 9)))]] += 1
    assert scores_of(u2i_pairs(events_of(lists), top=ALL, history=history)) == dict(expected)


@given(histories)
def test_blocks_do_not_matter(lists: list[list[int]]) -> None:
    events = events_of(lists)
    with pytest.MonkeyPatch.context() as patch:
        whole = [scores_of(u2i_pairs(events, top=2, history=3)), sharing.shared(events, 2).toarray().tolist()]
        patch.setattr(sharing, "ENTRIES", 3)
        patch.setattr(sharing, "PAIRS", 3)
        cut = [scores_of(u2i_pairs(events, top=2, history=3)), sharing.shared(events, 2).toarray().tolist()]
    assert whole == cut


def test_top_keeps_the_best_of_an_item_and_settles_ties_by_the_lower() -> None:
    lists = [[0, 1, 2], [0, 1, 3], [0, 3, 2], [4, 5]]
    found = scores_of(cooccurrence_pairs(events_of(lists), top=2, window=0, measure="count"))
    assert found == {
        (0, 1): 2, (0, 2): 2, (1, 0): 2, (1, 2): 1, (2, 0): 2, (2, 1): 1, (3, 0): 2, (3, 1): 1,
        (4, 5): 1, (5, 4): 1,
    }  # fmt: skip


def test_a_draw_of_users_estimates_the_whole_sum() -> None:
    draw = np.random.default_rng(0)
    lists = [draw.choice(ITEMS, 4, replace=False).tolist() for _ in range(300)]
    bounds = {"max_users_per_item": 100, "max_items_per_user": 0}
    exact = swing(lists, 1.0)
    one = scores_of(swing_pairs(events_of(lists), top=ALL, alpha=1.0, seed=0, **bounds))
    again = scores_of(swing_pairs(events_of(lists), top=ALL, alpha=1.0, seed=0, **bounds))
    other = scores_of(swing_pairs(events_of(lists), top=ALL, alpha=1.0, seed=1, **bounds))
    assert one == again != other
    assert one.keys() == exact.keys()
    for pair, score in one.items():
        assert score == pytest.approx(exact[pair], rel=0.5)
    assert np.mean([one[pair] / exact[pair] for pair in one]) == pytest.approx(1, abs=0.05)


def test_parameters_out_of_range_are_named() -> None:
    for options, said in (
        ({"kinds": ("swings",)}, "no kind is called 'swings'; there are: swing, cooccurrence, u2i"),
        ({"kinds": ("swing", "swing")}, "expected each kind once"),
        ({"alpha": 0.0}, "alpha = 0.0"),
        ({"top": 0}, "top = 0, expected 1 or more"),
        ({"window": -1}, "window = -1"),
        ({"history": 0}, "history = 0"),
        ({"max_users_per_item": 1}, "max_users_per_item = 1, expected 2 or more, or 0"),
    ):
        with pytest.raises(DataError, match=said):
            PairsParams(**options).check_params()  # type: ignore[arg-type]


KINDS = 'pairs.kinds=["swing", "cooccurrence", "u2i"]'


def test_the_stage_writes_each_kind_both_ways_from_train_events_alone(tmp_path: Path) -> None:
    done = run_chain(small_dump(tmp_path), tmp_path / "w", KINDS, "pairs.top=3", until="pairs").outputs
    rows = done["pairs"].read("item_pairs").to_pylist()
    pairs = {(row["item_index"], row["other_index"], row["kind"]): row["score"] for row in rows}
    assert len(pairs) == len(rows) > 0
    assert [(row["item_index"], row["kind"], row["other_index"]) for row in rows] == sorted(
        (row["item_index"], row["kind"], row["other_index"]) for row in rows
    )
    assert all(pairs[other, item, kind] == score for (item, other, kind), score in pairs.items())
    assert all(item != other for item, other, _ in pairs)
    interactions = done["split"].read("interactions").to_pylist()
    lists: dict[int, list[int]] = {}
    for row in interactions:
        if row["split"] == "train":
            lists.setdefault(row["user_index"], []).append(row["item_index"])
    exact = swing(list(lists.values()), 1.0)
    for (item, other, kind), score in pairs.items():
        if kind == "swing":
            assert score == pytest.approx(exact[item, other])
    facts = done["pairs"].facts
    assert facts["kinds"] == Counter(kind for _, _, kind in pairs)
    assert set(facts["provenance"]) == {"swing", "cooccurrence", "u2i"}
    assert "swing " in done["pairs"].manifest["summary"]


def test_without_pairs_there_is_no_table(tmp_path: Path) -> None:
    pairs = run_chain(small_dump(tmp_path), tmp_path / "w", until="pairs").outputs["pairs"]
    assert pairs.manifest["rows"] == {}
    assert pairs.manifest["summary"].startswith("none")


def dump_with_pairs(folder: Path) -> Path:
    """Items 0 to 5, of which 5 is too rare to stay; the source says what is bought together."""
    events = ["user,item,seconds"]
    events += [f"u{u},{i},{1_400_000_000 + 10 * u + i}" for u in range(4) for i in range(6) if i < 5 or not u]
    (folder / "events.csv").write_text("\n".join(events))
    near = {0: [1, 5, 2], 1: [0], 2: [], 3: [], 4: [], 5: [0]}
    lines = [
        json.dumps({"id": str(item), "title": f"T{item}", "near": [str(n) for n in others]})
        for item, others in near.items()
    ]
    (folder / "items.jsonl").write_text("\n".join(lines))
    recipe = folder / "recipe.toml"
    recipe.write_text(
        'dataset = "d"\n[source]\nkind = "table"\npath = "events.csv"\nitems = "items.jsonl"\n'
        'time_unit = "s"\n'
        'columns = {user_id = "user", item_id = "item", ts = "seconds"}\n'
        'item_columns = {item_id = "id", title = "title"}\nitem_pairs = {bought = "near"}\n'
        "[clean]\nk_core = 3\n"
    )
    return recipe


def test_the_sources_pairs_stand_as_it_has_them_beside_derived_ones(tmp_path: Path) -> None:
    recipe = dump_with_pairs(tmp_path)
    pairs = run_chain(recipe, tmp_path / "w", 'pairs.kinds=["cooccurrence"]', until="pairs").outputs["pairs"]
    rows = pairs.read("item_pairs").to_pylist()
    of_source = [(r["item_index"], r["other_index"]) for r in rows if r["kind"] == "bought"]
    assert of_source == [(0, 1), (0, 2), (1, 0)]
    assert all(row["score"] is None for row in rows if row["kind"] == "bought")
    assert pairs.facts["left_out"] == {"item_pairs": 2}
    assert pairs.facts["kinds"]["bought"] == 3
    assert pairs.facts["kinds"]["cooccurrence"] == sum(row["kind"] == "cooccurrence" for row in rows) == 6


@pytest.mark.realdata
@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real MovieLens 100K is not at {REAL}")
def test_pairs_of_movielens_are_found_again_in_held_out_events(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'dataset = "ml"\n[source]\nkind = "movielens"\npath = "{REAL}"\n')
    done = run_chain(recipe, tmp_path / "w", KINDS, "pairs.max_users_per_item=100", until="pairs").outputs
    table = done["split"].read("interactions", ["user_index", "item_index", "split"])
    held = np.isin(table["split"].to_numpy(zero_copy_only=False), ["valid", "test"])
    users, items = (table[name].to_numpy()[held] for name in ("user_index", "item_index"))
    n = done["clean"].manifest["rows"]["items_clean"]
    held_out = probes.pairs_of(probes.Lists.by_user(users, items, done["clean"].manifest["rows"]["users"]))
    wanted = {(int(i), int(j)) for i, j in held_out}
    rows = done["pairs"].read("item_pairs")
    kinds = rows["kind"].to_numpy(zero_copy_only=False)
    for kind in ("swing", "cooccurrence", "u2i"):
        own = rows.filter(kinds == kind)
        found = set(zip(own["item_index"].to_pylist(), own["other_index"].to_pylist(), strict=True))
        by_chance = len(found) * len(wanted) / (n * (n - 1))
        assert len(found & wanted) > 4 * by_chance, kind
