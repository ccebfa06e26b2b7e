"""Whole chains on every engine: the release of a cluster is the release of this machine.

test_sharded_*.py compare stage by stage; here are all stages one after the other, each on what the engine's
own stages before it gave, to the published release.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engines import BEAM, FREE_OF_DISK, assert_same_release, events_dump
from helpers import EXAMPLE, ROOT, Run, more_dump, quickly, run_append, run_chain, small_dump
from hypothesis import given, settings
from hypothesis import strategies as st

from sid_flows.execute import execute, finish
from sid_flows.retokenize import plan_retokenize
from sid_pipelines.sharded import SHARDED
from sid_pipelines.sharded.inline import Inline
from sid_warehouse.stages import StageOutput

sys.path.append(str(ROOT / "benchmarks"))

Folder = Callable[[], Path]


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        yield


@pytest.fixture(scope="module")
def folder() -> Iterator[Folder]:
    """Give a new folder with every call."""
    with tempfile.TemporaryDirectory(dir=FREE_OF_DISK) as name:
        yield lambda: Path(tempfile.mkdtemp(dir=name))


@pytest.fixture(scope="module")
def events(folder: Folder) -> tuple[Path, Run]:
    """A small dump with all that stages judge, and its release by the local engine."""
    recipe = events_dump(folder())
    return recipe, run_chain(recipe, folder())


def inline(patch: pytest.MonkeyPatch, seed: int = 0) -> None:
    """Let recipes' engine be tasks in this process, in an order drawn by a seed."""
    patch.setattr("sid_flows.execute.engine_of", lambda section: Inline(seed))


def by_engine(run: Run) -> set[str]:
    """Give the labels of the steps that ran by shards."""
    return {label for label, output in run.outputs.items() if "engine" in output.manifest}


def shardable(run: Run) -> set[str]:
    return {planned.label for planned in run.plan.stages if planned.stage.name in SHARDED}


# However it is divided


@given(shards=st.integers(1, 20), seed=st.integers(0, 2**16))
@settings(max_examples=4)
def test_the_release_is_the_same_for_any_number_of_shards(
    events: tuple[Path, Run], folder: Folder, shards: int, seed: int
) -> None:
    recipe, local = events
    with pytest.MonkeyPatch.context() as patch:
        inline(patch, seed)
        run = run_chain(recipe, folder(), BEAM, f"engine.shards={shards}")
    assert by_engine(run) == shardable(run)
    assert_same_release(local.release, run.release)


# On every runner


# Processes and the pool start anew for every job. test_beam_engine.py has both with toy jobs, and
# test_beam_runners.py the jobs of every stage as a portable runner gets them.
@pytest.mark.parametrize(
    "beam_options",
    ["memory", "dask", *(pytest.param(one, marks=pytest.mark.proof) for one in ("processes", "pool"))],
    indirect=True,
)
def test_a_runner_makes_the_same_release(events: tuple[Path, Run], folder: Folder, beam_options: str) -> None:
    recipe, local = events
    warehouse = folder()
    run = run_chain(recipe, warehouse, BEAM, "engine.shards=3", f"engine.options={beam_options}")
    assert by_engine(run) == shardable(run)
    assert_same_release(local.release, run.release)
    assert list((warehouse / "scratch").rglob("*.*")) == []


# The reviews below go through a cluster; test_sharded_*.py have this dump by shards, clean to collisions.
@pytest.mark.proof
def test_movietweetings_are_the_same_on_every_runner(example: Run, folder: Folder, beam_options: str) -> None:
    run = run_chain(EXAMPLE, folder(), BEAM, "engine.shards=5", f"engine.options={beam_options}")
    assert_same_release(example.release, run.release, but=["gates", "gates.json"])  # judged otherwise


# Many reviews


@pytest.mark.parametrize(
    "reviews", [100_000, pytest.param(3_000_000, marks=pytest.mark.proof)], ids=["100k", "3M"]
)
def test_reviews_on_dask_are_the_same(reviews: int, folder: Folder, dask_cluster: str) -> None:
    recipe = reviews_dump(folder(), reviews)
    local = run_chain(recipe, folder())
    run = run_chain(recipe, folder(), BEAM, "engine.shards=3", f"engine.options={dask_cluster}")
    assert by_engine(run) == shardable(run)
    assert_same_release(local.release, run.release)


def reviews_dump(folder: Path, reviews: int) -> Path:
    """Write reviews in two files and their items' metadata; give the recipe."""
    from amazon_dump import write_dump, write_items

    write_items(folder / "meta_Beauty.json.gz", reviews)
    write_dump(folder / "Beauty.json.gz", reviews)
    recipe = folder / "recipe.toml"
    recipe.write_text(
        'dataset = "reviews"\n[source]\nkind = "amazon-2018"\npath = "Beauty.json.gz"\n'
        'items = "meta_Beauty.json.gz"\n[[embed]]\nmodel = "hashing"\ndim = 64\nletters = 0\n'
        "[tokenize]\nlevels = [64, 64, 64]\n[gates]\nmax_duplicate_vectors = 1.0\n"
    )
    return recipe


# What goes on from a release


def test_an_append_is_the_same(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, more = small_dump(folder()), more_dump(folder())
    hashing = '[[embed]]\nmodel = "hashing"\ndim = 16\n[tokenize]'
    recipe.write_text(recipe.read_text().replace("[tokenize]", hashing))
    base = folder()
    run_chain(recipe, base, "tokenize.levels=[8, 8]")
    local = run_append(more, base)
    inline(monkeypatch, 5)
    warehouse = folder()
    run_chain(recipe, warehouse, "tokenize.levels=[8, 8]", BEAM, "engine.shards=3")
    run = run_append(more, warehouse, BEAM, "engine.shards=2")
    assert run.release.ref.endswith("@v2")
    assert_same_release(local.release, run.release)


def test_a_retokenize_is_the_same(
    events: tuple[Path, Run], folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, _ = events
    other = folder() / "other.toml"
    other.write_text('dataset = "events"\n[tokenize]\nlevels = [16, 16]\n')

    def retokenized(warehouse: Path, *overrides: str) -> Run:
        run_chain(recipe, warehouse, *overrides)
        plan = plan_retokenize("events", other, warehouse, overrides, match=True)
        outputs: dict[str, StageOutput] = {}
        for planned in plan.stages:
            outputs[planned.label] = execute(plan, planned, outputs)
        return Run(plan, outputs, finish(plan, outputs))

    local = retokenized(folder())
    inline(monkeypatch, 6)
    run = retokenized(folder(), BEAM, "engine.shards=3")
    assert by_engine(run) == shardable(run)
    assert_same_release(local.release, run.release)
