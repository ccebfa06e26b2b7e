"""The network of PRISM in torch, and its losses. Training alone comes here; see prism_training.py.

Losses are by row, (n,), unless they are said to be of the batch.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sid_tokenizers.learned.prism import PRISM
from sid_tokenizers.learned.rq_vae_network import Layers

SPREAD = 0.3  # standard deviation that gates are to have over a batch
SPREAD_WEIGHT = 3.5
TEMPERATURE = 0.15  # of soft codes, on distances


class Network(nn.Module):
    """Gate, encoder, two decoders, and per level a projection of tags into the space of the codes."""

    def __init__(self, content: int, cf: int, params: PRISM, generator: torch.Generator) -> None:
        """Draw weights for so many columns of content and of behaviour."""
        super().__init__()
        inner = [*params.hidden, params.latent]

        def layers(*widths: int) -> Layers:
            return Layers(widths, generator, normed=True)

        self.gate = layers(cf, params.gate_hidden, cf)
        self.encoder = layers(content + cf, *inner)
        self.content_decoder = layers(*inner[::-1], content)
        self.cf_decoder = layers(*inner[::-1], cf)
        self.anchors = nn.ModuleList(layers(content, 2 * params.latent, params.latent) for _ in params.levels)

    def forward(self, content: Tensor, cf: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give gates (n, e), gated behaviour (n, e) and latents (n, latent)."""
        gates = torch.sigmoid(self.gate(cf))
        gated = gates * cf
        fused = torch.cat([content, gated], dim=1)
        return gates, gated, self.encoder(F.layer_norm(fused, fused.shape[1:]))


def turned(decoded: Tensor, target: Tensor) -> Tensor:
    """Give 1 - cosine. The target is held, or the gate would make itself easy to decode."""
    return 1 - F.cosine_similarity(decoded, target.detach(), dim=1)


def gate_error(gates: Tensor, popularity: Tensor) -> Tensor:
    """Give how far mean gates are from popularity, and, for the batch, what their variance lacks."""
    mean = gates.mean(dim=1)
    return (mean - popularity).square() + SPREAD_WEIGHT * F.relu(SPREAD**2 - mean.var(unbiased=False))


def nearness(rows: Tensor, points: Tensor) -> Tensor:
    """Give logits of which point each row is nearest to: (n, e), (k, e) -> (n, k)."""
    return torch.cdist(rows, points) / -TEMPERATURE


def soft_use(rows: Tensor, book: Tensor) -> Tensor:
    """Give how much of each code a row uses: (n, e), (K, e) -> (n, K), rows adding up to 1."""
    return torch.softmax(nearness(rows, book), dim=1)


def anchor_error(projected: Tensor, book: Tensor, residual: Tensor, tags: Tensor) -> Tensor:
    """Give how hard it is to tell items' tags by the anchor that is nearest; 0 for an item without one (-1).

    projected: (tags, e), what the projection makes of each tag's mean content. A tag's anchor is the soft
    code of that: the mean of the codes around it, so that it lies where there are codes.
    """
    anchors = soft_use(projected, book) @ book
    return F.cross_entropy(nearness(residual, anchors), tags, reduction="none", ignore_index=-1)


def commitments(z: Tensor, before: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Give the residuals that levels code, and the sum of mean squared distances to the codes taken."""
    residuals, error = [], z.new_zeros(len(z))
    for taken in before:
        residuals.append(z)
        z = z - taken
        error = error + z.square().mean(dim=1)
    return residuals, error
