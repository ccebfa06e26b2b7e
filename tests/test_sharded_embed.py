"""Embed text by shards: the vectors and facts of one process, whatever the cache held, whoever adds to it."""

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import test_images
from helpers import ROOT
from sharding import assert_same
from test_images import shop  # noqa: F401
from test_text_embed import interactions, params_of, run_stage, texts_of, tiny  # noqa: F401

from sid_flows.engines import carry_out
from sid_pipelines import embed_image as embed_image_stage
from sid_pipelines import embed_text
from sid_pipelines.encoders import sentence
from sid_pipelines.sharded.inline import Inline
from sid_pipelines.sharded.stages import embed, embed_image
from sid_pipelines.stage import Resources, Work
from sid_pipelines.vector_cache import Filled, VectorCache
from sid_schemas import DataError, WarehouseError
from sid_warehouse.stages import StageOutput, StageStore

STRINGS = [f"film {'long ' * (n % 7)}{n % 90}" if n % 11 else "" for n in range(200)]


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make tasks of few texts, and let every test load its model anew."""
    monkeypatch.setattr(embed, "LEAST", 1)
    embed._held.clear()
    yield
    embed._held.clear()


def embedded(
    store: Path, strings: list[str], params: Any, count: int, *, seed: int = 0, **inputs: StageOutput
) -> StageOutput:
    """Run the stage by shards, with the cache that lies in the store."""
    key, given = (
        f"shards-{count}-{seed}",
        {"text": texts_of(store / f"texts-{count}-{seed}", strings), **inputs},
    )
    with StageStore(store, "test").write("embed_text", key, {}) as draft:
        work = Work(params, given, draft, Resources(cache=store / "cache"), lambda done, total: None)
        outcome, _ = carry_out(embed_text.STAGE, key, work, Inline(seed), warehouse=store, shards=count)
        return draft.commit(outcome.facts, outcome.summary)


def locally(store: Path, strings: list[str], params: Any, **inputs: StageOutput) -> StageOutput:
    given = {"text": texts_of(store / "texts-local", strings), **inputs}
    return run_stage(store, embed_text, params, given, "local")


@pytest.mark.parametrize("count", [1, 3, 7, 30])
def test_a_cold_cache(tmp_path: Path, tiny: Path, count: int) -> None:  # noqa: F811
    params = params_of(str(tiny), "mean")
    local = locally(tmp_path / "local", STRINGS, params)
    assert (local.facts["distinct"], local.facts["from_cache"]) == (local.facts["embedded"], 0)
    assert_same(local, embedded(tmp_path / "shards", STRINGS, params, count, seed=count))


@pytest.mark.parametrize("known", [60, 200])
def test_a_cache_that_holds_some_or_all(tmp_path: Path, tiny: Path, known: int) -> None:  # noqa: F811
    params = params_of(str(tiny), "mask", dtype="float16")
    locally(tmp_path / "before", STRINGS[-known:], params)
    for name in ("local", "shards"):
        shutil.copytree(tmp_path / "before" / "cache", tmp_path / name / "cache")
    local = locally(tmp_path / "local", STRINGS, params)
    assert 0 < local.facts["from_cache"] <= local.facts["distinct"]
    assert_same(local, embedded(tmp_path / "shards", STRINGS, params, 4))


def test_a_process_loads_its_model_once(
    tmp_path: Path,
    tiny: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted: Counter[str] = Counter()
    load = sentence._load
    monkeypatch.setattr(sentence, "_load", lambda *given: (counted.update(["loaded"]), load(*given))[1])
    embedded(tmp_path, STRINGS, params_of(str(tiny), "mask"), 5)
    more = [f"more {n}" for n in range(50)]
    embedded(tmp_path, more, params_of(str(tiny), "mask", dims=8), 5, seed=1)  # the same raw vectors
    assert counted == {"loaded": 1}
    embedded(tmp_path, more, params_of(str(tiny), "mask", prompt="film: "), 5, seed=2)
    assert counted == {"loaded": 2}
    assert len(embed._held) == 1


@pytest.mark.parametrize("model", ["hashing", "tfidf-svd"])
def test_what_needs_no_cache_runs_where_the_flow_runs(tmp_path: Path, model: str) -> None:
    strings = [f"film {n % 5} of {n % 3}" for n in range(30)]
    inputs = {"split": interactions(tmp_path, list(range(20)))} if model == "tfidf-svd" else {}
    given = {"min_df": 1, "dim": 4} if inputs else {}
    local = locally(tmp_path, strings, params_of(model, **given), **inputs)
    assert_same(local, embedded(tmp_path, strings, params_of(model, **given), 3, **inputs))


def test_a_task_that_failed_is_made_up_for_and_counted_alike(
    tmp_path: Path,
    tiny: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    params = params_of(str(tiny), "mask")
    with monkeypatch.context() as patch:
        calls: list[int] = []

        def fails(*given: Any) -> Any:
            calls.append(1)
            done = embed_text_embed(*given)
            if len(calls) == 3:
                raise MemoryError("a worker dies with its vectors in the cache")
            return done

        embed_text_embed = embed_text.embed
        patch.setattr(embed_text, "embed", fails)
        with pytest.raises(MemoryError):
            embedded(tmp_path / "shards", STRINGS, params, 6)
    done = embedded(tmp_path / "shards", STRINGS, params, 6)
    assert_same(locally(tmp_path / "local", STRINGS, params), done)


@pytest.mark.parametrize("when", ["before the stage was there", "while its tasks ran"])
def test_a_cache_that_is_removed_is_filled_by_tasks_again(
    tmp_path: Path,
    tiny: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    when: str,
) -> None:
    params, real, ours = params_of(str(tiny), "mask"), embed_text.write, embed.Shards.run
    during, calls = when == "while its tasks ran", Counter[str]()

    def dies(*given: Any) -> Any:
        raise MemoryError("the driver dies with the cache filled")

    def removed(shards: Any, name: str, *given: Any) -> Any:
        made = ours(shards, name, *given)
        calls[name] += 1
        if during and calls.total() == 1:
            shutil.rmtree(tmp_path / "shards" / "cache")
        return made

    monkeypatch.setattr(embed.Shards, "run", removed)
    if not during:
        monkeypatch.setattr(embed_text, "write", dies)
        with pytest.raises(MemoryError):
            embedded(tmp_path / "shards", STRINGS, params, 3)
        shutil.rmtree(tmp_path / "shards" / "cache")
    seen: list[Any] = []

    def seeing(work: Work, filled: Filled) -> Any:
        seen.append(held_by(work))
        return real(work, filled)

    monkeypatch.setattr(embed_text, "write", seeing)
    done = embedded(tmp_path / "shards", STRINGS, params, 3)
    monkeypatch.setattr(embed_text, "write", real)
    assert len(calls) == 2
    assert seen == [done.facts["distinct"]]
    assert_same(locally(tmp_path / "local", STRINGS, params), done)


def held_by(work: Work) -> int:
    """Give how many of the texts' vectors the cache holds."""
    cache = VectorCache(work.resources.cache / embed_text.CACHE, work.params.found.encoder().identity())
    texts = embed_text.Texts.of(work.inputs["text"].parts("texts"))
    return int(cache.holds(texts.keys.filter(pa.array(texts.there)).unique()).sum())


