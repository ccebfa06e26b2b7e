"""Gates: DuckDB computes a profile of every table to be published, Great Expectations judges it.

Beside what each schema implies, the promises of a release are checked: every item has a SID, SIDs are
as unique as asked for, every history lies before its target in the declared order, and nothing leaks that
the split protocol forbids. A release that breaks one is not published; a leak may be made a warning. What
is refused is told with failing rows, which refusal.py keeps.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from sid_pipelines import placed
from sid_pipelines.audit import RULES, Context, Finding, breaches, finding, leak_checks
from sid_pipelines.beside_promises import beside_promises, counted_beside
from sid_pipelines.contents import VECTORS, holder, named_codes, published_tables
from sid_pipelines.failing import rows_of, schema_checks, sought
from sid_pipelines.kept import base_promises, begins_with
from sid_pipelines.promises import SidShape, counted_promises, same_items, sid_promises
from sid_pipelines.protocols import Protocol, protocol_named
from sid_pipelines.refusal import Broken, broken, failing_rows, keep, sentence
from sid_pipelines.stage import Outcome, Stage, Work
from sid_pipelines.user_promises import user_promises
from sid_pipelines.vector_promises import vector_promises
from sid_schemas import Check, GateRefusedError
from sid_schemas.suites import Verdict, judge
from sid_schemas.tables import Table, table_named
from sid_warehouse import files, parquet
from sid_warehouse.db import connect, quote, view
from sid_warehouse.stages import REFUSED, StageOutput

Measured = dict[str, dict[str, float | None]]  # by table and check
UNSEEN = "item_index not in (select item_index from interactions where split = 'train')"
# Checks of tables that count what findings of stages count.
TWINS = {
    "history_later_than_target": "history_after_target",
    "held_out_in_history": "leak_held_out_in_history",
    "clicked_held_out": "leak_clicked_held_out",
}
OF_EVENTS = ("interactions", "sequences")  # beside the samples of placed.SPLITS
LEAK = "leak_"  # how names of checks begin that [gates] leakage is about


@dataclass(frozen=True)
class GatesParams:
    """What must hold beyond the schemas.

    max_collision_rate: None for what the collision policy promises. leakage: "fail" where a leak that the
    split protocol forbids refuses the release, "warn" where it is only kept. max_tie_rate: the share of
    test events that may have the time of the event before them; None for any. max_zero_vectors,
    max_duplicate_vectors: the share of items that have a modality and a vector of zeros, or one that another
    item has too. min_coverage: the share of items that must have each modality.
    """

    max_collision_rate: float | None
    leakage: str = "fail"
    max_tie_rate: float | None = None
    max_zero_vectors: float = 0.0
    max_duplicate_vectors: float | None = None
    min_coverage: float | None = None


def run(work: Work) -> Outcome:
    """Write `gates.json`; raises GateRefusedError naming each check that failed."""
    params: GatesParams = work.params
    split, sequences = work.inputs["split"], work.inputs["sequences"]
    with connect(spill=work.out.spill, memory=work.resources.duckdb) as connection:
        checks, measured = measured_checks(connection, work.inputs, params)
        verdicts = judge(checks, measured)
        findings = [*split.facts["audit"]["findings"], *sequences.facts["findings"]]
        findings.append(_fit_scope(connection, work.inputs))
        failed = [one for one in verdicts if not one.passed and not _only_warned(one, params)]
        leaks = breaches(findings) if params.leakage == "fail" else []
        if failed or leaks:
            told = [broken(connection, one) for one in failed]
            told += [_leak(connection, one, split, checks) for one in leaks]
            folder = work.out.store.warehouse / REFUSED / work.out.store.dataset / work.out.key
            raise GateRefusedError(sentence(told, folder if keep(folder, told) else None))
    results = [*map(_result, verdicts), *map(_warning, breaches(findings))]
    files.write_json(work.out.folder / "gates.json", results)
    warnings = [f"{one['table']}.{one['check']}" for one in results if one["verdict"] == "warning"]
    facts = {"checks": len(verdicts), "tables": len(measured), "warnings": warnings, "findings": findings}
    said = f"; leaks allowed by [gates] leakage = 'warn': {', '.join(warnings)}" if warnings else ""
    held = sum(verdict.passed for verdict in verdicts)
    return Outcome(facts, f"{held} checks on {len(measured)} tables hold{said}")


def measured_checks(
    connection: duckdb.DuckDBPyConnection, outputs: Mapping[str, StageOutput], params: GatesParams
) -> tuple[list[Check], Measured]:
    """Give every check of the tables to be published, and the number measured for each.

    outputs: by role. Nothing is read of them but what a release has too, so that recheck.py can measure a
    release again.
    """
    checks = promised(outputs, params)
    known = _known(outputs.get("base"), outputs["split"], checks)
    view_all(connection, outputs, with_events=not known)
    measured = measure(connection, [check for check in checks if check.table not in known])
    for table, numbers in known.items():
        measured[table] = {one.name: numbers.get(one.name, 0.0) for one in checks if one.table == table}
    counted = [*counted_beside(outputs)]
    for role, shape in _shapes(outputs, params.max_collision_rate).items():
        counted += counted_promises(shape, outputs[role])
    for check, number in counted:
        checks.append(check)
        measured[check.table][check.name] = number
    return checks, measured


def promised(outputs: Mapping[str, StageOutput], params: GatesParams) -> list[Check]:
    """Give every check of the tables to be published that SQL measures; see `view_all`."""
    tables, split, sequences = published_tables(outputs), outputs["split"], outputs["sequences"]
    base = outputs.get("base")
    unchanged = [name for name in tables if base and begins_with(base, holder(outputs, name), name)]
    checks = [check for name, folder in tables.items() for check in schema_checks(_schema(folder, name))]
    for shape in _shapes(outputs, params.max_collision_rate).values():
        checks += [*sid_promises(shape), *same_items(shape.table)]
    checks += placed.sequence_promises()
    checks += placed.sample_promises(sequences.manifest["params"], sequences.facts["samples"])
    checks += placed.shown_promises(tables, split.facts.get("cuts"))
    checks += leak_checks(_protocol(split), split.facts)
    checks += _tie_checks(params.max_tie_rate)
    for name in tables:
        if name.startswith(VECTORS):
            checks += same_items(name)
        if name.startswith("embeddings_"):
            bounds = params.max_zero_vectors, params.max_duplicate_vectors, params.min_coverage
            checks += [*same_items(name), *vector_promises(name, *bounds)]
    checks += beside_promises(outputs)
    if "users" in outputs:
        checks += user_promises(outputs["users"])
    if base:
        frozen = split.facts["rule"] != "protocol"
        checks += base_promises(base, frozen=frozen, unchanged=unchanged)
    return checks


def _shapes(outputs: Mapping[str, StageOutput], max_collision_rate: float | None) -> dict[str, SidShape]:
    """Give what each table of SIDs looks like, by the role that made it."""
    names = {"collisions": "", **{f"collisions {name}": name for name in named_codes(outputs)}}
    return {role: SidShape.declared(outputs[role], max_collision_rate, name) for role, name in names.items()}


def _known(base: StageOutput | None, split: StageOutput, checks: Sequence[Check]) -> Measured:
    """Give what the gates of the base measured of tables of events, where an append adds no event.

    They are the base's files to the byte, and what they refer to has only grown. Empty where a check is asked
    for that the base was not asked.
    """
    if base is None or not split.facts.get("unchanged"):
        return {}
    recorded = {(one["table"], one["check"]): one["measured"] for one in summary_of(base)}
    known: Measured = {table: {} for table in (*OF_EVENTS, *placed.SPLITS)}
    for check in checks:
        if check.table in known and not check.name.startswith("base_"):
            if (check.table, check.name) not in recorded:
                return {}
            known[check.table][check.name] = recorded[check.table, check.name]
    return known


def view_all(
    connection: duckdb.DuckDBPyConnection, outputs: Mapping[str, StageOutput], *, with_events: bool = True
) -> None:
    """Make a view of every table, those of samples with the event that stands at their `end`.

    with_events: whether samples and events need be looked at.
    """
    for name, folder in published_tables(outputs).items():
        stored = f"{name}_stored" if name in placed.SPLITS else name
        view(connection, stored, parquet.parts(folder, name))
    if not with_events:
        return
    placed.place(connection, outputs["sequences"].manifest["params"])
    for name in placed.SPLITS:
        placed.view_samples(connection, name, f"{name}_stored")


def _protocol(split: StageOutput) -> Protocol:
    params = split.manifest["params"]
    return protocol_named(params["protocol"], params["params"])


def _tie_checks(max_tie_rate: float | None) -> list[Check]:
    if max_tie_rate is None:
        return []
    rate = """(select count(*) filter (where ts = before_ts) / greatest(count(*), 1)
        from placed where split = 'test')"""
    why = "share of test events at the same time as the event before them"
    check = Check("interactions", "test_tie_rate", rate, why, minimum=0, maximum=max_tie_rate)
    return [sought(check, "from placed where split = 'test' and ts = before_ts")]


def _fit_scope(connection: duckdb.DuckDBPyConnection, outputs: Mapping[str, StageOutput]) -> Finding:
    """Find on how many items without a train event the tokenizer was fitted; an append fits nothing."""
    if "base" in outputs:
        return next(one for one in outputs["base"].facts["audit"] if one["rule"] == "fit_scope")
    tokenized = outputs["tokenize"]
    view(connection, "codes", tokenized.parts("codes"))
    [(unseen, fitted)] = connection.sql(f"""
        select count(*) filter (where {UNSEEN}), count(*) from codes where fitted""").fetchall()
    says = "items without a train event are among those the tokenizer was fitted on ({})"
    scope, strict = tokenized.facts["fit_scope"], tokenized.manifest["params"]["fit_scope"] == "train"
    return finding("fit_scope", says.format(scope), count=unseen, of=fitted, strict=strict)


def _only_warned(verdict: Verdict, params: GatesParams) -> bool:
    return params.leakage == "warn" and verdict.check.name.startswith(LEAK)


def _result(verdict: Verdict) -> dict[str, Any]:
    check = verdict.check
    return {
        "table": check.table,
        "check": check.name,
        "measured": verdict.measured,
        "expected": check.bounds(),
        "why": check.why,
        "verdict": "ok" if verdict.passed else "warning",
    }


def _warning(leak: Finding) -> dict[str, Any]:
    told = {"table": "audit", "check": leak["rule"], "measured": leak["count"], "expected": "0"}
    return told | {"why": f"no {leak['says']}", "verdict": "warning"}


def measure(connection: duckdb.DuckDBPyConnection, checks: list[Check]) -> Measured:
    """Compute the numbers of all checks, one query per table: {table: {check name: number}}."""
    measured: Measured = {}
    for table in dict.fromkeys(check.table for check in checks):
        own = [check for check in checks if check.table == table]
        columns = ", ".join(f"({check.sql})::double as {quote(check.name)}" for check in own)
        # count(*) makes one row of it, even where all checks are scalar subqueries
        [row] = connection.sql(f"select {columns}, count(*) from {quote(table)}").fetchall()
        measured[table] = {
            check.name: None if number is None or math.isnan(number) else number
            for check, number in zip(own, row[:-1], strict=True)
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


def _leak(
    connection: duckdb.DuckDBPyConnection, leak: Finding, split: StageOutput, checks: Sequence[Check]
) -> Broken:
    """Look for the events, items or samples that a stage found to leak."""
    rule, query = leak["rule"], None
    if rule == "fit_scope":
        query = f"from codes where fitted and {UNSEEN}"
    elif rule in RULES:
        context = Context(_protocol(split), split.facts)
        query = f"from placed where {RULES[rule].sql(context)}"
    elif rule in TWINS:
        twins = (one for one in checks if one.name == TWINS[rule])
        query = next((rows_of(one) for one in twins if one.table in (leak["split"], "impressions")), None)
    rows = failing_rows(connection, query)
    return Broken(f"audit.{rule}", leak["says"], "0", float(leak["count"]), rows)


def summary_of(gates: StageOutput) -> list[dict[str, Any]]:
    """Read the results of a finished gates stage."""
    results: list[dict[str, Any]] = files.read_json(gates.folder / "gates.json")
    return results


STAGE = Stage(
    "gates",
    revision=9,
    parents=("ingest", "clean", "split", "sequences", "pairs", "tokenize", "collisions"),
    run=run,
    needs=lambda params: ("great_expectations", "quality"),
)
