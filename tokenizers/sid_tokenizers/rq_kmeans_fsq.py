"""Residual k-means, then one level of finite scalar quantization on what is left over.

The last level separates items that share all k-means codes: it has no clusters to fill, so it cuts
where the others would merge. OpenOneRec's remedy against collisions (paper: above 30 % down to 3.05 %
on Amazon); its projection and constants are not public, so those here are ours.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.base import Codes, Vectors, Weights, check_enough, check_vectors
from sid_tokenizers.blocks import one_core_products, over_blocks
from sid_tokenizers.catalogue import Catalogue
from sid_tokenizers.learned.fsq import (
    Bound,
    check_fsq_levels,
    fsq_bound,
    fsq_constants,
    fsq_digits,
    fsq_distances,
    fsq_index,
    fsq_points,
)
from sid_tokenizers.products import product
from sid_tokenizers.residual import ResidualTokenizer, check_at_least, check_levels, residual_codes
from sid_tokenizers.rq_kmeans import RQKMeans
from sid_tokenizers.scheme import Traits

BOUND: Bound = "lucidrains"
NOISE = 1e-6  # projections below this share of the largest are rounding errors


class RQKMeansFSQ(ResidualTokenizer):
    """Residual k-means with a grid as the last level.

    kmeans_levels: codes per k-means level, coarse to fine. fsq_levels: grid cells along each of the first
    principal axes of the residuals; the last level has as many codes as their product. seed: of the
    k-means++ draws. n_init: seedings tried per level, the best by squared error is kept. max_iter, tol: of
    Lloyd's steps. The first levels' codes equal those of RQKMeans.
    Learns `codebooks_`, one (K, d) float32 matrix per level, the last with the mean residual of every
    cell, cells taken axis by axis; `center_` (d,), `axes_` (numbers, d) and `scale_` (numbers,), which
    bring a residual onto the grid so that half the rows fall into half of each axis' range.

    The last level takes the cell a residual falls into, not the nearest of the codebook.

    exchanges: rounds of moving single rows after Lloyd's steps, 0 for Lloyd alone.
    """

    name: ClassVar[str] = "rq-kmeans+fsq"
    paper: ClassVar[str] = "OpenOneRec (FSQ as one more level on RQ-KMeans residuals)"
    traits: ClassVar[Traits] = Traits()

    center_: Vectors
    axes_: Vectors
    scale_: Vectors

    def __init__(
        self,
        *,
        kmeans_levels: Sequence[int] = (256, 256, 256),
        fsq_levels: Sequence[int] = (4, 4, 4),
        seed: int = 0,
        n_init: int = 4,
        max_iter: int = 100,
        tol: float = 1e-4,
        exchanges: int = 100,
    ) -> None:
        """Store the parameters; `fit` checks them."""
        self.kmeans_levels = kmeans_levels
        self.fsq_levels = fsq_levels
        self.seed = seed
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.exchanges = exchanges

    @property
    def free_levels(self) -> int:
        """Give how many levels have mere labels: those of k-means, not the grid's."""
        return len(self.kmeans_levels)

    @property
    def levels(self) -> list[int]:  # type: ignore[override]  # follows from two parameters, so read-only
        """Give the codes per level, the grid's last."""
        return [*self.kmeans_levels, math.prod(self.fsq_levels)]

    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range."""
        check_levels(self.kmeans_levels, "kmeans_levels")
        check_fsq_levels(self.fsq_levels, least=1)
        check_levels(self.levels)
        check_at_least(self, seed=0, n_init=1, max_iter=1, tol=0, exchanges=0)

    def _fit(self, X: Vectors, weight: Weights | None, about: Catalogue | None) -> None:
        check_enough(self.kmeans_levels, len(X))
        if len(self.fsq_levels) > X.shape[1]:
            numbers = f"{len(self.fsq_levels)} numbers cannot be had from {X.shape[1]} columns"
            raise DataError(f"fsq_levels: {numbers}; give {X.shape[1]} sizes or fewer")
        coarse = RQKMeans(
            levels=self.kmeans_levels,
            seed=self.seed,
            n_init=self.n_init,
            max_iter=self.max_iter,
            tol=self.tol,
            exchanges=self.exchanges,
        )
        coarse._fit(X, weight, None)
        self.codebooks_ = coarse.codebooks_
        residual = X - self._sum(residual_codes(X, self.codebooks_))
        self._learn_grid(residual, weight)

    def _learn_grid(self, residual: Vectors, weight: Weights | None) -> None:
        mass = np.ones(len(residual)) if weight is None else weight
        self.center_ = np.average(residual, axis=0, weights=mass).astype(np.float32)
        self.axes_ = principal_axes(residual - self.center_, len(self.fsq_levels), mass)
        places = self._places(residual)
        self.scale_ = spread(places)
        digits = fsq_digits(self._bounded(residual), self.fsq_levels)
        cells = (fsq_points(self.fsq_levels) + np.asarray(self.fsq_levels) // 2).astype(np.int32)
        book = np.tile(self.center_, (len(cells), 1))
        for number, size in enumerate(self.fsq_levels):
            means = digit_means(places[:, number], digits[:, number], size, mass)
            book += means[cells[:, number], None] * self.axes_[number]
        self.codebooks_ = [*self.codebooks_, book]

    def _bounded(self, residual: Vectors) -> Vectors:
        """Bring residuals onto the grid: (n, d) -> (n, numbers), cells 1 wide.

        The bound's own shift is taken out again, so that even sizes cut at zero: the residuals of two items
        alone in a cluster are opposites.
        """
        shift = fsq_constants(self.fsq_levels, BOUND)[2]
        return fsq_bound(self._places(residual) * self.scale_ - shift, self.fsq_levels, BOUND)

    def _places(self, residual: Vectors) -> Vectors:
        return product(residual - self.center_, self.axes_.T)

    def encode(self, X: npt.ArrayLike) -> Codes:
        """Give the codes of X: (n, d) -> (n, L) int32, nearest centroids and then the residual's cell."""
        vectors = check_vectors(X, dim=self._fitted())
        codes = np.empty((len(vectors), len(self.levels)), dtype=np.int32)
        codes[:, :-1] = self._labelled(residual_codes(vectors, self._learned[:-1]))

        def work(rows: slice) -> None:
            bounded = self._bounded(vectors[rows] - self._sum(codes[rows, :-1]))
            codes[rows, -1] = fsq_index(fsq_digits(bounded, self.fsq_levels), self.fsq_levels)

        over_blocks(len(vectors), work)
        return codes

    def distances(self, X: npt.ArrayLike, prefixes: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Give the squared distances to every code of the next level; on the grid, cells are 1 wide."""
        vectors = check_vectors(X, dim=self._fitted())
        codes = self._checked_prefixes(prefixes, len(vectors))
        if codes.shape[1] < len(self.kmeans_levels):
            return super().distances(vectors, codes)
        return fsq_distances(self._bounded(vectors - self._sum(codes)), self.fsq_levels)

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {**super()._arrays(), "center": self.center_, "axes": self.axes_, "scale": self.scale_}

    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        super()._restore(arrays)
        self.center_, self.axes_, self.scale_ = arrays["center"], arrays["axes"], arrays["scale"]


def principal_axes(X: Vectors, count: int, mass: Weights) -> Vectors:
    """Give the first principal axes of centred rows: (count, d); each one's largest entry is positive."""
    with one_core_products():
        covariance = ((X * mass.astype(np.float32)[:, None]).T @ X).astype(np.float64)
        axes = np.linalg.eigh(covariance)[1][:, ::-1][:, :count].T
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    return np.ascontiguousarray(axes * np.sign(largest), dtype=np.float32)


def spread(places: Vectors) -> Vectors:
    """Give the factor for each column of (n, numbers) that puts half the rows where |tanh| < 1/2.

    Rows that lie in the middle up to rounding errors do not count: an item alone in its cluster has no
    residual.
    """
    size = np.abs(places)
    scale = np.zeros(places.shape[1], dtype=np.float32)
    for number, column in enumerate(size.T):
        if column.max() > 0:
            scale[number] = np.arctanh(0.5) / np.median(column[column > NOISE * column.max()])
    return scale


def digit_means(places: Vectors, digits: Codes, size: int, mass: Weights) -> Vectors:
    """Give the mean place of the rows of every digit: (size,); a digit without rows takes the nearest's."""
    totals = np.bincount(digits, weights=mass, minlength=size)
    sums = np.bincount(digits, weights=mass * places, minlength=size)
    used = np.flatnonzero(totals > 0)
    means = sums[used] / totals[used]
    nearest = np.abs(np.arange(size)[:, None] - used).argmin(axis=1)
    found: Vectors = means[nearest].astype(np.float32)
    return found
