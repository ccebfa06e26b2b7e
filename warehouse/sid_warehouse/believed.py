"""What reads a release as if it were well made, and says in one line where it is not.

records.py checks what ends up in paths and SQL. The rest of a release (recipe, lineage, metrics, tables) is
read where it is shown or compared, and may have any shape where somebody else wrote it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
from safetensors import SafetensorError

from sid_schemas import WarehouseError

UNFIT = (
    LookupError,
    TypeError,
    AttributeError,
    ValueError,
    RecursionError,
    FileNotFoundError,
    duckdb.Error,
    pa.ArrowException,
    SafetensorError,
)


@contextmanager
def believed(folder: Path) -> Iterator[None]:
    """Raise WarehouseError for whatever the release in a folder, or one below it, makes fail in the block."""
    try:
        yield
    except UNFIT as error:
        said = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise WarehouseError(
            f"{folder}: a release there holds something else than expected ({said}). Run `sidmill verify`; "
            "restore the release from a copy, or publish it anew"
        ) from error
