"""How the tokens of setrec.py are trained, in torch. Only `fit` comes here; it gives numpy back."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sid_tokenizers.base import Vectors
from sid_tokenizers.learned.one_thread import one_thread
from sid_tokenizers.learned.perceptron import Perceptron
from sid_tokenizers.learned.rq_vae_network import Layers
from sid_tokenizers.learned.setrec import SETRec
from sid_tokenizers.learned.training import Loop


@dataclass(frozen=True)
class Trained:
    """What training gives: the linear layer of behaviour, and the autoencoder of content."""

    cf: Perceptron
    encoder: Perceptron
    decoder: Perceptron


class Network(nn.Module):
    """The layers that make tokens, and those that make content of them again."""

    def __init__(self, content: int, cf: int, params: SETRec, generator: torch.Generator) -> None:
        """Draw weights for so many columns of content and of behaviour."""
        super().__init__()
        widths = [content, *params.hidden, params.n_sem * params.width]
        self.content, self.width = content, params.width
        self.cf = Layers([cf, params.width], generator)
        self.encoder = Layers(widths, generator)
        self.decoder = Layers(widths[::-1], generator)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Give tokens (n, T, h) and the content made of them: (n, d)."""
        semantic = self.encoder(x[:, : self.content])
        tokens = torch.cat([self.cf(x[:, self.content :]), semantic], dim=1)
        return tokens.view(len(x), -1, self.width), self.decoder(semantic)


def train(params: SETRec, X: Vectors, content: int, before: Vectors, known: npt.NDArray[np.bool_]) -> Trained:
    """Train on scaled rows (n, d), the first columns content; before: (n, d), mean rows of what came before.

    known: (n,), where anything did. Raises DataError where training diverges.
    """
    generator = torch.Generator().manual_seed(params.seed)
    with one_thread():
        network = Network(content, X.shape[1] - content, params, generator)
        loop = Loop(
            network.parameters(),
            len(X),
            name=params.name,
            generator=generator,
            epochs=params.epochs,
            batch_size=params.batch_size,
            learning_rate=params.learning_rate,
            weight_decay=params.weight_decay,
            schedule="linear",
        )
        x, queries, asked = torch.from_numpy(X), torch.from_numpy(before), torch.from_numpy(known)

        def loss(rows: Tensor) -> Tensor:
            tokens, decoded = network(x[rows])
            error: Tensor = params.alpha * (decoded - x[rows, :content]).square().mean()
            if not params.ce_weight or not asked[rows].any():
                return error
            own = asked[rows].nonzero()[:, 0]
            return error + params.ce_weight * confusion(network(queries[rows[own]])[0], tokens, own)

        for _ in range(params.epochs):
            loop.epoch(loss)
        loop.check_parameters()
        return Trained(network.cf.to_numpy(), network.encoder.to_numpy(), network.decoder.to_numpy())


def confusion(queries: Tensor, tokens: Tensor, own: Tensor) -> Tensor:
    """Give the cross-entropy of every query's own item among all: (q, T, h), (n, T, h), (q,) rows of tokens.

    Each token's query is asked alone, as in SETRec.
    """
    logits = torch.einsum("qth,nth->tqn", queries, tokens)
    return F.cross_entropy(logits.flatten(0, 1), own.repeat(len(logits)))
