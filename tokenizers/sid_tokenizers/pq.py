"""Product quantization: the columns are cut into pieces, and each piece has a codebook of its own.

Unlike the residual schemes no code depends on another: an item is a set of (piece, code) pairs, and a
shared prefix means no more than any other shared code. DDRO uses nanopq's PQ with 24 pieces of 256
codes on 768 columns (code read); k-means here is kmeans.py's.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.base import Codes, Vectors, Weights, check_enough, check_vectors
from sid_tokenizers.catalogue import Catalogue
from sid_tokenizers.clusters import nearest, squared_distances
from sid_tokenizers.codebooks import CodebookTokenizer
from sid_tokenizers.docid_tokens import pq_docids
from sid_tokenizers.kmeans import kmeans
from sid_tokenizers.residual import check_at_least, check_levels
from sid_tokenizers.rq_kmeans import LEVEL_SEED
from sid_tokenizers.scheme import Traits


class PQ(CodebookTokenizer):
    """Product quantization.

    levels: codes per piece; d columns are cut into as many pieces, as even as can be (np.array_split).
    seed: of the k-means++ draws. n_init: seedings tried per piece, the best by squared error is kept.
    max_iter, tol: of Lloyd's steps. vocab_size: tokens of a language model after which docids begin (DDRO:
    32128, T5's); 0 for no docids. Learns `codebooks_`, one (K, width of the piece) float32 matrix per
    piece, and `fill_`, the mean (d,) that stands for pieces `decode` has no code of.
    """

    name: ClassVar[str] = "pq"
    paper: ClassVar[str] = "Jegou et al. 2011 (product quantization); DDRO"
    traits: ClassVar[Traits] = Traits(ordered=False, soft=True)

    fill_: Vectors

    def __init__(
        self,
        *,
        levels: Sequence[int] = (256, 256, 256, 256),
        seed: int = 0,
        n_init: int = 4,
        max_iter: int = 100,
        tol: float = 1e-4,
        vocab_size: int = 0,
    ) -> None:
        """Store the parameters; `fit` checks them."""
        self.levels = levels
        self.seed = seed
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.vocab_size = vocab_size

    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range."""
        check_levels(self.levels)
        check_at_least(self, seed=0, n_init=1, max_iter=1, tol=0, vocab_size=0)

    def _turn(self, X: Vectors) -> Vectors:
        """Give the vectors that are cut: (n, d) -> (n, d). OPQ turns them first."""
        return X

    def _turn_back(self, Z: Vectors) -> Vectors:
        """Undo `_turn`."""
        return Z

    def _fit(self, X: Vectors, weight: Weights | None, about: Catalogue | None) -> None:
        self._check_fit(X)
        self._learn_books(X, weight)

    def _check_fit(self, X: Vectors) -> None:
        check_enough(self.levels, len(X))
        if len(self.levels) > X.shape[1]:
            raise DataError(
                f"levels: {len(self.levels)} pieces cannot be cut from {X.shape[1]} columns; "
                f"give {X.shape[1]} levels or fewer"
            )

    def _learn_books(self, Z: Vectors, weight: Weights | None) -> None:
        self.fill_ = np.average(Z, axis=0, weights=weight).astype(np.float32)
        self.codebooks_ = [
            kmeans(
                piece,
                k,
                seed=self.seed + level * LEVEL_SEED,
                n_init=self.n_init,
                max_iter=self.max_iter,
                tol=self.tol,
                weight=weight,
            )
            for level, (piece, k) in enumerate(zip(pieces(Z, len(self.levels)), self.levels, strict=True))
        ]

    def encode(self, X: npt.ArrayLike) -> Codes:
        """Give the codes of X: (n, d) -> (n, M) int32, the nearest centroid piece by piece."""
        turned = self._turn(check_vectors(X, dim=self._fitted()))
        return self._labelled(product_codes(turned, self._learned))

    def decode(self, codes: npt.ArrayLike) -> Vectors:
        """Give the vectors of codes: (n, p), p <= M -> (n, d) float32.

        Pieces without a code are filled with the mean of the fitted rows, the best guess there is.
        """
        return self._turn_back(product_vectors(self._checked(codes), self.codebooks_, self.fill_))

    def distances(self, X: npt.ArrayLike, prefixes: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Give the squared distances of each row's next piece to all its codes; prefixes only say which."""
        vectors = self._turn(check_vectors(X, dim=self._fitted()))
        level = self._checked_prefixes(prefixes, len(vectors)).shape[1]
        return squared_distances(pieces(vectors, len(self.levels))[level], self.codebooks_[level])

    def docids(self, sids: Codes, levels: Sequence[int]) -> list[str] | None:
        """Give token ids past a language model's own, with blanks between; None without `vocab_size`."""
        if not self.vocab_size:
            return None
        return [" ".join(map(str, row)) for row in pq_docids(sids, levels, self.vocab_size).tolist()]

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {**super()._arrays(), "fill": self.fill_}

    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        super()._restore(arrays)
        self.fill_ = arrays["fill"]


def pieces(Z: Vectors, count: int) -> list[Vectors]:
    """Cut (n, d) into `count` views of neighbouring columns, the first ones wider where d is odd."""
    return np.array_split(Z, count, axis=1)


def product_codes(Z: Vectors, codebooks: Sequence[Vectors]) -> Codes:
    """Give the nearest code of each piece: (n, d) -> (n, M) int32; ties go to the lower number."""
    codes = np.empty((len(Z), len(codebooks)), dtype=np.int32)
    for level, (piece, book) in enumerate(zip(pieces(Z, len(codebooks)), codebooks, strict=True)):
        codes[:, level] = nearest(piece, book)[0]
    return codes


def product_vectors(codes: Codes, codebooks: Sequence[Vectors], fill: Vectors) -> Vectors:
    """Put the centroids of codes (n, p) side by side: (n, d) float32; `fill` (d,) for missing pieces."""
    out = np.tile(fill, (len(codes), 1))
    parts = pieces(out, len(codebooks))
    for level in range(codes.shape[1]):
        parts[level][:] = codebooks[level][codes[:, level]]
    return out
