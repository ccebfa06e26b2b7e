"""The local engine beside Beam on two workers, from raw reviews to sequences, stage by stage.

python benchmarks/scale.py --reviews 1000000 [--reviews 10000000 ...] [--repeat 3] [--engines local,dask]
                           [--files 1] [--memory 4GiB] [--shards 0] [--equal] [--json FILE]
python benchmarks/scale.py --model FILE    what 100M and 1B reviews would take by it

Every run is a process of its own, the engines take turns, and what is told is the median. Clusters are up
before the clock starts: `dask` is a LocalCluster of two processes of one thread each, `processes` the same by
Beam's FnApiRunner. Two workers share --memory, which the local engine has alone. --equal compares every table
of the two. The dumps are prepare.py's, written to benchmarks/.cache and kept.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import nan
from pathlib import Path
from typing import Any

from prepare import CACHE, RECIPE

HERE = Path(__file__).parent
WORKERS = 2
MODELLED = {100_000_000: (8, 32), 1_000_000_000: (32, 128)}  # workers, by reviews
COLUMNS = (
    "local s", "beam s", "ratio", "local CPU", "beam CPU", "ratio", "jobs", "steps", "tasks",
    "kernels' CPU s/M", "longest s", "one task s", "scratch B/review", "peak GiB",
)  # fmt: skip
Run = dict[str, Any]
Peaks = Callable[[], list[int]]


def chain(path: Path, folder: Path, memory: str, shards: int, options: str | None) -> Run:
    """Run the stages from ingest to sequences; options: Beam's, None for the local engine."""
    from watched import Watched

    from sid_flows import execute as executing
    from sid_flows.plan import make_plan

    recipe, watched = folder / "recipe.toml", []
    recipe.write_text(RECIPE.format(path=path, memory=memory))
    overrides = []
    if options is not None:
        overrides = ["engine.kind=beam", f"engine.options={options}", f"engine.shards={shards}"]
        own = executing.engine_of
        engine = own(make_plan(recipe, folder / "warehouse", overrides, "ingest").recipe.engine)
        assert engine is not None
        watched.append(Watched(engine, folder / "notes"))
        executing.engine_of = lambda section: watched[0]
    plan = make_plan(recipe, folder / "warehouse", overrides, until="sequences")
    outputs: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    cpu: dict[str, float] = {}
    for planned in plan.stages:
        started, spent = time.perf_counter(), time.process_time()
        outputs[planned.label] = executing.execute(plan, planned, outputs)
        seconds[planned.label] = time.perf_counter() - started
        cpu[planned.label] = time.process_time() - spent
    rows = {name: output.manifest["rows"] for name, output in outputs.items()}
    by_shards = [name for name, output in outputs.items() if "engine" in output.manifest]
    steps = watched[0].steps if watched else []
    return {"stages": seconds, "cpu": cpu, "rows": rows, "by_shards": by_shards, "steps": steps}


@contextmanager
def cluster(engine: str) -> Iterator[tuple[str | None, Peaks]]:
    """Give Beam's options for an engine, and what tells the peak memory of its workers in bytes."""
    if engine == "local":
        yield None, list
    elif engine == "processes":
        yield f"--direct_num_workers={WORKERS}", lambda: [_peak(resource.RUSAGE_CHILDREN)]
    else:
        from distributed import Client, LocalCluster

        made = LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None)
        with made as dask, Client(dask) as client:
            client.run(_warmed)
            yield (
                f"--runner=DaskRunner --dask_client_address={dask.scheduler_address}",
                lambda: list(client.run(_peak).values()),
            )


def _warmed() -> None:
    """Import in a worker what its first task would: a cluster that is up has run a job before."""
    import apache_beam  # noqa: F401

    import sid_pipelines.sharded  # noqa: F401


def _peak(of: int = resource.RUSAGE_SELF) -> int:
    return resource.getrusage(of).ru_maxrss * 1024


def child(engine: str, path: Path, options: argparse.Namespace) -> None:
    """Be one run: print what it took, without imports and the cluster's start."""
    import sid_flows.execute  # noqa: F401 (imports are not measured)

    with tempfile.TemporaryDirectory(dir=CACHE) as name, cluster(engine) as (beam, peaks):
        if beam is not None:
            import sid_pipelines.beam  # noqa: F401
        memory = options.memory if beam is None else _share(options.memory)
        started = time.perf_counter()
        run = chain(path, Path(name), memory, options.shards, beam)
        run["seconds"] = time.perf_counter() - started
        run |= {"peak_bytes": _peak(), "worker_peak_bytes": peaks()}
        if options.keep:
            shutil.move(Path(name) / "warehouse", options.keep / engine)
    print(json.dumps(run))


