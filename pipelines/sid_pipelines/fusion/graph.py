"""Content passed through the graph of users and items, so that items used by the same people come together.

MMGRec's features. Unlike pairs.py an item's vector holds what stands around it in the graph, so a fit item
has one of its own; a new item has no neighbours yet and gets what the network makes of its content alone.

Most of what vectors know of behaviour comes of BPR, which the network without neighbours is trained with too;
the neighbours add about a fifth to it (of the ten items nearest by users, on MovieTweetings).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sid_pipelines.fusion.base import MAIN
from sid_pipelines.fusion.inputs import Arrays, FitRows, Mask, Rows
from sid_pipelines.fusion.trained import Trained
from sid_schemas import DataError
from sid_tokenizers.base import Vectors
from sid_tokenizers.products import product
from sid_tokenizers.residual import unit_rows

LEAK = np.float32(0.01)  # of the leaky ReLU, as torch has it


@dataclass(frozen=True, kw_only=True)
class Graph(Trained):
    """Content -> linear -> SAGEConv -> leaky ReLU -> SAGEConv over the graph of train events, by BPR.

    SAGEConv(x) = W x + V (mean of its neighbours) + b. Items begin as their content, users as a learned
    table; the score of a user and an item is the product of what comes out for both. epochs count passes
    over different pairs of user and item. The edges of a batch are not there while it is scored, or their
    ends would know of each other. Collaborative inputs are refused.

    hidden: width of the projection, of the user table and of the first layer. dim: of the result. negatives:
    items drawn for each event, which the user does not have. dropout: after the first layer (there 0.5; and
    0.2 after the second, here none). neighbours: False leaves V out everywhere, to see what the graph is
    good for. normalize: scale the result to length 1.
    """

    name: ClassVar[str] = "graph"
    source: ClassVar[str] = (
        "[C] MMGRec (TOKENIZERS.md S11): 128 and 64 columns, SAGEConv twice, leaky ReLU, BPR with 5 "
        "negatives, batches of 3000, 60 epochs, decay 1e-6, train edges both ways; [D] whitened content, the "
        "learning rate and its fall, a batch's own edges left out, no dropout after the second layer, "
        "new items by their own part alone"
    )
    needs_events: ClassVar[bool] = True

    hidden: int = 128
    dim: int = 64
    negatives: int = 5
    dropout: float = 0.5
    neighbours: bool = True
    normalize: bool = False
    epochs: int = 60
    batch_size: int = 3000
    learning_rate: float = 5e-3
    weight_decay: float = 1e-6

    def check_params(self, inputs: Mapping[str, str]) -> None:
        """Raise DataError naming an option that does not fit."""
        super().check_params(inputs)
        if len(self.content(inputs)) < len(inputs):
            raise DataError(
                f"fusion {self.name!r}: expected text and image inputs alone, because behaviour comes from "
                f"the events; got {', '.join(f'{name} ({kind})' for name, kind in inputs.items())}"
            )
        for option in ("hidden", "dim", "negatives"):
            if getattr(self, option) < 1:
                raise DataError(f"{option}: expected >= 1, got {getattr(self, option)}")
        if not 0 <= self.dropout < 1:
            raise DataError(f"dropout: expected 0 to less than 1, got {self.dropout}")

    def learn(self, rows: FitRows) -> tuple[Arrays, dict[str, Any]]:
        """Train; facts: losses and edges, and how many fit items have no neighbour."""
        from sid_pipelines.fusion.graph_training import train

        assert rows.events is not None
        if not len(rows.events.items):
            raise DataError(f"fusion {self.name!r}: the fit items have no train event; expected some")
        arrays = self.learn_content(rows)
        content, _ = self.made_ready(arrays, rows.blocks, rows.present, rows.kinds)
        learned, vectors, facts = train(self, content, rows.events)
        return arrays | learned | {"fit:items": rows.items, "fit:vectors": vectors}, facts

    def apply(
        self,
        arrays: Arrays,
        blocks: Mapping[str, Vectors],
        there: Mapping[str, Mask],
        kinds: Mapping[str, str],
    ) -> dict[str, tuple[Vectors, Mask]]:
        """Give what the network makes of content without neighbours."""
        content, has_content = self.made_ready(arrays, blocks, there, kinds)
        own = product(content, arrays["project"].T)
        for layer in ("first", "second"):
            own = product(own, arrays[f"{layer}_own"].T) + arrays[f"{layer}_bias"]
            if layer == "first":
                own = np.maximum(own, LEAK * own)
        return {MAIN: (self._scaled(own), has_content)}

    def with_fit_items(self, arrays: Arrays, made: Vectors, items: Rows) -> Vectors:
        """Put in the vectors of the fit items, which have their neighbours in them."""
        known = arrays["fit:items"]
        places = np.minimum(np.searchsorted(known, items), len(known) - 1)
        fitted = self._scaled(arrays["fit:vectors"][places])
        put: Vectors = np.where((known[places] == items)[:, None], fitted, made)
        return put

    def _scaled(self, vectors: Vectors) -> Vectors:
        return unit_rows(vectors) if self.normalize else vectors
