"""Between Arrow columns and numpy matrices, without a copy per row."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sid_tokenizers.base import Codes, Vectors
from sid_warehouse.stages import StageOutput


def codes_column(codes: Codes) -> pa.ListArray:
    """Give (n, L) codes as a list column."""
    n, length = codes.shape
    offsets = pa.array(np.arange(0, (n + 1) * length, length, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(codes.reshape(-1)))


def vectors_column(vectors: Vectors) -> pa.FixedSizeListArray:
    """Give (n, d) vectors as a fixed-size list column."""
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])


def matrix(column: pa.ChunkedArray) -> npt.NDArray[np.generic]:
    """Give a column of lists of one length as a matrix."""
    whole = column.combine_chunks()
    return np.ascontiguousarray(whole.flatten().to_numpy().reshape(len(whole), -1))


def read_vectors(embedded: StageOutput) -> Vectors:
    """Read the vectors of an embed output as (n, d) float32, row i being item_index i."""
    table = embedded.read(embedded.facts["name"], ["vector"])
    return matrix(table["vector"]).astype(np.float32, copy=False)