def test_texts_of_some_rows_are_read_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed_text, "ROWS", 3)
    parts = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    for part, own in zip(parts, (STRINGS[:13], STRINGS[13:40]), strict=True):
        pq.write_table(pa.table({"text": own}), part, row_group_size=8)
    for rows in ([], [0], [2, 3, 12, 13, 39], [20, 29], list(range(40))):
        found = list(embed_text.texts_at(parts, np.array(rows, dtype=np.int64)))
        assert found == [(row, STRINGS[row]) for row in rows]


TWIN = """
import sys
sys.path.insert(0, {tests!r})
from test_sharded_embed import *
embed.LEAST = 1
embedded(Path({store!r}), STRINGS, params_of({model!r}, "mean"), {count})
"""


@pytest.mark.proof  # two processes load a model: half a minute
def test_two_processes_fill_one_cache_at_once(tmp_path: Path, tiny: Path) -> None:  # noqa: F811
    store = tmp_path / "both"
    codes = [
        TWIN.format(tests=str(ROOT / "tests"), store=str(store), model=str(tiny), count=count)
        for count in (3, 5)
    ]
    running = [subprocess.Popen([sys.executable, "-c", code]) for code in codes]
    assert [process.wait() for process in running] == [0, 0]
    local = locally(tmp_path / "local", STRINGS, params_of(str(tiny), "mean"))
    for count in (3, 5):
        done = StageStore(store, "test").find("embed_text", f"shards-{count}-0")
        assert done is not None
        assert done.read("embeddings_text").equals(local.read("embeddings_text"))
        assert done.facts["from_cache"] + done.facts["embedded"] == done.facts["distinct"]


def test_a_worker_that_would_embed_otherwise_is_refused(
    tmp_path: Path,
    tiny: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = embed.held

    def other(encoder: Any, expected: dict[str, Any]) -> Any:
        monkeypatch.setattr(sentence, "_machine", lambda *given: "cpu of another kind")
        return ours(encoder, expected)

    monkeypatch.setattr(embed, "held", other)
    with pytest.raises(WarehouseError, match=r"device 'cpu of another kind', expected 'cpu "):
        embedded(tmp_path, STRINGS, params_of(str(tiny), "mask"), 2)


@pytest.mark.parametrize(("missing", "strings"), [("refuse", STRINGS), ("mask", ["", ""])])
def test_an_item_without_text_is_refused_alike(
    tmp_path: Path,
    tiny: Path,  # noqa: F811
    missing: str,
    strings: list[str],
) -> None:
    with pytest.raises(DataError) as local:
        locally(tmp_path, strings, params_of(str(tiny), missing))
    with pytest.raises(DataError) as sharded:
        embedded(tmp_path, strings, params_of(str(tiny), missing), 3)
    assert str(sharded.value) == str(local.value)


# --- images


@pytest.mark.parametrize("count", [1, 2, 5])
def test_images_with_and_without_a_cache(
    shop: Any,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
) -> None:
    monkeypatch.setattr(embed_image, "LEAST", 1)
    warehouse, clean, params = shop
    for state in ("cold", "warm"):
        local, _ = test_images.embed(warehouse, params, clean=clean)
        store = tmp_path / "shards"
        with StageStore(store, "x").write("embed_image", state, {}) as draft:
            work = Work(
                params, {"clean": clean}, draft, Resources(cache=store / "cache"), lambda done, total: None
            )
            stage, engine = embed_image_stage.STAGE, Inline(count)
            outcome, _ = carry_out(stage, state, work, engine, warehouse=store, shards=count)
            assert_same(local, draft.commit(outcome.facts, outcome.summary))
        assert ("3 embedded" in outcome.summary) == (state == "cold")
        shutil.rmtree(local.folder)
