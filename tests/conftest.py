import gzip
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from clusters import beam_options, dask_cluster, worker_pool, worker_processes  # noqa: F401 (fixtures)
from helpers import EXAMPLE, Run, quickly, run_chain, searched_dump, small_dump, thoroughly
from hypothesis import settings
from operated import built, operated, place, warned, worker  # noqa: F401 (fixtures)

from sid_pipelines.catalogue import catalogue_of
from sid_pipelines.collaborative import model_named
from sid_pipelines.collaborative.events import TrainEvents
from sid_pipelines.stage import Resources, Work
from sid_pipelines.vectors import read_vectors
from sid_tokenizers import Catalogue
from sid_tokenizers.base import Vectors
from sid_warehouse import locks

EXIT = pytest.StashKey[int]()

# No deadlines: the machine's noise is not a defect. The same examples in CI every time.
settings.register_profile("ours", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("ours")


@pytest.fixture(scope="session", autouse=True)
def unsynced() -> Iterator[None]:
    """Leave it to the kernel when files reach the disk: it takes a third of a chain's time.

    Nothing here has to outlive a power cut, and a process that is killed loses nothing by it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Run]) -> Run:
    """Make a run in a folder that all processes of a test run share: the others find its stages done."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with locks.alone(folder / ".making"):
        return make(folder)


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The example recipe on the real dump, run once, in this process. Tests only read it."""
    with pytest.MonkeyPatch.context() as patch:
        thoroughly(patch)
        return made_once(tmp_path_factory, "example", lambda folder: run_chain(EXAMPLE, folder / "w"))


@pytest.fixture(scope="session")
def real(example: Run) -> Vectors:
    """The example's MiniLM vectors, (1342, 384)."""
    return read_vectors(example.outputs["embed text"])


@pytest.fixture(scope="session")
def known(example: Run) -> Catalogue:
    """What is known of the example's items, row by row as `real`; cf: 64 numbers, from train events."""
    outputs = example.outputs
    split = outputs["split"].parts("interactions")
    users = len(outputs["clean"].read("users", ["user_index"]))
    items = len(outputs["clean"].read("items_clean", ["item_index"]))
    work = Work(None, outputs, None, Resources(), lambda done, total: None)
    needs = ("categories", "domains", "titles", "texts", "popularity", "events")
    fitted = model_named("ppmi-svd")(dim=64).fit(TrainEvents.of(split, users, items), work.progress)
    return replace(catalogue_of(work, needs), cf=fitted.vectors[""])


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A small dump's release. Tests only read it."""
    with pytest.MonkeyPatch.context() as patch:
        thoroughly(patch)
        return made_once(
            tmp_path_factory, "small", lambda folder: run_chain(*dumped(folder, small_dump, "warehouse"))
        )


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A small release with queries, sessions and lists as shown. Tests only read it."""
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        return made_once(
            tmp_path_factory, "searched", lambda folder: run_chain(*dumped(folder, searched_dump, "w"))
        )


def dumped(folder: Path, write: Callable[[Path], Path], warehouse: str) -> tuple[Path, Path]:
    """Write a dump where it does not lie yet, its recipe last; give recipe and warehouse."""
    recipe = folder / "recipe.toml"
    return (recipe if recipe.exists() else write(folder)), folder / warehouse


@pytest.fixture
def plain_dump(tmp_path: Path) -> Path:
    """A folder with the example recipe beside a plain copy of the real dump, to be spoilt at will."""
    folder = tmp_path / "data" / "movietweetings-50k"
    folder.mkdir(parents=True)
    for name in ("ratings.dat", "movies.dat"):
        packed = EXAMPLE.parent / "data" / "movietweetings-50k" / f"{name}.gz"
        (folder / name).write_bytes(gzip.decompress(packed.read_bytes()))
    shutil.copy(EXAMPLE, tmp_path / "recipe.toml")
    return tmp_path


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[EXIT] = int(exitstatus)


def pytest_unconfigure(config: pytest.Config) -> None:
    # What tests still hold at exit makes DuckDB print pages of leak warnings over the summary.
    sys.stdout.flush()
    sys.stderr.flush()
    if EXIT in config.stash:
        os._exit(config.stash[EXIT])
