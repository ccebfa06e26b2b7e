"""item2vec: skip-gram with negative sampling over users' histories, with vectors for both roles.

Unlike ppmi_svd.py it keeps two vectors per item: `in` for the item that stands there, `out` for the one that
stands near it. in . in is alike ("instead of"), in . out goes together ("along with").
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sid_pipelines.collaborative.base import CollaborativeModel, curve
from sid_pipelines.collaborative.events import TrainEvents
from sid_pipelines.stage import Progress
from sid_tokenizers.base import Vectors

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Item2Vec(CollaborativeModel):
    """SGNS on train histories; tables embeddings_<name> (in) and embeddings_<name>_out.

    window: events apart at most. negatives: per pair, drawn by popularity to the power `smoothing`; the
    pairs of a batch share `shared` draws, weighted to so many. subsample: events of items with more than
    about this many times the mean number of events are left out at random, anew each epoch; 0 for none.
    An epoch holds its pairs in memory: 2 x window x events, 8 bytes each.

    smoothing: power of popularity by which negatives are drawn. shared: draws that the pairs of a batch
    share. epochs: passes over the histories. learning_rate: of each step. batch_size: pairs of a step.
    """

    epochs: int = 5
    window: int = 5
    negatives: int = 5
    smoothing: float = 0.75
    subsample: float = 1.0
    learning_rate: float = 0.03
    batch_size: int = 8192
    shared: int = 64

    name: ClassVar[str] = "item2vec"
    source: ClassVar[str] = (
        "Barkan and Koenigstein 2016 (Item2Vec), Mikolov et al. 2013 (negative sampling, subsampling); in "
        "and out vectors as in Dual embeddings (complementary items). Adam and shared negatives are ours"
    )
    needs: ClassVar[tuple[str, str] | None] = ("torch", "collaborative")
    tables: ClassVar[tuple[str, ...]] = ("", "out")

    def check_params(self) -> None:
        """Raise DataError where an option is out of range."""
        super().check_params()
        self._check(epochs=1, window=1, negatives=1, batch_size=1, shared=1, smoothing=0, subsample=0)
        self._check_above_zero("learning_rate")

    def _fit(self, events: TrainEvents, progress: Progress) -> tuple[dict[str, Vectors], dict[str, Any]]:
        from sid_pipelines.collaborative.item2vec_training import train

        inner, outer, losses = train(self, events, progress)
        self._check_finite(inner, "lower learning_rate")
        return {"": inner, "out": outer}, {"loss": curve(losses)}


def keep_chance(popularity: Rows, subsample: float) -> npt.NDArray[np.float64]:
    """Give the chance with which an event of each item is kept: sqrt(t/f) + t/f, at most 1 (word2vec.c).

    popularity: (n,) events of each item, none 0. subsample: t in units of the mean, where word2vec has a
    share of all events: what is frequent depends on how many items there are. 0 keeps all.
    """
    if not subsample:
        return np.ones(len(popularity))
    ratio = subsample * popularity.mean() / popularity
    return np.asarray(np.minimum(np.sqrt(ratio) + ratio, 1.0))


def skip_grams(
    users: npt.NDArray[np.int32], items: npt.NDArray[np.int32], window: int
) -> npt.NDArray[np.int32]:
    """Give (m, 2): both orders of all pairs of a user's events at most `window` apart, repeats included.

    >>> skip_grams(np.array([0, 0, 0, 1]), np.array([7, 8, 9, 7]), 1).tolist()
    [[7, 8], [8, 9], [8, 7], [9, 8]]
    """
    found = []
    for apart in range(1, min(window, len(items) - 1) + 1):
        same = (users[:-apart] == users[apart:]) & (items[:-apart] != items[apart:])
        left, right = items[:-apart][same], items[apart:][same]
        found += [np.stack([left, right], axis=1), np.stack([right, left], axis=1)]
    return np.concatenate(found) if found else np.empty((0, 2), np.int32)
