"""The vectors of an embed output, read in blocks, so that a catalogue larger than memory can be coded."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, chain, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from sid_tokenizers.base import Vectors
from sid_warehouse.arrays import matrix
from sid_warehouse.stages import StageOutput

IN_MEMORY = 1 << 30  # bytes: up to so many are read once and kept
ROWS = 65_536  # rows per block


class StoredVectors:
    """A column of vectors in Parquet parts; row i is item_index i."""

    def __init__(self, parts: list[Path], column: str = "vector") -> None:
        """Read the footers alone."""
        # Without it Arrow keeps every row group it has read until the file is closed.
        self._files = [pq.ParquetFile(part, pre_buffer=False) for part in parts]
        self._column = column
        self.dim = int(self._files[0].schema_arrow.field(column).type.list_size)

    @classmethod
    def of(cls, embedded: StageOutput) -> "StoredVectors":
        """Open the vectors that an embed stage wrote."""
        return cls(embedded.parts(embedded.facts["name"]))

    def __len__(self) -> int:
        """Give the number of vectors."""
        return sum(file.metadata.num_rows for file in self._files)

    def beside(self, other: "StoredVectors") -> "SideBySide":
        """Give these vectors with the other's as further columns, row by row."""
        return SideBySide(self, other)

    def blocks(self) -> Iterator[tuple[int, Vectors]]:
        """Give (first row, block of vectors) from the first to the last."""
        if self._small:
            for start in range(0, len(self), ROWS):
                yield start, self._whole[start : start + ROWS]
            return
        start = 0
        for file in self._files:
            for batch in file.iter_batches(ROWS, columns=[self._column]):
                block = batch.column(0).flatten().to_numpy().reshape(batch.num_rows, self.dim)
                yield start, block.astype(np.float32, copy=False)
                start += batch.num_rows

    def edges(self) -> list[int]:
        """Give the first row of every block that `blocks` gives, and the number of rows."""
        sizes = [len(self)] if self._small else [file.metadata.num_rows for file in self._files]
        starts = (range(n - size, n, ROWS) for n, size in zip(accumulate(sizes), sizes, strict=True))
        return [*chain.from_iterable(starts), len(self)]

    def rows(self, wanted: npt.NDArray[np.int64]) -> Vectors:
        """Give the vectors of some rows, in the order asked for; reads row groups that hold any."""
        if self._small:
            return self._whole[wanted]
        order = np.argsort(wanted, kind="stable")
        ascending = np.asarray(wanted)[order]
        found = np.empty((len(ascending), self.dim), dtype=np.float32)
        start = 0
        for file in self._files:
            for group in range(file.num_row_groups):
                stop = start + file.metadata.row_group(group).num_rows
                first, last = np.searchsorted(ascending, [start, stop])
                if last > first:
                    whole = matrix(file.read_row_group(group, columns=[self._column])[self._column])
                    found[order[first:last]] = whole[ascending[first:last] - start]
                start = stop
        return found

    def between(self, edges: Sequence[int]) -> Iterator[tuple[int, Vectors]]:
        """Give (first row, block of vectors) from each edge to the next, one read after the other."""
        held, stored = np.empty((0, self.dim), dtype=np.float32), self._from(edges[0])
        for first, stop in pairwise(edges):
            block, done = np.empty((stop - first, self.dim), dtype=np.float32), 0
            while done < len(block):
                held = held if len(held) else next(stored)
                part, held = held[: len(block) - done], held[len(block) - done :]
                block[done : done + len(part)] = part
                done += len(part)
            yield first, block

    def _from(self, first: int) -> Iterator[Vectors]:
        """Give all vectors from row `first` on, as stored, so many at a time as a block has at most."""
        stop = 0
        for file in self._files:
            for group in range(file.num_row_groups):
                start, stop = stop, stop + file.metadata.row_group(group).num_rows
                if stop <= first:
                    continue
                for batch in file.iter_batches(ROWS, row_groups=[group], columns=[self._column]):
                    block = batch.column(0).flatten().to_numpy().reshape(batch.num_rows, self.dim)
                    yield block[max(first - start, 0) :]
                    start += batch.num_rows

    @cached_property
    def present(self) -> npt.NDArray[np.bool_]:
        """Give which items have this modality: (n,) bool."""
        columns = [file.read(columns=["present"])["present"] for file in self._files]
        return np.concatenate([column.to_numpy() for column in columns])

    @property
    def _small(self) -> bool:
        return len(self) * self.dim * 4 <= IN_MEMORY

    @cached_property
    def _whole(self) -> Vectors:
        table = [file.read(columns=[self._column])[self._column] for file in self._files]
        return np.concatenate([matrix(column) for column in table]).astype(np.float32, copy=False)


class SideBySide:
    """Two embeddings of the same items read as one, the columns of the second last."""

    def __init__(self, first: StoredVectors, second: StoredVectors) -> None:
        """Read nothing yet."""
        assert len(first) == len(second), "embeddings of one release have the same items"
        self._first, self._second = first, second
        self.dim = first.dim + second.dim

    def __len__(self) -> int:
        """Give the number of vectors."""
        return len(self._first)

    def blocks(self) -> Iterator[tuple[int, Vectors]]:
        """Give (first row, block of vectors) from the first to the last."""
        for start, block in self._first.blocks():
            more = self._second.rows(np.arange(start, start + len(block)))
            yield start, np.concatenate([block, more], axis=1)

    def edges(self) -> list[int]:
        """Give the first row of every block that `blocks` gives, and the number of rows."""
        return self._first.edges()

    def rows(self, wanted: npt.NDArray[np.int64]) -> Vectors:
        """Give the vectors of some rows, in the order asked for."""
        return np.concatenate([self._first.rows(wanted), self._second.rows(wanted)], axis=1)

    def between(self, edges: Sequence[int]) -> Iterator[tuple[int, Vectors]]:
        """Give (first row, block of vectors) from each edge to the next, one read after the other."""
        for (start, block), (_, more) in zip(
            self._first.between(edges), self._second.between(edges), strict=True
        ):
            yield start, np.concatenate([block, more], axis=1)


Stored = StoredVectors | SideBySide


def coded_vectors(inputs: Mapping[str, StageOutput], *, stacked: bool) -> Stored:
    """Give what a scheme codes: role `vectors`, and beside it role `cf` where it is `Traits.stacked`."""
    vectors = StoredVectors.of(inputs["vectors"])
    return vectors.beside(StoredVectors.of(inputs["cf"])) if stacked else vectors


def blocks_from(vectors: Stored, first: int) -> Iterator[tuple[int, Vectors]]:
    """Give (first row, block of vectors) of the rows from `first` on."""
    if not first:
        yield from vectors.blocks()
    for start in range(first, len(vectors) if first else 0, ROWS):
        yield start, vectors.rows(np.arange(start, min(start + ROWS, len(vectors))))


def read_vectors(embedded: StageOutput) -> Vectors:
    """Read all vectors of an embed output as (n, d) float32."""
    return np.concatenate([block for _, block in StoredVectors.of(embedded).blocks()])
