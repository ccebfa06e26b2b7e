"""RQ-KMeans+: an RQ-VAE that starts as residual k-means and learns from there.

Unlike rq_vae.py the latent space is the input space: the encoder is x + layers(x), whose last layer
starts at zero, and the codebooks start as those of (balanced) residual k-means. GPR; read in MiniOneRec.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

from sid_schemas import DataError
from sid_tokenizers.base import Tokenizer, Vectors, Weights, check_enough
from sid_tokenizers.catalogue import Catalogue
from sid_tokenizers.learned.perceptron import PerceptronTokenizer, Scaling
from sid_tokenizers.learned.rq_vae_settings import Settings, check_device, check_settings
from sid_tokenizers.residual import ResidualTokenizer, check_at_least, check_levels
from sid_tokenizers.rq_kmeans import RQKMeans
from sid_tokenizers.scheme import Traits

INITS = ("balanced", "plain")
DECODERS = ("shortcut", "plain")


class RQKMeansPlus(PerceptronTokenizer):
    """Residual k-means, then trained as an RQ-VAE in the space of the vectors (RQ-KMeans+).

    levels: codes per level, coarse to fine. seed: of every draw. init: first codebooks from balanced
    residual k-means (as MiniOneRec) or from the plain one. hidden: widths between input and latent; the
    decoder has them in reverse. decoder: shortcut starts at the sum of centroids and learns from there
    (ours); plain starts from nothing and has to be trained for long (MiniOneRec). beta: weight of the
    commitment. epochs: 0 keeps the codes of the k-means, nearest centroid by level; MiniOneRec trains
    10000. learning_rate (AdamW), batch_size: as in MiniOneRec. decoder_epochs: the decoder alone, at
    last, on the final codes; ours.
    check_every: epochs between checks; of the checks that with the fewest collisions, then the least
    loss, is kept, the codes of the k-means not counting. residual_grad: see rq_vae.py; MiniOneRec: none.
    device: where torch trains: cpu, cuda, cuda:1, mps.

    Learns what RQVAE learns; `codebooks_` are (K, d).
    """

    name: ClassVar[str] = "rq-kmeans-plus"
    paper: ClassVar[str] = "GPR (RQ-KMeans+); MiniOneRec's code"
    traits: ClassVar[Traits] = Traits(soft=True, package="torch", extra="torch")

    def __init__(
        self,
        *,
        levels: Sequence[int] = (256, 256, 256),
        seed: int = 0,
        init: Literal["balanced", "plain"] = "balanced",
        hidden: Sequence[int] = (512,),
        decoder: Literal["shortcut", "plain"] = "shortcut",
        beta: float = 0.25,
        residual_grad: Literal["full", "none"] = "full",
        epochs: int = 100,
        decoder_epochs: int = 50,
        batch_size: int = 2048,
        learning_rate: float = 1e-4,
        check_every: int = 10,
        device: str = "cpu",
    ) -> None:
        """Store the parameters; `fit` checks them."""
        self.levels = levels
        self.seed = seed
        self.init = init
        self.hidden = hidden
        self.decoder = decoder
        self.beta = beta
        self.residual_grad = residual_grad
        self.epochs = epochs
        self.decoder_epochs = decoder_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.check_every = check_every
        self.device = device

    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range."""
        check_levels(self.levels)
        check_at_least(self, seed=0)
        if self.init not in INITS:
            raise DataError(f"init: expected one of {', '.join(INITS)}, got {self.init!r}")
        if self.decoder not in DECODERS:
            raise DataError(f"decoder: expected one of {', '.join(DECODERS)}, got {self.decoder!r}")
        check_settings(self._settings(1))
        check_device(self.device)

    @property
    def shortcuts(self) -> tuple[bool, bool]:
        """Say that the encoder adds its input to its output, and the decoder where it is asked to."""
        return True, self.decoder == "shortcut"

    def _settings(self, dim: int) -> Settings:
        return Settings(
            hidden=tuple(self.hidden),
            latent=dim,
            encoder_shortcut=True,
            decoder_shortcut=self.decoder == "shortcut",
            beta=self.beta,
            residual_grad=self.residual_grad,
            epochs=self.epochs,
            polish_epochs=self.decoder_epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            check_every=self.check_every,
            kmeans_init=False,
        )

    def _initial(self) -> Tokenizer:
        """Give the tokenizer whose codebooks come first."""
        if self.init == "plain":
            return RQKMeans(levels=self.levels, seed=self.seed)
        from sid_tokenizers.rq_kmeans_balanced import RQKMeansBalanced

        return RQKMeansBalanced(levels=self.levels, seed=self.seed, remember=False)

    def _fit(self, X: Vectors, weight: Weights | None, about: Catalogue | None) -> None:
        check_enough(self.levels, len(X))
        from sid_tokenizers.learned.rq_vae_training import train

        initial = self._initial().fit(X, sample_weight=weight)
        assert isinstance(initial, ResidualTokenizer)
        self.scaling_ = Scaling.learned(X, weight, "none")
        trained = train(
            X,
            weight,
            name=self.name,
            levels=self.levels,
            seed=self.seed,
            settings=self._settings(X.shape[1]),
            device=self.device,
            start=initial.codebooks_,
        )
        self.encoder_, self.decoder_ = trained.encoder, trained.decoder
        self.codebooks_, self.history_ = trained.codebooks, trained.history
