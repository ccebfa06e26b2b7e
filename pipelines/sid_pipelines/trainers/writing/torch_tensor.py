"""A tensor as `torch.save` writes it, row after row and without torch: numbers in a zip archive.

Torch's format is a zip whose `data.pkl` says in pickle's opcodes what the tensor is, beside its raw bytes. We
write those opcodes, which call nothing but torch's own rebuilding of a tensor, so `torch.load` takes the file
with `weights_only=True`; we never read such a file. Source: torch/csrc/jit/serialization/pickler.cpp,
torch/_utils.py `_rebuild_tensor_v2`.
"""

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

ROOT = "archive"  # torch's own name where it writes to a buffer, so that bytes do not depend on the file's
STORAGES = {"float16": "Half", "float32": "Float", "float64": "Double", "int32": "Int", "int64": "Long"}
EPOCH = (1980, 1, 1, 0, 0, 0)  # zip's first date: the same numbers give the same bytes


@contextmanager
def tensor_file(path: Path, shape: Sequence[int], dtype: npt.DTypeLike) -> Iterator[IO[bytes]]:
    """Open a `.pt` file and give the place for the tensor's little-endian bytes, row after row."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_entry("data.pkl"), _description(tuple(shape), STORAGES[np.dtype(dtype).name]))
        archive.writestr(_entry("byteorder"), b"little")
        with archive.open(_entry("data/0"), "w", force_zip64=True) as numbers:
            yield numbers
        archive.writestr(_entry("version"), b"3\n")


def _entry(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(f"{ROOT}/{name}", EPOCH)


def _description(shape: tuple[int, ...], storage: str) -> bytes:
    """Give `_rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())` as opcodes."""
    strides = [int(np.prod(shape[place + 1 :], dtype=np.int64)) for place in range(len(shape))]
    size = int(np.prod(shape, dtype=np.int64))
    where = [_text("storage"), _global("torch", f"{storage}Storage"), _text("0"), _text("cpu"), _number(size)]
    tensor = [
        _tuple(where) + b"Q",  # the storage, named by its place in the archive
        _number(0),
        _tuple([_number(one) for one in shape]),
        _tuple([_number(one) for one in strides]),
        b"\x89",  # needs no gradient
        _global("collections", "OrderedDict") + b")R",  # no hooks
    ]
    return b"\x80\x02" + _global("torch._utils", "_rebuild_tensor_v2") + _tuple(tensor) + b"R."


def _tuple(parts: Sequence[bytes]) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    return b"X" + len(text).to_bytes(4, "little") + text.encode()


def _number(number: int) -> bytes:
    return b"\x8a\x08" + number.to_bytes(8, "little", signed=True)
