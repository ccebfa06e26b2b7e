"""Schemes that give items vectors in the place of codes: a set of continuous tokens each.

What identifies an item to the trainer is published as `vectors_<name>`; its SID is its number alone.
"""

from abc import abstractmethod

import numpy as np
import numpy.typing as npt

from sid_tokenizers.base import Vectors
from sid_tokenizers.catalogue_scheme import CatalogueScheme


class Continuous(CatalogueScheme):
    """A scheme that gives every item T vectors of h numbers."""

    @abstractmethod
    def vectors(self, X: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Give the tokens of X: (n, d) -> (n, T, h) float32."""

    @abstractmethod
    def decode(self, tokens: npt.ArrayLike) -> Vectors:
        """Give the vectors that tokens stand for: (n, T, h) -> (n, d) float32."""
