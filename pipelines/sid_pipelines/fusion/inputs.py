"""What goes into a fusion: vectors by modality, which items have them, and pairs of items."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sid_tokenizers import Events
from sid_tokenizers.base import Vectors

Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]
Arrays = dict[str, npt.NDArray[Any]]


class Source(Protocol):
    """Vectors of which some rows can be had; `sid_pipelines.vectors.StoredVectors` is one."""

    @property
    def dim(self) -> int:
        """Give the number of columns."""

    def __len__(self) -> int:
        """Give the number of items."""

    def rows(self, wanted: Rows) -> Vectors:
        """Give the vectors of some items, in the order asked for: (m, dim) float32."""


@dataclass(frozen=True)
class InMemory:
    """A matrix as a source. X: (n, d) float32."""

    X: Vectors

    @property
    def dim(self) -> int:
        """Give the number of columns."""
        return int(self.X.shape[1])

    def __len__(self) -> int:
        """Give the number of items."""
        return len(self.X)

    def rows(self, wanted: Rows) -> Vectors:
        """Give some rows."""
        return self.X[wanted]


@dataclass(frozen=True)
class Modality:
    """One input: its vectors, which items have it (n,), and what it is: text, image or collaborative."""

    vectors: Source
    present: Mask
    kind: str


@dataclass(frozen=True)
class FitRows:
    """What a fusion learns from: vectors of the fit items by input, which of them have each, and behaviour.

    blocks: (m, d) float32 each; present: (m,) bool each; kinds: by input. items: (m,) their item indexes,
    ascending. pairs: (p, 2) places among the m fit items, or None. events: of train, items being such
    places too, or None.
    """

    blocks: Mapping[str, Vectors]
    present: Mapping[str, Mask]
    kinds: Mapping[str, str]
    items: Rows
    pairs: Rows | None = None
    events: Events | None = None


def any_there(there: Mapping[str, Mask]) -> Mask:
    """Give which items have at least one of these: (m,) bool."""
    found: Mask = np.logical_or.reduce(list(there.values()))
    return found


def pairs_among(pairs: Rows, chosen: Rows) -> Rows:
    """Give the pairs of chosen items as places among them; a pair of an item with itself is none."""
    pairs = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    places = np.searchsorted(chosen, pairs)
    places = np.minimum(places, len(chosen) - 1)
    inside = (chosen[places] == pairs).all(axis=1) & (pairs[:, 0] != pairs[:, 1])
    return np.unique(places[inside], axis=0)


def hashed(rows: FitRows) -> str:
    """Give the SHA-256 of fit rows: vectors that are there, which are, pairs and events."""
    hasher = hashlib.sha256()
    for name, block in rows.blocks.items():
        there = rows.present[name]
        hasher.update(np.ascontiguousarray(np.where(there[:, None], block, np.float32(0))).data)
        hasher.update(np.ascontiguousarray(there).data)
    behaviour = [] if rows.pairs is None else [rows.pairs]
    behaviour += [] if rows.events is None else [rows.events.users, rows.events.items]
    for column in behaviour:
        hasher.update(np.ascontiguousarray(column).data)
    return hasher.hexdigest()
