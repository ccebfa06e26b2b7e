"""BPR: factors trained so that what a user had scores above what the user did not have.

Unlike lightgcn.py, which has the same loss, a vector is trained from its own events alone.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sid_pipelines.collaborative.base import CollaborativeModel
from sid_pipelines.collaborative.events import TrainEvents
from sid_pipelines.stage import Progress
from sid_tokenizers.base import Vectors


@dataclass(frozen=True)
class BPR(CollaborativeModel):
    """Bayesian personalized ranking; the item factors without the items' biases are the vectors.

    iterations: passes over the events. The package steps without locks ("hogwild"), where the threads'
    timing decides the numbers; so it gets one thread here.

    learning_rate: of each step. regularization: what draws factors towards zero.
    """

    iterations: int = 100
    learning_rate: float = 0.05
    regularization: float = 0.03

    name: ClassVar[str] = "bpr"
    source: ClassVar[str] = (
        "Rendle et al. 2009 (BPR: Bayesian Personalized Ranking from Implicit Feedback), as in the package "
        "implicit"
    )
    needs: ClassVar[tuple[str, str] | None] = ("implicit", "collaborative")

    def check_params(self) -> None:
        """Raise DataError where an option is out of range."""
        super().check_params()
        self._check(iterations=1, regularization=0)
        self._check_above_zero("learning_rate")

    def _fit(self, events: TrainEvents, progress: Progress) -> tuple[dict[str, Vectors], dict[str, Any]]:
        from implicit.cpu.bpr import BayesianPersonalizedRanking
        from implicit.recommender_base import ModelFitError

        model = BayesianPersonalizedRanking(
            factors=self.dim,
            learning_rate=self.learning_rate,
            regularization=self.regularization,
            iterations=self.iterations,
            num_threads=1,
            random_state=np.random.default_rng(self.seed),
        )
        with suppress(ModelFitError):  # _check_finite says what to do
            model.fit(
                events.matrix(),
                show_progress=False,
                callback=lambda done, *_: progress(done + 1, self.iterations),
            )
        factors = model.item_factors[:, : self.dim]  # the last column is the bias
        self._check_finite(factors, "lower learning_rate")
        return {"": factors}, {}
