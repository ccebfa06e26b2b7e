"""Kill workers in every step of every stage, at three moments, and compare releases: the table of scale.md.

python benchmarks/kills.py [--runners dask,processes] [--json FILE]

A small dump goes through the whole chain on each runner. The first task of every step kills its process as
soon as it has begun a file, the next when all are written, the next right after its folder was renamed into
place. The release must be that of the local engine. tests/saboteur.py does the killing.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

TESTS = str(Path(__file__).parent.parent / "tests")
ATTEMPTS = 200  # a step is killed three times, and a runner may give up with each


@contextmanager
def options_of(runner: str) -> Iterator[str]:
    """Give Beam's options for a runner, whose workers find the tests' kernels."""
    if runner == "processes":
        yield "--direct_num_workers=2"
        return
    from clusters import dask_workers

    with dask_workers() as options:
        yield options


def killed(runner: str, folder: Path) -> tuple[Counter[tuple[str, ...]], bool]:
    """Run the chain through all kills; give how often what was done, and whether the release is the same."""
    from engines import BEAM, assert_same_release, events_dump
    from helpers import quickly, run_chain
    from saboteur import KILLS, Sabotaged

    from sid_pipelines.beam import BeamEngine

    recipe = events_dump(folder)
    with pytest.MonkeyPatch.context() as patch, options_of(runner) as options:
        quickly(patch)
        local = run_chain(recipe, folder / "local")
        engine = Sabotaged(BeamEngine(options, attempts=ATTEMPTS), folder / "marks", KILLS)
        patch.setattr("sid_flows.execute.engine_of", lambda section: engine)
        run = run_chain(recipe, folder / "beam", BEAM, "engine.shards=3")
        try:
            assert_same_release(local.release, run.release)
        except AssertionError as error:
            print(error, file=sys.stderr)
            return engine.done(), False
    return engine.done(), True


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runners", default="dask,processes")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sys.path.append(TESTS)
    os.environ["PYTHONPATH"] = TESTS
    from engines import FREE_OF_DISK

    rows, totals = [], Counter[str]()
    print("| stage | step | runner | kills | survived | release equal |\n|---|---|---|---|---|---|")
    for runner in options.runners.split(","):
        started = time.monotonic()
        with tempfile.TemporaryDirectory(dir=FREE_OF_DISK) as folder:
            done, same = killed(runner, Path(folder))
        steps: Counter[tuple[str, str]] = Counter()
        for (stage, _, step, _), times in done.items():
            steps[stage, step] += times
        for (stage, step), kills in steps.items():
            # The chain came to its end, so every task that was killed was run again.
            print(f"| {stage} | {step} | {runner} | {kills} | {kills} | {'yes' if same else 'NO'} |")
            rows.append({"stage": stage, "step": step, "runner": runner, "kills": kills, "equal": same})
        totals[runner] = steps.total()
        print(f"{runner}: {steps.total()} kills in {time.monotonic() - started:.0f} s", file=sys.stderr)
    print(
        f"\n{totals.total()} workers killed: {', '.join(f'{n} on {runner}' for runner, n in totals.items())}"
    )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
