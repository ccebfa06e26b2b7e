"""The door to torch: a split as a map-style `torch.utils.data.Dataset`. Only this module imports it."""

from typing import Any

import numpy as np

from sid_schemas import MissingExtraError
from sid_warehouse.samples import Samples

try:
    import torch
    from torch.utils.data import Dataset
except ImportError as error:
    raise MissingExtraError("Reading sequences as a torch Dataset", "torch") from error


class TorchSamples(Dataset[dict[str, Any]]):
    """`Samples` with tensors for arrays; any number of DataLoader workers may read it."""

    def __init__(self, samples: Samples) -> None:
        """Wrap the samples of one split."""
        self.samples = samples

    def __len__(self) -> int:
        """Give the number of samples."""
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Give one sample, as `Samples` does, arrays as int64 tensors."""
        return {
            name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
            for name, value in self.samples[index].items()
        }

    def block_mask(self, *, eos: bool = False) -> torch.Tensor:
        """Give which token of a history may look at which, as `Samples.block_mask` does: a bool tensor."""
        return torch.from_numpy(self.samples.block_mask(eos=eos))
