"""What indexer.py and continuous.py share: a scheme fitted on items and what is known of them."""

import hashlib
from abc import abstractmethod
from typing import Self

import numpy as np
import numpy.typing as npt

from sid_tokenizers.base import Vectors, check_vectors
from sid_tokenizers.catalogue import Catalogue
from sid_tokenizers.scheme import Scheme


class CatalogueScheme(Scheme):
    """A scheme that needs to know which items it is fitted on, by their ids at least."""

    def fit(self, X: npt.ArrayLike, *, about: Catalogue) -> Self:
        """Learn from items: X (n, d), which schemes read that say so. Row order does not matter.

        Raises DataError for an input that is not there, numbers that are not finite, ids that repeat;
        MissingExtraError where a package is missing.
        """
        self.check_params()
        self.check_package()
        self._check_about(about)
        vectors = check_vectors(X)
        order = about.order(len(vectors))
        vectors = np.ascontiguousarray(vectors[order])
        self._fit(vectors, about.rows(order))
        sha256 = hashlib.sha256(vectors.data).hexdigest()
        self.fit_ = {"rows": len(vectors), "dim": vectors.shape[1], "sha256": sha256}
        return self

    @abstractmethod
    def _fit(self, X: Vectors, about: Catalogue) -> None:
        """Learn from items in order of their ids."""
