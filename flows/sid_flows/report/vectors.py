"""The vectors that were tokenized, read once and within bounds: a sample for the map, neighbours of a few.

Vectors stream through in blocks. Of more than READ numbers only the
first rows of every row group are read, and the page says so.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from sid_flows.report.tables import Tables

READ = 1_000_000_000  # numbers read at most: 1.3 million items of 768
SAMPLE = 4_000  # items of the map
NEAR = 6  # neighbours of an item that are shown
BLOCK = 8_192  # rows at a time
NOISE = 1e-20  # of the vectors' own size: a variance up to it is what rounding leaves of equal vectors
Matrix = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Looked:
    """What was seen of the vectors.

    read: items whose vectors were looked at. keep: one row of so many was read, the first of each row group.
    sample, X: (m,) items, (m, d) vectors, of items that have the modality. near: of each item asked for, its
    nearest of those read: (item, cosine), nearest first; an item without a vector, or with one of zeros, is
    not in it.
    """

    read: int
    keep: int
    sample: Rows
    X: Matrix
    near: dict[int, list[tuple[int, float]]]


def look(tables: Tables, wanted: list[int]) -> Looked | None:
    """Read the vectors once; None where the release has none. wanted: items to find neighbours of."""
    name = tables.metrics["tokenizer"].get("vectors", "")
    if not tables.has(name):
        return None
    parts = [pq.ParquetFile(part, pre_buffer=False) for part in tables.parts(name)]
    n = sum(part.metadata.num_rows for part in parts)
    dim = int(parts[0].schema_arrow.field("vector").type.list_size)
    vectors, there = _rows(parts, np.array(sorted(wanted), dtype=np.int64), dim)
    there &= vectors.any(axis=1)  # zeros point nowhere: nothing is near
    own = _unit(vectors[there])
    wanted = [item for item, has in zip(sorted(wanted), there.tolist(), strict=True) if has]
    keep = max(-(-n * dim // READ), 1)  # one row of so many is read
    stride = max(-(-n // (keep * SAMPLE)), 1)
    sampled: list[tuple[Rows, Matrix]] = []
    best: list[list[tuple[float, int]]] = [[] for _ in wanted]
    read = 0
    for start, block, present in _blocks(parts, keep):
        rows = np.arange(start, start + len(block))[present]
        block = block[present]
        read += len(block)
        chosen = rows % stride == 0
        sampled.append((rows[chosen], block[chosen].astype(np.float32)))
        if len(own) and len(block):
            _nearer(best, own, wanted, rows, _unit(block))
    items = np.concatenate([rows for rows, _ in sampled]) if sampled else np.empty(0, np.int64)
    X = np.concatenate([one for _, one in sampled]) if sampled else np.empty((0, dim), np.float32)
    near = {item: [(row, -score) for score, row in found] for item, found in zip(wanted, best, strict=True)}
    return Looked(read, keep, items, X, near)


def principal(X: Matrix) -> tuple[npt.NDArray[np.float64], list[float]]:
    """Give each row's two principal components, (m, 2), and the share of the variance of each.

    Where all rows are equal there is no direction: zeros, and shares of 0.
    """
    from scipy.sparse.linalg import eigsh

    centred = X.astype(np.float64) - X.mean(axis=0, dtype=np.float64)
    d = centred.shape[1]
    spread = centred.T @ centred
    total = float(np.trace(spread))
    if total <= NOISE * float(np.square(X, dtype=np.float64).sum()):
        return np.zeros((len(X), 2)), [0.0, 0.0]
    if d > 64:  # Lanczos from a fixed start: the same axes every time
        values, axes = eigsh(spread, k=2, v0=np.ones(d))
    else:
        values, axes = np.linalg.eigh(spread)
    order = np.argsort(-values, kind="stable")[:2]
    axes = axes[:, order]
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] < 0, -1.0, 1.0)
    found = np.zeros((len(X), 2))
    found[:, : axes.shape[1]] = centred @ axes
    shares = [max(float(one) / total, 0.0) for one in values[order]]
    return found, [*shares, 0.0][:2]


def _blocks(parts: list[pq.ParquetFile], keep: int) -> Iterator[tuple[int, Matrix, npt.NDArray[np.bool_]]]:
    """Give (first row, vectors, which are there) of the first `1 / keep` of every row group."""
    start = 0
    for part in parts:
        for group in range(part.num_row_groups):
            rows = part.metadata.row_group(group).num_rows
            place, wanted = start, start + -(-rows // keep)
            for batch in part.iter_batches(BLOCK, row_groups=[group], columns=["vector", "present"]):
                batch = batch.slice(0, wanted - place)
                vectors = batch.column("vector").flatten().to_numpy().reshape(batch.num_rows, -1)
                yield place, vectors, batch.column("present").to_numpy(zero_copy_only=False)
                place += batch.num_rows
                if place >= wanted:
                    break
            start += rows


def _rows(parts: list[pq.ParquetFile], wanted: Rows, dim: int) -> tuple[Matrix, npt.NDArray[np.bool_]]:
    """Give the vectors of a few rows, in ascending order, and which of them are there."""
    found, there, start = np.zeros((len(wanted), dim), np.float32), np.zeros(len(wanted), np.bool_), 0
    for part in parts:
        for group in range(part.num_row_groups):
            stop = start + part.metadata.row_group(group).num_rows
            first, last = np.searchsorted(wanted, [start, stop])
            if last > first:
                place = start
                for batch in part.iter_batches(BLOCK, row_groups=[group], columns=["vector", "present"]):
                    inside = np.arange(*np.searchsorted(wanted, [place, place + batch.num_rows]))
                    if len(inside):
                        vectors = batch.column("vector").flatten().to_numpy().reshape(batch.num_rows, -1)
                        present = batch.column("present").to_numpy(zero_copy_only=False)
                        found[inside] = vectors[wanted[inside] - place]
                        there[inside] = present[wanted[inside] - place]
                    place += batch.num_rows
            start = stop
    return found, there


def _nearer(best: list[Any], own: Matrix, wanted: list[int], rows: Rows, unit: Matrix) -> None:
    """Put into `best` what of a block is nearer than what is there; ties go to the lower item."""
    scores = np.round(unit @ own.T, 5)
    for place, item in enumerate(wanted):
        column = scores[:, place]
        top = np.flatnonzero(
            column >= np.partition(column, -min(NEAR + 1, len(column)))[-min(NEAR + 1, len(column))]
        )
        new = [(-float(column[one]), int(rows[one])) for one in top.tolist() if rows[one] != item]
        best[place] = sorted(best[place] + new)[:NEAR]


def _unit(block: Matrix) -> Matrix:
    block = block.astype(np.float32)
    norms = np.linalg.norm(block, axis=1, keepdims=True)
    unit: Matrix = block / np.maximum(norms, 1e-12)
    return unit
