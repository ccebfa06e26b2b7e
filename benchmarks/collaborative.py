"""Collaborative models side by side: time, memory, and how well their vectors find held-out items.

python benchmarks/collaborative.py [--only als,sasrec] [--dims 64] [--held-out valid] [--json FILE]

Real dumps in ../shared/data (MovieLens 100K, MovieTweetings 50K), prepared by our own chain with its
defaults: 5-core, leave-one-out. Each fit is a process of its own on one core; seconds are its CPU time,
memory is the peak of the whole process, Python and the package included. Defaults were chosen on the
valid events; the test events were looked at once, for the table in docs/embeddings.md. "together" is how
often of two items that a user has among the held-out events one is among the other's 20 nearest.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from sid_pipelines import probes
from sid_pipelines.collaborative import MODELS, TrainEvents, model_named
from sid_pipelines.probes import Lists

DATA = Path(__file__).resolve().parents[2] / "shared/data"
DUMPS = {"ml-100k": ("movielens", "ml-100k"), "movietweetings": ("movietweetings", "movietweetings/50K")}
LASTS = (1, 3, 10)
Row = dict[str, Any]


def prepare(name: str, folder: Path) -> Path:
    """Run the chain up to split; give the file with what the fits need."""
    from sid_flows.execute import execute
    from sid_flows.plan import make_plan

    kind, path = DUMPS[name]
    recipe = folder / f"{name}.toml"
    recipe.write_text(f'dataset = "{name}"\n[source]\nkind = "{kind}"\npath = "{DATA / path}"\n')
    plan = make_plan(recipe, folder / "warehouse", (), "split")
    outputs: dict[str, Any] = {}
    for planned in plan.stages:
        outputs[planned.label] = execute(plan, planned, outputs)
    rows = outputs["clean"].manifest["rows"]
    table = outputs["split"].read("interactions", ["user_index", "item_index", "split"])
    file = folder / f"{name}.npz"
    np.savez(
        file,
        users=table["user_index"].to_numpy(),
        items=table["item_index"].to_numpy(),
        split=table["split"].to_numpy(zero_copy_only=False).astype("U7"),
        n=np.array([rows["users"], rows["items_clean"]]),
    )
    return file


class Prepared:
    """Train events, and the held-out ones of one split or of both."""

    def __init__(self, file: Path, held_out: str) -> None:
        data = np.load(file)
        n_users, n_items = data["n"].tolist()
        split, users, items = data["split"], data["users"], data["items"]
        train = split == "train"
        self.events = TrainEvents(users[train], items[train], n_users, n_items)
        self.histories = self.events.sequences()
        self.targets = Lists.by_user(users[split == held_out], items[split == held_out], n_users)
        both = ~train
        self.pairs = probes.pairs_of(Lists.by_user(users[both], items[both], n_users))

    def popularity(self) -> Row:
        found = probes.popularity_recall_at(self.events.popularity, self.histories, self.targets)
        return {"model": "popularity", "recall": dict.fromkeys(map(str, LASTS), found)}

    def judged(self, vectors: Any) -> Row:
        recalls = {
            str(last): probes.recall_at(vectors, self.histories, self.targets, last=last) for last in LASTS
        }
        return {"recall": recalls, "together": probes.cooccurrence_recall_at(vectors, self.pairs)}


def one(file: Path, held_out: str, model: str, options: Row) -> Row:
    """Fit one model in this process."""
    prepared = Prepared(file, held_out)
    made = model_named(model)(**options)
    tiny = TrainEvents(np.array([0, 0, 1], np.int32), np.array([0, 1, 1], np.int32), 2, 2)
    made.fit(tiny, lambda done, total: None)  # what is imported is no part of the fit
    started = time.process_time()
    fitted = made.fit(prepared.events, lambda done, total: None)
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    row = {"model": model, "dim": made.dim, "seconds": seconds, "mib": peak / 1024}
    return row | prepared.judged(fitted.vectors[""])


def line(row: Row) -> str:
    recalls = " | ".join(f"{row['recall'][str(last)]:.3f}" for last in LASTS)
    if "seconds" not in row:
        return f"| {row['model']} | | | | {recalls} | |"
    cost = f"{row['dim']} | {row['seconds']:.1f} | {row['mib']:.0f}"
    return f"| {row['model']} | {cost} | {recalls} | {row['together']:.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default=",".join(MODELS))
    parser.add_argument("--dims", default="32,64,256")
    parser.add_argument("--held-out", default="valid", choices=["valid", "test"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(**{**(task := json.loads(given.one)), "file": Path(task["file"])})))
        return
    table: dict[str, list[Row]] = {}
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, one core")
    with tempfile.TemporaryDirectory() as folder:
        for name in DUMPS:
            file = prepare(name, Path(folder))
            prepared = Prepared(file, given.held_out)
            print(f"\n{name}: {len(prepared.events):,} train events, {prepared.events.n_items:,} items")
            print(
                f"\n| model | dim | s | MiB | recall@20 of {given.held_out}, last 1 | last 3 | last 10 | "
                "together |"
            )
            print("|---|---|---|---|---|---|---|---|")
            table[name] = [prepared.popularity()]
            print(line(table[name][0]), flush=True)
            for model in given.only.split(","):
                for dim in map(int, given.dims.split(",")):
                    task = {
                        "file": str(file),
                        "held_out": given.held_out,
                        "model": model,
                        "options": {"dim": dim},
                    }
                    table[name].append(measured(task))
                    print(line(table[name][-1]), flush=True)
    if given.json:
        given.json.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def measured(task: Row) -> Row:
    command = [sys.executable, __file__, "--one", json.dumps(task)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


if __name__ == "__main__":
    main()
