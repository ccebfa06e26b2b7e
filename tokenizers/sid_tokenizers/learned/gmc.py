"""GMC: one RQ-VAE for the items of several domains, whose latents keep the domains apart.

Unlike rq_vae.py level 1 tells domains apart, while the codebooks stay common to all. gmc_training.py has the
contrast and the balanced batches.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.catalogue import Catalogue
from sid_tokenizers.learned.rq_vae import ResidualAutoencoder
from sid_tokenizers.learned.rq_vae_settings import Settings
from sid_tokenizers.residual import check_at_least
from sid_tokenizers.scheme import Traits

if TYPE_CHECKING:
    from sid_tokenizers.learned.rq_vae_training import Objective

SOURCES = ("domain", "category")


class GMC(ResidualAutoencoder):
    """RQ-VAE with a supervised contrast of domains (GMC).

    Loss: that of RQ-VAE + contrast_weight * the mean over items of a batch of -1/|P| sum_p log exp(z.z_p /
    temperature) / sum_a exp(z.z_a / temperature), P being the others of its domain, a running over all
    others, z latents of length 1. Batches hold as many items of each domain, as far as there are.

    levels: codes per level, coarse to fine. seed: of every draw. contrast_weight: lambda; the higher, the
    more level 1 tells of the domain and the less of content. temperature: tau. domain_from: "domain", or
    "category": the broadest category, for a catalogue of one domain. balanced: batches as said; else rows
    as they come, shuffled. hidden, latent, beta, epochs, batch_size, learning_rate, weight_decay,
    check_every: as in `Settings`. device: where torch trains: cpu, cuda, cuda:1, mps.

    From secondary text alone [S]: 4 x 256 codes for the union of domains, tau of 0.1, lambda of 0.001 to 0.1.
    Ours [D]: latents of length 1 in the contrast; layers and epochs, so few that lambda is the largest of
    these, and that 64 codes a level take more (examples/schemes/gmc.toml); an item comes at most REPEATS
    times in an epoch; items without a domain are contrasted with, but have no contrast of their own, and
    neither has a batch of one domain.

    Learns what RQVAE learns.
    """

    name: ClassVar[str] = "gmc"
    paper: ClassVar[str] = "GMC [S; training D]"
    traits: ClassVar[Traits] = Traits(
        soft=True, inputs=("vectors", "domains", "categories"), package="torch", extra="torch"
    )

    def __init__(
        self,
        *,
        levels: Sequence[int] = (256, 256, 256, 256),
        seed: int = 0,
        contrast_weight: float = 0.1,
        temperature: float = 0.1,
        domain_from: Literal["domain", "category"] = "domain",
        balanced: bool = True,
        hidden: Sequence[int] = (256,),
        latent: int = 32,
        beta: float = 0.25,
        epochs: int = 80,
        batch_size: int = 256,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-4,
        check_every: int = 10,
        device: str = "cpu",
    ) -> None:
        """Store the parameters; `fit` checks them."""
        self.levels = levels
        self.seed = seed
        self.contrast_weight = contrast_weight
        self.temperature = temperature
        self.domain_from = domain_from
        self.balanced = balanced
        self.hidden = hidden
        self.latent = latent
        self.beta = beta
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.check_every = check_every
        self.device = device

    @property
    def needs(self) -> tuple[str, ...]:
        """Give what of `traits.inputs` is read: domains or categories."""
        return ("vectors", "domains" if self.domain_from == "domain" else "categories")

    @property
    def settings(self) -> Settings:
        """Give the settings of the RQ-VAE that this is, its contrast apart."""
        return Settings(
            hidden=tuple(self.hidden),
            latent=self.latent,
            beta=self.beta,
            epochs=self.epochs,
            autoencoder_epochs=self.epochs // 5,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            schedule="linear",
            schedule_warmup=2,
            clip=1.0,
            normalize_input="scale",
            restart_dead=True,
            check_every=self.check_every,
            keep_from=0.7,
        )

    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range."""
        super().check_params()
        check_at_least(self, contrast_weight=0)
        if not self.temperature > 0:
            raise DataError(f"temperature: expected more than 0, got {self.temperature}")
        if self.domain_from not in SOURCES:
            raise DataError(f"domain_from: expected one of {', '.join(SOURCES)}, got {self.domain_from!r}")

    def _objective(self, about: Catalogue | None) -> "Objective":
        from sid_tokenizers.learned.gmc_training import DomainContrast

        assert about is not None
        domains = domain_numbers(about, self.domain_from)
        if self.contrast_weight and len(about) > 1 and len(np.unique(domains[domains >= 0])) < 2:
            other = "category" if self.domain_from == "domain" else "domain"
            raise DataError(
                f"gmc: all items are of one {self.domain_from}; expected two or more to tell apart. Set "
                f"domain_from = {other!r}, or add another catalogue to the source"
            )
        return DomainContrast(
            domains,
            weight=self.contrast_weight,
            temperature=self.temperature,
            balanced=self.balanced,
            seed=self.seed,
        )


def domain_numbers(about: Catalogue, source: Literal["domain", "category"]) -> npt.NDArray[np.int64]:
    """Give the domain of each item as a number in the order of names: (n,) int64, -1 where it has none.

    >>> about = Catalogue(["a", "b", "c"], categories=[["Toys", "Dolls"], [], ["Books"]])
    >>> domain_numbers(about, "category").tolist()
    [1, -1, 0]
    """
    if source == "domain":
        names = list(about.domains or ())
    else:
        names = [path[0] if len(path) else "" for path in about.categories or ()]
    number = {name: place for place, name in enumerate(sorted(set(names) - {""}))}
    return np.array([number.get(name, -1) for name in names], dtype=np.int64)
