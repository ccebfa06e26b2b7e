"""Vectors kept by the hash of what they were made from, so that nothing is embedded twice.

Unlike a stage's output, which one run writes whole, a cache grows: every run of every data set adds shards
to it (vector_shards.py), and none is ever changed. A shard's keys are checked when the cache is opened, its
vectors once, before the first of them is counted on; a shard that is damaged is set aside (*.damaged) with a
warning, and `holds` then says that its vectors are not there.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sid_pipelines.stage import Progress
from sid_pipelines.vector_shards import (
    SUFFIX,
    WIDTH,
    Shard,
    Words,
    read_shard,
    set_aside,
    words_of,
    write_shard,
)
from sid_schemas import DataError
from sid_tokenizers.base import Vectors
from sid_warehouse import files

Keys: TypeAlias = pa.FixedSizeBinaryArray  # 16-byte content hashes (blake2b), one per item
Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

FORMAT = 1
SHARD = 4096  # vectors: what a killed run loses at most,
SECONDS = 20.0  # or so much time, where an encoder is slow


def content_key(content: bytes) -> bytes:
    """Give the key of some content: blake2b, 16 bytes."""
    return hashlib.blake2b(content, digest_size=WIDTH).digest()


def as_keys(digests: Iterable[bytes]) -> Keys:
    """Give 16-byte digests as one array."""
    return pa.array(digests, pa.binary(WIDTH))


class VectorCache:
    """The vectors of one encoder: `<folder>/<digest of identity>/`, identity.json beside the shards.

    identity: everything that shapes a vector beside its key's content. Vectors are kept as the encoder
    gives them; whatever is cheap to do with them (normalising, cutting, float16) is not part of it.
    Several processes may add at once. Raises WarehouseError where the folder cannot be written.

    >>> import tempfile
    >>> cache = VectorCache(Path(tempfile.mkdtemp()), {"model": "none"})
    >>> cache.add(as_keys([content_key(b"a")]), np.ones((1, 2), dtype=np.float32))
    >>> cache.holds(as_keys([content_key(b"a"), content_key(b"b")]))
    array([ True, False])
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        """Open or make the cache; reads the shards' keys alone."""
        self.identity = files.as_json({"format": FORMAT, **identity})
        self.folder = folder / files.digest(self.identity)[:16]
        self._shards: list[Shard] = []
        self._words: list[Words] = []
        self._known: set[str] = set()
        self._trusted: set[int] = set()
        self._index: _Index | None = None
        if not (self.folder / "identity.json").exists():
            with files.writing(self.folder) as draft:
                files.write_json(draft / "identity.json", self.identity)
                files.sync(draft / "identity.json")
                (draft / "identity.json").replace(self.folder / "identity.json")
        files.sweep(self.folder)
        self._refresh()

    def holds(self, keys: Keys) -> Mask:
        """Say of each key whether its vector is there and whole; looks for what others added meanwhile."""
        self._refresh()
        words = _words(keys)
        while True:
            found = self._find(words)
            held = found >= 0
            damaged = [s for s in np.unique(self._where.shard[found[held]]) if not self._trust(int(s))]
            if not damaged:  # else another shard may have the same key
                return held

    def add(self, keys: Keys, vectors: Vectors) -> None:
        """Commit one shard: whole or absent. vectors: (n, d) float32, finite; n may be 0."""
        words = _words(keys)
        X = np.ascontiguousarray(vectors, dtype=np.float32)
        if X.shape[:1] != (len(words),):
            raise ValueError(f"expected {len(words)} vectors, one per key, got {X.shape}")
        if not len(X):
            return
        self._open(write_shard(self.folder, words, X))

    def rows(self, keys: Keys) -> Vectors:
        """Give the vectors of some keys, (n, d) float32, in their order; KeyError where one is not held.

        Reads maps of the shards one after another and lets go of each, so that no more than one shard is
        ever resident beside what is given back.
        """
        words = _words(keys)
        found = self._find(words)
        if not len(found):
            return np.empty((0, self._shards[0].dim if self._shards else 0), dtype=np.float32)
        if (missing := np.flatnonzero(found < 0)).size:
            raise KeyError(f"{self.folder}: no vector for key {words[missing[0]].tobytes().hex()}")
        shard, row = self._where.shard[found], self._where.row[found]
        order = np.lexsort((row, shard))
        numbers, starts = np.unique(shard[order], return_index=True)
        given = np.empty((len(found), self._shards[numbers[0]].dim), dtype=np.float32)
        for number, own in zip(numbers, np.split(order, starts[1:]), strict=True):
            if not self._trust(int(number)):
                raise KeyError(f"{self._shards[number].path}: damaged; ask `holds` first")
            given[own] = self._shards[number].vectors()[row[own]]
        return given

    def _refresh(self) -> None:
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            if path.name not in self._known:
                self._open(path.name)

    def _open(self, name: str) -> None:
        """Take a shard's keys into the index, or set the shard aside."""
        path = self.folder / name
        self._known.add(name)
        try:
            shard = read_shard(path)
            words = shard.words()
            if self._shards and shard.dim != self._shards[0].dim:
                raise ValueError(f"vectors of {shard.dim} numbers beside ones of {self._shards[0].dim}")
        except FileNotFoundError:
            return  # another process has just set it aside
        except (OSError, ValueError, KeyError, TypeError) as error:
            set_aside(path, str(error))
            return
        self._shards.append(shard)
        self._words.append(words)
        self._index = None

    def _trust(self, number: int) -> bool:
        """Check a shard's vectors the first time they are counted on; False where it was set aside."""
        if number in self._trusted:
            return True
        shard = self._shards[number]
        try:
            shard.check()
        except (OSError, ValueError) as error:
            set_aside(shard.path, str(error))
            self._words[number] = self._words[number][:0]
            self._index = None
            return False
        self._trusted.add(number)
        return True

    @property
    def _where(self) -> "_Index":
        if self._index is None:
            self._index = _Index.of(self._words)
        return self._index

    def _find(self, words: Words) -> Rows:
        return self._where.find(words)


