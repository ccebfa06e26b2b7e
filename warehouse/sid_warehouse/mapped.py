"""An uncompressed Arrow IPC file as one numpy array of its bytes: nothing is read before it is asked for.

parquet.py writes such files in record batches of equal length, so row r stands in batch r // length, and a
column of that batch begins at some byte of the file. Those places are looked up when a batch is first wanted;
from then on any rows, of however many batches, cost a few numpy calls (`take`, `ragged`), and none for each.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sid_schemas import WarehouseError

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]
NONE = -1  # the place of a bitmap that is left out: nothing is null
UNKNOWN = -2


class Mapped:
    """The columns of numbers, and of lists of numbers or strings, of one file."""

    def __init__(self, path: Path) -> None:
        """Map the file; raises WarehouseError where that cannot be."""
        self.path = path
        try:
            self._buffer = pa.memory_map(str(path)).read_buffer()
            self._reader = pa.ipc.open_file(self._buffer)
            batches = self._reader.num_record_batches
            self._batch = max(self._reader.get_batch(0).num_rows, 1) if batches else 1
            last = self._reader.get_batch(batches - 1).num_rows if batches else 0
        except (pa.ArrowException, OSError) as error:
            said = str(error).partition("\n")[0]
            raise WarehouseError(f"{path}: cannot be mapped ({said}). Restore it from a copy") from error
        self._rows = (batches - 1) * self._batch + last if batches else 0
        self._bytes = np.frombuffer(self._buffer, dtype=np.uint8)
        self._columns: dict[str, _Column] = {}

    def __len__(self) -> int:
        """Give the number of rows."""
        return self._rows

    def take(self, column: str, rows: Rows) -> Array:
        """Give the numbers of some rows, in their order: (n,)."""
        found, batches, inside = self._find(column, rows)
        return self._gather(found.values[batches], inside, found.dtype)

    def ragged(self, column: str, rows: Rows, start: Rows, end: Rows) -> tuple[Array, Rows]:
        """Give a piece [start, end) of each row's list: the pieces end to end, and offsets (n + 1,).

        Numbers that are null are NaN, in a list of floats.
        """
        found, batches, sources, offsets = self._pieces(column, rows, start, end)
        values = self._gather(found.values[batches], sources, found.dtype)
        if found.dtype.kind == "f" and (found.valid[batches] != NONE).any():
            values[self._null(found.valid[batches], sources)] = np.nan
        return values, offsets

    def ragged_text(
        self, column: str, rows: Rows, start: Rows, end: Rows, width: int
    ) -> tuple[npt.NDArray[np.bytes_], Rows]:
        """Give as `ragged` does pieces of lists of strings, as UTF-8 cut to `width` bytes."""
        found, batches, sources, offsets = self._pieces(column, rows, start, end)
        begins = self._gather(found.ends[batches], sources, np.dtype(np.int32)).astype(np.int64)
        lengths = self._gather(found.ends[batches], sources + 1, np.dtype(np.int32)) - begins
        places = np.arange(width)
        there = places < lengths[:, None]
        characters = np.zeros((len(sources), width), dtype=np.uint8)
        characters[there] = self._bytes[((found.values[batches] + begins)[:, None] + places)[there]]
        return characters.view(f"S{width}").reshape(-1), offsets

    def _pieces(self, column: str, rows: Rows, start: Rows, end: Rows) -> tuple["_Column", Rows, Rows, Rows]:
        """Give for each value of the pieces its batch and its place there, and the pieces' offsets."""
        found, batches, inside = self._find(column, rows)
        begins = self._gather(found.offsets[batches], inside, np.dtype(np.int32)).astype(np.int64)
        lengths = np.asarray(end, dtype=np.int64) - start
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        sources = np.repeat(begins + start - offsets[:-1], lengths) + np.arange(offsets[-1])
        return found, np.repeat(batches, lengths), sources, offsets

    def _gather(self, base: Rows, places: Rows, dtype: np.dtype[Any]) -> Array:
        """Give numbers by the byte that their batch's column begins at, and their place in it."""
        size = dtype.itemsize
        whole = self._bytes[: len(self._bytes) // size * size].view(dtype)
        values: Array = whole[base // size + places]
        return values

    def _null(self, base: Rows, places: Rows) -> npt.NDArray[np.bool_]:
        bits = self._bytes[np.where(base == NONE, 0, base + places // 8)] >> (places % 8).astype(np.uint8)
        null: npt.NDArray[np.bool_] = (base != NONE) & (bits & 1 == 0)
        return null

    def _find(self, name: str, rows: Rows) -> tuple["_Column", Rows, Rows]:
        """Give a column, and for each row its batch and its place there."""
        if name not in self._columns:
            self._columns[name] = _Column.of(self._reader.schema.field(name), self._reader.num_record_batches)
        found = self._columns[name]
        batches, inside = np.divmod(np.asarray(rows, dtype=np.int64), self._batch)
        missing = batches[found.values[batches] == UNKNOWN]
        for batch in sorted(set(missing.tolist())):
            found.look(batch, self._part(batch).column(name), self._place)
        return found, batches, inside

    def _part(self, batch: int) -> pa.RecordBatch:
        part = self._reader.get_batch(batch)
        expected = min(self._batch, self._rows - batch * self._batch)
        if part.num_rows != expected:
            raise WarehouseError(
                f"{self.path}, batch {batch}: expected {expected} rows, got {part.num_rows}. Restore it from "
                "a copy, or write it with parquet.write_ipc"
            )
        return part

    def _place(self, buffer: pa.Buffer | None) -> int:
        """Give the byte of the file at which a buffer begins."""
        if buffer is None:
            return NONE
        place = int(buffer.address - self._buffer.address)
        if not 0 <= place <= self._buffer.size - buffer.size:
            raise WarehouseError(f"{self.path}: expected no compression; write it with parquet.write_ipc")
        return place


@dataclass(frozen=True)
class _Column:
    """Where each batch's part of one column begins, in bytes of the file: (n_batches,) each.

    values: the numbers, or the characters of all strings. offsets: of lists. ends: of strings. valid: which
    values are not null.
    """

    dtype: np.dtype[Any]
    values: Rows
    offsets: Rows
    ends: Rows
    valid: Rows

    @classmethod
    def of(cls, field: pa.Field, batches: int) -> "_Column":
        kind = field.type.value_type if pa.types.is_list(field.type) else field.type
        return cls(_dtype(kind), *(np.full(batches, UNKNOWN, dtype=np.int64) for _ in range(4)))

    def look(self, batch: int, column: pa.Array, place: Any) -> None:
        buffers = column.buffers()
        if pa.types.is_list(column.type):
            self.offsets[batch] = place(buffers[1])
            buffers = buffers[2:]
        if len(buffers) == 3:
            self.ends[batch] = place(buffers[1])
        self.valid[batch] = place(buffers[0])
        self.values[batch] = max(place(buffers[-1]), 0)  # no buffer: no values


def _dtype(kind: pa.DataType) -> np.dtype[Any]:
    """Give numpy's name of a type of numbers, bytes for strings; pyarrow's own way to it loads pandas."""
    if pa.types.is_string(kind):
        return np.dtype(np.uint8)
    letter = "f" if pa.types.is_floating(kind) else "u" if pa.types.is_unsigned_integer(kind) else "i"
    return np.dtype(f"{letter}{kind.bit_width // 8}")
