"""Every collision policy by one contract and by answers known by hand; slow, obvious twins beside them.

The trie and the vocabulary are tested here too, by property.
"""

import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sid_schemas import DataError, RecipeError
from sid_tokenizers import POLICIES, RQKMeans, Trie, Vocabulary, resolve
from sid_tokenizers.base import Codes, Vectors
from sid_tokenizers.collisions import Resolution, greedy, group_sizes, policy_named, slots_of
from sid_tokenizers.collisions.fsq_level import FsqLevel
from sid_tokenizers.collisions.hashed import HashDigit, mix_rows
from sid_tokenizers.collisions.leaves import codes_of, numbers_of
from sid_tokenizers.sinkhorn import sinkhorn, sinkhorn_codes

PARAMS: dict[str, dict[str, Any]] = {"capacity": {"capacity": 2}, "sinkhorn": {"rounds": 3}}
MOVES_MORE = {"min-cost", "sinkhorn"}  # may move items that did not collide


class Table:
    """A ranker without geometry: fixed random distances for every prefix; column 0 of X says who asks."""

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

    def decode(self, codes: np.ndarray) -> np.ndarray:
        return np.zeros((len(codes), 3), dtype=np.float32)


class Line:
    """A ranker whose code k of every level stands at k on a line."""

    def __init__(self, *levels: int) -> None:
        self.levels = list(levels)

    def distances(self, X: np.ndarray, prefixes: np.ndarray) -> np.ndarray:
        at = np.arange(self.levels[np.asarray(prefixes).shape[1]])
        return ((np.asarray(X)[:, :1] - at) ** 2).astype(np.float32)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        return np.asarray(codes)[:, -1:].astype(np.float32)


def numbered(n: int) -> Vectors:
    """Vectors whose column 0 is the row number, for `Table`."""
    X = np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32)
    X[:, 0] = np.arange(n)
    return X


def as_set(sids: Codes) -> set[tuple[int, ...]]:
    return {tuple(row) for row in sids.tolist()}


def slow_next_nearest(codes: Codes, X: Vectors, ranker: Table, taken: Codes, room: int = 1) -> Codes:
    """The same rule, spelled out: look at every leaf under every prefix, nearest first."""
    length = codes.shape[1]
    sids = [tuple(row) for row in codes.tolist()]
    fixed = [tuple(row) for row in taken.tolist()]
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, sid in enumerate(sids):
        groups.setdefault(sid, []).append(row)

    def rank(row: int, prefix: tuple[int, ...]) -> list[int]:
        distances = ranker.distances(X[row : row + 1], np.array([prefix], dtype=int).reshape(1, -1))[0]
        return sorted(range(len(distances)), key=lambda code: (distances[code], code))

    def leaves(row: int, prefix: tuple[int, ...]) -> list[tuple[int, ...]]:
        if len(prefix) == length:
            return [prefix]
        return [leaf for code in rank(row, prefix) for leaf in leaves(row, (*prefix, code))]

    losers, stays = [], set(range(len(sids)))
    for sid, rows in groups.items():
        own = {row: ranker.distances(X[row : row + 1], np.array([sid[:-1]]))[0][sid[-1]] for row in rows}
        ordered = sorted(rows, key=lambda row: (own[row], row))
        size, free = len(rows) + fixed.count(sid), max(0, room - fixed.count(sid))
        losers += [(-size, min(rows), place, row) for place, row in enumerate(ordered) if place >= free]
    stays -= {row for *_, row in losers}
    held = fixed + [sids[row] for row in stays]
    for *_, row in sorted(losers):
        for depth in range(length - 1, -1, -1):
            free_leaves = [leaf for leaf in leaves(row, sids[row][:depth]) if held.count(leaf) < room]
            if free_leaves:
                held.append(free_leaves[0])
                sids[row] = free_leaves[0]
                break
    return np.array(sids, dtype=np.int32).reshape(codes.shape)


@st.composite
def crowded(draw: st.DrawFn) -> tuple[list[int], Codes]:
    levels = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    n = draw(st.integers(1, math.prod(levels)))
    code = st.tuples(*(st.integers(0, min(k - 1, 1)) for k in levels))  # few codes: many collisions
    return levels, np.array(draw(st.lists(code, min_size=n, max_size=n)), dtype=np.int32)


