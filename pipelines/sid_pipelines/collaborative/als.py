"""ALS: factors of users and items whose products are large where a user had an item (implicit feedback)."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from sid_pipelines.collaborative.base import CollaborativeModel
from sid_pipelines.collaborative.events import TrainEvents
from sid_pipelines.stage import Progress
from sid_tokenizers.base import Vectors
from sid_tokenizers.blocks import one_core_products

K1, B = 100.0, 0.8  # of BM25, as in implicit's tutorial
LEAST = 1e-3  # a user who has every item would weigh less than nothing


@dataclass(frozen=True)
class ALS(CollaborativeModel):
    """Weighted matrix factorization; the item factors are the vectors.

    iterations: each solves all users, then all items. regularization: of the squared factors. alpha: what
    the confidence of an event is multiplied with; that of no event is 1. weighting: what is confident: how
    often a user had an item ("count"), that it was had at all ("binary"), or BM25 of the count ("bm25"),
    where users with many events, and items that many had, weigh less.
    """

    iterations: int = 15
    regularization: float = 10.0
    alpha: float = 20.0
    weighting: Literal["count", "binary", "bm25"] = "binary"

    name: ClassVar[str] = "als"
    source: ClassVar[str] = (
        "Hu, Koren, Volinsky 2008 (Collaborative Filtering for Implicit Feedback Datasets), solved with "
        "conjugate gradients as in the package implicit"
    )
    needs: ClassVar[tuple[str, str] | None] = ("implicit", "collaborative")

    def check_params(self) -> None:
        """Raise DataError where an option is out of range."""
        super().check_params()
        self._check(iterations=1, regularization=0)
        self._check_above_zero("alpha")

    def _fit(self, events: TrainEvents, progress: Progress) -> tuple[dict[str, Vectors], dict[str, Any]]:
        from implicit.cpu.als import AlternatingLeastSquares
        from implicit.recommender_base import ModelFitError

        confidence = weighted(events.matrix(), self.weighting)
        # Each row is solved by itself, so threads do not change bytes; products of whole matrices would.
        with one_core_products(), suppress(ModelFitError):  # _check_finite says what to do
            model = AlternatingLeastSquares(
                factors=self.dim,
                regularization=self.regularization,
                alpha=self.alpha,
                iterations=self.iterations,
                random_state=np.random.default_rng(self.seed),
            )
            model.fit(
                confidence,
                show_progress=False,
                callback=lambda done, _seconds, _loss: progress(done + 1, self.iterations),
            )
        self._check_finite(model.item_factors, "raise regularization or lower alpha")
        return {"": model.item_factors}, {}


def weighted(counts: Any, weighting: str) -> Any:
    """Give confidences for a CSR matrix of counts (users, items); what is 0 stays so."""
    if weighting == "binary":
        counts.data[:] = 1.0
    if weighting == "bm25":
        from implicit.nearest_neighbours import bm25_weight

        counts = bm25_weight(counts.T, K1=K1, B=B).T.tocsr().astype(np.float32)
        counts.data = np.maximum(counts.data, LEAST)
    return counts
