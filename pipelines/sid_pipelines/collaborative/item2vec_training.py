"""How item2vec is trained; only its `fit` comes here. One core, so the numbers do not depend on how many."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from sid_pipelines.collaborative.events import TrainEvents
from sid_pipelines.collaborative.item2vec import Item2Vec, keep_chance, skip_grams
from sid_pipelines.collaborative.torch_tools import Draws, numbers
from sid_pipelines.stage import Progress
from sid_tokenizers.base import Vectors
from sid_tokenizers.learned.one_thread import one_thread


def train(model: Item2Vec, events: TrainEvents, progress: Progress) -> tuple[Vectors, Vectors, list[float]]:
    """Give in vectors, out vectors, each (n, dim), and the loss of each epoch."""
    with one_thread():
        draws = Draws.seeded(model.seed)
        draw = np.random.default_rng(model.seed)
        n = events.n_items
        inner = draws.normal(n, model.dim, scale=0.1).requires_grad_()
        outer = draws.normal(n, model.dim, scale=0.1).requires_grad_()
        # Sparse gradients: a step costs what its batch costs, however many items there are.
        optimizer: Any = torch.optim.SparseAdam([inner, outer], lr=model.learning_rate)
        chance = keep_chance(events.popularity, model.subsample)[events.items]
        noise = events.popularity.astype(np.float64) ** model.smoothing
        cumulative = np.cumsum(noise / noise.sum())
        weight = model.negatives / model.shared
        losses = []
        for epoch in range(model.epochs):
            kept = draw.random(len(events)) < chance
            pairs = torch.from_numpy(skip_grams(events.users[kept], events.items[kept], model.window))
            total = 0.0
            for rows in torch.split(draws.order(len(pairs)), model.batch_size):
                centre, context = pairs[rows].long().unbind(dim=1)
                drawn = np.minimum(np.searchsorted(cumulative, draw.random(model.shared)), n - 1)
                negative = F.embedding(torch.from_numpy(drawn), outer, sparse=True)
                v = F.embedding(centre, inner, sparse=True)
                u = F.embedding(context, outer, sparse=True)
                loss: Any = -F.logsigmoid((v * u).sum(dim=1)).sum()
                loss = loss + weight * F.softplus(v @ negative.T).sum()
                optimizer.zero_grad()
                (loss / len(rows)).backward()
                optimizer.step()
                total += float(loss.detach())
            losses.append(total / max(len(pairs), 1))
            progress(epoch + 1, model.epochs)
        return numbers(inner), numbers(outer), losses
