"""Split and sequences: every protocol, expansion and leak rule against a slow, obvious twin."""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from helpers import ROOT, Run, run_chain, write_dump
from hypothesis import given, settings
from hypothesis import strategies as st

from sid_pipelines import audit, chunks, gates, placed, sequences, shown, split
from sid_pipelines.chunks import Chunk
from sid_pipelines.order import Events
from sid_pipelines.protocols import PROTOCOLS, protocol_named
from sid_pipelines.protocols.base import cut_places
from sid_pipelines.sequences import SequencesParams
from sid_pipelines.stage import Outcome, Resources, Work
from sid_schemas import DataError, RecipeError
from sid_schemas.tables import EVENTS, INTERACTIONS, ITEMS_CLEAN, SPLIT_NAMES, TEXTS, USERS, Table
from sid_warehouse import files, parquet
from sid_warehouse.db import connect, view
from sid_warehouse.stages import StageDraft, StageOutput, StageStore

DATA = ROOT.parent / "shared" / "data"
MINUTE = 60_000
realdata = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real dumps are not there: {DATA}")
MOVIES = [f"{m:07d}::Film {m} (1950)::Drama" for m in range(10)]


@dataclass(frozen=True)
class Event:
    """One event under the source's own ids; sid is the session id."""

    user: str
    item: str
    ts: int
    sid: str | None = None


@dataclass(frozen=True)
class Labelled:
    event: Event
    split: str


def events_of(triples: list[tuple[int, int, int, int]]) -> list[Event]:
    """Give distinct events; times are few, so that many tie."""
    seen = {(u, i, t): s for u, i, t, s in triples}
    return [
        Event(f"u{u}", f"i{i}", 1_000_000 + t * 20 * MINUTE, f"s{s}" if s else None)
        for (u, i, t), s in seen.items()
    ]


MANY = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 6), st.integers(0, 7), st.integers(0, 6)),
    min_size=8,
    max_size=60,
).map(events_of)


class Store:
    """Stage outputs made by hand: cleaned events in, split and sequences out."""

    def __init__(self, folder: Path, events: list[Event]) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.events = events
        self.users = sorted({event.user for event in events})
        self.items = sorted({event.item for event in events})
        rows = [
            {
                "user_index": self.users.index(one.user), "item_index": self.items.index(one.item),
                "ts": one.ts, "event_type": "view", "value": None, "session_id": one.sid, "query": None,
                "position": None, "source_file": "d/f", "source_row": row + 1,
            }
            for row, one in enumerate(events)
        ]  # fmt: skip
        rows.sort(key=lambda row: (row["user_index"], row["ts"], row["source_row"]))
        plain = {"title": None, "description": None, "brand": None, "price": None, "image_ref": None}
        items = [{"item_index": n, "item_id": i, "category_path": [], "domain": "d", **plain}
                 for n, i in enumerate(self.items)]  # fmt: skip
        users = [{"user_index": n, "user_id": user} for n, user in enumerate(self.users)]
        texts = [{"item_index": n, "item_id": i, "text": i} for n, i in enumerate(self.items)]
        self.clean = self._made("clean", {EVENTS: rows, USERS: users, ITEMS_CLEAN: items})
        self.inputs = {"ingest": self._made("ingest", {}), "clean": self.clean}
        self.inputs["text"] = self._made("text", {TEXTS: texts})

    def _output(self, stage: str, params: object, run: Callable[[StageDraft], Outcome]) -> StageOutput:
        """Run a stage without what a real store does to make it last."""
        folder = self.folder / f"{stage}{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        draft = StageDraft(StageStore(self.folder, "made"), stage, "k", {}, folder, {}, 0.0)
        outcome = run(draft)
        manifest = {"facts": outcome.facts, "rows": draft.rows, "params": params.__dict__}
        manifest |= {"summary": outcome.summary, "files": files.inventory(folder)}
        return StageOutput(folder, manifest)

    def _made(self, stage: str, tables: dict[Table, list[dict[str, Any]]]) -> StageOutput:
        def run(draft: StageDraft) -> Outcome:
            for table, rows in tables.items():
                draft.write(table, pa.Table.from_pylist(rows, table.arrow()))
            return Outcome({}, "")

        return self._output(stage, SimpleNamespace(), run)

    def split(self, name: str, params: dict[str, Any], ties: str = "hash", seed: int = 0) -> StageOutput:
        made = split.SplitParams(name, params, ties, seed)
        return self._output("split", made, lambda draft: split.run(self._work(made, draft)))

    def sequences(self, divided: StageOutput, params: SequencesParams) -> StageOutput:
        self.inputs["split"] = divided
        return self._output("sequences", params, lambda draft: sequences.run(self._work(params, draft)))

    def _work(self, params: object, draft: StageDraft) -> Work:
        return Work(params, self.inputs, draft, Resources(), lambda done, total: None)

    def labelled(self, output: StageOutput) -> list[Labelled]:
        """Give the written interactions under the source's own ids."""
        return [
            Labelled(
                Event(
                    self.users[row["user_index"]], self.items[row["item_index"]], row["ts"], row["session_id"]
                ),
                row["split"],
            )
            for row in output.read("interactions").to_pylist()
        ]


def md5(*parts: object) -> str:
    return hashlib.md5(chr(31).join(str(part) for part in parts).encode()).hexdigest()


