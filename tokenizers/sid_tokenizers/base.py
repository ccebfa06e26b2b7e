"""What every tokenizer is: parameters in, `fit`, `encode`, `decode`, and a folder that holds all of it.

The law is scikit-learn's: `__init__` only stores parameters, what `fit` learns ends in `_`, a second
`fit` starts afresh. `get_params` and `set_params` follow it too, so `sklearn.base.clone` works; we do
not inherit from `BaseEstimator` because importing it takes longer than a whole `sidmill plan`.
"""

import copy
import hashlib
import importlib.util
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError, MissingExtraError
from sid_tokenizers.blocks import over_blocks

Vectors = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int32]
Weights = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int32]

FORMAT = 2
SLACK = np.float32(64)  # distances and their sums may exceed a squared norm by this much


@dataclass(frozen=True)
class Traits:
    """What a scheme gives and needs; the chain, the gates and the collision menu follow it.

    gives: codes, continuous vectors, or text. fixed_length: every SID has the same number of codes.
    ordered: codes run from coarse to fine, so that a shared prefix means likeness; without it, likeness
    is the number of codes two items share. unique: the scheme itself never gives two items one SID.
    soft: `encode_soft` is there. inputs: what it is fitted on. package, extra: what `fit` imports beyond
    the core, and the extra of sidmill that brings it.
    """

    gives: Literal["codes", "vectors", "text"] = "codes"
    fixed_length: bool = True
    ordered: bool = True
    unique: bool = False
    soft: bool = False
    inputs: tuple[str, ...] = ("vectors",)
    package: str | None = None
    extra: str | None = None


class Tokenizer(ABC):
    """A scheme that gives every vector a fixed number of codes."""

    name: ClassVar[str]
    paper: ClassVar[str]
    traits: ClassVar[Traits]

    seed: int
    levels: Sequence[int]
    fit_: dict[str, Any]  # rows, dim, sha256 of what it was fitted on

    @abstractmethod
    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range. `fit` calls it; recipes do too."""

    def fit(
        self,
        X: npt.ArrayLike,
        *,
        item_ids: Sequence[str] | None = None,
        sample_weight: npt.ArrayLike | None = None,
    ) -> Self:
        """Learn from X: (n, d). Raises DataError for numbers that are not finite, or too
        few rows, MissingExtraError where a package is missing.

        Row order does not matter: rows are first put in an order made from their values, and equal rows
        need no order. So item_ids has no effect; it is there for schemes that name items.
        """
        self.check_params()
        self.check_package()
        vectors = check_vectors(X)
        weight = None if sample_weight is None else check_weight(sample_weight, len(vectors))
        if weight is not None:
            weight = weight / weight.max()  # their scale means nothing
        order = content_order(vectors, weight)
        vectors = _taken(vectors, order)
        vars(self).pop("labels_", None)
        self._fit(vectors, None if weight is None else weight[order])
        sha256 = hashlib.sha256(vectors.data).hexdigest()
        self.fit_ = {"rows": len(vectors), "dim": vectors.shape[1], "sha256": sha256}
        return self

    @classmethod
    def check_package(cls) -> None:
        """Raise MissingExtraError where what `fit` needs is not installed; nothing is imported."""
        package, extra = cls.traits.package, cls.traits.extra
        if package and extra and importlib.util.find_spec(package) is None:
            raise MissingExtraError(f"Tokenizer {cls.name!r} ({package})", extra)

    @abstractmethod
    def _fit(self, X: Vectors, weight: Weights | None) -> None:
        """Learn from rows that stand in content order."""

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
        self, X: npt.ArrayLike, top: int, *, temperature: float = 1.0
    ) -> tuple[Codes, npt.NDArray[np.float32]]:
        """Give the `top` likeliest codes of each level, after the hard codes of the levels before.

        The probability of code k is softmax over all K of -distance / temperature; it is not
        renormalized to the `top`. Returns codes (n, L, top) int32, likeliest first, and their
        probabilities (n, L, top) float32; `top` may not exceed the smallest level.
        After UniGRec's p_l = softmax(-d / tau), but with hard residuals, so that [..., 0] is `encode`.
        """
        if not self.traits.soft:
            raise DataError(f"{self.name} has no soft codes")
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

    @abstractmethod
    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Give everything learned, by name, as `_restore` takes it back."""

    @abstractmethod
    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        """Take back what `_arrays` gave."""

    def _fitted(self) -> int:
        """Give the number of columns seen in fit, or raise DataError where there was none."""
        if not hasattr(self, "fit_"):
            raise DataError(f"{type(self).__name__} is not fitted yet: call fit(X) first")
        return int(self.fit_["dim"])

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

    @classmethod
    def _parameter_names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Give the constructor's parameters by name (`deep` is scikit-learn's and has no effect)."""
        return {name: getattr(self, name) for name in self._parameter_names()}

    def set_params(self, **params: Any) -> Self:
        """Set constructor parameters by name; raises ValueError for a name that is not one."""
        for name, value in params.items():
            if name not in self._parameter_names():
                raise ValueError(f"{type(self).__name__} has no parameter {name!r}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        """Show the constructor call that gives this tokenizer."""
        inner = ", ".join(f"{name}={value!r}" for name, value in self.get_params().items())
        return f"{type(self).__name__}({inner})"

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json` and `tokenizer.safetensors` into a folder, made where missing."""
        from safetensors.numpy import save_file

        self._fitted()
        config = {"format": FORMAT, "tokenizer": self.name, "params": self.get_params(), "fit": self.fit_}
        text = json.dumps(config, indent=2, default=_plain) + "\n"
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {name: np.ascontiguousarray(array) for name, array in self._arrays().items()}
        save_file(arrays, folder / "tokenizer.safetensors")
        (folder / "tokenizer.json").write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read back what `save` wrote; codes of the loaded tokenizer equal the saved one's."""
        from safetensors.numpy import load_file

        folder = Path(folder)
        config = read_config(folder)
        if config["format"] != FORMAT or config["tokenizer"] != cls.name:
            found = f"{config['tokenizer']!r} in format {config['format']}"
            raise DataError(f"{folder}: expected {cls.name!r} in format {FORMAT}, got {found}")
        tokenizer = cls(**config["params"])
        tokenizer.fit_ = config["fit"]
        tokenizer._restore(load_file(folder / "tokenizer.safetensors"))
        return tokenizer


def _permutation(labels: npt.ArrayLike, level: int, k: int) -> Labels:
    array = np.asarray(labels)
    if array.dtype.kind not in "iu" or not np.array_equal(np.sort(array), np.arange(k)):
        raise DataError(f"labels of level {level + 1}: expected 0 to {k - 1} in any order, each once")
    return array.astype(np.int32)


def read_config(folder: Path) -> dict[str, Any]:
    """Read `tokenizer.json`, or raise DataError saying that there is none."""
    try:
        text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{folder}: holds no tokenizer ({error.strerror}); expected tokenizer.json") from None
    config: dict[str, Any] = json.loads(text)
    return config


def _plain(value: Any) -> Any:
    """Give numpy's numbers and arrays, and other sequences, as JSON has them."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else list(value)


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
