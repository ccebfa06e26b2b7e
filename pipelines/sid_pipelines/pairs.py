"""Pairs of items that belong together: the source's own, and those that train events give.

    raw_item_pairs, interactions -> item_pairs

The source's pairs stand as the source has them, less those of items that cleaning dropped. Derived pairs
stand both ways: (i, j) is there where either is among the other's best. Only events of split "train" are
read. Without either the table is absent.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from sid_pipelines.based import base_rows, view_items
from sid_pipelines.collaborative.events import TrainEvents
from sid_pipelines.collaborative.item_pairs import Scored, cooccurrence_pairs, swing_pairs, u2i_pairs
from sid_pipelines.stage import Outcome, Stage, Work, count
from sid_schemas import DataError
from sid_schemas.tables import ITEM_PAIRS
from sid_warehouse.db import connect, literal, scan, view

PROVENANCE = {
    "swing": "train interactions; Swing, the sum over pairs of users who have both",
    "cooccurrence": "train interactions; users who have both",
    "u2i": "train interactions; an event's item with the user's earlier item that is most alike by the "
    "cosine of users, scored by the number of such events",
}


@dataclass(frozen=True)
class PairsParams:
    """What pairs depend on; the fields are the keys of [pairs].

    kinds: derived from train events, of "swing", "cooccurrence" and "u2i". top: others kept of an item and
    kind, before the other direction is added. alpha, max_users_per_item, max_items_per_user, seed: of
    Swing (0: no bound). window, measure: of co-occurrence. history: earlier events of which u2i takes one.
    See collaborative/item_pairs.py.
    """

    kinds: tuple[str, ...] = ()
    top: int = 20
    alpha: float = 1.0
    window: int = 0
    measure: Literal["count", "cosine", "jaccard", "pmi"] = "cosine"
    history: int = 20
    max_users_per_item: int = 500
    max_items_per_user: int = 500
    seed: int = 0

    def check_params(self) -> None:
        """Raise DataError where a parameter is out of range."""
        for kind in self.kinds:
            if kind not in PROVENANCE:
                raise DataError(f"kinds: no kind is called {kind!r}; there are: {', '.join(PROVENANCE)}")
        if len(set(self.kinds)) < len(self.kinds):
            raise DataError(f"kinds = {list(self.kinds)}: expected each kind once")
        if not self.alpha > 0:
            raise DataError(f"alpha = {self.alpha}, expected a number above 0")
        least = {"top": 1, "window": 0, "history": 1, "seed": 0}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise DataError(f"{name} = {getattr(self, name)}, expected {value} or more")
        for name in ("max_users_per_item", "max_items_per_user"):
            if getattr(self, name) < 0 or getattr(self, name) == 1:
                raise DataError(f"{name} = {getattr(self, name)}, expected 2 or more, or 0 for no bound")


def run(work: Work) -> Outcome:
    """Write `item_pairs`, where there are any to be had."""
    params: PairsParams = work.params
    params.check_params()
    ingest = work.inputs["ingest"]
    raw = ingest.manifest["rows"].get("raw_item_pairs")
    published = base_rows(work, ITEM_PAIRS.name)
    if raw is None and not params.kinds and not published:
        return Outcome({"kinds": {}, "left_out": {}}, "none: the source has none, and [pairs] kinds is empty")
    with connect(spill=work.out.spill, memory=work.resources.duckdb) as connection:
        view_items(connection, work)
        queries = []
        if published:
            view(connection, "published", work.inputs["base"].parts(ITEM_PAIRS.name))
            queries.append(_of_base(params.kinds))
            [(published,)] = connection.sql(f"select count(*) from ({queries[0]})").fetchall()
        if raw is not None:
            view(connection, "raw_item_pairs", ingest.parts("raw_item_pairs"))
            queries.append(OF_SOURCE)
        source = f"select distinct * from ({' union all '.join(queries)})" if queries else ""
        derived = [_derived(kind, path) for kind, path in _files(work)]
        together = " union all ".join([*([source] if source else []), *derived])
        connection.execute(f"create temp view pairs as {together}")
        ordered = connection.sql("from pairs order by item_index, kind, other_index")
        work.out.write(ITEM_PAIRS, ordered.to_arrow_reader())
        counts = _counts(connection, params, raw is not None)
    facts: dict[str, Any] = {
        "kinds": counts,
        "provenance": {kind: PROVENANCE[kind] for kind in params.kinds},
        "left_out": {},
    }
    if raw is not None:
        of_source = sum(number for kind, number in counts.items() if kind not in params.kinds)
        facts["left_out"]["item_pairs"] = raw - (of_source - published)
    said = [f"{kind} {number:,}" for kind, number in counts.items()]
    total = count(sum(counts.values()), "pair")
    return Outcome(facts, f"{total}: {', '.join(said)}" if said else f"{total} of items that are left")


OF_SOURCE = """
    select item.item_index, other.item_index as other_index, kind, null::double as score
    from raw_item_pairs as pair
    join items_clean as item using (item_id)
    join items_clean as other on other.item_id = pair.other_id"""


def _of_base(derived: tuple[str, ...]) -> str:
    """Give the SQL of a release's pairs that are not derived from events."""
    among = ", ".join(literal(kind) for kind in ("", *derived))
    return f"select item_index, other_index, kind, score from published where kind not in ({among})"