@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=30)
@given(case=crowded(), seed=st.integers(0, 5), data=st.data())
def test_every_policy_keeps_the_contract(
    name: str, case: tuple[list[int], Codes], seed: int, data: st.DataObject
) -> None:
    levels, codes = case
    n = len(codes)
    X, ranker, ids = numbered(n), Table(levels, seed), np.random.default_rng(seed).permutation(n)
    popularity = np.random.default_rng(seed).integers(0, 3, n)

    def run(rows: np.ndarray, **options: Any) -> Resolution:
        done = resolve(
            codes[rows],
            lambda at: X[rows][at],
            ranker,
            policy=name,
            params=PARAMS.get(name),
            item_ids=ids[rows],
            popularity=popularity[rows],
            **options,
        )
        policy = POLICIES[name]
        base, last = done.sids[:, : len(levels)], done.sids[:, len(levels) :]
        assert done.levels[: len(levels)] == tuple(levels)
        assert ((base >= 0) & (base < levels)).all()
        assert last.shape[1] == len(done.levels) - len(levels) == (policy.length != "L")
        assert ((last >= (-1 if policy.length == "L or L+1" else 0)) & (last < done.levels[-1])).all()
        assert np.array_equal(done.moved, (base != codes[rows]).any(axis=1))
        assert (done.suffix is None) == (policy.length == "L")
        assert done.suffix is None or (np.array_equal(done.suffix, last[:, 0]) and not done.moved.any())
        assert done.duplicates == 0
        if name not in MOVES_MORE and "taken" not in options:  # who does not collide never moves
            assert not done.moved[group_sizes(codes[rows])[1] == 1].any()
        return done

    every = np.arange(n)
    whole = run(every)
    in_order = np.argsort(ids)
    expected = slots_of(whole.sids[in_order])
    assert np.array_equal(whole.slots[in_order], expected)
    assert not POLICIES[name].unique or len(as_set(whole.sids)) == n

    shuffled = np.array(data.draw(st.permutations(range(n))))
    other = run(shuffled)
    assert np.array_equal(other.sids, whole.sids[shuffled])
    assert np.array_equal(other.slots, whole.slots[shuffled])

    # Old items first, then the new ones around them: no SID twice, and slots go on counting.
    cut = data.draw(st.integers(0, n))
    old = run(every[:cut])
    frozen = old.sids.copy()
    new = run(every[cut:], taken=old.sids, state=old.state)
    assert np.array_equal(old.sids, frozen)
    assert new.levels[-1] >= old.levels[-1] or not cut
    both = np.concatenate([old.sids, new.sids])
    assert not POLICIES[name].unique or len(as_set(both)) == n
    in_order = np.concatenate([np.argsort(ids[:cut]), cut + np.argsort(ids[cut:])])
    slots = np.concatenate([old.slots, new.slots])[in_order]
    assert np.array_equal(slots, slots_of(both[in_order]))
    if name == "capacity":
        assert slots.max() < 2


@settings(max_examples=150)
@given(case=crowded(), seed=st.integers(0, 5), data=st.data())
def test_next_nearest_is_the_slow_one(case: tuple[list[int], Codes], seed: int, data: st.DataObject) -> None:
    levels, codes = case
    ranker, X = Table(levels, seed), numbered(len(codes))
    cut = data.draw(st.integers(0, len(codes)))
    taken = resolve(codes[:cut], X[:cut], ranker, policy="next-nearest").sids
    done = resolve(codes[cut:], X[cut:], ranker, policy="next-nearest", taken=taken)
    assert np.array_equal(done.sids, slow_next_nearest(codes[cut:], X[cut:], ranker, taken))


@settings(max_examples=60)
@given(case=crowded(), seed=st.integers(0, 5), room=st.integers(1, 3), data=st.data())
def test_capacity_is_the_slow_one(
    case: tuple[list[int], Codes], seed: int, room: int, data: st.DataObject
) -> None:
    levels, codes = case
    ranker, X, params = Table(levels, seed), numbered(len(codes)), {"capacity": room}
    cut = data.draw(st.integers(0, len(codes)))
    taken = resolve(codes[:cut], X[:cut], ranker, policy="capacity", params=params).sids
    done = resolve(codes[cut:], X[cut:], ranker, policy="capacity", params=params, taken=taken)
    assert np.array_equal(done.sids, slow_next_nearest(codes[cut:], X[cut:], ranker, taken, room))


