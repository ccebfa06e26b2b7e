"""Optimized product quantization: turn the vectors first, so that their pieces can be coded well.

Unlike pq.py it learns a rotation R that makes || X R - PQ(X R) || small: codebooks for a fixed R, then R
for fixed codes (orthogonal Procrustes), in turns. Ge et al. 2013; the rounds are written from the paper,
the eigenvalue allocation from secondary knowledge. ActionPiece uses faiss' OPQ4 before its PQ4x8.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.base import Vectors, Weights
from sid_tokenizers.blocks import one_core_products, over_blocks
from sid_tokenizers.catalogue import Catalogue
from sid_tokenizers.clusters import cluster_means, nearest
from sid_tokenizers.pq import PQ, pieces
from sid_tokenizers.products import product
from sid_tokenizers.residual import check_at_least
from sid_tokenizers.scheme import Traits

SAMPLE = 65_536  # rows on which the rotation is learned; faiss' OPQ also stops there
SMALLEST = 1e-10  # eigenvalues below this share of the largest count as this much


class OPQ(PQ):
    """Product quantization after a learned rotation.

    levels, seed, n_init, max_iter, tol, vocab_size: as for PQ. rounds: turns of rotation and codebooks (20
    to 50); each costs a singular value decomposition of (d, d). init: where the rotation starts, "pca" with
    the eigenvalues dealt out so that every piece gets about the same product, or "identity".
    Rows are centred first: a shift is no matter of the rotation. Learns `codebooks_` and `fill_` as PQ,
    `rotation_` (d, d), `mean_` (d,), and `errors_`: mean squared error per row at the start of each round, on
    the rows the rotation is learned on (SAMPLE of them where there are more).
    """

    name: ClassVar[str] = "opq"
    paper: ClassVar[str] = "Ge et al. 2013 (optimized product quantization); ActionPiece"
    traits: ClassVar[Traits] = Traits(ordered=False, soft=True)

    mean_: Vectors
    rotation_: Vectors
    errors_: Weights

    def __init__(
        self,
        *,
        levels: Sequence[int] = (256, 256, 256, 256),
        seed: int = 0,
        n_init: int = 4,
        max_iter: int = 100,
        tol: float = 1e-4,
        rounds: int = 30,
        init: Literal["pca", "identity"] = "pca",
        vocab_size: int = 0,
    ) -> None:
        """Store the parameters; `fit` checks them."""
        super().__init__(
            levels=levels, seed=seed, n_init=n_init, max_iter=max_iter, tol=tol, vocab_size=vocab_size
        )
        self.rounds = rounds
        self.init = init

    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range."""
        super().check_params()
        check_at_least(self, rounds=0)
        if self.init not in ("pca", "identity"):
            raise DataError(f"init: expected 'pca' or 'identity', got {self.init!r}")

    def _turn(self, X: Vectors) -> Vectors:
        return turned(X, self.mean_, self.rotation_)

    def _turn_back(self, Z: Vectors) -> Vectors:
        return turned(Z, np.zeros_like(self.mean_), self.rotation_.T) + self.mean_

    def _fit(self, X: Vectors, weight: Weights | None, about: Catalogue | None) -> None:
        self._check_fit(X)
        self.mean_ = np.average(X, axis=0, weights=weight).astype(np.float32)
        sample, mass = X, weight
        if len(X) > SAMPLE:
            chosen = np.sort(np.random.default_rng(self.seed).choice(len(X), SAMPLE, replace=False))
            sample, mass = X[chosen], None if weight is None else weight[chosen]
        self.rotation_ = np.eye(X.shape[1], dtype=np.float32)
        if self.init == "pca":
            self.rotation_ = balanced_axes(sample - self.mean_, len(self.levels), mass)
        self._learn_books(self._turn(sample), mass)
        self._learn_rotation(sample, mass)
        if self.rounds or sample is not X:
            self._settle(self._turn(X), weight)
        self.fill_ = np.zeros(X.shape[1], dtype=np.float32)  # turned rows have mean zero

    def _learn_rotation(self, X: Vectors, weight: Weights | None) -> None:
        """Take the rounds; in each the codebooks move by one of Lloyd's steps."""
        centred = X - self.mean_
        errors = []
        for _ in range(self.rounds):
            coded, self.codebooks_, error = lloyd_step(self._turn(X), self.codebooks_, weight)
            self.rotation_ = procrustes(centred, coded, weight)
            errors.append(error)
        self.errors_ = np.array(errors, dtype=np.float64)

    def _settle(self, Z: Vectors, weight: Weights | None) -> None:
        """Let the codebooks come to rest on all turned rows, from where the rounds left them."""
        last = np.inf
        for _ in range(self.max_iter):
            _, books, error = lloyd_step(Z, self.codebooks_, weight)
            if last - error <= self.tol * error:
                break
            self.codebooks_, last = books, error

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        own: dict[str, npt.NDArray[Any]] = {
            "rotation": self.rotation_,
            "mean": self.mean_,
            "errors": self.errors_,
        }
        return {**super()._arrays(), **own}

    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        super()._restore(arrays)
        self.rotation_, self.mean_, self.errors_ = arrays["rotation"], arrays["mean"], arrays["errors"]


