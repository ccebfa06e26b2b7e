"""LETTER: an RQ-VAE whose quantized latents know behaviour, and whose codes lie in even groups.

Unlike rq_vae.py it is fitted on behaviour vectors too, but encodes by content alone, so that new items get
codes like any other. letter_training.py has the two terms.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from sid_tokenizers.base import Vectors
from sid_tokenizers.blocks import one_core_products
from sid_tokenizers.catalogue import Catalogue
from sid_tokenizers.learned.rq_vae import ResidualAutoencoder
from sid_tokenizers.learned.rq_vae_settings import Settings
from sid_tokenizers.residual import check_at_least, unit_rows
from sid_tokenizers.scheme import Traits

if TYPE_CHECKING:
    from sid_tokenizers.learned.rq_vae_training import Objective


class Letter(ResidualAutoencoder):
    """RQ-VAE with collaborative alignment and diversity of codes (LETTER).

    loss = MSE + mean over levels of (codebook + beta * commitment + diversity_weight * diversity) +
    cf_weight * alignment. Alignment: of the items of a batch, the behaviour vector of an item's own is to
    have the largest product with its quantized latent (cross-entropy without a temperature).
    Diversity: the codes of a codebook are put into even groups, anew each epoch, and of all codes one drawn
    from its own group is to have the largest product with a code.

    levels: codes per level, coarse to fine. seed: of every draw. cf_weight: LETTER's alpha; the higher, the
    less codes tell of content. diversity_weight: LETTER's beta; it brings unused codes back. clusters:
    groups of each codebook, fewer where they would have less than two codes. hidden, latent, beta,
    sinkhorn, kmeans_init, epochs, batch_size, learning_rate, weight_decay, check_every: as in `Settings`.
    device: where torch trains: cpu, cuda, cuda:1, mps.

    Read in LETTER's code [C]: the loss, 4 x 256 codes, a latent of 32, 10 clusters, Sinkhorn in training on
    the last level, AdamW; an alpha of 0.1 by default and 0.01 in its script (0.02 in the paper, as far as we
    know [M]), a beta of 1e-4, layers of 2048 to 64, batches of 1024 and 20000 epochs. Ours [D]: larger
    weights, smaller layers and batches, for far fewer steps; an autoencoder alone first, for a fifth as many
    epochs. Behaviour vectors are made as wide as the latent (`to_width`) and have length 1; items without
    any are left out of the alignment. Codebooks start from k-means, and groups come from balanced k-means,
    with sizes that differ by one at most. (Its constrained k-means allows 10 to 60 codes per group, and for
    the start 4 * min(N // 512, 50) items per code, which beyond 51,200 items cannot be done.)

    Learns what RQVAE learns.
    """

    name: ClassVar[str] = "letter"
    paper: ClassVar[str] = "LETTER [C; training D]; DiscRec's second tokenizer"
    traits: ClassVar[Traits] = Traits(soft=True, inputs=("vectors", "cf"), package="torch", extra="torch")

    def __init__(
        self,
        *,
        levels: Sequence[int] = (256, 256, 256, 256),
        seed: int = 0,
        cf_weight: float = 0.2,
        diversity_weight: float = 0.1,
        clusters: int = 10,
        hidden: Sequence[int] = (256,),
        latent: int = 32,
        beta: float = 0.25,
        sinkhorn: float = 0.003,
        kmeans_init: bool = True,
        epochs: int = 80,
        batch_size: int = 128,
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-4,
        check_every: int = 10,
        device: str = "cpu",
    ) -> None:
        """Store the parameters; `fit` checks them."""
        self.levels = levels
        self.seed = seed
        self.cf_weight = cf_weight
        self.diversity_weight = diversity_weight
        self.clusters = clusters
        self.hidden = hidden
        self.latent = latent
        self.beta = beta
        self.sinkhorn = sinkhorn
        self.kmeans_init = kmeans_init
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.check_every = check_every
        self.device = device

    @property
    def settings(self) -> Settings:
        """Give the settings of an RQ-VAE that this is, its own terms apart."""
        return Settings(
            hidden=tuple(self.hidden),
            latent=self.latent,
            beta=self.beta,
            level_mean=True,
            sinkhorn=self.sinkhorn,
            epochs=self.epochs,
            autoencoder_epochs=self.epochs // 5,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            schedule="linear",
            schedule_warmup=2,
            clip=1.0,
            normalize_input="scale",
            kmeans_init=self.kmeans_init,
            check_every=self.check_every,
            keep_from=0.7,
        )

    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range."""
        super().check_params()
        check_at_least(self, cf_weight=0, diversity_weight=0, clusters=1)

    def _objective(self, about: Catalogue | None) -> "Objective":
        from sid_tokenizers.learned.letter_training import LetterObjective

        assert about is not None
        assert about.cf is not None
        return LetterObjective(
            to_width(about.cf, self.latent),
            cf_weight=self.cf_weight,
            diversity_weight=self.diversity_weight,
            clusters=self.clusters,
            seed=self.seed,
        )


def to_width(cf: Vectors, width: int) -> Vectors:
    """Give behaviour vectors as wide as the latent: (n, e) -> (n, width), zeros where an item has none.

    They are centred, which changes no softmax over items, turned to principal directions, of which the first
    `width` are kept or after which zeros are put, and scaled to length 1: how long they are tells how often
    an item is seen, or how seldom, as the model may be.
    """
    there = cf.any(axis=1)
    out = np.zeros((len(cf), width), dtype=np.float32)
    if not there.any():
        return out
    centred = cf[there].astype(np.float64)
    centred -= centred.mean(axis=0)
    with one_core_products():  # or the sums, and then the codes, would depend on how many cores there are
        directions = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :width]
        # A direction is as good as its opposite; which one it is may not depend on the library that finds it.
        top = directions[np.abs(directions).argmax(axis=0), np.arange(directions.shape[1])]
        turned = centred @ (directions * np.sign(top))
    out[there, : directions.shape[1]] = unit_rows(turned.astype(np.float32))
    return out
