"""How good a set of SIDs is: collisions, use of the codes, reconstruction, categories. See neighbours.py too.

Utilisation alone is not quality (a codebook can be fully used and still collide), so they are
always reported together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sid_tokenizers.base import Codes, Vectors, content_hashes
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
        "gini_of_groups": gini(np.bincount(group)),
    }


def level_metrics(codes: npt.NDArray[np.int32], k: int) -> dict[str, float | int]:
    """Give the use of one level's k codes.

    used, dead; entropy in nats, entropy_ratio to ln k, perplexity_share e^H / k; gini over how many
    items each code has, 0 being even; min_count, max_count.
    """
    counts = np.bincount(codes, minlength=k)
    share = counts[counts > 0] / max(counts.sum(), 1)
    entropy = max(float(-(share * np.log(share)).sum()), 0.0)
    return {
        "codes": k,
        "used": int((counts > 0).sum()),
        "dead": int((counts == 0).sum()),
        "entropy": entropy,
        "entropy_ratio": entropy / float(np.log(k)) if k > 1 else float(len(codes) > 0),
        "perplexity_share": float(np.exp(entropy) / k) if len(codes) else 0.0,
        "gini": gini(counts),
        "min_count": int(counts.min()),
        "max_count": int(counts.max()),
    }


def gini(counts: npt.NDArray[np.int64]) -> float:
    """Give the Gini coefficient of counts: 0 where all are equal, near 1 where one has everything."""
    ordered, k = np.sort(counts), len(counts)
    if not ordered.sum():
        return 0.0
    ranks = np.arange(1, k + 1)
    return float(2 * (ranks * ordered).sum() / (k * ordered.sum()) - (k + 1) / k)


def per_level(codes: Codes, levels: Sequence[int]) -> list[dict[str, Any]]:
    """Give `level_metrics` for every level, and how many distinct prefixes end there.

    Rows without a code at a level (-1) are left out there.
    """
    found = []
    for level, k in enumerate(levels):
        there = codes[codes[:, level] >= 0]
        prefixes = int(group_sizes(there[:, : level + 1])[0].max(initial=-1)) + 1
        found.append({"level": level + 1, **level_metrics(there[:, level], k), "prefixes": prefixes})
    return found


def reconstruction(X: Vectors, decoded: Vectors) -> dict[str, float] | None:
    """Give mean squared L2 error per vector and its share of the vectors' mean squared norm."""
    total = ReconstructionTotal()
    total.add(X, decoded)
    return total.result()


@dataclass
class ReconstructionTotal:
    """The same for vectors that come block by block. error, energy: sums over rows."""

    rows: int = 0
    error: float = 0.0
    energy: float = 0.0

    def add(self, X: Vectors, decoded: Vectors) -> None:
        """Count a block of vectors, (n, d), and what their codes decode to."""
        self.rows += len(X)
        self.error += float(((X - decoded) ** 2).sum(axis=1, dtype=np.float64).sum())
        self.energy += float((X**2).sum(axis=1, dtype=np.float64).sum())

    def join(self, following: "ReconstructionTotal") -> None:
        """Count the block of another total, which has no other; sums are those of adding it here."""
        self.rows += following.rows
        self.error += following.error
        self.energy += following.energy

    def result(self) -> dict[str, float] | None:
        """Give the numbers, or None where there were no vectors."""
        if not self.rows:
            return None
        relative = self.error / self.energy if self.energy else 0.0
        return {"squared_error": self.error / self.rows, "relative_error": relative}


def purity_by_prefix(
    sids: Codes, labels: npt.NDArray[np.int64], *, seed: int = 0
) -> list[dict[str, float | int]]:
    """Give for every prefix length how well prefixes sort items by label.

    labels: (n,) category numbers, -1 for none; such items are left out. purity: share of items that have
    the commonest label of their prefix. shuffled: the same after a seeded shuffle of the labels, for
    prefixes with few items are pure by chance; what counts is the difference.
    """
    known = labels >= 0
    sids, labels = sids[known], labels[known]
    if not len(labels):
        return []
    mixed = labels[np.random.default_rng(seed).permutation(len(labels))]
    rows: list[dict[str, float | int]] = []
    for length in range(1, sids.shape[1] + 1):
        group = group_sizes(sids[:, :length])[0]
        rows.append({"length": length, "purity": _purity(group, labels), "shuffled": _purity(group, mixed)})
    return rows


def _purity(group: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> float:
    pairs, counts = np.unique(group * (int(labels.max()) + 1) + labels, return_counts=True)
    best = np.zeros(int(group.max()) + 1, dtype=np.int64)
    np.maximum.at(best, pairs // (int(labels.max()) + 1), counts)
    return float(best.sum() / len(labels))


def duplicate_vectors(X: Vectors) -> int:
    """Give how many rows repeat an earlier row exactly; no tokenizer can tell such items apart."""
    return len(X) - len(np.unique(content_hashes(X)))
