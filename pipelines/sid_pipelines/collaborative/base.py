"""What a collaborative model is: its options, and `fit`, which turns train events into vectors of items."""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sid_pipelines.collaborative.events import TrainEvents
from sid_pipelines.stage import Progress
from sid_schemas import DataError, MissingExtraError
from sid_tokenizers.base import Vectors

POINTS = 20  # of a loss curve that are kept
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Fitted:
    """What `fit` gives.

    vectors: (n_items, dim) float32 by suffix of the table, "" for the vectors that stand for an item.
    present: (n_items,) whether an item has a vector, for which it needs a train event; vectors of others
    are zero. facts: for the
    report, such as the `loss` of epochs.
    """

    vectors: dict[str, Vectors]
    present: Mask
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CollaborativeModel(ABC):
    """A model of who had what. Its fields are the recipe's options, the same for every model at first.

    dim: numbers per vector. seed: of every draw. source: whose method it is, and how it is known.
    needs: the optional package that fits it and the extra that brings it, or None.
    """

    dim: int = 64
    seed: int = 0

    name: ClassVar[str]
    source: ClassVar[str]
    needs: ClassVar[tuple[str, str] | None] = None
    tables: ClassVar[tuple[str, ...]] = ("",)

    def check_params(self) -> None:
        """Raise DataError where an option is out of range."""
        self._check(dim=1, seed=0)

    def check_needs(self) -> None:
        """Raise MissingExtraError where the package that fits this model is not installed."""
        if self.needs and importlib.util.find_spec(self.needs[0]) is None:
            raise MissingExtraError(f"The model {self.name!r} ({self.needs[0]})", self.needs[1])

    def fit(self, events: TrainEvents, progress: Progress) -> Fitted:
        """Fit on train events. progress: told the epochs done and their number.

        Vectors depend on options and events alone: not on items or users without a train event, not on
        the number of cores. Raises DataError where there is no event.
        """
        self.check_params()
        self.check_needs()
        if not len(events):
            raise DataError(f"{self.name}: no train event; expected some. Choose another [split] protocol")
        dense, rows = events.dense()
        vectors, facts = self._fit(dense, progress)
        present = np.zeros(events.n_items, dtype=bool)
        present[rows] = vectors[""].any(axis=1)  # an item that is never with another may have zeros
        spread = {}
        for suffix in self.tables:
            spread[suffix] = np.zeros((events.n_items, self.dim), dtype=np.float32)
            spread[suffix][rows, : vectors[suffix].shape[1]] = vectors[suffix]
        return Fitted(spread, present, facts)

    @abstractmethod
    def _fit(self, events: TrainEvents, progress: Progress) -> tuple[dict[str, Vectors], dict[str, Any]]:
        """Give vectors by suffix, (n_items, dim) or narrower, and facts; every item has an event."""

    def _check(self, **least: float) -> None:
        """Raise DataError naming the first option that is below its least value."""
        for option, value in least.items():
            if not getattr(self, option) >= value:
                raise DataError(
                    f"{self.name}: {option} = {getattr(self, option)}, expected a number >= {value:g}"
                )

    def _check_above_zero(self, *options: str) -> None:
        """Raise DataError naming the first option that is not above 0."""
        for option in options:
            if not getattr(self, option) > 0:
                raise DataError(f"{self.name}: {option} = {getattr(self, option)}, expected a number above 0")

    def _check_shares(self, *options: str) -> None:
        """Raise DataError naming the first option that is not in [0, 1)."""
        for option in options:
            if not 0 <= getattr(self, option) < 1:
                said = f"{option} = {getattr(self, option)}, expected a share, 0 or more and below 1"
                raise DataError(f"{self.name}: {said}")

    def _check_finite(self, vectors: Vectors, remedy: str) -> None:
        """Raise DataError where a fit has diverged."""
        if not np.isfinite(vectors).all():
            raise DataError(f"{self.name}: the fit diverged (numbers are not finite); {remedy}")


def curve(losses: Sequence[float]) -> list[float]:
    """Give at most so many points of a loss curve as a report shows, the first and the last among them.

    >>> curve([3.0, 2.0, 1.23456789])
    [3.0, 2.0, 1.23457]
    """
    places = np.unique(np.linspace(0, max(len(losses) - 1, 0), min(len(losses), POINTS)).round().astype(int))
    return [float(f"{losses[place]:.6g}") for place in places]
