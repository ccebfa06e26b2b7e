"""An uncompressed Arrow IPC file as numpy views of its pages: nothing is read before it is asked for.

parquet.py writes such files in record batches of IPC_BATCH rows, so row r stands in batch r // IPC_BATCH; a
batch is looked at when the first of its rows is wanted. Many rows at once (`take`, `ragged`) cost a few numpy
calls for each batch that they stand in, and none for each row.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sid_schemas import WarehouseError
from sid_warehouse.parquet import IPC_BATCH

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]


class Mapped:
    """The columns of numbers, and of lists of numbers, of one file."""

    def __init__(self, path: Path) -> None:
        """Map the file; raises WarehouseError where that cannot be."""
        try:
            self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
            self._batches = self._reader.num_record_batches
            last = self._reader.get_batch(self._batches - 1).num_rows if self._batches else 0
        except (pa.ArrowException, OSError) as error:
            said = str(error).partition("\n")[0]
            raise WarehouseError(f"{path}: cannot be mapped ({said}). Restore it from a copy") from error
        self._rows = (self._batches - 1) * IPC_BATCH + last if self._batches else 0
        self._columns: dict[tuple[int, str], tuple[Array, Array | None]] = {}

    def __len__(self) -> int:
        """Give the number of rows."""
        return self._rows

    def take(self, column: str, rows: Rows) -> Array:
        """Give the numbers of some rows, in their order: (n,)."""
        out: Array | None = None
        for batch, inside, places in _by_batch(rows):
            values = self._column(batch, column)[0][inside]
            if out is None:
                out = np.empty(len(rows), dtype=values.dtype)
            out[places] = values
        return np.empty(0, dtype=np.int64) if out is None else out

    def ragged(self, column: str, rows: Rows, start: Rows, end: Rows) -> tuple[Array, Rows]:
        """Give a piece [start, end) of each row's list: the pieces end to end, and offsets (n + 1,)."""
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(np.asarray(end, dtype=np.int64) - start, out=offsets[1:])
        out: Array | None = None
        for batch, inside, places in _by_batch(rows):
            values, begins = self._column(batch, column)
            assert begins is not None
            if out is None:
                out = np.empty(offsets[-1], dtype=values.dtype)
            lengths = offsets[places + 1] - offsets[places]
            steps = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            sources = begins[inside].astype(np.int64) + start[places]
            out[np.repeat(offsets[places], lengths) + steps] = values[np.repeat(sources, lengths) + steps]
        return np.empty(0, dtype=np.int64) if out is None else out, offsets

    def _column(self, batch: int, name: str) -> tuple[Array, Array | None]:
        found = self._columns.get((batch, name))
        if found is None:
            column = self._reader.get_batch(batch).column(name)
            if pa.types.is_list(column.type):
                found = column.values.to_numpy(), column.offsets.to_numpy()
            else:
                found = column.to_numpy(), None
            self._columns[batch, name] = found
        return found


def _by_batch(rows: Rows) -> list[tuple[int, Rows, Rows]]:
    """Give for each batch that rows stand in: its number, the rows inside it, and their places in `rows`."""
    batches = np.asarray(rows, dtype=np.int64) // IPC_BATCH
    if not len(batches):
        return []
    if (batches == batches[0]).all():
        return [(int(batches[0]), rows - batches[0] * IPC_BATCH, np.arange(len(rows)))]
    order = np.argsort(batches, kind="stable")
    cuts = np.flatnonzero(np.diff(batches[order])) + 1
    return [
        (int(batches[places[0]]), rows[places] - batches[places[0]] * IPC_BATCH, places)
        for places in np.split(order, cuts)
    ]
