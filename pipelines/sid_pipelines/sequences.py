"""Sequences: the tables a trainer reads. Items with text and train popularity, sequences, samples.

A sample is two positions in its user's sequence; prefixes are never expanded on disk. A train sample's
history has train and context events only: it starts after the last valid or test event before the target,
so where held-out events stand among a user's train events (cold-items, a random draw) train histories are
far shorter than test histories; the audit counts that.
The history of a valid or test sample may hold all earlier events, held-out ones too. Parquet is the
published truth; the `.arrow` twins are uncompressed, so that a DataLoader maps them into memory.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from sid_pipelines import shown
from sid_pipelines.audit import Finding, finding
from sid_pipelines.based import view_items, view_texts
from sid_pipelines.chunks import TEST, TRAIN, VALID, Chunk, Mask, Rows, chunks
from sid_pipelines.packed import Arrays
from sid_pipelines.stage import Outcome, Stage, Work, count
from sid_schemas import DataError
from sid_schemas.tables import ITEMS, SEQUENCES, SPLIT_NAMES
from sid_schemas.tables import TEST as TEST_TABLE
from sid_schemas.tables import TRAIN as TRAIN_TABLE
from sid_schemas.tables import VALID as VALID_TABLE
from sid_warehouse import parquet
from sid_warehouse.db import connect, view

SPLITS = {TRAIN: TRAIN_TABLE, VALID: VALID_TABLE, TEST: TEST_TABLE}
LISTED = ("items", "ts", "event_type", "value")
OF_SAMPLES = (
    "history_later_than_target",
    "tied_with_history",
    "repeated_targets",
    "held_out_in_history",
    "without_history",
    "history_restarts",
)  # what a Tally finds
OF_CHUNKS = ["user_index", "item_index", "ts", "split", "session_id"]  # what samples are picked by
COLUMNS = [*OF_CHUNKS, "event_type", "value"]  # what sequences are made of
COUNTS = """
    select item_index, min(ts) as first_ts, count(*) filter (where split = 'train') as popularity_train
    from events group by item_index"""


@dataclass(frozen=True)
class SequencesParams:
    """What samples depend on beside the split.

    expansion: "prefix", every train event with a history is a target; "window", the same with a bounded
    history; "last", each user's last train event with a history. window: items of history that a sample
    may have, in every split; 0 for no bound. sessions: (targets per sample, gap in ms) where a
    session is one sample, with its first item as the target.
    """

    expansion: str = "prefix"
    window: int = 0
    sessions: tuple[int, int] | None = None


def run(work: Work) -> Outcome:
    """Write items, sequences, train, valid and test; impressions where the source has them."""
    params: SequencesParams = work.params
    clean, split = work.inputs["clean"], work.inputs["split"]
    parts = split.parts("interactions")
    with connect(spill=work.out.spill, memory=work.resources.duckdb) as connection:
        view(connection, "events", parts)
        view(connection, "users", clean.parts("users"))
        view_items(connection, work)
        view_texts(connection, work)
        connection.execute(f"create view item_counts as {COUNTS}")
        work.out.write(ITEMS, items_counted(connection))
        lists = shown.write(work, connection)
    if split.facts.get("unchanged"):
        return _as_published(work, lists)
    tally = Tally(params)
    work.out.write(SEQUENCES, histories(chunks(parts, COLUMNS), tally))
    for label, table in SPLITS.items():
        work.out.write(table, samples(chunks(parts, OF_CHUNKS), label, params))
    tally.check()
    for table in (SEQUENCES, *SPLITS.values()):
        parquet.write_ipc(work.out.folder, table)
    return outcome(work, lists, tally.findings())


def _as_published(work: Work, lists: shown.Shown) -> Outcome:
    """Take sequences and samples over from the base, whose events are all there are."""
    base = work.inputs["base"]
    for table in (SEQUENCES, *SPLITS.values()):
        work.out.extend(table, base.parts(table.name))
        parquet.link(base.folder / f"{table.name}.arrow", work.out.folder / f"{table.name}.arrow")
    return outcome(work, lists, [one for one in base.facts["audit"] if one["rule"] in OF_SAMPLES])


def outcome(work: Work, lists: shown.Shown, findings: list[Finding]) -> Outcome:
    """Say what was written and found."""
    rows = work.out.rows
    said = [count(rows["sequences"], "user sequence")]
    said += [count(rows[table.name], f"{table.name} sample") for table in SPLITS.values()]
    samples = {table.name: rows[table.name] for table in SPLITS.values()}
    facts = {"samples": samples, "left_out": lists.left_out, "findings": [*findings, *lists.findings]}
    return Outcome(facts, ", ".join(said))


def items_counted(connection: duckdb.DuckDBPyConnection) -> Iterable[pa.RecordBatch]:
    """Give the items with their text and what was counted of them.

    connection: with views `items_clean`, `texts`, and `item_counts`, which COUNTS gives of some events at a
    time.
    """
    found = connection.sql("""
        with counts as (
            select item_index, min(first_ts) as first_ts, sum(popularity_train) as popularity_train
            from item_counts group by item_index)
        select item.item_index, item.item_id, title, text, description, brand, price,
            category_path, image_ref, coalesce(popularity_train, 0)::int as popularity_train,
            first_ts, domain
        from items_clean as item
        join texts using (item_index)
        left join counts using (item_index)
        order by item.item_index""")
    return found.to_arrow_reader()  # type: ignore[no-any-return]


def histories(events: Iterable[Chunk], tally: "Tally") -> Iterator[pa.RecordBatch]:
    """Yield a row per user, telling the tally of each chunk; stored order is the declared order."""
    for chunk in events:
        tally.add(chunk)
        edges = pa.array(chunk.edges, pa.int32())
        columns = {"user_index": pa.array(chunk.users[chunk.edges[:-1]])}
        for name, column in zip(LISTED, ("item_index", *LISTED[1:]), strict=True):
            columns[name] = pa.ListArray.from_arrays(edges, chunk.table[column].combine_chunks())
        yield pa.RecordBatch.from_pydict(columns)


def samples(events: Iterable[Chunk], label: int, params: SequencesParams) -> Iterator[pa.RecordBatch]:
    """Yield the samples of one split, as positions in their users' histories."""
    for chunk in events:
        picked = pick(chunk, label, params)
        rows = picked.rows
        columns = {"user_index": chunk.users[rows], "start": picked.start, "end": chunk.place[rows]}
        columns |= {"target": chunk.items[rows], "target_ts": chunk.ts[rows], "n_targets": picked.n_targets}
        yield pa.RecordBatch.from_pydict({name: pa.array(values) for name, values in columns.items()})


