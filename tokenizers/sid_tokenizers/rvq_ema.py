"""Residual codebooks that follow running means of their rows, batch by batch; dead codes are reborn.

Unlike rq_kmeans.py all levels learn at once, from batches, and never see all rows together; unlike an
RQ-VAE there is no encoder and no gradient, so it needs no torch. Rules and defaults read in
lucidrains/vector-quantize-pytorch (EuclideanCodebook, ResidualVQ); decay 0.99 is PRISM's (code read).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.base import Vectors, Weights, check_enough
from sid_tokenizers.catalogue import Catalogue
from sid_tokenizers.clusters import cluster_means, nearest
from sid_tokenizers.residual import ResidualTokenizer, check_at_least, check_levels
from sid_tokenizers.scheme import Traits

EPS = 1e-5  # of the Laplace smoothing
INIT_STEPS = 10  # Lloyd's steps of the k-means start


class RVQEMA(ResidualTokenizer):
    """Residual vector quantization by exponential moving averages.

    levels: codes per level, coarse to fine. seed: of the start, the batches and the rebirths.
    decay: how much of the running means a batch leaves standing. epochs: passes over the rows.
    batch_size: rows per batch. kmeans_init: start from Lloyd's steps on the first batch (on as many rows
    as the largest level has codes, where that is more), else from uniform noise around zero.
    dead_threshold: running rows per batch below which a code is dead; never more than half the rows per
    code that the batch has (ours; the reference needs batch_size well above dead_threshold * K).
    restart: put a dead code on a random residual of the batch.

    sample_weight weights counts and sums, scaled to mean 1; rebirths ignore it.
    Learns `codebooks_`, one (K, d) float32 matrix per level.

    The error is a little above rq-kmeans': a code reborn in one of the last batches had no time to settle.
    """

    name: ClassVar[str] = "rvq-ema"
    paper: ClassVar[str] = "SoundStream's residual VQ as in lucidrains' ResidualVQ; PRISM"
    traits: ClassVar[Traits] = Traits(soft=True)

    def __init__(
        self,
        *,
        levels: Sequence[int] = (256, 256, 256),
        seed: int = 0,
        decay: float = 0.8,
        epochs: int = 20,
        batch_size: int = 2048,
        kmeans_init: bool = True,
        dead_threshold: float = 2.0,
        restart: bool = True,
    ) -> None:
        """Store the parameters; `fit` checks them."""
        self.levels = levels
        self.seed = seed
        self.decay = decay
        self.epochs = epochs
        self.batch_size = batch_size
        self.kmeans_init = kmeans_init
        self.dead_threshold = dead_threshold
        self.restart = restart

    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range."""
        check_levels(self.levels)
        check_at_least(self, seed=0, decay=0, epochs=0, batch_size=1, dead_threshold=0)
        if not self.decay < 1:
            raise DataError(f"decay: expected less than 1, got {self.decay}")

    def _fit(self, X: Vectors, weight: Weights | None, about: Catalogue | None) -> None:
        check_enough(self.levels, len(X))
        draw = np.random.default_rng(self.seed)
        mass = None if weight is None else weight / weight.mean()
        books = self._start(X, mass, draw)
        threshold = self.dead_threshold if self.restart else 0.0
        for _ in range(self.epochs):
            order = draw.permutation(len(X))
            for start in range(0, len(X), self.batch_size):
                rows = order[start : start + self.batch_size]
                weight = None if mass is None else mass[rows]
                follow_batch(books, X[rows], weight, draw, decay=self.decay, dead_threshold=threshold)
        self.codebooks_ = [book.vectors for book in books]

    def _start(self, X: Vectors, mass: Weights | None, draw: np.random.Generator) -> list["RunningBook"]:
        if not self.kmeans_init:
            return [uniform_start(k, X.shape[1], draw) for k in self.levels]
        rows = sample_rows(len(X), min(len(X), max(self.batch_size, *self.levels)), draw)
        return start_books(X[rows], self.levels, None if mass is None else mass[rows], draw)


