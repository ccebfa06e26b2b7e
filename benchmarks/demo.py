"""What a newcomer waits for: import, plan, a run with nothing to do, a whole run. Medians over --repeat.

python benchmarks/demo.py [--repeat 5] [--runs 1] [--json FILE]
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
RECIPE = str(ROOT / "examples" / "movietweetings.toml")


def seconds(*command: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5, help="repeats of the short ones")
    parser.add_argument("--runs", type=int, default=1, help="whole runs, each into an empty warehouse")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    taken: dict[str, list[float]] = {}
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory() as folder:
            chain = ("-m", "sidmill", "run", RECIPE, "--warehouse", folder)
            taken.setdefault("sidmill run, empty warehouse", []).append(seconds(*chain))
            again = (*chain, "--set", "tokenize.seed=2")
            taken.setdefault("sidmill run --set tokenize.seed=2", []).append(seconds(*again))
            for _ in range(options.repeat):
                taken.setdefault("sidmill run, nothing to do", []).append(seconds(*chain))
                taken.setdefault("python -c pass", []).append(seconds("-c", "pass"))
                taken.setdefault("python -c 'import sidmill'", []).append(seconds("-c", "import sidmill"))
    medians = {name: statistics.median(values) for name, values in taken.items()}
    for name, median in medians.items():
        print(f"{name:<36}{median:8.2f} s   (n = {len(taken[name])})")
    if options.json:
        machine = {"python": platform.python_version(), "machine": platform.machine()}
        options.json.write_text(json.dumps({"machine": machine, "median_seconds": medians}, indent=2) + "\n")


if __name__ == "__main__":
    main()
