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
import numpy as np
import pyarrow.parquet as pq

from sid_pipelines.stage import Outcome, Stage, Work
from sid_schemas import Check, GateRefusedError, checks_of
from sid_schemas.checks import none_of
from sid_schemas.suites import Verdict, judge
from sid_schemas.tables import Table, table_named
from sid_tokenizers import Trie, Vocabulary
from sid_warehouse import files, parquet
from sid_warehouse.arrays import padded_matrix
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

    max_collision_rate: float | None  # None: what the collision policy promises


@dataclass(frozen=True)
class SidShape:
    """What SIDs look like, as the tokenizer and the collision policy declare it.

    base: codes the tokenizer gives. levels: sizes of the vocabulary's, an added one included. length:
    L, L+1 or "L or L+1", L being base. capacity: items one SID may stand for, None where the collision
    rate is what counts. max_collision_rate: the bound on it.
    """

    base: int
    levels: tuple[int, ...]
    length: str
    capacity: int | None
    max_collision_rate: float | None

    @classmethod
    def declared(cls, resolved: StageOutput, max_collision_rate: float | None) -> "SidShape":
        """Read it from a collisions output; without a bound in the recipe the policy's promise is one."""
        facts = resolved.facts
        levels = Vocabulary.load(resolved.folder / "vocabulary.json").levels
        if max_collision_rate is None and facts["capacity"] is None:
            max_collision_rate = 0.0
        base = len(levels) - (facts["length"] != "L")
        return cls(base, levels, facts["length"], facts["capacity"], max_collision_rate)


def run(work: Work) -> Outcome:
    """Write `gates.json`; raises GateRefusedError naming each check that failed."""
    params: GatesParams = work.params
    tables = published_tables(work.inputs)
    with connect(spill=work.out.spill, memory=work.resources.memory) as connection:
        for name, folder in tables.items():
            view(connection, name, parquet.parts(folder, name))
        connection.execute("""
            create temp table placed as
            select user_index, item_index, ts, split, row_number() over (
                partition by user_index order by filename, file_row_number) - 1 as place
            from interactions""")
        schemas = [_schema(folder, name) for name, folder in tables.items()]
        checks = [check for table in schemas for check in checks_of(table)]
        shape = SidShape.declared(work.inputs["collisions"], params.max_collision_rate)
        checks += promises(shape)
        for name in ("sids", work.inputs["embed"].facts["name"]):
            checks += _same_items(name)
        measured = measure(connection, checks)
        measured["sids"]["trie_differs"] = _trie_differs(work.inputs["collisions"], len(shape.levels))
        checks.append(Check("sids", "trie_differs", "", "the trie holds the SIDs", minimum=0, maximum=0))
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
    facts = {"checks": len(verdicts), "tables": len(tables)}
    return Outcome(facts, f"{len(verdicts)} checks on {len(tables)} tables hold")


def published_tables(outputs: Mapping[str, StageOutput]) -> dict[str, Path]:
    """Give every table that a release publishes, and the stage folder that holds it."""
    tables = {name: outputs[stage].folder for stage, names in PUBLISHED.items() for name in names}
    embedded = outputs["embed"]
    return tables | {embedded.facts["name"]: embedded.folder}


def promises(shape: SidShape) -> list[Check]:
    """Give the checks that span tables: what a release promises to a trainer.

    View `placed` has the interactions with `place`, counted from 0 in the declared order of each user.
    """
    vocabulary = Vocabulary(shape.levels)
    wrong_token = " or ".join(
        f"token_ids[{level + 1}] <> sid[{level + 1}] + {offset}"
        for level, offset in enumerate(vocabulary.offsets)
    )
    letters = [vocabulary.tokens([0] * (level + 1))[-1][1] for level in range(len(shape.levels))]
    wrong_string = " or ".join(
        f"tokens[{level + 1}] <> '<{letter}_' || sid[{level + 1}] || '>'"
        for level, letter in enumerate(letters)
    )
    beyond = " or ".join(
        f"{column}[{level + 1}] >= {k}"
        for level, k in enumerate(shape.levels)
        for column in ("sid", "codes")
        if column == "sid" or level < shape.base
    )
    checks = [
        *_sid_promises(shape),
        none_of(
            "items", "without_sid", "item_index not in (select item_index from sids)", "every item has a SID"
        ),
        none_of("sids", "wrong_key", "sid_key <> array_to_string(sid, '-')", "sid_key spells out sid"),
        none_of("sids", "wrong_tokens", wrong_token, "token_ids are sid in the one vocabulary"),
        none_of("sids", "beyond_level", beyond, "every code is one of its level's"),
        none_of("sids", "wrong_strings", wrong_string, "tokens spell out sid"),
        none_of("sids", "wrong_text", "text <> array_to_string(tokens, '')", "text is tokens joined"),
        none_of(
            "sids",
            "no_way_back",
            """item_index is distinct from (select item_indexes[sids.slot + 1] from sid_to_items
            where sid_to_items.sid_key = sids.sid_key and sid_to_items.sid = sids.sid)""",
            "sid_to_items leads back from the SID and slot to the item",
        ),
        none_of("sid_to_items", "wrong_n", "n <> len(item_indexes)", "n counts item_indexes"),
        Check(
            "sid_to_items",
            "items_too_many",
            "coalesce(sum(n), 0) - (select count(*) from sids)",
            "every item stands behind one SID",
            minimum=0,
            maximum=0,
        ),
        Check(
            "sequences",
            "events_lost",
            "(select count(*) from interactions) - coalesce(sum(len(items)), 0)",
            "every interaction stands in a sequence",
            minimum=0,
            maximum=0,
        ),
        none_of("sequences", "out_of_order", "ts <> list_sort(ts)", "a sequence never goes back in time"),
        none_of(
            "sequences",
            "not_declared_order",
            """(user_index, items, ts) not in (select (user_index, list(item_index order by place),
                list(ts order by place)) from placed group by user_index)""",
            "a sequence has its user's interactions in the declared order",
        ),
    ]
    for split in ("train", "valid", "test"):
        checks += _sample_promises(split)
    return checks


