"""Collisions by buckets of first codes: each policy as if all codes were settled at once, and the stage."""

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from helpers import Run, quickly, run_chain, small_dump
from hypothesis import given, settings
from hypothesis import strategies as st
from sharding import assert_same, by_shards, locally
from test_collisions import PARAMS, Table, crowded, numbered

from sid_flows.plan import make_plan
from sid_pipelines import vectors
from sid_pipelines.sharded.stages import collisions
from sid_schemas import DataError
from sid_tokenizers import POLICIES, RQKMeans, resolve
from sid_tokenizers.base import Codes, Vectors
from sid_tokenizers.collisions import Policy, Resolution, group_sizes, policy_named
from sid_tokenizers.collisions.apart import can_part, cut, joined

APART = {
    "none": "codes", "suffix": "codes", "suffix-from-zero": "codes", "suffix-on-collision": "codes",
    "suffix-popularity": "codes", "hash-digit": "codes", "next-nearest": "prefix", "capacity": "prefix",
    "min-cost": "prefix", "unique-token": "", "sinkhorn": "", "fsq-level": "",
}  # fmt: skip
LEVELS = "tokenize.levels=[6, 4, 3]"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quickly(monkeypatch)


# --- policies


def test_every_policy_says_what_it_must_see() -> None:
    assert {name: policy.apart for name, policy in POLICIES.items()} == APART


def in_parts(
    policy: Policy, codes: Codes, X: Vectors, ranker: Any, edges: list[int], taken: Codes, popularity: Any
) -> Resolution:
    """Resolve ranges of first codes one by one; vectors that the policy does not look at are not there."""
    looked = np.ones(len(codes), dtype=bool)
    if policy.looks_at == "colliding":
        both = np.concatenate([taken[:, : codes.shape[1]], codes])
        looked = group_sizes(both)[1][len(taken) :] > 1
    seen = np.where(looked[:, None], X, np.nan)

    def parts() -> Any:
        for first, stop in itertools.pairwise(edges):
            rows = np.flatnonzero((codes[:, 0] >= first) & (codes[:, 0] < stop))
            own = taken[(taken[:, 0] >= first) & (taken[:, 0] < stop)]

            def read(wanted: Any, rows: Any = rows) -> Any:
                found = seen[rows[wanted]]
                assert not np.isnan(found).any()
                return found

            done = resolve(codes[rows], read, ranker, policy=policy, popularity=popularity[rows], taken=own)
            yield rows, done

    return joined(len(codes), parts())


def assert_resolved(ours: Resolution, whole: Resolution) -> None:
    for name in ("sids", "slots", "moved", "suffix"):
        one, other = getattr(ours, name), getattr(whole, name)
        assert (one is None) == (other is None)
        assert one is None or (one.dtype == other.dtype and np.array_equal(one, other)), name
    assert (ours.levels, ours.duplicates, ours.state) == (whole.levels, whole.duplicates, whole.state)


