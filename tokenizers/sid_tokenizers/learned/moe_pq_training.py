"""How the experts of moe_pq.py are trained, in torch. Only `fit` comes here; it gives numpy back.

All randomness comes from one generator of our own, and from the seeds of k-means.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sid_tokenizers.base import Vectors, Weights
from sid_tokenizers.clusters import nearest
from sid_tokenizers.kmeans import kmeans
from sid_tokenizers.learned.moe_pq import MoEPQ
from sid_tokenizers.learned.one_thread import one_thread
from sid_tokenizers.learned.perceptron import Perceptron
from sid_tokenizers.learned.rq_vae_network import Layers, distances, imbalance, mean_loss, pass_gradient
from sid_tokenizers.learned.rq_vae_training import restart_dead
from sid_tokenizers.learned.training import Loop


@dataclass(frozen=True)
class Trained:
    """What training gives; shares: (M,), the mean gate; fill: (M, latent), the mean codes."""

    experts: list[Perceptron]
    decoder: Perceptron
    codebooks: list[Vectors]
    shares: Vectors
    fill: Vectors


class Network(nn.Module):
    """Experts with a codebook each, a gate and a decoder."""

    def __init__(self, dim: int, params: MoEPQ, generator: torch.Generator) -> None:
        """Draw weights; codes are zero until there are outputs to start them from."""
        super().__init__()
        widths = [dim, *params.hidden, params.latent]
        self.experts: Sequence[Layers] = nn.ModuleList(Layers(widths, generator) for _ in params.levels)  # type: ignore[assignment]
        self.codebooks = nn.ParameterList(torch.zeros(k, params.latent) for k in params.levels)
        self.gate = Layers([dim, len(params.levels)], generator)
        self.decoder = Layers(widths[::-1], generator)

    def shares(self, x: Tensor) -> Tensor:
        """Give how much each expert counts: (n, d) -> (n, M), rows adding up to 1."""
        return torch.softmax(self.gate(x), dim=1)


def train(params: MoEPQ, X: Vectors, weight: Weights | None) -> Trained:
    """Train on scaled rows in content order: (n, d). Raises DataError where training diverges."""
    with one_thread():
        return _Training(params, X, weight).run()


class _Training:
    """One run: experts and decoder without codes, then with them, then the decoder alone."""

    def __init__(self, params: MoEPQ, X: Vectors, weight: Weights | None) -> None:
        self.params = params
        self.generator = torch.Generator().manual_seed(params.seed)
        self.network = Network(X.shape[1], params, self.generator)
        self.x = torch.from_numpy(X)
        self.weight = weight
        self.row_weight = None if weight is None else torch.from_numpy(weight.astype(np.float32))

    def run(self) -> Trained:
        params = self.params
        self.loop = self._loop(self.network, params.autoencoder_epochs + params.epochs)
        for _ in range(params.autoencoder_epochs):
            self.loop.epoch(lambda rows: self._loss(rows, coded=False))
        self._start_codebooks()
        for epoch in range(params.epochs):
            if epoch:
                self._restart_dead()
            self.loop.epoch(lambda rows: self._loss(rows, coded=True))
        outputs, books = self._outputs(), self._codebooks()
        taken = [book[nearest(output, book)[0]] for output, book in zip(outputs, books, strict=True)]
        with torch.no_grad():
            shares = self._average(self.network.shares(self.x).numpy())
        self._train_decoder(np.tensordot(shares, np.stack(taken), axes=1))
        experts = [expert.to_numpy() for expert in self.network.experts]
        fill = np.stack([self._average(one) for one in taken])
        return Trained(experts, self.network.decoder.to_numpy(), books, shares, fill)

    def _average(self, rows: Vectors) -> Vectors:
        return np.average(rows, axis=0, weights=self.weight).astype(np.float32)

    def _loop(self, part: nn.Module, epochs: int) -> Loop:
        params = self.params
        return Loop(
            part.parameters(),
            len(self.x),
            name=params.name,
            generator=self.generator,
            epochs=epochs,
            batch_size=params.batch_size,
            learning_rate=params.learning_rate,
            weight_decay=params.weight_decay,
            schedule="linear",
        )

    def _loss(self, rows: Tensor, *, coded: bool) -> Tensor:
        params, network, x = self.params, self.network, self.x[rows]
        outputs = [expert(x) for expert in network.experts]
        shares = network.shares(x)
        errors, passed = x.new_zeros(len(x)), outputs
        if coded:
            taken = [nearest_code(z, book) for z, book in zip(outputs, network.codebooks, strict=True)]
            passed = [pass_gradient(z, q, rotate=False) for z, q in zip(outputs, taken, strict=True)]
            errors = quantization(outputs, taken, params.beta)
        mixed = (shares.T[:, :, None] * torch.stack(passed)).sum(dim=0)
        errors = errors + (network.decoder(mixed) - x).square().mean(dim=1)
        loss = self._mean(errors, rows)
        return loss + params.orthogonality * likeness(outputs) + params.load_balance * imbalance(shares)

    def _mean(self, errors: Tensor, rows: Tensor) -> Tensor:
        return mean_loss(errors, None if self.row_weight is None else self.row_weight[rows])

    def _outputs(self) -> list[Vectors]:
        self.loop.check_parameters()
        with torch.no_grad():
            outputs = [expert(self.x) for expert in self.network.experts]
        self.loop.check(torch.stack([z.square().sum() for z in outputs]))
        return [z.numpy() for z in outputs]

    def _codebooks(self) -> list[Vectors]:
        return [book.detach().numpy().copy() for book in self.network.codebooks]

    def _start_codebooks(self) -> None:
        books = [
            kmeans(output, k, seed=self.params.seed + place, n_init=1, weight=self.weight)
            for place, (output, k) in enumerate(zip(self._outputs(), self.params.levels, strict=True))
        ]
        self._set_codebooks(books)

    def _restart_dead(self) -> None:
        books = self._codebooks()
        for output, book in zip(self._outputs(), books, strict=True):
            restart_dead(output, book)
        self._set_codebooks(books)

    def _set_codebooks(self, books: Sequence[Vectors]) -> None:
        with torch.no_grad():
            for parameter, book in zip(self.network.codebooks, books, strict=True):
                parameter.copy_(torch.from_numpy(book))

    def _train_decoder(self, mixed: Vectors) -> None:
        """Train the decoder alone on what `decode` will give it; codes do not change any more."""
        q = torch.from_numpy(mixed)
        loop = self._loop(self.network.decoder, self.params.decoder_epochs)

        def loss(rows: Tensor) -> Tensor:
            error = (self.network.decoder(q[rows]) - self.x[rows]).square().mean(dim=1)
            return self._mean(error, rows)

        for _ in range(self.params.decoder_epochs):
            loop.epoch(loss)
        loop.check_parameters()


def nearest_code(z: Tensor, book: Tensor) -> Tensor:
    """Give the code that is nearest: (n, e), (K, e) -> (n, e). Its backward adds up in a fixed order."""
    return F.embedding(distances(z.detach(), book.detach()).argmin(dim=1), book)


def quantization(outputs: Sequence[Tensor], taken: Sequence[Tensor], beta: float) -> Tensor:
    """Give codebook and commitment losses by row, the mean over experts."""
    errors = [
        (z.detach() - q).square().mean(dim=1) + beta * (z - q.detach()).square().mean(dim=1)
        for z, q in zip(outputs, taken, strict=True)
    ]
    return torch.stack(errors).mean(dim=0)


def likeness(outputs: Sequence[Tensor]) -> Tensor:
    """Give the mean over pairs of experts of how far a column of one correlates with those of the other.

    Squared correlations are added up, over a batch: 0 where none is there, 1 where the other says it all.
    """
    if len(outputs) < 2 or len(outputs[0]) < 2:
        return outputs[0].new_zeros(())
    centred = [z - z.mean(dim=0) for z in outputs]
    unit = [z / (z.square().sum(dim=0) + 1e-12).sqrt() for z in centred]
    pairs = [(one.T @ other).square().sum(dim=1).mean() for one, other in combinations(unit, 2)]
    return torch.stack(pairs).mean()
