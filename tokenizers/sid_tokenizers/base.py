"""What every tokenizer is: a scheme that gives vectors codes, by `fit`, `encode` and `decode`."""

import copy
import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.blocks import over_blocks
from sid_tokenizers.catalogue import Catalogue
from sid_tokenizers.scheme import Scheme

Vectors = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int32]
Weights = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int32]

SLACK = np.float32(64)  # distances and their sums may exceed a squared norm by this much


class Tokenizer(Scheme):
    """A scheme that gives every vector a fixed number of codes."""

    levels: Sequence[int]

    def fit(
        self,
        X: npt.ArrayLike,
        *,
        item_ids: Sequence[str] | None = None,
        sample_weight: npt.ArrayLike | None = None,
        about: Catalogue | None = None,
    ) -> Self:
        """Learn from X: (n, d). about: what is known of these items beside, for schemes whose `traits.inputs`
        ask for it. Raises DataError for numbers that are not finite, too few rows or an input that is not
        there, MissingExtraError where a package is missing.

        Row order does not matter: rows are first put in an order made from their values, and equal rows
        need no order. Where the scheme learns from `about` too, it is the order of the item ids.
        item_ids has no effect; scikit-learn's callers may pass it.
        """
        self.check_params()
        self.check_package()
        self._check_about(about)
        vectors = check_vectors(X)
        weight = None if sample_weight is None else check_weight(sample_weight, len(vectors))
        if weight is not None:
            weight = weight / weight.max()  # their scale means nothing
        if about is not None and self.traits.inputs != ("vectors",):
            order = about.order(len(vectors))
            about = about.rows(order)
        else:
            order, about = content_order(vectors, weight), None
        vectors = _taken(vectors, order)
        vars(self).pop("labels_", None)
        self._fit(vectors, None if weight is None else weight[order], about)
        sha256 = hashlib.sha256(vectors.data).hexdigest()
        self.fit_ = {"rows": len(vectors), "dim": vectors.shape[1], "sha256": sha256}
        return self

    @abstractmethod
    def _fit(self, X: Vectors, weight: Weights | None, about: Catalogue | None) -> None:
        """Learn from rows in an order of their own; about: their other inputs, None where there are none."""

    @abstractmethod
    def encode(self, X: npt.ArrayLike) -> Codes:
        """Give the codes of X: (n, d) -> (n, L) int32."""

    @abstractmethod
    def decode(self, codes: npt.ArrayLike) -> Vectors:
        """Give the vectors that codes stand for: (n, L) -> (n, d) float32."""

    @abstractmethod
    def distances(self, X: npt.ArrayLike, prefixes: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Give how far each vector is from every code that may follow its prefix.

        X: (n, d); prefixes: (n, p) codes already taken, p < L. Returns (n, K of level p), squared L2 in
        the space the codes live in. Collision resolution ranks candidates by it.
        """

    def encode_soft(
        self, X: npt.ArrayLike, top: int, *, temperature: float | None = None
    ) -> tuple[Codes, npt.NDArray[np.float32]]:
        """Give the `top` likeliest codes of each level, after the hard codes of the levels before.

        The probability of code k is softmax over all K of -distance / temperature; it is not
        renormalized to the `top`. Returns codes (n, L, top) int32, likeliest first, and their
        probabilities (n, L, top) float32; `top` may not exceed the smallest level.
        temperature: None for the scheme's own.
        After UniGRec's p_l = softmax(-d / tau), but with hard residuals, so that [..., 0] is `encode`.
        """
        if not self.traits.soft:
            raise DataError(f"{self.name} has no soft codes")
        temperature = self.soft_temperature if temperature is None else temperature
        if not isinstance(top, int | np.integer) or not 1 <= top <= min(self.levels) or not temperature > 0:
            expected = f"top 1 to {min(self.levels)} and temperature > 0"
            raise DataError(f"encode_soft: expected {expected}, got {top} and {temperature}")
        hard = self.encode(X)
        n, length = hard.shape
        codes = np.empty((n, length, top), dtype=np.int32)
        probabilities = np.empty((n, length, top), dtype=np.float32)
        for level in range(length):
            logits = self.distances(X, hard[:, :level]).astype(np.float64) / -temperature
            logits -= logits.max(axis=1, keepdims=True)
            share = np.exp(logits)
            share /= share.sum(axis=1, keepdims=True)
            # `encode` decides which of equals comes first, so that the first soft code is the hard one.
            logits[np.arange(n), hard[:, level]] = np.inf
            codes[:, level] = np.argsort(-logits, axis=1, kind="stable")[:, :top]
            probabilities[:, level] = np.take_along_axis(share, codes[:, level], axis=1)
        return codes, probabilities

    @property
    def soft_temperature(self) -> float:
        """Give the temperature of soft codes where none is named."""
        return 1.0

    def docids(self, sids: Codes, levels: Sequence[int]) -> list[str] | None:
        """Give the text that names each item to a language model; None where the SID is all.

        sids: (n, W), resolved; levels: (W,) their sizes.
        """
        return None

    @property
    def free_levels(self) -> int:
        """Give how many levels, from the first on, have codes that are mere labels, as a codebook's are."""
        return 0

    def relabelled(self, labels: Sequence[npt.ArrayLike]) -> Self:
        """Give the same tokenizer under other labels: what had code k of level l has code labels[l][k].

        labels: of the first levels, each (K,) with every code once. Raises DataError for another shape, and
        where a level has no labels to give because its codes are places on a grid.
        """
        self._fitted()
        if len(labels) > self.free_levels:
            raise DataError(
                f"{self.name}: {self.free_levels} of its levels can be relabelled, got labels for "
                f"{len(labels)}; codes of a grid are places and keep their numbers"
            )
        given = [_permutation(one, level, self.levels[level]) for level, one in enumerate(labels)]
        rest = self.levels[len(given) : self.free_levels]
        other = copy.copy(self)
        other._relabel([*given, *(np.arange(k, dtype=np.int32) for k in rest)])
        return other

    def _relabel(self, labels: list[Labels]) -> None:
        """Take labels for all `free_levels`. Arrays are replaced, not changed: the original has them too."""
        assert not labels, f"{self.name} says that it has free levels, but not how to relabel them"

    @property
    def reconstructs(self) -> bool:
        """Say whether `decode` gives back the space of X, so that a reconstruction error means something."""
        return True

    def _checked(self, codes: npt.ArrayLike, *, whole: bool = False) -> Codes:
        """Give codes (n, p) as int32, or raise DataError where they are none of this tokenizer's."""
        self._fitted()
        array = np.asarray(codes)
        if array.dtype.kind not in "iu" and array.size:
            raise DataError(f"codes: expected whole numbers, got {array.dtype}")
        length = len(self.levels)
        if array.ndim != 2 or array.shape[1] > length or (whole and array.shape[1] < length):
            expected = f"(n, {'' if whole else 'up to '}{length})"
            raise DataError(f"codes: expected shape {expected}, got {array.shape}")
        for level in range(array.shape[1]):
            column = array[:, level]
            if len(column) and (column.min() < 0 or column.max() >= self.levels[level]):
                wrong = column.min() if column.min() < 0 else column.max()
                raise DataError(
                    f"codes: level {level + 1} has codes 0 to {self.levels[level] - 1}, got {wrong}"
                )
        return array.astype(np.int32, copy=False)

    def _checked_prefixes(self, prefixes: npt.ArrayLike, n: int) -> Codes:
        """Give the prefixes of n rows, each shorter than an SID, or raise DataError."""
        array = np.asarray(prefixes)
        if array.ndim != 2 or len(array) != n or array.shape[1] >= len(self.levels):
            expected = f"({n}, up to {len(self.levels) - 1})"
            raise DataError(f"prefixes: expected shape {expected}, got {array.shape}")
        return self._checked(array)


def _permutation(labels: npt.ArrayLike, level: int, k: int) -> Labels:
    array = np.asarray(labels)
    if array.dtype.kind not in "iu" or not np.array_equal(np.sort(array), np.arange(k)):
        raise DataError(f"labels of level {level + 1}: expected 0 to {k - 1} in any order, each once")
    return array.astype(np.int32)


def check_vectors(X: npt.ArrayLike, *, dim: int | None = None) -> Vectors:
    """Give X as a (n, d) float32 array, or raise DataError naming the first offending row."""
    try:
        array = np.asarray(X)
    except ValueError:
        raise DataError("vectors: expected a matrix (n, d), got rows of different lengths") from None
    if array.ndim != 2 or array.shape[1] == 0:
        raise DataError(f"vectors: expected a matrix (n, d), got shape {array.shape}")
    if array.dtype.kind not in "fiu":
        raise DataError(f"vectors: expected numbers, got {array.dtype}")
    if dim is not None and array.shape[1] != dim:
        raise DataError(f"vectors: expected {dim} columns as in fit, got {array.shape[1]}")
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinity, refused below
        array = np.ascontiguousarray(array, dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        bounded = np.isfinite(np.einsum("ij,ij->i", array, array) * SLACK)
    if not bounded.all():
        row, count = int(np.argmin(bounded)), int((~bounded).sum())
        what = "numbers too large to be squared" if np.isfinite(array[row]).all() else "NaN or infinity"
        raise DataError(
            f"vectors, row {row}: holds {what} ({count} such rows); "
            "expected finite numbers. Drop or scale these rows, or mend the encoder"
        )
    return array


def check_weight(sample_weight: npt.ArrayLike, n: int) -> Weights:
    """Give weights as (n,) float64, or raise DataError."""
    weight = np.asarray(sample_weight, dtype=np.float64)
    if weight.shape != (n,) or not (weight >= 0).all() or not 0 < weight.sum() < np.inf:
        raise DataError(f"sample_weight: expected {n} numbers >= 0, not all zero")
    return weight


def check_enough(levels: Sequence[int], n: int) -> None:
    """Raise DataError where a level has more codes than there are rows to fit on."""
    for level, k in enumerate(levels):
        if k > n:
            raise DataError(
                f"levels[{level}] asks for {k} codes, but there are only {n} items to fit on. "
                f"Lower it to {n} or less, or keep more items"
            )


def content_order(X: Vectors, weight: Weights | None = None) -> npt.NDArray[np.int64]:
    """Give an order of the rows that depends on their values alone: (n,) positions.

    Rows are sorted by a hash of their values, which is as good an order as any and far faster than
    comparing them column by column; that is done only where hashes are equal.
    """
    hashes = content_hashes(X)
    order = np.argsort(hashes, kind="stable")
    equal = hashes[order][1:] == hashes[order][:-1]
    if equal.any():
        tied = np.zeros(len(X), dtype=bool)
        tied[1:] |= equal
        tied[:-1] |= equal
        rows = order[tied]
        keys = [*X[rows].T[::-1], hashes[rows]]
        if weight is not None:
            keys.insert(0, weight[rows])
        order[tied] = rows[np.lexsort(keys)]
    return order


def _taken(X: Vectors, order: npt.NDArray[np.int64]) -> Vectors:
    """Give rows in an order, copied by all cores."""
    taken = np.empty_like(X)

    def work(rows: slice) -> None:
        np.add(X[order[rows]], np.float32(0), out=taken[rows])  # -0.0 and 0.0 become one

    over_blocks(len(X), work)
    return taken


def content_hashes(X: Vectors) -> npt.NDArray[np.uint64]:
    """Give a 64-bit hash of each row's values: (n, d) float32 -> (n,) uint64; -0.0 counts as 0.0."""
    draw = np.random.default_rng(0x51D)
    mixers = draw.integers(0, 2**63, size=(2, X.shape[1]), dtype=np.uint64) * 2 + 1
    hashes = np.empty(len(X), dtype=np.uint64)

    def work(rows: slice) -> None:
        mixed = (X[rows] + np.float32(0)).view(np.uint32).astype(np.uint64)
        mixed *= mixers[0]
        mixed ^= mixed >> np.uint64(31)
        mixed *= mixers[1]
        hashes[rows] = mixed.sum(axis=1, dtype=np.uint64)

    over_blocks(len(X), work)
    return hashes
