"""fsq-level: one more level that codes what L levels left over, on a fixed grid instead of a codebook.

Unlike a suffix the digit has a meaning: items of equal codes and like residuals get neighbouring cells.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.base import Codes, Vectors
from sid_tokenizers.blocks import one_core_products, over_blocks
from sid_tokenizers.collisions import greedy
from sid_tokenizers.collisions.base import Policy, Ranker, Settled, State, Task
from sid_tokenizers.collisions.groups import Rows, group_sizes
from sid_tokenizers.collisions.repeats import chunks
from sid_tokenizers.learned.fsq import fsq_bound, fsq_digits, fsq_distances, fsq_index

SAMPLE = 65_536  # rows the projection is fitted on
MEAN, AXES = "fsq_mean", "fsq_axes"


@dataclass(frozen=True)
class FsqLevel(Policy):
    """Project the residual to a few axes and round each to a few steps; the cell is the last digit.

    fsq_levels: steps per axis; their product is the size of the level added. The axes are the first
    principal ones of the residuals, scaled to unit variance (at most 65 536 rows, drawn with a fixed
    seed); they are kept in `state` and must be passed on for new items. What still collides takes
    the nearest free cell, in the order of next-nearest; the L codes of an item never change.

    OpenOneRec trains its projection; ours needs no epochs.
    """

    fsq_levels: Sequence[int] = (4, 4, 4)

    name: ClassVar[str] = "fsq-level"
    source: ClassVar[str] = "OpenOneRec; FSQ (Mentzer et al. 2023) as RecGPT writes it"
    unique: ClassVar[bool] = True
    length: ClassVar[Literal["L", "L+1", "L or L+1"]] = "L+1"
    needs_reconstruction: ClassVar[bool] = True

    def check_params(self) -> None:
        """Raise DataError where an axis has fewer than 2 steps, or there is none."""
        steps = self.fsq_levels
        if (
            not isinstance(steps, tuple | list)
            or not steps
            or any(isinstance(k, bool) or not isinstance(k, int) or k < 2 for k in steps)
        ):
            raise DataError(f"{self.name}: fsq_levels: expected whole numbers >= 2, got {steps!r}")

    @property
    def digits(self) -> int:
        """Give the number of cells."""
        return math.prod(self.fsq_levels)

    def settle(self, task: Task) -> Settled:
        """Give every item its cell, then place the losers of every cell in turn."""
        if not len(task.codes):
            state = dict(task.state)
            return Settled(np.empty((0, len(task.levels) + 1), np.int32), (*task.levels, self.digits), state)
        self._check_groups(task)
        state = self._state(task)
        grid = Grid(task.tokenizer, self.fsq_levels, state)
        every = np.arange(len(task.codes))
        size = greedy.rows_at_once(sum(self.fsq_levels))
        digits = [grid.digits(task.vectors(rows), task.codes[rows]) for rows in chunks(every, size)]
        codes = np.concatenate([task.codes, np.concatenate(digits)[:, None]], axis=1)

        def key(rows: Rows) -> npt.NDArray[np.float32]:
            return greedy.own_distances(codes, rows, task.vectors, grid)

        groups = group_sizes(np.concatenate([task.taken, codes]))
        moving = greedy.losers(groups, len(task.taken), key)
        sids = greedy.settle(codes, task.taken, moving, task.vectors, grid)
        return Settled(sids, tuple(grid.levels), state)

    def _check_groups(self, task: Task) -> None:
        size = task.groups[1]
        if size.max() > self.digits:
            every = np.concatenate([task.taken[:, :-1], task.codes])
            codes = "-".join(map(str, every[int(size.argmax())].tolist()))
            raise DataError(
                f"fsq-level: {int(size.max())} items share the codes {codes}, but {list(self.fsq_levels)} "
                f"makes {self.digits} cells. Enlarge fsq_levels, or choose next-nearest"
            )

    def _state(self, task: Task) -> dict[str, npt.NDArray[Any]]:
        if not task.state:
            if len(task.taken):
                raise DataError("fsq-level: new items need the state of the Resolution that gave `taken`")
            return fit_axes(task, len(self.fsq_levels))
        state = dict(task.state)
        dim = task.vectors(np.arange(1)).shape[1]
        shapes = {name: array.shape for name, array in state.items()}
        expected = {MEAN: (dim,), AXES: (dim, len(self.fsq_levels))}
        if shapes != expected:
            raise DataError(
                f"fsq-level: state: expected {expected}, got {shapes}. Pass on the state of a Resolution"
            )
        return state


class Grid:
    """A ranker for SIDs whose last level is the FSQ grid: distances to all cells of one residual."""

    def __init__(self, tokenizer: Ranker, steps: Sequence[int], state: State) -> None:
        """Take what was fitted; the tokenizer is needed for `decode` alone."""
        self.tokenizer, self.steps = tokenizer, steps
        self.mean, self.axes = state[MEAN], state[AXES]
        self.levels: Sequence[int] = [*tokenizer.levels, math.prod(steps)]

    def digits(self, X: Vectors, codes: Codes) -> npt.NDArray[np.int32]:
        """Give the cell of each residual: (n, d), (n, L) -> (n,) int32."""
        return fsq_index(fsq_digits(self._bounded(X, codes), self.steps), self.steps)

    def distances(self, X: npt.ArrayLike, prefixes: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Give squared distances to every cell, for prefixes of all L codes: (n, size)."""
        return fsq_distances(self._bounded(np.asarray(X), np.asarray(prefixes)), self.steps)

    def decode(self, codes: npt.ArrayLike) -> Vectors:
        """Give the vectors of the L codes; the cell adds nothing to them."""
        return self.tokenizer.decode(np.asarray(codes)[:, : len(self.levels) - 1])

    def _bounded(self, X: Vectors, codes: Codes) -> Vectors:
        """Give the projected residuals, squashed into the grid: (n, axes)."""
        z = np.empty((len(X), len(self.steps)), dtype=np.float32)

        def work(rows: slice) -> None:
            z[rows] = (X[rows] - self.tokenizer.decode(codes[rows]) - self.mean) @ self.axes

        over_blocks(len(X), work)
        return fsq_bound(z, self.steps, "recgpt")


