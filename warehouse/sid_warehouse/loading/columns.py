"""Single columns of a release for training, read as parquet.py and arrays.py do, but without loading pandas.

pyarrow's reader of whole tables and its `to_numpy` import pandas where it is installed: half a second that
opening a release for training can do without.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from sid_warehouse import parquet


def column(folder: Path, table: str, name: str) -> pa.ChunkedArray:
    """Read one column of a table; raises WarehouseError where it cannot be read, as `parquet.read` does."""
    try:
        files = [pq.ParquetFile(part, pre_buffer=False) for part in parquet.parts(folder, table)]
        kind = files[0].schema_arrow.field(name).type
        chunks = [batch.column(0) for file in files for batch in file.iter_batches(columns=[name])]
    except (pa.ArrowException, OSError, LookupError):
        return parquet.read(folder, table, [name])[name]  # which says what is wrong
    return pa.chunked_array(chunks, type=kind)


def padded(lists: pa.ChunkedArray, width: int, fill: int) -> npt.NDArray[np.int32]:
    """Give a column of integer lists as (n, width), as `arrays.padded_matrix` does."""
    values = np.full((len(lists), width), fill, dtype=np.int32)
    first = 0
    for chunk in lists.chunks:
        lengths, flat = np.from_dlpack(chunk.value_lengths()), np.from_dlpack(chunk.flatten())
        rows = values[first : first + len(chunk)]
        if (lengths == width).all():
            rows.reshape(-1)[:] = flat
        else:
            rows[np.arange(width) < lengths[:, None]] = flat
        first += len(chunk)
    return values
