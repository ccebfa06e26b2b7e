"""K-means on one matrix: greedy k-means++ seeding, Lloyd's steps as matrix products, no empty clusters.

Unlike scikit-learn's, the sums run in one order whatever the number of threads, so that the same
input gives the same bytes.
"""

import numpy as np
import numpy.typing as npt

from sid_tokenizers.base import Vectors

BLOCK = 65_536  # rows per matrix product: bounds memory at BLOCK x K floats


def nearest(X: Vectors, centroids: Vectors) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Give each row's nearest centroid and the squared distance to it; ties go to the lower number.

    X: (n, d) float32; centroids: (k, d) float32. Returns (n,) int32 and (n,) float32.
    """
    codes = np.empty(len(X), dtype=np.int32)
    best = np.empty(len(X), dtype=np.float32)
    for start in range(0, len(X), BLOCK):
        rows = slice(start, start + BLOCK)
        distances = squared_distances(X[rows], centroids)
        codes[rows] = distances.argmin(axis=1)
        best[rows] = distances[np.arange(len(distances)), codes[rows]]
    return codes, best


def squared_distances(X: Vectors, centroids: Vectors) -> npt.NDArray[np.float32]:
    """Give all squared L2 distances: (n, d), (k, d) -> (n, k) float32, never negative."""
    distances = X @ (-2.0 * centroids.T)
    distances += np.einsum("ij,ij->i", centroids, centroids)
    distances += np.einsum("ij,ij->i", X, X)[:, None]
    return np.maximum(distances, 0.0, out=distances)


def cluster_means(
    X: Vectors, codes: npt.NDArray[np.int32], k: int, weight: npt.NDArray[np.float64] | None
) -> tuple[Vectors, npt.NDArray[np.float64]]:
    """Give the mean of each cluster and its total weight; an empty cluster's mean is zero."""
    from scipy.sparse import csr_array

    n = len(X)
    mass = np.ones(n) if weight is None else weight
    membership = csr_array((mass, (codes, np.arange(n))), shape=(k, n))
    totals = np.bincount(codes, weights=mass, minlength=k).astype(np.float64)
    sums = membership @ X.astype(np.float64)
    return (sums / np.maximum(totals, 1e-300)[:, None]).astype(np.float32), totals


def kmeans(
    X: Vectors,
    k: int,
    *,
    seed: int,
    n_init: int = 4,
    max_iter: int = 100,
    tol: float = 1e-4,
    weight: npt.NDArray[np.float64] | None = None,
) -> Vectors:
    """Give k centroids of X, the best of `n_init` seedings by total squared distance.

    X: (n, d) float32 with n >= k. Stops when the error falls by less than `tol` of itself.
    Lloyd (1982); seeding by Arthur and Vassilvitskii (2007) in scikit-learn's greedy form.
    """
    best_error, best = np.inf, None
    for attempt in range(n_init):
        centroids = _seed_centroids(X, k, seed + attempt * 7919, weight)
        centroids, error = _lloyd(X, centroids, max_iter, tol, weight)
        if error < best_error:
            best_error, best = error, centroids
    assert best is not None
    return best


def _seed_centroids(X: Vectors, k: int, seed: int, weight: npt.NDArray[np.float64] | None) -> Vectors:
    import warnings

    from sklearn.cluster import kmeans_plusplus

    with warnings.catch_warnings():  # fewer distinct points than k: the repair below deals with it
        warnings.simplefilter("ignore", RuntimeWarning)
        chosen = kmeans_plusplus(X, k, sample_weight=weight, random_state=seed)[0]
    return np.ascontiguousarray(chosen, dtype=np.float32)


def _lloyd(
    X: Vectors,
    centroids: Vectors,
    max_iter: int,
    tol: float,
    weight: npt.NDArray[np.float64] | None,
) -> tuple[Vectors, float]:
    mass = np.ones(len(X)) if weight is None else weight
    last = np.inf
    for _ in range(max_iter):
        codes, distances = nearest(X, centroids)
        _fill_empty(codes, distances, len(centroids))
        error = float((distances * mass).sum(dtype=np.float64))
        if last - error <= tol * error:
            break
        last = error
        centroids, totals = cluster_means(X, codes, len(centroids), weight)
        centroids[totals == 0] = X[0]  # only where X has fewer distinct rows than centroids
    codes, distances = nearest(X, centroids)
    return centroids, float((distances * mass).sum(dtype=np.float64))


def _fill_empty(codes: npt.NDArray[np.int32], distances: npt.NDArray[np.float32], k: int) -> None:
    """Give each empty cluster the row that lies farthest from its own centroid, in place."""
    counts = np.bincount(codes, minlength=k)
    empty = np.flatnonzero(counts == 0)
    if not len(empty):
        return
    farthest = iter(np.argsort(-distances, kind="stable"))
    for cluster in empty:
        for row in farthest:
            if distances[row] <= 0:
                return  # every row sits on its centroid: there is nothing left to split
            if counts[codes[row]] > 1:
                counts[codes[row]] -= 1
                codes[row], distances[row] = cluster, 0.0
                break
