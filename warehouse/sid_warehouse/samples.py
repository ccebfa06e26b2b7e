"""Training samples straight from memory-mapped files: no row is read before it is asked for.

A sample is (user, start, end): its history is items[start:end] of the user's sequence, its target the
item at `end`. Prefixes are never expanded on disk. `torch_samples` wraps this for a DataLoader.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sid_schemas import WarehouseError
from sid_tokenizers.positions import Mask, block_mask, code_positions
from sid_warehouse.locks import Pin
from sid_warehouse.parquet import IPC_BATCH

Array = npt.NDArray[Any]


class Samples:
    """The samples of one split as arrays of token ids; pickles by path, so workers map it anew.

    The release is pinned as long as they are there, in every process that has them: see locks.py.

    folder: of a release. tokens: (n_items, L), the token ids of each item. max_history: the newest
    items of a history that are kept; shorter ones are padded on the left with `pad`. positions: give where
    every code stands inside its item too (positions.py), which is for SIDs of one length.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        tokens: npt.NDArray[np.int32],
        *,
        pad: int,
        max_history: int,
        positions: bool = False,
    ) -> None:
        """Map the split's samples and the users' sequences."""
        self.folder, self.split, self.tokens = folder, split, tokens
        self.pad, self.max_history, self.positions = pad, max_history, positions
        self._open()

    def _open(self) -> None:
        self._pin = Pin(self.folder)
        self._samples = _Mapped(self.folder / f"{self.split}.arrow")
        self._sequences = _Mapped(self.folder / "sequences.arrow")

    def __len__(self) -> int:
        """Give the number of samples."""
        return len(self._samples)

    def __getitem__(self, index: int) -> dict[str, Array | int]:
        """Give one sample.

        Returns `history` (max_history * L,) int64, left-padded; `history_length`, in items; `target`
        (L,) int64; and `user_index`, `target_item` as numbers. With positions also `history_positions`,
        0 at padding, and `target_positions`, both 1 to L item by item; a start token has 0, an end L + 1.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        user, start, end, target = self._samples.values(
            index % len(self), ("user_index", "start", "end", "target")
        )
        start = max(start, end - self.max_history)
        items = self._sequences.list("items", user)[start:end]
        length = self.tokens.shape[1]
        history = np.full(self.max_history * length, self.pad, dtype=np.int64)
        if len(items):
            history[-len(items) * length :] = self.tokens[items].reshape(-1)
        sample: dict[str, Array | int] = {
            "user_index": user,
            "history": history,
            "history_length": len(items),
            "target": self.tokens[target].astype(np.int64),
            "target_item": target,
        }
        if self.positions:
            places = code_positions(self.max_history, length, eos=False)
            places[: (self.max_history - len(items)) * length] = 0
            sample |= {
                "history_positions": places,
                "target_positions": code_positions(1, length, eos=False),
            }
        return sample

    def block_mask(self, *, eos: bool = False) -> Mask:
        """Give which token of a history may look at which: those of one item at each other.

        (max_history * L, max_history * L) bool, the same for every sample: leave padding out by its token.
        eos: for a history that is followed by an end token, which looks at the last item.
        """
        return block_mask(self.max_history, self.tokens.shape[1], eos=eos)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the maps behind."""
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Map the files again."""
        self.__dict__.update(state)
        self._open()


class _Mapped:
    """An uncompressed Arrow IPC file as numpy views; row r stands in batch r // IPC_BATCH."""

    def __init__(self, path: Path) -> None:
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        except (pa.ArrowException, OSError) as error:
            said = str(error).partition("\n")[0]
            raise WarehouseError(f"{path}: cannot be mapped ({said}). Restore it from a copy") from error
        self._rows: int = sum(batch.num_rows for batch in batches)
        self._columns: list[dict[str, tuple[Array, Array | None]]] = [
            {name: _views(batch.column(name)) for name in batch.schema.names if _numeric(batch, name)}
            for batch in batches
        ]

    def __len__(self) -> int:
        return self._rows

    def values(self, row: int, columns: tuple[str, ...]) -> list[int]:
        batch, row = divmod(row, IPC_BATCH)
        return [int(self._columns[batch][name][0][row]) for name in columns]

    def list(self, column: str, row: int) -> Array:
        batch, row = divmod(row, IPC_BATCH)
        values, offsets = self._columns[batch][column]
        assert offsets is not None
        return values[offsets[row] : offsets[row + 1]]


def _numeric(batch: pa.RecordBatch, name: str) -> bool:
    kind = batch.schema.field(name).type
    return bool(pa.types.is_integer(kind.value_type if pa.types.is_list(kind) else kind))


def _views(column: pa.Array) -> tuple[Array, Array | None]:
    if pa.types.is_list(column.type):
        return column.values.to_numpy(), column.offsets.to_numpy()
    return column.to_numpy(), None
