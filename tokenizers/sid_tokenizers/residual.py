"""What residual schemes share: one codebook per level, each coding what the levels before left over.

r_1 = x; c_l = argmin_k ||r_l - e_lk||^2; r_{l+1} = r_l - e_lc. A subclass learns `codebooks_`; one that
codes in a latent space says how to get there and back.
"""

import inspect
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.base import Codes, Vectors, check_vectors
from sid_tokenizers.blocks import over_blocks
from sid_tokenizers.clusters import squared_distances
from sid_tokenizers.codebooks import CodebookTokenizer
from sid_tokenizers.products import padded, places, product
from sid_tokenizers.scheme import Scheme
from sid_tokenizers.vocabulary import MAX_LEVELS


class ResidualTokenizer(CodebookTokenizer):
    """A tokenizer whose level l codes the residual of level l - 1.

    Learns `codebooks_`: one (K, e) float32 matrix per level, e being d unless the scheme codes in a
    latent space.
    """

    @property
    def unit_residuals(self) -> bool:
        """Say whether each residual is scaled to length 1 before it is coded (GRID)."""
        return False

    @property
    def reconstructs(self) -> bool:
        """Say no where residuals are scaled: centroids then do not sum back to x."""
        return not self.unit_residuals

    def _to_latent(self, X: Vectors) -> Vectors:
        """Give the vectors that are coded: (n, d) -> (n, e)."""
        return X

    def _from_latent(self, Z: Vectors) -> Vectors:
        """Give vectors for coded ones: (n, e) -> (n, d)."""
        return Z

    def encode(self, X: npt.ArrayLike) -> Codes:
        """Give the codes of X: (n, d) -> (n, L) int32, the nearest centroid level by level."""
        vectors = check_vectors(X, dim=self._fitted())
        latent = self._to_latent(vectors)
        return self._labelled(residual_codes(latent, self._learned, unit=self.unit_residuals))

    def decode(self, codes: npt.ArrayLike) -> Vectors:
        """Give the vectors of codes: (n, p), p <= L -> (n, d) float32; fewer levels, coarser vectors."""
        return self._from_latent(self._sum(self._checked(codes)))

    def distances(self, X: npt.ArrayLike, prefixes: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Give the squared distances of each row's residual to every code of the next level."""
        vectors = check_vectors(X, dim=self._fitted())
        prefixes = self._checked_prefixes(prefixes, len(vectors))
        residual = self._residual(self._to_latent(vectors), prefixes)
        return squared_distances(residual, self.codebooks_[prefixes.shape[1]])

    def _residual(self, Z: Vectors, prefixes: Codes) -> Vectors:
        """Give what the codes of a prefix leave over of latent vectors, as the next level sees it."""
        if not self.unit_residuals:
            return Z - self._sum(prefixes)
        residual = unit_rows(Z)
        for level in range(prefixes.shape[1]):
            residual = unit_rows(residual - self.codebooks_[level][prefixes[:, level]])
        return residual

    def _sum(self, codes: Codes) -> Vectors:
        total = np.zeros((len(codes), self.codebooks_[0].shape[1]), dtype=np.float32)
        for level in range(codes.shape[1]):
            total += self.codebooks_[level][codes[:, level]]
        return total


def residual_codes(Z: Vectors, codebooks: Sequence[Vectors], *, unit: bool = False) -> Codes:
    """Give the nearest code level by level: (n, e) -> (n, L) int32; ties go to the lower number.

    A block of rows goes through all levels while it is in the cache. The squared norm of a centroid
    rides along as one more column of the product, so that a level is one product and one argmin.
    """
    n, dim = Z.shape
    codes = np.empty((n, len(codebooks)), dtype=np.int32)
    products = [
        np.concatenate([-2.0 * book.T, np.einsum("ij,ij->i", book, book)[None]]) for book in codebooks
    ]

    def work(rows: slice) -> None:
        count = rows.stop - rows.start
        filled = np.zeros((padded(count, products[0].size), dim + 1), dtype=np.float32)
        place = places(count)
        residual = filled[place]
        residual[:, :-1] = unit_rows(Z[rows]) if unit else Z[rows]
        residual[:, -1] = 1.0
        for level, (book, right) in enumerate(zip(codebooks, products, strict=True)):
            if residual.base is not filled:
                filled[place] = residual
            codes[rows, level] = found = (filled @ right)[place].argmin(axis=1)
            if level + 1 < len(codebooks):
                residual[:, :-1] -= book[found]
                if unit:
                    residual[:, :-1] = unit_rows(residual[:, :-1])

    over_blocks(n, work)
    return codes


def left_over(X: Vectors, codebook: Vectors) -> Vectors:
    """Give what the nearest centroids leave over: (n, d), (k, d) -> (n, d), a new matrix."""
    residual = np.empty_like(X)
    products, norms = -2.0 * codebook.T, np.einsum("ij,ij->i", codebook, codebook)

    def work(rows: slice) -> None:
        scores = product(X[rows], products)
        scores += norms
        np.subtract(X[rows], codebook[scores.argmin(axis=1)], out=residual[rows])

    over_blocks(len(X), work)
    return residual


def unit_rows(X: Vectors) -> Vectors:
    """Scale every row to length 1; a zero row stays zero."""
    norms = np.sqrt(np.einsum("ij,ij->i", X, X))[:, None]
    unit: Vectors = np.divide(X, norms, out=np.zeros_like(X), where=norms > 0)
    return unit


def check_levels(levels: Sequence[int], name: str = "levels") -> None:
    """Raise DataError where there are no levels, more than letters, an empty one, or no whole number."""
    sizes = np.asarray(levels)
    whole = sizes.ndim == 1 and sizes.dtype.kind in "iu"
    if not whole or not 1 <= len(sizes) <= MAX_LEVELS or sizes.min() < 1:
        raise DataError(f"{name}: expected 1 to {MAX_LEVELS} sizes >= 1, got {levels!r}")


def check_at_least(tokenizer: Scheme, **least: float) -> None:
    """Raise DataError naming the first parameter that is below its least value."""
    for name, bound in least.items():
        value = getattr(tokenizer, name)
        if not isinstance(value, int | float | np.number) or not value >= bound:
            raise DataError(f"{name}: expected {bound} or more, got {value!r}")
        default = inspect.signature(type(tokenizer)).parameters[name].default
        if isinstance(default, int) and value != int(value):
            raise DataError(f"{name}: expected a whole number, got {value!r}")
