"""The files of a trainer's format while they are written: streamed, the same bytes every time, explained.

No format here is held in memory: text, JSON objects, arrays and Parquet are written row after row. Every file
is opened with a line that says what it is; those lines become the table of the folder's README.
"""

import csv
import gzip
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from sid_pipelines.trainers.writing.torch_tensor import tensor_file

ROWS_PER_GROUP = 65_536


class Folder:
    """A folder that is being filled; `says` has one line for each file, in the order of their making."""

    def __init__(self, path: Path) -> None:
        """Start with nothing in an existing, empty folder."""
        self.path = path
        self.says: dict[str, str] = {}
        self.card = ""  # YAML that stands before the README, for a hub to read

    def file(self, name: str, says: str) -> Path:
        """Give the path of a file to write, its folders made. name: relative, with '/'; says: one line."""
        if name in self.says:
            raise ValueError(f"{name}: is written already")
        path = self.path / name
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise ValueError(f"{name}: leaves the folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.says[name] = says
        return path

    @contextmanager
    def text(self, name: str, says: str) -> Iterator[IO[str]]:
        """Open a text file: UTF-8, lines end in a line feed. A name that ends in .gz is compressed."""
        path = self.file(name, says)
        if name.endswith(".gz"):
            with _packed(path) as packed, io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as file:
                yield file
            return
        with path.open("w", encoding="utf-8", newline="\n") as file:
            yield file

    @contextmanager
    def gzip(self, name: str, says: str) -> Iterator[IO[bytes]]:
        """Open a file of bytes that are compressed with gzip."""
        with _packed(self.file(name, says)) as file:
            yield file

    def csv(
        self,
        name: str,
        says: str,
        header: Sequence[str],
        rows: Iterable[Sequence[Any]],
        *,
        delimiter: str = ",",
    ) -> int:
        """Write delimited rows, quoted where a field needs it, without an empty header; give the number."""
        count = 0
        with self.text(name, says) as file:
            writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
            if header:
                writer.writerow(header)
            for row in rows:
                writer.writerow(row)
                count += 1
        return count

    def json(self, name: str, says: str, value: Any, *, indent: int | None = None) -> None:
        """Write one small JSON value."""
        with self.text(name, says) as file:
            file.write(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent) + "\n")

    def json_object(self, name: str, says: str, pairs: Iterable[tuple[str, Any]]) -> int:
        """Write one JSON object, a key a line, as it comes; gives how many keys."""
        count = 0
        with self.text(name, says) as file:
            file.write("{")
            for key, value in pairs:
                text = json.dumps(value, ensure_ascii=False, allow_nan=False)
                file.write(f"{',' if count else ''}\n{json.dumps(key, ensure_ascii=False)}: {text}")
                count += 1
            file.write("\n}\n")
        return count

    def json_lines(self, name: str, says: str, rows: Iterable[Any]) -> int:
        """Write one JSON value a line; gives how many."""
        count = 0
        with self.text(name, says) as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
                count += 1
        return count

    def npy(
        self,
        name: str,
        says: str,
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
        batches: Iterable[npt.ArrayLike],
    ) -> None:
        """Write one numpy array row after row; raises ValueError where batches do not fill its shape."""
        header = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
            "fortran_order": False,
            "shape": shape,
        }
        with self.file(name, says).open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            self._rows(file, shape, dtype, batches, name)

    def raw(
        self,
        name: str,
        says: str,
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
        batches: Iterable[npt.ArrayLike],
    ) -> None:
        """Write the numbers of an array without any header, as `numpy.tofile` does."""
        with self.file(name, says).open("wb") as file:
            self._rows(file, shape, dtype, batches, name)

    def tensor(
        self,
        name: str,
        says: str,
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
        batches: Iterable[npt.ArrayLike],
    ) -> None:
        """Write one torch tensor, a `.pt` file, row after row; needs no torch (torch_tensor.py)."""
        with tensor_file(self.file(name, says), shape, dtype) as file:
            self._rows(file, shape, dtype, batches, name)

    @staticmethod
    def _rows(
        file: IO[bytes],
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
        batches: Iterable[npt.ArrayLike],
        name: str,
    ) -> None:
        rows = 0
        for batch in batches:
            array = np.ascontiguousarray(batch, dtype=dtype)
            if array.shape[1:] != shape[1:]:
                raise ValueError(f"{name}: expected rows of {shape[1:]}, got {array.shape[1:]}")
            file.write(array.tobytes())
            rows += len(array)
        if rows != shape[0]:
            raise ValueError(f"{name}: expected {shape[0]} rows, got {rows}")

    def parquet(
        self, name: str, says: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch | pa.Table]
    ) -> int:
        """Write one Parquet file in a schema; gives its rows. Batch sizes leave no trace."""
        held: list[pa.Table] = []
        count = waiting = 0
        with pq.ParquetWriter(self.file(name, says), schema, compression="zstd") as writer:
            for batch in batches:
                table = pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch
                held.append(table.select(schema.names).cast(schema))
                count, waiting = count + len(table), waiting + len(table)
                while waiting >= ROWS_PER_GROUP:
                    whole = pa.concat_tables(held)
                    writer.write_table(whole.slice(0, ROWS_PER_GROUP).combine_chunks())
                    held, waiting = [whole.slice(ROWS_PER_GROUP)], waiting - ROWS_PER_GROUP
            if waiting:
                writer.write_table(pa.concat_tables(held).combine_chunks())
        return count


@contextmanager
def _packed(path: Path) -> Iterator[IO[bytes]]:
    """Open a gzip file without name or time in its header: the same content gives the same bytes."""
    with path.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed:
        yield packed  # type: ignore[misc]  # GzipFile is one in all but name
