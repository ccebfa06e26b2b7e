"""RQ-VAE with soft codes in training: a level hands on the expected code, and codes are to be used evenly.

Unlike rq_vae.py nothing pulls latents and codes together: codes learn from the reconstruction alone, because
a softmax lets its gradient through. Residuals are taken after the soft code, so hard codes here are not those
that the same codebooks would give there.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.base import Codes, Vectors, Weights, check_enough, check_vectors
from sid_tokenizers.blocks import over_blocks
from sid_tokenizers.catalogue import Catalogue
from sid_tokenizers.clusters import squared_distances
from sid_tokenizers.learned.perceptron import Scaling
from sid_tokenizers.learned.rq_vae import ResidualAutoencoder
from sid_tokenizers.learned.rq_vae_settings import Settings
from sid_tokenizers.products import product
from sid_tokenizers.residual import check_at_least
from sid_tokenizers.scheme import Traits


class RQVAEUniform(ResidualAutoencoder):
    """Soft residual quantization with a uniformity loss (UniGRec, stage 1).

    p_l = softmax(-d_l / temperature), d_l the squared distances of r_l to the codes of level l; r_{l+1} =
    r_l - sum_k p_lk e_lk. The code of a level is the one of largest p. Loss: MSE + uniformity * mean over
    levels of sum_k m_lk ln m_lk, m_l being the mean of p_l over the batch; it is least where codes are used
    evenly.

    levels: codes per level, coarse to fine. seed: of every draw. uniformity: its weight. warm, cold: the
    temperature at the first and at the last epoch, falling evenly, as shares of the mean squared distance
    that k-means leaves between latents and their codes of level 1. hidden, latent, epochs, batch_size,
    learning_rate, weight_decay: as in `Settings`. device: where torch trains: cpu, cuda, cuda:1, mps.

    Read in UniGRec's code [C]: the loss, 3 x 256 codes, layers 512-256-128-64 to 32, AdamW at 1e-3 with
    linear decay, k-means at the start, a temperature from 0.01 to 0.001 over 3000 epochs, a weight of 1e-4
    and the state of least loss. Ours [D]: fewer layers and epochs; an autoencoder alone first, for a fifth
    as many epochs; temperatures in shares, because how long latents are is up to the data; a larger weight;
    the last state, whose temperature is the one published.

    Learns what RQVAE learns (`history_` has no rows) and `temperature_`. `decode` adds up hard codes, of
    which the decoder has seen the soft ones. `distances` are those of the residual after soft codes,
    whatever the prefix holds: only its length matters. `encode_soft` gives p at `temperature_` unless told
    otherwise.
    """

    name: ClassVar[str] = "rq-vae-uniform"
    paper: ClassVar[str] = "UniGRec [C; training D]"
    traits: ClassVar[Traits] = Traits(soft=True, package="torch", extra="torch")

    temperature_: float

    def __init__(
        self,
        *,
        levels: Sequence[int] = (256, 256, 256),
        seed: int = 0,
        uniformity: float = 0.1,
        warm: float = 0.1,
        cold: float = 0.01,
        hidden: Sequence[int] = (256,),
        latent: int = 32,
        epochs: int = 80,
        batch_size: int = 256,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-4,
        device: str = "cpu",
    ) -> None:
        """Store the parameters; `fit` checks them."""
        self.levels = levels
        self.seed = seed
        self.uniformity = uniformity
        self.warm = warm
        self.cold = cold
        self.hidden = hidden
        self.latent = latent
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.device = device

    @property
    def settings(self) -> Settings:
        """Give the settings of the networks and of the loop; those of hard codes have no effect."""
        return Settings(
            hidden=tuple(self.hidden),
            latent=self.latent,
            epochs=self.epochs,
            autoencoder_epochs=self.epochs // 5,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            schedule="linear",
            schedule_warmup=2,
            clip=1.0,
            normalize_input="scale",
        )

    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range."""
        super().check_params()
        check_at_least(self, uniformity=0)
        if not 0 < self.cold <= self.warm:
            raise DataError(f"cold, warm: expected 0 < cold <= warm, got {self.cold} and {self.warm}")

    def _fit(self, X: Vectors, weight: Weights | None, about: Catalogue | None) -> None:
        check_enough(self.levels, len(X))
        from sid_tokenizers.learned.rq_vae_uniform_training import train

        self.scaling_ = Scaling.learned(X, weight, self.settings.normalize_input)
        trained, self.temperature_ = train(self, self.scaling_(X), weight)
        self.encoder_, self.decoder_ = trained.encoder, trained.decoder
        self.codebooks_, self.history_ = trained.codebooks, trained.history

    def encode(self, X: npt.ArrayLike) -> Codes:
        """Give the codes of X: (n, d) -> (n, L) int32, of each level the code of largest probability."""
        residual = self._to_latent(check_vectors(X, dim=self._fitted()))
        codes = np.empty((len(residual), len(self.levels)), dtype=np.int32)
        for level, book in enumerate(self._learned):
            codes[:, level] = squared_distances(residual, book).argmin(axis=1)
            residual = soft_residual(residual, book, self.temperature_)
        return self._labelled(codes)

    @property
    def soft_temperature(self) -> float:
        """Give the temperature at the end of training; residuals are those of it, whatever is asked for."""
        self._fitted()
        return self.temperature_

    def _residual(self, Z: Vectors, prefixes: Codes) -> Vectors:
        for book in self._learned[: prefixes.shape[1]]:
            Z = soft_residual(Z, book, self.temperature_)
        return Z

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {**super()._arrays(), "temperature": np.array([self.temperature_])}

    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        super()._restore(arrays)
        self.temperature_ = float(arrays["temperature"][0])


def soft_residual(Z: Vectors, book: Vectors, temperature: float) -> Vectors:
    """Give what the expected code leaves over of each row: (n, e), (K, e) -> (n, e)."""
    logits = squared_distances(Z, book)
    left = np.empty_like(Z)

    def work(rows: slice) -> None:
        share = logits[rows]
        share -= share.min(axis=1, keepdims=True)
        np.exp(share / np.float32(-temperature), out=share)
        share /= share.sum(axis=1, keepdims=True)
        np.subtract(Z[rows], product(share, book), out=left[rows])

    over_blocks(len(Z), work)
    return left
