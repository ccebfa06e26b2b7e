"""Measure a published release again, and compare with what its gates found before it was published.

gates.py judges by Great Expectations before anything is published; here two numbers are compared, so a
reader needs neither Great Expectations nor the stages that made the release.
"""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sid_pipelines.audit import breaches
from sid_pipelines.gates import GatesParams, Measured, measured_checks, summary_of
from sid_pipelines.released import base_of, outputs_of
from sid_schemas import Check, SidmillError
from sid_warehouse import records, releases
from sid_warehouse.db import connect
from sid_warehouse.stages import StageOutput
from sid_warehouse.verify import Finding

AUDIT = "audit"  # the table that gates.json gives for what stages found
Recorded = Mapping[tuple[str, str], Mapping[str, Any]]  # by table and check, as gates.json has it


@dataclass(frozen=True)
class Rechecked:
    """What came of measuring a release again. left_out: recorded checks that were not measured."""

    checks: int
    left_out: int
    findings: list[Finding]


def recheck(folder: Path) -> Rechecked:
    """Find every promise that the release in a folder breaks now, or of which it recorded another number.

    The files must have passed `sid_warehouse.verify.verify`. A check that a later sidmill added has no
    recorded number and must only hold; one that it dropped is left out. So is what an append promises of its
    base, where that does not lie beside it. What stages found, table `audit` of `gates.json`, needs their
    outputs: it is compared with `metrics.json`, not measured.
    """
    try:
        return _recheck(folder)
    except Exception as error:  # whatever a forged file makes its reader raise
        named = "" if isinstance(error, SidmillError) else f"{type(error).__name__}: "
        reason = f"{named}{error}".splitlines()[0]
        problem = Finding("gates.json", f"its checks cannot be measured again ({reason})")
        return Rechecked(0, 0, [problem])


def _recheck(folder: Path) -> Rechecked:
    outputs = {**outputs_of(folder), **_base(folder)}
    gates = outputs["gates"]
    results = summary_of(gates)
    known = {field.name for field in fields(GatesParams)}
    params = GatesParams(**{name: value for name, value in gates.manifest["params"].items() if name in known})
    with tempfile.TemporaryDirectory() as spill, connect(spill=Path(spill)) as connection:
        checks, measured = measured_checks(connection, outputs, params)
    recorded = {(one["table"], one["check"]): one for one in results if one["table"] != AUDIT}
    left_out = recorded.keys() - {(check.table, check.name) for check in checks}
    findings = [*_contradictions(folder, results, gates), *deviations(checks, measured, recorded)]
    return Rechecked(len(checks), len(left_out), findings)


def _base(folder: Path) -> dict[str, StageOutput]:
    """Give what an append went on from as role `base`, where it is still there under its number."""
    record = releases.read(folder)
    if record.get("kind") != "append":
        return {}
    base = folder.parent / f"v{record['base']['version']}"
    there = (base / records.NAME).is_file()
    if not there or releases.read(base)["fingerprint"] != record["base"]["fingerprint"]:
        return {}
    return {"base": base_of(base)}


def _contradictions(folder: Path, results: list[dict[str, Any]], gates: StageOutput) -> Iterator[Finding]:
    """Find where the files that tell of the gates do not tell the same."""
    if results != releases.read(folder)["gates"]:
        yield Finding("gates.json", "tells of the gates otherwise than release.json does")
    warned = [(one["check"], one["measured"]) for one in results if one["table"] == AUDIT]
    if warned != [(one["rule"], one["count"]) for one in breaches(gates.facts["findings"])]:
        yield Finding("gates.json", "tells of the leaks allowed otherwise than metrics.json does")


def deviations(checks: list[Check], measured: Measured, recorded: Recorded) -> Iterator[Finding]:
    """Find numbers that are not the recorded ones, and checks that fail and were not warned of."""
    for check in checks:
        number, before = measured[check.table][check.name], recorded.get((check.table, check.name))
        if before and number != before["measured"]:
            says = f"measured {_shown(number)}, expected {_shown(before['measured'])} as in gates.json"
        elif not holds(check, number) and not (before and before["verdict"] == "warning"):
            says = f"expected {check.bounds()}, got {_shown(number)}"
        else:
            continue
        yield Finding(check.table, f"{check.name} ({check.why}): {says}")


def holds(check: Check, number: float | None) -> bool:
    """Say whether a number keeps the bounds of a check, as Great Expectations would; a missing one does not.

    >>> holds(Check("sids", "rows", "count(*)", "", minimum=1), 0)
    False
    """
    if number is None:
        return False
    low, high = check.minimum, check.maximum
    return (low is None or number >= low) and (high is None or number <= high)


def _shown(number: float | None) -> str:
    return "nothing" if number is None else f"{number:g}"