def test_many_codes_and_small_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # More codes than choices looked at first, crowded prefixes, ties of distance, and chunks of 5 rows.
    levels, draw = [3, 40], np.random.default_rng(0)
    codes = np.stack([draw.integers(0, 3, 110), draw.integers(0, 6, 110)], axis=1).astype(np.int32)
    X = numbered(110)
    ranker = Table(levels, 0)
    plain = ranker.distances
    ranker.distances = lambda X, prefixes: plain(X, prefixes) // 4  # type: ignore[method-assign]
    monkeypatch.setattr(greedy, "CELLS", 200)
    done = resolve(codes, X, ranker, policy="next-nearest")
    assert np.array_equal(done.sids, slow_next_nearest(codes, X, ranker, codes[:0]))


def test_levels_past_63_bits_are_resolved_as_well() -> None:
    levels = [256] * 9
    codes = np.zeros((300, 9), dtype=np.int32)
    codes[:, 7] = np.arange(300) % 2
    codes[0] = 255
    for name in ("next-nearest", "min-cost", "sinkhorn", "suffix", "hash-digit"):
        params = {"size": 256} if name == "hash-digit" else {"rounds": 1} if name == "sinkhorn" else {}
        done = resolve(codes, numbered(300), Table(levels, 0), policy=name, params=params)
        assert len(as_set(done.sids)) == 300
    assert np.array_equal(codes_of(numbers_of(codes, levels), levels), codes)


@pytest.mark.parametrize("name", ["next-nearest", "min-cost", "sinkhorn"])
@pytest.mark.parametrize("levels", [[9], [3, 3], [2, 2, 3]])
def test_even_a_full_house_is_resolved(name: str, levels: list[int]) -> None:
    n = math.prod(levels)
    codes = np.zeros((n, len(levels)), dtype=np.int32)
    sids = resolve(codes, numbered(n), Table(levels, 0), policy=name, params=PARAMS.get(name)).sids
    assert as_set(sids) == set(itertools.product(*map(range, levels)))


@pytest.mark.parametrize("name", ["next-nearest", "min-cost", "sinkhorn"])
def test_more_items_than_sids_fail_loudly(name: str) -> None:
    codes = np.zeros((10, 2), dtype=np.int32)
    with pytest.raises(DataError, match=r"10 items do not fit into 9 SIDs of levels \[3, 3\]: add a level"):
        resolve(codes, numbered(10), Table([3, 3], 0), policy=name)
    taken = np.array(list(itertools.product(range(3), range(3))))
    with pytest.raises(DataError, match="10 items do not fit into 9 SIDs"):
        resolve(codes[:1], numbered(1), Table([3, 3], 0), policy=name, taken=taken)


def test_equal_vectors_get_different_sids_and_are_counted() -> None:
    X = np.repeat(np.random.default_rng(0).normal(size=(4, 3)), 3, axis=0).astype(np.float32)
    tokenizer = RQKMeans(levels=[4, 4]).fit(X)
    for name in ("next-nearest", "sinkhorn"):
        done = resolve(tokenizer.encode(X), X, tokenizer, policy=name)
        assert len(as_set(done.sids)) == 12
        assert not done.moved[::3].any()  # of equal vectors the first row keeps its codes
        assert done.duplicates == 8
    X[1, 0] += 1e-3
    assert resolve(tokenizer.encode(X), X, tokenizer, policy="none").duplicates == 7


FOUR = np.array([[1, 1], [0, 0], [1, 1], [1, 1]], dtype=np.int32)


@pytest.mark.parametrize(
    ("name", "digits", "size", "reversed_digits"),
    [
        ("suffix-on-collision", [1, -1, 2, 3], 4, [3, -1, 2, 1]),
        ("suffix", [1, 0, 2, 3], 4, [3, 0, 2, 1]),
        ("suffix-from-zero", [0, 0, 1, 2], 3, [2, 0, 1, 0]),
        ("suffix-popularity", [3, 1, 1, 2], 4, [3, 1, 2, 1]),
        ("unique-token", [0, 1, 2, 3], 4, [3, 2, 1, 0]),
    ],
)
def test_suffixes_by_hand(name: str, digits: list[int], size: int, reversed_digits: list[int]) -> None:
    options: dict[str, Any] = {"policy": name, "popularity": [1, 9, 5, 5]}
    done = resolve(FOUR, numbered(4), Table([2, 2], 0), **options)
    assert done.sids.tolist() == [[*row, digit] for row, digit in zip(FOUR.tolist(), digits, strict=True)]
    assert done.suffix is not None
    assert done.suffix.tolist() == digits
    assert done.levels == (2, 2, size)
    assert not done.slots.any()
    by_id = resolve(FOUR, numbered(4), Table([2, 2], 0), item_ids=["d", "c", "b", "a"], **options)
    assert by_id.sids[:, 2].tolist() == reversed_digits
    with pytest.raises(DataError, match=rf"{name}: digits up to {size - 1} are needed, but size=2 allows"):
        resolve(FOUR, numbered(4), Table([2, 2], 0), params={"size": 2}, **options)


