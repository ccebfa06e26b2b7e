"""PRISM: a gate lets behaviour in as far as it can be trusted, and tags say what each level is to mean.

Unlike rq_vae.py it codes content and behaviour together, X = [content | cf], and decodes each by a decoder of
its own; its codebooks are running means (rvq_ema.py). `fit` needs torch (prism_training.py is the door);
encode, decode and distances run in numpy.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.base import Vectors, Weights, check_enough, check_vectors
from sid_tokenizers.catalogue import Catalogue, Rows
from sid_tokenizers.learned.perceptron import Perceptron, layer_norm
from sid_tokenizers.residual import ResidualTokenizer, check_at_least, check_levels, unit_rows
from sid_tokenizers.scheme import Traits

PARTS = ("gate", "encoder", "content_decoder", "cf_decoder")


class PRISM(ResidualTokenizer):
    """Gated, tag-anchored residual codes of content and behaviour (PRISM).

    g = sigmoid(gate(cf)), a number per column; z = encoder(LN([content | g * cf])); residual codes of z; a
    decoder each from the codes to content and to g * cf, of which only the direction counts (1 - cosine).

    levels: codes per level. seed: of every draw. hidden: widths of the encoder, each layer-normed;
    decoders have them in reverse. gate_hidden: width of the gate. latent: columns coded. decay: of the
    codebooks' running means. restart: bring dead codes back. beta: weight of the commitment.
    content_weight, cf_weight: of the two reconstructions. gate_weight: of (mean of g - popularity)^2, plus
    3.5 times what the variance of the means lacks of 0.3^2. anchor_weight: of telling an item's tag by the
    nearest of the anchors; tags of level l are `categories[l]`, and items without one are left out there.
    balance_weight: of even use of the codes.
    warmup_epochs: before there are codes. epochs: with codes, of which phase1_epochs with anchors and
    without balance, the rest with half the weight of anchors and with balance. batch_size, learning_rate
    (AdamW, falling to 0), weight_decay: of the training.

    Learns `gate_`, `encoder_`, `content_decoder_`, `cf_decoder_`, `codebooks_`, `scale_` (one number for
    each part of X) and `lengths_` (the mean lengths of content and of g * cf, which cosines do not tell).

    Read in PRISM's code [C]: gate, fusion, encoder, decoders, weights of reconstruction, gate and
    commitment, rotation trick, running means, order of the curriculum. Not as there [D]: its anchors are
    learned from the texts of tags, and as its codes take no gradient, their loss moves neither items nor
    codes; ours are made of the mean content of a tag's items, and move the items. Its balance counts
    items, which has no gradient either; ours is of soft use. Popularity: there a number from 0 to 1, of
    which we do not know how it is made; here the share of items that have less, because that is spread
    evenly, as gates shall be. No codes in the warm-up; fewer epochs at a
    higher rate, and so a decay of 0.9 (500, 1e-4, 0.99). Left out: dropout, level classifiers (the anchors
    do their part), the anchors' running assignment and scaling by entropy, ramps of weights.

    phase1_epochs: the first epochs with codes, in which anchors count and balance does not.
    """

    name: ClassVar[str] = "prism"
    paper: ClassVar[str] = "PRISM [C; anchors, balance and training D]"
    traits: ClassVar[Traits] = Traits(
        soft=True,
        inputs=("vectors", "cf", "popularity", "categories"),
        stacked=True,
        package="torch",
        extra="torch",
    )

    gate_: Perceptron
    encoder_: Perceptron
    content_decoder_: Perceptron
    cf_decoder_: Perceptron
    scale_: Vectors
    lengths_: Vectors

    def __init__(
        self,
        *,
        levels: Sequence[int] = (256, 256, 256),
        seed: int = 0,
        hidden: Sequence[int] = (512, 256, 128),
        gate_hidden: int = 128,
        latent: int = 32,
        decay: float = 0.9,
        restart: bool = True,
        beta: float = 0.25,
        content_weight: float = 1.0,
        cf_weight: float = 2.0,
        gate_weight: float = 0.8,
        anchor_weight: float = 0.2,
        balance_weight: float = 0.1,
        epochs: int = 40,
        warmup_epochs: int = 5,
        phase1_epochs: int = 10,
        batch_size: int = 256,
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-4,
    ) -> None:
        """Store the parameters; `fit` checks them."""
        self.levels = levels
        self.seed = seed
        self.hidden = hidden
        self.gate_hidden = gate_hidden
        self.latent = latent
        self.decay = decay
        self.restart = restart
        self.beta = beta
        self.content_weight = content_weight
        self.cf_weight = cf_weight
        self.gate_weight = gate_weight
        self.anchor_weight = anchor_weight
        self.balance_weight = balance_weight
        self.epochs = epochs
        self.warmup_epochs = warmup_epochs
        self.phase1_epochs = phase1_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay

    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range."""
        check_levels(self.levels)
        check_at_least(self, seed=0, gate_hidden=1, latent=1, batch_size=1, decay=0, beta=0, weight_decay=0)
        check_at_least(self, content_weight=0, cf_weight=0, gate_weight=0, anchor_weight=0, balance_weight=0)
        check_at_least(self, epochs=0, warmup_epochs=0, phase1_epochs=0)
        if any(width < 1 for width in self.hidden):
            raise DataError(f"hidden: expected widths >= 1, got {list(self.hidden)}")
        if not self.decay < 1:
            raise DataError(f"decay: expected less than 1, got {self.decay}")
        if not self.learning_rate > 0:
            raise DataError(f"learning_rate: expected more than 0, got {self.learning_rate}")

    @property
    def reconstructs(self) -> bool:
        """Say no: of behaviour, `decode` gives what the gate let in."""
        return False

    def gates(self, X: npt.ArrayLike) -> Vectors:
        """Give how far each item's behaviour is trusted, 0 to 1: (n, d) -> (n,), the mean of its gate."""
        _, cf = self._scaled(check_vectors(X, dim=self._fitted()))
        means: Vectors = gate_values(self.gate_, cf).mean(axis=1)
        return means

    def _fit(self, X: Vectors, weight: Weights | None, about: Catalogue | None) -> None:
        assert about is not None
        assert about.popularity is not None
        assert about.categories is not None
        check_enough(self.levels, len(X))
        from sid_tokenizers.learned.prism_training import train

        own = about.content_columns(X.shape[1])
        self.scale_ = np.array([root_mean_square(X[:, :own]), root_mean_square(X[:, own:])])
        content, cf = X[:, :own] / self.scale_[0], X[:, own:] / self.scale_[1]
        tags = [tag_numbers(about.categories, level) for level in range(len(self.levels))]
        trained = train(self, content, cf, popularity_scores(about.popularity), tags, weight)
        self.gate_, self.encoder_ = trained.gate, trained.encoder
        self.content_decoder_, self.cf_decoder_ = trained.content_decoder, trained.cf_decoder
        self.codebooks_ = trained.codebooks
        gated = gate_values(self.gate_, cf) * cf
        self.lengths_ = np.array([mean_length(content), mean_length(gated)])

    def _scaled(self, X: Vectors) -> tuple[Vectors, Vectors]:
        """Cut X into content and cf, each with a root mean square of 1 over the fit rows."""
        own = X.shape[1] - len(self.gate_.biases[-1])
        return X[:, :own] / self.scale_[0], X[:, own:] / self.scale_[1]

    def _to_latent(self, X: Vectors) -> Vectors:
        content, cf = self._scaled(X)
        gated = gate_values(self.gate_, cf) * cf
        return self.encoder_(layer_norm(np.concatenate([content, gated], axis=1)))

    def _from_latent(self, Z: Vectors) -> Vectors:
        """Give [content | gated cf] (n, d), rows of each part as long as those of the fit are on average."""
        decoders = (self.content_decoder_, self.cf_decoder_)
        lengths = self.lengths_ * self.scale_
        parts = [unit_rows(decoder(Z)) * length for decoder, length in zip(decoders, lengths, strict=True)]
        return np.concatenate(parts, axis=1)

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        parts = [getattr(self, f"{part}_").arrays(part) for part in PARTS]
        named = {name: array for part in parts for name, array in part.items()}
        return {**super()._arrays(), **named, "scale": self.scale_, "lengths": self.lengths_}

    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        super()._restore(arrays)
        for part in PARTS:
            setattr(self, f"{part}_", Perceptron.from_arrays(part, arrays, normed=True))
        self.scale_, self.lengths_ = arrays["scale"], arrays["lengths"]