def tie(event: Event, seed: object) -> str:
    """Give the content hash; what is null is left out."""
    return md5(seed, event.user, event.ts, event.item, "view", *([event.sid] if event.sid else []))


def declared(event: Event, seed: int) -> tuple[int, str, str]:
    """Give what events are ordered by; "" is before every hash, as 0 is."""
    return event.ts, md5(seed, event.sid)[:16] if event.sid else "", tie(event, seed)


def by_user(events: list[Event], seed: int) -> dict[str, list[Event]]:
    """Give each user's events in the declared order."""
    return {
        user: sorted((one for one in events if one.user == user), key=lambda one: declared(one, seed))
        for user in sorted({one.user for one in events})
    }


def floors(ratios: tuple[float, ...], n: int) -> tuple[int, int]:
    train, valid = Fraction(str(ratios[0])), Fraction(str(ratios[1]))
    return int(train * n), int((train + valid) * n)


def named(rank: int, bounds: tuple[int, int]) -> str:
    return "train" if rank < bounds[0] else "valid" if rank < bounds[1] else "test"


def slow_sessions(own: list[Event], gap: float) -> list[list[Event]]:
    """Give the events in sessions, one after another."""
    found: list[list[Event]] = []
    for number, one in enumerate(own):
        before = own[number - 1] if number else None
        goes_on = before is not None and (
            one.sid == before.sid if one.sid or before.sid else one.ts - before.ts <= gap
        )
        goes_on |= any(early.sid and early.sid == late.sid for early in own[:number] for late in own[number:])
        if goes_on:
            found[-1].append(one)
        else:
            found.append([one])
    return found


def slow(name: str, params: dict[str, Any], events: list[Event], seed: int) -> list[Labelled]:
    """Divide the events in the plainest way there is."""
    users = by_user(events, seed)
    ratios = tuple(params.get("ratios", (0.8, 0.1, 0.1)))
    split_of: dict[Event, str] = {}
    if name in ("leave-one-out", "leave-k-out"):
        k = params.get("k", 2) if name == "leave-k-out" else 1
        for own in users.values():
            for place, one in enumerate(own):
                left = len(own) - place
                short = len(own) < 2 * k + 1
                split_of[one] = "train" if short or left > 2 * k else "test" if left <= k else "valid"
    elif name == "global-time" and params.get("cut") == "samples":
        samples = [(declared(one, seed), user, one) for user, own in users.items() for one in own[1:]]
        bounds = floors(ratios, len(samples))
        ordered = sorted(samples, key=lambda sample: sample[:2])
        split_of = {sample[2]: named(rank, bounds) for rank, sample in enumerate(ordered)}
        first_cut = ordered[bounds[0]][0][0] if ordered else 0
        for own in users.values():
            split_of[own[0]] = "train" if own[0].ts < first_cut else "context"
    elif name == "global-time":
        times = sorted(one.ts for one in events)
        cuts = params.get("cuts") or [times[place] for place in floors(ratios, len(times))]
        for one in events:
            split_of[one] = "train" if one.ts < cuts[0] else "valid" if one.ts < cuts[1] else "test"
    elif name == "per-user-ratio":
        for own in users.values():
            train, valid = floors(ratios, len(own))
            if params.get("draw") == "random":
                own = sorted(own, key=lambda one: tie(one, f"draw {seed}"))
            for rank, one in enumerate(own):
                split_of[one] = named(rank, (max(train, 1), max(train, valid, 1)))
    elif name == "user-holdout":
        drawn = sorted(users, key=lambda user: md5(seed, user))
        for rank, user in enumerate(drawn):
            role, own = named(rank, floors(ratios, len(drawn))), users[user]
            kept = min(max(int(Fraction(str(params.get("fold_in", 0.8))) * len(own)), 1), len(own) - 1)
            for place, one in enumerate(own):
                held = role != "train" and len(own) > 1
                split_of[one] = "train" if not held else "context" if place < kept else role
    elif name == "cold-items":
        first = {one.item: min(other.ts for other in events if other.item == one.item) for one in events}
        newest = params.get("draw") == "time"
        drawn = sorted(first, key=lambda item: (first[item] if newest else 0, md5(seed, item)))
        roles = {item: named(rank, floors(ratios, len(drawn))) for rank, item in enumerate(drawn)}
        split_of = {one: roles[one.item] for one in events}
    else:
        for own in users.values():
            found = slow_sessions(own, params.get("gap_minutes", 30.0) * MINUTE)
            for number, session in enumerate(found):
                left = len(found) - number
                for one in session:
                    split_of[one] = (
                        "train" if len(found) < 3 or left > 2 else "test" if left == 1 else "valid"
                    )
    return [Labelled(one, split_of[one]) for own in users.values() for one in own]


CASES: list[tuple[str, dict[str, Any]]] = [
    ("leave-one-out", {}),
    ("leave-k-out", {"k": 1}),
    ("leave-k-out", {}),
    ("global-time", {}),
    ("global-time", {"ratios": [0.5, 0.0, 0.5]}),
    ("global-time", {"cuts": [1_000_000 + 60 * MINUTE, 1_000_000 + 100 * MINUTE]}),
    ("global-time", {"cut": "samples"}),
    ("global-time", {"cut": "samples", "ratios": [0.4, 0.0, 0.6]}),
    ("per-user-ratio", {"ratios": [0.6, 0.2, 0.2]}),
    ("per-user-ratio", {"draw": "random", "ratios": [0.5, 0.2, 0.3]}),
    ("user-holdout", {"ratios": [0.5, 0.2, 0.3]}),
    ("user-holdout", {"ratios": [0.5, 0.0, 0.5], "fold_in": 0.29}),
    ("cold-items", {"ratios": [0.6, 0.2, 0.2]}),
    ("cold-items", {"draw": "time", "ratios": [0.6, 0.2, 0.2]}),
    ("sessions", {}),
    ("sessions", {"next": 3, "gap_minutes": 15.0}),
]
NAMES = [f"{name} {params}" if params else name for name, params in CASES]


