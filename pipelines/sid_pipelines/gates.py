"""Gates: DuckDB computes a profile of every table to be published, Great Expectations judges it.

Beside what each schema implies, the promises of a release are checked: every item has a SID, SIDs are
as unique as asked for, and every history lies before its target in the declared order. A release that
breaks one is not published.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from sid_pipelines.stage import Outcome, Stage, Work
from sid_schemas import Check, GateRefusedError, checks_of
from sid_schemas.checks import none_of
from sid_schemas.suites import Verdict, judge
from sid_schemas.tables import Table, table_named
from sid_warehouse import files, parquet
from sid_warehouse.db import connect, quote, view
from sid_warehouse.stages import StageOutput

PUBLISHED: Mapping[str, tuple[str, ...]] = {
    "ingest": ("rejects",),
    "sequences": ("items", "users", "interactions", "sequences", "train", "valid", "test"),
    "collisions": ("sids", "sid_to_items"),
}
EXAMPLES = 3  # offending rows a message shows


@dataclass(frozen=True)
class GatesParams:
    """What must hold beyond the schemas."""

    max_collision_rate: float


def run(work: Work) -> Outcome:
    """Write `gates.json`; raises GateRefusedError naming each check that failed."""
    params: GatesParams = work.params
    tables = published_tables(work.inputs)
    with connect(spill=work.out.spill, memory=work.resources.memory) as connection:
        for name, folder in tables.items():
            view(connection, name, parquet.table_glob(folder, name))
        schemas = [_schema(folder, name) for name, folder in tables.items()]
        checks = [check for table in schemas for check in checks_of(table)]
        checks += promises(params.max_collision_rate)
        measured = measure(connection, checks)
        verdicts = judge(checks, measured)
        failed = [verdict for verdict in verdicts if not verdict.passed]
        if failed:
            raise GateRefusedError(_refusal(connection, failed))
    results = [
        {
            "table": verdict.check.table,
            "check": verdict.check.name,
            "measured": verdict.measured,
            "expected": verdict.check.bounds(),
            "why": verdict.check.why,
        }
        for verdict in verdicts
    ]
    files.write_json(work.out.folder / "gates.json", results)
    facts = {"checks": len(verdicts), "tables": len(tables), "refused": 0}
    return Outcome(facts, f"{len(verdicts)} checks on {len(tables)} tables hold")


def published_tables(outputs: Mapping[str, StageOutput]) -> dict[str, Path]:
    """Give every table that a release publishes, and the stage folder that holds it."""
    tables = {name: outputs[stage].folder for stage, names in PUBLISHED.items() for name in names}
    embedded = outputs["embed"]
    return tables | {embedded.facts["name"]: embedded.folder}


def promises(max_collision_rate: float) -> list[Check]:
    """Give the checks that span tables: what a release promises to a trainer."""
    collisions = "(count(*) - count(distinct sid_key)) / greatest(count(*), 1)"
    orphans = "item_index not in (select item_index from sids)"
    length = "(select max(len(sid)) from sids)"
    checks = [
        none_of("items", "without_sid", orphans, "every item has a SID"),
        none_of("sids", "uneven_length", f"len(sid) <> {length}", "SIDs have one length"),
        Check(
            "sids",
            "collision_rate",
            collisions,
            "share of items whose SID another item has, (N - U) / N",
            minimum=0,
            maximum=max_collision_rate,
        ),
        Check(
            "sequences",
            "events_lost",
            "(select count(*) from interactions) - sum(len(items))",
            "every interaction stands in a sequence",
            minimum=0,
            maximum=0,
        ),
        none_of(
            "sequences",
            "out_of_order",
            "ts <> list_sort(ts)",
            "a sequence never goes back in time",
        ),
        none_of(
            "sequences",
            "not_declared_order",
            """(user_index, items) not in (
                select (user_index, list(item_index order by filename, file_row_number))
                from interactions group by user_index)""",
            "a sequence has its user's interactions in the declared order",
        ),
    ]
    for split in ("train", "valid", "test"):
        sequence = "select {} from sequences where sequences.user_index = " + split + ".user_index"
        checks += [
            none_of(
                split,
                "wrong_target",
                f"""target <> ({sequence.format('items["end" + 1]')})
                or target_ts <> ({sequence.format('ts["end" + 1]')})""",
                "the target stands at `end` of the user's sequence",
            ),
            none_of(
                split,
                "history_after_target",
                f"""start >= "end" or target_ts <
                ({sequence.format('list_max(ts[start + 1 : "end"])')})""",
                "the history lies before its target, and is not empty",
            ),
        ]
    return checks


def measure(connection: duckdb.DuckDBPyConnection, checks: list[Check]) -> dict[str, dict[str, float | None]]:
    """Compute the numbers of all checks, one query per table: {table: {check name: number}}."""
    measured: dict[str, dict[str, float | None]] = {}
    for table in dict.fromkeys(check.table for check in checks):
        own = [check for check in checks if check.table == table]
        columns = ", ".join(f"({check.sql})::double as {quote(check.name)}" for check in own)
        [row] = connection.sql(f"select {columns} from {quote(table)}").fetchall()
        measured[table] = {
            check.name: None if number is None or math.isnan(number) else number
            for check, number in zip(own, row, strict=True)
        }
    return measured


def _schema(folder: Path, name: str) -> Table:
    """Give a table's schema after comparing it with the files' own, which costs no data read."""
    for part in parquet.parts(folder, name):
        found = pq.read_schema(part)
        table = table_named(name, found)
        if not found.equals(table.arrow()):
            raise GateRefusedError(f"{part}: expected columns {table.names}, got {found.names}")
    return table


def _refusal(connection: duckdb.DuckDBPyConnection, failed: list[Verdict]) -> str:
    parts = []
    for verdict in failed:
        check = verdict.check
        found = "nothing" if verdict.measured is None else f"{verdict.measured:g}"
        part = f"{check.table}.{check.name} ({check.why}): expected {check.bounds()}, got {found}"
        if check.failing:
            rows = connection.sql(
                f"select * from {quote(check.table)} where {check.failing} limit {EXAMPLES}"
            ).fetchall()
            part += f", as in {rows[0]!r:.120}"
        parts.append(part)
    return f"{len(failed)} of the release's promises do not hold; nothing was published: " + "; ".join(parts)


STAGE = Stage(
    "gates",
    revision=1,
    parents=("ingest", "embed", "collisions", "sequences"),
    run=run,
)


def summary_of(gates: StageOutput) -> list[dict[str, Any]]:
    """Read the results of a finished gates stage."""
    results: list[dict[str, Any]] = files.read_json(gates.folder / "gates.json")
    return results
