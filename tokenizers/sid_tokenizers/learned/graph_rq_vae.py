"""Graph RQ-VAE: MMGRec's small RQ-VAE for vectors that a graph of users and items has made.

Unlike rq_vae.py it is narrow, a latent of 4 columns, and its decoder has sigmoids. The vectors come from
the fusion `graph`, the fourth digit from the collision policy `suffix-popularity`; on other vectors it is
just small.
"""

from collections.abc import Sequence
from typing import ClassVar

from sid_tokenizers.learned.rq_vae import ResidualAutoencoder
from sid_tokenizers.learned.rq_vae_settings import Settings
from sid_tokenizers.scheme import Traits


class GraphRQVAE(ResidualAutoencoder):
    """RQ-VAE of graph features (MMGRec).

    levels: codes per level, coarse to fine. seed: of every draw. hidden, latent, beta, kmeans_init,
    restart_dead, epochs, batch_size, learning_rate, weight_decay, check_every: as in `Settings`. device:
    where torch trains: cpu, cuda, cuda:1, mps.

    Read in MMGRec's code [C]: 3 x 128 codes, an encoder 64-16-4 with ReLU, a decoder 4-16-64 with sigmoid,
    losses added up over levels, beta of 0.25, Adam at 1e-3 with a decay of 1e-4, batches of 1024, 60
    epochs, codes from U(-1/K, 1/K) at first. Ours [D]: codes from k-means at first, unused ones put on far
    residuals, vectors scaled to a variance of 1, an autoencoder alone first for a fifth as many epochs,
    smaller batches at a higher rate; of the last checks the one with fewest collisions is kept.

    Learns what RQVAE learns.
    """

    name: ClassVar[str] = "graph-rq-vae"
    paper: ClassVar[str] = "MMGRec [C; training D]"
    traits: ClassVar[Traits] = Traits(soft=True, package="torch", extra="torch")

    def __init__(
        self,
        *,
        levels: Sequence[int] = (128, 128, 128),
        seed: int = 0,
        hidden: Sequence[int] = (16,),
        latent: int = 4,
        beta: float = 0.25,
        kmeans_init: bool = True,
        restart_dead: bool = True,
        epochs: int = 100,
        batch_size: int = 256,
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-4,
        check_every: int = 10,
        device: str = "cpu",
    ) -> None:
        """Store the parameters; `fit` checks them."""
        self.levels = levels
        self.seed = seed
        self.hidden = hidden
        self.latent = latent
        self.beta = beta
        self.kmeans_init = kmeans_init
        self.restart_dead = restart_dead
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.check_every = check_every
        self.device = device

    @property
    def settings(self) -> Settings:
        """Give the settings of the RQ-VAE that this is."""
        return Settings(
            hidden=tuple(self.hidden),
            latent=self.latent,
            decoder_activation="sigmoid",
            beta=self.beta,
            kmeans_init=self.kmeans_init,
            restart_dead=self.restart_dead,
            epochs=self.epochs,
            autoencoder_epochs=self.epochs // 5,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            optimizer="adam",
            normalize_input="scale",
            check_every=self.check_every,
            keep_from=0.7,
        )
