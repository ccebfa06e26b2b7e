"""Concatenate modalities, each centred, whitened, and scaled so that its weight is its share of length.

Nothing is mixed: a modality keeps its columns. pca.py turns the same concatenation to fewer directions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np

from sid_pipelines.fusion.base import MAIN, Fusion
from sid_pipelines.fusion.inputs import Arrays, FitRows, Mask, any_there
from sid_pipelines.fusion.whitening import KINDS, Kind, Whitening, check_shrinkage
from sid_schemas import DataError
from sid_tokenizers.base import Vectors
from sid_tokenizers.residual import unit_rows

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Concat(Fusion):
    """[w_1 B_1; w_2 B_2; ...], B the whitened blocks.

    weights: by input, 1 where not named; they are scaled to shares that add up to 1, and each block so that
    its share is that of the mean squared length over the fit items that have it. whiten: "none", "scale",
    "pca", "zca" (`Whitening` says what they do), one for all or by input; each is centred in any case.
    dims: principal directions kept, one number for all or by input; 0 for all. shrinkage: 0 to 1, of pca
    and zca. unit_blocks: scale each block of each item to length 1, so that an item's own shares are the
    weights too: vectors whose length says how popular an item is need it. rescale_missing: an item that
    lacks a modality has zeros there, which is the fitted mean; the rest is scaled up so that lengths stay
    comparable. normalize: scale the whole to length 1.
    """

    name: ClassVar[str] = "concat"
    source: ClassVar[str] = (
        "[C] for plain concatenation, as MMGRec does it (TOKENIZERS.md S11); [D] for whitening, shrinkage, "
        "weights as shares of squared length, and the rule for what is missing"
    )

    weights: Mapping[str, float] | None = None
    whiten: Kind | Mapping[str, Kind] = "scale"
    dims: int | Mapping[str, int] = 0
    shrinkage: float = 0.5
    unit_blocks: bool = True
    rescale_missing: bool = True
    normalize: bool = True

    def check_params(self, inputs: Mapping[str, str]) -> None:
        """Raise DataError naming an option that does not fit."""
        super().check_params(inputs)
        for option, value in (("weights", self.weights), ("whiten", self.whiten), ("dims", self.dims)):
            for name in value if isinstance(value, Mapping) else ():
                if name not in inputs:
                    raise DataError(f"{option}: no input is called {name!r}; there are: {', '.join(inputs)}")
        check_shrinkage(self.shrinkage)
        for name in inputs:
            kind, dims = self.of(self.whiten, name, "scale"), self.of(self.dims, name, 0)
            if kind not in KINDS:
                raise DataError(f"whiten: expected one of {', '.join(KINDS)}, got {kind!r}")
            if dims < 0 or (dims and kind == "zca"):
                raise DataError(f"dims: expected >= 0, and 0 with whiten = 'zca'; got {dims} for {name!r}")
            if not 0 < self.of(self.weights or 1.0, name, 1.0) < np.inf:
                raise DataError(f"weights: expected numbers > 0, got {self.weights}")

    @staticmethod
    def of(value: T | Mapping[str, T], name: str, default: T) -> T:
        """Give an option's value for one input, where it is one for all or by input."""
        return value.get(name, default) if isinstance(value, Mapping) else value

    def learn(self, rows: FitRows) -> tuple[Arrays, dict[str, Any]]:
        """Learn mean, directions and scale of each block; facts: what share of variance each keeps."""
        arrays: Arrays = {}
        kept, total = {}, 0.0
        weight = {name: float(self.of(self.weights or 1.0, name, 1.0)) for name in rows.blocks}
        total = sum(weight.values())
        for name, block in rows.blocks.items():
            X = block[rows.present[name]]
            if not len(X):
                raise DataError(f"fusion {self.name!r}: no fit item has input {name!r}; leave it out")
            whitening, kept[name] = Whitening.learned(
                X,
                self.of(self.whiten, name, "scale"),
                dims=self.of(self.dims, name, 0),
                shrinkage=self.shrinkage,
            )
            Y = self._rows(whitening, X)
            squared = float(np.einsum("ij,ij->", Y, Y, dtype=np.float64)) / len(Y)
            share = weight[name] / total
            factor = np.sqrt(share / squared) if squared > 0 else 0.0
            arrays |= whitening.arrays(name)
            arrays[f"{name}.factor"] = np.array([factor], dtype=np.float32)
            arrays[f"{name}.share"] = np.array([share], dtype=np.float32)
        facts = {
            "explained_variance": {name: round(value, 6) for name, value in kept.items()},
            "weights": {name: round(value / total, 6) for name, value in weight.items()},
        }
        return arrays, facts

    def apply(
        self,
        arrays: Arrays,
        blocks: Mapping[str, Vectors],
        there: Mapping[str, Mask],
        kinds: Mapping[str, str],
    ) -> dict[str, tuple[Vectors, Mask]]:
        """Give the concatenation."""
        Y = self.joined(arrays, blocks, there)
        return {MAIN: (unit_rows(Y) if self.normalize else Y, any_there(there))}

    def joined(self, arrays: Arrays, blocks: Mapping[str, Vectors], there: Mapping[str, Mask]) -> Vectors:
        """Give the weighted blocks side by side, before they are scaled to length 1."""
        parts, shares = [], np.zeros(len(next(iter(there.values()))), dtype=np.float32)
        for name, X in blocks.items():
            part = self._rows(Whitening.from_arrays(name, arrays), X) * arrays[f"{name}.factor"]
            parts.append(np.where(there[name][:, None], part, np.float32(0)))
            shares += np.where(there[name], arrays[f"{name}.share"], np.float32(0))
        Y: Vectors = np.concatenate(parts, axis=1)
        if self.rescale_missing:
            Y *= (1 / np.sqrt(np.where(shares > 0, shares, np.float32(1))))[:, None]
        return Y

    def _rows(self, whitening: Whitening, X: Vectors) -> Vectors:
        Y = whitening(X)
        return unit_rows(Y) if self.unit_blocks else Y