@dataclass
class RunningBook:
    """A codebook and the running sums it is made of.

    vectors: (K, d) float32; sizes: (K,) float64, rows per batch; sums: (K, d) float64.
    """

    vectors: Vectors
    sizes: Weights
    sums: Weights

    def follow(
        self, batch: Vectors, codes: npt.NDArray[np.int32], mass: Weights | None, decay: float
    ) -> None:
        """Move the running sums towards a batch, and the vectors to their smoothed quotient.

        n <- decay n + (1 - decay) count; m <- decay m + (1 - decay) sum;
        e = m / ((n + eps) / (N + K eps) N), N being the sum of n.
        """
        k = len(self.vectors)
        means, counts = cluster_means(batch, codes, k, mass)
        # As a step towards the batch: a size that equals its count then stays exactly what it was.
        self.sizes = self.sizes + (1 - decay) * (counts - self.sizes)
        self.sums = self.sums + (1 - decay) * (means * counts[:, None] - self.sums)
        total = self.sizes.sum()
        smoothed = (self.sizes + EPS) / (total + k * EPS) * total
        self.vectors = (self.sums / np.maximum(smoothed, 1e-300)[:, None]).astype(np.float32)

    def rebirth(self, batch: Vectors, threshold: float, draw: np.random.Generator) -> None:
        """Put every code below the threshold on a random row of the batch, with a size of the threshold."""
        dead = np.flatnonzero(self.sizes < threshold)
        if len(dead):
            self.vectors[dead] = batch[sample_rows(len(batch), len(dead), draw)]
            self.sizes[dead] = threshold
            self.sums[dead] = self.vectors[dead].astype(np.float64) * threshold


def follow_batch(
    books: Sequence[RunningBook],
    batch: Vectors,
    mass: Weights | None,
    draw: np.random.Generator,
    *,
    decay: float,
    dead_threshold: float,
) -> list[Vectors]:
    """Let all levels follow a batch (n, d), and give what its codes stood for before, (n, d) by level.

    mass: (n,), of mean 1 over all rows. A code with fewer running rows than dead_threshold is reborn; 0:
    none is.
    """
    residual, before = batch, []
    for book in books:
        codes, _ = nearest(residual, book.vectors)
        before.append(book.vectors[codes])
        book.follow(residual, codes, mass, decay)
        # Where a batch has too few rows to keep every code above the threshold, the reference keeps
        # drawing codes anew and nothing settles.
        book.rebirth(residual, min(dead_threshold, len(batch) / (2 * len(book.vectors))), draw)
        residual = residual - before[-1]
    return before


def start_books(
    X: Vectors, levels: Sequence[int], mass: Weights | None, draw: np.random.Generator
) -> list[RunningBook]:
    """Start the codebooks of all levels by `kmeans_start`, each on what those before leave over."""
    residual, books = X, []
    for k in levels:
        book = kmeans_start(residual, k, mass, draw)
        residual = residual - book.vectors[nearest(residual, book.vectors)[0]]
        books.append(book)
    return books


def kmeans_start(X: Vectors, k: int, mass: Weights | None, draw: np.random.Generator) -> RunningBook:
    """Start a codebook from a few of Lloyd's steps on random rows; an empty cluster stays where it is."""
    vectors = X[sample_rows(len(X), k, draw)]
    counts = np.zeros(k)
    for _ in range(INIT_STEPS):
        means, counts = cluster_means(X, nearest(X, vectors)[0], k, mass)
        vectors = np.where(counts[:, None] > 0, means, vectors)
    return RunningBook(vectors, counts, vectors * counts[:, None])


def uniform_start(k: int, dim: int, draw: np.random.Generator) -> RunningBook:
    """Start a codebook from Kaiming-uniform noise, every code with a size of one row."""
    bound = np.sqrt(6.0 / (k * dim))  # torch's fan-in of a (1, k, dim) tensor is k * dim
    vectors = draw.uniform(-bound, bound, size=(k, dim)).astype(np.float32)
    # Sizes start at one: at zero, as in older versions of the reference, an unused code would be thrown
    # far away by the first division.
    return RunningBook(vectors, np.ones(k), vectors.astype(np.float64))


def sample_rows(n: int, count: int, draw: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw row numbers: all different where there are enough, else with repetition."""
    return draw.permutation(n)[:count] if n >= count else draw.integers(0, n, size=count)
