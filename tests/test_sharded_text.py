"""Text by ranges of items against the local stage: any template, enriched or not, in any number of ranges."""

from pathlib import Path
from typing import Any

import pytest
from helpers import EXAMPLE, Run, odd_dump, run_chain, small_dump
from sharding import assert_same, by_shards
from test_enriched import descriptions, with_enriched, write

from sid_pipelines.sharded.inline import Inline
from sid_pipelines.sharded.job import Job
from sid_pipelines.sharded.slices import cut
from sid_pipelines.sharded.stages import text as sharded_text
from sid_pipelines.stage import Resources
from sid_schemas import SourceError, WarehouseError

HASHING = '[[embed]]\nmodel = "hashing"\ndim = 32\n'
NOTHING_CLEANED = f'{HASHING}template = "{{brand}} {{price}}: {{title}} {{categories}}"\nclean_text = false\n'


class Counting(Inline):
    """Counts the jobs that it is given."""

    jobs = 0

    def run(self, job: Job, scratch: Path, resources: Resources) -> None:
        self.jobs += 1
        super().run(job, scratch, resources)


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_chain(EXAMPLE, tmp_path_factory.mktemp("dump"), until="text")


@pytest.mark.parametrize(("count", "seed"), [(1, 0), (2, 1), (3, 2), (7, 3)])
def test_any_number_of_shards_gives_the_local_tables(
    dump: Run, tmp_path: Path, count: int, seed: int
) -> None:
    assert_same(dump.outputs["text"], by_shards(dump, "text", tmp_path, count, seed=seed))


@pytest.mark.parametrize("more", [HASHING, NOTHING_CLEANED])
@pytest.mark.parametrize("count", [3, 50])
def test_odd_items_give_the_local_texts(tmp_path: Path, more: str, count: int) -> None:
    run = run_chain(odd_dump(tmp_path / "d", f"[clean]\nk_core = 1\n{more}"), tmp_path / "w", until="text")
    assert_same(run.outputs["text"], by_shards(run, "text", tmp_path / "s", count))
    assert run.outputs["text"].facts["empty"] or more == NOTHING_CLEANED


def test_so_little_text_that_one_range_has_it_needs_no_cluster(
    dump: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Counting()
    assert_same(dump.outputs["text"], by_shards(dump, "text", tmp_path / "a", 0, engine=engine))
    assert engine.jobs == 0
    monkeypatch.setattr(sharded_text, "BYTES", 20_000)
    done = by_shards(dump, "text", tmp_path / "b", 0, engine=engine)
    assert_same(dump.outputs["text"], done)
    assert engine.jobs == 1
    assert 1 < len(done.parts("texts")) < 20


@pytest.mark.parametrize("count", [2, 40])
def test_enriched_texts_are_the_local_ones(
    tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharded_text.text, "ROWS", 2)
    run = enriched(tmp_path)
    assert run.outputs["text"].facts["enriched"]["of_other_items"] == 1
    assert_same(run.outputs["text"], by_shards(run, "text", tmp_path / "s", count))


@pytest.mark.parametrize("change", [slice(1, None), slice(None, -1)])
def test_enriched_texts_are_refused_alike(tmp_path: Path, change: slice) -> None:
    run = enriched(tmp_path)
    path = tmp_path / "descriptions.jsonl"
    write(path, descriptions(tmp_path / "dump" / "movies.dat")[change])
    with pytest.raises(SourceError, match=r"jsonl: changed while it was read") as caught:
        by_shards(run, "text", tmp_path / "s", 3)
    with pytest.raises(SourceError) as local:
        by_shards(run, "text", tmp_path / "t", 1)
    assert str(caught.value) == str(local.value)


def test_a_file_that_is_gone_is_refused_alike(tmp_path: Path) -> None:
    run, said = enriched(tmp_path), set()
    (tmp_path / "descriptions.jsonl").unlink()
    for count in (1, 3):
        with pytest.raises(SourceError, match=r"descriptions\.jsonl: cannot be read") as caught:
            by_shards(run, "text", tmp_path / str(count), count)
        said.add(str(caught.value))
    assert len(said) == 1


def enriched(folder: Path) -> Run:
    recipe = with_enriched(small_dump(folder), "descriptions.jsonl")
    rows: list[dict[str, Any]] = descriptions(folder / "dump" / "movies.dat")
    write(folder / "descriptions.jsonl", [rows[0] | {"item_id": "of no item"}, *reversed(rows)])
    return run_chain(recipe, folder / "w", until="text")


def test_lost_rows_are_noticed(dump: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharded_text, "cut", lambda *given: cut(*given)[1:])
    with pytest.raises(WarehouseError, match="text: the engine lost or doubled rows: texts"):
        by_shards(dump, "text", tmp_path, 3)
