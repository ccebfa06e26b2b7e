"""Between Arrow columns and numpy matrices, without a copy per row."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sid_tokenizers.base import Codes, Vectors


def codes_column(codes: Codes) -> pa.ListArray:
    """Give (n, W) codes as a list column; -1 in the last places makes a shorter list."""
    there = codes >= 0
    offsets = np.zeros(len(codes) + 1, dtype=np.int32)
    np.cumsum(there.sum(axis=1), out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(codes[there].astype(np.int32, copy=False)))


def vectors_column(vectors: Vectors) -> pa.FixedSizeListArray:
    """Give (n, d) vectors as a fixed-size list column."""
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])


def tokens_column(tokens: npt.NDArray[np.float32]) -> pa.FixedSizeListArray:
    """Give (n, T, h) tokens as a column of T lists of h numbers each."""
    n, count, width = tokens.shape
    inner = vectors_column(np.ascontiguousarray(tokens).reshape(n * count, width))
    return pa.FixedSizeListArray.from_arrays(inner, count)


def matrix(column: pa.ChunkedArray) -> npt.NDArray[np.generic]:
    """Give a column of lists of one length as a matrix."""
    whole = column.combine_chunks()
    return np.ascontiguousarray(whole.flatten().to_numpy().reshape(len(whole), -1))


def padded_matrix(column: pa.ChunkedArray, width: int, fill: int) -> npt.NDArray[np.int32]:
    """Give a column of integer lists as (n, width); shorter lists are filled at the end."""
    whole = column.combine_chunks()
    lengths = whole.value_lengths().to_numpy()
    values = np.full((len(whole), width), fill, dtype=np.int32)
    values[np.arange(values.shape[1]) < lengths[:, None]] = whole.flatten().to_numpy()
    return values