@pytest.mark.parametrize(
    ("name", "digits"),
    [
        ("suffix-on-collision", [4, 1, 5]),
        ("suffix", [4, 1, 5]),
        ("suffix-from-zero", [3, 1, 4]),
        ("suffix-popularity", [5, 2, 4]),
        ("unique-token", [4, 5, 6]),
    ],
)
def test_new_items_count_on_by_hand(name: str, digits: list[int]) -> None:
    ranker = Table([2, 2], 0)
    old = resolve(FOUR, numbered(4), ranker, policy=name, popularity=[1, 9, 5, 5])
    codes = np.array([[1, 1], [0, 0], [1, 1]], dtype=np.int32)
    new = resolve(codes, numbered(3), ranker, policy=name, popularity=[0, 1, 2], taken=old.sids)
    assert new.sids[:, 2].tolist() == digits
    assert new.levels == (2, 2, max(digits) + 1)


def test_none_keeps_collisions_and_gives_slots() -> None:
    done = resolve(FOUR, numbered(4), Table([2, 2], 0), policy="none")
    assert np.array_equal(done.sids, FOUR)
    assert done.slots.tolist() == [0, 0, 1, 2]
    assert not done.moved.any()
    assert done.levels == (2, 2)
    again = resolve(FOUR, numbered(4), Table([2, 2], 0), policy="none", taken=done.sids)
    assert again.slots.tolist() == [3, 1, 4, 5]


def test_hash_digits_are_a_permutation_per_tuple() -> None:
    for size in (1, 2, 12, 128):
        codes = np.repeat(np.arange(5), size)[:, None].astype(np.int32)
        done = resolve(codes, numbered(len(codes)), Line(5), policy="hash-digit", params={"size": size})
        digits = done.sids[:, 1].reshape(5, size)
        assert np.array_equal(np.sort(digits, axis=1), np.tile(np.arange(size), (5, 1)))
        assert done.levels == (5, size)
    assert len(as_set(digits)) == 5  # each tuple has an order of its own
    with pytest.raises(DataError, match="the codes 0 are shared by 3 items or more, but there are 2 digits"):
        resolve(np.zeros((3, 1), np.int32), numbered(3), Line(5), policy="hash-digit", params={"size": 2})
    # Pinned: the same digits on every machine and for ever.
    assert mix_rows(np.array([[1, 2, 3]]), 0).tolist() == [1470200354583225620]


def test_next_nearest_by_hand() -> None:
    X = np.array([[1.0], [1.2], [0.9], [1.4]], dtype=np.float32)
    codes = np.ones((4, 1), dtype=np.int32)
    done = resolve(codes, X, Line(5), policy="next-nearest")
    # 1.0 stays; 0.9 chooses first, then 1.2, then 1.4.
    assert done.sids[:, 0].tolist() == [1, 2, 0, 3]
    by_popularity = resolve(
        codes, X, Line(5), policy="next-nearest", params={"order": "popularity"}, popularity=[0, 1, 2, 3]
    )
    assert by_popularity.sids[:, 0].tolist() == [3, 2, 0, 1]
    # One level up, where the prefix is full: 0.1 has nothing left under code 0.
    done = resolve(np.zeros((3, 2), np.int32), X[:3] / 9, Line(3, 2), policy="next-nearest")
    assert as_set(done.sids) == {(0, 0), (0, 1), (1, 0)}


