"""Tokenize by ranges of items: the codes, soft codes, sums and files of the local stage, to the bit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import Run, quickly, run_chain, small_dump
from hypothesis import given
from hypothesis import strategies as st
from sharding import assert_same, by_shards, locally

from sid_flows.plan import make_plan
from sid_pipelines import vectors
from sid_pipelines.sharded.stages.tokenize import ranges_of
from sid_pipelines.vectors import StoredVectors
from sid_schemas import DataError
from sid_warehouse import parquet

LEVELS = "tokenize.levels=[4, 4]"
LATENT = (LEVELS, "tokenize.latent=4", "tokenize.hidden=[8]")
SCHEMES: dict[str, tuple[str, ...]] = {
    "rq-kmeans": (LEVELS, "tokenize.soft=3", "tokenize.fit_items=7"),
    "pq": (LEVELS,),
    "rq-kmeans+fsq": ("tokenize.kmeans_levels=[3, 3]", "tokenize.fsq_levels=[2, 2]"),
    "rq-vae": (*LATENT, "tokenize.max_steps=20"),
    "letter": (*LATENT, "tokenize.epochs=2"),  # stacked: two embeddings side by side
    "moe-pq": (*LATENT, "tokenize.epochs=2"),
    "category-path": (),  # sees all items at once, and runs where the flow runs
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quickly(monkeypatch)


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recipe whose vectors are embedded already, and its warehouse."""
    folder = tmp_path_factory.mktemp("tokenize")
    recipe = small_dump(folder, movies=14, users=20)
    behaviour = '[[embed]]\n[[embed]]\nmodality = "collaborative"\nmodel = "ppmi-svd"\ndim = 4\n'
    recipe.write_text(recipe.read_text().replace("levels = [4, 4]\n", 'vectors = "text"\n') + behaviour)
    run_chain(recipe, folder / "w", until="embed")
    return recipe, folder / "w"


@pytest.mark.parametrize(("count", "seed"), [(1, 0), (3, 1), (7, 2)])
def test_real_items_are_coded_alike(
    example: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, seed: int
) -> None:
    if count == 1:
        assert_same(example.outputs["tokenize"], by_shards(example, "tokenize", tmp_path / "whole", count))
    monkeypatch.setattr(vectors, "ROWS", 100)  # 14 blocks, of which sums depend
    done = by_shards(example, "tokenize", tmp_path / "blocks", count, seed=seed)
    assert_same(locally(example, "tokenize", tmp_path), done)
    assert len(done.parts("codes")) == count


@pytest.mark.parametrize("name", SCHEMES)
def test_every_kind_of_scheme(
    dump: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run = run_chain(*dump, f"tokenize.tokenizer={name}", *SCHEMES[name], until="tokenize")
    monkeypatch.setattr(vectors, "ROWS", 4)
    local = locally(run, "tokenize", tmp_path)
    for count in (1, 2, 99):
        assert_same(local, by_shards(run, "tokenize", tmp_path / str(count), count, seed=count))


def test_a_catalogue_beyond_memory_has_the_same_blocks(
    dump: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_chain(*dump, LEVELS, until="tokenize")
    monkeypatch.setattr(vectors, "ROWS", 5)
    monkeypatch.setattr(vectors, "IN_MEMORY", 0)
    done = by_shards(run, "tokenize", tmp_path, 2)
    assert_same(locally(run, "tokenize", tmp_path), done)


@pytest.mark.parametrize("in_memory", [0, 1 << 30])
def test_edges_are_those_of_the_blocks(
    example: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    monkeypatch.setattr(vectors, "ROWS", 256)
    monkeypatch.setattr(vectors, "IN_MEMORY", in_memory)
    [part] = example.outputs["embed text"].parts("embeddings_text")
    whole = parquet.read(part.parent.parent, "embeddings_text", ["vector"])
    parts = []
    for number, (first, stop) in enumerate([(0, 300), (300, 1200), (1200, 1342)]):  # as appends leave them
        parts.append(tmp_path / f"{number}.parquet")
        parquet.pq.write_table(whole.slice(first, stop - first), parts[-1])
    stored = StoredVectors(parts)
    found = list(stored.blocks())
    assert stored.edges() == [start for start, _ in found] + [1342]
    again = list(stored.between(stored.edges()))
    assert [start for start, _ in again] == [start for start, _ in found]
    for (_, ours), (_, theirs) in zip(again, found, strict=True):
        assert np.array_equal(ours, theirs)
    [(start, some), (_, more)] = stored.between([290, 310, 1300])  # from within a block, over parts
    assert start == 290
    assert np.array_equal(np.concatenate([some, more]), stored.rows(np.arange(290, 1300)))


def test_what_the_local_stage_refuses_is_refused_alike(dump: tuple[Path, Path], tmp_path: Path) -> None:
    run = run_chain(*dump, until="embed")
    run = replace(run, plan=make_plan(*dump, ("tokenize.levels=[64, 4]",)))  # more codes than items
    with pytest.raises(DataError) as local:
        locally(run, "tokenize", tmp_path)
    with pytest.raises(DataError) as sharded:
        by_shards(run, "tokenize", tmp_path, 2)
    assert str(sharded.value) == str(local.value)


@given(blocks=st.integers(1, 40), number=st.integers(1, 50))
def test_ranges_hold_every_block_once(blocks: int, number: int) -> None:
    edges = [10 * n for n in range(blocks + 1)]
    ranges = ranges_of(edges, number)
    assert len(ranges) == min(number, blocks)
    assert [first for one in ranges for first in one[:-1]] == edges[:-1]
    assert all(one[-1] == edges[edges.index(one[-2]) + 1] for one in ranges)
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 1
