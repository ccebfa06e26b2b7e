"""Move content so that items of a pair come near each other: OneRec's item alignment over frozen vectors.

Pairs are the only behaviour it sees, so it needs no collaborative vectors, and new items no behaviour.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sid_pipelines.fusion.base import MAIN
from sid_pipelines.fusion.inputs import Arrays, FitRows, Mask
from sid_pipelines.fusion.trained import Trained
from sid_pipelines.fusion.whitening import Whitening
from sid_schemas import DataError
from sid_tokenizers.base import Vectors
from sid_tokenizers.learned.perceptron import Perceptron
from sid_tokenizers.residual import unit_rows

START = "start:"


@dataclass(frozen=True, kw_only=True)
class PairsContrastive(Trained):
    """x + f(x) with length 1, f zero at the start, trained by in-batch InfoNCE over item pairs.

    x is content, or, with `dim`, its first principal directions (0 for all). f is linear, or has one hidden
    layer of `hidden` units with ReLU. Weight decay draws f towards zero, so it draws the result towards
    the content as it was. epochs count passes over pairs. Collaborative inputs are refused.

    kinds: of the rows of `item_pairs` to learn from; all where none is named. temperature: of InfoNCE.

    dim: first principal directions of content that are kept, 0 for all. hidden: units of the hidden
    layer, 0 for a linear f.
    """

    name: ClassVar[str] = "pairs-contrastive"
    source: ClassVar[str] = (
        "[P] OneRec technical report (TOKENIZERS.md S15c): in-batch InfoNCE over user-to-item and Swing "
        "pairs; there through a QFormer with a caption loss; [D] a small residual projection of frozen "
        "vectors instead, its temperature and schedule, and that partners within a batch are no negatives"
    )
    needs_pairs: ClassVar[bool] = True

    kinds: tuple[str, ...] = ()
    dim: int = 0
    hidden: int = 0
    temperature: float = 0.07

    def check_params(self, inputs: Mapping[str, str]) -> None:
        """Raise DataError naming an option that does not fit."""
        super().check_params(inputs)
        if len(self.content(inputs)) < len(inputs):
            raise DataError(
                f"fusion {self.name!r}: expected text and image inputs alone, because behaviour comes from "
                f"the pairs; got {', '.join(f'{name} ({kind})' for name, kind in inputs.items())}"
            )
        if self.dim < 0:
            raise DataError(f"dim: expected >= 0, got {self.dim}")

    def learn(self, rows: FitRows) -> tuple[Arrays, dict[str, Any]]:
        """Train; facts: how many pairs there were."""
        from sid_pipelines.fusion.training import train_pairs

        assert rows.pairs is not None
        if len(rows.pairs) < 2:
            raise DataError(
                f"fusion {self.name!r}: {len(rows.pairs)} pairs lie among the fit items; expected 2 or more. "
                "Name other kinds, or derive pairs in [pairs]"
            )
        arrays = self.learn_content(rows)
        content, _ = self.made_ready(arrays, rows.blocks, rows.present, rows.kinds)
        if self.dim:
            turn, _ = Whitening.learned(content, "none", dims=self.dim)
            arrays |= turn.arrays(START)
            content = turn(content)
        moved, facts = train_pairs(
            content, rows.pairs, self.schedule, hidden=self.hidden, temperature=self.temperature
        )
        return arrays | moved.arrays("move:"), {"pairs": len(rows.pairs), **facts}

    def apply(
        self,
        arrays: Arrays,
        blocks: Mapping[str, Vectors],
        there: Mapping[str, Mask],
        kinds: Mapping[str, str],
    ) -> dict[str, tuple[Vectors, Mask]]:
        """Give the moved vectors of items that have content."""
        content, has_content = self.made_ready(arrays, blocks, there, kinds)
        if self.dim:
            content = Whitening.from_arrays(START, arrays)(content)
        moved = Perceptron.from_arrays("move:", arrays, shortcut=True)(content)
        return {MAIN: (unit_rows(moved), has_content)}