def divided(made: Store, name: str, params: dict[str, Any], seed: int) -> StageOutput | None:
    """Split, or give None where the slow twin agrees that nothing is left to train on or to test."""
    if {"train", "test"} <= {one.split for one in slow(name, params, made.events, seed)}:
        return made.split(name, params, seed=seed)
    with pytest.raises(DataError, match=r"^split: "):
        made.split(name, params, seed=seed)
    return None


@pytest.mark.parametrize(("name", "params"), CASES, ids=NAMES)
@settings(max_examples=10)
@given(events=MANY, seed=st.integers(0, 3), shuffle=st.randoms(use_true_random=False))
def test_a_protocol_is_the_slow_one_in_any_row_order(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    params: dict[str, Any],
    events: list[Event],
    seed: int,
    shuffle: random.Random,
) -> None:
    expected = slow(name, params, events, seed)
    shuffle.shuffle(events)
    made = Store(tmp_path_factory.mktemp("split"), events)
    output = divided(made, name, params, seed)
    if output is None:
        return
    assert made.labelled(output) == expected
    found = output.facts["audit"]
    counts = {split: sum(one.split == split for one in expected) for split in SPLIT_NAMES}
    assert {split: found["events"].get(split, 0) for split in SPLIT_NAMES} == counts
    assert not audit.breaches(found["findings"])
    _rules_hold_twice(made, output)


def _rules_hold_twice(made: Store, output: StageOutput) -> None:
    """Check that arrays and SQL count the same for every rule of the protocol."""
    params = output.manifest["params"]
    protocol = protocol_named(params["protocol"], params["params"])
    counted = {one["rule"]: one["count"] for one in output.facts["audit"]["findings"]}
    with connect() as connection:
        view(connection, "interactions", output.parts("interactions"))
        placed.place(connection, {"sessions": protocol.sessions, "window": 0})
        for name in (*protocol.forbids, *protocol.allows):
            broken = audit.RULES[name].sql(audit.Context(protocol, output.facts))
            [(number,)] = connection.sql(f"select count(*) from placed where {broken}").fetchall()
            assert number == counted[name], name


def slow_samples(
    labelled: list[Labelled], params: SequencesParams, want: str
) -> Iterator[tuple[str, int, int, str, int, int]]:
    """Give the samples of one split: user, start, end, target, time, number of targets."""
    for user in sorted({one.event.user for one in labelled}):
        own = [one for one in labelled if one.event.user == user]
        lengths = [1] * len(own)
        if params.sessions:
            lengths = [0] * len(own)
            place = 0
            for session in slow_sessions([one.event for one in own], params.sessions[1]):
                lengths[place] = min(len(session), params.sessions[0])
                place += len(session)
        found = []
        for end, one in enumerate(own):
            start = 0
            if want == "train":
                while any(before.split in ("valid", "test") for before in own[start:end]):
                    start += 1
            if params.window:
                start = max(start, end - params.window)
            if one.split == want and lengths[end] and start < end:
                found.append((user, start, end, one.event.item, one.event.ts, lengths[end]))
        yield from found[-1:] if want == "train" and params.expansion == "last" else found


EXPANSIONS = [("prefix", 0), ("prefix", 1), ("window", 2), ("last", 0), ("last", 2)]


@pytest.mark.parametrize(("name", "params"), CASES, ids=NAMES)
@settings(max_examples=8)
@given(events=MANY, seed=st.integers(0, 3), expansion=st.sampled_from(EXPANSIONS))
def test_samples_are_the_slow_ones_and_keep_their_promises(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    params: dict[str, Any],
    events: list[Event],
    seed: int,
    expansion: tuple[str, int],
) -> None:
    made = Store(tmp_path_factory.mktemp("samples"), events)
    output = divided(made, name, params, seed)
    if output is None:
        return
    how = SequencesParams(*expansion, protocol_named(name, params).sessions)
    labelled = made.labelled(output)
    expected = {split: list(slow_samples(labelled, how, split)) for split in placed.SPLITS}
    if not expected["test"]:
        with pytest.raises(DataError, match="has a history"):
            made.sequences(output, how)
        return
    done = made.sequences(output, how)
    for table in placed.SPLITS:
        found = [
            (made.users[row["user_index"]], row["start"], row["end"], made.items[row["target"]],
             row["target_ts"], row["n_targets"])
            for row in done.read(table).to_pylist()
        ]  # fmt: skip
        assert found == expected[table]
        assert done.facts["samples"][table] == len(found)
    _counts_are_right(labelled, expected, done)
    assert set(_promised(output, done).values()) == {0}


