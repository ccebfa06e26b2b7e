"""What an item that lacks a modality gets instead of a vector: zeros, the mean, or a guess from another one.

Whatever the rule, such an item's `present` stays false. "refuse" is the caller's, who knows item names.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sid_pipelines.vectors import StoredVectors
from sid_schemas import DataError
from sid_tokenizers.base import Vectors
from sid_tokenizers.blocks import one_core_products
from sid_warehouse.stages import StageOutput

STRENGTHS = (
    1e-3,
    1e-2,
    0.1,
    1.0,
    10.0,
)  # of the ridge, in units of the mean eigenvalue of the products
HELD_OUT = 0.2  # of the items with both vectors: they choose the strength
FEWEST = 10  # items with both vectors, below which nothing can be learned
Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Blocks = Callable[[], Iterator[tuple[Rows, Vectors]]]


@dataclass(frozen=True)
class Filler:
    """Gives vectors for items that have none: rows (m,) int64 -> (m, dim) float32.

    mean: (dim,) what an item gets that has no content either; zeros for "mask". mapping: for "map".
    facts: the rule, and for "map" its quality on held-out items. first: the item that row 0 is.
    """

    mean: Floats
    content: StoredVectors | None = None
    mapping: "Mapping | None" = None
    facts: dict[str, Any] = field(default_factory=dict)
    first: int = 0

    def __call__(self, rows: Rows) -> Vectors:
        """Give the rows' vectors."""
        filled = np.repeat(self.mean[None], len(rows), axis=0)
        if self.mapping is not None and self.content is not None and len(rows):
            rows = rows + self.first
            known = np.asarray(self.content.present)[rows]
            with one_core_products():
                filled[known] = self.mapping(self.content.rows(rows[known]))
        return filled.astype(np.float32)


def filler_of(base: StageOutput, name: str, rule: str, content: StoredVectors | None, *, dim: int) -> Filler:
    """Learn a rule from the vectors that a release has, for the items after them; see `filler`.

    name: of the table. content: of all items, the new ones too.
    """
    stored = StoredVectors(base.parts(name))

    def present_vectors() -> Iterator[tuple[Rows, Vectors]]:
        for start, X in stored.blocks():
            rows = np.flatnonzero(stored.present[start : start + len(X)])
            yield rows + start, X[rows]

    return replace(filler(present_vectors, rule, content, dim=dim), first=len(stored))


def filler(
    present_vectors: Blocks, rule: str, content: StoredVectors | None = None, *, dim: int, seed: int = 0
) -> Filler:
    """Learn a rule from the vectors that are there, read once in blocks and summed in float64.

    present_vectors: gives (rows (m,) int64, vectors (m, dim)) of the items that have one, each once; not
    called for "mask". content: for "map", the vectors to guess from, of all items. dim: of the vectors,
    needed where there are none. seed: of the held-out fifth.

    "map" is a ridge regression with an intercept, content -> vectors, by streamed normal equations. Its
    strength is the one of STRENGTHS with the best R2 on a seeded fifth of the items that have both; it is
    then fitted on all of them. facts["map"]: items, strength, and `r2_held_out`, the share of the squared
    distance to the mean that the guess explains there: 0 is as good as the mean. Raises DataError where
    fewer than 10 items have both.
    """
    if rule not in ("mask", "mean", "map"):
        raise DataError(f"missing: expected 'mask', 'mean' or 'map', got {rule!r}")
    if rule == "map" and content is None:
        raise DataError("missing = 'map': no vectors to map from; name their [[embed]] with map_from")
    facts: dict[str, Any] = {"missing_rule": rule}
    if rule == "mask":
        return Filler(np.zeros(dim), facts=facts)
    if rule == "mean" or content is None:
        mean = _Sums.of(0, dim)
        for _, Y in present_vectors():
            mean.add(np.empty((len(Y), 0)), Y)
        return Filler(mean.y_mean, facts=facts)
    return _mapped(present_vectors, content, dim, seed, facts)