def fit_axes(task: Task, count: int) -> dict[str, npt.NDArray[Any]]:
    """Give the mean of the residuals (d,) and their principal axes, scaled to unit variance (d, count)."""
    n = len(task.codes)
    rows = np.arange(n)
    if n > SAMPLE:
        rows = np.sort(np.random.default_rng(0).choice(n, SAMPLE, replace=False))
    X, decoded = task.vectors(rows), task.tokenizer.decode(task.codes[rows])
    if X.shape != decoded.shape:
        raise DataError(
            f"fsq-level: vectors have {X.shape[1]} columns, what the tokenizer decodes {decoded.shape[1]}: "
            "it does not give vectors back. Choose next-nearest or a suffix"
        )
    if count > X.shape[1]:
        raise DataError(f"fsq-level: fsq_levels asks for {count} axes, but vectors have {X.shape[1]} columns")
    residual = X - decoded
    mean = residual.mean(axis=0, dtype=np.float64)
    residual -= mean.astype(np.float32)
    with one_core_products():
        variance, axes = np.linalg.eigh((residual.T @ residual).astype(np.float64) / len(rows))
    variance, axes = variance[::-1][:count], axes[:, ::-1][:, :count]
    # An axis and its opposite are equally principal; the largest entry decides.
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(count)] < 0, -1.0, 1.0)
    scale = np.sqrt(np.maximum(variance, 0.0))
    scale[scale <= 1e-6 * max(float(scale[0]), 1e-30)] = 1.0
    return {MEAN: mean.astype(np.float32), AXES: np.ascontiguousarray(axes / scale, dtype=np.float32)}