def _counts_are_right(labelled: list[Labelled], expected: dict[str, Any], done: StageOutput) -> None:
    found = {(one["rule"], one["split"]): one["count"] for one in done.facts["findings"]}
    for name, samples in expected.items():
        repeated = tied = holding = 0
        for user, start, end, target, ts, _ in samples:
            history = [one for one in labelled if one.event.user == user][start:end]
            repeated += any(one.event.item == target for one in history)
            tied += history[-1].event.ts == ts
            holding += any(one.split in ("valid", "test") for one in history)
        counts = (repeated, tied, holding, 0)
        rules = ("repeated_targets", "tied_with_history", "held_out_in_history", "history_later_than_target")
        assert tuple(found[rule, name] for rule in rules) == counts
    assert not audit.breaches(done.facts["findings"])


def _promised(output: StageOutput, done: StageOutput) -> dict[str, float | None]:
    """Measure what the gates ask of sequences and samples."""
    with connect() as connection:
        view(connection, "interactions", output.parts("interactions"))
        view(connection, "sequences", done.parts("sequences"))
        placed.place(connection, done.manifest["params"])
        for table in placed.SPLITS:
            view(connection, f"{table}_stored", done.parts(table))
            placed.view_samples(connection, table, f"{table}_stored")
        checks = placed.sequence_promises()
        checks += placed.sample_promises(done.manifest["params"], done.facts["samples"])
        measured = gates.measure(connection, checks)
    return {f"{table}.{name}": n for table, found in measured.items() for name, n in found.items()}


def slow_rule(name: str, labelled: list[Labelled], cuts: list[int], gap: float) -> int:
    """Count what breaks a rule, event by event."""
    count = 0
    for one in labelled:
        own = [other for other in labelled if other.event.user == one.event.user]
        before = own[: own.index(one)]
        held = [other for other in labelled if other.split in ("valid", "test")]
        match name:
            case "train_after_own_held_out":
                count += one.split == "train" and any(other in held for other in before)
            case "valid_after_own_test":
                count += one.split == "valid" and any(other.split == "test" for other in before)
            case "test_before_last_train":
                last = max((other.event.ts for other in labelled if other.split == "train"), default=-1)
                count += one.split == "test" and one.event.ts < last
            case "train_after_cut":
                count += one.split == "train" and one.event.ts >= cuts[0]
            case "valid_after_cut":
                count += one.split == "valid" and one.event.ts >= cuts[1]
            case "equal_times_across_cut":
                count += (one.split, one.event.ts) in (("train", cuts[0]), ("valid", cuts[1]))
            case "train_of_held_out_users":
                count += one.split == "train" and any(other in held for other in own)
            case "train_of_held_out_items":
                count += one.split == "train" and any(other.event.item == one.event.item for other in held)
            case "sessions_divided":
                if one.event.sid:
                    same = [other for other in own if other.event.sid == one.event.sid]
                    count += same[0] is one and len({other.split for other in same}) > 1
                else:
                    inside = bool(before) and not before[-1].event.sid
                    inside = inside and one.event.ts - before[-1].event.ts <= gap
                    count += inside and before[-1].split != one.split
    return count


@settings(max_examples=8)
@given(events=MANY, draw=st.randoms(use_true_random=False))
def test_a_leak_is_counted_by_arrays_and_by_sql(
    tmp_path_factory: pytest.TempPathFactory, events: list[Event], draw: random.Random
) -> None:
    """Labels are drawn at random, so that every rule is broken somewhere."""
    labelled = [Labelled(one, draw.choice(SPLIT_NAMES)) for own in by_user(events, 0).values() for one in own]
    cuts = sorted(draw.choice(events).ts for _ in range(2))
    made = Store(tmp_path_factory.mktemp("leaks"), events)
    rows = [
        {"user_index": made.users.index(one.event.user), "item_index": made.items.index(one.event.item),
         "ts": one.event.ts, "event_type": "view", "source_file": "f", "source_row": 1,
         "session_id": one.event.sid, "split": one.split}
        for one in labelled
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, INTERACTIONS.arrow())
    parquet.write(made.clean.folder, INTERACTIONS, table)
    chunk = Chunk(table)
    for protocol in (cls() for cls in PROTOCOLS.values()):
        facts = {"cuts": cuts}
        watch = audit.Audit(protocol, facts, len(made.items))
        watch.add(chunk, chunk.labels)
        found = {one["rule"]: one["count"] for one in watch.result()["findings"]}
        with connect() as connection:
            view(connection, "interactions", made.clean.parts("interactions"))
            placed.place(connection, {"sessions": protocol.sessions, "window": 0})
            for name in (*protocol.forbids, *protocol.allows):
                broken = audit.RULES[name].sql(audit.Context(protocol, facts))
                [(number,)] = connection.sql(f"select count(*) from placed where {broken}").fetchall()
                assert number == found[name] == slow_rule(name, labelled, cuts, 30 * MINUTE), name


def at(user: str, rows: list[tuple[int, str | None]]) -> list[Event]:
    """Give events at (minute, session), each on its own item."""
    return [Event(user, f"i{n}", 1_000_000 + minute * MINUTE, sid) for n, (minute, sid) in enumerate(rows)]


