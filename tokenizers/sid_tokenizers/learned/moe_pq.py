"""Codes by experts: each sees the whole vector in its own way and has a codebook of its own (REG4Rec).

Unlike pq.py the pieces are learned, and told apart by a loss. As there an item is a set of (expert, code)
pairs, and a shared prefix means no more than any other shared code. `fit` needs torch (moe_pq_training.py is
the door); encode, decode and distances run in numpy.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.base import Codes, Vectors, Weights, check_enough, check_vectors
from sid_tokenizers.catalogue import Catalogue
from sid_tokenizers.clusters import nearest, squared_distances
from sid_tokenizers.codebooks import CodebookTokenizer
from sid_tokenizers.learned.perceptron import Perceptron, Scaling
from sid_tokenizers.residual import check_at_least, check_levels
from sid_tokenizers.scheme import Traits


class MoEPQ(CodebookTokenizer):
    """Parallel codes by a mixture of experts (REG4Rec's MPQ).

    e_r = expert_r(x); c_r: the nearest code in codebook r; h = softmax(gate(x)); x' = decoder(sum over r
    of h_r * codebook_r[c_r]). Loss: MSE, plus the mean over experts of codebook loss and beta *
    commitment, plus orthogonality * (how far columns of two experts' outputs correlate), plus load_balance
    * (how uneven h is).

    levels: codes per expert; there are as many experts. seed: of every draw. hidden: widths between input
    and output of an expert; the decoder has them in reverse. latent: columns of the output.
    autoencoder_epochs: before codebooks start from k-means. epochs: with codes; unused ones come back
    between them. decoder_epochs: the decoder alone, at last, on the final codes. batch_size, learning_rate
    (AdamW, falling to 0), weight_decay: of the training.

    `decode` knows codes but not x, so it takes the mean h of the fit rows for h, and for an expert whose
    code is missing the mean of its codes; the last epochs of the decoder are on such sums.
    Learns `experts_`, `codebooks_` (one (K, latent) float32 matrix each), `decoder_`, `scaling_`,
    `shares_` (M,), the mean h, and `fill_` (M, latent), the mean codes.

    Known from secondary text alone [S]: experts, gate and the kinds of losses. Ours [D]: their form and
    weights, all sizes, start and return of codes, the rule of `decode`. Orthogonality is of outputs over a
    batch, not of codebooks: codebooks at right angles may still say the same.

    orthogonality: weight of how far columns of two experts' outputs correlate. load_balance: weight of
    how uneven the gate is.
    """

    name: ClassVar[str] = "moe-pq"
    paper: ClassVar[str] = "REG4Rec (MPQ) [S; form and training D]"
    traits: ClassVar[Traits] = Traits(ordered=False, soft=True, package="torch", extra="torch")

    experts_: list[Perceptron]
    decoder_: Perceptron
    scaling_: Scaling
    shares_: Vectors
    fill_: Vectors

    def __init__(
        self,
        *,
        levels: Sequence[int] = (256, 256, 256, 256),
        seed: int = 0,
        hidden: Sequence[int] = (256,),
        latent: int = 32,
        beta: float = 0.25,
        orthogonality: float = 0.1,
        load_balance: float = 0.1,
        autoencoder_epochs: int = 10,
        epochs: int = 40,
        decoder_epochs: int = 10,
        batch_size: int = 256,
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-4,
    ) -> None:
        """Store the parameters; `fit` checks them."""
        self.levels = levels
        self.seed = seed
        self.hidden = hidden
        self.latent = latent
        self.beta = beta
        self.orthogonality = orthogonality
        self.load_balance = load_balance
        self.autoencoder_epochs = autoencoder_epochs
        self.epochs = epochs
        self.decoder_epochs = decoder_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay

    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range."""
        check_levels(self.levels)
        check_at_least(self, seed=0, latent=1, batch_size=1, beta=0, orthogonality=0, load_balance=0)
        check_at_least(self, autoencoder_epochs=0, epochs=0, decoder_epochs=0, weight_decay=0)
        if any(width < 1 for width in self.hidden):
            raise DataError(f"hidden: expected widths >= 1, got {list(self.hidden)}")
        if not self.learning_rate > 0:
            raise DataError(f"learning_rate: expected more than 0, got {self.learning_rate}")

    def _fit(self, X: Vectors, weight: Weights | None, about: Catalogue | None) -> None:
        check_enough(self.levels, len(X))
        from sid_tokenizers.learned.moe_pq_training import train

        self.scaling_ = Scaling.learned(X, weight, "scale")
        trained = train(self, self.scaling_(X), weight)
        self.experts_, self.decoder_ = trained.experts, trained.decoder
        self.codebooks_, self.shares_, self.fill_ = trained.codebooks, trained.shares, trained.fill

    def encode(self, X: npt.ArrayLike) -> Codes:
        """Give the codes of X: (n, d) -> (n, M) int32, expert by expert the nearest to its output."""
        vectors = check_vectors(X, dim=self._fitted())
        scaled = self.scaling_(vectors)
        codes = np.empty((len(scaled), len(self.levels)), dtype=np.int32)
        for place, (expert, book) in enumerate(zip(self.experts_, self._learned, strict=True)):
            codes[:, place] = nearest(expert(scaled), book)[0]
        return self._labelled(codes)

    def decode(self, codes: npt.ArrayLike) -> Vectors:
        """Give the vectors of codes: (n, p), p <= M -> (n, d) float32, with the mean gate of the fit rows.

        Experts without a code are filled with the mean of the fitted rows, the best guess there is.
        """
        checked = self._checked(codes)
        total = np.zeros((len(checked), self.fill_.shape[1]), dtype=np.float32)
        for place, share in enumerate(self.shares_):
            known = place < checked.shape[1]
            total += share * (self.codebooks_[place][checked[:, place]] if known else self.fill_[place])
        return self.scaling_.undo(self.decoder_(total))

    def distances(self, X: npt.ArrayLike, prefixes: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Give the squared distances of the next expert's output to its codes; prefixes only say which."""
        vectors = check_vectors(X, dim=self._fitted())
        place = self._checked_prefixes(prefixes, len(vectors)).shape[1]
        return squared_distances(self.experts_[place](self.scaling_(vectors)), self.codebooks_[place])

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        experts = [expert.arrays(f"expert_{place}") for place, expert in enumerate(self.experts_)]
        return {
            **super()._arrays(),
            **{name: array for expert in experts for name, array in expert.items()},
            **self.decoder_.arrays("decoder"),
            "input_shift": self.scaling_.shift,
            "input_scale": self.scaling_.scale,
            "shares": self.shares_,
            "fill": self.fill_,
        }

    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        super()._restore(arrays)
        places = range(len(self.levels))
        self.experts_ = [Perceptron.from_arrays(f"expert_{place}", arrays) for place in places]
        self.decoder_ = Perceptron.from_arrays("decoder", arrays)
        self.scaling_ = Scaling(arrays["input_shift"], arrays["input_scale"], unit=False)
        self.shares_, self.fill_ = arrays["shares"], arrays["fill"]


def pairs_of(codes: Codes) -> npt.NDArray[np.int32]:
    """Give each item as (expert, code) pairs, which mean the same in any order: (n, M) -> (n, M, 2).

    >>> pairs_of(np.array([[7, 5]], dtype=np.int32)).tolist()
    [[[0, 7], [1, 5]]]
    """
    experts = np.broadcast_to(np.arange(codes.shape[1], dtype=np.int32), codes.shape)
    return np.stack([experts, codes], axis=2)


def codes_of(pairs: npt.NDArray[np.int32]) -> Codes:
    """Give the one SID of each set of pairs, in whatever order they come: (n, M, 2) -> (n, M).

    >>> codes_of(np.array([[[1, 5], [0, 7]]], dtype=np.int32)).tolist()
    [[7, 5]]
    """
    order = np.argsort(pairs[:, :, 0], axis=1, kind="stable")
    return np.take_along_axis(pairs[:, :, 1], order, axis=1)
