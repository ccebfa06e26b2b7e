"""RQ-VAE: residual quantization in a latent space that is learned together with the codes.

Unlike rq_kmeans.py it trains networks, so `fit` needs torch (rq_vae_training.py is its only door); encode,
decode and distances run in numpy. Presets say whose settings they are; every one can be overridden.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from sid_schemas import DataError
from sid_tokenizers.base import Vectors, Weights, check_enough
from sid_tokenizers.catalogue import Catalogue
from sid_tokenizers.learned.perceptron import Activation, PerceptronTokenizer, Scaling
from sid_tokenizers.learned.rq_vae_settings import (
    PRESETS,
    Settings,
    check_device,
    check_settings,
    settled,
)
from sid_tokenizers.residual import check_at_least, check_levels
from sid_tokenizers.scheme import Traits

if TYPE_CHECKING:
    from sid_tokenizers.learned.rq_vae_training import Objective


class ResidualAutoencoder(PerceptronTokenizer):
    """A tokenizer whose networks and codebooks are trained together, as its settings say.

    Learns `encoder_` and `decoder_`, `scaling_`, `codebooks_` (one (K, latent) float32 matrix per level)
    and `history_`. A subclass gives the settings and what it trains on beside the losses of RQ-VAE.
    """

    device: str

    @property
    @abstractmethod
    def settings(self) -> Settings:
        """Give everything that training depends on, apart from levels and seed."""

    def _objective(self, about: Catalogue | None) -> "Objective | None":
        """Give what is trained on beside the losses of RQ-VAE; None for nothing."""
        return None

    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range."""
        check_levels(self.levels)
        check_at_least(self, seed=0)
        check_settings(self.settings)
        check_device(self.device)

    @property
    def decoder_activation(self) -> Activation:
        """Say what stands between the decoder's layers."""
        return self.settings.decoder_activation

    @property
    def unit_inputs(self) -> bool:
        """Say whether vectors are scaled to length 1, so that `decode` cannot give them back."""
        return self.settings.normalize_input == "batchnorm-l2"

    def _fit(self, X: Vectors, weight: Weights | None, about: Catalogue | None) -> None:
        check_enough(self.levels, len(X))
        from sid_tokenizers.learned.rq_vae_training import train

        settings = self.settings
        self.scaling_ = Scaling.learned(X, weight, settings.normalize_input)
        trained = train(
            self.scaling_(X),
            weight,
            name=self.name,
            levels=self.levels,
            seed=self.seed,
            settings=settings,
            device=self.device,
            objective=self._objective(about),
        )
        self.encoder_, self.decoder_ = trained.encoder, trained.decoder
        self.codebooks_, self.history_ = trained.codebooks, trained.history


class RQVAE(ResidualAutoencoder):
    """Residual-quantized variational autoencoder (RQ-VAE); variational in name only, as in the papers.

    levels: codes per level, coarse to fine. seed: of every draw. preset: whose settings to start from:
      sidmill: ours, minutes on a CPU; tiger: the TIGER paper; lc-rec: LC-Rec's run.sh; minionerec: the
      defaults of MiniOneRec's code; grid: GRID's code. All but ours train for very long and are meant
      for comparison. Levels are no part of a preset.
    Every other parameter overrides one setting of the preset; None leaves it as it is. They are told in
    `Settings`; shortcuts and sigmoid, which no preset has, cannot be given. Given `epochs` lift the preset's
    limit of steps. device: where torch trains: cpu, cuda, cuda:1, mps.

    Learns `encoder_` and `decoder_`, `scaling_`, `codebooks_` (one (K, latent) float32 matrix per level)
    and `history_`. The same seed gives the same codes on the same machine and version of torch, however
    many cores there are; another processor may round otherwise, and training grows the difference.
    Balance and uniqueness hold on the fit rows; a new row gets the nearest codes, whatever they are.

    preset: whose settings to start from, as above.
    """

    name: ClassVar[str] = "rq-vae"
    paper: ClassVar[str] = "TIGER (RQ-VAE); LC-Rec, MiniOneRec and GRID by preset"
    traits: ClassVar[Traits] = Traits(soft=True, package="torch", extra="torch")

    def __init__(
        self,
        *,
        levels: Sequence[int] = (256, 256, 256),
        seed: int = 0,
        preset: Literal["sidmill", "tiger", "lc-rec", "minionerec", "grid"] = "sidmill",
        hidden: Sequence[int] | None = None,
        latent: int | None = None,
        beta: float | None = None,
        level_mean: bool | None = None,
        residual_grad: Literal["full", "none"] | None = None,
        gradient: Literal["ste", "rotation"] | None = None,
        sinkhorn: float | None = None,
        unique: float | None = None,
        epochs: int | None = None,
        autoencoder_epochs: int | None = None,
        polish_epochs: int | None = None,
        max_steps: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        optimizer: Literal["adamw", "adam", "adagrad"] | None = None,
        schedule: Literal["linear", "constant"] | None = None,
        schedule_warmup: int | None = None,
        clip: float | None = None,
        normalize_input: Literal["none", "scale", "batchnorm-l2"] | None = None,
        kmeans_init: bool | None = None,
        kmeans_rows: int | None = None,
        restart_dead: bool | None = None,
        check_every: int | None = None,
        keep_from: float | None = None,
        refit_steps: int | None = None,
        balance: float | None = None,
        device: str = "cpu",
    ) -> None:
        """Store the parameters; `fit` checks them."""
        self.levels = levels
        self.seed = seed
        self.preset = preset
        self.hidden = hidden
        self.latent = latent
        self.beta = beta
        self.level_mean = level_mean
        self.residual_grad = residual_grad
        self.gradient = gradient
        self.sinkhorn = sinkhorn
        self.unique = unique
        self.epochs = epochs
        self.autoencoder_epochs = autoencoder_epochs
        self.polish_epochs = polish_epochs
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.optimizer = optimizer
        self.schedule = schedule
        self.schedule_warmup = schedule_warmup
        self.clip = clip
        self.normalize_input = normalize_input
        self.kmeans_init = kmeans_init
        self.kmeans_rows = kmeans_rows
        self.restart_dead = restart_dead
        self.check_every = check_every
        self.keep_from = keep_from
        self.refit_steps = refit_steps
        self.balance = balance
        self.device = device

    @property
    def settings(self) -> Settings:
        """Give the preset with this tokenizer's own parameters put in."""
        if self.preset not in PRESETS:
            raise DataError(f"preset: expected one of {', '.join(PRESETS)}, got {self.preset!r}")
        apart = ("levels", "seed", "preset", "device")
        given = {name: value for name, value in self.get_params().items() if name not in apart}
        return settled(PRESETS[self.preset], given)
