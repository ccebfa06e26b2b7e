"""Principal directions of the concatenated modalities: fewer numbers, in which modalities are mixed.

The concatenation is concat.py's, before it is scaled to length 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sid_pipelines.fusion.base import MAIN
from sid_pipelines.fusion.concat import Concat
from sid_pipelines.fusion.inputs import Arrays, FitRows, Mask, any_there
from sid_pipelines.fusion.whitening import Whitening
from sid_schemas import DataError
from sid_tokenizers.base import Vectors
from sid_tokenizers.residual import unit_rows

TURN = "pca:"  # no input is called so


@dataclass(frozen=True, kw_only=True)
class PCA(Concat):
    """PCA of `concat`, with concat's options for the blocks.

    dim: directions kept. whiten_out: give each of them the same variance (drawn towards their mean by
    `shrinkage`), as before product quantization, else they keep theirs.
    """

    name: ClassVar[str] = "pca"
    source: ClassVar[str] = (
        "[C] PCA with whitening to 128 before OPQ, as in ActionPiece (TOKENIZERS.md S5), there of text "
        "alone; [D] over several modalities"
    )

    dim: int = 128
    whiten_out: bool = False

    def check_params(self, inputs: Mapping[str, str]) -> None:
        """Raise DataError naming an option that does not fit."""
        super().check_params(inputs)
        if self.dim < 1:
            raise DataError(f"dim: expected >= 1, got {self.dim}")

    def learn(self, rows: FitRows) -> tuple[Arrays, dict[str, Any]]:
        """Learn the blocks as `concat` does, then the directions; facts: the share of variance they keep."""
        arrays, facts = super().learn(rows)
        joined = self.joined(arrays, rows.blocks, rows.present)
        if self.dim > joined.shape[1]:
            raise DataError(f"dim: expected at most {joined.shape[1]}, the inputs' width, got {self.dim}")
        turned, kept = Whitening.learned(
            joined, "pca" if self.whiten_out else "none", dims=self.dim, shrinkage=self.shrinkage
        )
        facts["explained_variance_pca"] = round(kept, 6)
        return arrays | turned.arrays(TURN), facts

    def apply(
        self,
        arrays: Arrays,
        blocks: Mapping[str, Vectors],
        there: Mapping[str, Mask],
        kinds: Mapping[str, str],
    ) -> dict[str, tuple[Vectors, Mask]]:
        """Give the principal directions of the concatenation."""
        Y = Whitening.from_arrays(TURN, arrays)(self.joined(arrays, blocks, there))
        return {MAIN: (unit_rows(Y) if self.normalize else Y, any_there(there))}
