"""doctor: what this machine and installation have, and what is missing."""

from collections import Counter
from dataclasses import asdict

import typer

from sid_flows.recipe import warehouse_path
from sidmill.app import JsonOpt, WarehouseOpt, app
from sidmill.console import print_json, say


@app.command()
def doctor(warehouse: WarehouseOpt = None, json: JsonOpt = False) -> None:
    """Look at this installation, machine and warehouse.

    Every finding is ok, a note, or a problem with what to do; with a problem the exit code is 1.
    """
    from sid_flows.doctor import diagnose

    place = warehouse_path(warehouse)
    found = diagnose(place)
    count = Counter(one.verdict for one in found)
    if json:
        told = {"problems": count["problem"], "notes": count["note"], "warehouse": str(place)}
        print_json({**told, "findings": [asdict(one) for one in found]})
    else:
        area = ""
        for one in found:
            if one.area != area:
                area = one.area
                say(area)
            mark = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}[one.verdict]
            say(f"  {mark}  {one.says}")
            if one.do:
                say(f"           -> {one.do}")
        say()
        say(f"{count['problem']} problems, {count['note']} notes")
    if count["problem"]:
        raise typer.Exit(1)