def test_capacity_by_hand() -> None:
    X = np.array([[1.3], [1.1], [0.8], [1.0]], dtype=np.float32)
    codes = np.ones((4, 1), dtype=np.int32)
    done = resolve(codes, X, Line(3), policy="capacity", params={"capacity": 2})
    assert done.sids[:, 0].tolist() == [2, 1, 0, 1]  # the nearest two stay
    assert done.slots.tolist() == [0, 0, 0, 1]
    assert done.moved.tolist() == [True, False, True, False]
    more = resolve(codes[:2], X[:2] - 1, Line(3), policy="capacity", params={"capacity": 2}, taken=done.sids)
    assert more.sids[:, 0].tolist() == [0, 2]  # 0.3 chooses before 0.1, and each SID had one place left
    assert more.slots.tolist() == [1, 1]
    with pytest.raises(DataError, match=r"7 items do not fit into 3 SIDs of levels \[3\], 2 items each"):
        resolve(np.zeros((7, 1), np.int32), numbered(7), Line(3), policy="capacity", params={"capacity": 2})


@settings(max_examples=60)
@given(k=st.integers(1, 5), seed=st.integers(0, 99), data=st.data())
def test_min_cost_is_the_least_of_all(k: int, seed: int, data: st.DataObject) -> None:
    n, m = data.draw(st.integers(1, k)), 0
    m = data.draw(st.integers(0, k - n))
    ranker, X = Table([2, k], seed), numbered(n)
    codes = np.array([[1, data.draw(st.integers(0, min(k - 1, 1)))] for _ in range(n)], dtype=np.int32)
    taken = np.array([[1, code] for code in range(m)], dtype=np.int32).reshape(m, 2)
    far = ranker.distances(X, codes[:, :1])
    done = resolve(codes, X, ranker, policy="min-cost", taken=taken)
    if group_sizes(np.concatenate([taken, codes]))[1].max() == 1:
        assert np.array_equal(done.sids, codes)
        return
    least = min(far[np.arange(n), list(p)].sum() for p in itertools.permutations(range(m, k), n))
    assert (done.sids[:, 0] == 1).all()
    assert far[np.arange(n), done.sids[:, 1]].sum() == least


@settings(max_examples=40)
@given(seed=st.integers(0, 1000), n=st.integers(2, 60))
def test_min_cost_never_costs_more_than_next_nearest(seed: int, n: int) -> None:
    draw = np.random.default_rng(seed)
    codes = np.stack([np.arange(n) % 5, draw.integers(0, 4, n)], axis=1).astype(np.int32)  # 12 per prefix
    ranker, X = Table([5, 12], seed), numbered(n)
    total = {}
    for name in ("min-cost", "next-nearest"):
        sids = resolve(codes, X, ranker, policy=name).sids
        assert np.array_equal(sids[:, 0], codes[:, 0])
        total[name] = ranker.distances(X, codes[:, :1])[np.arange(n), sids[:, 1]].sum()
    assert total["min-cost"] <= total["next-nearest"]


def test_min_cost_moves_two_a_little_rather_than_one_far() -> None:
    X = np.array([[0.0], [0.4], [1.0]], dtype=np.float32)
    codes = np.array([[0], [0], [1]], dtype=np.int32)
    assert resolve(codes, X, Line(4), policy="next-nearest").sids[:, 0].tolist() == [0, 2, 1]
    assert resolve(codes, X + np.float32(0.2), Line(4), policy="min-cost").sids[:, 0].tolist() == [0, 1, 2]


@given(rows=st.integers(1, 9), columns=st.integers(1, 9), seed=st.integers(0, 99))
@pytest.mark.parametrize("eps", [0.003, 0.05, 1.0])
def test_sinkhorn_is_the_published_one(eps: float, rows: int, columns: int, seed: int) -> None:
    D = np.random.default_rng(seed).random((rows, columns))
    middle = (D.max() + D.min()) / 2
    Q = np.exp(-(D - middle) / (D.max() - middle + 1e-5) / eps)
    Q /= Q.sum()
    for _ in range(50):
        Q /= Q.sum(axis=1, keepdims=True)
        Q /= rows
        Q /= Q.sum(axis=0, keepdims=True)
        Q /= columns
    Q *= rows
    found = sinkhorn(D, eps=eps)
    np.testing.assert_allclose(found, Q, rtol=1e-6, atol=1e-9)
    assert np.allclose(found.sum(axis=0), rows / columns)
    codes = sinkhorn_codes(np.stack([D, D + 7, D[::-1]]), eps=eps)  # batches do not see each other
    assert np.array_equal(codes[0], codes[1])
    assert np.array_equal(codes[0], codes[2][::-1])
    assert (Q[np.arange(rows), codes[0]] >= Q.max(axis=1) * (1 - 1e-5)).all()


