"""verify: whether a release is still what was published, byte by byte and promise by promise."""

from typing import Annotated

import typer

from sid_flows.recipe import warehouse_path
from sid_schemas import WarehouseError
from sid_warehouse.reader import Warehouse
from sidmill.app import JsonOpt, RefArg, WarehouseOpt, app
from sidmill.console import print_json, say


@app.command()
def verify(
    ref: RefArg,
    warehouse: WarehouseOpt = None,
    quick: Annotated[bool, typer.Option("--quick", help="hashes and schemas only, no gates")] = False,
    json: JsonOpt = False,
) -> None:
    """Re-hash every file of a release, check its schemas, and measure again what its gates checked."""
    from sid_pipelines.recheck import recheck
    from sid_warehouse.verify import verify as check

    release = Warehouse(warehouse_path(warehouse)).release(ref)
    findings = check(release.folder)
    # Damaged files say nothing about what the release promised.
    gates = None if quick or findings else recheck(release.folder)
    findings = gates.findings if gates else findings
    files = len(release.record["files"])
    if json:
        found = [{"file": finding.file, "problem": finding.problem} for finding in findings]
        told = {"ref": release.ref, "intact": not findings, "files": files}
        checks = {"checks": gates.checks if gates else 0, "left_out": gates.left_out if gates else 0}
        print_json({**told, **checks, "findings": found})
    elif not findings:
        says = f"{release.ref} is intact: {files} files match their SHA-256, their schemas hold"
        says += f", {gates.checks} gate checks measure as before" if gates else ""
        left_out = f" ({gates.left_out} left out)" if gates and gates.left_out else ""
        say(says + left_out)
    if findings:
        first = findings[0]
        more = f" ({len(findings) - 1} more: see --json)" if len(findings) > 1 else ""
        raise WarehouseError(
            f"{release.folder / first.file}: {first.problem}{more}. "
            "Restore the release from a copy, or remove its folder and run its recipe again"
        )
