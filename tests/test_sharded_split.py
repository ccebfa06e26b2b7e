"""Split by ranges of users against the local stage: every protocol, however users and files are divided."""

import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers import EXAMPLE, Run, run_chain
from hypothesis import given, settings
from hypothesis import strategies as st
from sharding import assert_same, by_shards
from test_split import CASES, MANY, NAMES, Event, Store, events_of

from sid_pipelines.packed import pack, unpack
from sid_pipelines.protocols import PROTOCOLS
from sid_pipelines.sharded import SHARDED, ranges
from sid_pipelines.sharded.inline import Inline
from sid_pipelines.sharded.job import Engine, Job
from sid_pipelines.sharded.ranges import user_ranges
from sid_pipelines.sharded.shards import Shards
from sid_pipelines.sharded.stages import split as sharded_split
from sid_pipelines.split import SplitParams
from sid_pipelines.stage import Resources
from sid_schemas import DataError, WarehouseError
from sid_schemas.tables import EVENTS
from sid_warehouse import parquet
from sid_warehouse.stages import StageOutput

SAMPLES: dict[str, Any] = {"cut": "samples", "ratios": [0.4, 0.2, 0.4]}


class Sharded(Store):
    """A store whose stages also run by shards, in an order that a seed draws."""

    def by_shards(
        self, stage: str, params: object, count: int, seed: int = 0, engine: Engine | None = None
    ) -> StageOutput:
        scratch = self.folder / f"scratch{len(list(self.folder.iterdir()))}"
        shards = Shards(engine or Inline(seed), scratch, Resources(), count)
        return self._output(stage, params, lambda draft: SHARDED[stage](self._work(params, draft), shards))

    def split_twice(self, params: SplitParams, count: int, seed: int = 0) -> StageOutput | str:
        """Split locally and by shards, compare, and give the output, or what the error says."""
        local = output_or_error(
            lambda: self.split(params.protocol, dict(params.params), params.ties, params.seed)
        )
        compare(local, output_or_error(lambda: self.by_shards("split", params, count, seed)))
        return local


def output_or_error(run: Callable[[], StageOutput]) -> StageOutput | str:
    try:
        return run()
    except DataError as error:
        return str(error)


def compare(local: StageOutput | str, sharded: StageOutput | str) -> None:
    if isinstance(local, str) or isinstance(sharded, str):
        assert sharded == local
    else:
        assert_same(local, sharded)


