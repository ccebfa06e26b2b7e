"""Sequences by ranges of users against the local stage: samples, items, impressions, twins, byte for byte."""

from pathlib import Path
from typing import Any

import pytest
from helpers import EXAMPLE, Run, more_dump, quickly, run_append, run_chain, searched_dump, small_dump
from hypothesis import given, settings
from hypothesis import strategies as st
from sharding import assert_same, by_shards, stage_by_shards
from test_sharded_split import Sharded, busy_events, compare, output_or_error, small_files
from test_split import CASES, EXPANSIONS, MANY, Event

from sid_pipelines.protocols import protocol_named
from sid_pipelines.sequences import SequencesParams, Tally
from sid_pipelines.sharded import ranges
from sid_pipelines.sharded.inline import Inline
from sid_pipelines.sharded.ranges import user_ranges
from sid_pipelines.sharded.stages import sequences as sharded_sequences
from sid_schemas import WarehouseError
from sid_warehouse.stages import StageOutput


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Sharded:
    with small_files():
        return Sharded(tmp_path_factory.mktemp("busy"), busy_events())


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_chain(EXAMPLE, tmp_path_factory.mktemp("dump"), until="sequences")


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("listed")
    return run_chain(searched_dump(folder), folder / "w", until="sequences")


def twice(
    made: Sharded, divided: StageOutput, params: SequencesParams, count: int, seed: int = 0
) -> StageOutput | str:
    """Make sequences locally and by shards, compare, and give the output, or what the error says."""
    local = output_or_error(lambda: made.sequences(divided, params))
    compare(local, output_or_error(lambda: made.by_shards("sequences", params, count, seed)))
    return local


@pytest.mark.parametrize(("count", "seed"), [(1, 0), (2, 1), (3, 2), (7, 3)])
def test_any_number_of_shards_gives_the_local_tables(
    dump: Run, tmp_path: Path, count: int, seed: int
) -> None:
    assert_same(dump.outputs["sequences"], by_shards(dump, "sequences", tmp_path, count, seed=seed))


@pytest.mark.parametrize("count", [1, 3, 30])
def test_impressions_and_sessions_are_the_local_ones(listed: Run, tmp_path: Path, count: int) -> None:
    local = listed.outputs["sequences"]
    assert local.manifest["rows"]["impressions"] > 0
    assert local.facts["left_out"]
    assert_same(local, by_shards(listed, "sequences", tmp_path, count, seed=count))


@pytest.mark.parametrize(
    ("expansion", "window", "name", "params"),
    [
        *((expansion, window, "per-user-ratio", {"draw": "random"}) for expansion, window in EXPANSIONS),
        ("prefix", 0, "global-time", {"cut": "samples", "ratios": [0.4, 0.2, 0.4]}),
        ("prefix", 0, "cold-items", {"ratios": [0.6, 0.2, 0.2]}),
        ("prefix", 3, "sessions", {"next": 3, "gap_minutes": 15.0}),
    ],
)
def test_every_expansion_gives_the_local_samples(
    busy: Sharded, expansion: str, window: int, name: str, params: dict[str, Any]
) -> None:
    with small_files():
        divided = busy.split(name, params)
    params_of = SequencesParams(expansion, window, protocol_named(name, params).sessions)
    local = twice(busy, divided, params_of, count=3)
    assert not isinstance(local, str), local


def test_a_range_may_be_read_in_pieces(busy: Sharded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "ROWS", 30)
    divided = busy.split("leave-one-out", {})
    local = twice(busy, divided, SequencesParams(), count=2)
    assert not isinstance(local, str)
    assert len(busy.by_shards("sequences", SequencesParams(), 2).parts("sequences")) > 4


@settings(max_examples=5)
@given(
    events=MANY,
    case=st.sampled_from(CASES),
    expansion=st.sampled_from(EXPANSIONS),
    count=st.integers(1, 6),
    rows=st.integers(1, 12),
    seed=st.integers(0, 3),
)
def test_any_events_in_any_files(
    tmp_path_factory: pytest.TempPathFactory,
    events: list[Event],
    case: tuple[str, dict[str, Any]],
    expansion: tuple[str, int],
    count: int,
    rows: int,
    seed: int,
) -> None:
    made = Sharded(tmp_path_factory.mktemp("sequences"), events)
    with small_files(rows, 2):
        divided = output_or_error(lambda: made.split(*case, seed=seed))
    if not isinstance(divided, str):
        twice(made, divided, SequencesParams(*expansion, protocol_named(*case).sessions), count, seed)


def test_new_users_only_are_refused_alike(tmp_path: Path) -> None:
    events = [
        Event(f"u{user}", f"i{n}", 1_000_000 + 10 * user) for user in range(9) for n in range(user != 8)
    ]
    events += [Event("u8", "i0", 9_000_000)]
    made = Sharded(tmp_path, events)
    divided = made.split("global-time", {"cuts": [1_000_050, 8_000_000]})
    local = twice(made, divided, SequencesParams(), count=3)
    assert isinstance(local, str)
    assert local.startswith("sequences: none of 1 test event has a history: their users are new.")


def test_lost_rows_are_noticed(busy: Sharded, monkeypatch: pytest.MonkeyPatch) -> None:
    busy.sequences(busy.split("leave-one-out", {}), SequencesParams())
    monkeypatch.setattr(sharded_sequences, "user_ranges", lambda *given: user_ranges(*given)[:-1])
    with pytest.raises(WarehouseError, match="sequences: the engine lost or doubled rows: events"):
        busy.by_shards("sequences", SequencesParams(), 3)


def test_an_append_gives_the_local_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quickly(monkeypatch)
    recipe = small_dump(tmp_path)
    recipe.write_text(f'{recipe.read_text()}[[embed]]\nmodel = "hashing"\ndim = 32\n')
    run_chain(recipe, tmp_path / "w")
    appended = run_append(more_dump(tmp_path / "more"), tmp_path / "w", until="sequences")
    for planned in appended.plan.stages[-2:]:
        inputs = planned.inputs({**appended.plan.given, **appended.outputs})
        done = stage_by_shards(planned, inputs, tmp_path / "s", 3, Inline())
        assert_same(appended.outputs[planned.label], done)
    assert [planned.label for planned in appended.plan.stages[-2:]] == ["text", "sequences"]


def test_merged_tallies_are_one() -> None:
    one, other, both = (Tally(SequencesParams()) for _ in range(3))
    for tally, lengths in ((one, [1, 1, 4]), (other, [4, 2])):
        for each in (tally, both):
            each.counts["test", "samples"] += len(lengths)
            each.lengths["test"].update(lengths)
    one.merge(*other.counted())
    assert (one.counts, one.lengths) == (both.counts, both.lengths)
