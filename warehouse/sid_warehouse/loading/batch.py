"""Many samples as a few arrays, which still look like a list of samples to whoever wants single ones."""

from collections.abc import Iterator, Mapping
from typing import Any


class Batch:
    """The samples of a batch: `arrays` holds all of them, `batch[n]` is one, made when it is asked for.

    What wants a list of samples may iterate over it; collation takes the arrays as they are.
    """

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        """Hold numpy arrays or torch tensors, each (n, ...)."""
        self.arrays = dict(arrays)

    def __len__(self) -> int:
        """Give the number of samples."""
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Give one sample: rows as views of the arrays, single numbers as Python's."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return {
            name: values[index] if values.ndim > 1 else values[index].item()
            for name, values in self.arrays.items()
        }

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield one sample after the other."""
        return (self[index] for index in range(len(self)))
