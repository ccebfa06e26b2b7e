"""How fast and in how much memory raw reviews become a split: gz -> dedupe -> 5-core -> leave-one-out.

python benchmarks/prepare.py --reviews 1000000 [--reviews 3000000 ...] [--repeat 3] [--memory 4GiB]
                             [--alternatives zcat,duckdb,pandas,lean,research] [--json FILE]

Every run is a process of its own, so that its peak memory is its own; where control groups can be made
(as root), sidmill runs in one that may not use more than --memory, page cache included. The dumps are
written to benchmarks/.cache and kept. With --equal the run is repeated without a bound, and every table
must have the same bytes.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CACHE = HERE / ".cache"
GROUPS = Path("/sys/fs/cgroup/memory")
RECIPE = """
dataset = "prepare"
[source]
kind = "amazon-2018"
path = "{path}"
[clean]
k_core = 5
[engine]
memory = "{memory}"
"""


def sidmill(path: Path, folder: Path, memory: str) -> dict[str, Any]:
    """The chain's own stages, as `sidmill run --until split` runs them, without Prefect's server."""
    from sid_flows.execute import execute
    from sid_flows.plan import make_plan

    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE.format(path=path, memory=memory))
    plan = make_plan(recipe, folder / "warehouse", until="split")
    outputs: dict[str, Any] = {}
    for planned in plan.stages:
        outputs[planned.stage.name] = execute(plan, planned, outputs)
    last = outputs["clean"].facts["ledger"][-1]
    hashes = {
        f"{name}/{file}": entry["sha256"]
        for name, output in outputs.items()
        for file, entry in output.manifest["files"].items()
    }
    return {
        **{name: last[name] for name in ("users", "items", "interactions")},
        "broken": outputs["ingest"].facts["rejects"],
        "stages": {name: round(output.manifest["seconds"], 2) for name, output in outputs.items()},
        "hashes": hashes,
    }


def zcat(path: Path, folder: Path, memory: str) -> dict[str, Any]:
    """Only what decompressing takes."""
    size = subprocess.run(f"zcat '{path}' | wc -c", shell=True, check=True, capture_output=True, text=True)  # noqa: S602
    return {"bytes": int(size.stdout)}


def duckdb(path: Path, folder: Path, memory: str) -> dict[str, Any]:
    """One SQL script over DuckDB's own JSON reader: broken lines become rows of nulls, uncounted."""
    import duckdb as engine

    connection = engine.connect()
    connection.execute(f"""
        create table e as
        select user_id, item_id, ts from (
            select reviewerID as user_id, asin as item_id, unixReviewTime as ts,
                row_number() over (partition by reviewerID, asin order by unixReviewTime) as n
            from read_json('{path}', format = 'newline_delimited', ignore_errors = true,
                columns = {{reviewerID: 'VARCHAR', asin: 'VARCHAR', unixReviewTime: 'BIGINT'}})
            where reviewerID is not null) where n = 1""")
    rows = -1
    while rows != (rows := connection.sql("select count(*) from e").fetchall()[0][0]):
        for column in ("item_id", "user_id"):
            connection.execute(f"""
                create or replace table e as from e semi join (
                    select {column} from e group by 1 having count(*) >= 5) using ({column})""")
    connection.execute(f"""
        copy (select *, row_number() over (partition by user_id order by ts desc) as back from e
            order by user_id, ts) to '{folder}/split.parquet'""")
    [(users, items)] = connection.sql(
        "select count(distinct user_id), count(distinct item_id) from e"
    ).fetchall()
    return {"users": users, "items": items, "interactions": rows}


def pandas(path: Path, folder: Path, memory: str) -> dict[str, Any]:
    """read_json in chunks; broken lines are dropped before, since pandas stops at one."""
    import gzip
    import io

    import pandas as pd

    columns = ["reviewerID", "asin", "unixReviewTime"]
    frames = []
    with gzip.open(path, "rt", encoding="utf-8") as file:
        while lines := file.readlines(64 << 20):
            text = "".join(line for line in lines if line.endswith("}\n"))
            frames.append(pd.read_json(io.StringIO(text), lines=True, convert_dates=False)[columns])
    events = pd.concat(frames).sort_values(columns, ignore_index=True)
    events = events.drop_duplicates(["reviewerID", "asin"])
    rows = -1
    while rows != (rows := len(events)):
        for column in ("asin", "reviewerID"):
            events = events[events.groupby(column)[column].transform("size") >= 5]
    events = events.sort_values(["reviewerID", "unixReviewTime"])
    events["back"] = events.groupby("reviewerID").cumcount(ascending=False)
    events.to_parquet(folder / "split.parquet")
    return {"users": events["reviewerID"].nunique(), "items": events["asin"].nunique(), "interactions": rows}


