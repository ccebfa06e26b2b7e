"""What k-means is made of: the nearest centroid, all distances, the means of clusters."""

import numpy as np
import numpy.typing as npt

from sid_tokenizers.base import Vectors, Weights
from sid_tokenizers.blocks import over_blocks
from sid_tokenizers.products import product

SUMS = 16_384  # rows added up in float32 before the sum goes on in float64


def nearest(X: Vectors, centroids: Vectors) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Give each row's nearest centroid and the squared distance to it; ties go to the lower number.

    X: (n, d) float32; centroids: (k, d) float32. Returns (n,) int32 and (n,) float32.
    """
    codes = np.empty(len(X), dtype=np.int32)
    best = np.empty(len(X), dtype=np.float32)
    products, norms = -2.0 * centroids.T, np.einsum("ij,ij->i", centroids, centroids)

    def work(rows: slice) -> None:
        block = X[rows]
        scores = product(block, products)
        scores += norms
        codes[rows] = found = scores.argmin(axis=1)
        own = scores[np.arange(len(found)), found] + np.einsum("ij,ij->i", block, block)
        best[rows] = np.maximum(own, 0.0)

    over_blocks(len(X), work)
    return codes, best


def squared_distances(X: Vectors, centroids: Vectors) -> npt.NDArray[np.float32]:
    """Give all squared L2 distances: (n, d), (k, d) -> (n, k) float32, never negative."""
    distances = np.empty((len(X), len(centroids)), dtype=np.float32)
    products, norms = -2.0 * centroids.T, np.einsum("ij,ij->i", centroids, centroids)

    def work(rows: slice) -> None:
        block, out = X[rows], distances[rows]
        np.add(product(block, products), norms, out=out)
        out += np.einsum("ij,ij->i", block, block)[:, None]
        np.maximum(out, 0.0, out=out)

    over_blocks(len(X), work)
    return distances


def cluster_means(
    X: Vectors, codes: npt.NDArray[np.int32], k: int, weight: Weights | None
) -> tuple[Vectors, Weights]:
    """Give the mean of each cluster and its total weight; an empty cluster's mean is zero."""
    from scipy.sparse import csr_array

    n = len(X)
    mass = np.ones(n, dtype=np.float32) if weight is None else weight.astype(np.float32)
    partial = np.empty((-(-n // SUMS), k, X.shape[1]), dtype=np.float32)

    def work(rows: slice) -> None:
        inside = np.arange(rows.stop - rows.start)
        shape = (k, len(inside))
        membership = csr_array((mass[rows], (codes[rows], inside)), shape=shape)
        partial[rows.start // SUMS] = membership @ X[rows]

    over_blocks(n, work, size=SUMS)
    totals = np.bincount(codes, weights=weight, minlength=k).astype(np.float64)
    sums = partial.sum(axis=0, dtype=np.float64)
    return (sums / np.maximum(totals, 1e-300)[:, None]).astype(np.float32), totals
