"""TF-IDF and a truncated SVD (latent semantic analysis), fitted on the texts of items with a train event.

Unlike hashing.py it learns which words matter, and therefore has to be told what it may learn from: texts of
items that only occur later would leak. Deerwester et al. 1990; scikit-learn's TruncatedSVD.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from itertools import islice
from typing import Any

import numpy as np

from sid_pipelines.encoders.base import Encoded
from sid_pipelines.encoders.options import TfidfOptions
from sid_schemas import DataError
from sid_tokenizers.blocks import one_core_products

TEXTS = 4096  # embedded at a time
TERMS = 1 << 17  # the most frequent ones; more would cost memory and say little
SPREAD = 7  # power iterations: scikit-learn's 5 leave the last of 256 directions loose


class TfidfEncoder:
    """Fitted vectors; see `base.Encoder`. They are not cached, since another fit gives others."""

    cached = False
    dims = 0

    def __init__(self, options: TfidfOptions, texts: Sequence[str]) -> None:
        """Fit on texts in a total order. Raises DataError where they hold too little for any dimension."""
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.normalize, self._options = options.normalize, options
        self._terms = TfidfVectorizer(
            ngram_range=(1, options.words),
            min_df=options.min_df,
            sublinear_tf=True,
            max_features=TERMS,
            token_pattern=r"(?u)\b\w+\b",
            dtype=np.float64,
        )
        try:
            counted = self._terms.fit_transform(texts)
        except ValueError as error:
            raise DataError(
                f"tfidf-svd: {len(texts)} train texts share no word (min_df = {options.min_df}); "
                "expected words that occur in several. Lower min_df, or use model = 'hashing'"
            ) from error
        dim = min(options.dim, min(counted.shape) - 1)
        if dim < 1:
            raise DataError(
                f"tfidf-svd: {counted.shape[0]} train texts of {counted.shape[1]} words leave no direction; "
                "expected at least 2 of both. Use model = 'hashing'"
            )
        svd = TruncatedSVD(dim, random_state=options.seed, n_iter=SPREAD)
        with one_core_products():
            svd.fit(counted)
        # The largest number of each direction is positive, whatever the solver gave.
        largest = np.abs(svd.components_).argmax(axis=1)
        signs = np.sign(svd.components_[np.arange(dim), largest])
        self._directions = np.ascontiguousarray((svd.components_ * signs[:, None]).T)
        self.fitted_on = len(texts)

    def identity(self) -> dict[str, Any]:
        """Give the options, and on how many texts they were fitted; the texts are the stage's input."""
        own = asdict(self._options)
        del own["normalize"]
        packages = {name: version(name) for name in ("scikit-learn", "scipy", "numpy")}
        return {
            "encoder": "tfidf-svd",
            **own,
            "precision": "fp64",
            "device": "cpu",
            "fitted_on": self.fitted_on,
            "packages": packages,
        }

    def encode(self, texts: Iterable[tuple[int, str]]) -> Iterator[Encoded]:
        """Give raw vectors for (row, text) pairs, in their order; no known word gives zeros."""
        stream = iter(texts)
        while some := list(islice(stream, TEXTS)):
            raw = self._terms.transform([text for _, text in some]) @ self._directions
            rows = np.array([row for row, _ in some], dtype=np.int64)
            yield rows, raw.astype(np.float32), np.zeros(len(rows), dtype=bool)