def test_sessions_of_two_tabs_are_one(tmp_path: Path) -> None:
    """Sessions c and d stand between each other's events; b holds an event without session."""
    rows = [(0, "a"), (1, "a"), (2, "b"), (3, None), (4, "b"), (5, "c"), (6, "d"), (7, "c"), (8, "d")]
    made = Store(tmp_path, at("u", rows) + at("v", rows))  # the two users share the ids
    output = made.split("sessions", {"next": 9})
    found = made.labelled(output)
    splits = [one.split for one in found]
    assert splits == [*["train"] * 2, *["valid"] * 3, *["test"] * 4] * 2
    assert not audit.breaches(output.facts["audit"]["findings"])
    _rules_hold_twice(made, output)
    done = made.sequences(output, SequencesParams(sessions=protocol_named("sessions", {"next": 9}).sessions))
    assert [row["n_targets"] for row in done.read("test").to_pylist()] == [4, 4]
    assert set(_promised(output, done).values()) == {0}


def test_ties_do_not_shuffle_sessions_into_each_other(tmp_path: Path) -> None:
    made = Store(tmp_path, at("u", [(5, sid) for sid in "abc" * 6]))
    found = [one.event.sid for one in made.labelled(made.split("sessions", {}))]
    assert sum(one != other for one, other in pairwise(found)) == 2
    splits = {(one.event.sid, one.split) for one in made.labelled(made.split("sessions", {}))}
    assert len(splits) == 3


@pytest.mark.parametrize("column", ["session_id", "query", "position"])
def test_every_detail_is_hashed(column: str) -> None:
    """So that events equal in all else do not stand in the order of the dump's rows."""
    row: dict[str, Any] = {
        "user_index": [0] * 2, "item_index": [0] * 2, "ts": [1] * 2, "event_type": ["view"] * 2,
        "value": pa.nulls(2, pa.float64()), "session_id": pa.nulls(2, pa.string()),
        "query": pa.nulls(2, pa.string()), "position": pa.nulls(2, pa.int32()),
    }  # fmt: skip
    row[column] = [1, 2] if column == "position" else ["a", "b"]
    with duckdb.connect() as connection:
        events = Events(connection, [], pa.array(["u"]), pa.array(["i"]), "hash", 3)
        high, _ = events.hashes(Chunk(pa.table(row)), np.arange(2))
    assert high[0] != high[1]


@pytest.mark.parametrize("gap", [0.33333, 2.05, 4.1])
def test_the_gap_is_the_same_number_everywhere(tmp_path: Path, gap: float) -> None:
    params = {"gap_minutes": gap}
    protocol = protocol_named("sessions", params)
    milliseconds = round(gap * MINUTE)
    assert protocol.sessions == (1, milliseconds)
    times = [n * 20 * MINUTE + step for n in range(4) for step in (0, milliseconds, 2 * milliseconds + 1)]
    made = Store(tmp_path, [Event("u", f"i{n}", 1_000_000 + ts) for n, ts in enumerate(times)])
    output = made.split("sessions", params)
    assert output.facts["audit"]["events"] == {"train": 9, "valid": 2, "test": 1}
    _rules_hold_twice(made, output)
    done = made.sequences(output, SequencesParams(sessions=protocol.sessions))
    assert set(_promised(output, done).values()) == {0}


def test_cuts_in_seconds_are_shown_as_dates(tmp_path: Path) -> None:
    year = 365 * 86_400_000
    made = Store(tmp_path, [Event("u", f"i{n}", 40 * year + n) for n in range(9)])
    with pytest.raises(
        DataError, match=r"cuts: 1970-01-17T10:27:50, 1970-01-18T.* event: 2009-12-22T00:00:00"
    ):
        made.split("global-time", {"cuts": [1_420_070_400, 1_500_000_000]})


