"""What GMC trains on beside the losses of RQ-VAE: a contrast of domains, in batches that hold all of them.

Only `fit` comes here.
"""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sid_tokenizers.learned.rq_vae_network import Losses, Network
from sid_tokenizers.learned.rq_vae_training import Objective

REPEATS = 4  # times that an item of a small domain may come in an epoch

Numbers = npt.NDArray[np.int64]


class DomainContrast(Objective):
    """weight * the supervised contrast of latents by domain; see `GMC` for what is meant.

    domains: (n,) numbers, -1 for none.
    """

    def __init__(
        self, domains: Numbers, *, weight: float, temperature: float, balanced: bool, seed: int
    ) -> None:
        """Keep the domains; rows of an epoch are drawn when it begins."""
        self.domains = torch.from_numpy(domains)
        self.weight, self.temperature, self.balanced = weight, temperature, balanced
        self.draw = np.random.default_rng(seed)
        self.groups = [np.flatnonzero(domains == number) for number in np.unique(domains)]

    def begin(self, network: Network) -> None:
        """Take the domains to where the network is."""
        self.domains = self.domains.to(network.codebooks[0].device)

    def epoch(self, number: int) -> Tensor | None:
        """Give rows domain after domain in turn, or None for a shuffle."""
        if not self.balanced or len(self.groups) < 2:
            return None
        return torch.from_numpy(in_turn(self.groups, self.draw))

    def loss(self, rows: Tensor, found: Losses) -> Tensor | None:
        """Give the contrast by row: (b,)."""
        if not self.weight:
            return None
        return self.weight * contrast(found.z, self.domains[rows], self.temperature)


def contrast(z: Tensor, domains: Tensor, temperature: float) -> Tensor:
    """Give by row (b,) the mean over others of its domain of -log softmax over all others; 0 where none is
    of its domain, or all are. z: (b, e); domains: (b,) numbers, -1 for none.
    """
    unit = F.normalize(z, dim=1)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    logits = (unit @ unit.T / temperature).masked_fill(itself, -torch.inf)
    same = (domains[:, None] == domains) & (domains >= 0)[:, None] & ~itself
    others = same.sum(dim=1)
    felt = (others > 0) & (others < len(z) - 1)
    # Where nothing is summed, what is not finite must not be there for the gradient either.
    log_share = F.log_softmax(logits, dim=1).masked_fill(~same, 0.0)
    return torch.where(felt, -log_share.sum(dim=1) / others.clamp_min(1), 0.0)


def in_turn(groups: list[Numbers], draw: np.random.Generator) -> Numbers:
    """Give as many rows as there are, from all groups evenly, so that any stretch of them is about even.

    A group's rows come shuffled, and again where there are too few, but each at most REPEATS times.
    """
    sizes = np.array([len(group) for group in groups])
    quotas = even_quotas(REPEATS * sizes, int(sizes.sum()))
    rows, places = [], []
    for group, quota in zip(groups, quotas.tolist(), strict=True):
        rounds = [draw.permutation(group) for _ in range(-(-quota // len(group)))]
        rows.append(np.concatenate(rounds)[:quota])
        places.append((np.arange(quota) + draw.random(quota)) / max(quota, 1))
    return np.concatenate(rows)[np.argsort(np.concatenate(places), kind="stable")]


def even_quotas(most: Numbers, total: int) -> Numbers:
    """Share a total out as evenly as it can be where none gets more than its most: (g,) -> (g,).

    >>> even_quotas(np.array([2, 50, 50]), 13).tolist()
    [2, 6, 5]
    """
    quotas = np.zeros_like(most)
    order = np.argsort(most, kind="stable")
    for place, group in enumerate(order.tolist()):
        quotas[group] = min(most[group], -(-total // (len(most) - place)))
        total -= int(quotas[group])
    return quotas
