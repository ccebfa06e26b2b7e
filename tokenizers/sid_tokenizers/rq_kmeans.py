"""Residual k-means: each level clusters what the level before left over.

Needs no torch and no epochs; decode is the sum of one centroid per level. OneRec Technical Report,
section on RQ-KMeans; code read in OpenOneRec (tokenizer/res_kmeans.py) and GRID.
"""

from collections.abc import Sequence
from typing import ClassVar

from sid_tokenizers.base import Vectors, Weights, check_enough
from sid_tokenizers.catalogue import Catalogue
from sid_tokenizers.kmeans import kmeans, minibatch_kmeans
from sid_tokenizers.residual import ResidualTokenizer, check_at_least, check_levels, left_over, unit_rows
from sid_tokenizers.scheme import Traits

LEVEL_SEED = 104_729  # seeds of levels lie this far apart


class RQKMeans(ResidualTokenizer):
    """Residual k-means (RQ-KMeans).

    levels: codes per level, coarse to fine, each may differ. seed: of the k-means++ draws.
    n_init: seedings tried per level, the best by squared error is kept. max_iter, tol: of Lloyd's
    steps. exchanges: rounds of moving single rows after them, 0 for Lloyd alone as in the papers' code;
    on a few thousand items they lower the error by a tenth, on new items too.
    normalize_residuals: scale every residual to length 1 before its level, the first included, as GRID
    does; codes then no longer sum back to x. batch_size: 0 for whole Lloyd steps, else rows per
    mini-batch (GRID: 2048), max_iter then being the passes over the rows. Learns `codebooks_`, one
    (K, d) float32 matrix per level.

    With fewer distinct residuals than codes, some codes of that level stay unused.
    """

    name: ClassVar[str] = "rq-kmeans"
    paper: ClassVar[str] = "OneRec Technical Report (RQ-KMeans); GRID with normalize_residuals"
    traits: ClassVar[Traits] = Traits(soft=True)

    def __init__(
        self,
        *,
        levels: Sequence[int] = (256, 256, 256),
        seed: int = 0,
        n_init: int = 4,
        max_iter: int = 100,
        tol: float = 1e-4,
        exchanges: int = 100,
        normalize_residuals: bool = False,
        batch_size: int = 0,
    ) -> None:
        """Store the parameters; `fit` checks them."""
        self.levels = levels
        self.seed = seed
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.exchanges = exchanges
        self.normalize_residuals = normalize_residuals
        self.batch_size = batch_size

    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range."""
        check_levels(self.levels)
        check_at_least(self, seed=0, n_init=1, max_iter=1, tol=0, exchanges=0, batch_size=0)

    @property
    def unit_residuals(self) -> bool:
        """Say whether each residual is scaled to length 1 before it is coded (GRID)."""
        return self.normalize_residuals

    def _fit(self, X: Vectors, weight: Weights | None, about: Catalogue | None) -> None:
        check_enough(self.levels, len(X))
        residual = X
        self.codebooks_ = []
        for level, k in enumerate(self.levels):
            if self.unit_residuals:
                residual = unit_rows(residual)
            codebook = self._codebook(residual, k, self.seed + level * LEVEL_SEED, weight)
            self.codebooks_.append(codebook)
            residual = left_over(residual, codebook)

    def _codebook(self, residual: Vectors, k: int, seed: int, weight: Weights | None) -> Vectors:
        if self.batch_size:
            return minibatch_kmeans(
                residual, k, seed=seed, batch_size=self.batch_size, epochs=self.max_iter, weight=weight
            )
        return kmeans(
            residual,
            k,
            seed=seed,
            n_init=self.n_init,
            max_iter=self.max_iter,
            tol=self.tol,
            exchanges=self.exchanges,
            weight=weight,
        )
