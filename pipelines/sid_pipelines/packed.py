"""What one task found out and another needs, as plain data: JSON and named arrays in one safetensors file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import save_file

Arrays = Mapping[str, npt.NDArray[Any]]


def pack(path: Path, known: Mapping[str, Any], arrays: Arrays) -> None:
    """Write JSON and numbers; the same make the same bytes. arrays: of numbers, of any shape."""
    rows = {name: np.ascontiguousarray(values) for name, values in arrays.items()}  # else columns are written
    save_file(rows, path, metadata={"known": json.dumps(known)})


def unpack(path: Path) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Read what `pack` wrote; tuples have become lists."""
    with safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()["known"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
