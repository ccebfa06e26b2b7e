"""The network of RQ-VAE in torch, and its losses. Training alone comes here; see rq_vae_training.py.

Loss as read in LC-Rec's code: mean((x' - x)^2) plus, per level, mean((sg[r] - q)^2) + beta * mean((r -
sg[q])^2), all means over batch and columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sid_tokenizers.learned.perceptron import Activation, Perceptron
from sid_tokenizers.learned.rq_vae_settings import Settings
from sid_tokenizers.sinkhorn import sinkhorn_codes


class Layers(nn.Module):
    """Linear layers with an activation between; with a shortcut, added to the input and zero at first.

    normed: rows are scaled to mean 0 and variance 1 before each activation.
    """

    def __init__(
        self,
        widths: Sequence[int],
        generator: torch.Generator,
        *,
        shortcut: bool = False,
        normed: bool = False,
        activation: Activation = "relu",
    ) -> None:
        """Draw weights of layers from widths[0] columns to widths[-1]; biases are zero."""
        super().__init__()
        self.shortcut, self.normed, self.activation = shortcut, normed, activation
        self.linear = nn.ModuleList()
        for width, following in pairwise(widths):
            layer = nn.Linear(width, following, device="meta").to_empty(device="cpu")  # draws nothing
            nn.init.xavier_normal_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
            self.linear.append(layer)
        if shortcut:
            nn.init.zeros_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Run the layers: (n, widths[0]) -> (n, widths[-1])."""
        activated = F.relu if self.activation == "relu" else torch.sigmoid
        hidden = x
        for place, layer in enumerate(self.linear):
            if place:
                hidden = activated(F.layer_norm(hidden, hidden.shape[1:]) if self.normed else hidden)
            hidden = layer(hidden)
        return x + hidden if self.shortcut else hidden

    def to_numpy(self) -> Perceptron:
        """Give the layers as a perceptron of numpy arrays."""
        arrays = [array.detach().cpu().numpy().copy() for array in self.parameters()]
        weights, biases = tuple(arrays[::2]), tuple(arrays[1::2])
        return Perceptron(weights, biases, self.shortcut, self.normed, self.activation)


class Network(nn.Module):
    """Encoder, decoder and one codebook per level."""

    def __init__(
        self,
        dim: int,
        levels: Sequence[int],
        settings: Settings,
        generator: torch.Generator,
    ) -> None:
        """Draw xavier-normal weights and U(-1/K, 1/K) codes."""
        super().__init__()
        widths = [dim, *settings.hidden, settings.latent]
        self.encoder = Layers(widths, generator, shortcut=settings.encoder_shortcut)
        self.decoder = Layers(
            widths[::-1],
            generator,
            shortcut=settings.decoder_shortcut,
            activation=settings.decoder_activation,
        )
        self.codebooks = nn.ParameterList(
            torch.empty(k, settings.latent).uniform_(-1 / k, 1 / k, generator=generator) for k in levels
        )


@dataclass(frozen=True)
class Losses:
    """Losses of a batch by row, (n,) each, before weights, and what they came of.

    z: (n, e) latents; codes: (n, L); q: (n, e) their sums, as the decoder got them: the gradient of q goes
    on to z.
    """

    reconstruction: Tensor
    quantization: Tensor
    z: Tensor
    q: Tensor
    codes: Tensor
    crowding: Tensor | None = None

    def by_row(self) -> Tensor:
        """Give the sum of the losses of each row: (n,)."""
        rows = self.reconstruction + self.quantization
        return rows if self.crowding is None else rows + self.crowding


def mean_loss(by_row: Tensor, weight: Tensor | None) -> Tensor:
    """Give the loss of a batch: the mean over rows, weighted where there are weights."""
    if weight is None:
        return by_row.mean()
    return (by_row * weight).sum() / weight.sum().clamp_min(1e-30)


def imbalance(shares: Tensor) -> Tensor:
    """Give how unevenly a batch uses what it shares out: (n, k), rows adding up to 1.

    0 where evenly, k - 1 where one of the k has everything.
    """
    return shares.shape[1] * (shares.mean(dim=0) - 1 / shares.shape[1]).square().sum()


