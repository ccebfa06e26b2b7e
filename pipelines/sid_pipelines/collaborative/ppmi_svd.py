"""PPMI + SVD: how much more often than by chance two items share users, as vectors.

It factorizes what item2vec.py samples (Levy and Goldberg 2014), without epochs or a learning rate.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sid_pipelines.collaborative.base import CollaborativeModel
from sid_pipelines.collaborative.cooccurrence import recent, shared
from sid_pipelines.collaborative.events import TrainEvents
from sid_pipelines.stage import Progress
from sid_tokenizers.base import Vectors
from sid_tokenizers.blocks import one_core_products

OVERSAMPLES, TURNS = 16, 8  # of the randomized SVD


@dataclass(frozen=True)
class PPMISVD(CollaborativeModel):
    """Positive pointwise mutual information of items that users share, reduced by a randomized SVD.

    window: events apart at most, 0 for whole histories, whose pairs grow with the square: longest is how
    many last events of a user count (0: all). shift: log of it is taken off, as if SGNS drew so many
    negatives. smoothing: power of the context's counts. power: of the singular values that scale the
    columns: 1 for U S, 0.5 for U sqrt(S), 0 for U.

    longest: last events of a user that count, 0 for all.
    """

    window: int = 0
    longest: int = 500
    shift: float = 1.0
    smoothing: float = 0.75
    power: float = 0.5

    name: ClassVar[str] = "ppmi-svd"
    source: ClassVar[str] = (
        "Levy, Goldberg, Dagan 2015 (Improving Distributional Similarity with Lessons Learned from Word "
        "Embeddings), with users for sentences"
    )

    def check_params(self) -> None:
        """Raise DataError where an option is out of range."""
        super().check_params()
        self._check(window=0, longest=0, power=0, smoothing=0)
        self._check_above_zero("shift")

    def _fit(self, events: TrainEvents, progress: Progress) -> tuple[dict[str, Vectors], dict[str, Any]]:
        from sklearn.utils.extmath import randomized_svd

        progress(0, 2)
        weights = ppmi(shared(recent(events, self.longest), self.window), self.shift, self.smoothing)
        progress(1, 2)
        with one_core_products():
            left, values, _ = randomized_svd(
                weights,
                min(self.dim, weights.shape[0]),
                n_oversamples=OVERSAMPLES,
                n_iter=TURNS,
                random_state=self.seed,
                flip_sign=False,
            )
        kept = values > 1e-9 * max(float(values[0]), 1e-300)
        left, values = left[:, kept], values[kept]
        largest = np.abs(left).argmax(axis=0)  # signs are free: each column's largest number is positive
        vectors = left * np.sign(left[largest, np.arange(left.shape[1])]) * values**self.power
        progress(2, 2)
        facts = {"pairs": int(weights.nnz), "rank": int(kept.sum())}
        return {"": vectors.astype(np.float32)}, facts


def ppmi(counts: Any, shift: float, smoothing: float) -> Any:
    """Give max(log(p(i, j) / (p(i) p(j)^smoothing)) - log(shift), 0) of sparse counts (n, n), sparse."""
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    per_row = np.asarray(counts.sum(axis=1)).ravel()
    context = np.asarray(counts.sum(axis=0)).ravel() ** smoothing
    total = max(context.sum(), 1e-300)
    found = counts.copy()
    expected = per_row[rows] * context[counts.indices] / total
    found.data = np.maximum(np.log(counts.data / expected) - np.log(shift), 0.0)
    found.eliminate_zeros()
    return found