def _mapped(
    present_vectors: Blocks, content: StoredVectors, dim: int, seed: int, facts: dict[str, Any]
) -> Filler:
    known = np.asarray(content.present)
    held_out = np.random.default_rng(seed).random(len(known)) < HELD_OUT
    mean, fitted, judged = _Sums.of(0, dim), _Sums.of(content.dim, dim), _Sums.of(content.dim, dim)
    with one_core_products():
        for rows, Y in present_vectors():
            mean.add(np.empty((len(Y), 0)), Y)
            for sums, mask in ((fitted, ~held_out), (judged, held_out)):
                chosen = known[rows] & mask[rows]
                if chosen.any():
                    sums.add(content.rows(rows[chosen]), Y[chosen])
        whole = fitted + judged
        if whole.n < FEWEST:
            raise DataError(
                f"missing = 'map': {whole.n} items have this vector and the one to map from; expected "
                f"{FEWEST} or more. Set missing = 'mean' or 'mask'"
            )
        scores = [judged.r2(mapping) for mapping in fitted.mappings()]
        best = int(np.argmax(scores)) if judged.n and fitted.n else len(STRENGTHS) - 1
        mapping = whole.mappings()[best]
    facts["map"] = {
        "items": whole.n,
        "strength": STRENGTHS[best],
        "r2_held_out": round(scores[best], 4) if judged.n and fitted.n else None,
    }
    return Filler(mean.y_mean, content, mapping, facts)


@dataclass(frozen=True)
class Mapping:
    """A line: y_mean + (X - x_mean) @ weights. weights: (d, dim) float64."""

    x_mean: Floats
    y_mean: Floats
    weights: Floats

    def __call__(self, X: Vectors) -> Floats:
        """Guess: (m, d) -> (m, dim)."""
        guessed: Floats = (X - self.x_mean) @ self.weights + self.y_mean
        return guessed


@dataclass
class _Sums:
    """What a regression has to know of the rows it has seen: their number, sums and products."""

    n: int
    x: Floats
    y: Floats
    xx: Floats
    xy: Floats
    yy: float

    @classmethod
    def of(cls, d: int, dim: int) -> "_Sums":
        return cls(0, np.zeros(d), np.zeros(dim), np.zeros((d, d)), np.zeros((d, dim)), 0.0)

    def __add__(self, other: "_Sums") -> "_Sums":
        return _Sums(
            self.n + other.n, self.x + other.x, self.y + other.y,
            self.xx + other.xx, self.xy + other.xy, self.yy + other.yy,
        )  # fmt: skip

    def add(self, X: npt.NDArray[Any], Y: npt.NDArray[Any]) -> None:
        X, Y = X.astype(np.float64), Y.astype(np.float64)
        self.n += len(X)
        self.x += X.sum(axis=0)
        self.y += Y.sum(axis=0)
        self.xx += X.T @ X
        self.xy += X.T @ Y
        self.yy += float(np.einsum("ij,ij->", Y, Y))

    @property
    def x_mean(self) -> Floats:
        return self.x / max(self.n, 1)

    @property
    def y_mean(self) -> Floats:
        return self.y / max(self.n, 1)

    def mappings(self) -> list[Mapping]:
        """Give the ridge regression of each strength; one eigendecomposition serves all."""
        gram = self.xx - np.outer(self.x, self.x_mean)
        cross = self.xy - np.outer(self.x, self.y_mean)
        values, axes = np.linalg.eigh(gram)
        values = np.maximum(values, 0.0)
        unit = max(float(values.mean()), 1e-12)
        turned = axes.T @ cross
        return [
            Mapping(self.x_mean, self.y_mean, axes @ (turned / (values + strength * unit)[:, None]))
            for strength in STRENGTHS
        ]

    def r2(self, mapping: Mapping) -> float:
        """Give 1 - squared error / squared distance to the fit's mean over these rows, from sums alone."""
        if not self.n:
            return 0.0
        shift, weights = mapping.x_mean, mapping.weights
        xx = self.xx - np.outer(self.x, shift) - np.outer(shift, self.x) + self.n * np.outer(shift, shift)
        xy = self.xy - np.outer(self.x, mapping.y_mean) - np.outer(shift, self.y)
        xy += self.n * np.outer(shift, mapping.y_mean)
        yy = self.yy - 2 * float(self.y @ mapping.y_mean) + self.n * float(mapping.y_mean @ mapping.y_mean)
        error = yy - 2 * float(np.sum(weights * xy)) + float(np.sum(weights * (xx @ weights)))
        return 1 - error / yy if yy > 0 else 0.0
