"""Split: give every event its split under a declared protocol and a declared total order.

    events -> interactions

protocols/ has the protocols and what each leaks, order.py the order, audit.py what is counted. Events
stream through in chunks of whole users, so memory grows with users and items, not with events.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from sid_pipelines.audit import Audit
from sid_pipelines.order import Events
from sid_pipelines.protocols import Labelling, Protocol, protocol_named
from sid_pipelines.stage import Outcome, Stage, Work, count
from sid_schemas import DataError
from sid_schemas.tables import INTERACTIONS, SPLIT_NAMES
from sid_warehouse.db import connect, view
from sid_warehouse.stages import StageOutput


@dataclass(frozen=True)
class SplitParams:
    """What split depends on: a protocol and its parameters, the tie rule, and the seed of every hash."""

    protocol: str
    params: Mapping[str, Any]
    ties: str
    seed: int


def run(work: Work) -> Outcome:
    """Write `interactions`: events in the declared order, each with its split."""
    params: SplitParams = work.params
    clean = work.inputs["clean"]
    protocol = protocol_named(params.protocol, params.params)
    with connect(spill=work.out.spill, memory=work.resources.duckdb) as connection:
        events = all_events(connection, clean, params)
        labelling = protocol.prepare(events)
        audit = Audit(protocol, labelling.facts, len(events.item_ids))
        work.out.write(INTERACTIONS, labelled(events, protocol, labelling, audit))
    return outcome(params, protocol, labelling.facts, audit.result(), audit.times)


def all_events(connection: duckdb.DuckDBPyConnection, clean: StageOutput, params: SplitParams) -> Events:
    """Give the events of all users, with the views that a protocol needs to prepare."""
    for table in ("events", "users", "items_clean"):
        view(connection, table, clean.parts(table))
    return Events(
        connection=connection,
        parts=clean.parts("events"),
        user_ids=one_array(clean.read("users", ["user_id"])["user_id"]),
        item_ids=one_array(clean.read("items_clean", ["item_id"])["item_id"]),
        ties=params.ties,
        seed=params.seed,
    )


def one_array(ids: pa.ChunkedArray) -> pa.LargeStringArray:
    """Give ids as one array, which may hold more than the 2 GB that an array of Arrow strings can."""
    return ids.cast(pa.large_string()).combine_chunks()


def labelled(
    events: Events, protocol: Protocol, labelling: Labelling, audit: Audit
) -> Iterator[pa.RecordBatch]:
    """Yield the events in the declared order with column `split`, telling the audit of each chunk."""
    for stored in events.stored():
        chunk = events.order(stored)
        labels = protocol.label(chunk, labelling, events)
        audit.add(chunk, labels)
        split = pa.DictionaryArray.from_arrays(pa.array(labels, pa.int8()), pa.array(SPLIT_NAMES))
        yield from chunk.table.append_column("split", split).to_batches()


def outcome(
    params: SplitParams,
    protocol: Protocol,
    known: Mapping[str, Any],
    audited: Mapping[str, Any],
    times: Sequence[int],
) -> Outcome:
    """Say what came of it; raises DataError where nothing is left to train on or to test.

    known: facts of the labelling. audited: those of the audit. times: of the first and the last event.
    """
    _check_divided(protocol, audited["events"], known.get("cuts"), times)
    facts = {"protocol": params.protocol, "ties": params.ties, **known, "audit": audited}
    parts = [count(number, f"{name} event") for name, number in audited["events"].items()]
    return Outcome(facts, f"{', '.join(parts)}; {audited['test_tie_rate']:.1%} of test targets tie")


def _check_divided(
    protocol: Protocol, events: Mapping[str, int], cuts: Sequence[int] | None, times: Sequence[int]
) -> None:
    for name in ("train", "test"):
        if not events[name]:
            of = f"{name} event of {sum(events.values()):,}"
            said = f"split: {protocol.name} leaves no {of}; {protocol.advice}"
            if cuts:
                said += f" (cuts: {_dates(cuts)}; first and last event: {_dates(times)})"
            raise DataError(said)


def _dates(times: Sequence[int]) -> str:
    """Give milliseconds as dates.

    >>> _dates([1420070400, 1420070400000])
    '1970-01-17T10:27:50, 2015-01-01T00:00:00'
    """
    return ", ".join(str(np.datetime64(time, "ms").astype("datetime64[s]")) for time in times)


STAGE = Stage("split", revision=9, parents=("clean",), run=run)
