"""How good a set of SIDs is: collisions, use of the codes, reconstruction, neighbours that stay near.

Utilisation alone is not quality (a codebook can be fully used and still collide), so they are
always reported together.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sid_tokenizers.base import Codes, Vectors
from sid_tokenizers.collisions import group_sizes


def collision_metrics(codes: Codes) -> dict[str, float | int]:
    """Give collision_rate = (N - U) / N, colliding items, unique share, and the largest group."""
    n = len(codes)
    group, size = group_sizes(codes)
    distinct = int(group.max()) + 1
    colliding = int((size > 1).sum())
    return {
        "items": n,
        "distinct_sids": distinct,
        "collision_rate": (n - distinct) / n,
        "collided_items": colliding,
        "uniquely_identified": (n - colliding) / n,
        "max_group": int(size.max()),
    }


def level_metrics(codes: npt.NDArray[np.int32], k: int) -> dict[str, float | int]:
    """Give the use of one level's k codes: used, dead, entropy (nats), perplexity / k, Gini, counts."""
    counts = np.bincount(codes, minlength=k)
    share = counts[counts > 0] / counts.sum()
    entropy = float(-(share * np.log(share)).sum())
    ordered = np.sort(counts)
    ranks = np.arange(1, k + 1)
    gini = float(2 * (ranks * ordered).sum() / (k * ordered.sum()) - (k + 1) / k)
    return {
        "codes": k,
        "used": int((counts > 0).sum()),
        "dead": int((counts == 0).sum()),
        "entropy": entropy,
        "perplexity_share": float(np.exp(entropy) / k),
        "gini": gini,
        "min_count": int(counts.min()),
        "max_count": int(counts.max()),
    }


def reconstruction(X: Vectors, decoded: Vectors) -> dict[str, float] | None:
    """Give mean squared L2 error per vector and its share of the vectors' mean squared norm."""
    if not len(X):
        return None
    error = float(((X - decoded) ** 2).sum(axis=1, dtype=np.float64).mean())
    energy = float((X**2).sum(axis=1, dtype=np.float64).mean())
    return {"squared_error": error, "relative_error": error / energy if energy else 0.0}


def neighbour_overlap(X: Vectors, sids: Codes, *, top: int = 10, sample: int = 2000, seed: int = 0) -> float:
    """Give the share of each item's `top` cosine neighbours that are also among its nearest by SID.

    Nearness by SID is the length of the common prefix. Where that ties across the cut, a neighbour
    counts with the chance a random choice among the tied would give it. `sample` items, seeded.
    """
    import faiss

    n, length = sids.shape
    top = min(top, n - 1)
    if top < 1:
        return 1.0
    unit = X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-12)
    queries = np.arange(n)
    if n > sample:
        queries = np.sort(np.random.default_rng(seed).choice(n, sample, replace=False))
    index = faiss.IndexFlatIP(X.shape[1])
    index.add(unit)
    _, found = index.search(unit[queries], top + 1)
    overlap = 0.0
    for query, neighbours in zip(queries, found, strict=True):
        neighbours = neighbours[neighbours != query][:top]
        common = (sids == sids[query]).cumprod(axis=1).sum(axis=1)
        common[query] = -1
        sizes = np.bincount(common[common >= 0], minlength=length + 1)
        above = sizes[::-1].cumsum()[::-1] - sizes
        chance = np.clip((top - above) / np.maximum(sizes, 1), 0.0, 1.0)
        overlap += float(chance[common[neighbours]].mean())
    return overlap / len(queries)


def duplicate_vectors(X: Vectors) -> int:
    """Give how many rows repeat an earlier row exactly; no tokenizer can tell such items apart."""
    return len(X) - len(np.unique(X, axis=0))


def per_level(codes: Codes, levels: Sequence[int]) -> list[dict[str, Any]]:
    """Give `level_metrics` for every level, coarse to fine."""
    return [{"level": level + 1, **level_metrics(codes[:, level], k)} for level, k in enumerate(levels)]
