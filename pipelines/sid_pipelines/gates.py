"""Gates: DuckDB computes a profile of every table to be published, Great Expectations judges it.

Beside what each schema implies, the promises of a release are checked: every item has a SID, SIDs are
as unique as asked for, every history lies before its target in the declared order, and nothing leaks that
the split protocol forbids. A release that breaks one is not published; a leak may be made a warning.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from sid_pipelines import placed
from sid_pipelines.audit import Finding, breaches, finding, leak_checks
from sid_pipelines.beside_promises import beside_promises, counted_beside
from sid_pipelines.contents import VECTORS, holder, named_codes, published_tables
from sid_pipelines.kept import base_promises, begins_with
from sid_pipelines.promises import SidShape, counted_promises, same_items, sid_promises
from sid_pipelines.protocols import Protocol, protocol_named
from sid_pipelines.stage import Outcome, Stage, Work
from sid_pipelines.user_promises import user_promises
from sid_schemas import Check, GateRefusedError, checks_of
from sid_schemas.suites import Verdict, judge
from sid_schemas.tables import Table, table_named
from sid_warehouse import files, parquet
from sid_warehouse.db import connect, quote, view
from sid_warehouse.stages import StageOutput

Measured = dict[str, dict[str, float | None]]  # by table and check
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
            raise GateRefusedError(_refusal(connection, failed, leaks))
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
    tables, split, sequences = published_tables(outputs), outputs["split"], outputs["sequences"]
    base = outputs.get("base")
    unchanged = [name for name in tables if base and begins_with(base, holder(outputs, name), name)]
    checks = [check for name, folder in tables.items() for check in checks_of(_schema(folder, name))]
    shapes = _shapes(outputs, params.max_collision_rate)
    for shape in shapes.values():
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
            checks += [*same_items(name), *_vector_checks(name, params)]
    checks += beside_promises(outputs)
    if "users" in outputs:
        checks += user_promises(outputs["users"])
    if base:
        frozen = split.facts["rule"] != "protocol"
        checks += base_promises(base, frozen=frozen, unchanged=unchanged)
    known = _known(base, split, checks)
    _view_all(connection, tables, None if known else sequences)
    measured = measure(connection, [check for check in checks if check.table not in known])
    for table, numbers in known.items():
        measured[table] = {one.name: numbers.get(one.name, 0.0) for one in checks if one.table == table}
    for role, shape in shapes.items():
        for check, number in counted_promises(shape, outputs[role]):
            checks.append(check)
            measured[shape.table][check.name] = number
    for check, number in counted_beside(outputs):
        checks.append(check)
        measured[check.table][check.name] = number
    return checks, measured


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


def _view_all(
    connection: duckdb.DuckDBPyConnection, tables: Mapping[str, Path], sequences: StageOutput | None
) -> None:
    """Make a view of every table, those of samples with the event that stands at their `end`.

    sequences: None where samples and events need not be looked at.
    """
    for name, folder in tables.items():
        stored = f"{name}_stored" if name in placed.SPLITS else name
        view(connection, stored, parquet.parts(folder, name))
    if sequences is None:
        return
    placed.place(connection, sequences.manifest["params"])
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
    return [Check("interactions", "test_tie_rate", rate, why, minimum=0, maximum=max_tie_rate)]


def _vector_checks(table: str, params: GatesParams) -> list[Check]:
    """Give the checks of one embedding, over the items that have the modality."""
    distinct = "(count(*) filter (where present) - count(distinct hash(vector)) filter (where present))"
    zero = "count(*) filter (where present and list_max(list_transform(vector, lambda x: abs(x))) = 0)"
    checks = [
        Check(
            table,
            "zero_vectors",
            f"{zero} / greatest(count(*) filter (where present), 1)",
            "share of vectors that are zero; [gates] max_zero_vectors allows some",
            minimum=0,
            maximum=params.max_zero_vectors,
        )
    ]
    if params.max_duplicate_vectors is not None:
        checks.append(
            Check(
                table,
                "duplicate_vectors",
                f"{distinct} / greatest(count(*) filter (where present), 1)",
                "share of vectors that repeat another item's; no quantizer separates them",
                minimum=0,
                maximum=params.max_duplicate_vectors,
            )
        )
    if params.min_coverage is not None:
        coverage = "count(*) filter (where present) / count(*)"
        why = "share of items that have this modality"
        checks.append(Check(table, "coverage", coverage, why, minimum=params.min_coverage))
    return checks


def _fit_scope(connection: duckdb.DuckDBPyConnection, outputs: Mapping[str, StageOutput]) -> Finding:
    """Find on how many items without a train event the tokenizer was fitted; an append fits nothing."""
    if "base" in outputs:
        return next(one for one in outputs["base"].facts["audit"] if one["rule"] == "fit_scope")
    tokenized = outputs["tokenize"]
    view(connection, "codes", tokenized.parts("codes"))
    [(unseen, fitted)] = connection.sql("""
        select count(*) filter (where item_index not in (
            select item_index from interactions where split = 'train')), count(*)
        from codes where fitted""").fetchall()
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


def _refusal(
    connection: duckdb.DuckDBPyConnection, failed: Sequence[Verdict], leaks: Sequence[Finding]
) -> str:
    parts = []
    for verdict in failed:
        check = verdict.check
        found = "nothing" if verdict.measured is None else f"{verdict.measured:g}"
        part = f"{check.table}.{check.name} ({check.why}): expected {check.bounds()}, got {found}"
        if check.failing:
            part += f", as in {_example(connection, check)}"
        parts.append(part)
    parts += [f"audit.{one['rule']} ({one['says']}): expected 0, got {one['count']}" for one in leaks]
    return f"{len(parts)} of the release's promises do not hold; nothing was published: " + "; ".join(parts)


def _example(connection: duckdb.DuckDBPyConnection, check: Check) -> str:
    """Give an offending row as column=value pairs."""
    found = connection.execute(f"select * from {quote(check.table)} where {check.failing} limit 1")
    columns = [column[0] for column in found.description or ()]
    values = zip(columns, found.fetchone() or (), strict=False)
    shown = [(name, repr(value)) for name, value in values if name not in ("filename", "file_row_number")]
    return ", ".join(f"{name}={value if len(value) < 60 else value[:57] + '...'}" for name, value in shown)


def summary_of(gates: StageOutput) -> list[dict[str, Any]]:
    """Read the results of a finished gates stage."""
    results: list[dict[str, Any]] = files.read_json(gates.folder / "gates.json")
    return results


STAGE = Stage(
    "gates",
    revision=8,
    parents=("ingest", "clean", "split", "sequences", "pairs", "tokenize", "collisions"),
    run=run,
    needs=lambda params: ("great_expectations", "quality"),
)