def _sid_promises(shape: SidShape) -> list[Check]:
    """Give the checks of what tokenizer and policy declare: uniqueness, length, suffix."""
    base = shape.base
    length = {"L": f"{base}", "L+1": f"{base + 1}"}.get(shape.length, f"{base} + (suffix is not null)::int")
    digit = "suffix is not null" if shape.length == "L" else f"suffix is distinct from sid[{base + 1}]"
    checks = [
        none_of(
            "sids",
            "uneven_length",
            f"len(codes) <> {base} or len(sid) <> {length} or len(token_ids) <> {length} "
            f"or len(tokens) <> {length}",
            f"SIDs have the declared length, {shape.length}",
        ),
        none_of("sids", "wrong_suffix", digit, "suffix is the added digit, and null where none is added"),
    ]
    if shape.length != "L":
        moved = f"sid[1:{base}] <> codes"
        checks.append(none_of("sids", "moved", moved, "a policy that adds a digit moves no code"))
    if shape.length == "L or L+1":
        checks.append(
            none_of(
                "sids",
                "not_prefix_free",
                f"suffix is null and sid in (select sid[1:{base}] from sids where suffix is not null)",
                "no SID is the beginning of another",
            )
        )
    if shape.capacity is not None:
        why = f"at most {shape.capacity} items share an SID"
        checks.append(none_of("sid_to_items", "overfull", f"n > {shape.capacity}", why))
    if shape.max_collision_rate is not None:
        checks.append(
            Check(
                "sids",
                "collision_rate",
                "(count(*) - count(distinct sid)) / greatest(count(*), 1)",
                "share of items whose SID another item has, (N - U) / N",
                minimum=0,
                maximum=shape.max_collision_rate,
            )
        )
    return checks


def _sample_promises(split: str) -> list[Check]:
    earlier = f'select max(ts) from placed where placed.user_index = {split}.user_index and place < "end"'
    return [
        none_of(
            split,
            "wrong_target",
            f"""(user_index, "end", target, target_ts) not in
            (select (user_index, place, item_index, ts) from placed where split = '{split}')""",
            f"the target is the {split} event at `end` of the user's sequence",
        ),
        none_of(
            split,
            "history_after_target",
            f'start >= "end" or target_ts < ({earlier})',
            "the history lies before its target, and is not empty",
        ),
        Check(
            split,
            "events_without_sample",
            f"(select count(*) from placed where split = '{split}' and place > 0) - count(*)",
            f"every {split} event with a history is a target",
            minimum=0,
            maximum=0,
        ),
    ]


def _same_items(table: str) -> list[Check]:
    """Give the checks that a table per item has the very items, under their own ids."""
    other = f"(select item_id from items where items.item_index = {table}.item_index)"
    missing = f"(select count(*) from items) - count(distinct {table}.item_index)"
    return [
        none_of(
            table, "not_the_items", f"item_id is distinct from {other}", "item_index and item_id as in items"
        ),
        Check(table, "items_missing", missing, "every item has a row", minimum=0, maximum=0),
    ]


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


def _trie_differs(resolved: StageOutput, width: int) -> float:
    """Give 1 where the trie is not the one that the table of SIDs makes, else 0."""
    made = Trie.build(padded_matrix(resolved.read("sids", ["sid"])["sid"], width, -1))
    kept = Trie.load(resolved.folder / "trie.safetensors")
    same = all(
        np.array_equal(getattr(made, name), getattr(kept, name)) for name in ("offsets", "codes", "items")
    )
    return 0.0 if same else 1.0


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


def summary_of(gates: StageOutput) -> list[dict[str, Any]]:
    """Read the results of a finished gates stage."""
    results: list[dict[str, Any]] = files.read_json(gates.folder / "gates.json")
    return results


STAGE = Stage(
    "gates",
    revision=2,
    parents=("ingest", "embed", "collisions", "sequences"),
    run=run,
    needs=("great_expectations", "quality"),
)
