"""What LETTER trains on beside the losses of RQ-VAE: alignment with behaviour, and diversity of codes.

Both as read in LETTER's code. Only `fit` comes here.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sid_tokenizers.balanced import balanced_kmeans
from sid_tokenizers.base import Vectors
from sid_tokenizers.learned.rq_vae_network import Losses, Network
from sid_tokenizers.learned.rq_vae_training import Objective


class LetterObjective(Objective):
    """cf_weight * alignment + diversity_weight * the levels' mean diversity.

    cf: (n, latent) behaviour vectors, zeros where a row has none. clusters: groups of each codebook.
    """

    def __init__(
        self, cf: Vectors, *, cf_weight: float, diversity_weight: float, clusters: int, seed: int
    ) -> None:
        """Keep what is aligned with; the codebooks are not there yet."""
        self.cf = torch.from_numpy(cf)
        self.cf_weight, self.diversity_weight = cf_weight, diversity_weight
        self.clusters, self.seed = clusters, seed
        self.generator = torch.Generator().manual_seed(seed)
        self.groups: list[Groups] = []

    def begin(self, network: Network) -> None:
        """Take the codebooks, and behaviour to where they are."""
        self.books = list(network.codebooks)
        self.cf = self.cf.to(self.books[0].device)

    def epoch(self, number: int) -> None:
        """Group the codes as they lie now."""
        if self.diversity_weight:
            arrays = [book.detach().cpu().numpy() for book in self.books]
            self.groups = [Groups(array, self.clusters, self.seed) for array in arrays]

    def loss(self, rows: Tensor, found: Losses) -> Tensor:
        """Give both terms by row: (b,)."""
        loss = torch.zeros_like(found.reconstruction)
        if self.cf_weight:
            loss = loss + self.cf_weight * alignment(found.q, self.cf[rows])
        if self.diversity_weight:
            for level, (book, groups) in enumerate(zip(self.books, self.groups, strict=True)):
                if len(book) < 2:
                    continue
                codes = found.codes[:, level]
                others = groups.others(codes.cpu(), self.generator).to(codes.device)
                share = self.diversity_weight / len(self.books)
                loss = loss + share * diversity(book, codes, others)
        return loss


def alignment(q: Tensor, cf: Tensor) -> Tensor:
    """Give by row (b,) the cross-entropy of its own behaviour among the batch's: (b, e), (b, e).

    Rows without behaviour are neither asked nor there to be chosen.
    """
    there = cf.any(dim=1)
    logits = (q @ cf.T).masked_fill(~there, -torch.inf)
    loss = torch.zeros_like(q[:, 0])
    own = torch.arange(len(q), device=q.device)[there]
    return loss.index_put((own,), F.cross_entropy(logits[there], own, reduction="none"))


def diversity(book: Tensor, codes: Tensor, others: Tensor) -> Tensor:
    """Give by row (b,) the cross-entropy of another code of its code's group, among all but its own."""
    own = F.one_hot(codes, len(book)).bool()
    logits = (F.embedding(codes, book) @ book.T).masked_fill(own, -torch.inf)
    return F.cross_entropy(logits, others, reduction="none")


class Groups:
    """The codes of a codebook in groups of equal size, or one more."""

    def __init__(self, book: Vectors, clusters: int, seed: int) -> None:
        """Group them by balanced k-means; a group has two codes at least, where there are two."""
        clusters = max(min(clusters, len(book) // 2), 1)
        _, labels = balanced_kmeans(
            book, clusters, method="greedy", seed=seed, n_init=1, max_iter=10, tol=1e-3
        )
        group = torch.from_numpy(labels.astype("int64"))
        self.members = torch.argsort(group, stable=True)  # group after group
        sizes = torch.bincount(group, minlength=clusters)
        starts = sizes.cumsum(0) - sizes
        self.size, self.start = sizes[group], starts[group]
        self.place = torch.empty_like(group)
        self.place[self.members] = torch.arange(len(book))
        self.place -= self.start

    def others(self, codes: Tensor, generator: torch.Generator) -> Tensor:
        """Draw for each code another one of its group, itself only where it is alone: (b,) -> (b,)."""
        size = self.size[codes]
        step = 1 + (torch.rand(len(codes), generator=generator) * (size - 1)).long()
        return self.members[self.start[codes] + (self.place[codes] + step) % size]