@pytest.mark.parametrize("eps", [1e-5, 5e-4, 0.003])
@pytest.mark.parametrize("shape", [(3, 2, 40), (2, 30, 8), (1, 9, 9)])
def test_sinkhorn_on_products_is_that_on_logarithms(eps: float, shape: tuple[int, int, int]) -> None:
    D = np.random.default_rng(0).random(shape)
    high, low = D.max(axis=(1, 2), keepdims=True), D.min(axis=(1, 2), keepdims=True)
    logs = (D - (high + low) / 2) / ((high - low) / 2 + 1e-5) / -eps
    for _ in range(50):
        logs -= np.logaddexp.reduce(logs, axis=2, keepdims=True) + np.log(shape[1])
        logs -= np.logaddexp.reduce(logs, axis=1, keepdims=True) + np.log(shape[2])
    plan = sinkhorn(D, eps=eps)
    assert np.isfinite(plan).all()
    np.testing.assert_allclose(plan, np.exp(logs + np.log(shape[1])), rtol=1e-6, atol=1e-12)


def test_sinkhorn_separates_a_group() -> None:
    X = np.array([[1.0], [1.3], [0.8]], dtype=np.float32)
    done = resolve(np.ones((3, 1), np.int32), X, Line(3), policy="sinkhorn", params={"rounds": 1})
    assert done.sids[:, 0].tolist() == [1, 2, 0]


def test_fsq_level_separates_by_residual_and_keeps_its_axes() -> None:
    draw = np.random.default_rng(0)
    X = draw.normal(size=(600, 6)).astype(np.float32) * np.array([9, 3, 1, 0.1, 0.1, 0.1], np.float32)
    tokenizer = RQKMeans(levels=[8, 4]).fit(X)
    codes = tokenizer.encode(X)
    done = resolve(codes, X, tokenizer, policy="fsq-level")
    assert done.levels == (8, 4, 64)
    assert np.array_equal(done.sids[:, :2], codes)
    assert len(as_set(done.sids)) == 600
    # Axes: of unit variance and uncorrelated, so that cells are used.
    residual = X - tokenizer.decode(codes) - done.state["fsq_mean"]
    assert np.allclose(np.cov((residual @ done.state["fsq_axes"]).T), np.eye(3), atol=0.02)
    assert len(set(done.sids[:, 2].tolist())) > 48
    # An item that came alone has the cell of its residual, whoever came before it.
    new = resolve(codes[:1], X[:1], tokenizer, policy="fsq-level", state=done.state)
    alone = group_sizes(codes)[1] == 1
    z = np.tanh(residual[0] @ done.state["fsq_axes"] + np.tan(0.5 / 1.4985)) * 1.4985 - 0.5
    assert new.sids[0, 2] == (np.rint(z) + 2) @ [1, 4, 16]
    assert all(np.array_equal(new.state[name], done.state[name]) for name in done.state)
    assert alone.sum() < 600
    with pytest.raises(
        DataError, match=r"fsq-level: \d+ items share the codes \d-\d, but \[2\] makes 2 cells"
    ):
        resolve(codes, X, tokenizer, policy="fsq-level", params={"fsq_levels": [2]})
    with pytest.raises(DataError, match="fsq-level: new items need the state"):
        resolve(codes[300:], X[300:], tokenizer, policy="fsq-level", taken=done.sids[:300])
    with pytest.raises(DataError, match="fsq-level: state: expected"):
        resolve(codes, X, tokenizer, policy="fsq-level", params={"fsq_levels": [4] * 4}, state=done.state)
    with pytest.raises(DataError, match="asks for 7 axes, but vectors have 6 columns"):
        resolve(codes, X, tokenizer, policy="fsq-level", params={"fsq_levels": [2] * 7})


