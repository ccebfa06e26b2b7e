"""What the gates cost on many events: each table's profile, Great Expectations apart, and the peak of memory.

python benchmarks/gates.py [--events 30000000] [--users 1500000] [--items 200000] [--memory 8GiB]
                           [--json FILE]

The data set is made up and taken through the real stages once, below benchmarks/.cache; the gates are then
measured in a process of their own, as the stage runs them and as `sidmill verify` measures a release. Of
their memory DuckDB may have half of --memory, as in every stage.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CACHE = HERE / ".cache"
RECIPE = """
dataset = "gates"
[source]
kind = "table"
path = "events.parquet"
items = "items.parquet"
time_unit = "s"
columns = {user_id = "user_id", item_id = "item_id", ts = "ts"}
item_columns = {item_id = "item_id", title = "title"}
[clean]
k_core = 5
[[embed]]
model = "hashing"
template = "{title}"
dim = 32
[tokenize]
levels = [256, 256, 256]
[gates]
max_duplicate_vectors = 1.0
max_tie_rate = 1.0
"""


def made(folder: Path, events: int, users: int, items: int) -> None:
    """Write events of users with about as many each, on items of which few are popular."""
    import duckdb

    folder.mkdir(parents=True)
    with duckdb.connect() as connection:
        connection.execute(f"""
            copy (select 'u' || (hash(n) % {users}) as user_id,
                    'i' || floor({items} * pow((hash(n, 1) % 1000003) / 1000003, 2))::bigint as item_id,
                    1400000000 + (hash(n, 2) % 200000000)::bigint as ts
                from range({events}) as t(n))
            to '{folder / "events.parquet"}' (format parquet)""")
        connection.execute(f"""
            copy (select 'i' || n as item_id, 'title ' || hash(n) || ' ' || (n % 977) as title
                from range({items}) as t(n))
            to '{folder / "items.parquet"}' (format parquet)""")
    (folder / "recipe.toml").write_text(RECIPE)


def stages(folder: Path, memory: str) -> tuple[Any, dict[str, Any]]:
    """Give the plan and the outputs of all stages before the gates, made where they are not there yet."""
    from sid_flows.plan import make_plan

    plan = make_plan(folder / "recipe.toml", folder / "warehouse", [f"engine.memory={memory}"])
    outputs: dict[str, Any] = {}
    for planned in plan.stages[:-1]:
        outputs[planned.label] = planned.done or _made(plan, planned, outputs)
    return plan, outputs


def _made(plan: Any, planned: Any, outputs: dict[str, Any]) -> Any:
    from sid_flows.execute import execute

    output = execute(plan, planned, outputs)
    print(planned.label, output.manifest["seconds"], "s", file=sys.stderr)
    return output


def child(folder: Path, memory: str) -> dict[str, Any]:
    """Measure every table's checks, and the judging, in this process."""
    from sid_pipelines import gates
    from sid_pipelines.stage import Resources
    from sid_schemas.suites import judge
    from sid_warehouse.db import connect

    plan, outputs = stages(folder, memory)
    last = plan.stages[-1]
    own, place, seconds = gates.measure, gates.placed.place, {}

    def measure(connection: Any, checks: Any) -> Any:
        measured = {}
        for table in dict.fromkeys(check.table for check in checks):
            started = time.monotonic()
            measured |= own(connection, [check for check in checks if check.table == table])
            seconds[table] = round(time.monotonic() - started, 2)
        return measured

    def placed(connection: Any, params: Any) -> None:
        started = time.monotonic()
        place(connection, params)
        seconds["(order of events)"] = round(time.monotonic() - started, 2)

    gates.measure, gates.placed.place = measure, placed
    with tempfile.TemporaryDirectory(dir=CACHE) as spill:
        started = time.monotonic()
        resources = Resources(memory=memory)
        with connect(spill=Path(spill), memory=resources.duckdb) as connection:
            checks, measured = gates.measured_checks(connection, last.inputs(outputs), last.params)
            profile = time.monotonic() - started
            peak = _peak_mb()
            started = time.monotonic()
            verdicts = judge(checks, measured)
            judged = time.monotonic() - started
    rows = outputs["split"].manifest["rows"] | outputs["sequences"].manifest["rows"]
    return {
        "rows": rows,
        "checks": len(checks),
        "failed": [f"{one.check.table}.{one.check.name}" for one in verdicts if not one.passed],
        "tables": seconds,
        "profile_seconds": round(profile, 1),
        "profile_peak_mb": round(peak),
        "great_expectations_seconds": round(judged, 1),
        "peak_mb": round(_peak_mb()),
    }


def _peak_mb() -> float:
    """Give the peak of this process alone; getrusage begins with that of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=30_000_000)
    parser.add_argument("--users", type=int, default=1_500_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--memory", default="8GiB")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", action="store_true")
    options = parser.parse_args()
    folder = CACHE / f"gates-{options.events}-{options.users}-{options.items}"
    if options.child:
        print(json.dumps(child(folder, options.memory)))
        return
    if not folder.exists():
        made(folder, options.events, options.users, options.items)
    stages(folder, options.memory)
    command = [sys.executable, *sys.argv, "--child"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    if options.json:
        options.json.write_text(json.dumps(told, indent=2))
    for name, value in told.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