def test_histories_that_begin_anew_are_counted(tmp_path: Path) -> None:
    made = Store(tmp_path, events_of([(u, (3 * u + n) % 7, n, 0) for u in range(6) for n in range(7)]))
    output = made.split("cold-items", {"ratios": [0.6, 0.2, 0.2]})
    done = made.sequences(output, SequencesParams())
    rows = {split: done.read(split).to_pylist() for split in placed.SPLITS}
    [found] = [one for one in done.facts["findings"] if one["rule"] == "history_restarts"]
    assert found["count"] == sum(row["start"] > 0 for row in rows["train"]) > 0
    middle = {split: sorted(row["end"] - row["start"] for row in of) for split, of in rows.items()}
    train, test = (middle[split][(len(middle[split]) - 1) // 2] for split in ("train", "test"))
    assert f"(median length {train}, of test {test})" in found["says"]


def test_the_audit_sees_what_comes_in_many_chunks(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    triples = [tuple(int(n) for n in draw.integers(0, (40, 9, 30, 1))) for _ in range(600)]
    made = Store(tmp_path, events_of(triples))  # type: ignore[arg-type]
    output = made.split("per-user-ratio", {"draw": "random"})
    protocol = protocol_named("per-user-ratio", {"draw": "random"})
    watch = audit.Audit(protocol, {}, len(made.items))
    pieces = list(chunks.chunks(output.parts("interactions"), rows=50))
    assert len(pieces) > 5
    assert sum(len(piece.sizes) for piece in pieces) == len(made.users)
    for piece in pieces:
        watch.add(piece, piece.labels)
    assert watch.result() == output.facts["audit"]


def test_every_protocol_says_what_it_leaks() -> None:
    for name, cls in PROTOCOLS.items():
        protocol = cls()
        assert protocol.name == name
        assert protocol.leaks
        assert protocol.advice
        assert cls.__doc__ is not None
        assert "eak" in cls.__doc__
        assert set(protocol.forbids) <= set(audit.RULES)
        assert set(protocol.allows) <= set(audit.RULES)


def test_published_boundaries_can_be_said(tmp_path: Path) -> None:
    """The cuts of AmazonReviews2023, in all spellings, and MiniOneRec's arithmetic."""
    spelt: list[Any] = [
        [1628643414042, 1658002729837],
        ["2021-08-11T00:56:54.042Z", "2022-07-16T20:18:49.837+00:00"],
    ]
    made = [protocol_named("global-time", {"cuts": cuts}) for cuts in spelt]
    assert [one.params()["cuts"] for one in made] == [spelt[0]] * 2
    train, valid = cut_places([0.8, 0.1, 0.1], 45_324)
    assert (train, valid - train, 45_324 - valid) == (36_259, 4_532, 4_533)
    assert cut_places([0.8, 0.1, 0.1], np.array([5, 45_324])).__len__() == 2


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (
            "split.protocol=leave-one-in",
            r"split\.protocol: there are: leave-one-out, leave-k-out, global-time",
        ),
        ("split.k=2", r"split\.k"),
        ("split={protocol='leave-k-out', k=0}", "expected at least 1"),
        ("split={protocol='global-time', ratios=[0.8, 0.1]}", r"expected shares of train, valid and test"),
        ("split={protocol='cold-items', ratios=[0.9, 0.1, 0]}", "only valid may be 0"),
        ("split={protocol='global-time', cuts=['yesterday', 5]}", "'yesterday' is no moment"),
        ("split={protocol='global-time', cuts=[5, 4]}", "the first not after the second"),
        ("split={protocol='global-time', cuts=[4, 5], cut='samples'}", "does not go with cuts"),
        ("split={protocol='user-holdout', fold_in=1.0}", "expected a share between 0 and 1"),
        ("split={protocol='sessions', next=0}", "expected at least 1"),
        ("split={protocol='per-user-ratio', draw='newest'}", "draw = 'newest'"),
        ("split.expansion=window", "needs window"),
    ],
)
def test_a_wrong_split_is_refused_in_one_line(tmp_path: Path, key: str, message: str) -> None:
    recipe = write_dump(tmp_path, ["1::0000001::5::1000"], ["0000001::Film (1950)::Drama"])
    with pytest.raises(RecipeError, match=message) as caught:
        run_chain(recipe, tmp_path / "w", key, until="split")
    assert "\n" not in str(caught.value)


def test_the_recipe_reaches_the_split(tmp_path: Path) -> None:
    rows = [f"{u}::{m:07d}::7::{1_000_000 + 86_400 * m + u}" for u in (1, 2, 3) for m in range(8)]
    recipe = write_dump(tmp_path, rows, MOVIES)
    text = recipe.read_text() + (
        '[split]\nprotocol = "global-time"\ncuts = [1970-01-16, 1970-01-18T00:00:00Z]\nwindow = 2\n'
    )
    recipe.write_text(text)
    done = run_chain(recipe, tmp_path / "w", until="sequences")
    assert done.outputs["split"].facts["cuts"] == [15 * 86_400_000, 17 * 86_400_000]
    assert done.plan.recipe.as_written()["split"]["cuts"] == [15 * 86_400_000, 17 * 86_400_000]
    assert all(row["end"] - row["start"] <= 2 for row in done.outputs["sequences"].read("test").to_pylist())
    assert not any(
        planned.done is None for planned in run_chain(recipe, tmp_path / "w", until="split").plan.stages
    )


def test_nothing_left_says_what_to_change(tmp_path: Path) -> None:
    made = Store(tmp_path, events_of([(u, 1, 1, 0) for u in range(3)]))
    with pytest.raises(DataError, match="leave-one-out leaves no test event of 3; no user has 3 events"):
        made.split("leave-one-out", {})
    with pytest.raises(DataError, match="global-time leaves no train event of 3; move"):
        made.split("global-time", {})
    with pytest.raises(DataError, match="no event has a history"):
        made.split("global-time", {"cut": "samples"})
    later = Store(tmp_path / "later", events_of([(u, 1, u, 0) for u in range(5)]))
    with pytest.raises(DataError, match="none of 1 test event has a history"):
        later.sequences(later.split("global-time", {}), SequencesParams())


@realdata
@pytest.mark.realdata
@pytest.mark.parametrize(
    ("override", "cut"),
    [
        ("split.protocol=leave-one-out", False),
        ("split={protocol='global-time'}", True),
        ("split.protocol=cold-items", False),
        ("split={protocol='per-user-ratio', draw='random'}", False),
    ],
)
def test_impressions_belong_where_the_user_stood(tmp_path: Path, override: str, cut: bool) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'dataset = "m"\n[source]\nkind = "mind"\npath = "{DATA / "mind"}"\n')
    done = run_chain(recipe, tmp_path / "w", "clean.k_core=2", override, until="sequences")
    written = done.outputs["sequences"]
    lists = written.read("impressions").to_pylist()
    raw = done.outputs["ingest"].read("raw_impressions").to_pylist()
    users = {row["user_id"]: row["user_index"] for row in done.outputs["clean"].read("users").to_pylist()}
    items = {row["item_id"]: row["item_index"] for row in written.read("items").to_pylist()}
    own: dict[int, list[dict[str, Any]]] = {}
    for row in done.outputs["split"].read("interactions").to_pylist():
        own.setdefault(row["user_index"], []).append(row)
    cuts = done.outputs["split"].facts.get("cuts")
    assert bool(cuts) is cut
    expected = []
    for row in raw:
        kept = [n for n, item in enumerate(row["items"]) if item in items]
        if row["user_id"] not in users or not kept:
            continue
        user = users[row["user_id"]]
        before = [event["split"] for event in own[user] if event["ts"] <= row["ts"]]
        where = before[-1] if before else own[user][0]["split"]
        clicks = {
            items.get(item) for item, clicked in zip(row["items"], row["clicked"], strict=True) if clicked
        }
        clicked = {e["split"] for e in own[user] if e["ts"] == row["ts"] and e["item_index"] in clicks}
        where = next((one for one in ("test", "valid", "context", "train") if one in clicked), where)
        if cut:
            where = ["train", "valid", "test"][sum(row["ts"] >= one for one in cuts)]
        listed = [[row[name][n] for n in kept] for name in ("items", "clicked", "positions")]
        listed[0] = [items[item] for item in listed[0]]
        expected.append(
            (user, row["ts"], row["source_file"], row["source_row"], *listed, len(row["items"]), where)
        )
    names = (
        "user_index",
        "ts",
        "source_file",
        "source_row",
        "items",
        "clicked",
        "positions",
        "n_shown",
        "split",
    )
    assert [tuple(row[name] for name in names) for row in lists] == sorted(expected)
    left = written.facts["left_out"]
    assert left["impressions"] == len(raw) - len(lists)
    assert left["shown_items"] == sum(len(row["items"]) for row in raw) - sum(
        len(row["items"]) for row in lists
    )
    with connect() as connection:
        for name in ("impressions", "items"):
            view(connection, name, written.parts(name))
        view(connection, "interactions", done.outputs["split"].parts("interactions"))
        measured = gates.measure(connection, placed.shown_promises({"impressions"}, cuts))
    assert set(measured["impressions"].values()) == {0}