@pytest.mark.parametrize("name", [name for name, kind in APART.items() if kind])
@settings(max_examples=60)
@given(case=crowded(), seed=st.integers(0, 5), number=st.integers(2, 5), data=st.data())
def test_first_codes_apart_are_settled_as_all_at_once(
    name: str, case: tuple[list[int], Codes], seed: int, number: int, data: st.DataObject
) -> None:
    levels, codes = case
    levels, codes = [4, *levels], np.c_[np.arange(len(codes)) * 7 // 3 % 4, codes].astype(np.int32)
    X, ranker = numbered(len(codes)), Table(levels, seed)
    X[len(X) // 2 :] = X[: len(X) - len(X) // 2]  # vectors that repeat
    popularity = np.random.default_rng(seed).integers(0, 3, len(codes))
    policy = policy_named(name, PARAMS.get(name))
    old = data.draw(st.integers(0, len(codes)))
    counts = np.bincount(codes[:, 0], minlength=4)
    if not can_part(policy, levels, counts):
        assert policy.apart == "prefix"
        assert counts.max() > math.prod(levels[1:]) * policy.room
        return
    before = resolve(codes[:old], X[:old], ranker, policy=policy, popularity=popularity[:old])
    edges = cut(counts, number)
    for first, taken in ((0, before.sids[:0]), (old, before.sids)):
        given = codes[first:], X[first:], ranker
        options: dict[str, Any] = {"policy": policy, "popularity": popularity[first:], "taken": taken}
        whole = resolve(*given, **options)
        assert_resolved(in_parts(policy, *given, edges, taken, popularity[first:]), whole)


@pytest.mark.parametrize("name", [name for name, kind in APART.items() if kind])
@pytest.mark.parametrize("normalize", [False, True])
def test_real_vectors_apart_are_settled_as_all_at_once(real: Vectors, name: str, normalize: bool) -> None:
    tokenizer = RQKMeans(levels=[16, 12, 10], normalize_residuals=normalize).fit(real)
    codes = tokenizer.encode(real)
    counts, policy = np.bincount(codes[:, 0], minlength=16), policy_named(name, PARAMS.get(name))
    assert can_part(policy, tokenizer.levels, counts) or name in ("next-nearest", "min-cost")
    popularity, none = np.arange(len(real)) % 7, np.empty((0, 3 + policy.adds), dtype=np.int32)
    whole = resolve(codes, real, tokenizer, policy=policy, popularity=popularity)
    for number in (2, 5, 16):
        if can_part(policy, tokenizer.levels, counts):
            parts = in_parts(policy, codes, real, tokenizer, cut(counts, number), none, popularity)
            assert_resolved(parts, whole)


@given(counts=st.lists(st.integers(0, 9), min_size=1, max_size=20), number=st.integers(1, 25))
def test_ranges_of_first_codes_hold_each_once(counts: list[int], number: int) -> None:
    edges = cut(counts, number)
    assert (edges[0], edges[-1]) == (0, len(counts))
    assert edges == sorted(set(edges))
    assert len(edges) - 1 <= number


# --- the stage


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recipe of many items on few codes, and its warehouse."""
    folder = tmp_path_factory.mktemp("collisions")
    recipe = small_dump(folder, movies=40, users=60)
    more = '[gates]\nmax_collision_rate = 1.0\n[[embed]]\nmodel = "hashing"\ndim = 16\n'
    recipe.write_text(recipe.read_text().replace("levels = [4, 4]\n", "") + more)
    run_chain(recipe, folder / "w", LEVELS, until="tokenize")
    return recipe, folder / "w"


@pytest.mark.parametrize(("count", "seed"), [(1, 0), (3, 1), (7, 2)])
def test_real_items_are_settled_alike(
    example: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, seed: int
) -> None:
    monkeypatch.setattr(vectors, "ROWS", 100)
    done = by_shards(example, "collisions", tmp_path, count, seed=seed)
    assert_same(locally(example, "collisions", tmp_path), done)
    assert len(done.parts("sids")) == count


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_by_shards(
    crowd: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    given = [f"collisions.{key}={value}" for key, value in PARAMS.get(name, {}).items()]
    run = run_chain(*crowd, LEVELS, f"collisions.policy={name}", *given, until="collisions")
    monkeypatch.setattr(vectors, "ROWS", 9)
    local = locally(run, "collisions", tmp_path)
    for count in (2, 5):
        assert_same(local, by_shards(run, "collisions", tmp_path / str(count), count, seed=count))


def test_popularity_decides_alike(
    crowd: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_chain(*crowd, LEVELS, "collisions.order=popularity", until="collisions")
    monkeypatch.setattr(vectors, "ROWS", 9)
    assert_same(locally(run, "collisions", tmp_path), by_shards(run, "collisions", tmp_path, 3))


def test_where_a_first_code_is_full_all_are_settled_at_once(
    crowd: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_chain(*crowd, "tokenize.levels=[24, 2]", until="collisions")
    monkeypatch.setattr(vectors, "ROWS", 9)
    monkeypatch.setattr(collisions, "deal", None)
    done = by_shards(run, "collisions", tmp_path, 3)
    codes = np.array(done.read("sids")["codes"].to_pylist())
    assert np.bincount(codes[:, 0]).max() > 2
    assert_same(locally(run, "collisions", tmp_path), done)


@pytest.mark.parametrize("overrides", ["suffix size=2", "hash-digit size=2", "fsq-level fsq_levels=[2]"])
def test_what_cannot_be_settled_is_said_alike(
    crowd: tuple[Path, Path], tmp_path: Path, overrides: str
) -> None:
    few = "tokenize.levels=[6, 1]"
    name, _, given = overrides.partition(" ")
    run = run_chain(*crowd, few, until="tokenize")
    plan = make_plan(*crowd, (few, f"collisions.policy={name}", f"collisions.{given}"))
    with pytest.raises(DataError) as local:
        locally(replace(run, plan=plan), "collisions", tmp_path)
    with pytest.raises(DataError) as sharded:
        by_shards(replace(run, plan=plan), "collisions", tmp_path, 4)
    assert str(sharded.value) == str(local.value)


def test_a_bucket_that_its_policy_refuses_has_all_settled_at_once(
    crowd: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_chain(*crowd, LEVELS, until="collisions")
    real, ran = collisions.resolve, []

    def refuses(codes: Codes, *given: Any, **options: Any) -> Resolution:
        ran.append(len(codes))
        if len(ran) == 2:
            raise DataError("no room")
        return real(codes, *given, **options)

    monkeypatch.setattr(collisions, "resolve", refuses)
    monkeypatch.setattr(vectors, "ROWS", 9)
    assert_same(locally(run, "collisions", tmp_path), by_shards(run, "collisions", tmp_path, 3))
    assert len(ran) == 4
    assert ran[-1] == sum(ran[:-1])


def test_a_bucket_without_memory_is_not_all_settled_at_once(
    crowd: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*given: Any, **options: Any) -> None:
        raise duckdb.OutOfMemoryException("full")

    run = run_chain(*crowd, LEVELS, until="collisions")
    monkeypatch.setattr(collisions, "resolve", short)
    monkeypatch.setattr(vectors, "ROWS", 9)
    with pytest.raises(DataError, match=r"resolve, settle: needs more than \[engine\] memory"):
        by_shards(run, "collisions", tmp_path, 3)


def test_ids_of_a_scheme_that_leaves_nothing_to_settle(crowd: tuple[Path, Path], tmp_path: Path) -> None:
    run = run_chain(*crowd, "tokenize.tokenizer=sequential", "collisions.policy=none", until="collisions")
    assert_same(run.outputs["collisions"], by_shards(run, "collisions", tmp_path, 3))
