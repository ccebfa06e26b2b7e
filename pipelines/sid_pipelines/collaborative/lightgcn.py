"""LightGCN: factors that are averaged over the neighbours of neighbours before they are compared.

The loss is BPR's (bpr.py); what propagation adds is that an item with few events borrows from others.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from sid_pipelines.collaborative.base import CollaborativeModel, curve
from sid_pipelines.collaborative.events import TrainEvents
from sid_pipelines.stage import Progress
from sid_tokenizers.base import Vectors


@dataclass(frozen=True)
class LightGCN(CollaborativeModel):
    """Light graph convolution; the vectors are the items' means over all layers, the first included.

    layers: times that the factors are propagated over the normalized graph of users and items. decay:
    weight of the squared factors of a batch. batch_size: events per step; every step propagates over the
    whole graph, so small batches are slow on large graphs. device: "cpu", which gives the same bytes
    everywhere, or torch's name of another.
    """

    epochs: int = 60
    layers: int = 3
    learning_rate: float = 0.02
    decay: float = 1e-4
    batch_size: int = 8192
    device: str = "cpu"

    name: ClassVar[str] = "lightgcn"
    source: ClassVar[str] = (
        "He et al. 2020 (LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation); "
        "propagation, layer mean, initial deviation 0.1 and decay as in gusye1234/LightGCN-PyTorch "
        "(secondary knowledge); its 1000 epochs at rate 0.001 in batches of 2048 are shortened here"
    )
    needs: ClassVar[tuple[str, str] | None] = ("torch", "collaborative")

    def check_params(self) -> None:
        """Raise DataError where an option is out of range."""
        super().check_params()
        self._check(epochs=1, layers=0, decay=0, batch_size=1)
        self._check_above_zero("learning_rate")

    def _fit(self, events: TrainEvents, progress: Progress) -> tuple[dict[str, Vectors], dict[str, Any]]:
        from sid_pipelines.collaborative.lightgcn_training import train

        vectors, losses = train(self, events, progress)
        self._check_finite(vectors, "lower learning_rate")
        return {"": vectors}, {"loss": curve(losses)}
