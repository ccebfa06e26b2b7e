"""Project content into the space of collaborative vectors, so that content alone carries behaviour.

LETTER's alignment term as a fusion of its own: there it acts on what a tokenizer reconstructs. Unlike
adaln.py no collaborative vector is part of the result, so warm and cold items are made the same way.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from sid_pipelines.fusion.base import MAIN, collaborative_input
from sid_pipelines.fusion.inputs import Arrays, FitRows, Mask
from sid_pipelines.fusion.trained import Trained
from sid_schemas import DataError
from sid_tokenizers.base import Vectors
from sid_tokenizers.learned.perceptron import Perceptron
from sid_tokenizers.residual import unit_rows


@dataclass(frozen=True, kw_only=True)
class CFAlign(Trained):
    """P(content), as wide as the collaborative vectors, such that P(x_i) . h_i is the largest of a batch's.

    Cross-entropy over the batch's items, labels 0 to B - 1. The result has length 1.

    hidden: units of a hidden layer with ReLU, 0 for a linear P. temperature: divides the products. unit:
    scale both sides to length 1 first. output: the projection alone, or "both": content (as it is given to
    P, with length 1) and the projection side by side, of which the projection has `share` of the squared
    length.

    share: of the squared length that the projection has in "both".
    """

    name: ClassVar[str] = "cf-align"
    source: ClassVar[str] = (
        "[C] LETTER's CF term (TOKENIZERS.md S14): products with SASRec's vectors, CE with labels arange(B), "
        "no temperature, no normalization; [D] as a projection of content before tokenization, and the "
        "schedule"
    )

    hidden: int = 0
    temperature: float = 1.0
    unit: bool = False
    output: Literal["projection", "both"] = "projection"
    share: float = 0.5

    def check_params(self, inputs: Mapping[str, str]) -> None:
        """Raise DataError naming an option that does not fit."""
        super().check_params(inputs)
        collaborative_input(self.name, inputs)
        if self.output not in ("projection", "both"):
            raise DataError(f"output: expected 'projection' or 'both', got {self.output!r}")
        if not 0 < self.share < 1:
            raise DataError(f"share: expected between 0 and 1, got {self.share}")

    def learn(self, rows: FitRows) -> tuple[Arrays, dict[str, Any]]:
        """Train the projection."""
        from sid_pipelines.fusion.training import train_projection

        arrays = self.learn_content(rows)
        content, _ = self.made_ready(arrays, rows.blocks, rows.present, rows.kinds)
        projection, facts = train_projection(
            content,
            rows.blocks[collaborative_input(self.name, rows.kinds)],
            self.schedule,
            hidden=self.hidden,
            temperature=self.temperature,
            unit=self.unit,
        )
        return arrays | projection.arrays("projection:"), facts

    def apply(
        self,
        arrays: Arrays,
        blocks: Mapping[str, Vectors],
        there: Mapping[str, Mask],
        kinds: Mapping[str, str],
    ) -> dict[str, tuple[Vectors, Mask]]:
        """Give the projection, or content and projection, of items that have content."""
        content, has_content = self.made_ready(arrays, blocks, there, kinds)
        projected = unit_rows(Perceptron.from_arrays("projection:", arrays)(content))
        if self.output == "both":
            parts = [
                unit_rows(content) * np.float32((1 - self.share) ** 0.5),
                projected * np.float32(self.share**0.5),
            ]
            projected = np.concatenate(parts, axis=1)
        return {MAIN: (projected, has_content)}
