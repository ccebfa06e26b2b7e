"""Residual k-means whose fit rows use every code of every level equally often.

Unlike rq_kmeans.py, a row may be given another code than the nearest, so that counts come out even.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.balanced import METHODS, balanced_kmeans
from sid_tokenizers.base import (
    Codes,
    Labels,
    Vectors,
    Weights,
    check_enough,
    check_vectors,
    content_hashes,
)
from sid_tokenizers.catalogue import Catalogue
from sid_tokenizers.codebooks import renamed
from sid_tokenizers.residual import ResidualTokenizer, check_at_least, check_levels
from sid_tokenizers.rq_kmeans import LEVEL_SEED
from sid_tokenizers.scheme import Traits


class RQKMeansBalanced(ResidualTokenizer):
    """Balanced residual k-means: a code of a level with K codes is given to N // K fit rows, or one more.

    levels: codes per level, coarse to fine. seed: of all draws. n_init: seedings of the k-means that
    comes first. max_iter, tol: of the turns of balanced codes and means; the error is squared L2.
    method: how rows are shared out.
      exact: greedy turns until they gain no more, then turns with the cheapest balanced codes, as
        k-means-constrained finds them, which MiniOneRec uses (there, counts may be off by one more).
        Holds one (N, K) float32 matrix.
      greedy: by price, then by regret; the error is about as low, in the memory of the vectors.
      auto: exact while N * K is 2**25 or less and K 1024 or less, else greedy.
      onerec: OneRec's Algorithm 1, for comparison; n_init and tol have no effect.
      sinkhorn: MiniOneRec's uniform mapping of a plain codebook. As in its code, the temperature comes
        from the distances. Different: rows claim their codes by regret, not in random order; a full code
        is never given (its fallback picks one); centroids are refit once.
    remember: keep a 64-bit hash and the codes of every fit row, and let `encode` give these codes back
    (among a million rows two share a hash with a chance of one in 37 million).
    Any other vector, and all vectors without `remember`, get the nearest centroid: balance holds on the
    fit rows only, as in MiniOneRec. A remembered code need not be the nearest that `distances` tells of.

    Equal fit rows are counted one by one and may be given different codes, but `encode` cannot tell them
    apart and gives all the codes of the first; its counts are then uneven by that many.
    sample_weight pulls the means only: counts are of rows, whatever they weigh.

    Learns `codebooks_`, one (K, d) float32 matrix per level; with `remember` also `fit_hashes_` (N,)
    uint64, ascending, and `fit_codes_` (N, L) int32, the balanced codes in the order of the hashes.
    """

    name: ClassVar[str] = "rq-kmeans-balanced"
    paper: ClassVar[str] = "OneRec (balanced k-means); MiniOneRec and GREAM (constrained k-means)"
    traits: ClassVar[Traits] = Traits(soft=True)

    fit_hashes_: npt.NDArray[np.uint64]
    fit_codes_: Codes

    def __init__(
        self,
        *,
        levels: Sequence[int] = (256, 256, 256),
        seed: int = 0,
        n_init: int = 1,
        max_iter: int = 20,
        tol: float = 2e-3,
        method: str = "auto",
        remember: bool = True,
    ) -> None:
        """Store the parameters; `fit` checks them."""
        self.levels = levels
        self.seed = seed
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.method = method
        self.remember = remember

    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range."""
        check_levels(self.levels)
        check_at_least(self, seed=0, n_init=1, max_iter=1, tol=0)
        if self.method not in METHODS:
            raise DataError(f"method: expected one of {', '.join(METHODS)}, got {self.method!r}")

    def _fit(self, X: Vectors, weight: Weights | None, about: Catalogue | None) -> None:
        check_enough(self.levels, len(X))
        vars(self).pop("fit_hashes_", None)
        vars(self).pop("fit_codes_", None)
        residual = X
        codes = np.empty((len(X), len(self.levels)), dtype=np.int32)
        self.codebooks_ = []
        for level, k in enumerate(self.levels):
            codebook, codes[:, level] = balanced_kmeans(
                residual,
                k,
                method=self.method,
                seed=self.seed + level * LEVEL_SEED,
                n_init=self.n_init,
                max_iter=self.max_iter,
                tol=self.tol,
                weight=weight,
            )
            self.codebooks_.append(codebook)
            residual = residual - codebook[codes[:, level]]
        if self.remember:
            hashes = content_hashes(X)
            order = np.argsort(hashes, kind="stable")
            self.fit_hashes_, self.fit_codes_ = hashes[order], codes[order]

    def encode(self, X: npt.ArrayLike) -> Codes:
        """Give the codes of X: (n, d) -> (n, L) int32; fit rows their balanced ones, others the nearest."""
        vectors = check_vectors(X, dim=self._fitted())
        codes = super().encode(vectors)
        if self.remember:
            hashes = content_hashes(vectors)
            place = np.searchsorted(self.fit_hashes_, hashes)
            place[place == len(self.fit_hashes_)] = 0
            seen = self.fit_hashes_[place] == hashes
            codes[seen] = self.fit_codes_[place[seen]]
        return codes

    def _relabel(self, labels: list[Labels]) -> None:
        super()._relabel(labels)
        if self.remember:
            self.fit_codes_ = renamed(self.fit_codes_, labels)

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        arrays = super()._arrays()
        if self.remember:
            arrays |= {"fit_hashes": self.fit_hashes_, "fit_codes": self.fit_codes_}
        return arrays

    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        super()._restore(arrays)
        if self.remember:
            self.fit_hashes_, self.fit_codes_ = arrays["fit_hashes"], arrays["fit_codes"]
