"""How LightGCN is trained; only its `fit` comes here. One core, so the numbers do not depend on how many."""

import warnings
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sid_pipelines.collaborative.events import TrainEvents
from sid_pipelines.collaborative.lightgcn import LightGCN
from sid_pipelines.collaborative.torch_tools import Draws, check_device, numbers, unseen
from sid_pipelines.stage import Progress
from sid_tokenizers.base import Vectors
from sid_tokenizers.learned.one_thread import one_thread


class Propagation(torch.autograd.Function):
    """The mean over layers 0..K of A^k E. A is symmetric, so the gradient is propagated alike."""

    @staticmethod
    def forward(ctx: Any, factors: Tensor, graph: Tensor, layers: int) -> Tensor:
        """Propagate factors: (users + items, dim)."""
        ctx.graph, ctx.layers = graph, layers
        return mean_of_layers(factors, graph, layers)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Propagate the gradient."""
        return mean_of_layers(gradients[0], ctx.graph, ctx.layers), None, None


def mean_of_layers(factors: Tensor, graph: Tensor, layers: int) -> Tensor:
    """Give (E + A E + ... + A^K E) / (K + 1)."""
    total, current = factors.clone(), factors
    for _ in range(layers):
        current = graph @ current
        total += current
    return total / (layers + 1)


def normalized_graph(counts: Any) -> Any:
    """Give D^-1/2 A D^-1/2 of the graph of users and items, a CSR matrix (users + items,) squared.

    counts: (users, items); an edge counts once, however often a user had the item.
    """
    from scipy.sparse import bmat, diags

    edges = counts.copy()
    edges.data[:] = 1.0
    graph = bmat([[None, edges], [edges.T, None]], format="csr")
    degrees = np.maximum(np.asarray(graph.sum(axis=1)).ravel(), 1.0)
    scale = diags(1 / np.sqrt(degrees))
    scaled = (scale @ graph @ scale).tocsr()
    scaled.sort_indices()
    return scaled


def as_torch(matrix: Any) -> Tensor:
    """Give a CSR matrix as torch has it, float32."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr.astype(np.int64)),
            torch.from_numpy(matrix.indices.astype(np.int64)),
            torch.from_numpy(matrix.data.astype(np.float32)),
            size=matrix.shape,
            check_invariants=True,
        )


def train(model: LightGCN, events: TrainEvents, progress: Progress) -> tuple[Vectors, list[float]]:
    """Give the items' vectors, (n, dim), and the loss of each epoch."""
    check_device(model.device)
    counts = events.matrix()
    scaled = normalized_graph(counts)
    graph = as_torch(scaled).to(model.device)
    positives = counts.tocoo()
    users, items = positives.row.astype(np.int64), positives.col.astype(np.int64)
    pairs = np.sort(users * events.n_items + items)
    with one_thread():
        draws = Draws.seeded(model.seed)
        factors = draws.normal(events.n_users + events.n_items, model.dim, scale=0.1)
        factors = factors.to(model.device).requires_grad_()
        optimizer = torch.optim.Adam([factors], lr=model.learning_rate)
        losses = []
        for epoch in range(model.epochs):
            total = 0.0
            for rows in torch.split(draws.order(len(users)), model.batch_size):
                own = users[rows.numpy()]
                negatives = unseen(draws, own, events.n_items, pairs)
                places = [own, events.n_users + items[rows.numpy()], events.n_users + negatives]
                user, positive, negative = (torch.from_numpy(place).to(model.device) for place in places)
                final = Propagation.apply(factors, graph, model.layers)  # type: ignore[no-untyped-call]
                better = (final[user] * (final[positive] - final[negative])).sum(dim=1)
                first = factors[torch.cat([user, positive, negative])]
                loss: Any = F.softplus(-better).mean() + model.decay * first.square().sum() / (2 * len(rows))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += float(loss.detach()) * len(rows)
            losses.append(total / len(users))
            progress(epoch + 1, model.epochs)
        with torch.no_grad():
            final = mean_of_layers(factors, graph, model.layers)
        return numbers(final[events.n_users :]), losses
