"""Cluster items that share users: the parts of spectral clustering, on histories instead of pairs of items.

The graph of items has A[i, j] = sum over users of c_ui c_uj, i and j different, c being how often a user
has an item. A user with a long history is a clique there, so A is never made: with H the matrix of c, A x
is H'(H x) less the diagonal, which costs as much as there are events. Imports scipy, so it is imported late.
"""

from heapq import heapify, heapreplace

import numpy as np
import numpy.typing as npt
from scipy.sparse import block_array, csc_array, csr_array

from sid_tokenizers.blocks import one_core_products
from sid_tokenizers.catalogue import Events
from sid_tokenizers.indexers.tree import Labels, Rows, even_blocks

DENSE = 400  # items up to which all eigenvectors are computed
TOLERANCE = 1e-3  # of an eigenvalue; finer ones move hardly an item to another cluster
RESTARTS = 200  # of Lanczos, then what has converged must do

Floats = npt.NDArray[np.float64]


def histories(events: Events, n: int) -> csc_array:
    """Give how often each user has each of n items: (users, n) float64."""
    _, users = np.unique(events.users, return_inverse=True)
    ones = np.ones(len(users))
    shape = (int(users.max(initial=-1)) + 1, n)
    return csc_array((ones, (users, events.items)), shape=shape)


def adjacency(seen: csr_array) -> csr_array:
    """Give the graph itself, (n, n): for small ones, and to see what the products stand for.

    Every pair of one user's events counts once in both directions, as in OpenP5. LLM-RecSys-ID's code
    overwrites one direction by the other.
    """
    graph = csr_array(seen.T @ seen)
    graph.setdiag(0)
    graph.eliminate_zeros()
    return graph


def divide(seen: csc_array, rows: Rows, depth: int, *, k: int, most: int, seed: int) -> Labels | None:
    """Give the items of a group their clusters, or None where there are no more than `most`.

    seen: histories of all items; rows: those of the group. Where the graph is not connected, its parts are
    told apart first; where clustering splits nothing, the group is cut into even blocks.
    """
    if len(rows) <= most:
        return None
    part = shared(seen, rows)
    labels = components(part)
    if labels.any():
        return packed(labels, most, k)
    labels = spectral_clusters(part, k, seed)
    return labels if labels.min() < labels.max() else even_blocks(len(rows), most, k)


def shared(seen: csc_array, rows: Rows) -> csr_array:
    """Give the histories of some items, of users alone who have two of them or more."""
    part = seen[:, rows].tocsr()
    return csr_array(part[np.flatnonzero(np.diff(part.indptr) > 1)])


def components(seen: csr_array) -> Labels:
    """Give each item the number of its connected part of the graph, in order of their first items: (n,)."""
    from scipy.sparse.csgraph import connected_components

    n = seen.shape[1]
    both = block_array([[None, seen.T], [seen, None]], format="csr")
    found = connected_components(both, directed=False)[1][:n]
    _, first, labels = np.unique(found, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[labels].astype(np.int32)


def packed(component: Labels, most: int, groups: int) -> Labels:
    """Put connected parts together, so that many small ones become few groups: (n,) the group of each item.

    Parts are taken by size, large ones first, and go together while a parcel has at most `most` items.
    More than `groups` parcels are dealt out, each to the group that has fewest items. Ours.
    """
    sizes = np.bincount(component)
    parcel = np.empty(len(sizes), dtype=np.int32)
    loads: list[int] = []
    for part in np.argsort(-sizes, kind="stable").tolist():
        if not loads or loads[-1] + sizes[part] > most:
            loads.append(0)
        loads[-1] += int(sizes[part])
        parcel[part] = len(loads) - 1
    if len(loads) > groups:
        heap = [(0, group) for group in range(groups)]
        heapify(heap)
        dealt = np.empty(len(loads), dtype=np.int32)
        for number in np.argsort(-np.array(loads), kind="stable").tolist():
            load, group = heap[0]
            dealt[number] = group
            heapreplace(heap, (load + loads[number], group))
        parcel = dealt[parcel]
    return parcel[component]


def spectral_clusters(seen: csr_array, k: int, seed: int) -> Labels:
    """Give the items of a connected graph k clusters at most: (n,) int32.

    As scikit-learn's SpectralClustering(assign_labels="cluster_qr"): the k eigenvectors of the normalized
    graph D^-1/2 A D^-1/2 with the largest eigenvalues, divided by the root of the degrees.
    """
    with one_core_products():
        return cluster_qr(_embedding(seen, min(k, seen.shape[1] - 1), seed))


def _embedding(seen: csr_array, k: int, seed: int) -> Floats:
    n = seen.shape[1]
    by_item = csr_array(seen.T)
    own = np.asarray(seen.multiply(seen).sum(axis=0)).ravel()
    degrees = by_item @ (seen @ np.ones(n)) - own
    scale = 1 / np.sqrt(degrees)
    if n <= DENSE:
        graph = scale[:, None] * adjacency(seen).toarray() * scale
        small: Floats = scale[:, None] * np.linalg.eigh(graph)[1][:, -k:]
        return small

    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    def product(x: Floats) -> Floats:
        scaled = x.ravel() * scale
        result: Floats = scale * (by_item @ (seen @ scaled) - own * scaled)
        return result

    graph = LinearOperator((n, n), matvec=product, dtype=np.float64)
    start = np.random.default_rng(seed).normal(size=n)
    size = min(max(2 * k + 1, 40), n)
    try:
        vectors = eigsh(graph, k, which="LA", v0=start, ncv=size, maxiter=RESTARTS, tol=TOLERANCE)[1]
    except ArpackNoConvergence as stopped:
        vectors = stopped.eigenvectors
    scaled: Floats = scale[:, None] * vectors
    return scaled


def cluster_qr(vectors: Floats) -> Labels:
    """Give rows of k eigenvectors k clusters: (n, k) -> (n,) int32.

    k rows that stand apart are found by QR with pivots, the vectors are turned so that these lie on the
    axes, and each row takes its largest coordinate. Damle, Minden and Ying (2019), as in scikit-learn.
    """
    from scipy.linalg import qr, svd

    k = vectors.shape[1]
    if not k:
        return np.zeros(len(vectors), dtype=np.int32)
    pivots = qr(vectors.T, mode="r", pivoting=True)[1][:k]
    left, _, right = svd(vectors[pivots].T)
    labels: Labels = np.abs(vectors @ (left @ right)).argmax(axis=1).astype(np.int32)
    return labels
