"""How PRISM is trained. Only `fit` comes here; it gives numpy back.

Networks learn by gradient; codebooks follow the latents of each batch as running means, in numpy. All
randomness comes from two generators of our own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sid_tokenizers.base import Vectors, Weights
from sid_tokenizers.catalogue import Rows
from sid_tokenizers.clusters import cluster_means
from sid_tokenizers.learned.one_thread import one_thread
from sid_tokenizers.learned.perceptron import Perceptron
from sid_tokenizers.learned.prism import PRISM
from sid_tokenizers.learned.prism_network import (
    Network,
    anchor_error,
    commitments,
    gate_error,
    soft_use,
    turned,
)
from sid_tokenizers.learned.rq_vae_network import imbalance, mean_loss, pass_gradient
from sid_tokenizers.learned.training import Loop
from sid_tokenizers.rvq_ema import RunningBook, follow_batch, start_books

DEAD = 2.0  # running rows per batch below which a code is dead
LATE = 0.5  # of the anchors' weight stays after phase 1


@dataclass(frozen=True)
class Trained:
    """What training gives: four perceptrons and (K, latent) codebooks."""

    gate: Perceptron
    encoder: Perceptron
    content_decoder: Perceptron
    cf_decoder: Perceptron
    codebooks: list[Vectors]


def train(
    params: PRISM,
    content: Vectors,
    cf: Vectors,
    popularity: Vectors,
    tags: Sequence[Rows],
    weight: Weights | None,
) -> Trained:
    """Train on scaled rows: (n, d), (n, e), popularity (n,) from 0 to 1, tags (n,) by level.

    Raises DataError where training diverges.
    """
    with one_thread():
        return _Training(params, content, cf, popularity, tags, weight).run()


class _Training:
    """One run: an autoencoder alone, then with codes and anchors, then with balance too."""

    def __init__(
        self,
        params: PRISM,
        content: Vectors,
        cf: Vectors,
        popularity: Vectors,
        tags: Sequence[Rows],
        weight: Weights | None,
    ) -> None:
        self.params = params
        generator = torch.Generator().manual_seed(params.seed)
        self.draw = np.random.default_rng(params.seed)
        self.network = Network(content.shape[1], cf.shape[1], params, generator)
        self.content, self.cf, self.popularity = map(torch.from_numpy, (content, cf, popularity))
        self.tags = [torch.from_numpy(one) for one in tags]
        self.tag_content = [torch.from_numpy(tag_means(content, one)) for one in tags]
        self.mass = None if weight is None else weight / weight.mean()
        self.books: list[RunningBook] = []
        self.loop = Loop(
            self.network.parameters(),
            len(cf),
            name=params.name,
            generator=generator,
            epochs=params.warmup_epochs + params.epochs,
            batch_size=params.batch_size,
            learning_rate=params.learning_rate,
            weight_decay=params.weight_decay,
            schedule="linear",
        )

    def run(self) -> Trained:
        params = self.params
        for _ in range(params.warmup_epochs):
            self.loop.epoch(self._uncoded_loss)
        self.books = start_books(self._latents(), params.levels, self.mass, self.draw)
        for epoch in range(params.epochs):
            early = epoch < params.phase1_epochs
            self.anchor_weight = params.anchor_weight * (1.0 if early else LATE)
            self.balance_weight = 0.0 if early else params.balance_weight
            self.loop.epoch(self._coded_loss)
        self._latents()  # raises where they are not finite
        return Trained(
            gate=self.network.gate.to_numpy(),
            encoder=self.network.encoder.to_numpy(),
            content_decoder=self.network.content_decoder.to_numpy(),
            cf_decoder=self.network.cf_decoder.to_numpy(),
            codebooks=[book.vectors for book in self.books],
        )

    def _latents(self) -> Vectors:
        self.loop.check_parameters()
        with torch.no_grad():
            _, _, z = self.network(self.content, self.cf)
        self.loop.check(z.square().sum(dim=1))
        latents: Vectors = z.numpy()
        return latents

    def _uncoded_loss(self, rows: Tensor) -> Tensor:
        gates, gated, z = self.network(self.content[rows], self.cf[rows])
        return self._mean(self._outer_errors(rows, gates, gated, z), rows)

    def _coded_loss(self, rows: Tensor) -> Tensor:
        gates, gated, z = self.network(self.content[rows], self.cf[rows])
        self.loop.check(z)
        before = self._follow(z, rows)
        residuals, commitment = commitments(z, before)
        passed = pass_gradient(z, torch.stack(before).sum(dim=0), rotate=True)
        errors = self._outer_errors(rows, gates, gated, passed) + self.params.beta * commitment
        return self._mean(errors + self._code_errors(residuals, rows), rows)

    def _outer_errors(self, rows: Tensor, gates: Tensor, gated: Tensor, z: Tensor) -> Tensor:
        """Give reconstruction and gate errors by row."""
        params, network = self.params, self.network
        errors = params.content_weight * turned(network.content_decoder(z), self.content[rows])
        errors = errors + params.cf_weight * turned(network.cf_decoder(z), gated)
        return errors + params.gate_weight * gate_error(gates, self.popularity[rows])

    def _follow(self, z: Tensor, rows: Tensor) -> list[Tensor]:
        """Let the codebooks follow a batch; give what its codes stood for before, by level."""
        before = follow_batch(
            self.books,
            z.detach().numpy(),
            None if self.mass is None else self.mass[rows.numpy()],
            self.draw,
            decay=self.params.decay,
            dead_threshold=DEAD if self.params.restart else 0.0,
        )
        return [torch.from_numpy(one) for one in before]

    def _code_errors(self, residuals: Sequence[Tensor], rows: Tensor) -> Tensor:
        """Give what anchors and balance ask of the residuals, by row."""
        errors = torch.zeros(len(rows))
        for level, residual in enumerate(residuals):
            book = torch.from_numpy(self.books[level].vectors)
            if self.anchor_weight and len(self.tag_content[level]):
                projected = self.network.anchors[level](self.tag_content[level])
                error = anchor_error(projected, book, residual, self.tags[level][rows])
                errors = errors + self.anchor_weight * error
            if self.balance_weight:
                errors = errors + self.balance_weight * imbalance(soft_use(residual, book))
        return errors

    def _mean(self, errors: Tensor, rows: Tensor) -> Tensor:
        weight = None if self.mass is None else torch.from_numpy(self.mass[rows.numpy()].astype(np.float32))
        return mean_loss(errors, weight)


def tag_means(content: Vectors, tags: Rows) -> Vectors:
    """Give the mean content of each tag's items: (n, d), (n,) numbers or -1 -> (tags, d)."""
    tagged = tags >= 0
    return cluster_means(content[tagged], tags[tagged].astype(np.int32), int(tags.max(initial=-1)) + 1, None)[
        0
    ]
