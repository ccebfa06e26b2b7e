"""Training samples straight from memory-mapped files: no row is read before it is asked for.

A sample is (user, start, end): its history is items[start:end] of the user's sequence, its target the
item at `end`. Prefixes are never expanded on disk. Many samples at once (`batch`) cost a few numpy calls
together. `torch_samples` wraps this for a DataLoader; loading/stream.py shuffles and shards it.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sid_schemas import RecipeError
from sid_tokenizers.positions import Mask, block_mask, code_positions
from sid_warehouse.loading.batch import Batch
from sid_warehouse.loading.features import FEATURES, Categories, Pieces, of_events
from sid_warehouse.loading.stream import Stream
from sid_warehouse.locks import Pin
from sid_warehouse.mapped import Array, Mapped, Rows

CHUNK = 1 << 20  # rows of a split that are looked at together where all of them are


class Samples:
    """The samples of one split as arrays of token ids; pickles by path, so workers map it anew.

    The release is pinned as long as they are there, in every process that has them: see locks.py.

    folder: of a release. tokens: (n_items, L), the token ids of each item. max_history: the newest
    items of a history that are kept; shorter ones are padded with `pad`. positions: give where
    every code stands inside its item too (positions.py), which is for SIDs of one length.
    padding: the side that is filled up. expansion: "last" keeps each user's last sample of the split.
    features: some of FEATURES. targets: "all" gives every item of a session, not the first alone.
    fixed: every history is max_history items wide; otherwise as wide as the longest of its batch.
    origin: which release and level this is, for the state of a stream.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        tokens: npt.NDArray[np.int32],
        *,
        pad: int,
        max_history: int,
        positions: bool = False,
        padding: str = "left",
        expansion: str = "prefix",
        features: Sequence[str] = (),
        targets: str = "one",
        fixed: bool = True,
        categories: Categories | None = None,
        origin: Mapping[str, str] | None = None,
    ) -> None:
        """Map the split's samples and the users' sequences; raises RecipeError for what is no option."""
        _require("padding", [padding], ("left", "right"))
        _require("expansion", [expansion], ("prefix", "last"))
        _require("targets", [targets], ("one", "all"))
        _require("features", features, FEATURES)
        if max_history < 1:
            raise RecipeError(f"max_history: expected 1 or more, got {max_history}")
        self.folder, self.split, self.tokens = folder, split, tokens
        self.pad, self.max_history, self.positions = pad, max_history, positions
        self.padding, self.expansion, self.targets, self.fixed = padding, expansion, targets, fixed
        self.features, self.categories = tuple(features), categories or Categories()
        self.origin = dict(origin or {})
        self._open()

    def _open(self) -> None:
        self._pin = Pin(self.folder)
        self._samples = Mapped(self.folder / f"{self.split}.arrow")
        self._sequences = Mapped(self.folder / "sequences.arrow")
        padding = np.full((1, self.tokens.shape[1]), self.pad, dtype=self.tokens.dtype)
        self._tokens = np.concatenate([self.tokens, padding])  # what is no item is the last row
        self.tokens = self._tokens[:-1]
        self._last = self._lasts() if self.expansion == "last" else None
        self._most = self._most_targets() if self.targets == "all" else 1

    def __len__(self) -> int:
        """Give the number of samples."""
        return len(self._samples) if self._last is None else len(self._last)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Give one sample: `batch` of this one alone, without the first dimension; numbers are Python's."""
        return self.batch([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Give several samples at once; a torch DataLoader asks so."""
        return self.batch(indices)

    def batch(self, indices: npt.ArrayLike) -> Batch:
        """Give some samples as arrays, in their order; n samples, H = max_history, L tokens an item.

        `history` (n, H * L) int64, padded; `history_length` (n,), in items; `target` (n, L) int64;
        `user_index` and `target_item` (n,) int64. With positions also `history_positions`, 0 at padding, and
        `target_positions`, both 1 to L item by item; a start token has 0, an end L + 1. With targets = "all"
        T is the split's most: `target` (n, T * L), padded on the right, `target_items` (n, T), -1 at padding,
        `n_targets` (n,). Each feature is `history_<feature>` (n, H), as in features.py, 0 at padding and NaN
        for values; "time" gives `target_time` (n,) too, and "time_gap" `target_time_gap`.
        """
        rows = self._rows(np.asarray(indices, dtype=np.int64))
        user, first, end, target = (
            self._samples.take(name, rows).astype(np.int64)
            for name in ("user_index", "start", "end", "target")
        )
        start = np.maximum(first, end - self.max_history)
        items, _ = self._sequences.ragged("items", user, start, end)
        there = self._slots(end - start)
        arrays = {
            "user_index": user,
            "history": self._tokens_of(items, there),
            "history_length": end - start,
            "target": self._tokens[target].astype(np.int64),
            "target_item": target,
        }
        asked = np.ones((len(rows), 1), dtype=np.bool_)
        if self.targets == "all":
            items_asked, asked = self._all_targets(rows, user, end)
            arrays["target"] = self._tokens_of(items_asked, asked)
            arrays["target_items"] = _placed(items_asked, asked, -1)
            arrays["n_targets"] = asked.sum(axis=1)
        if self.positions:
            arrays |= {"history_positions": self._places(there), "target_positions": self._places(asked)}
        pieces = Pieces(user, first, start, end)
        for name in self.features:
            values = of_events(name, self._sequences, pieces, items, self.categories)
            fill = np.nan if name == "value" else 0
            arrays[f"history_{name}"] = _placed(values, there, fill)
        return Batch(arrays | self._times(rows, pieces))

    def stream(
        self,
        *,
        batch_size: int | None = None,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        even: bool = False,
    ) -> Stream:
        """Give them in an order, batch by batch: shuffled, sharded and resumed as Stream says."""
        return Stream(
            self,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            rank=rank,
            world_size=world_size,
            drop_last=drop_last,
            even=even,
        )

    @property
    def category_names(self) -> tuple[str, ...]:
        """Give the names of categories: number k of the feature "category" is the k-th, from 1."""
        return self.categories.names

    @property
    def settings(self) -> dict[str, Any]:
        """Give what decides about the samples, for the state of a stream."""
        names = ("split", "max_history", "padding", "expansion", "targets", "positions", "fixed")
        chosen = {name: getattr(self, name) for name in names}
        return self.origin | chosen | {"features": list(self.features), "samples": len(self)}

    def block_mask(self, *, eos: bool = False) -> Mask:
        """Give which token of a history may look at which: those of one item at each other.

        (max_history * L, max_history * L) bool, the same for every sample: leave padding out by its token.
        eos: for a history that is followed by an end token, which looks at the last item. For thousands of
        items it is too big to be held; `blocks` says the same.
        """
        return block_mask(self.max_history, self.tokens.shape[1], eos=eos)

    def blocks(self) -> npt.NDArray[np.int64]:
        """Give the place of each token's item: (max_history * L,); equal ones may look at each other."""
        length = self.tokens.shape[1]
        return np.repeat(np.arange(self.max_history, dtype=np.int64), length)

    def _rows(self, indices: Rows) -> Rows:
        outside = np.flatnonzero((indices < -len(self)) | (indices >= len(self)))
        if len(outside):
            raise IndexError(f"sample {indices[outside[0]]} of {len(self)}")
        rows: Rows = indices + len(self) * (indices < 0)
        return rows if self._last is None else self._last.take(rows)

    def _slots(self, lengths: Rows) -> Mask:
        """Give which places of padded histories hold an item: (n, H)."""
        width = self.max_history if self.fixed else int(lengths.max(initial=0))
        if self.padding == "left":
            return np.arange(width) >= width - lengths[:, None]
        return np.arange(width) < lengths[:, None]

    def _tokens_of(self, items: Array, there: Mask) -> Array:
        rows = _placed(items.astype(np.int64), there, len(self.tokens))
        width = rows.shape[1] * self.tokens.shape[1]
        return self._tokens.take(rows, axis=0).reshape(len(rows), width).astype(np.int64)

    def _places(self, there: Mask) -> Array:
        length = self.tokens.shape[1]
        places = code_positions(there.shape[1], length, eos=False)
        return np.where(np.repeat(there, length, axis=1), places, 0)

    def _all_targets(self, rows: Rows, user: Rows, end: Rows) -> tuple[Array, Mask]:
        """Give the items of all targets end to end, and which of each sample's T places hold one: (n, T)."""
        counts = self._samples.take("n_targets", rows).astype(np.int64)
        items, _ = self._sequences.ragged("items", user, end, end + counts)
        return items.astype(np.int64), np.arange(self._most) < counts[:, None]

    def _times(self, rows: Rows, pieces: Pieces) -> dict[str, Array]:
        if not {"time", "time_gap"} & set(self.features):
            return {}
        times = self._samples.take("target_ts", rows)
        there = pieces.end > pieces.start
        before = times.copy()
        last = pieces.end[there]
        before[there], _ = self._sequences.ragged("ts", pieces.users[there], last - 1, last)
        found = {"target_time": times, "target_time_gap": times - before}
        return {name: found[name] for name in found if name.removeprefix("target_") in self.features}

    def _lasts(self) -> Rows:
        """Give the row of each user's last sample; samples are in the order of users."""
        found = []
        for first in range(0, len(self._samples), CHUNK):
            rows = np.arange(first, min(first + CHUNK + 1, len(self._samples)))
            users = self._samples.take("user_index", rows)
            found.append(rows[:-1][users[1:] != users[:-1]])
        return np.concatenate([*found, np.arange(len(self._samples))[-1:]])

    def _most_targets(self) -> int:
        chunks = (
            self._samples.take("n_targets", np.arange(first, min(first + CHUNK, len(self._samples))))
            for first in range(0, len(self._samples), CHUNK)
        )
        return max((int(chunk.max()) for chunk in chunks), default=1)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the maps behind."""
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Map the files again."""
        self.__dict__.update(state)
        self._open()


def _placed(values: Array, there: Mask, fill: float) -> Array:
    """Put values, row after row, where there is something, and `fill` everywhere else."""
    padded = np.full(there.shape, fill, dtype=values.dtype)
    padded[there] = values
    return padded


def _require(option: str, given: Iterable[str], among: tuple[str, ...]) -> None:
    for one in given:
        if one not in among:
            raise RecipeError(f"{option}: expected {', '.join(among)}; got {one!r}")