@dataclass(frozen=True)
class Picked:
    """The samples of one split in a chunk: rows of the targets, where each history starts, and so on.

    candidates: how many events (or sessions) could be targets, had they a history.
    """

    rows: Rows
    start: Rows
    n_targets: Rows
    candidates: int


def pick(chunk: Chunk, label: int, params: SequencesParams) -> Picked:
    """Give the samples of one split; the target stands at `end`, its history is items[start:end]."""
    units, sizes = chunk.labels == label, np.ones(len(chunk), dtype=np.int64)
    if params.sessions:
        starts = chunk.session_starts(params.sessions[1])
        firsts = np.flatnonzero(starts)
        sizes[firsts] = np.minimum(np.diff(firsts, append=len(chunk)), params.sessions[0])
        units &= starts
    start = (
        chunk.last_before(_held_out(chunk)) + 1 if label == TRAIN else np.zeros(len(chunk), dtype=np.int64)
    )
    if params.window:
        start = np.maximum(start, chunk.place - params.window)
    rows = np.flatnonzero(units & (chunk.place > start))
    if label == TRAIN and params.expansion == "last" and len(rows):
        users = chunk.users[rows]
        rows = rows[np.append(users[1:] != users[:-1], True)]
    return Picked(rows, start[rows], sizes[rows], int(units.sum()))


def _held_out(chunk: Chunk) -> Mask:
    return (chunk.labels == VALID) | (chunk.labels == TEST)  # type: ignore[no-any-return]


