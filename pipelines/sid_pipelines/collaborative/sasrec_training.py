"""The network of SASRec and how it is trained; only its `fit` comes here.

One core, so the numbers do not depend on how many. Layers as in the paper: attention, then two linear
layers of width dim with ReLU, each with dropout and a shortcut, normalized before (pre-norm, as commonly
reimplemented).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sid_pipelines.collaborative.events import Indexes, TrainEvents
from sid_pipelines.collaborative.sasrec import SASRec
from sid_pipelines.collaborative.torch_tools import Draws, check_device, numbers, unseen
from sid_pipelines.probes import Lists
from sid_pipelines.stage import Progress
from sid_tokenizers.base import Vectors
from sid_tokenizers.learned.one_thread import one_thread

Rows = npt.NDArray[np.int64]
JUDGED = 0.1  # of the users, whose last train event tells when to end
DEVIATION = 0.02  # of what tables and layers begin with


class Block(nn.Module):
    """One layer: causal attention, then a small perceptron at each place."""

    def __init__(self, dim: int, heads: int, dropout: float, draws: Draws) -> None:
        """Draw the weights."""
        super().__init__()
        self.heads, self.dropout, self.draws = heads, dropout, draws
        self.before_attention, self.before_layers = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mixed, self.joined = _linear(dim, 3 * dim, draws), _linear(dim, dim, draws)
        self.first, self.second = _linear(dim, dim, draws), _linear(dim, dim, draws)

    def forward(self, x: Tensor) -> Tensor:
        """Run it: (batch, length, dim) -> the same."""
        drop = self.dropout if self.training else 0.0
        batch, length, dim = x.shape
        mixed = self.mixed(self.before_attention(x)).view(batch, length, 3, self.heads, dim // self.heads)
        q, k, v = (part.transpose(1, 2) for part in mixed.unbind(dim=2))
        # Pieces begin at the left and are filled up at the right, so what is filled is never looked at.
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        seen = self.joined(seen.transpose(1, 2).reshape(batch, length, dim))
        x = x + self.draws.dropped(seen, drop)
        hidden = self.second(self.draws.dropped(F.relu(self.first(self.before_layers(x))), drop))
        return x + self.draws.dropped(hidden, drop)


def _linear(dim: int, width: int, draws: Draws) -> nn.Linear:
    layer = nn.Linear(dim, width, device="meta").to_empty(device="cpu")  # draws nothing
    with torch.no_grad():
        layer.weight.copy_(draws.normal(width, dim, scale=DEVIATION))
    nn.init.zeros_(layer.bias)
    return layer


class Network(nn.Module):
    """A table of items, one of places, blocks, and a norm; scores are products with the table of items."""

    def __init__(self, model: SASRec, n_items: int, draws: Draws) -> None:
        """Draw the weights."""
        super().__init__()
        self.draws, self.dropout = draws, model.dropout
        self.items = nn.Parameter(draws.normal(n_items, model.dim, scale=DEVIATION))
        self.places = nn.Parameter(draws.normal(model.max_length, model.dim, scale=DEVIATION))
        self.blocks = nn.ModuleList(
            Block(model.dim, model.heads, model.dropout, draws) for _ in range(model.blocks)
        )
        self.last = nn.LayerNorm(model.dim)

    def forward(self, items: Tensor) -> Tensor:
        """Give a state after each event: (batch, length) -> (batch, length, dim)."""
        x = self.items[items] * self.items.shape[1] ** 0.5 + self.places[: items.shape[1]]
        x = self.draws.dropped(x, self.dropout if self.training else 0.0)
        for block in self.blocks:
            x = block(x)
        return self.last(x)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Pieces:
    """Histories cut into pieces: (pieces, length) inputs, the targets one event later, and who it is of.

    Filled up at the right with item 0; targets are -1 where there is none.
    """

    inputs: Indexes
    targets: Indexes
    users: Rows

    @classmethod
    def of(cls, sequences: Lists, length: int) -> "Pieces":
        """Cut so that every event but a user's first is a target once, the last pieces being full."""
        sizes = np.maximum(sequences.sizes - 1, 0)  # targets of each user
        counts = -(-sizes // length)
        users = np.repeat(np.arange(len(sequences)), counts)
        nth = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
        # Counted from the end: piece 0 of a user is its last.
        stops = sizes[users] - nth * length
        starts = np.maximum(stops - length, 0)
        places = starts[:, None] + np.arange(length)
        filled = places < stops[:, None]
        rows = np.where(filled, places + sequences.edges[users][:, None], 0)
        items = sequences.items
        inputs = np.where(filled, items[rows], 0)
        targets = np.where(filled, items[np.minimum(rows + 1, len(items) - 1)], -1)
        return cls(inputs.astype(np.int32), targets.astype(np.int32), users)

    def __len__(self) -> int:
        """Give the number of pieces."""
        return len(self.users)


def train(model: SASRec, events: TrainEvents, progress: Progress) -> tuple[Vectors, dict[str, Any]]:
    """Give the table of items, (n, dim), and the losses of the epochs."""
    check_device(model.device)
    with one_thread():
        return _Training(model, events).run(progress)


class _Training:
    def __init__(self, model: SASRec, events: TrainEvents) -> None:
        self.model, self.n_items = model, events.n_items
        self.draws = Draws.seeded(model.seed)
        self.network = Network(model, events.n_items, self.draws).to(model.device)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=model.learning_rate, betas=(0.9, 0.98)
        )
        self.pairs = np.unique(events.users.astype(np.int64) * events.n_items + events.items)
        self.pieces = Pieces.of(events.sequences(), model.max_length)
        self.judged = self._held_back() if model.patience else None

    def _held_back(self) -> Pieces | None:
        """Take the last target of some users out of the training; None where too few have one to spare."""
        pieces = self.pieces
        last = np.append(True, pieces.users[1:] != pieces.users[:-1])  # piece 0 of a user is its last
        spare = np.flatnonzero(last & ((pieces.targets >= 0).sum(axis=1) > 1))
        order = self.draws.order(len(spare)).numpy()
        chosen = np.sort(spare[order[: int(len(spare) * JUDGED)]])
        if not len(chosen):
            return None
        ends = (pieces.targets[chosen] >= 0).sum(axis=1) - 1
        targets = np.full_like(pieces.targets[chosen], -1)
        targets[np.arange(len(chosen)), ends] = pieces.targets[chosen, ends]
        pieces.targets[chosen, ends] = -1
        return Pieces(pieces.inputs[chosen], targets, pieces.users[chosen])

    def run(self, progress: Progress) -> tuple[Vectors, dict[str, Any]]:
        losses, checks, best = [], [], self.network.items.detach().clone()
        for epoch in range(self.model.epochs):
            losses.append(self._epoch())
            progress(epoch + 1, self.model.epochs)
            if self.judged is None:
                best = self.network.items
                continue
            checks.append(self._check(self.judged))
            lowest = int(np.argmin(checks))
            if lowest == epoch:
                best = self.network.items.detach().clone()
            if epoch - lowest >= self.model.patience:
                progress(self.model.epochs, self.model.epochs)
                break
        facts = {"epochs": len(losses), "loss": losses}
        if checks:
            facts |= {"best_epoch": int(np.argmin(checks)) + 1, "best_check": round(min(checks), 5)}
        return numbers(best), facts

    def _epoch(self) -> float:
        self.network.train()
        total, targets = 0.0, 0
        for rows in torch.split(self.draws.order(len(self.pieces)), self.model.batch_size):
            loss, count = self._loss(self.pieces, rows.numpy())
            if not count:
                continue
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total, targets = total + float(loss.detach()) * count, targets + count
        return total / max(targets, 1)

    def _check(self, judged: Pieces) -> float:
        self.network.eval()
        total, targets = 0.0, 0
        with torch.no_grad():
            for rows in torch.split(torch.arange(len(judged)), self.model.batch_size):
                loss, count = self._loss(judged, rows.numpy())
                total, targets = total + float(loss) * count, targets + count
        return total / max(targets, 1)

    def _loss(self, pieces: Pieces, rows: Rows) -> tuple[Any, int]:
        """Give the mean loss over the targets of some pieces, and how many there are."""
        wanted = pieces.targets[rows]
        longest = int(np.max(np.nonzero(wanted >= 0)[1], initial=-1)) + 1
        wanted = wanted[:, :longest]
        device = self.model.device
        states = self.network(torch.from_numpy(pieces.inputs[rows, :longest]).long().to(device))
        there = torch.from_numpy(wanted >= 0).to(device)
        states, targets = states[there], torch.from_numpy(wanted[wanted >= 0]).long().to(device)
        table = self.network.items
        if self.model.loss == "ce":
            return F.cross_entropy(states @ table.T, targets), len(targets)
        owners = np.repeat(pieces.users[rows], (wanted >= 0).sum(axis=1))
        positive = (states * table[targets]).sum(dim=1)
        loss = F.softplus(-positive)
        for _ in range(self.model.negatives):
            drawn = torch.from_numpy(unseen(self.draws, owners, self.n_items, self.pairs)).to(device)
            loss = loss + F.softplus((states * table[drawn]).sum(dim=1)) / self.model.negatives
        return loss.mean(), len(targets)