def turned(X: Vectors, center: Vectors, rotation: Vectors) -> Vectors:
    """Give (X - center) rotation: (n, d) -> (n, d) float32."""
    out = np.empty_like(X)

    def work(rows: slice) -> None:
        out[rows] = product(X[rows] - center, rotation)

    over_blocks(len(X), work)
    return out


def lloyd_step(
    Z: Vectors, codebooks: Sequence[Vectors], weight: Weights | None
) -> tuple[Vectors, list[Vectors], float]:
    """Move every piece's codebook to the means of its clusters; an empty cluster stays where it is.

    Z: (n, d). Returns what the rows are coded as by the new codebooks without being assigned anew (n, d),
    the new codebooks, and the mean squared error per row under the old ones.
    """
    coded, books, error = np.empty_like(Z), [], 0.0
    parts = zip(pieces(Z, len(codebooks)), pieces(coded, len(codebooks)), codebooks, strict=True)
    for piece, out, book in parts:
        codes, distances = nearest(piece, book)
        means, totals = cluster_means(piece, codes, len(book), weight)
        books.append(np.where(totals[:, None] > 0, means, book))
        out[:] = books[-1][codes]
        error += float(np.average(distances, weights=weight))
    return coded, books, error


def procrustes(X: Vectors, Y: Vectors, weight: Weights | None) -> Vectors:
    """Give the orthogonal R (d, d) float32 for which || X R - Y || is least: U V^T of svd(X^T Y)."""
    mass = np.ones(len(X)) if weight is None else weight
    with one_core_products():  # on several busy cores LAPACK takes twenty times as long
        cross = (X * mass.astype(np.float32)[:, None]).T @ Y
        u, _, vt = np.linalg.svd(cross.astype(np.float64))
    return np.ascontiguousarray(u @ vt, dtype=np.float32)


def balanced_axes(X: Vectors, count: int, weight: Weights | None) -> Vectors:
    """Give the principal axes of centred rows as columns (d, d), dealt out to `count` pieces.

    From the largest eigenvalue on, each goes to the piece with room whose product is smallest so far.
    """
    mass = np.full(len(X), 1.0) if weight is None else weight
    with one_core_products():
        covariance = ((X * mass.astype(np.float32)[:, None]).T @ X).astype(np.float64)
        values, axes = np.linalg.eigh(covariance)
    # Counted from the smallest one, every eigenvalue makes a product larger, as the paper's rule needs.
    logs = np.log(np.maximum(values, max(values[-1] * SMALLEST, np.finfo(float).tiny)))
    logs -= logs.min()
    room = [len(columns) for columns in np.array_split(np.arange(X.shape[1]), count)]
    dealt: list[list[int]] = [[] for _ in room]
    products = np.zeros(count)
    for axis in range(X.shape[1] - 1, -1, -1):
        open_pieces = [piece for piece in range(count) if len(dealt[piece]) < room[piece]]
        piece = min(open_pieces, key=lambda piece: products[piece])
        dealt[piece].append(axis)
        products[piece] += logs[axis]
    return np.ascontiguousarray(axes[:, [axis for piece in dealt for axis in piece]], dtype=np.float32)
