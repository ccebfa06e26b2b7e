"""Hashed words and letters: a text's n-grams, each added to one of `dim` numbers with a sign.

Unlike tfidf.py it is fitted on nothing, so an item's vector never changes when others come. Feature hashing:
Weinberger et al. 2009 (arXiv:0902.2206), as scikit-learn's HashingVectorizer does it (MurmurHash3).
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from importlib.metadata import version
from itertools import islice
from typing import Any

import numpy as np

from sid_pipelines.encoders.base import Encoded, finished
from sid_pipelines.encoders.options import HashingOptions

NUMBERS = 1 << 20  # of the vectors embedded at a time
SHORTEST = 3  # letters of an n-gram


class HashingEncoder:
    """Stateless vectors of `dim` numbers; see `base.Encoder`."""

    cached = False
    dims = 0

    def __init__(self, options: HashingOptions) -> None:
        """Make one vectoriser for words and one for letters within words."""
        from sklearn.feature_extraction.text import HashingVectorizer

        self.normalize = options.normalize
        self._options = options
        common = {"n_features": options.dim, "norm": None, "alternate_sign": True, "dtype": np.float64}
        self._parts = []
        if options.words:
            words = {"token_pattern": r"(?u)\b\w+\b", "ngram_range": (1, options.words)}
            self._parts.append(HashingVectorizer(**common, **words))
        if options.letters:
            letters = {"analyzer": "char_wb", "ngram_range": (SHORTEST, options.letters)}
            self._parts.append(HashingVectorizer(**common, **letters))

    def identity(self) -> dict[str, Any]:
        """Give everything that shapes a raw vector beside its text."""
        own = asdict(self._options)
        del own["normalize"]
        return {
            "encoder": "hashing",
            **own,
            "precision": "fp64",
            "device": "cpu",
            "packages": {"scikit-learn": version("scikit-learn")},
        }

    def encode(self, texts: Iterable[tuple[int, str]]) -> Iterator[Encoded]:
        """Give raw vectors for (row, text) pairs, in their order: words and letters weigh the same."""
        stream = iter(texts)
        while some := list(islice(stream, max(NUMBERS // self._options.dim, 1))):
            strings = [text for _, text in some]
            counted = [part.transform(strings).toarray() for part in self._parts]
            raw = sum(finished(one, normalize=True, dims=0) for one in counted)
            rows = np.array([row for row, _ in some], dtype=np.int64)
            yield rows, np.asarray(raw, dtype=np.float32), np.zeros(len(rows), dtype=bool)
