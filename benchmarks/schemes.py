"""Every preset of examples/schemes side by side on real data: IDs, likeness, seconds, peak memory.

python benchmarks/schemes.py [--only letter,prism,...] [--ml-100k FOLDER] [--json FILE] [--markdown]

What comes before `tokenize` is made once, below benchmarks/.cache; then each recipe goes on from there to its
release in a process of its own. Seconds and peak memory are those of that process less what one that does
nothing but import takes. Recipes of ml-100k are run where its folder is given, or lies in ../shared/data.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "examples" / "schemes"
WAREHOUSE = Path(__file__).parent / ".cache" / "schemes"
ML_100K = ROOT.parent / "shared" / "data" / "ml-100k"
MOVIELENS = "movielens"
COLUMNS = {
    "recipe": "preset",
    "tokenizer": "tokenizer",
    "length": "length",
    "before": "collisions before",
    "after": "after",
    "used": "codes used",
    "error": "relative error",
    "cosine": "overlap: cosine",
    "users": "overlap: users",
    "purity": "purity (shuffled)",
    "fit_seconds": "tokenize s",
    "seconds": "whole s",
    "peak": "peak MB",
}
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="presets, by the names of their files")
    parser.add_argument("--ml-100k", type=Path, default=ML_100K, help="folder of MovieLens 100K")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    parser.add_argument("--markdown", action="store_true", help="print a table for the docs")
    chosen = parser.parse_args()
    names = chosen.only.split(",") if chosen.only else sorted(path.stem for path in RECIPES.glob("*.toml"))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(machine, file=sys.stderr)
    rows = []
    for name in names:
        given = overrides(RECIPES / f"{name}.toml", chosen.ml_100k)
        if given is None:
            print(f"{name}: left out, {chosen.ml_100k} is not there", file=sys.stderr)
            continue
        child("embed", name, *given)
        rows.append(measured(name, given))
        show([rows[-1]], head=len(rows) == 1, markdown=chosen.markdown)
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n")


def overrides(recipe: Path, ml_100k: Path) -> list[str] | None:
    """Give what has to be said beside a recipe, or None where its data are not there."""
    if tomllib.loads(recipe.read_text())["source"]["kind"] != MOVIELENS:
        return []
    return [f"source.path={ml_100k}"] if ml_100k.is_dir() else None


def child(task: str, *arguments: str) -> tuple[Row, float, float]:
    """Run a task in a process of its own: what it prints, seconds, peak MB."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("schemes_child.py")), str(WAREHOUSE), task, *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{task} {' '.join(arguments)} failed")
    return json.loads(printed), time.perf_counter() - started, usage.ru_maxrss / 1000


def measured(name: str, given: list[str]) -> Row:
    for stage in ("tokenize", "collisions", "pieces", "users", "gates"):  # what is measured is made anew
        for folder in WAREHOUSE.glob(f"stages/*/{stage}"):
            shutil.rmtree(folder)
    _, idle, _ = child("nothing", name)
    facts, seconds, peak = child("release", name, *given)
    return {"recipe": name, **facts, "seconds": seconds - idle, "peak": peak}


def show(rows: list[Row], *, head: bool, markdown: bool) -> None:
    mark = " | " if markdown else "\t"
    if head:
        print(mark.join(COLUMNS.values()))
        if markdown:
            print(mark.join("---" for _ in COLUMNS))
    for row in rows:
        print(mark.join(shown(row.get(name)) for name in COLUMNS), flush=True)


def shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