def _share(memory: str) -> str:
    digits = memory.rstrip("KMGTiB ")
    return f"{float(digits) / WORKERS:g}{memory[len(digits) :]}"


def measured(engine: str, path: Path, options: argparse.Namespace, keep: Path | None) -> Run:
    """Run one engine in a process of its own."""
    command = [sys.executable, __file__, "--child", engine, "--file", str(path), "--memory", options.memory]
    command += ["--shards", str(options.shards), *(["--keep", str(keep)] if keep else [])]
    one_thread = {} if engine == "local" else {"OMP_NUM_THREADS": "1"}
    environment = os.environ | {"PYTHONPATH": str(HERE)} | one_thread
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{engine} gave {done.returncode}: {done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compared(reviews: int, options: argparse.Namespace) -> dict[str, Any]:
    path = dump(reviews, options.files)
    engines = options.engines.split(",")
    runs: dict[str, list[Run]] = {engine: [] for engine in engines}
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        for number in range(options.repeat):
            keep = Path(name) if options.equal and number == 0 else None
            for engine in engines:
                runs[engine].append(measured(engine, path, options, keep))
        same = {engine: _same(Path(name), engine) for engine in engines[1:] if options.equal}
    size = sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir()))
    told = {"gz_bytes": size, "engines": {name: _median(made) for name, made in runs.items()}}
    show(reviews, told)
    for engine, tables in same.items():
        print(f"  {engine}: equal to local in every row of {', '.join(tables)}")
    return told