@dataclass(frozen=True)
class _Index:
    """All keys in ascending order, and where the vector of each lies. 24 bytes per key."""

    high: npt.NDArray[np.uint64]
    low: npt.NDArray[np.uint64]
    shard: npt.NDArray[np.int32]
    row: npt.NDArray[np.int32]

    @classmethod
    def of(cls, words: list[Words]) -> "_Index":
        sizes = [len(own) for own in words]
        whole = np.concatenate([np.empty((0, 2), np.uint64), *words])
        order = np.lexsort((whole[:, 1], whole[:, 0]))
        shard = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        row = np.concatenate([np.empty(0, np.int32), *(np.arange(size, dtype=np.int32) for size in sizes)])
        return cls(whole[order, 0], whole[order, 1], shard[order], row[order])

    def find(self, words: Words) -> Rows:
        """Give the place of each key, or -1."""
        place = np.searchsorted(self.high, words[:, 0]).astype(np.int64)
        found = np.full(len(words), -1, dtype=np.int64)
        open_ = np.arange(len(words))
        while True:  # once, but for keys that share their first half
            open_ = open_[place[open_] < len(self.high)]
            open_ = open_[self.high[place[open_]] == words[open_, 0]]
            same = self.low[place[open_]] == words[open_, 1]
            found[open_[same]] = place[open_[same]]
            open_ = open_[~same]
            if not len(open_):
                return found
            place[open_] += 1


@dataclass(frozen=True)
class Filled:
    """How many distinct keys there were, how many the cache held, and how many were embedded now.

    What is left between them could not be embedded.
    """

    distinct: int
    found: int
    embedded: int

    @property
    def skipped(self) -> int:
        """Give how many distinct keys have no vector."""
        return self.distinct - self.found - self.embedded


def fill(
    cache: VectorCache,
    keys: Keys,
    encode: Callable[[Rows], Iterator[tuple[Rows, Vectors]]],
    progress: Progress,
    *,
    shard: int = SHARD,
    seconds: float = SECONDS,
    named: Callable[[int], str] = "row {}".format,
) -> Filled:
    """Embed what the cache lacks, each distinct key once, committing shards as vectors come.

    encode: is given the rows of `keys` that are missing (first occurrences, ascending) and yields
    (rows, vectors) in any order, each row at most once; what it leaves out is asked for again next time.
    progress: counts the missing ones. named: says which row an encoder gave NaN or infinity for (DataError;
    nothing of that kind is kept).
    """
    distinct, missing = lacking(cache, keys)
    done, since = 0, time.monotonic()
    waiting: list[tuple[Rows, Vectors]] = []

    def commit() -> None:
        if waiting:
            rows = np.concatenate([rows for rows, _ in waiting])
            cache.add(keys.take(pa.array(rows)), np.concatenate([vectors for _, vectors in waiting]))
            waiting.clear()

    if len(missing):
        progress(0, len(missing))
        try:
            for rows, vectors in encode(missing):
                if (bad := ~np.isfinite(vectors).all(axis=1)).any():
                    raise DataError(
                        f"the encoder gave NaN or infinity for {named(int(rows[bad][0]))}; expected numbers. "
                        'Try precision = "fp32", or another model'
                    )
                waiting.append((rows, vectors))
                done += len(rows)
                if sum(len(rows) for rows, _ in waiting) >= shard or time.monotonic() - since > seconds:
                    commit()
                    since = time.monotonic()
                progress(done, len(missing))
        finally:
            commit()  # what there is, even when the encoder failed
    if done > len(missing):
        raise AssertionError(f"{cache.folder}: the encoder gave {done} vectors for {len(missing)} rows")
    return Filled(distinct, distinct - len(missing), done)


def lacking(cache: VectorCache, keys: Keys) -> tuple[int, Rows]:
    """Give how many distinct keys there are, and the first row of each that the cache lacks, ascending."""
    first = _first_rows(_words(keys))
    return len(first), first[~cache.holds(keys.take(pa.array(first)))]


def _first_rows(words: Words) -> Rows:
    """Give the first row of each distinct key, ascending."""
    order = np.lexsort((words[:, 1], words[:, 0]))  # stable: equal keys stay in row order
    new = np.ones(len(order), dtype=bool)
    new[1:] = (words[order[1:]] != words[order[:-1]]).any(axis=1)
    return np.sort(order[new])


def _words(keys: Keys) -> Words:
    if isinstance(keys, pa.ChunkedArray):
        keys = keys.combine_chunks()
    if keys.null_count or keys.type != pa.binary(WIDTH):
        raise ValueError(f"expected keys of {WIDTH} bytes without null, got {keys.type}")
    data = keys.buffers()[1]
    if data is None:
        return np.empty((0, 2), dtype=np.uint64)
    return words_of(np.frombuffer(data, np.uint8, len(keys) * WIDTH, keys.offset * WIDTH))
