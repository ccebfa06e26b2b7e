"""verify: whether a release is still what was published, byte by byte and promise by promise."""

from typing import Annotated

import typer

from sid_flows.recipe import warehouse_path
from sid_flows.verifying import verified
from sidmill.app import JsonOpt, RefArg, WarehouseOpt, app
from sidmill.console import print_json, say, working


@app.command()
def verify(
    ref: RefArg,
    warehouse: WarehouseOpt = None,
    quick: Annotated[bool, typer.Option("--quick", help="hashes and schemas only, no gates")] = False,
    json: JsonOpt = False,
) -> None:
    """Check that a release is still what was published.

    Every file is hashed, schemas are checked, and what the gates checked is measured again.
    """
    with working(f"verifying {ref}", json=json):
        found = verified(warehouse_path(warehouse), ref, quick=quick)
    if json:
        print_json(found.told)
    elif not found.findings:
        say(found.says)
    found.check()
