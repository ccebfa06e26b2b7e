"""What schemes with codebooks share: a code is the number of a row, which may be renumbered.

The labels of a codebook mean nothing, so a new one may be given those of an old one that it resembles;
relabel.py finds them. Unlike it a grid, as FSQ's, has no labels to give: its codes are places.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sid_tokenizers.base import Codes, Labels, Tokenizer, Vectors


class CodebookTokenizer(Tokenizer):
    """A tokenizer whose code is the number of a row of its level's codebook.

    Learns `codebooks_`: one (K, width) float32 matrix per level, row k being what code k stands for.
    Relabelled it also has `labels_`, one (K,) int32 array for each of `free_levels`: the code of each row as
    rows were learned. Of rows equally near, the one learned first is still taken, and products are
    rounded as before, so that relabelling changes labels and nothing else.
    """

    codebooks_: list[Vectors]
    labels_: list[Labels]

    @property
    def free_levels(self) -> int:
        """Give how many levels, from the first on, have codes that are mere labels: all."""
        return len(self.levels)

    @property
    def _learned(self) -> list[Vectors]:
        """Give the codebooks with their rows as they were learned."""
        books = list(self.codebooks_)
        for level, labels in enumerate(getattr(self, "labels_", ())):
            books[level] = books[level][labels]
        return books

    def _labelled(self, codes: Codes) -> Codes:
        """Give the codes that rows have, for their numbers as they were learned: (n, p) -> (n, p)."""
        return renamed(codes, self.labels_) if hasattr(self, "labels_") else codes

    def _relabel(self, labels: list[Labels]) -> None:
        learned = self._learned
        self.labels_ = (
            [new[old] for new, old in zip(labels, self.labels_, strict=True)]
            if hasattr(self, "labels_")
            else labels
        )
        books = list(self.codebooks_)
        for level, own in enumerate(self.labels_):
            books[level] = np.empty_like(learned[level])
            books[level][own] = learned[level]
        self.codebooks_ = books

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        labels = enumerate(getattr(self, "labels_", ()))
        return {
            **{f"codebook_{level}": book for level, book in enumerate(self.codebooks_)},
            **{f"labels_{level}": one for level, one in labels},
        }

    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self.codebooks_ = [arrays[f"codebook_{level}"] for level in range(len(self.levels))]
        if "labels_0" in arrays:
            self.labels_ = [arrays[f"labels_{level}"] for level in range(self.free_levels)]


def renamed(codes: Codes, labels: Sequence[Labels]) -> Codes:
    """Give codes (n, p) other labels, level by level; levels beyond those given keep theirs.

    >>> renamed(np.array([[0, 5], [1, 6]]), [np.array([3, 2])]).tolist()
    [[3, 5], [2, 6]]
    """
    out = codes.copy()
    for level, new in enumerate(labels[: codes.shape[1]]):
        out[:, level] = new[codes[:, level]]
    return out
