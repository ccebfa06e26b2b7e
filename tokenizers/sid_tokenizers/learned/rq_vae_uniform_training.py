"""How soft residual quantization is trained. Only `fit` comes here; it gives numpy back.

Unlike rq_vae_training.py there is nothing to refit, restart or choose from: the codes follow the gradient.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sid_tokenizers.base import Vectors, Weights
from sid_tokenizers.clusters import nearest
from sid_tokenizers.learned.one_thread import one_thread
from sid_tokenizers.learned.rq_vae_network import Network, distances, mean_loss
from sid_tokenizers.learned.rq_vae_training import Trained, check_present, residual_codebooks
from sid_tokenizers.learned.training import Loop

if TYPE_CHECKING:
    from sid_tokenizers.learned.rq_vae_uniform import RQVAEUniform

EPSILON = 1e-10  # added before the logarithm, as UniGRec does


def train(params: "RQVAEUniform", X: Vectors, weight: Weights | None) -> tuple[Trained, float]:
    """Train on scaled rows (n, d) and give what was learned and the last temperature.

    Raises DataError where training diverges, or the device is not there.
    """
    check_present(params.device)
    with one_thread():
        return _Training(params, X, weight).run()


class _Training:
    """One run: an autoencoder alone, codebooks by k-means, then soft codes that grow harder."""

    def __init__(self, params: "RQVAEUniform", X: Vectors, weight: Weights | None) -> None:
        settings = params.settings
        generator = torch.Generator().manual_seed(params.seed)
        self.params, self.weight = params, weight
        self.network = Network(X.shape[1], params.levels, settings, generator).to(params.device)
        self.x = torch.from_numpy(X).to(params.device)
        mass = np.ones(len(X)) if weight is None else weight / weight.mean()
        self.mass = torch.from_numpy(mass.astype(np.float32)).to(params.device)
        self.alone, self.joint = settings.autoencoder_epochs, settings.epochs
        self.loop = Loop(
            self.network.parameters(),
            len(X),
            name=params.name,
            generator=generator,
            epochs=self.alone + self.joint,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            optimizer=settings.optimizer,
            schedule=settings.schedule,
            schedule_warmup=settings.schedule_warmup,
            clip=settings.clip,
            device=params.device,
        )
        self.temperature = 0.0

    def run(self) -> tuple[Trained, float]:
        for _ in range(self.alone):
            self.loop.epoch(self._autoencoder_loss)
        unit = self._start()
        warm, cold = self.params.warm * unit, self.params.cold * unit
        self.temperature = cold
        for epoch in range(self.joint):
            self.temperature = warm + (cold - warm) * epoch / max(self.joint - 1, 1)
            self.loop.epoch(self._loss)
        self.loop.check_parameters()
        books = [book.detach().cpu().numpy().copy() for book in self.network.codebooks]
        encoder, decoder = self.network.encoder.to_numpy(), self.network.decoder.to_numpy()
        return Trained(encoder, decoder, books, np.empty((0, 3))), self.temperature

    def _start(self) -> float:
        """Put the codes where latents are, and give the mean squared distance to those of level 1."""
        with torch.no_grad():
            latents = self.network.encoder(self.x).cpu()
        self.loop.check(latents.square().sum(dim=1))
        params, Z = self.params, latents.numpy()
        books = residual_codebooks(Z, self.weight, levels=params.levels, seed=params.seed)
        with torch.no_grad():
            for parameter, book in zip(self.network.codebooks, books, strict=True):
                parameter.copy_(torch.from_numpy(book))
        # Where every row has a code of its own, any small temperature will do.
        far = float(nearest(Z, books[0])[1].mean())
        return max(far, 1e-3 * float(np.square(Z).sum(axis=1).mean()), 1e-6)

    def _autoencoder_loss(self, rows: Tensor) -> Tensor:
        return self._error(rows, self.network.encoder(self.x[rows]))

    def _error(self, rows: Tensor, latents: Tensor) -> Tensor:
        error = (self.network.decoder(latents) - self.x[rows]).square().mean(dim=1)
        return mean_loss(error, self.mass[rows])

    def _loss(self, rows: Tensor) -> Tensor:
        z = self.network.encoder(self.x[rows])
        residual, unevenness = z, z.new_zeros(())
        for book in self.network.codebooks:
            share = torch.softmax(distances(residual, book) / -self.temperature, dim=1)
            unevenness = unevenness + negative_entropy(share, self.mass[rows])
            residual = residual - share @ book
        weight = self.params.uniformity / len(self.network.codebooks)
        loss: Tensor = self._error(rows, z - residual) + weight * unevenness
        return loss


def negative_entropy(share: Tensor, mass: Tensor) -> Tensor:
    """Give sum_k m_k ln m_k of the mean m of shares (b, K); -ln K where codes are used evenly, 0 at most."""
    mean = (share * mass[:, None]).sum(dim=0) / mass.sum().clamp_min(1e-30)
    total: Tensor = (mean * (mean + EPSILON).log()).sum()
    return total
