"""What models that torch trains share: draws from a generator of our own, negatives, and the device."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sid_schemas import DataError
from sid_tokenizers.base import Vectors

TRIES = 5  # draws of a negative that the user does not have; what is left then stays
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Draws:
    """All randomness of a fit, so that the user's torch seeds stay as they were."""

    generator: torch.Generator

    @classmethod
    def seeded(cls, seed: int) -> "Draws":
        """Begin at a seed."""
        return cls(torch.Generator().manual_seed(seed))

    def normal(self, *shape: int, scale: float) -> Tensor:
        """Give normal numbers of a standard deviation."""
        return torch.randn(*shape, generator=self.generator) * scale

    def order(self, n: int) -> Tensor:
        """Give a random order of n rows."""
        return torch.randperm(n, generator=self.generator)

    def integers(self, most: int, *shape: int) -> Tensor:
        """Give numbers from 0 to most - 1."""
        return torch.randint(most, shape, generator=self.generator)

    def dropped(self, x: Tensor, share: float) -> Tensor:
        """Put a share of the numbers to zero and scale the others up."""
        if not share:
            return x
        kept = torch.rand(x.shape, generator=self.generator) >= share
        return x * kept.to(x.device) / (1 - share)


def unseen(draws: Draws, users: Rows, n_items: int, pairs: Rows) -> Rows:
    """Draw an item for each user that the user does not have, all alike: (m,).

    pairs: user * n_items + item of all events, ascending. After a few tries what was drawn stays, as for
    a user who has everything.
    """
    drawn = draws.integers(n_items, len(users)).numpy()
    for _ in range(TRIES):
        keys = users * n_items + drawn
        place = np.minimum(np.searchsorted(pairs, keys), len(pairs) - 1)
        bad = np.flatnonzero(pairs[place] == keys)
        if not len(bad):
            break
        drawn[bad] = draws.integers(n_items, len(bad)).numpy()
    return drawn


def check_device(device: str) -> None:
    """Raise DataError where torch cannot compute on the device."""
    try:
        torch.zeros(1, device=device)
    except (AssertionError, RuntimeError) as error:
        raise DataError(f"device: torch cannot use {device!r} on this machine") from error


def numbers(values: Tensor) -> Vectors:
    """Give a tensor as numpy has it, float32."""
    return np.ascontiguousarray(values.detach().cpu().numpy(), dtype=np.float32)
