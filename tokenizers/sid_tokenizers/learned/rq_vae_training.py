"""How RQ-VAE is trained. Only `fit` comes here; it gives numpy back.

All randomness comes from one generator of our own, so the user's torch seeds stay as they were. On a CPU
it runs on one core, so the numbers do not depend on how many there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sid_schemas import DataError
from sid_tokenizers.base import Vectors, Weights
from sid_tokenizers.clusters import cluster_means, nearest
from sid_tokenizers.kmeans import kmeans
from sid_tokenizers.learned.one_thread import one_thread
from sid_tokenizers.learned.perceptron import Perceptron
from sid_tokenizers.learned.rq_vae_network import Losses, Network, distances, losses, mean_loss, quantize
from sid_tokenizers.learned.rq_vae_settings import Settings
from sid_tokenizers.learned.training import Loop

BLOCK = 8192  # rows per pass where no gradient is needed
REFIT_ROWS = 64  # per code, from which codebooks are refit
POLISH_RATE = 1e-3  # of the decoder alone
EVEN_STEPS = 50  # turns of rows and columns in `even_codes`


@dataclass(frozen=True)
class Trained:
    """What training gives: two perceptrons, (K, e) codebooks, and (checks, 3) epoch, collisions, loss."""

    encoder: Perceptron
    decoder: Perceptron
    codebooks: list[Vectors]
    history: npt.NDArray[np.float64]


class Objective:
    """What a scheme trains on beside the losses of the RQ-VAE; this one adds nothing.

    A scheme that is the RQ-VAE and something more says here what; all is called while codes are trained,
    not before and not while the decoder is polished.
    """

    def begin(self, network: Network) -> None:
        """Look at the network as it is when it gets its first codes."""

    def epoch(self, number: int) -> Tensor | None:
        """Get ready for an epoch, 1 the first; give its rows in the order of batches, or None to shuffle."""
        return None

    def loss(self, rows: Tensor, found: Losses) -> Tensor | None:
        """Give the loss by row (b,) that is added for a batch, or None. rows: (b,) row numbers."""
        return None


def train(
    X: Vectors,
    weight: Weights | None,
    *,
    name: str,
    levels: Sequence[int],
    seed: int,
    settings: Settings,
    device: str = "cpu",
    start: Sequence[Vectors] | None = None,
    objective: Objective | None = None,
) -> Trained:
    """Train on scaled rows in an order of their own: (n, d) float32.

    name: of the tokenizer, for messages. start: codebooks to begin with, else those that the settings
    ask for. objective: what else is trained on; its row numbers are those of X. Raises DataError where
    training diverges, or the device is not there.
    """
    check_present(device)
    objective = objective or Objective()
    with one_thread():
        return _Training(X, weight, name, levels, seed, settings, device, start, objective).run()


def check_present(device: str) -> None:
    """Raise DataError where torch cannot compute on the device."""
    try:
        torch.zeros(1, device=device)
    except (AssertionError, RuntimeError) as error:
        raise DataError(f"device: torch cannot use {device!r} on this machine") from error


class _Training:
    """One run: an autoencoder alone, then with codebooks, then the decoder alone; the best check is kept."""

    def __init__(
        self,
        X: Vectors,
        weight: Weights | None,
        name: str,
        levels: Sequence[int],
        seed: int,
        settings: Settings,
        device: str,
        start: Sequence[Vectors] | None,
        objective: Objective,
    ) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.draw = np.random.default_rng(seed)
        self.name = name
        self.levels, self.seed, self.settings, self.device = levels, seed, settings, device
        self.network = Network(X.shape[1], levels, settings, self.generator).to(device)
        self.x = torch.from_numpy(X).to(device)
        mass = None if weight is None else weight / weight.mean()
        self.weight = mass
        self.row_weight = None if mass is None else torch.from_numpy(mass.astype(np.float32)).to(device)
        self.start, self.objective = start, objective
        self.alone, self.joint = settings.paced(ceil(len(X) / settings.batch_size))
        self.loop = self._loop(self.network, self.alone + self.joint, settings.learning_rate)
        self.history: list[tuple[int, int, float]] = []
        self.best: dict[str, Tensor] | None = None

    def _loop(self, part: nn.Module, epochs: int, rate: float) -> Loop:
        settings = self.settings
        return Loop(
            part.parameters(),
            len(self.x),
            name=self.name,
            generator=self.generator,
            epochs=epochs,
            batch_size=settings.batch_size,
            learning_rate=rate,
            weight_decay=settings.weight_decay,
            optimizer=settings.optimizer,
            schedule=settings.schedule,
            schedule_warmup=settings.schedule_warmup,
            clip=settings.clip,
            device=self.device,
        )

    def run(self) -> Trained:
        for _ in range(self.alone):
            self.loop.epoch(self._autoencoder_loss)
        if self.start is not None:
            self._set_codebooks(self.start)
        elif self.settings.kmeans_init:
            self._set_codebooks(self._kmeans_codebooks())
        self.objective.begin(self.network)
        for epoch in range(1, self.joint + 1):
            self.loop.epoch(self._loss, self.objective.epoch(epoch))
            if epoch % self.settings.check_every == 0 or epoch == self.joint:
                self._tend(last=epoch == self.joint)
                self._check(epoch)
        if self.best is not None:
            self.network.load_state_dict(self.best)
            self._polish()
        return self._trained()

    def _loss(self, rows: Tensor) -> Tensor:
        found = losses(self.network, self.x[rows], self.settings)
        more = self.objective.loss(rows, found)
        by_row = found.by_row() if more is None else found.by_row() + more
        return mean_loss(by_row, self._weights(rows))

    def _autoencoder_loss(self, rows: Tensor) -> Tensor:
        return self._decoder_loss(rows, self.network.encoder(self.x[rows]))

    def _decoder_loss(self, rows: Tensor, latents: Tensor) -> Tensor:
        error = (self.network.decoder(latents) - self.x[rows]).square().mean(dim=1)
        return mean_loss(error, self._weights(rows))

    def _weights(self, rows: Tensor) -> Tensor | None:
        return None if self.row_weight is None else self.row_weight[rows]

    def _latents(self) -> Vectors:
        with torch.no_grad():
            parts = [self.network.encoder(block).cpu() for block in torch.split(self.x, BLOCK)]
        latents = torch.cat(parts)
        self.loop.check(latents.square().sum(dim=1))
        return latents.numpy()

    def _codebooks(self) -> list[Vectors]:
        return [book.detach().cpu().numpy().copy() for book in self.network.codebooks]

    def _set_codebooks(self, books: Sequence[Vectors]) -> None:
        with torch.no_grad():
            for parameter, book in zip(self.network.codebooks, books, strict=True):
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(book)))

    def _sample(self, most: int) -> tuple[Vectors, Weights | None]:
        """Give latents and weights of at most so many rows, drawn but in their order; 0 for all."""
        Z = self._latents()
        if not 0 < most < len(Z):
            return Z, self.weight
        rows = np.sort(self.draw.choice(len(Z), most, replace=False))
        return Z[rows], None if self.weight is None else self.weight[rows]

    def _kmeans_codebooks(self) -> list[Vectors]:
        most = max(self.settings.kmeans_rows, *self.levels) if self.settings.kmeans_rows else 0
        latents, weight = self._sample(most)
        return residual_codebooks(latents, weight, levels=self.levels, seed=self.seed)

    def _tend(self, *, last: bool) -> None:
        """Refit the codebooks to where latents are now, and bring unused codes back."""
        settings = self.settings
        # A code put somewhere by hand in the last step has had no training after it: only refits do that.
        if not settings.refit_steps and (last or not settings.restart_dead):
            return
        self.loop.check_parameters()
        residual, weight = self._sample(REFIT_ROWS * max(self.levels))
        books = self._codebooks()
        for book in books:
            for _ in range(settings.refit_steps):
                codes = even_codes(residual, book, settings.balance) if settings.balance else None
                codes = nearest(residual, book)[0] if codes is None else codes
                means, totals = cluster_means(residual, codes, len(book), weight)
                book[totals > 0] = means[totals > 0]
            if settings.restart_dead:
                restart_dead(residual, book)
            residual = residual - book[nearest(residual, book)[0]]
        self._set_codebooks(books)

    def _check(self, epoch: int) -> None:
        """Note collisions and loss over all rows, and keep the state where they are the lowest so far."""
        codes, total, mass = [], 0.0, 0.0
        with torch.no_grad():
            for rows in torch.split(torch.arange(len(self.x), device=self.device), BLOCK):
                found = losses(self.network, self.x[rows], self.settings, training=False)
                weight = self._weights(rows)
                share = float(len(rows) if weight is None else weight.sum())
                total, mass = total + float(mean_loss(found.by_row(), weight)) * share, mass + share
                codes.append(found.codes.cpu().numpy())
        collisions = len(self.x) - len(np.unique(np.concatenate(codes), axis=0))
        entry = (epoch, collisions, total / mass)
        self.loop.check(torch.tensor(entry[2]))
        eligible = epoch >= self.settings.keep_from * self.joint
        others = [past[1:] for past in self.history if past[0] >= self.settings.keep_from * self.joint]
        if eligible and (not others or entry[1:] < min(others)):
            self.best = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.history.append(entry)

    def _polish(self) -> None:
        """Train the decoder alone on the codes as they are now; SIDs do not change any more."""
        epochs = min(self.settings.polish_epochs, self.joint)
        if not epochs:
            return
        with torch.no_grad():
            books = list(self.network.codebooks)
            parts = [
                quantize(self.network.encoder(block), books, self.settings, sinkhorn=False)[1]
                for block in torch.split(self.x, BLOCK)
            ]
        q = torch.cat(parts)
        polish = self._loop(self.network.decoder, epochs, POLISH_RATE)
        for _ in range(epochs):
            polish.epoch(lambda rows: self._decoder_loss(rows, q[rows]))

    def _trained(self) -> Trained:
        self.loop.check_parameters()
        return Trained(
            self.network.encoder.to_numpy(),
            self.network.decoder.to_numpy(),
            self._codebooks(),
            np.array(self.history, dtype=np.float64).reshape(-1, 3),
        )


def residual_codebooks(
    latents: Vectors, weight: Weights | None, *, levels: Sequence[int], seed: int
) -> list[Vectors]:
    """Give codebooks to begin with: k-means of what the levels before left over of latents (n, e)."""
    books = []
    for level, k in enumerate(levels):
        book = kmeans(latents, k, seed=seed + level, n_init=1, weight=weight)
        latents = latents - book[nearest(latents, book)[0]]
        books.append(book)
    return books


def restart_dead(residual: Vectors, book: Vectors) -> None:
    """Move each unused code to one of the rows that lie farthest from their codes, in place.

    Equal rows count once, so that no two codes are put on the same spot.
    """
    codes, far = nearest(residual, book)
    dead = np.flatnonzero(np.bincount(codes, minlength=len(book)) == 0)
    if not len(dead):
        return
    order = np.argsort(-far, kind="stable")
    order = order[far[order] > 0][: 8 * len(dead)]
    first = np.sort(np.unique(residual[order], axis=0, return_index=True)[1])
    chosen = order[first][: len(dead)]
    book[dead[: len(chosen)]] = residual[chosen]


def even_codes(residual: Vectors, book: Vectors, epsilon: float) -> npt.NDArray[np.int32]:
    """Give codes that spread rows about evenly: (n, e), (K, e) -> (n,) int32.

    Sinkhorn as in `sinkhorn.sinkhorn_codes`, but in plain numbers, twenty times faster and good for
    epsilon >= 0.003; it is called dozens of times on all rows. Each row's largest term is made 1, which
    the scaling of rows would undo anyway, so no row runs out of numbers.
    """
    far = distances(torch.from_numpy(residual), torch.from_numpy(book)).double()
    high, low = far.max(), far.min()
    logits = far / -((high - low) / 2 + 1e-5) / epsilon
    plan = (logits - logits.max(dim=1, keepdim=True).values).exp()
    columns = torch.ones(len(book), dtype=torch.float64)
    for _ in range(EVEN_STEPS):
        rows = 1 / (plan @ columns)
        columns = 1 / (rows @ plan).clamp_min(1e-300)
    return (plan * columns).argmax(dim=1).numpy().astype(np.int32)