def test_a_list_is_as_held_out_as_what_was_clicked_in_it() -> None:
    """Two lists of one user: a click that is a test event, and none that is an event."""
    labels = pa.array(["test", "train", "train"])
    events = {"user_index": [0, 0, 0], "item_index": [1, 2, 1], "ts": [10, 10, 20], "split": labels}
    lists = {"user_index": [0, 0, 0], "ts": [10, 10, 15], "items": [[1, 2], [2, 1], [1]]}
    table = pa.table(lists | {"clicked": [[True, True], [True, False], [True]]})
    labeller = shown.Labeller(None, np.array([False, True, False]), Counter())
    made = labeller.label(table, Chunk(pa.table(events)))
    assert made["split"].to_pylist() == ["test", "train", "train"]
    breach, allowed = labeller.findings(whole_items=True)
    assert (breach["count"], breach["of"]) == (0, 2)
    assert (allowed["count"], allowed["of"], allowed["verdict"]) == (2, 3, "allowed")


def test_ties_by_source_follow_the_file(tmp_path: Path) -> None:
    rows = [f"1::{m:07d}::7::1000" for m in (4, 2, 9, 1)]
    recipe = write_dump(tmp_path, rows, MOVIES)
    done = run_chain(recipe, tmp_path / "w", "clean.k_core=0", "split.ties=source", until="split")
    assert done.outputs["split"].read("interactions")["source_row"].to_pylist() == [1, 2, 3, 4]
    found = done.outputs["split"].facts["audit"]
    assert (found["test_ties"], found["test_tie_rate"], found["test_or_valid_tie_rate"]) == (1, 1.0, 1.0)


@given(events=MANY)
@settings(max_examples=10)
def test_samples_cut_by_source_order(tmp_path_factory: pytest.TempPathFactory, events: list[Event]) -> None:
    made = Store(tmp_path_factory.mktemp("source"), events)
    places = {one: row for row, one in enumerate(events)}
    users: dict[str, list[Event]] = {}
    for one in sorted(events, key=lambda one: (one.ts, places[one])):
        users.setdefault(one.user, []).append(one)
    samples = sorted(
        (one for own in users.values() for one in own[1:]), key=lambda one: (one.ts, places[one])
    )
    bounds = floors((0.8, 0.1, 0.1), len(samples))
    expected = {one: named(rank, bounds) for rank, one in enumerate(samples)}
    try:
        output = made.split("global-time", {"cut": "samples"}, ties="source")
    except DataError:
        return
    found = {one.event: one.split for one in made.labelled(output) if one.event in expected}
    assert found == expected


RATINGS = st.lists(
    st.tuples(st.integers(1, 4), st.integers(0, 6), st.integers(1000, 1004)), min_size=1, max_size=40
)


