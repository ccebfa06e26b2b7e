"""Centre vectors, and give their directions equal spread: by one number, or by decorrelating them.

Learned in float64 on one core, with declared signs, so that the numbers do not depend on the cores there are.
"""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from sid_pipelines.fusion.inputs import Arrays
from sid_schemas import DataError
from sid_tokenizers.base import Vectors
from sid_tokenizers.blocks import one_core_products, over_blocks
from sid_tokenizers.products import product

Kind = Literal["none", "scale", "pca", "zca"]
KINDS = ("none", "scale", "pca", "zca")
RANK = 1e-7  # of the largest variance: directions below are float32's rounding errors and are not blown up


@dataclass(frozen=True)
class Whitening:
    """(x - mean) @ matrix. mean: (d,) float32; matrix: (d, k) float32, or (1, 1) for one number."""

    mean: Vectors
    matrix: Vectors

    @classmethod
    def learned(cls, X: Vectors, kind: Kind, *, dims: int = 0, shrinkage: float = 0.0) -> tuple[Self, float]:
        """Learn from rows (n, d); give also the share of variance in the directions that are kept.

        none: subtract the mean. scale: and divide by one number, so that the mean variance is 1. pca:
        turn to principal directions, largest first, and give each variance 1. zca: the same, turned back,
        so that coordinates stay as near as can be to what they were. dims: keep so many principal
        directions, 0 for all; with none and scale they keep their proportions.

        shrinkage: between 0 and 1. Variances are first drawn towards their mean, (1 - s) * variance + s *
        mean, so that weak directions, which are mostly noise, are raised less; 1 is scale. Directions
        without variance stay without.
        """
        d = X.shape[1]
        if dims > d or (dims and kind == "zca"):
            raise DataError(f"dims: expected at most {d}, and 0 with whiten = 'zca'; got {dims}")
        mean, covariance = _moments(X)
        total = float(np.trace(covariance))
        level = total / d if total > 0 else 1.0
        if kind in ("none", "scale") and not dims:
            factor = 1.0 if kind == "none" else level**-0.5
            return cls(mean.astype(np.float32), np.full((1, 1), factor, dtype=np.float32)), 1.0
        variances, directions = _principal(covariance)
        keep = dims or d
        real = variances > RANK * max(variances[0], 0.0)
        if kind in ("none", "scale"):
            gains = np.full(d, 1.0 if kind == "none" else level**-0.5)
        else:
            shrunk = (1 - shrinkage) * np.maximum(variances, 0) + shrinkage * level
            gains = np.where(real, 1 / np.sqrt(np.where(real, shrunk, 1.0)), 0.0)
        matrix = (directions * gains)[:, :keep]
        if kind == "zca":
            matrix = matrix @ directions.T
        kept = float(variances[:keep].sum() / total) if total > 0 else 1.0
        return cls(mean.astype(np.float32), matrix.astype(np.float32)), min(kept, 1.0)

    def __call__(self, X: Vectors) -> Vectors:
        """Give (n, k) of (n, d); a row's numbers do not depend on the rows beside it."""
        if self.matrix.shape == (1, 1) and len(self.mean) > 1:
            scaled: Vectors = (X - self.mean) * self.matrix[0, 0]
            return scaled
        out = np.empty((len(X), self.matrix.shape[1]), dtype=np.float32)

        def work(rows: slice) -> None:
            out[rows] = product(X[rows] - self.mean, self.matrix)

        over_blocks(len(X), work)
        return out

    def arrays(self, prefix: str) -> Arrays:
        """Give what was learned by name."""
        return {f"{prefix}.mean": self.mean, f"{prefix}.matrix": self.matrix}

    @classmethod
    def from_arrays(cls, prefix: str, arrays: Arrays) -> Self:
        """Take back what `arrays` gave."""
        return cls(arrays[f"{prefix}.mean"], arrays[f"{prefix}.matrix"])


def check_shrinkage(shrinkage: float) -> None:
    """Raise DataError unless it is a share."""
    if not 0 <= shrinkage <= 1:
        raise DataError(f"shrinkage: expected 0 to 1, got {shrinkage}")


def _moments(X: Vectors) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Give mean and covariance in float64, adding up blocks, so that no second copy of X is made."""
    mean = np.zeros(X.shape[1])
    for start in range(0, len(X), 8192):
        mean += X[start : start + 8192].sum(axis=0, dtype=np.float64)
    mean /= len(X)
    covariance = np.zeros((X.shape[1], X.shape[1]))
    with one_core_products():
        for start in range(0, len(X), 8192):
            block = X[start : start + 8192] - mean
            covariance += block.T @ block
    return mean, covariance / len(X)


def _principal(
    covariance: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Give variances, largest first, and their directions as columns, each with its largest part positive."""
    with one_core_products():
        variances, directions = np.linalg.eigh(covariance)
    variances, directions = variances[::-1], directions[:, ::-1]
    largest = np.abs(directions).argmax(axis=0)
    signs = np.sign(directions[largest, np.arange(len(largest))])
    return variances, directions * np.where(signs == 0, 1.0, signs)
