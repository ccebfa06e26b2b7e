"""A sparse matrix as `scipy.sparse.save_npz` writes it, row after row: a zip of arrays without any pickle.

scipy holds the whole matrix; here only the row pointers are held, which grow with rows and not with entries.
Source: scipy/sparse/_matrix_io.py.
"""

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

EPOCH = (1980, 1, 1, 0, 0, 0)  # zip's first date: the same numbers give the same bytes
BATCH = 1 << 20  # ones written at a time


def ones_file(path: Path, columns: int, sizes: npt.NDArray[np.int64], rows: Iterable[npt.ArrayLike]) -> None:
    """Write a matrix of ones in compressed rows, float64, for `scipy.sparse.load_npz`.

    sizes: (n_rows,), the entries of each row. rows: the columns of each row's entries, ascending. Raises
    ValueError where rows are not of their sizes.
    """
    pointers = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    total = int(pointers[-1])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        _array(archive, "indptr", (len(pointers),), "int64", [pointers])
        _array(archive, "indices", (total,), "int64", rows)
        ones = (np.ones(min(BATCH, total - start)) for start in range(0, total, BATCH))
        _array(archive, "data", (total,), "float64", ones)
        _array(archive, "shape", (2,), "int64", [[len(sizes), columns]])
        _array(archive, "format", (), "S3", [b"csr"])


def _array(
    archive: zipfile.ZipFile,
    name: str,
    shape: tuple[int, ...],
    dtype: npt.DTypeLike,
    batches: Iterable[npt.ArrayLike],
) -> None:
    kind = np.dtype(dtype)
    header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    entry = zipfile.ZipInfo(f"{name}.npy", EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    with archive.open(entry, "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        written = sum(file.write(np.asarray(batch, dtype=kind).tobytes()) for batch in batches)
    expected = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    if written != expected:
        raise ValueError(f"{name}: expected {expected} bytes, got {written}")
