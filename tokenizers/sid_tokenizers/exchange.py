"""Better k-means where clusters are small: move single rows while that lowers the error.

Lloyd's steps stop where every row is nearest to its own centroid. With few rows a cluster, as on the
deeper levels of a residual code, that may be far from the best: a centroid lies near its rows because they
pull it there. Hartigan's test counts that in, and every partition it accepts Lloyd's would too.
"""

import numpy as np
import numpy.typing as npt

from sid_tokenizers.base import Vectors, Weights
from sid_tokenizers.clusters import cluster_means, nearest, squared_distances

CELLS = 2**23  # n * k up to which it is worth its (n, k) distances: 32,768 rows for 256 centroids
LEAST_GAIN = 1e-6  # of a row's mean error: what a move must gain, beyond rounding


def exchange(X: Vectors, centroids: Vectors, rounds: int, weight: Weights | None = None) -> Vectors:
    """Give centroids no worse by squared error: (n, d), (k, d) -> (k, d).

    A row x of weight w moves from cluster a to b where that gains w W_a / (W_a - w) |x - a|^2
    - w W_b / (W_b + w) |x - b|^2 > 0, W being the clusters' weights. In a round the moves that gain most
    go first, and a cluster takes part in one, so that every gain is exact. Ties go to the earlier row.
    Hartigan (1975); Telgarsky and Vattani (2010) show that its optima are among Lloyd's.
    """
    n, k = len(X), len(centroids)
    mass = np.ones(n) if weight is None else weight
    codes, distances = nearest(X, centroids)
    least = LEAST_GAIN * float(distances @ mass) / n
    centroids, totals = cluster_means(X, codes, k, weight)
    between = squared_distances(X, centroids)
    for _ in range(rounds):
        gains, targets = _gains(between, codes, totals, mass)
        moves = _compatible(gains, codes, targets, least, k)
        if not len(moves):
            break
        touched = np.unique(np.concatenate([codes[moves], targets[moves]]))
        codes[moves] = targets[moves]
        inside = np.flatnonzero(np.isin(codes, touched))
        place = np.searchsorted(touched, codes[inside]).astype(np.int32)
        part = None if weight is None else weight[inside]
        centroids[touched], totals[touched] = cluster_means(X[inside], place, len(touched), part)
        between[:, touched] = squared_distances(X, centroids[touched])
    return centroids


def _gains(
    between: Vectors, codes: npt.NDArray[np.int32], totals: Weights, mass: Weights
) -> tuple[Weights, npt.NDArray[np.int32]]:
    """Give what each row's best move gains, and where it goes; a row alone in its cluster stays."""
    n = len(codes)
    rows = np.arange(n)
    own_total = totals[codes]
    rest = own_total - mass
    alone = rest <= 1e-9 * own_total
    own = np.where(alone, 0.0, between[rows, codes] * own_total / np.where(alone, 1.0, rest))
    uniform = mass.min() == mass.max()
    factor = totals / (totals + mass[0]) if uniform else totals / (totals + mass[:, None] + 1e-300)
    costs = between * factor.astype(np.float32)
    costs[rows, codes] = np.inf
    targets = costs.argmin(axis=1).astype(np.int32)
    return (own - costs[rows, targets]) * mass, targets


def _compatible(
    gains: Weights, codes: npt.NDArray[np.int32], targets: npt.NDArray[np.int32], least: float, k: int
) -> npt.NDArray[np.int64]:
    """Give the rows to move, most gain first, no cluster taking part twice."""
    candidates = np.flatnonzero(gains > least)
    candidates = candidates[np.argsort(-gains[candidates], kind="stable")]
    busy = np.zeros(k, dtype=bool)
    moves = []
    for row, source, target in zip(
        candidates.tolist(), codes[candidates].tolist(), targets[candidates].tolist(), strict=True
    ):
        if not busy[source] and not busy[target]:
            busy[source] = busy[target] = True
            moves.append(row)
    return np.array(moves, dtype=np.int64)