class Tally:
    """What is counted of samples while sequences stream through."""

    def __init__(self, params: SequencesParams) -> None:
        """Start at nothing."""
        self.params = params
        self.counts: Counter[tuple[str, str]] = Counter()
        self.lengths: dict[str, Counter[int]] = {table.name: Counter() for table in SPLITS.values()}

    def add(self, chunk: Chunk) -> None:
        """Count the samples of all splits in a chunk."""
        same_item = _last_on_same_item(chunk)
        held = np.concatenate([[0], np.cumsum(_held_out(chunk))])
        for label in SPLITS:
            picked = pick(chunk, label, self.params)
            rows, first = picked.rows, chunk.first[picked.rows] + picked.start
            numbers = {
                "events": (chunk.labels == label).sum(),
                "candidates": picked.candidates,
                "samples": len(rows),
                "repeated_targets": (same_item[rows] >= picked.start).sum(),
                "tied_with_history": (chunk.ts[rows] == chunk.ts[rows - 1]).sum(),
                "history_later_than_target": (chunk.ts[rows] < chunk.ts[rows - 1]).sum(),
                "held_out_in_history": (held[rows] > held[first]).sum(),
                "held_out_before_target": (held[rows] > held[chunk.first[rows]]).sum(),
            }
            lengths, times = np.unique(rows - first, return_counts=True)
            self.lengths[SPLIT_NAMES[label]].update(dict(zip(lengths.tolist(), times.tolist(), strict=True)))
            for name, number in numbers.items():
                self.counts[SPLIT_NAMES[label], name] += int(number)

    def counted(self) -> tuple[dict[str, Any], Arrays]:
        """Give what was counted so far for another tally to `merge`: JSON, and arrays by split.

        An array, (lengths, 2), has each length of a history and how many have it.
        """
        known = {"counts": [[*key, number] for key, number in self.counts.items()]}
        lengths = {split: sorted(found.items()) for split, found in self.lengths.items()}
        return known, {split: np.array(of, np.int64).reshape(-1, 2) for split, of in lengths.items()}

    def merge(self, known: Mapping[str, Any], arrays: Arrays) -> None:
        """Add what was counted of other users."""
        self.counts.update({(split, name): number for split, name, number in known["counts"]})
        for split, lengths in arrays.items():
            self.lengths[split].update(dict(lengths.tolist()))

    def check(self) -> None:
        """Raise DataError where nothing is left to test on."""
        if not self.counts["test", "samples"]:
            raise DataError(
                f"sequences: none of {count(self.counts['test', 'events'], 'test event')} has a history: "
                "their users are new. Choose another [split] protocol, ratios or cuts"
            )

    def findings(self) -> list[Finding]:
        """Give what was counted as findings of the audit."""
        return [one for table in SPLITS.values() for one in self._of(table.name)] + [self._restarts()]

    def _restarts(self) -> Finding:
        train, test = (median(self.lengths[split]) for split in ("train", "test"))
        return finding(
            "history_restarts",
            f"train histories begin after a valid or test event (median length {train}, of test {test})",
            count=self.counts["train", "held_out_before_target"],
            of=self.counts["train", "samples"],
            split="train",
        )

    def _of(self, split: str) -> list[Finding]:
        seen = {name: number for (of, name), number in self.counts.items() if of == split}
        samples, unit = seen["samples"], "sessions" if self.params.sessions else "events"
        found: list[tuple[str, str, int, int, bool]] = [
            ("history_later_than_target", "histories end later than their target",
             seen["history_later_than_target"], samples, True),
            ("tied_with_history", "targets have the time of the last event of their history",
             seen["tied_with_history"], samples, False),
            ("repeated_targets", "targets stand in their own history",
             seen["repeated_targets"], samples, False),
            ("held_out_in_history", "histories hold valid or test events",
             seen["held_out_in_history"], samples, split == "train"),
        ]  # fmt: skip
        if split != "train" or self.params.expansion != "last":
            without = seen["candidates"] - samples
            said = f"{split} {unit} have no history and are no targets"
            found.append(("without_history", said, without, seen["candidates"], False))
        return [
            finding(rule, says, count=number, of=of, split=split, strict=strict)
            for rule, says, number, of, strict in found
        ]


def median(counts: Mapping[int, int]) -> int:
    """Give the lower median of numbers that occur so often; 0 of none.

    >>> median({4: 2, 77: 1, 80: 1})
    4
    """
    left = (sum(counts.values()) + 1) // 2
    for number in sorted(counts):
        left -= counts[number]
        if left <= 0:
            return number
    return 0


def _last_on_same_item(chunk: Chunk) -> Rows:
    """Give the place of the user's last event before each one on the same item, or -1."""
    keys = chunk.users.astype(np.int64) << 32 | chunk.items
    order = np.argsort(keys, kind="stable")
    same = keys[order][1:] == keys[order][:-1]
    last = np.full(len(chunk), -1, dtype=np.int64)
    last[order[1:][same]] = chunk.place[order[:-1][same]]
    return last


STAGE = Stage("sequences", revision=9, parents=("ingest", "clean", "split", "text"), run=run)
