"""What the training of an RQ-VAE depends on, and whose settings there are; rq_vae.py is the scheme."""

import re
from dataclasses import dataclass, fields, replace
from math import ceil
from typing import Any, Literal

from sid_schemas import DataError
from sid_tokenizers.learned.perceptron import ACTIVATIONS, SCALINGS, Activation, InputScaling


@dataclass(frozen=True)
class Settings:
    """Everything that training depends on, apart from levels and seed.

    hidden: widths between input and latent; the decoder has them in reverse. latent: columns coded.
    encoder_shortcut, decoder_shortcut: add the input, of which the layers then are zero at first.
    decoder_activation: between the decoder's layers; the encoder has ReLU.
    beta: weight of the commitment. level_mean: average the levels' losses, else add them up.
    residual_grad: what reaches the encoder of the commitments after level 1: full, or none as in LC-Rec.
    gradient: how the decoder's gradient passes the codes: straight through (ste), or by rotation.
    sinkhorn: epsilon of balanced codes of the last level in training (LC-Rec: 0.003); 0 for none.
    unique: weight of a loss that pushes apart latents of a batch whose SIDs collide; 0 for none.
    autoencoder_epochs: before there are codes. epochs: with codes. polish_epochs: the decoder alone, at
    last. max_steps: batches at which the first two are cut short, in proportion; 0 for no limit.
    schedule_warmup: epochs in which the rate rises; linear: it falls to 0 after, constant: it stays.
    clip: greatest norm of the gradient; 0 for none. normalize_input: see `Scaling.learned`.
    kmeans_init: first codes from residual k-means of kmeans_rows latents (0: all), else U(-1/K, 1/K).
    check_every: epochs between checks of collisions and loss; keep_from: share of the epochs after which
    the check with fewest collisions, then least loss, is kept. At each check restart_dead moves unused
    codes to far residuals, and refit_steps Lloyd's steps, balanced with Sinkhorn epsilon `balance` (0:
    not), move codes to the means of their residuals.

    batch_size: rows of a step. learning_rate, weight_decay: of the optimizer. optimizer: which one.
    schedule: how the rate goes on after its rise. kmeans_rows: latents that the first codes are made
    from, 0 for all. restart_dead: at each check, move unused codes to far residuals. refit_steps: Lloyd's
    steps at each check. balance: Sinkhorn epsilon of those steps, 0 for none.
    """

    hidden: tuple[int, ...]
    latent: int
    encoder_shortcut: bool = False
    decoder_shortcut: bool = False
    decoder_activation: Activation = "relu"
    beta: float = 0.25
    level_mean: bool = False
    residual_grad: Literal["full", "none"] = "full"
    gradient: Literal["ste", "rotation"] = "ste"
    sinkhorn: float = 0.0
    unique: float = 0.0
    epochs: int = 100
    autoencoder_epochs: int = 0
    polish_epochs: int = 0
    max_steps: int = 0
    batch_size: int = 1024
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    optimizer: Literal["adamw", "adam", "adagrad"] = "adamw"
    schedule: Literal["linear", "constant"] = "constant"
    schedule_warmup: int = 0
    clip: float = 0.0
    normalize_input: InputScaling = "none"
    kmeans_init: bool = True
    kmeans_rows: int = 0
    restart_dead: bool = False
    check_every: int = 50
    keep_from: float = 0.0
    refit_steps: int = 0
    balance: float = 0.0

    def paced(self, batches: int) -> tuple[int, int]:
        """Give the epochs without and with codes, for so many batches per epoch."""
        wanted = self.autoencoder_epochs + self.epochs
        allowed = ceil(self.max_steps / batches) if self.max_steps else wanted
        if allowed >= wanted:
            return self.autoencoder_epochs, self.epochs
        alone = allowed * self.autoencoder_epochs // wanted
        return alone, allowed - alone