def test_vectors_may_come_from_a_function() -> None:
    X = np.random.default_rng(1).normal(size=(400, 5)).astype(np.float32)
    tokenizer = RQKMeans(levels=[8, 8, 8]).fit(X)
    codes, asked = tokenizer.encode(X), []

    def read(rows: np.ndarray) -> Vectors:
        assert (np.diff(rows) > 0).all()  # forwards, as a disk likes it
        asked.append(len(rows))
        return X[rows]

    for name in POLICIES:
        options: dict[str, Any] = {"policy": name, "item_ids": np.arange(400)[::-1], "popularity": X[:, 0]}
        done = resolve(codes, read, tokenizer, **options)
        assert np.array_equal(done.sids, resolve(codes, X, tokenizer, **options).sids)
    assert asked


def test_no_items_are_no_trouble() -> None:
    for name in POLICIES:
        codes, X = np.empty((0, 2), dtype=np.int32), np.empty((0, 1), dtype=np.float32)
        done = resolve(codes, X, Table([2, 2], 0), policy=name, popularity=[])
        assert len(done.sids) == len(done.slots) == done.duplicates == 0


def test_policies_and_parameters_are_checked() -> None:
    with pytest.raises(RecipeError, match="there are: none, suffix-on-collision, suffix,"):
        resolve(FOUR, numbered(4), Table([2, 2], 0), policy="pray")
    with pytest.raises(RecipeError, match="'capacity' has no parameter 'size'; it has: capacity"):
        policy_named("capacity", {"size": 3})
    with pytest.raises(RecipeError, match="'min-cost' has no parameter 'size'; it has none"):
        policy_named("min-cost", {"size": 3})
    with pytest.raises(RecipeError, match="params go with a policy's name"):
        resolve(FOUR, numbered(4), Table([2, 2], 0), policy=HashDigit(), params={"size": 3})
    for name, params in {
        "capacity": {"capacity": 0},
        "suffix": {"size": -1},
        "hash-digit": {"size": 1.5},
        "next-nearest": {"order": "random"},
        "sinkhorn": {"eps": 0},
        "fsq-level": {"fsq_levels": [4, 1]},
    }.items():
        with pytest.raises(DataError, match=f"{name}: {next(iter(params))}: expected"):
            policy_named(name, params)
    for steps in ([], 4, "44", [4.0, 4.0], [True, 4]):
        with pytest.raises(DataError, match="fsq-level: fsq_levels: expected whole numbers >= 2, got"):
            policy_named("fsq-level", {"fsq_levels": steps})
    assert policy_named("fsq-level", {"fsq_levels": [8, 8]}) == FsqLevel(fsq_levels=(8, 8))


NOT_DEFAULT: dict[str, dict[str, Any]] = {
    "none": {},
    "suffix-on-collision": {"size": 40},
    "suffix": {"size": 40},
    "suffix-from-zero": {"size": 40},
    "suffix-popularity": {"size": 40},
    "hash-digit": {"size": 40, "seed": 7},
    "unique-token": {"size": 40},
    "next-nearest": {"order": "popularity"},
    "min-cost": {},
    "sinkhorn": {"rounds": 2, "eps": 0.1, "iterations": 5},
    "fsq-level": {"fsq_levels": [5, 8]},
    "capacity": {"capacity": 2},
}


@pytest.mark.parametrize("name", POLICIES)
def test_every_parameter_is_heeded_and_written_down(name: str) -> None:
    given, default = NOT_DEFAULT[name], policy_named(name)
    assert given.keys() == {field.name for field in dataclasses.fields(default)}
    codes = np.random.default_rng(0).integers(0, 2, (20, 2)).astype(np.int32)
    X, ranker, popularity = numbered(20), Table([4, 6], 0), np.arange(20) % 7
    for params in [{}, *({key: value} for key, value in given.items()), given]:
        policy = policy_named(name, params)
        assert (policy == default) == (not params)
        written = dataclasses.asdict(policy)
        assert policy_named(name, written) == policy
        assert policy_named(name, json.loads(json.dumps(written))) == policy
        done = resolve(codes, X, ranker, policy=name, params=written, popularity=popularity)
        assert not policy.unique or len(as_set(done.sids)) == 20
        assert not policy.digits or done.levels == (4, 6, policy.digits)
        again = resolve(codes, X, ranker, policy=policy, popularity=popularity)
        assert np.array_equal(done.sids, again.sids)


