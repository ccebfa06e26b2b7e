"""K-means on one matrix: greedy k-means++ seeding, Lloyd's steps as matrix products, no empty clusters.

Unlike scikit-learn's, the sums run in one order whatever the number of threads, so that the same
input gives the same bytes; and seedings compete after a few steps on a sample, so that several cost
little more than one.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sid_tokenizers.base import Vectors, Weights
from sid_tokenizers.blocks import one_core_products, over_blocks
from sid_tokenizers.clusters import cluster_means, nearest
from sid_tokenizers.exchange import CELLS, exchange

TRIAL_ROWS = 32  # rows on which seedings compete, per centroid
TRIAL_STEPS = 4  # Lloyd's steps a seeding gets there before it is judged
FULL_TOL = 2e-3  # after a start from a sample: steps that gain less cost a pass over all rows for nothing
SEED_ROWS = 16  # rows from which a seeding is drawn, per centroid
SEED_BLOCK = 512
GRAM = 8192  # up to so many rows all distances between them are kept (256 MB)
BUFFER = 12  # rows per centroid on which a mini-batch fit is seeded (GRID: 3072 for 256)


def kmeans(
    X: Vectors,
    k: int,
    *,
    seed: int,
    n_init: int = 4,
    max_iter: int = 100,
    tol: float = 1e-4,
    exchanges: int = 100,
    weight: Weights | None = None,
) -> Vectors:
    """Give k centroids of X, from the best of `n_init` seedings by total squared distance.

    X: (n, d) float32 with n >= k, in an order that does not come from the caller's rows. Stops when the
    error falls by less than `tol` of itself. Where there are more than TRIAL_ROWS * k rows, the
    seedings compete on so many of them, and only the best goes on with all, until a step gains less
    than FULL_TOL. Last come up to `exchanges` rounds of moving single rows (exchange.py), where n * k is
    at most CELLS; beyond, clusters are large and there is little to gain.
    Lloyd (1982); seeding by Arthur and Vassilvitskii (2007) in scikit-learn's greedy form.
    """
    if weight is not None and not weight.all():
        X, weight = X[weight > 0], weight[weight > 0]  # rows without weight must not draw centroids
    trial, trial_mass = _sample(X, weight, TRIAL_ROWS * k, seed)
    few, few_mass = _sample(trial, trial_mass, max(min(SEED_ROWS * k, GRAM), 2 * k), seed + 1)
    between = _distances_between(few)
    best_error, best = np.inf, None
    for attempt in range(n_init):
        with one_core_products():
            centroids = few[_spread(between, k, seed + attempt * 7919, few_mass)]
        steps = max_iter if trial is X else TRIAL_STEPS
        centroids, error = _lloyd(trial, centroids, steps, tol, trial_mass)
        if error < best_error:
            best_error, best = error, centroids
    assert best is not None
    if trial is not X:
        best, _ = _lloyd(X, best, max_iter, max(tol, FULL_TOL), weight)
    return exchange(X, best, exchanges, weight) if len(X) * k <= CELLS and exchanges else best


def _sample(X: Vectors, weight: Weights | None, rows: int, seed: int) -> tuple[Vectors, Weights | None]:
    """Give so many rows drawn without repeats, in their order, and their weights; all where fewer."""
    if len(X) <= rows:
        return X, weight
    chosen = np.sort(np.random.default_rng(seed).choice(len(X), rows, replace=False))
    return X[chosen], None if weight is None else weight[chosen]


def minibatch_kmeans(
    X: Vectors, k: int, *, seed: int, batch_size: int, epochs: int, weight: Weights | None = None
) -> Vectors:
    """Give k centroids of X from seeded batches: c <- c - (n_b / N_c) (c - mean_b).

    n_b: weight of the batch in the cluster; N_c: weight the cluster has seen so far. Seeded by k-means++
    on BUFFER * k rows. Sculley (2010), as GRID uses it.
    """
    draw = np.random.default_rng(seed)
    mass = np.ones(len(X)) if weight is None else weight
    buffer = draw.permutation(len(X))[: max(BUFFER * k, k)]
    centroids = X[buffer][seed_rows(X[buffer], k, seed, mass[buffer])]
    seen = np.zeros(k)
    for _ in range(epochs):
        order = draw.permutation(len(X))
        for start in range(0, len(X), batch_size):
            rows = order[start : start + batch_size]
            codes, _ = nearest(X[rows], centroids)
            means, totals = cluster_means(X[rows], codes, k, mass[rows])
            seen += totals
            rate = np.where(totals > 0, totals / np.maximum(seen, 1e-300), 0.0).astype(np.float32)
            centroids += rate[:, None] * (means - centroids)
    return centroids


def seed_rows(X: Vectors, k: int, seed: int, weight: Weights | None = None) -> npt.NDArray[np.int64]:
    """Give k rows of X far from each other, by greedy k-means++ with 2 + ln k candidates a draw.

    A row is drawn with a chance in proportion to its squared distance from the nearest row chosen so
    far; of the candidates the one that lowers the total most is taken. Where every row sits on a chosen
    one already, rows repeat.
    """
    return _spread(_distances_between(X), k, seed, weight)


Between = Callable[[npt.NDArray[np.int64]], Vectors]  # rows -> their squared distances to all, (rows, n)


def _distances_between(X: Vectors) -> Between:
    """Give a function for distances between rows; up to GRAM rows all are computed at once."""
    norms = np.einsum("ij,ij->i", X, X)
    products = None
    if len(X) <= GRAM:
        products = kept = np.empty((len(X), len(X)), dtype=np.float32)

        def keep(rows: slice) -> None:
            np.matmul(X[rows], X.T, out=kept[rows])

        over_blocks(len(X), keep, size=SEED_BLOCK)

    def between(rows: npt.NDArray[np.int64]) -> Vectors:
        distances = (X[rows] @ X.T if products is None else products[rows]) * np.float32(-2.0)
        distances += norms
        distances += norms[rows][:, None]
        np.maximum(distances, 0.0, out=distances)
        distances[np.arange(len(rows)), rows] = 0.0
        return distances

    return between


def _spread(between: Between, k: int, seed: int, weight: Weights | None) -> npt.NDArray[np.int64]:
    draw = np.random.default_rng(seed)
    n = between(np.zeros(1, dtype=np.int64)).shape[1]
    mass = np.ones(n) if weight is None else weight
    trials = 2 + int(np.log(k))
    chosen = np.empty(k, dtype=np.int64)
    chosen[0] = _draw(draw, np.cumsum(mass), 1)[0]
    nearest_yet = between(chosen[:1])[0]
    for place in range(1, k):
        total = np.cumsum(nearest_yet * mass)
        candidates = _draw(draw, total if total[-1] > 0 else np.cumsum(mass), trials)
        reached = np.minimum(nearest_yet, between(candidates))
        best = int(np.argmin(reached @ mass))
        chosen[place], nearest_yet = candidates[best], reached[best]
    return chosen


def _draw(draw: np.random.Generator, cumulative: Weights, count: int) -> npt.NDArray[np.int64]:
    """Draw rows by their share of a cumulative weight; never a row without weight."""
    points = (1.0 - draw.random(count)) * cumulative[-1]  # in (0, total]
    rows: npt.NDArray[np.int64] = np.searchsorted(cumulative, points, side="left")
    return np.minimum(rows, len(cumulative) - 1)


def _lloyd(
    X: Vectors, centroids: Vectors, max_iter: int, tol: float, weight: Weights | None
) -> tuple[Vectors, float]:
    """Give centroids after at most max_iter steps, and their error, which costs one more pass at most."""
    mass = np.ones(len(X)) if weight is None else weight
    last = np.inf
    for step in range(max_iter + 1):
        codes, distances = nearest(X, centroids)
        error = float((distances * mass).sum(dtype=np.float64))
        filled = _fill_empty(codes, distances, len(centroids))
        if step == max_iter or (not filled and last - error <= tol * error):
            break
        last = error
        centroids, totals = cluster_means(X, codes, len(centroids), weight)
        centroids[totals == 0] = X[0]  # only where X has fewer distinct rows than centroids
    return centroids, error


def _fill_empty(codes: npt.NDArray[np.int32], distances: npt.NDArray[np.float32], k: int) -> bool:
    """Give each empty cluster the row that lies farthest from its own centroid, in place; say if any."""
    counts = np.bincount(codes, minlength=k)
    empty = np.flatnonzero(counts == 0)
    filled = False
    if not len(empty):
        return filled
    farthest = iter(np.argsort(-distances, kind="stable"))
    for cluster in empty:
        for row in farthest:
            if distances[row] <= 0:
                return filled  # every row sits on its centroid: there is nothing left to split
            if counts[codes[row]] > 1:
                counts[codes[row]] -= 1
                codes[row], distances[row] = cluster, 0.0
                filled = True
                break
    return filled
