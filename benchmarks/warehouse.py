"""What the warehouse costs: publish, append, open, refresh, diff, verify, and how many kills it survives.

python benchmarks/warehouse.py [--items 1000000] [--interactions 10000000] [--add 10000] [--kills 200]
                               [--repeat 3] [--json FILE]

Items have short made-up texts, embedded by hashing (64 numbers), so that embedding is cheap and is counted
apart anyway. The build is made once below benchmarks/.cache and kept; each append starts from a copy of that
warehouse made of hard links. Figures are medians over --repeat, of processes of their own.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
CACHE = HERE / ".cache"
sys.path.insert(0, str(HERE.parent / "tests"))
WORDS = 5_000
RECIPE = """
dataset = "bench"
[source]
kind = "table"
path = "{folder}/interactions.parquet"
items = "{folder}/items.parquet"
time_unit = "ms"
columns = {{ user_id = "user", item_id = "item", ts = "time" }}
item_columns = {{ item_id = "item", title = "title" }}
"""
BUILD = """
[items]
universe = "catalog"
[clean]
k_core = 0
dedupe = "all"
[[embed]]
model = "hashing"
template = "{title}"
dim = 64
[tokenize]
levels = [256, 256, 256]
fit_items = 100_000
fit_scope = "all"
[publish]
catalog = "views"
"""


def write_dump(
    folder: Path, items: range, users: int, events: int, *, known: int, day: int, seed: int
) -> Path:
    """Write items, and events of users on items among the first `known`, skewed; give the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    words = np.array([f"w{number}" for number in range(WORDS)])
    texts = [" ".join(row) for row in words[(WORDS * draw.random((len(items), 5)) ** 2).astype(int)]]
    ids = [f"i{number:08d}" for number in items]
    pq.write_table(pa.table({"item": ids, "title": texts}), folder / "items.parquet")
    item = (known * draw.random(events) ** 2).astype(np.int64)
    user = draw.integers(0, users, events)
    start = 1_600_000_000_000 + day * 86_400_000 * 400
    columns = {
        "user": pa.array([f"u{number}" for number in user]),
        "item": pa.array([f"i{number:08d}" for number in item]),
        "time": pa.array(start + draw.integers(0, 86_400_000 * 300, events)),
    }
    pq.write_table(pa.table(columns), folder / "interactions.parquet")
    return folder


def timed(plan: Any) -> dict[str, float]:
    """Run a plan's stages and publish; give the seconds of each."""
    from sid_flows.execute import execute, finish

    outputs: dict[str, Any] = {}
    seconds = {}
    for planned in plan.stages:
        start = time.monotonic()
        outputs[planned.label] = execute(plan, planned, outputs)
        seconds[planned.label] = time.monotonic() - start
    start = time.monotonic()
    record = finish(plan, outputs)
    seconds["publish"] = time.monotonic() - start
    embedding = sum(value for name, value in seconds.items() if name.startswith("embed"))
    seconds["without embedding"] = sum(seconds.values()) - embedding
    seconds["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert record["rows"]["items"] == record["rows"]["sids"]
    return seconds


def build(folder: Path) -> dict[str, float]:
    from sid_flows.plan import make_plan

    recipe = folder / "build.toml"
    recipe.write_text(RECIPE.format(folder=folder / "base") + BUILD)
    return timed(make_plan(recipe, folder / "warehouse"))


def append(folder: Path, name: str) -> dict[str, float]:
    from sid_flows.append import plan_append

    copy = folder / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder / "warehouse", copy, copy_function=os.link)
    recipe = folder / f"{name}.toml"
    recipe.write_text(RECIPE.format(folder=folder / name))
    seconds = timed(plan_append(recipe, copy))
    shutil.rmtree(copy)
    return seconds


def opened(folder: Path) -> dict[str, float]:
    """Give the seconds that a reader in a warm process waits for, and a first SID of a cold one."""
    import sidmill

    warehouse = sidmill.open(folder / "warehouse")
    warehouse.release("bench").close()
    start = time.monotonic()
    release = sidmill.open(folder / "warehouse").release("bench")
    found = {"open": time.monotonic() - start}
    start = time.monotonic()
    release.samples("train")
    found["samples of train"] = time.monotonic() - start
    return found


def kept(folder: Path) -> dict[str, float]:
    """Give the seconds of what is done with releases."""
    from sid_pipelines.recheck import recheck
    from sid_warehouse import catalog
    from sid_warehouse.diff import compare
    from sid_warehouse.reader import Warehouse
    from sid_warehouse.verify import verify

    warehouse = Warehouse(folder / "warehouse")
    release = warehouse.release("bench")
    path, found = warehouse.path / catalog.NAME, {}
    for name, act in {
        "catalog from nothing": lambda: (path.unlink(), catalog.refresh(warehouse.path)),
        "catalog again": lambda: catalog.refresh(warehouse.path),
        "verify, hashes": lambda: verify(release.folder),
        "verify, gates": lambda: recheck(release.folder),
        "diff with itself": lambda: compare(release, release),
    }.items():
        start = time.monotonic()
        act()
        found[name] = time.monotonic() - start
    return found


def kills(tries: int) -> dict[str, Any]:
    from kill_harness import kills as tried

    return dict(tried(tries))


def in_process(*words: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--only", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def median_of(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(run[name] for run in runs), 3) for name in runs[0]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--interactions", type=int, default=10_000_000)
    parser.add_argument("--add", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        name, *words = given.only
        acts = {"build": build, "append": append, "opened": opened, "kept": kept}
        print(json.dumps(kills(int(words[0])) if name == "kills" else acts[name](Path(words[0]), *words[1:])))
        return
    folder = CACHE / f"warehouse-{given.items}-{given.interactions}"
    users = given.interactions // 20
    if not (folder / "base" / "interactions.parquet").exists():
        write_dump(
            folder / "base", range(given.items), users, given.interactions, known=given.items, day=0, seed=0
        )
    new = range(given.items, given.items + given.add)
    few = folder / "items-only"
    write_dump(few, new, users, 0, known=new.stop, day=1, seed=1)
    write_dump(folder / "with-events", new, users, 5 * given.add, known=new.stop, day=1, seed=1)
    shutil.rmtree(folder / "warehouse", ignore_errors=True)
    found: dict[str, Any] = {"cores": os.cpu_count(), "machine": platform.processor() or platform.machine()}
    found["build"] = in_process("build", str(folder))
    for name in ("items-only", "with-events"):
        found[f"append {given.add:,} items, {name}"] = median_of(
            [in_process("append", str(folder), name) for _ in range(given.repeat)]
        )
    found["open"] = median_of([in_process("opened", str(folder)) for _ in range(given.repeat)])
    found["keep"] = median_of([in_process("kept", str(folder)) for _ in range(given.repeat)])
    if given.kills:
        found["kills"] = in_process("kills", str(given.kills))
    print(json.dumps(found, indent=1))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