def _derived(kind: str, path: Path) -> str:
    """Give the SQL of a kind's pairs, both ways; from two sides a pair has its higher score."""
    found = scan([path])
    return f"""
    select item_index, other_index, {literal(kind)} as kind, max(score) as score from (
        select item_index, other_index, score from {found}
        union all select other_index, item_index, score from {found})
    group by item_index, other_index"""


def _files(work: Work) -> Iterator[tuple[str, Path]]:
    """Write each derived kind's pairs, one way, into a file of its own."""
    params: PairsParams = work.params
    if not params.kinds:
        return
    clean = work.inputs["clean"].manifest["rows"]
    items = base_rows(work, "items") + clean["items_clean"]
    events = TrainEvents.of(work.inputs["split"].parts("interactions"), clean["users"], items)
    dense, numbers = events.dense()
    work.out.spill.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([("item_index", pa.int32()), ("other_index", pa.int32()), ("score", pa.float64())])
    for done, kind in enumerate(params.kinds):
        work.progress(done, len(params.kinds))
        path = work.out.spill / f"pairs-{kind}.parquet"
        with pq.ParquetWriter(path, schema) as writer:
            for items, others, scores in _pairs_of(kind, dense, params):
                columns = [numbers[items].astype("int32"), numbers[others].astype("int32"), scores]
                writer.write_table(pa.table([pa.array(column) for column in columns], schema=schema))
        yield kind, path
    work.progress(len(params.kinds), len(params.kinds))


def _pairs_of(kind: str, events: TrainEvents, params: PairsParams) -> Iterator[Scored]:
    match kind:
        case "swing":
            return swing_pairs(
                events,
                top=params.top,
                alpha=params.alpha,
                max_users_per_item=params.max_users_per_item,
                max_items_per_user=params.max_items_per_user,
                seed=params.seed,
            )
        case "cooccurrence":
            return cooccurrence_pairs(events, top=params.top, window=params.window, measure=params.measure)
    return u2i_pairs(events, top=params.top, history=params.history)


def _counts(connection: duckdb.DuckDBPyConnection, params: PairsParams, with_source: bool) -> dict[str, int]:
    if with_source:
        kinds = connection.sql("select distinct kind from raw_item_pairs order by kind").fetchall()
        taken = sorted({kind for (kind,) in kinds} & set(params.kinds))
        if taken:
            raise DataError(f"kinds: the source has pairs called {taken[0]!r} itself; leave it out of kinds")
    rows = connection.sql("select kind, count(*) from pairs group by kind order by kind").fetchall()
    return dict.fromkeys(params.kinds, 0) | {kind: int(number) for kind, number in rows}


STAGE = Stage("pairs", revision=5, parents=("ingest", "clean", "split"), run=run)