PRESETS = {
    # Ours, tuned on 3686 product titles: wide and shallow, codes refit to balance, little commitment (it
    # crowds latents together), much pressure on colliding rows (it touches few, and only nearby ones).
    "sidmill": Settings(
        hidden=(512,),
        latent=96,
        beta=0.05,
        unique=30.0,
        epochs=100,
        autoencoder_epochs=20,
        polish_epochs=20,
        max_steps=4000,
        learning_rate=3e-3,
        weight_decay=1e-4,
        schedule="linear",
        schedule_warmup=5,
        clip=1.0,
        normalize_input="scale",
        restart_dead=True,
        check_every=10,
        keep_from=0.7,
        refit_steps=3,
        balance=0.01,
    ),
    # Paper, and what is commonly told of its code (secondary knowledge): k-means of the first batch.
    "tiger": Settings(
        hidden=(512, 256, 128),
        latent=32,
        epochs=20_000,
        learning_rate=0.4,
        optimizer="adagrad",
        kmeans_rows=1024,
    ),
    # Read in code: LC-Rec with the settings of its run.sh (which has four levels of 256).
    "lc-rec": Settings(
        hidden=(2048, 1024, 512, 256, 128, 64),
        latent=32,
        level_mean=True,
        residual_grad="none",
        sinkhorn=0.003,
        epochs=10_000,
        weight_decay=1e-4,
        schedule="linear",
        schedule_warmup=50,
        clip=1.0,
        kmeans_rows=1024,
    ),
    # Read in code: MiniOneRec, whose rq/ is LC-Rec's, with its defaults (three levels of 256).
    "minionerec": Settings(
        hidden=(2048, 1024, 512, 256, 128, 64),
        latent=32,
        level_mean=True,
        residual_grad="none",
        epochs=10_000,
        batch_size=20_480,
        schedule="linear",
        schedule_warmup=50,
        clip=1.0,
        kmeans_rows=20_480,
    ),
    # Read in code: GRID counts steps (3000), not epochs.
    "grid": Settings(
        hidden=(768, 256, 128),
        latent=64,
        epochs=3000,
        max_steps=3000,
        batch_size=2048,
        optimizer="adagrad",
        normalize_input="batchnorm-l2",
        kmeans_rows=3072,
    ),
}

# Of each setting that has choices, the choices.
CHOICES: dict[str, tuple[str, ...]] = {
    "decoder_activation": ACTIVATIONS,
    "residual_grad": ("full", "none"),
    "gradient": ("ste", "rotation"),
    "optimizer": ("adamw", "adam", "adagrad"),
    "schedule": ("linear", "constant"),
    "normalize_input": SCALINGS,
}
DEVICE = re.compile("cpu|mps|cuda(:(0|[1-9][0-9]*))?")
LEAST: dict[str, float] = {"latent": 1, "batch_size": 1, "check_every": 1}


def settled(base: Settings, given: dict[str, Any]) -> Settings:
    """Give settings with those that are not None put in; given epochs lift a limit of steps."""
    changes = {name: value for name, value in given.items() if value is not None}
    if "hidden" in changes:
        changes["hidden"] = tuple(changes["hidden"])
    if "epochs" in changes:
        changes.setdefault("max_steps", 0)
    return replace(base, **changes)


def check_settings(settings: Settings) -> None:
    """Raise DataError naming the first setting that is out of range."""
    for field in fields(settings):
        name, value = field.name, getattr(settings, field.name)
        if name in CHOICES and value not in CHOICES[name]:
            raise DataError(f"{name}: expected one of {', '.join(CHOICES[name])}, got {value!r}")
        if isinstance(value, int | float) and not value >= LEAST.get(name, 0):
            raise DataError(f"{name}: expected {LEAST.get(name, 0)} or more, got {value}")
    if any(width < 1 for width in settings.hidden):
        raise DataError(f"hidden: expected widths >= 1, got {list(settings.hidden)}")
    if not settings.learning_rate > 0:
        raise DataError(f"learning_rate: expected more than 0, got {settings.learning_rate}")
    if settings.keep_from > 1:
        raise DataError(f"keep_from: expected 0 to 1, got {settings.keep_from}")
    if settings.balance and settings.balance < 0.003:
        raise DataError(f"balance: expected 0 or at least 0.003, got {settings.balance}")


def check_device(device: str) -> None:
    """Raise DataError for a name that torch knows nothing by; whether it is there, only training tells."""
    if not isinstance(device, str) or not DEVICE.fullmatch(device):
        raise DataError(f"device: expected cpu, cuda, cuda:0, cuda:1, ... or mps, got {device!r}")
