"""How the graph fusion is trained, in plain torch: two SAGEConv over a sparse matrix, and BPR.

Only its `fit` comes here. All nodes go through the network in every step, which is cheap while events are
some millions.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sid_pipelines.collaborative.lightgcn_training import as_torch
from sid_pipelines.collaborative.torch_tools import Draws, numbers, unseen
from sid_pipelines.fusion.graph import Graph
from sid_pipelines.fusion.inputs import Arrays
from sid_pipelines.fusion.training import descend
from sid_tokenizers import Events
from sid_tokenizers.base import Vectors
from sid_tokenizers.learned.one_thread import one_thread


def train(graph: Graph, content: Vectors, events: Events) -> tuple[Arrays, Vectors, dict[str, Any]]:
    """Give the network by name, the vectors of all items (n, dim), and facts.

    content: (n, d); events: of these items.
    """
    with one_thread():
        return _Training(graph, content, events).run()


class Sums(torch.autograd.Function):
    """The sum over each node's neighbours; the graph is symmetric, so the gradient is summed alike."""

    @staticmethod
    def forward(ctx: Any, nodes: Tensor, graph: Tensor) -> Tensor:
        """Give A x: (nodes, d)."""
        ctx.graph = graph
        return graph @ nodes

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Give A g."""
        return ctx.graph @ gradients[0], None


class _Training:
    """Nodes are users first, then items."""

    def __init__(self, graph: Graph, content: Vectors, events: Events) -> None:
        self.graph, self.n_items = graph, len(content)
        self.content = torch.from_numpy(np.ascontiguousarray(content, dtype=np.float32))
        people, users = np.unique(events.users, return_inverse=True)
        self.pairs = np.unique(users.astype(np.int64) * self.n_items + events.items)
        self.users, self.items = self.pairs // self.n_items, self.pairs % self.n_items
        self.n_users = len(people)
        self.ends = torch.from_numpy(np.stack([self.users, self.n_users + self.items]))
        self.edges = self._edges()
        self.degrees = torch.bincount(self.ends.flatten(), minlength=self.n_users + self.n_items)
        self.draws = Draws.seeded(graph.seed)
        self.network = self._network(content.shape[1])

    def _edges(self) -> Tensor:
        """Give the matrix that takes nodes to the sums of their neighbours."""
        from scipy.sparse import coo_array

        both = np.concatenate([self.ends, self.ends.flip(0)], axis=1)
        n = self.n_users + self.n_items
        edges = coo_array((np.ones(both.shape[1], dtype=np.float32), both), shape=(n, n)).tocsr()
        edges.sort_indices()
        return as_torch(edges)

    def _network(self, width: int) -> dict[str, Tensor]:
        hidden, dim = self.graph.hidden, self.graph.dim
        shapes = {
            "project": (hidden, width),
            "users": (self.n_users, hidden),
            "first_own": (hidden, hidden),
            "first_around": (hidden, hidden),
            "second_own": (dim, hidden),
            "second_around": (dim, hidden),
        }
        network = {
            name: self.draws.normal(*shape, scale=(2 / sum(shape)) ** 0.5) for name, shape in shapes.items()
        }
        network |= {"first_bias": torch.zeros(hidden), "second_bias": torch.zeros(dim)}
        for tensor in network.values():
            tensor.requires_grad_()
        return network

    def run(self) -> tuple[Arrays, Vectors, dict[str, Any]]:
        graph = self.graph
        losses = descend(
            list(self.network.values()), len(self.pairs), self._loss, graph.schedule, name=graph.name
        )
        with torch.no_grad():
            vectors = numbers(self._nodes(without=self.ends[:, :0], dropout=0.0)[self.n_users :])
        alone = self.n_items - len(np.unique(self.items))
        facts = {
            "losses": {"first": losses[0], "last": losses[-1], "epochs": len(losses)},
            "edges": len(self.pairs),
            "users": self.n_users,
            "fit_items_without_edges": alone,
        }
        kept = {name: numbers(tensor) for name, tensor in self.network.items() if name != "users"}
        return kept, vectors, facts

    def _loss(self, rows: Tensor) -> Tensor:
        """Give BPR's loss of some pairs of user and item, whose own edges are not there: (b,) row numbers."""
        chosen = rows.numpy()
        nodes = self._nodes(without=self.ends[:, rows], dropout=self.graph.dropout)
        users = np.repeat(self.users[chosen], self.graph.negatives)
        negatives = unseen(self.draws, users, self.n_items, self.pairs)
        user, positive = nodes[self.ends[0, rows]], nodes[self.ends[1, rows]]
        negative = nodes[torch.from_numpy(self.n_users + negatives)].view(len(rows), -1, nodes.shape[1])
        better = ((positive[:, None] - negative) * user[:, None]).sum(dim=2)
        return F.softplus(-better).mean()

    def _nodes(self, *, without: Tensor, dropout: float) -> Tensor:
        """Run the network: (users + items, dim). without: (2, b) ends of edges that are left out."""
        items = self.content @ self.network["project"].T
        nodes = torch.cat([self.network["users"], items])
        first = F.leaky_relu(self._sage("first", nodes, without))
        return self._sage("second", self.draws.dropped(first, dropout), without)

    def _sage(self, layer: str, nodes: Tensor, without: Tensor) -> Tensor:
        own = torch.addmm(self.network[f"{layer}_bias"], nodes, self.network[f"{layer}_own"].T)
        if not self.graph.neighbours:
            return own
        return own + self._means(nodes, without) @ self.network[f"{layer}_around"].T

    def _means(self, nodes: Tensor, without: Tensor) -> Tensor:
        """Give the mean of each node's neighbours, 0 where it has none."""
        total: Tensor = Sums.apply(nodes, self.edges)  # type: ignore[no-untyped-call]
        ends, others = torch.cat([without, without.flip(0)], dim=1)
        total = total.index_add(0, ends, nodes[others], alpha=-1)
        degrees = self.degrees - torch.bincount(ends, minlength=len(nodes))
        # What is left of a sum without its only terms is rounding.
        return torch.where(degrees[:, None] > 0, total / degrees.clamp_min(1)[:, None], 0.0)
