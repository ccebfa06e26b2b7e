"""Dicts and lists of whole numbers as pickles, entry after entry: for trainers that read nothing else.

We write pickle's opcodes ourselves and never read such a file. `dict_file` and `list_file` name no class and
no function, so they load under any Python and any restriction. Two readers want more: `np.load` of an object
array (`array_file`), and a torch tensor in a plain pickle (`matrix_file`); those files name numpy's array
and its dtype, and `torch.from_numpy`, and nothing else. torch_tensor.py writes what `torch.save` does.
Source of the opcodes: Lib/pickletools.py, protocol 2 (4 for bytes beyond 4 GiB).
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

NUMBER = np.dtype([("opcode", "u1"), ("value", "<i4")])  # BININT
START = b"\x80\x02"
OBJECT_HEADER = {"descr": "|O", "fortran_order": False, "shape": ()}
# numpy's own words for an array that is filled afterwards; its old module names are read by every version.
EMPTY_ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"


def numbers(values: npt.ArrayLike) -> bytes:
    """Give a list of whole numbers of 32 bits.

    >>> numbers([7])
    b'](J\\x07\\x00\\x00\\x00e'
    """
    given = np.asarray(values, dtype=np.int64)
    if given.size and not -(2**31) <= given.min() <= given.max() < 2**31:
        raise ValueError(f"expected numbers of 32 bits, got {given.min()} to {given.max()}")
    rows = np.empty(len(given), dtype=NUMBER)
    rows["opcode"], rows["value"] = ord("J"), given
    return b"](" + rows.tobytes() + b"e"


def dict_file(path: Path, entries: Iterable[tuple[int | str, npt.ArrayLike]]) -> int:
    """Write a dict of lists of whole numbers; gives how many entries. keys: whole numbers or text."""
    with path.open("wb") as file:
        file.write(START)
        count = _dict(file, ((key, numbers(values)) for key, values in entries))
        file.write(b".")
    return count


def list_file(path: Path, rows: Iterable[npt.ArrayLike]) -> int:
    """Write a list of lists of whole numbers; gives how many rows."""
    count = 0
    with path.open("wb") as file:
        file.write(START + b"]")
        for count, row in enumerate(rows, 1):  # noqa: B007
            file.write(numbers(row) + b"a")
        file.write(b".")
    return count


def map_file(path: Path, entries: Iterable[tuple[int | str, int]]) -> int:
    """Write a dict of single whole numbers; gives how many entries."""
    with path.open("wb") as file:
        file.write(START)
        count = _dict(file, ((key, _number(value)) for key, value in entries))
        file.write(b".")
    return count


def array_file(path: Path, entries: Iterable[tuple[int | str, npt.ArrayLike]]) -> int:
    """Write a dict of lists as `np.save(path, dict)` does, for `np.load(path, allow_pickle=True).item()`."""
    with _object_array(path) as file:
        return _dict(file, ((key, numbers(values)) for key, values in entries))


def map_array_file(path: Path, entries: Iterable[tuple[int | str, int]]) -> int:
    """Write a dict of single numbers as `np.save(path, dict)` does."""
    with _object_array(path) as file:
        return _dict(file, ((key, _number(value)) for key, value in entries))


def matrix_file(path: Path, shape: tuple[int, int], batches: Iterable[npt.ArrayLike]) -> None:
    """Write a float32 matrix, row after row, that `pickle.load` gives as a torch tensor."""
    size = shape[0] * shape[1] * 4
    with path.open("wb") as file:
        file.write(b"\x80\x04ctorch\nfrom_numpy\n(" + EMPTY_ARRAY)
        file.write(b"(K\x01(" + b"".join(map(_number, shape)) + b"t" + _dtype(b"f4", b"<") + b"\x89")
        file.write(b"\x8e" + size.to_bytes(8, "little"))
        written = 0
        for batch in batches:
            written += file.write(np.ascontiguousarray(batch, dtype="<f4").tobytes())
        if written != size:
            raise ValueError(f"{path.name}: expected {size} bytes of numbers, got {written}")
        file.write(b"tbtR.")


@contextmanager
def _object_array(path: Path) -> Iterator[IO[bytes]]:
    """Open an `.npy` of one Python object; what is written inside the block is that object."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, OBJECT_HEADER)
        file.write(START + EMPTY_ARRAY + b"(K\x01)" + _dtype(b"O8", b"|") + b"\x89](")
        yield file
        file.write(b"etb.")


def _dtype(name: bytes, order: bytes) -> bytes:
    flags = b"K\x3f" if name == b"O8" else b"K\x00"
    state = b"(K\x03U\x01" + order + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff" + flags + b"tb"
    return b"cnumpy\ndtype\n(U\x02" + name + b"\x89\x88tR" + state


def _dict(file: IO[bytes], entries: Iterable[tuple[int | str, bytes]]) -> int:
    count = 0
    file.write(b"}")
    for count, (key, value) in enumerate(entries, 1):  # noqa: B007
        file.write(_key(key) + value + b"s")
    return count


def _key(key: int | str) -> bytes:
    if isinstance(key, int):
        return _number(key)
    text = key.encode("utf-8")
    return b"X" + len(text).to_bytes(4, "little") + text


def _number(value: int) -> bytes:
    return b"J" + value.to_bytes(4, "little", signed=True)
