"""Finite scalar quantization: a few squashed numbers per slice of the vector, each rounded to a grid.

There is no codebook, so no code can collapse and no k-means is run; a small decoder is trained to give
the vector back (fsq_training.py, torch). What was trained is used with numpy alone (fsq_decoder.py).
RecGPT (code read); bounds also of lucidrains/vector-quantize-pytorch (code read).
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.base import Codes, Tokenizer, Vectors, Weights, check_enough, check_vectors
from sid_tokenizers.blocks import over_blocks
from sid_tokenizers.catalogue import Catalogue
from sid_tokenizers.learned.fsq_decoder import decode_slices
from sid_tokenizers.products import product
from sid_tokenizers.residual import check_at_least, check_levels
from sid_tokenizers.scheme import Traits

Bound = Literal["recgpt", "lucidrains"]

MARGIN = 1e-3  # by which the squashed range falls short of the outermost cells' middle, or exceeds it
MAX_IDS = 1 << 20  # ids per slice: `distances` gives a column for each


class FSQ(Tokenizer):
    """Finite scalar quantization of slices, with a learned projection and decoder.

    fsq_levels: grid cells along each number of a slice; a slice has as many codes as their product (15360).
    slices: codes per item; d must be a multiple of it. bound: how a number is squashed into the grid.
    seed: of the weights, the batches and the dropout. epochs: passes over the rows (RecGPT: 100).
    batch_size, learning_rate: of Adam. standardize: shift and scale all columns alike to mean 0 and
    standard deviation 1 first; without it (RecGPT) vectors of length 1 stay in the middle cells for long.
    Learns `weights_`, the network's tensors by torch's names. Needs torch to fit, and only then.

    The projection and the grid stay as they are for vectors of another catalogue. Codes do not depend
    on each other; slices follow the order of columns, which means nothing for most encoders. Equal weights
    come from equal rows only on the same machine and version of torch.
    """

    name: ClassVar[str] = "fsq"
    paper: ClassVar[str] = "Mentzer et al. 2024 (FSQ); RecGPT"
    traits: ClassVar[Traits] = Traits(ordered=False, package="torch", extra="torch")

    weights_: dict[str, Vectors]

    def __init__(
        self,
        *,
        fsq_levels: Sequence[int] = (8, 8, 8, 6, 5),
        slices: int = 4,
        bound: Bound = "recgpt",
        seed: int = 0,
        epochs: int = 30,
        batch_size: int = 256,
        learning_rate: float = 1e-4,
        standardize: bool = True,
    ) -> None:
        """Store the parameters; `fit` checks them."""
        self.fsq_levels = fsq_levels
        self.slices = slices
        self.bound = bound
        self.seed = seed
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.standardize = standardize

    @property
    def levels(self) -> list[int]:  # type: ignore[override]  # follows from two parameters, so read-only
        """Give the codes per slice."""
        return [math.prod(self.fsq_levels)] * self.slices

    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range."""
        check_at_least(self, slices=1, seed=0, epochs=0, batch_size=1, learning_rate=0)
        check_fsq_levels(self.fsq_levels, least=2)
        check_levels(self.levels)
        if self.bound not in get_args(Bound):
            raise DataError(f"bound: expected one of {list(get_args(Bound))}, got {self.bound!r}")

    def _fit(self, X: Vectors, weight: Weights | None, about: Catalogue | None) -> None:
        check_enough([1], len(X))
        if X.shape[1] % self.slices:
            raise DataError(f"slices: {X.shape[1]} columns cannot be cut into {self.slices} equal slices")
        from sid_tokenizers.learned.fsq_training import train

        shift, scale = moments(X, weight) if self.standardize else (0.0, 1.0)
        self.weights_ = train(
            (X - np.float32(shift)) / np.float32(scale),
            None if weight is None else weight / weight.mean(),
            fsq_levels=self.fsq_levels,
            slices=self.slices,
            bound=self.bound,
            seed=self.seed,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
        )
        self.weights_["standard"] = np.array([shift, scale], dtype=np.float32)

    def encode(self, X: npt.ArrayLike) -> Codes:
        """Give the codes of X: (n, d) -> (n, slices) int32."""
        vectors = check_vectors(X, dim=self._fitted())
        codes = np.empty((len(vectors), self.slices), dtype=np.int32)

        def work(rows: slice) -> None:
            bounded = self._bounded(vectors[rows].reshape(-1, vectors.shape[1] // self.slices))
            found = fsq_index(fsq_digits(bounded, self.fsq_levels), self.fsq_levels)
            codes[rows] = found.reshape(-1, self.slices)

        over_blocks(len(vectors), work)
        return codes

    def decode(self, codes: npt.ArrayLike) -> Vectors:
        """Give the vectors of codes: (n, p), p <= slices -> (n, d) float32.

        Slices without a code get the middle cell of the grid; a guess, as training never leaves one out.
        """
        known = self._checked(codes)
        middle = fsq_index(np.array([[k // 2 for k in self.fsq_levels]]), self.fsq_levels)[0]
        whole = np.full((len(known), self.slices), middle, dtype=np.int32)
        whole[:, : known.shape[1]] = known
        points = fsq_unit(fsq_points(self.fsq_levels), self.fsq_levels)
        out = np.empty((len(known), self._fitted()), dtype=np.float32)
        shift, scale = self.weights_["standard"]

        def work(rows: slice) -> None:
            out[rows] = decode_slices(points[whole[rows]], self.weights_) * scale + shift

        over_blocks(len(known), work)
        return out

    def distances(self, X: npt.ArrayLike, prefixes: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Give the squared distances of each row's next slice to every cell, cells being 1 wide.

        Prefixes only say which slice is next.
        """
        vectors = check_vectors(X, dim=self._fitted())
        level, width = (
            self._checked_prefixes(prefixes, len(vectors)).shape[1],
            vectors.shape[1] // self.slices,
        )
        return fsq_distances(self._bounded(vectors[:, level * width : (level + 1) * width]), self.fsq_levels)

    def _bounded(self, rows: Vectors) -> Vectors:
        """Project slices and squash them into the grid: (m, d / slices) -> (m, numbers)."""
        shift, scale = self.weights_["standard"]
        z = product((rows - shift) / scale, self.weights_["project.weight"].T)
        return fsq_bound(z + self.weights_["project.bias"], self.fsq_levels, self.bound)

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return dict(self.weights_)

    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self.weights_ = dict(arrays)


def check_fsq_levels(fsq_levels: Sequence[int], *, least: int) -> None:
    """Raise DataError where there are no grid sizes, too small ones, or too many cells."""
    check_levels(fsq_levels, "fsq_levels")
    if min(fsq_levels) < least or math.prod(fsq_levels) > MAX_IDS:
        expected = f"sizes >= {least} whose product is at most {MAX_IDS}"
        raise DataError(f"fsq_levels: expected {expected}, got {list(fsq_levels)}")


def fsq_constants(fsq_levels: Sequence[int], bound: Bound) -> tuple[Vectors, Vectors, Vectors]:
    """Give half the squashed range, its offset, and the shift that maps zero to zero, each (numbers,).

    RecGPT takes tan for the shift where lucidrains takes the exact atanh; both give zero the middle cell.
    """
    sizes = np.asarray(fsq_levels, dtype=np.float64)
    half = (sizes - 1) / 2 * (1 - MARGIN if bound == "recgpt" else 1 + MARGIN)
    offset = np.where(sizes % 2 == 0, 0.5, 0.0)
    ratio = np.divide(offset, half, out=np.zeros_like(half), where=half > 0)
    shift = np.tan(ratio) if bound == "recgpt" else np.arctanh(ratio)
    return half.astype(np.float32), offset.astype(np.float32), shift.astype(np.float32)


def fsq_bound(z: Vectors, fsq_levels: Sequence[int], bound: Bound) -> Vectors:
    """Squash numbers into the grid, whose cells are 1 wide: tanh(z + shift) half - offset, float32."""
    half, offset, shift = fsq_constants(fsq_levels, bound)
    squashed: Vectors = np.tanh(z + shift) * half - offset
    return squashed


def fsq_digits(bounded: Vectors, fsq_levels: Sequence[int]) -> Codes:
    """Round squashed numbers to digits 0 to size - 1: (..., numbers) int32.

    They are rounded before they become integers; RecGPT truncates, which loses a digit wherever
    float32 gives 2.9999998 for 3 (not at its own sizes, but at 26).
    """
    return np.rint(bounded).astype(np.int32) + (np.asarray(fsq_levels, dtype=np.int32) // 2)


def fsq_index(digits: npt.NDArray[np.integer[Any]], fsq_levels: Sequence[int]) -> Codes:
    """Give the id of digits, the first counting least: (..., numbers) -> (...) int32."""
    basis = np.cumprod([1, *fsq_levels[:-1]])
    index: Codes = (digits * basis).sum(axis=-1).astype(np.int32)
    return index


def fsq_points(fsq_levels: Sequence[int]) -> Vectors:
    """Give the place of every id on the grid: (product, numbers) float32, zero in the middle cell."""
    ids = np.arange(math.prod(fsq_levels))
    basis = np.cumprod([1, *fsq_levels[:-1]])
    sizes = np.asarray(fsq_levels)
    points: Vectors = (ids[:, None] // basis % sizes - sizes // 2).astype(np.float32)
    return points


def fsq_unit(points: Vectors, fsq_levels: Sequence[int]) -> Vectors:
    """Scale places on the grid to -1 .. 1, as the decoder takes them."""
    halves = np.array([max(size // 2, 1) for size in fsq_levels], dtype=np.float32)
    return points / halves


def fsq_distances(bounded: Vectors, fsq_levels: Sequence[int]) -> npt.NDArray[np.float32]:
    """Give squared distances to every place on the grid: (n, numbers) -> (n, product) float32."""
    total = np.zeros((len(bounded), 1), dtype=np.float32)
    for number in range(len(fsq_levels) - 1, -1, -1):  # the first number counts least, so it comes last
        places = np.arange(fsq_levels[number], dtype=np.float32) - fsq_levels[number] // 2
        own = np.square(bounded[:, number, None] - places)
        total = (total[:, :, None] + own[:, None, :]).reshape(len(bounded), -1)
    return total


def moments(X: Vectors, weight: Weights | None) -> tuple[float, float]:
    """Give the mean and the standard deviation of all numbers of X; a deviation of 1 where there is none."""
    mass = np.ones(len(X)) if weight is None else weight
    mean = float(np.average(X.mean(axis=1, dtype=np.float64), weights=mass))
    square = float(np.average(np.square(X - np.float32(mean)).mean(axis=1, dtype=np.float64), weights=mass))
    return mean, math.sqrt(square) if square > 0 else 1.0