@settings(max_examples=10)
@given(events=RATINGS, shuffle=st.randoms(use_true_random=False), seed=st.integers(0, 3))
def test_leave_one_out_from_the_dump_is_the_slow_one(
    tmp_path_factory: pytest.TempPathFactory,
    events: list[tuple[int, int, int]],
    shuffle: random.Random,
    seed: int,
) -> None:
    first: dict[tuple[int, int], int] = {}
    for user, movie, second in events:
        first[user, movie] = min(second, first.get((user, movie), second))
    expected = []
    for user in sorted({user for user, _ in first}, key=str):
        ties = {
            movie: md5(seed, user, second * 1000, f"{movie:07d}", "rating", "7.0")
            for (whose, movie), second in first.items()
            if whose == user
        }
        own = sorted((first[user, movie], digest, movie) for movie, digest in ties.items())
        splits = ["train"] * len(own)
        if len(own) >= 3:
            splits[-2:] = ["valid", "test"]
        expected += [
            (str(user), f"{m:07d}", s * 1000, split) for (s, _, m), split in zip(own, splits, strict=True)
        ]
    shuffle.shuffle(events)
    folder = tmp_path_factory.mktemp("split")
    recipe = write_dump(folder, [f"{u}::{m:07d}::7::{s}" for u, m, s in events], MOVIES)
    settings_ = ("clean.k_core=0", f"split.seed={seed}")
    if "test" not in {row[3] for row in expected}:
        with pytest.raises(DataError, match="leaves no test event"):
            run_chain(recipe, folder / "w", *settings_, until="split")
        return
    done = run_chain(recipe, folder / "w", *settings_, until="split")
    users = done.outputs["clean"].read("users")["user_id"].to_pylist()
    items = done.outputs["clean"].read("items_clean")["item_id"].to_pylist()
    found = [
        (users[row["user_index"]], items[row["item_index"]], row["ts"], row["split"])
        for row in done.outputs["split"].read("interactions").to_pylist()
    ]
    assert found == expected


def test_the_same_hash_as_ever() -> None:
    """Tie hashes decide published splits; they are DuckDB's text of the values, joined by chr(31)."""
    row = {"user_index": [0], "item_index": [0], "ts": [1000], "event_type": ["rating"], "value": [7.0]}
    row |= {"session_id": pa.nulls(1, pa.string()), "query": pa.nulls(1, pa.string())}
    row |= {"position": pa.nulls(1, pa.int32())}
    with duckdb.connect() as connection:
        events = Events(connection, [], pa.array(["u"]), pa.array(["i"]), "hash", 3)
        high, low = events.hashes(Chunk(pa.table(row)), np.array([0]))
    assert f"{high[0]:016x}{low[0]:016x}" == md5(3, "u", 1000, "i", "rating", "7.0")


def test_the_audit_counts_what_leaks(example: Run) -> None:
    found = example.outputs["split"].facts["audit"]
    assert found["events"] == {"train": 22_707, "valid": 2_311, "test": 2_311}
    assert found["unseen_users"] == {"valid": 0, "test": 0}
    interactions = example.release.table("interactions").to_pylist()
    last = max(row["ts"] for row in interactions if row["split"] == "train")
    before = sum(row["split"] == "test" and row["ts"] < last for row in interactions)
    assert found["test_targets_before_last_train_event"] == before > 0
    trained = {row["item_index"] for row in interactions if row["split"] == "train"}
    unseen = sum(row["split"] == "test" and row["item_index"] not in trained for row in interactions)
    assert found["unseen_items"]["test"] == unseen


RAW = ("clean.k_core=0", "clean.dedupe=all", "clean.exact_duplicates=keep", "clean.without_metadata=keep")


@realdata
@pytest.mark.realdata
@pytest.mark.parametrize(
    ("kind", "path", "test", "either"),
    [
        ("movielens", "ml-100k", 0.440, 0.635),
        ("amazon-2018", "amazon2018/All_Beauty_5.json.gz", 0.947, 0.980),
        ("amazon-2018", "amazon2018/Gift_Cards_5.json.gz", 0.638, 0.823),
    ],
)
def test_published_tie_rates(tmp_path: Path, kind: str, path: str, test: float, either: float) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'dataset = "d"\n[source]\nkind = "{kind}"\npath = "{DATA / path}"\n')
    found = run_chain(recipe, tmp_path / "w", *RAW, until="split").outputs["split"].facts["audit"]
    assert found["test_tie_rate"] == pytest.approx(test, abs=0.0005)
    assert found["test_or_valid_tie_rate"] == pytest.approx(either, abs=0.0005)


@realdata
@pytest.mark.realdata
def test_minionerec_published_as_many_valid_samples() -> None:
    path = DATA / "published" / "minionerec_Industrial_and_Scientific.valid.csv"
    with duckdb.connect() as connection:
        [(rows,)] = connection.sql(f"select count(*) from read_csv('{path}', header = true)").fetchall()
    train, valid = cut_places([0.8, 0.1, 0.1], 45_324)
    assert rows == valid - train == 4_532


@realdata
@pytest.mark.realdata
def test_item_pairs_are_those_of_surviving_items(tmp_path: Path) -> None:
    folder = DATA / "amazon2018"
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'dataset = "g"\n[source]\nkind = "amazon-2018"\npath = "{folder / "Gift_Cards_5.json.gz"}"\n'
        f'items = "{folder / "meta_Gift_Cards.json.gz"}"\n'
    )
    done = run_chain(recipe, tmp_path / "w", until="pairs")
    items = done.outputs["sequences"].read("items", ["item_id"])["item_id"].to_pylist()
    raw = done.outputs["ingest"].read("raw_item_pairs").to_pylist()
    found = done.outputs["pairs"].read("item_pairs").to_pylist()
    expected = [
        (row["item_id"], row["kind"], row["other_id"])
        for row in raw
        if row["item_id"] in items and row["other_id"] in items
    ]
    kinds = [(items[row["item_index"]], row["kind"], items[row["other_index"]]) for row in found]
    assert sorted(kinds) == sorted(expected)
    assert found == sorted(found, key=lambda row: (row["item_index"], row["kind"], row["other_index"]))
    assert expected
    assert done.outputs["pairs"].facts["left_out"]["item_pairs"] == len(raw) - len(found)