def lean(path: Path, folder: Path, memory: str) -> dict[str, Any]:
    from plain_python import lean as run

    return run(path, folder)


def research(path: Path, folder: Path, memory: str) -> dict[str, Any]:
    from plain_python import research as run

    return run(path, folder)


METHODS: dict[str, Callable[[Path, Path, str], dict[str, Any]]] = {
    method.__name__: method for method in (sidmill, zcat, duckdb, pandas, lean, research)
}


def measured(name: str, path: Path, memory: str, bounded: bool) -> dict[str, Any]:
    """Run one method in a process of its own."""
    command = [sys.executable, __file__, "--child", name, "--file", str(path), "--memory", memory]
    group = GROUPS / f"sidmill-{os.getpid()}" if bounded and os.access(GROUPS, os.W_OK) else None
    if group:
        group.mkdir(exist_ok=True)
        (group / "memory.limit_in_bytes").write_text(memory.removesuffix("iB"))
    started = time.perf_counter()
    joined = (lambda: (group / "cgroup.procs").write_text(str(os.getpid()))) if group else None
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=joined)
    seconds = time.perf_counter() - started
    if group:
        group.rmdir()
    if done.returncode:
        raise SystemExit(f"{name} gave {done.returncode}: {done.stderr[-2000:]}")
    return {**json.loads(done.stdout.splitlines()[-1]), "process_seconds": seconds, "in_group": bool(group)}


def child(name: str, path: Path, memory: str) -> None:
    """Be one run: print its seconds, without Python's start and imports, and its peak memory."""
    import pyarrow.parquet  # noqa: F401 (imports are not measured)

    if name == "sidmill":
        import sid_flows.execute  # noqa: F401
    if name == "pandas":
        import pandas  # noqa: F401
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        started = time.perf_counter()
        result = METHODS[name](path, Path(folder), memory)
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak_bytes": peak, "result": result}))


def compared(reviews: int, options: argparse.Namespace) -> dict[str, Any]:
    from amazon_dump import write_dump

    CACHE.mkdir(exist_ok=True)
    path = CACHE / f"reviews-{reviews}.json.gz"
    if not path.exists():
        write_dump(path, reviews)
    methods = ["sidmill", *filter(None, options.alternatives.split(","))]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in methods}
    for _ in range(options.repeat):
        for name in methods:
            runs[name].append(measured(name, path, options.memory, bounded=name == "sidmill"))
    rows = {
        name: {
            "seconds": statistics.median(one["seconds"] for one in made),
            "peak_gib": max(one["peak_bytes"] for one in made) / 2**30,
            "in_group": made[0]["in_group"],
            "result": {key: value for key, value in made[0]["result"].items() if key != "hashes"},
        }
        for name, made in runs.items()
    }
    ours = rows["sidmill"]
    print(f"\n{reviews:,} reviews, {path.stat().st_size / 1e6:,.0f} MB gz, memory = {options.memory}")
    for name, row in rows.items():
        times = f"{row['seconds'] / ours['seconds']:8.1f} x" if name != "sidmill" else " " * 10
        print(f"  {name:<10}{row['seconds']:9.2f} s {times}{row['peak_gib']:8.2f} GiB  {row['result']}")
    if options.equal:
        free = measured("sidmill", path, "64GiB", bounded=False)
        same = free["result"]["hashes"] == runs["sidmill"][0]["result"]["hashes"]
        print(
            f"  unbounded {free['seconds']:9.2f} s {free['peak_bytes'] / 2**30:18.2f} GiB  same bytes: {same}"
        )
        if not same:
            raise SystemExit("the bound changed the output")
        rows["sidmill, unbounded"] = {"seconds": free["seconds"], "peak_gib": free["peak_bytes"] / 2**30}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reviews", type=int, action="append", help="how many, repeatable")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--memory", default="4GiB")
    parser.add_argument("--alternatives", default="zcat,duckdb,pandas,lean,research")
    parser.add_argument("--equal", action="store_true", help="compare the output with an unbounded run's")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", choices=sorted(METHODS), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.file, options.memory)
        return
    made = {str(reviews): compared(reviews, options) for reviews in options.reviews or [1_000_000]}
    if options.json:
        machine = {"python": platform.python_version(), "cores": os.cpu_count(), "memory": options.memory}
        options.json.write_text(json.dumps({"machine": machine, "reviews": made}, indent=2) + "\n")


if __name__ == "__main__":
    main()
