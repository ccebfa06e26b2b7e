"""What every text encoder is: an identity, and raw vectors for a stream of texts."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sid_tokenizers.base import Vectors

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Encoded = tuple[Rows, Vectors, Mask]  # rows, their raw vectors (m, d), which texts had too many tokens


class Encoder(Protocol):
    """Gives a text's vector whatever else is embedded in the run, in whatever order."""

    normalize: bool
    dims: int
    cached: bool  # False where a vector is sooner made than read; such encoders give rows in order

    def identity(self) -> dict[str, Any]:
        """Give everything that shapes a raw vector beside its text; the model is not loaded for it."""
        ...

    def encode(self, texts: Iterable[tuple[int, str]]) -> Iterator[Encoded]:
        """Give raw float32 vectors for (row, text) pairs, in blocks, in any order, each row once."""
        ...


def finished(raw: Vectors, *, normalize: bool, dims: int) -> Vectors:
    """Turn raw vectors into those that are stored: the first `dims` numbers (0: all), of length 1 or as is.

    A zero vector stays zero.

    >>> finished(np.array([[3, 4, 9], [0, 0, 0]], dtype=np.float32), normalize=True, dims=2).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    vectors = raw[:, :dims] if dims else raw
    if not normalize:
        return vectors
    # A row's sum must not depend on its place: numpy sums whole rows alike when nothing is cast on the way.
    length = np.sqrt((np.ascontiguousarray(vectors, dtype=np.float64) ** 2).sum(axis=1))
    return (vectors / np.where(length > 0, length, 1.0)[:, None]).astype(np.float32)


def embed_all(encoder: Encoder, texts: Sequence[str]) -> Vectors:
    """Embed some texts without a cache, each distinct one once: (n, d) float32, finished."""
    distinct = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    vectors: Vectors | None = None
    for rows, raw, _ in encoder.encode(enumerate(distinct)):
        if vectors is None:
            vectors = np.empty((len(distinct), raw.shape[1]), dtype=np.float32)
        vectors[rows] = raw
    if vectors is None:
        return np.empty((0, 0), dtype=np.float32)
    whole = vectors[[distinct[text] for text in texts]]
    return finished(whole, normalize=encoder.normalize, dims=encoder.dims)