def test_a_policy_that_codes_residuals_needs_a_tokenizer_that_decodes() -> None:
    ranker = Table([2, 2], 0)
    ranker.reconstructs = False  # type: ignore[attr-defined]
    with pytest.raises(RecipeError, match="fsq-level codes what the tokenizer left over"):
        resolve(FOUR, numbered(4), ranker, policy="fsq-level")
    assert len(resolve(FOUR, numbered(4), ranker, policy="suffix").sids) == 4


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_are_refused(wrong: float) -> None:
    X = numbered(4)
    X[2, 1] = wrong
    for name in ("none", "next-nearest", "suffix"):
        with pytest.raises(DataError, match="vectors, row 2: holds NaN or infinity"):
            resolve(FOUR, X, Table([2, 2], 0), policy=name)


def test_codes_are_neither_rounded_nor_wrapped() -> None:
    X, ranker = numbered(4), Table([2, 2], 0)
    for codes in (FOUR * 0.7, FOUR > 0):
        with pytest.raises(DataError, match=f"codes: expected whole numbers, got {codes.dtype}"):
            resolve(codes, X, ranker, policy="none")
    with pytest.raises(DataError, match="codes: expected numbers of 32 bits, got 4294967296"):
        resolve(FOUR.astype(np.int64) * 2**32, X, ranker, policy="none")
    assert np.array_equal(resolve(FOUR.astype(np.uint64), X, ranker, policy="none").sids, FOUR)


def test_an_append_may_leave_an_sid_that_begins_another() -> None:
    ranker = Table([2, 2], 0)
    old = resolve(FOUR[1:2], numbered(1), ranker, policy="suffix-on-collision")
    new = resolve(FOUR[1:2], numbered(1), ranker, policy="suffix-on-collision", taken=old.sids)
    assert old.sids.tolist() == [[0, 0, -1]]
    assert new.sids.tolist() == [[0, 0, 1]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "suffix-popularity"}, "suffix-popularity needs popularity"),
        ({"policy": "next-nearest", "params": {"order": "popularity"}}, "next-nearest needs popularity"),
        ({"policy": "none", "popularity": [1, 2]}, "popularity: expected 4 finite numbers"),
        ({"policy": "none", "item_ids": [1, 2]}, "item_ids: expected 4 strings or whole numbers"),
        ({"policy": "none", "item_ids": ["a", "b", "a", "c"]}, "'a'.* stands there twice"),
        ({"policy": "suffix", "taken": [[0, 0]]}, r"taken: suffix gives SIDs of shape \(m, 3\)"),
        ({"policy": "suffix", "taken": [[0, 0, -1]]}, "gives last digits 0 or more, got -1"),
        ({"policy": "hash-digit", "taken": [[0, 0, 128]]}, "gives last digits 0 to 127, got 128"),
        ({"policy": "min-cost", "taken": [[0, 1.7]]}, "taken: expected whole numbers, got float64"),
        (
            {"policy": "suffix", "taken": [[0, 0, 2**32]]},
            "taken: expected numbers of 32 bits, got 42949",
        ),
        ({"policy": "min-cost", "taken": [[0, 2]]}, "taken: level 2 has codes 0 to 1, got 2"),
        ({"policy": "min-cost", "taken": [[0, 1], [0, 1]]}, "taken, row 1: repeats an earlier SID"),
    ],
)
def test_what_is_passed_is_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        resolve(FOUR, numbered(4), Table([2, 2], 0), **options)
    with pytest.raises(DataError, match="codes: level 1 has codes 0 to 0, got 1"):
        resolve(FOUR, numbered(4), Table([1, 2], 0), policy="none")


@given(rows=st.lists(st.tuples(*[st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 1)] * 3), min_size=1))
def test_groups_of_any_integers(rows: list[tuple[int, ...]]) -> None:
    group, size = group_sizes(np.array(rows))
    assert size.tolist() == [rows.count(row) for row in rows]
    assert group.tolist() == [sorted(set(rows)).index(row) for row in rows]


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


@given(rows=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=3), min_size=1, max_size=20))
def test_the_trie_knows_sids_of_different_lengths(rows: list[list[int]]) -> None:
    padded = np.full((len(rows), 3), -1, dtype=np.int32)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    trie = Trie.build(padded)
    for length in range(4):
        for prefix in itertools.product(range(3), repeat=length):
            follow = {row[length] for row in rows if len(row) > length and tuple(row[:length]) == prefix}
            assert trie.allowed(prefix).tolist() == sorted(follow)
            sid = list(prefix)
            assert trie.item(sid) == (rows.index(sid) if sid in rows else None)


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