def dump(reviews: int, files: int) -> Path:
    """Give so many reviews in one file, or in a folder of several."""
    from amazon_dump import write_dump

    one, folder = CACHE / f"reviews-{reviews}.json.gz", CACHE / f"reviews-{reviews}-in-{files}"
    place = one if files == 1 else folder
    place.parent.mkdir(exist_ok=True)
    if place.exists():
        return place
    if files == 1:
        write_dump(one, reviews)
        return one
    partial = folder.with_suffix(".partial")
    partial.mkdir(exist_ok=True)
    for number in range(files):
        write_dump(partial / f"Part{number}.json.gz", reviews // files, seed=number)
    partial.rename(folder)
    return place


def _same(folder: Path, engine: str) -> list[str]:
    """Compare every table of two warehouses; gives their names."""
    sys.path.append(str(HERE.parent / "tests"))
    from engines import assert_same_table

    from sid_warehouse import parquet

    tables = []
    for place in sorted((folder / "local" / "stages").glob("*/*/*/*/part-00000.parquet")):
        stage, table = place.parent.parent, place.parent.name
        twin = folder / engine / stage.relative_to(folder / "local")
        assert_same_table(parquet.read(stage, table), parquet.read(twin, table), table)
        tables.append(f"{stage.parent.name}.{table}")
    return tables


def _median(made: list[Run]) -> Run:
    """Give the run of median seconds, its stages' seconds being the medians of all runs."""
    middle = sorted(made, key=lambda run: run["seconds"])[(len(made) - 1) // 2]
    stages = {name: statistics.median(run["stages"][name] for run in made) for name in middle["stages"]}
    seconds = statistics.median(run["seconds"] for run in made)
    return middle | {"seconds": seconds, "stages": stages, "all_seconds": [run["seconds"] for run in made]}


def show(reviews: int, told: Mapping[str, Any]) -> None:
    """Print the engines side by side; CPU seconds are of kernels and the driver, for busy machines."""
    engines, millions = told["engines"], reviews / 1e6
    local = engines.get("local")
    print(f"\n{reviews:,} reviews, {told['gz_bytes'] / 1e6:,.0f} MB gz")
    for name, run in engines.items():
        if not run["steps"]:
            continue
        print(f"  {name:<10}" + "".join(f"{column:>{len(column) + 3}}" for column in COLUMNS))
        for stage in [*run["stages"], "all"]:
            steps = [step for step in run["steps"] if stage in (step["stage"], "all")]
            took, alone = (_all_or(one["stages"], stage) if one else nan for one in (run, local))
            own, local_cpu = (_all_or(one["cpu"], stage) if one else nan for one in (run, local))
            kernels = sum(step["cpu_seconds"] for step in steps)
            of_one_task = sum(step["seconds"] for step in steps if step["tasks"] == 1)
            left = sum(step["scratch_bytes"] for step in steps) / reviews
            most = max((step["peak_bytes"] for step in steps), default=0) / 2**30
            longest = max((step["longest"] for step in steps), default=0)
            jobs, tasks = (
                {(step["stage"], step["job"]) for step in steps},
                sum(step["tasks"] for step in steps),
            )
            cells = [alone, took, took / alone, local_cpu, own + kernels, (own + kernels) / local_cpu]
            cells += [len(jobs), len(steps), tasks, kernels / millions, longest, of_one_task, left, most]
            print(f"  {stage:<10}" + "".join(map(_cell, COLUMNS, cells)))
    for name, run in engines.items():
        all_seconds = ", ".join(f"{seconds:.1f}" for seconds in run["all_seconds"])
        peaks = ", ".join(f"{peak / 2**30:.2f}" for peak in run["worker_peak_bytes"])
        print(
            f"  {name}: {run['seconds']:.1f} s of {all_seconds}; at most GiB {run['peak_bytes'] / 2**30:.2f}"
        )
        if peaks:
            print(f"  and each worker {peaks}")


def _cell(column: str, value: float) -> str:
    return f"{value:>{len(column) + 3}{'.2f' if isinstance(value, float) else ''}}"


def _all_or(of: Mapping[str, float], stage: str) -> float:
    return sum(of.values()) if stage == "all" else of[stage]


# What more would take


def model(told: Mapping[str, Any], engine: str = "dask") -> None:
    """Print, for each stage, what was measured at the largest size and what it comes to at larger ones.

    seconds = parallel * N / W + alone * N + fixed, N in millions of reviews: parallel is the kernels' time in
    steps of several tasks, alone that in steps of one task and of the driver's stages, fixed what is left of
    the stage's seconds. CPU seconds of the kernels, for machines that had other things to do.
    """
    reviews = max(map(int, told["reviews"]))
    run, millions = told["reviews"][str(reviews)]["engines"][engine], reviews / 1e6
    print(f"\nfrom {reviews:,} reviews; seconds per million: parallel | alone; fixed seconds")
    parts = {}
    for stage, took in run["stages"].items():
        steps = [step for step in run["steps"] if step["stage"] == stage]
        parallel = sum(step["cpu_seconds"] for step in steps if step["tasks"] > 1) / millions
        alone = sum(step["cpu_seconds"] for step in steps if step["tasks"] == 1) / millions
        alone += run["cpu"][stage] / millions  # the driver hashes and links, or runs the stage
        fixed = max(took - parallel * millions / WORKERS - alone * millions, 0)
        parts[stage] = (parallel, alone, fixed)
        print(f"  {stage:<10}{parallel:8.3f} | {alone:.3f}; {fixed:.1f}")
    for size, clusters in MODELLED.items():
        for workers in clusters:
            took = {
                stage: parallel * size / 1e6 / workers + alone * size / 1e6 + fixed
                for stage, (parallel, alone, fixed) in parts.items()
            }
            told_apart = ", ".join(f"{stage} {seconds / 60:.1f}" for stage, seconds in took.items())
            print(f"  {size:,} on {workers} workers: {sum(took.values()) / 60:.1f} min ({told_apart})")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reviews", type=int, action="append", help="how many, repeatable")
    parser.add_argument("--files", type=int, default=1, help="in how many files they are")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--engines", default="local,dask", help="of local, dask, processes")
    parser.add_argument("--memory", default="4GiB")
    parser.add_argument("--shards", type=int, default=0, help="0: one for each million events")
    parser.add_argument("--equal", action="store_true", help="compare every table with the first engine's")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", type=Path, help="a file that --json wrote")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--keep", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.file, options)
        return
    if options.model:
        model(json.loads(options.model.read_text()))
        return
    made = {str(reviews): compared(reviews, options) for reviews in options.reviews or [1_000_000]}
    told = {"cores": os.cpu_count(), "memory": options.memory, "workers": WORKERS, "reviews": made}
    if options.json:
        options.json.write_text(json.dumps(told, indent=2) + "\n")
    if "dask" in options.engines:
        model(told)


if __name__ == "__main__":
    main()
