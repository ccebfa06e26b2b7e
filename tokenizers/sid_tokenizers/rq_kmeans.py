"""Residual k-means: each level clusters what the level before left over.

Needs no torch and no epochs; decode is the sum of one centroid per level. OneRec Technical Report,
section on RQ-KMeans; code read in OpenOneRec (tokenizer/res_kmeans.py) and GRID.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.base import Codes, Tokenizer, Vectors, check_vectors
from sid_tokenizers.kmeans import kmeans, nearest, squared_distances
from sid_tokenizers.vocabulary import MAX_LEVELS


class RQKMeans(Tokenizer):
    """Residual k-means (RQ-KMeans).

    levels: codes per level, coarse to fine, each may differ. seed: of the k-means++ draws.
    n_init: seedings tried per level, the best by squared error is kept. max_iter, tol: of Lloyd's
    steps. Learns `codebooks_`, one (K, d) float32 matrix per level.

    Fitting does not depend on row order: rows are put in order of their values first. With fewer
    distinct residuals than codes, some codes of that level stay unused.
    """

    name: ClassVar[str] = "rq-kmeans"
    paper: ClassVar[str] = "OneRec Technical Report (RQ-KMeans)"

    codebooks_: list[Vectors]

    def __init__(
        self,
        *,
        levels: Sequence[int] = (256, 256, 256),
        seed: int = 0,
        n_init: int = 4,
        max_iter: int = 100,
        tol: float = 1e-4,
    ) -> None:
        """Store the parameters; `fit` checks them."""
        self.levels = levels
        self.seed = seed
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol

    def fit(
        self,
        X: npt.ArrayLike,
        *,
        item_ids: Sequence[str] | None = None,
        sample_weight: npt.ArrayLike | None = None,
    ) -> Self:
        """Learn one codebook per level from X: (n, d). Raises DataError where n < K of a level.

        item_ids has no effect: the order that makes the result unique is that of the rows' values.
        """
        self.check_params()
        vectors = check_vectors(X)
        self._check_enough(len(vectors))
        keys, weight = list(vectors.T[::-1]), None
        if sample_weight is not None:
            weight = np.asarray(sample_weight, dtype=np.float64)
            if weight.shape != (len(vectors),) or not (weight >= 0).all() or not weight.sum() > 0:
                raise DataError(f"sample_weight: expected {len(vectors)} numbers >= 0, not all zero")
            keys.insert(0, weight)
        order = np.lexsort(keys)
        residual = vectors[order]
        weight = None if weight is None else weight[order]
        self.codebooks_ = []
        for level, k in enumerate(self.levels):
            codebook = kmeans(
                residual,
                k,
                seed=self.seed + level * 104_729,
                n_init=self.n_init,
                max_iter=self.max_iter,
                tol=self.tol,
                weight=weight,
            )
            self.codebooks_.append(codebook)
            residual = residual - codebook[nearest(residual, codebook)[0]]
        return self

    def encode(self, X: npt.ArrayLike) -> Codes:
        """Give the codes of X: (n, d) -> (n, L) int32, the nearest centroid level by level."""
        residual = check_vectors(X, dim=self._dim).copy()
        codes = np.empty((len(residual), len(self.codebooks_)), dtype=np.int32)
        for level, codebook in enumerate(self.codebooks_):
            codes[:, level], _ = nearest(residual, codebook)
            residual -= codebook[codes[:, level]]
        return codes

    def decode(self, codes: npt.ArrayLike) -> Vectors:
        """Give the sum of the centroids: (n, p) codes, p <= L -> (n, d) float32."""
        codes = np.asarray(codes)
        if codes.ndim != 2 or codes.shape[1] > len(self.codebooks_):
            expected = f"(n, up to {len(self.codebooks_)})"
            raise DataError(f"codes: expected shape {expected}, got {codes.shape}")
        vectors = np.zeros((len(codes), self._dim), dtype=np.float32)
        for level in range(codes.shape[1]):
            vectors += self.codebooks_[level][codes[:, level]]
        return vectors

    def distances(self, X: npt.ArrayLike, prefixes: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Give the squared distances of each row's residual to every code of the next level."""
        prefixes = np.asarray(prefixes)
        residual = check_vectors(X, dim=self._dim) - self.decode(prefixes)
        return squared_distances(residual, self.codebooks_[prefixes.shape[1]])

    @property
    def _dim(self) -> int:
        if not hasattr(self, "codebooks_"):
            raise DataError("RQKMeans is not fitted yet: call fit(X) first")
        return int(self.codebooks_[0].shape[1])

    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range."""
        if not 1 <= len(self.levels) <= MAX_LEVELS or min(self.levels) < 1:
            raise DataError(f"levels: expected 1 to {MAX_LEVELS} sizes >= 1, got {list(self.levels)}")
        for name, least in (("seed", 0), ("n_init", 1), ("max_iter", 1), ("tol", 0)):
            if getattr(self, name) < least:
                raise DataError(f"{name}: expected {least} or more, got {getattr(self, name)}")

    def _check_enough(self, n: int) -> None:
        for level, k in enumerate(self.levels):
            if k > n:
                raise DataError(
                    f"levels[{level}] asks for {k} codes, but there are only {n} items to fit on. "
                    f"Lower it to {n} or less, or keep more items"
                )

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        _ = self._dim
        return {f"codebook_{level}": book for level, book in enumerate(self.codebooks_)}

    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self.codebooks_ = [arrays[f"codebook_{level}"] for level in range(len(arrays))]
