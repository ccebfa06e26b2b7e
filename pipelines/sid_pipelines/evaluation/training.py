"""How a probe is trained: every token of every train event is a target once, in so many steps and no more.

Histories are cut into pieces; one pass over a piece trains all its targets. The last weights are taken, not
the best on any split, so that what is asked has chosen nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import cross_entropy

from sid_pipelines.evaluation.codes import Codes
from sid_pipelines.evaluation.network import Network
from sid_pipelines.evaluation.settings import Settings
from sid_pipelines.probes import Lists
from sid_schemas import DataError
from sid_tokenizers.learned.training import rate_factor

Rows = npt.NDArray[np.int64]
WARMUP = 0.05  # of the steps
TOGETHER = 8  # batches whose pieces are sorted by length, so that little is filled up
CLIP = 1.0  # of the gradient's norm


@dataclass(frozen=True)
class Pieces:
    """Train histories cut into pieces of at most `length` targets.

    starts, stops: where each stands in `items`. known: whether its first item is the last target of the piece
    before.
    """

    items: npt.NDArray[np.int64]
    starts: Rows
    stops: Rows
    known: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, train: Lists, length: int) -> "Pieces":
        """Cut so that every event is a target once; a piece that goes on begins with the item before it.

        The last piece of a user is full, the first has what is left.
        """
        starts, stops, known = [], [], []
        for first, end in zip(train.edges[:-1].tolist(), train.edges[1:].tolist(), strict=True):
            stop = end
            while stop > first:
                start = max(first, stop - length - 1)
                goes_on = start > first
                starts.append(start)
                stops.append(stop)
                known.append(goes_on)
                stop = start + 1 if goes_on else first
        return cls(train.items.astype(np.int64), np.array(starts), np.array(stops), np.array(known))

    def __len__(self) -> int:
        """Give the number of pieces."""
        return len(self.starts)

    def batches(self, size: int, draw: np.random.Generator) -> Iterator[Rows]:
        """Yield the pieces of one epoch after another, without end, those of like length together."""
        sizes = self.stops - self.starts
        while True:
            order = draw.permutation(len(self))
            for begin in range(0, len(order), size * TOGETHER):
                near = order[begin : begin + size * TOGETHER]
                near = near[np.argsort(sizes[near], kind="stable")]
                batches = [near[at : at + size] for at in range(0, len(near), size)]
                for number in draw.permutation(len(batches)):
                    yield batches[number]

    def filled(self, rows: Rows) -> tuple[Rows, npt.NDArray[np.bool_]]:
        """Give pieces as (b, n) items, filled up with item 0 on the right, and which of them are targets."""
        places = self.starts[rows][:, None] + np.arange((self.stops - self.starts)[rows].max())
        there = places < self.stops[rows][:, None]
        items = np.where(there, self.items[np.minimum(places, len(self.items) - 1)], 0)
        there[:, 0] &= ~self.known[rows]
        return items, there


def train(
    codes: Codes, events: Lists, settings: Settings, seed: int, progress: Callable[[int], None]
) -> Network:
    """Train a network in `settings.steps` steps; torch's own seeds stay as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(codes, settings)
        pieces = Pieces.of(events, settings.history)
        if not len(pieces):
            raise DataError("no train events: a probe has nothing to learn from")
        batches = pieces.batches(settings.batch_size, np.random.default_rng(seed))
        tokens, labels = torch.from_numpy(codes.tokens), torch.from_numpy(codes.labels)
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        factor = rate_factor(settings.steps, int(WARMUP * settings.steps), "linear")
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        for step in range(settings.steps):
            items, asked = pieces.filled(next(batches))
            rows = torch.from_numpy(items)
            loss = loss_of(network, tokens[rows], labels[rows], torch.from_numpy(asked))
            if not torch.isfinite(loss):
                raise DataError("the probe's training diverged (its loss is not finite)")
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
            optimizer.step()
            schedule.step()
            progress(step + 1)
    return network.eval()


def loss_of(
    network: Network, tokens: torch.Tensor, labels: torch.Tensor, asked: torch.Tensor
) -> torch.Tensor:
    """Give the mean negative log-likelihood of an item: the sum over the places of its SID.

    tokens, labels: (b, n, W) as `Codes` has them for each item. asked: (b, n) which items are targets.
    """
    rows, items, width = tokens.shape
    states, _ = network(tokens)
    states = states[:, :-1].view(rows, items, width, -1)[asked]
    wanted = labels[asked]
    losses = [
        cross_entropy(
            network.logits(states[:, place], place), wanted[:, place], ignore_index=-1, reduction="sum"
        )
        for place in range(width)
    ]
    return torch.stack(losses).sum() / len(wanted)
