"""Schemes that give items IDs by what is known of them: a tree, a category, an order. No vector has codes.

Unlike base.py an ID is a path of any length in one vocabulary for all places: code 7 is the same token
wherever it stands. Every item gets an ID of its own, so no collision policy follows. New items get IDs by
what was learned, around those that are taken.
"""

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sid_tokenizers.base import Codes, Vectors, check_vectors
from sid_tokenizers.catalogue import Catalogue
from sid_tokenizers.catalogue_scheme import CatalogueScheme
from sid_tokenizers.indexers.paths import NONE, beginning, stacked


class Indexer(CatalogueScheme):
    """A scheme that gives every item of a catalogue an ID of its own.

    No ID is the beginning of another, so that decoding knows where one ends.
    """

    def index(self, X: npt.ArrayLike, *, about: Catalogue, taken: Codes | None = None) -> Codes:
        """Give every item its ID: (n, W) int32, -1 in the last places of a shorter one.

        taken: (m, V), IDs given before, which stay; new ones are counted on after them. Row order does not
        matter.
        """
        self._check_about(about)
        vectors = check_vectors(X, dim=self._fitted())
        order = about.order(len(vectors))
        given = NONE if taken is None else taken
        found = self._index(vectors[order], about.rows(order), given)
        assert beginning(stacked(given, found)) is None, f"{self.name} broke its promise"
        ids = np.empty_like(found)
        ids[order] = found
        return ids

    @abstractmethod
    def _index(self, X: Vectors, about: Catalogue, taken: Codes) -> Codes:
        """Give IDs to items in order of their ids."""

    @abstractmethod
    def token(self, code: int) -> str:
        """Give the string of a code, such as `<CI3>`; no two codes have the same."""

    def docids(self, ids: Codes, about: Catalogue) -> list[str] | None:
        """Give the text that names each item to a language model, unique; None where the tokens are all."""
        return None

    def paths(self, about: Catalogue) -> list[Sequence[Sequence[str]]] | None:
        """Give every path to each item, where a scheme knows more than the one of its ID; else None."""
        return None
