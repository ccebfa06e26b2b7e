"""A shard of a vector cache: one safetensors file of keys and vectors, written whole and never changed.

    keys (n, 16) uint8, vectors (n, d) float32; in the header's metadata a checksum (blake2b) of either, and
    the folder it was made for, which is the digest of the encoder's identity

vector_cache.py keeps many of them. A file that is not what its header and checksums say raises ValueError.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from sid_tokenizers.base import Vectors
from sid_warehouse import files

Words = npt.NDArray[np.uint64]  # keys as (n, 2) numbers
WIDTH = 16  # bytes of a key
HEADER = 1 << 20  # bytes: a longer header is damage
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Shard:
    """Where a shard's arrays lie in its file."""

    path: Path
    rows: int
    dim: int
    keys_at: int
    vectors_at: int
    checksums: Mapping[str, str]

    def words(self) -> Words:
        """Read the keys, and check them."""
        read = np.fromfile(self.path, np.uint8, self.rows * WIDTH, offset=self.keys_at)
        if _checksum(read) != self.checksums["keys"]:
            raise ValueError("the keys do not have their checksum")
        return words_of(read)

    def check(self) -> None:
        """Read all vectors once, and check them."""
        if _checksum(self.vectors()) != self.checksums["vectors"]:
            raise ValueError("the vectors do not have their checksum")

    def vectors(self) -> Vectors:
        """Give the vectors as a map of the file; what was read of it counts as our memory until let go."""
        return np.memmap(self.path, np.float32, "r", self.vectors_at, (self.rows, self.dim))


def read_shard(path: Path) -> Shard:
    """Read where a shard's arrays lie; ValueError where the file is not what its header says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length < min(HEADER, size):
            raise ValueError(f"a header of {length} bytes in a file of {size}")
        header = json.loads(file.read(length))
    keys, vectors = header["keys"], header["vectors"]
    rows, dim = vectors["shape"]
    spans = [keys["data_offsets"], vectors["data_offsets"]]
    if (keys["dtype"], keys["shape"], vectors["dtype"]) != ("U8", [rows, WIDTH], "F32"):
        raise ValueError("not the arrays of a shard")
    if [stop - start for start, stop in spans] != [rows * WIDTH, rows * dim * 4]:
        raise ValueError("the arrays' places do not fit their shapes")
    if min(rows, dim) < 1 or size != 8 + length + rows * WIDTH + rows * dim * 4:
        raise ValueError(f"{size} bytes, expected {8 + length + rows * WIDTH + rows * dim * 4}")
    if min(start for start, _ in spans) != 0:
        raise ValueError("the arrays' places do not fit the file")
    told = header["__metadata__"]
    if set(told) != {"cache", "keys", "vectors"} or told["cache"] != path.parent.name:
        raise ValueError("made by another encoder")
    at = [8 + length + start for start, _ in spans]
    return Shard(path, rows, dim, at[0], at[1], told)


def write_shard(folder: Path, words: Words, vectors: Vectors) -> str:
    """Write a shard, whole or not at all, and give its name; the same vectors twice are one file."""
    keys = words.view(np.uint8).reshape(-1, WIDTH)
    told = {"cache": folder.name, "keys": _checksum(keys), "vectors": _checksum(vectors)}
    name = f"{files.digest(told)[:24]}{SUFFIX}"
    with files.writing(folder) as draft:
        save_file({"keys": keys, "vectors": vectors}, draft / name, metadata=told)
        files.sync(draft / name)
        (draft / name).replace(folder / name)
        files.sync(folder)
    return name


def set_aside(path: Path, reason: str) -> None:
    """Rename a damaged or foreign shard, with a warning, so that its vectors are made anew."""
    warnings.warn(
        f"{path}: damaged ({reason}); set aside as {path.name}.damaged, its vectors are made anew",
        stacklevel=2,
    )
    try:
        path.rename(path.with_name(f"{path.name}.damaged"))
    except OSError:
        return  # a cache that cannot be written, or another process was first: it is out of the index anyhow


def words_of(read: npt.NDArray[np.uint8]) -> Words:
    """Give keys, (n * 16,) bytes, as two numbers each."""
    return read.view(np.uint64).reshape(-1, 2)


def _checksum(values: npt.NDArray[Any]) -> str:
    return hashlib.blake2b(np.ascontiguousarray(values).view(np.uint8).data, digest_size=16).hexdigest()
