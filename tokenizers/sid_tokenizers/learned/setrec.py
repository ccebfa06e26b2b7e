"""SETRec: an item is a set of vectors, one for behaviour and some for content, that have no order.

Unlike every scheme of codes nothing is rounded: the tokens are published as they are, and the recommender
scores items by them. `fit` needs torch (setrec_training.py is the door); the rest runs in numpy.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.base import Vectors, check_vectors
from sid_tokenizers.catalogue import Catalogue, Events
from sid_tokenizers.continuous import Continuous
from sid_tokenizers.learned.perceptron import Perceptron, Scaling
from sid_tokenizers.residual import check_at_least
from sid_tokenizers.scheme import Traits

PARTS = ("cf", "encoder", "decoder")


class SETRec(Continuous):
    """One token of behaviour and n_sem tokens of content (SETRec); X = [content | cf].

    The first token is a linear layer of cf; the others are what the encoder of an autoencoder makes of
    content, cut into pieces. Loss: alpha * MSE + ce_weight * CE.

    n_sem: tokens of content. width: numbers per token, the hidden size of the recommender. hidden: widths
    of the encoder; the decoder has them in reverse. seed: of every draw. alpha: weight of the
    reconstruction. ce_weight: of telling by products, token by token, which item of a batch came after
    what users had before it. history: how many items before it count. epochs, batch_size, learning_rate
    (AdamW, falling to 0), weight_decay: of the training.

    `decode` gives [content | cf] (n, d), as X is: content by the decoder, cf by undoing the linear layer,
    which is exact where width is no less than the columns of cf. An item without behaviour has the token
    of zeros.
    Learns `scaling_`, `cf_`, `encoder_`, `decoder_`.

    Read in SETRec's code [C]: tokens, layers, loss, alpha = 0.7 (Toys), one position for all tokens of an
    item (`position_ids`), queries that do not see each other (`decoder_mask`), scores (`score`). Ours [D]:
    there a recommender is trained with the tokens and gives the queries, and all items are candidates with
    a weight of 1; here is none, so queries are the tokens of the mean vector of what users had before an
    item, and the batch stands for all items. This teaches the linear layer, which the reconstruction does
    not touch.
    """

    name: ClassVar[str] = "setrec"
    paper: ClassVar[str] = "SETRec, order-agnostic set identifiers [C; training D]"
    traits: ClassVar[Traits] = Traits(
        gives="vectors",
        ordered=False,
        unique=True,
        inputs=("vectors", "cf", "events"),
        stacked=True,
        package="torch",
        extra="torch",
    )

    scaling_: Scaling
    cf_: Perceptron
    encoder_: Perceptron
    decoder_: Perceptron

    def __init__(
        self,
        *,
        n_sem: int = 4,
        width: int = 128,
        hidden: Sequence[int] = (512, 256, 128),
        seed: int = 0,
        alpha: float = 0.7,
        ce_weight: float = 0.1,
        history: int = 20,
        epochs: int = 40,
        batch_size: int = 256,
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-4,
    ) -> None:
        """Store the parameters; `fit` checks them."""
        self.n_sem = n_sem
        self.width = width
        self.hidden = hidden
        self.seed = seed
        self.alpha = alpha
        self.ce_weight = ce_weight
        self.history = history
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay

    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range."""
        check_at_least(self, n_sem=1, width=1, seed=0, alpha=0, ce_weight=0, history=1)
        check_at_least(self, epochs=0, batch_size=1, weight_decay=0)
        if any(width < 1 for width in self.hidden):
            raise DataError(f"hidden: expected widths >= 1, got {list(self.hidden)}")
        if not self.learning_rate > 0:
            raise DataError(f"learning_rate: expected more than 0, got {self.learning_rate}")

    def _fit(self, X: Vectors, about: Catalogue) -> None:
        assert about.events is not None
        from sid_tokenizers.learned.setrec_training import train

        own = about.content_columns(X.shape[1])
        content, cf = (Scaling.learned(part, None, "scale") for part in (X[:, :own], X[:, own:]))
        shift, scale = np.append(content.shift, cf.shift), np.append(content.scale, cf.scale)
        self.scaling_ = Scaling(shift, scale, unit=False)
        scaled = self.scaling_(X)
        trained = train(self, scaled, own, *contexts(about.events, scaled, self.history))
        self.cf_, self.encoder_, self.decoder_ = trained.cf, trained.encoder, trained.decoder

    def vectors(self, X: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Give the tokens of X: (n, d) -> (n, 1 + n_sem, width) float32, the one of behaviour first."""
        rows = check_vectors(X, dim=self._fitted())
        scaled = self.scaling_(rows)
        own = len(self.decoder_.biases[-1])
        flat = np.concatenate([self.cf_(scaled[:, own:]), self.encoder_(scaled[:, :own])], axis=1)
        return flat.reshape(len(flat), 1 + self.n_sem, self.width)

    def decode(self, tokens: npt.ArrayLike) -> Vectors:
        """Give [content | cf] of tokens: (n, 1 + n_sem, width) -> (n, d) float32."""
        self._fitted()
        array = np.asarray(tokens, dtype=np.float32)
        if array.shape[1:] != (1 + self.n_sem, self.width):
            raise DataError(f"tokens: expected shape (n, {1 + self.n_sem}, {self.width}), got {array.shape}")
        content = self.decoder_(array[:, 1:].reshape(len(array), self.n_sem * self.width))
        return self.scaling_.undo(np.concatenate([content, undone(self.cf_)(array[:, 0])], axis=1))

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        parts = [getattr(self, f"{part}_").arrays(part) for part in PARTS]
        named = {name: array for part in parts for name, array in part.items()}
        return {**named, "input_shift": self.scaling_.shift, "input_scale": self.scaling_.scale}

    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        for part in PARTS:
            setattr(self, f"{part}_", Perceptron.from_arrays(part, arrays))
        self.scaling_ = Scaling(arrays["input_shift"], arrays["input_scale"], unit=False)


def contexts(events: Events, X: Vectors, history: int) -> tuple[Vectors, npt.NDArray[np.bool_]]:
    """Give the mean row of X that users had before each item, (n, d), and where anything was: (n,).

    Of each event the `history` items before count the same, and events of an item count the same; a row is
    zero where nothing ever came before. Lag by lag: the pairs of all lags at once would take gigabytes.
    """
    from scipy.sparse import coo_array

    users, items = events.users, events.items
    place = np.arange(len(users)) - np.searchsorted(users, users)  # in its user's sequence
    sums, totals = np.zeros_like(X), np.zeros(len(X), dtype=np.float32)
    for lag in range(1, history + 1):
        later = np.flatnonzero(place >= lag)
        shares = (1 / np.minimum(place[later], history)).astype(np.float32)
        pairs = (items[later], items[later - lag])
        sums += coo_array((shares, pairs), shape=(len(X), len(X))).tocsr() @ X
        totals += np.bincount(pairs[0], shares, minlength=len(X))
    known = totals > 0
    sums[known] /= totals[known, None]
    return sums, known


def undone(layer: Perceptron) -> Perceptron:
    """Give the layer that undoes a linear one, by least squares."""
    inverse: Vectors = np.linalg.pinv(layer.weights[0]).astype(np.float32)
    return Perceptron((inverse,), (-inverse @ layer.biases[0],))


def score(queries: Vectors, tokens: Vectors, weights: npt.ArrayLike) -> Vectors:
    """Give the scores of items: sum_t weights_t * <query_t, token_t>; (q, T, h), (n, T, h), (T,) -> (q, n).

    Tokens have no order: one permutation of the T of all three changes nothing.

    >>> queries, tokens = np.ones((1, 2, 3), np.float32), np.ones((4, 2, 3), np.float32)
    >>> score(queries, tokens, [0.5, 1.0]).tolist()
    [[4.5, 4.5, 4.5, 4.5]]
    """
    weighted: Vectors = queries * np.asarray(weights, dtype=np.float32)[:, None]
    scores: Vectors = weighted.reshape(len(queries), -1) @ tokens.reshape(len(tokens), -1).T
    return scores


def position_ids(items: int, tokens: int) -> npt.NDArray[np.int64]:
    """Give the position of each token of a history: that of its item, the same for all tokens of it.

    >>> position_ids(2, 3).tolist()
    [0, 0, 0, 1, 1, 1]
    """
    return np.repeat(np.arange(items), tokens)


def decoder_mask(tokens: int) -> npt.NDArray[np.bool_]:
    """Give which queries a query sees in the decoder: itself alone, so that all are decoded at once.

    >>> decoder_mask(2).tolist()
    [[True, False], [False, True]]
    """
    return np.eye(tokens, dtype=bool)
