"""What schemes cost on made-up catalogues: learned ones at 10,000 items, trees at 100,000, pieces at 1M.

python benchmarks/scheme_speed.py [--only letter,spectral,...] [--repeat 1] [--json FILE]

Every figure is of a process of its own, with the scheme's default parameters unless said: wall seconds of the
fit and of giving IDs to all items (CPU seconds beside them), and the peak memory of the process. Vectors are
seeded clusters of 384 numbers, behaviour of 64; users have 20 events each, skewed by item, of a taste each.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]
LEARNED = ("rq-vae-uniform", "letter", "prism", "gmc", "graph-rq-vae", "moe-pq", "setrec")
TREES: dict[str, tuple[str, dict[str, Any]]] = {
    "kmeans-tree": ("kmeans-tree", {"branching": 30, "leaf": 30}),
    "kmeans-tree, constrained": ("kmeans-tree", {"branching": 47, "depth": 3, "constrained": True}),
    "spectral": ("spectral", {"n_clusters": 20, "token_size": 500}),
    "category-path": ("category-path", {}),
    "sequential": ("sequential", {}),
}
PIECES = ("ngram", "prefix-ngram", "unigram", "bpe")
SIZES = {
    **dict.fromkeys(LEARNED, 10_000),
    **dict.fromkeys(TREES, 100_000),
    **dict.fromkeys(PIECES, 1_000_000),
}


def clusters(n: int, dim: int, centres: int, seed: int) -> np.ndarray:
    """Give n vectors around seeded centres of two kinds, coarse and fine: (n, dim) float32."""
    draw = np.random.default_rng(seed)
    coarse = draw.normal(size=(centres, dim))
    X = coarse[draw.integers(0, centres, n)] + 0.5 * draw.normal(size=(n, dim))
    return (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)


def catalogue(n: int, dim: int) -> tuple[np.ndarray, Any]:
    """Give vectors and what is known of their items."""
    from sid_tokenizers import Catalogue, Events

    draw = np.random.default_rng(1)
    users = 2 * n
    taste = draw.integers(0, 50, users).repeat(20)
    place = (n / 50 * draw.random(20 * users) ** 2).astype(np.int64)
    items = np.where(
        draw.random(20 * users) < 0.7, taste * (n // 50) + place, draw.integers(0, n, 20 * users)
    )
    names = [[f"kind {number % 20}", f"kind {number % 20}, sort {number % 100}"] for number in range(n)]
    about = Catalogue(
        [f"item{number:07d}" for number in range(n)],
        cf=clusters(n, 64, 50, 2),
        popularity=np.bincount(items, minlength=n).astype(np.int64),
        categories=names,
        domains=[f"domain {number % 3}" for number in range(n)],
        titles=[f"Item {number}" for number in range(n)],
        texts=[f"Item {number}" for number in range(n)],
        events=Events(np.arange(users).repeat(20), np.minimum(items, n - 1)),
    )
    return clusters(n, dim, 200, 0), about


def of_scheme(name: str, n: int) -> Row:
    from sid_tokenizers import Indexer, tokenizer_named

    scheme_name, params = TREES.get(name, (name, {}))
    dim = {"graph-rq-vae": 64}.get(name, 384 if name in LEARNED else 64)
    X, about = catalogue(n, dim)
    scheme = tokenizer_named(scheme_name)(**params)
    if scheme.traits.stacked:
        X = np.concatenate([X, about.cf], axis=1)
    started, used = time.perf_counter(), time.process_time()
    scheme.fit(X, about=about)
    fitted, fit_cpu = time.perf_counter() - started, time.process_time() - used
    started = time.perf_counter()
    if isinstance(scheme, Indexer):
        scheme.index(X, about=about)
    else:
        getattr(scheme, "encode", getattr(scheme, "vectors", None))(X)  # type: ignore[misc]
    return {"fit": fitted, "fit_cpu": fit_cpu, "ids": time.perf_counter() - started}


def of_pieces(name: str, n: int) -> Row:
    from sid_tokenizers.pieces import pieces_named

    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 2048, (20_000, 3))
    sids = np.concatenate([coarse[draw.integers(0, 20_000, n)], draw.integers(0, 2048, (n, 5))], axis=1)
    weight = np.maximum((1000 * draw.random(n) ** 8).astype(np.int64), 1)
    table = {} if name in ("ngram", "prefix-ngram") else {"table_size": 32_768}
    pieces = pieces_named(name)(**table)
    started, used = time.perf_counter(), time.process_time()
    pieces.fit(sids.astype(np.int32), levels=[2048] * 8, weight=weight)
    fitted, fit_cpu = time.perf_counter() - started, time.process_time() - used
    started = time.perf_counter()
    pieces.pieces(sids.astype(np.int32))
    return {"fit": fitted, "fit_cpu": fit_cpu, "ids": time.perf_counter() - started}


def child(name: str) -> None:
    row = (of_pieces if name in PIECES else of_scheme)(name, SIZES[name])
    print(json.dumps({**row, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="; between names")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        child(chosen.child)
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print("| scheme | items | fit s | of CPU | IDs s | peak MB |\n|---|---|---|---|---|---|")
    rows = {}
    for name in chosen.only.split(";") if chosen.only else SIZES:
        runs = [
            json.loads(subprocess.check_output([sys.executable, __file__, "--child", name], text=True))
            for _ in range(chosen.repeat)
        ]
        row = rows[name] = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        print(
            f"| {name} | {SIZES[name]:,} | {row['fit']:.1f} | {row['fit_cpu']:.1f} | {row['ids']:.1f} "
            f"| {row['peak']:,.0f} |",
            flush=True,
        )
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
