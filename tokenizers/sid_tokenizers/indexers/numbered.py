"""IDs that are one number: the base of all schemes here, and the two that say nothing of the item.

sequential.py counts in the order of behaviour, text_ids.py names items by words. A number is one code, so no
two items share a part of their IDs.
"""

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.base import Codes, Vectors
from sid_tokenizers.catalogue import Catalogue
from sid_tokenizers.indexer import Indexer
from sid_tokenizers.residual import check_at_least
from sid_tokenizers.scheme import Traits

Numbers = npt.NDArray[np.int64]


class Numbered(Indexer):
    """A scheme whose ID of an item is a number; nothing is learned, numbers are given by `index`."""

    def _fit(self, X: Vectors, about: Catalogue) -> None:
        """Learn nothing."""

    def _index(self, X: Vectors, about: Catalogue, taken: Codes) -> Codes:
        self._check_about(about)
        numbers = self._numbers(about, np.unique(taken).astype(np.int64))
        return numbers.astype(np.int32)[:, None]

    @abstractmethod
    def _numbers(self, about: Catalogue, taken: Numbers) -> Numbers:
        """Give each item a number of its own, none of those taken: (n,), items in order of their ids."""

    def token(self, code: int) -> str:
        """Give the string of a number.

        >>> Independent().token(7), RandomNumbers().token(1001)
        ('<extra_id_7>', '<1001>')
        """
        return f"<{code}>"

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {}

    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        """Take nothing back."""


class Independent(Numbered):
    """One token `<extra_id_v>` for each item (IID of "How to Index Item IDs"; rule of TOKENIZERS.md S9).

    first: the v of the first item in order of the ids. T5 has tokens `<extra_id_0>` to `<extra_id_99>` of its
    own: set it to 100 where these are to stay what they are. seed: without effect, nothing is drawn.
    """

    name: ClassVar[str] = "independent"
    paper: ClassVar[str] = "Hua et al. 2023, How to Index Item IDs, independent IDs [S]; order by item id [D]"
    traits: ClassVar[Traits] = Traits(ordered=False, unique=True, inputs=())

    def __init__(self, *, first: int = 1, seed: int = 0) -> None:
        """Store the parameters; `fit` checks them."""
        self.first = first
        self.seed = seed

    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range."""
        check_at_least(self, first=0, seed=0)

    def _numbers(self, about: Catalogue, taken: Numbers) -> Numbers:
        return counted_on(len(about), self.first, taken)

    def token(self, code: int) -> str:
        """Give the string of a number, as the source writes it."""
        return f"<extra_id_{code}>"


class RandomNumbers(Numbered):
    """Numbers drawn without repeating (RID of "How to Index Item IDs"), docids their decimal digits.

    low, high: numbers are drawn from low to high - 1; the source has 1000 and 13000, for Beauty. Where that
    is not enough for all items, high grows to as many as are needed. seed: of the draw.
    """

    name: ClassVar[str] = "random"
    paper: ClassVar[str] = "Hua et al. 2023, How to Index Item IDs, random IDs [S]; the range grows [D]"
    traits: ClassVar[Traits] = Traits(ordered=False, unique=True, inputs=())

    def __init__(self, *, low: int = 1000, high: int = 13_000, seed: int = 0) -> None:
        """Store the parameters; `fit` checks them."""
        self.low = low
        self.high = high
        self.seed = seed

    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range."""
        check_at_least(self, low=0, high=0, seed=0)
        if self.high <= self.low:
            raise DataError(f"high: expected more than low, {self.low}, got {self.high}")

    def _numbers(self, about: Catalogue, taken: Numbers) -> Numbers:
        enough = max(self.high, self.low + len(taken) + len(about))
        free = np.setdiff1d(np.arange(self.low, enough), taken)
        return np.random.default_rng(self.seed).permutation(free)[: len(about)]

    def docids(self, ids: Codes, about: Catalogue) -> list[str]:
        """Give the numbers as text."""
        return decimals(ids)


def counted_on(n: int, first: int, taken: Numbers) -> Numbers:
    """Give n numbers from `first` on, or from the one after the largest that is taken.

    >>> counted_on(3, 1001, np.array([1001, 1002]))
    array([1003, 1004, 1005])
    """
    return np.arange(n, dtype=np.int64) + max(first, int(taken.max(initial=-1)) + 1)


def decimals(ids: Codes) -> list[str]:
    """Give IDs of one number each as decimal text."""
    return [str(number) for number in ids[:, 0].tolist()]