@contextmanager
def small_files(rows: int = 7, groups: int = 3) -> Iterator[None]:
    """Cut tables into short row groups and parts of so many of them, so that users straddle both."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "ROWS_PER_GROUP", rows)
        patch.setattr(parquet, "ROWS_PER_PART", rows * groups)
        yield


def busy_events() -> list[Event]:
    """Give events of 25 users, one of whom has a third of them; many tie, in and beside sessions."""
    draw = np.random.default_rng(1)
    of = [(7 if draw.random() < 0.3 else int(draw.integers(25)), int(draw.integers(12))) for _ in range(300)]
    return events_of([(user, item, int(draw.integers(30)), int(draw.integers(5))) for user, item in of])


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Sharded:
    with small_files():
        return Sharded(tmp_path_factory.mktemp("busy"), busy_events())


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_chain(EXAMPLE, tmp_path_factory.mktemp("dump"), until="split")


@pytest.mark.parametrize(("count", "seed"), [(1, 0), (2, 1), (3, 2), (7, 3)])
def test_any_number_of_shards_gives_the_local_tables(
    dump: Run, tmp_path: Path, count: int, seed: int
) -> None:
    assert_same(dump.outputs["split"], by_shards(dump, "split", tmp_path, count, seed=seed))


def test_there_may_be_more_shards_than_users(busy: Sharded) -> None:
    local = busy.split_twice(SplitParams("leave-one-out", {}, "hash", 0), count=60)
    assert not isinstance(local, str)


@pytest.mark.parametrize(("name", "params"), CASES, ids=NAMES)
def test_every_protocol_gives_the_local_labels(busy: Sharded, name: str, params: dict[str, Any]) -> None:
    local = busy.split_twice(SplitParams(name, params, "hash", seed=3), count=3)
    assert not isinstance(local, str), local


@pytest.mark.parametrize(("name", "params"), [("global-time", SAMPLES), ("leave-one-out", {})])
def test_ties_by_source_are_the_local_ones(busy: Sharded, name: str, params: dict[str, Any]) -> None:
    local = busy.split_twice(SplitParams(name, params, "source", seed=0), count=6)
    hashed = busy.split(name, params, "hash")
    assert not isinstance(local, str), local
    assert not local.read("interactions").equals(hashed.read("interactions"))


@settings(max_examples=8)
@given(
    events=MANY,
    case=st.sampled_from(CASES),
    ties=st.sampled_from(["hash", "source"]),
    count=st.integers(1, 9),
    rows=st.integers(1, 12),
    seed=st.integers(0, 3),
)
def test_any_events_in_any_files(
    tmp_path_factory: pytest.TempPathFactory,
    events: list[Event],
    case: tuple[str, dict[str, Any]],
    ties: str,
    count: int,
    rows: int,
    seed: int,
) -> None:
    with small_files(rows, 2), pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges, "ROWS", 20)
        made = Sharded(tmp_path_factory.mktemp("split"), events)
        made.split_twice(SplitParams(*case, ties, seed), count, seed)


@pytest.mark.parametrize(
    ("name", "params", "said"),
    [
        ("leave-k-out", {"k": 900}, "leaves no test event of"),
        ("global-time", {"cuts": [0, 1]}, r"leaves no train event .*\(cuts: 1970.*; first and last event: "),
        ("per-user-ratio", {"ratios": [0.5, 0.6, 0.1]}, "expected shares"),
    ],
)
def test_errors_are_the_local_ones(busy: Sharded, name: str, params: dict[str, Any], said: str) -> None:
    local = busy.split_twice(SplitParams(name, params, "hash", 0), count=3)
    assert isinstance(local, str)
    assert re.search(said, local), local


def test_what_preparing_refuses_is_refused_alike(tmp_path: Path) -> None:
    made = Sharded(tmp_path, [Event(f"u{user}", "i", 1_000_000 + user) for user in range(9)])
    local = made.split_twice(SplitParams("global-time", SAMPLES, "hash", 0), count=3)
    assert isinstance(local, str)
    assert "no event has a history" in local


def test_lost_rows_are_noticed(busy: Sharded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharded_split, "user_ranges", lambda *given: user_ranges(*given)[1:])
    with pytest.raises(WarehouseError, match="split: the engine lost or doubled rows: interactions"):
        busy.by_shards("split", SplitParams("leave-one-out", {}, "hash", 0), 3)


def test_tasks_can_be_sent_to_workers(busy: Sharded) -> None:
    jobs: list[Job] = []

    class Kept(Inline):
        def run(self, job: Job, scratch: Path, resources: Resources) -> None:
            jobs.append(job)
            super().run(job, scratch, resources)

    busy.by_shards("split", SplitParams("user-holdout", {}, "hash", 0), 9, engine=Kept())
    assert [step.name for step in jobs[0].steps] == ["prepare", "label", "merge"]
    assert len(pickle.dumps(jobs)) < 100_000


def test_only_these_protocols_look_ahead() -> None:
    looking = {name for name, protocol in PROTOCOLS.items() if protocol().looks_ahead}
    assert looking == {"global-time", "user-holdout", "cold-items"}


def test_packed_numbers_come_back(tmp_path: Path) -> None:
    turned = np.arange(6, dtype=np.int32).reshape(2, 3).T
    arrays = {"turned": turned, "none": np.empty(0, dtype=np.int64)}
    for name in ("a", "b"):
        pack(tmp_path / name, {"x": 2**63 + 1, "y": ["é", None]}, arrays)
    known, back = unpack(tmp_path / "a")
    assert known == {"x": 2**63 + 1, "y": ["é", None]}
    assert back["turned"].tolist() == turned.tolist()
    assert (back["none"].dtype, len(back["none"])) == (np.int64, 0)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    pack(tmp_path / "c", {}, {})
    assert unpack(tmp_path / "c") == ({}, {})


# --- ranges of users


def write_events(folder: Path, counts: list[int]) -> list[Path]:
    """Write events of users with so many each."""
    n = sum(counts)
    rows = {name: [None] * n for name in ("value", "session_id", "query", "position")}
    rows |= {"user_index": np.repeat(np.arange(len(counts)), counts), "item_index": [0] * n}
    rows |= {"ts": list(range(n)), "event_type": ["view"] * n, "source_file": ["f"] * n}
    table = pa.table(rows | {"source_row": list(range(1, n + 1))})
    parquet.write(folder, EVENTS, table.select(EVENTS.names).cast(EVENTS.arrow()))
    return parquet.parts(folder, "events")


@settings(max_examples=20)
@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    count=st.integers(1, 15),
    rows=st.integers(1, 20),
    piece=st.integers(1, 50),
)
def test_ranges_hold_every_user_once(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], count: int, rows: int, piece: int
) -> None:
    with small_files(rows, 2), pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges, "ROWS", piece)
        parts = write_events(tmp_path_factory.mktemp("ranges"), counts)
        found = user_ranges(parts, len(counts), count)
    assert 1 <= len(found) <= count
    assert (found[0].first, found[-1].stop) == (0, len(counts))
    assert all(before.stop == after.first for before, after in pairwise(found))
    times = []
    for one in found:
        assert one.rows == sum(counts[one.first : one.stop])
        for chunk in one.chunks(["user_index", "ts"]):
            assert len(set(chunk.users.tolist())) == 1 or len(chunk) < piece + max(counts)
            whose, sizes = np.unique(chunk.users, return_counts=True)
            assert sizes.tolist() == [counts[user] for user in whose]
            times += chunk.ts.tolist()
    assert times == list(range(sum(counts)))


def test_only_row_groups_with_own_rows_are_read(tmp_path: Path) -> None:
    with small_files(10, 4):
        parts = write_events(tmp_path, [4] * 50)
    assert len(parts) == 5
    own = user_ranges(parts, 50, 10)[3]
    held = [(one.path.name, one.start, one.stop) for piece in own.pieces for one in piece]
    assert (own.first, own.stop, held) == (15, 20, [("part-00001.parquet", 20, 40)])


def test_a_giant_user_is_one_range(tmp_path: Path) -> None:
    with small_files(10, 4):
        parts = write_events(tmp_path, [3, 2, 200, 1, 4])
    found = user_ranges(parts, 5, 8)
    assert [(one.first, one.stop, one.rows) for one in found] == [(0, 2, 5), (2, 5, 205)]
    assert replace(found[0], pieces=()).rows == 0
