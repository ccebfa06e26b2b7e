"""Collision policies against a slow, obvious twin; the trie and the vocabulary by property."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sid_schemas import DataError, RecipeError
from sid_tokenizers import POLICIES, RQKMeans, Trie, Vocabulary, resolve
from sid_tokenizers.base import Codes, Vectors
from sid_tokenizers.collisions import slots_of


class Table:
    """A ranker without geometry: fixed random distances for every prefix."""

    def __init__(self, levels: list[int], seed: int) -> None:
        self.levels, self.seed = levels, seed

    def distances(self, X: np.ndarray, prefixes: np.ndarray) -> np.ndarray:
        prefixes = np.asarray(prefixes)
        k = self.levels[prefixes.shape[1]]
        rows = []
        for x, prefix in zip(np.asarray(X), prefixes.tolist(), strict=True):
            draw = np.random.default_rng([self.seed, int(x[0]), *prefix, 77])
            rows.append(draw.permutation(k).astype(np.float32))
        return np.array(rows, dtype=np.float32).reshape(len(rows), k)


def slow_next_nearest(codes: Codes, X: Vectors, ranker: Table) -> Codes:
    """The same rule, spelled out: look at every leaf under every prefix, nearest first."""
    length = codes.shape[1]
    sids = [tuple(row) for row in codes.tolist()]
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, sid in enumerate(sids):
        groups.setdefault(sid, []).append(row)
    taken = set(groups)

    def rank(row: int, prefix: tuple[int, ...]) -> list[int]:
        distances = ranker.distances(X[row : row + 1], np.array([prefix], dtype=int).reshape(1, -1))[0]
        return sorted(range(len(distances)), key=lambda code: (distances[code], code))

    def leaves(row: int, prefix: tuple[int, ...]) -> list[tuple[int, ...]]:
        if len(prefix) == length:
            return [prefix]
        return [leaf for code in rank(row, prefix) for leaf in leaves(row, (*prefix, code))]

    losers = []
    for sid, rows in groups.items():
        own = {row: ranker.distances(X[row : row + 1], np.array([sid[:-1]]))[0][sid[-1]] for row in rows}
        ordered = sorted(rows, key=lambda row: (own[row], row))
        losers += [(-len(rows), min(rows), place, row) for place, row in enumerate(ordered) if place]
    for *_, row in sorted(losers):
        for depth in range(length - 1, -1, -1):
            free = [leaf for leaf in leaves(row, sids[row][:depth]) if leaf not in taken]
            if free:
                taken.add(free[0])
                sids[row] = free[0]
                break
    return np.array(sids, dtype=np.int32)


@st.composite
def crowded(draw: st.DrawFn) -> tuple[list[int], Codes]:
    levels = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    n = draw(st.integers(1, math.prod(levels)))
    code = st.tuples(*(st.integers(0, min(k - 1, 1)) for k in levels))  # few codes: many collisions
    return levels, np.array(draw(st.lists(code, min_size=n, max_size=n)), dtype=np.int32)


@settings(max_examples=150)
@given(case=crowded(), seed=st.integers(0, 5))
def test_next_nearest_is_the_slow_one(case: tuple[list[int], Codes], seed: int) -> None:
    levels, codes = case
    X = np.arange(len(codes), dtype=np.float32)[:, None]
    ranker = Table(levels, seed)
    done = resolve(codes, X, ranker, policy="next-nearest")
    assert np.array_equal(done.sids, slow_next_nearest(codes, X, ranker))
    assert len({tuple(row) for row in done.sids.tolist()}) == len(codes)
    assert (done.sids >= 0).all()
    assert (done.sids < levels).all()
    assert not done.slots.any()
    # Who does not collide is never moved.
    rows = [tuple(row) for row in codes.tolist()]
    alone = [rows.count(row) == 1 for row in rows]
    assert np.array_equal(done.sids[alone], codes[alone])


def test_even_a_full_house_is_resolved() -> None:
    levels = [3, 3]
    codes = np.zeros((9, 2), dtype=np.int32)
    X = np.arange(9, dtype=np.float32)[:, None]
    sids = resolve(codes, X, Table(levels, 0), policy="next-nearest").sids
    assert {tuple(row) for row in sids.tolist()} == set(itertools.product(range(3), range(3)))


def test_more_items_than_sids_fail_loudly() -> None:
    with pytest.raises(DataError, match=r"10 items do not fit into 9 SIDs of levels \[3, 3\]"):
        resolve(
            np.zeros((10, 2), dtype=np.int32),
            np.ones((10, 1), dtype=np.float32),
            Table([3, 3], 0),
            policy="next-nearest",
        )


def test_equal_vectors_get_different_sids_by_row() -> None:
    X = np.repeat(np.random.default_rng(0).normal(size=(4, 3)), 3, axis=0).astype(np.float32)
    tokenizer = RQKMeans(levels=[4, 4]).fit(X)
    done = resolve(tokenizer.encode(X), X, tokenizer, policy="next-nearest")
    assert len({tuple(row) for row in done.sids.tolist()}) == 12
    assert not done.moved[::3].any()  # of equal vectors the first row keeps its codes


def test_none_keeps_collisions_and_gives_slots() -> None:
    codes = np.array([[1, 1], [0, 0], [1, 1], [1, 1]], dtype=np.int32)
    done = resolve(codes, np.ones((4, 1), dtype=np.float32), Table([2, 2], 0), policy="none")
    assert np.array_equal(done.sids, codes)
    assert done.slots.tolist() == [0, 0, 1, 2]
    assert not done.moved.any()


def test_an_unknown_policy_lists_those_there_are() -> None:
    with pytest.raises(RecipeError, match="there are: next-nearest, none"):
        resolve(
            np.zeros((1, 1), dtype=np.int32), np.ones((1, 1), dtype=np.float32), Table([1], 0), policy="pray"
        )
    assert list(POLICIES) == ["next-nearest", "none"]


SIDS = st.integers(1, 3).flatmap(
    lambda length: st.lists(st.tuples(*[st.integers(0, 5)] * length), min_size=1, max_size=30)
)


@given(rows=SIDS)
def test_slots_count_from_zero_in_row_order(rows: list[tuple[int, ...]]) -> None:
    expected = [rows[:n].count(row) for n, row in enumerate(rows)]
    assert slots_of(np.array(rows, dtype=np.int32)).tolist() == expected


@given(rows=SIDS)
def test_the_trie_knows_exactly_the_sids(
    rows: list[tuple[int, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("trie") / "trie.safetensors"
    Trie.build(rows).save(path)
    trie = Trie.load(path)
    for depth in range(len(rows[0])):
        for prefix in {row[:depth] for row in rows}:
            follow = sorted({row[depth] for row in rows if row[:depth] == prefix})
            assert trie.allowed(prefix).tolist() == follow
    for row in itertools.product(range(6), repeat=len(rows[0])):
        assert trie.item(row) == (rows.index(row) if row in rows else None)
    assert trie.allowed((9,)).tolist() == []
    assert trie.allowed(rows[0]).tolist() == []
    assert len(rows[0]) == 1 or trie.item(rows[0][:1]) is None


@given(levels=st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_the_vocabulary_shifts_levels_apart(levels: list[int]) -> None:
    vocabulary = Vocabulary(tuple(levels))
    everything = np.array(list(itertools.product(*map(range, levels))))
    ids = vocabulary.token_ids(everything)
    assert np.array_equal(vocabulary.sids(ids), everything)
    assert sorted(set(ids.reshape(-1).tolist())) == list(range(3, len(vocabulary)))
    strings = vocabulary.strings()
    assert len(strings) == len(set(strings)) == len(vocabulary)
    for sid, row in zip(everything[:50].tolist(), ids[:50].tolist(), strict=True):
        assert [strings[token] for token in row] == vocabulary.tokens(sid)


def test_the_vocabulary_is_kept(tmp_path: Path) -> None:
    Vocabulary((4, 5)).save(tmp_path / "vocabulary.json")
    assert Vocabulary.load(tmp_path / "vocabulary.json") == Vocabulary((4, 5))
    with pytest.raises(ValueError, match="1 to 26 levels"):
        Vocabulary(())