def losses(network: Network, x: Tensor, settings: Settings, *, training: bool = True) -> Losses:
    """Give the losses of a batch x: (n, d). training: with Sinkhorn and `crowding` where they are set."""
    z = network.encoder(x)
    codes, q, quantization = quantize(z, list(network.codebooks), settings, sinkhorn=training)
    crowded = settings.unique * crowding(z, q, codes) if training and settings.unique else None
    q = pass_gradient(z, q, rotate=settings.gradient == "rotation")
    reconstruction = (network.decoder(q) - x).square().mean(dim=1)
    return Losses(reconstruction, quantization, z, q, codes, crowded)


def crowding(z: Tensor, q: Tensor, codes: Tensor) -> Tensor:
    """Give by row (n,) how much nearer it is than it should be to the next row of the batch with its SID.

    1 at distance 0, falling to 0 at twice the root mean squared error of codes, where the last level can
    tell two rows apart. Only rows that collide in this batch feel it, so that neighbourhoods stay.
    Ours; HiD-VAE's uniqueness loss likewise pushes colliding latents apart, by their cosine.
    """
    key = torch.zeros(len(codes), dtype=torch.int64, device=codes.device)
    for column in codes.T:  # the number of this prefix among those there are; never overflows
        key = torch.unique(key * (codes.max() + 1) + column, return_inverse=True)[1]
    order = torch.argsort(key, stable=True)
    same = key[order[1:]] == key[order[:-1]]
    first, second = order[:-1][same], order[1:][same]
    room = 2 * (z.detach() - q).square().sum(dim=1).mean().sqrt().clamp_min(1e-12)
    apart = ((z[first] - z[second]).square().sum(dim=1) + 1e-12).sqrt()
    return torch.zeros_like(z[:, 0]).index_put((first,), F.relu(1 - apart / room))


def quantize(
    z: Tensor, codebooks: Sequence[Tensor], settings: Settings, *, sinkhorn: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Give codes (n, L), their sum q (n, e) without gradient, and the quantization loss by row (n,).

    With residual_grad "none" only level 1's commitment reaches the encoder. In LC-Rec's code that comes
    of subtracting the straight-through output, whose gradient cancels that of the residual.
    """
    residual, total = z, torch.zeros_like(z)
    loss, chosen = z.new_zeros(len(z)), []
    for level, book in enumerate(codebooks):
        far = distances(residual.detach(), book.detach())
        if sinkhorn and settings.sinkhorn > 0 and level == len(codebooks) - 1:
            shared = sinkhorn_codes(far.nan_to_num().cpu().numpy(), eps=settings.sinkhorn)
            codes = torch.from_numpy(shared.astype(np.int64)).to(z.device)
        else:
            codes = far.argmin(dim=1)
        # Its backward adds up in a fixed order, which that of book[codes] does not.
        q = F.embedding(codes, book)
        pull_code = (residual.detach() - q).square().mean(dim=1)
        commit = (residual - q.detach()).square().mean(dim=1)
        loss = loss + pull_code + settings.beta * commit
        total = total + q.detach()
        residual = residual - q.detach()
        if settings.residual_grad == "none":
            residual = residual.detach()
        chosen.append(codes)
    if settings.level_mean:
        loss = loss / len(codebooks)
    return torch.stack(chosen, dim=1), total, loss


def distances(rows: Tensor, book: Tensor) -> Tensor:
    """Give squared L2 distances: (n, e), (K, e) -> (n, K)."""
    norms = rows.square().sum(dim=1, keepdim=True) + book.square().sum(dim=1)
    return torch.addmm(norms, rows, book.T, alpha=-2.0)


def pass_gradient(z: Tensor, q: Tensor, *, rotate: bool) -> Tensor:
    """Give q in forward, and in backward hand the gradient on to z: (n, e), (n, e) -> (n, e).

    Straight through as it is; or, where `rotate`, through the rotation and stretch that take z to q, held
    constant (Fifty et al. 2024, the rotation trick).
    """
    q = q.detach()
    if not rotate:
        return z + (q - z).detach()
    held = z.detach()
    z_norm = held.norm(dim=1, keepdim=True).clamp_min(1e-8)
    q_norm = q.norm(dim=1, keepdim=True)
    from_, to = held / z_norm, q / q_norm.clamp_min(1e-8)
    middle = F.normalize(from_ + to, dim=1)
    turned: Tensor = (
        z - 2 * (z * middle).sum(dim=1, keepdim=True) * middle + 2 * (z * from_).sum(dim=1, keepdim=True) * to
    )
    return turned.mul(q_norm / z_norm)
