"""The door to torch for FSQ: the network of RecGPT's tokenizer and its training. Only `fit` comes here.

Network and constants read in RecGPT's code: a shared projection per slice, rounding with a straight-
through gradient, a two-layer transformer over the slices whose last token makes the vector, L1 loss.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from sid_tokenizers.base import Vectors, Weights
from sid_tokenizers.learned.fsq import Bound, fsq_constants
from sid_tokenizers.learned.fsq_decoder import LAYERS, heads_of
from sid_tokenizers.learned.one_thread import one_thread
from sid_tokenizers.learned.training import Loop

DROPOUT = 0.2
FEED_FORWARD = 4  # times the width of a token


class FSQNetwork(nn.Module):
    """Projection, grid and decoder; parameter names are those fsq_decoder.py reads."""

    def __init__(self, dim: int, fsq_levels: Sequence[int], slices: int, bound: Bound) -> None:
        """Lay out the layers for vectors of `dim` columns."""
        super().__init__()
        width = dim // slices
        self.slices = slices
        constants = fsq_constants(fsq_levels, bound)
        self.reach, self.offset, self.shift = (torch.from_numpy(array) for array in constants)
        self.unit = torch.tensor([size // 2 for size in fsq_levels])
        self.project = nn.Linear(width, len(fsq_levels))
        self.expand = nn.Linear(len(fsq_levels), width)
        self.position = nn.Parameter(torch.randn(slices, width))
        layer = nn.TransformerEncoderLayer(
            width, heads_of(width), FEED_FORWARD * width, DROPOUT, batch_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.Linear(width, dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Give vectors back through the grid: (n, d) -> (n, d)."""
        z = self.project(x.view(len(x), self.slices, -1))
        bounded = torch.tanh(z + self.shift) * self.reach - self.offset
        rounded = bounded + (bounded.round() - bounded).detach()
        return self.decode(rounded / self.unit)

    def decode(self, points: Tensor) -> Tensor:
        """Give vectors for grid points in -1 .. 1: (n, slices, numbers) -> (n, d)."""
        tokens = self.transformer(self.expand(points) + self.position)
        vectors: Tensor = self.head(tokens[:, -1])
        return vectors


def train(
    X: Vectors,
    weight: Weights | None,
    *,
    fsq_levels: Sequence[int],
    slices: int,
    bound: Bound,
    seed: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
) -> dict[str, Vectors]:
    """Train the network on X (n, d) and give its tensors by name, float32.

    weight: (n,) of mean 1, each row's share in the loss. The process's random numbers stay untouched.
    Raises DataError where it diverges.
    """
    rows = torch.from_numpy(X)
    mass = torch.ones(len(X)) if weight is None else torch.from_numpy(weight.astype(np.float32))
    batches = torch.Generator().manual_seed(seed)
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # for the layers' start and the dropout, which take no generator
        network = FSQNetwork(X.shape[1], fsq_levels, slices, bound)
        loop = Loop(
            network.parameters(),
            len(X),
            name="fsq",
            generator=batches,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            optimizer="adam",
        )

        def loss(chosen: Tensor) -> Tensor:
            error: Tensor = (network(rows[chosen]) - rows[chosen]).abs().mean(dim=1)
            return (error * mass[chosen]).mean()

        for _ in range(epochs):
            loop.epoch(loss)
        if epochs:
            loop.check(total_error(network, rows, batch_size))
            loop.check_parameters()
    return {name: tensor.detach().numpy().copy() for name, tensor in network.state_dict().items()}


def total_error(network: FSQNetwork, rows: Tensor, batch_size: int) -> Tensor:
    """Give the absolute error of all rows, as the network is used after training."""
    network.eval()
    with torch.no_grad():
        return torch.stack(
            [(network(part) - part).abs().sum() for part in torch.split(rows, batch_size)]
        ).sum()