def gate_values(gate: Perceptron, cf: Vectors) -> Vectors:
    """Give how much of each column of behaviour is let in: (n, e) -> (n, e), 0 to 1."""
    half = np.float32(0.5)
    opened: Vectors = half + half * np.tanh(half * gate(cf))  # the sigmoid, which never overflows
    return opened


def popularity_scores(popularity: Rows) -> Vectors:
    """Give the share of items that are less popular, equal ones counting half: (n,) -> (n,), 0 to 1.

    >>> popularity_scores(np.array([7, 0, 3, 3])).tolist()
    [0.875, 0.125, 0.5, 0.5]
    """
    ordered = np.sort(popularity)
    below = np.searchsorted(ordered, popularity, side="left")
    up_to = np.searchsorted(ordered, popularity, side="right")
    return ((below + up_to) / (2 * len(ordered))).astype(np.float32)


def tag_numbers(categories: Sequence[Sequence[str]], level: int) -> Rows:
    """Give the number of each item's category of a level, in order of their names; -1 for none: (n,).

    >>> tag_numbers([["b", "x"], ["a"], []], 0).tolist()
    [1, 0, -1]
    """
    names = sorted({path[level] for path in categories if len(path) > level})
    number = {name: place for place, name in enumerate(names)}
    found = [number[path[level]] if len(path) > level else -1 for path in categories]
    return np.array(found, dtype=np.int64)


def root_mean_square(X: Vectors) -> np.float32:
    """Give the root of the mean square of all numbers, or 1 where all are zero."""
    found = np.sqrt(np.square(X).mean(dtype=np.float64))
    return np.float32(found if found > 0 else 1.0)


def mean_length(X: Vectors) -> np.float32:
    """Give the mean length of the rows."""
    return np.float32(np.sqrt(np.einsum("ij,ij->i", X, X)).mean())
