"""What is known of items, made up from their vectors, so that one contract fits schemes with any inputs."""

import numpy as np
import numpy.typing as npt

from sid_tokenizers import TOKENIZERS, Catalogue, Events, Tokenizer
from sid_tokenizers.base import content_hashes

CF = 2  # columns that stand for behaviour: the last ones, as stacked schemes have them

CODERS: dict[str, type[Tokenizer]] = {
    name: scheme for name, scheme in TOKENIZERS.items() if issubclass(scheme, Tokenizer)
}


def known_of(X: npt.ArrayLike) -> Catalogue:
    """Give a catalogue that depends on the rows alone, not on their order; one of no items for no matrix."""
    try:
        with np.errstate(over="ignore"):
            rows = np.asarray(X, dtype=np.float32)
    except ValueError:
        rows = np.empty((0, CF), dtype=np.float32)
    if rows.ndim != 2:
        rows = np.empty((0, CF), dtype=np.float32)
    hashes = content_hashes(np.ascontiguousarray(rows))
    order = np.argsort(hashes, kind="stable")  # equal rows are alike in all that follows but their number
    place = np.empty(len(rows), dtype=np.int64)
    place[order] = np.arange(len(rows))
    n = len(rows)
    sorted_ = Catalogue(
        [f"i{number:06}" for number in range(n)],
        cf=np.nan_to_num(rows[order][:, -CF:]),
        popularity=np.arange(n)[::-1] // 2 + 1,
        categories=[[f"broad {number % 3}", f"narrow {number % 5}"] for number in range(n)],
        domains=[f"domain {number % 2}" for number in range(n)],
        titles=[f"title {number}" for number in range(n)],
        texts=[f"text {number}" for number in range(n)],
        events=Events(np.arange(2 * n) // 4, np.arange(2 * n) // 2),
    )
    return sorted_.rows(place)


def fit(tokenizer: Tokenizer, X: npt.ArrayLike, *, sample_weight: npt.ArrayLike | None = None) -> Tokenizer:
    """Fit a tokenizer to rows and to what is made up of them."""
    return tokenizer.fit(X, sample_weight=sample_weight, about=known_of(X))
