"""Dialects: how trainers write one and the same SID, as strings or as shifted numbers.

vocabulary.py numbers the tokens of our own loader; here stands how other people's trainers spell them. A
dialect knows no item and no file: codes and the vocabulary in, text or numbers out.
"""

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.vocabulary import Vocabulary

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Dialect:
    """One way to write SIDs as strings.

    token: the string of a code, with `{letter}` (a, b, ... by place), `{place}` (0, 1, ...) and `{code}`.
    first: what code 0 is called. shifted: codes count on from level to level, so `{code}` alone tells the
    place. begin, end: stand around every item. between: between the codes of one item. used_by: whose it is.
    """

    name: str
    token: str
    used_by: str
    first: int = 0
    shifted: bool = False
    begin: str = ""
    end: str = ""
    between: str = ""

    def tokens(self, sid: Sequence[int], vocabulary: Vocabulary) -> list[str]:
        """Give the strings of one SID's codes, without what stands around an item.

        >>> DIALECTS["onerec"].tokens([12, 5], Vocabulary((64, 64)))
        ['<s_a_12>', '<s_b_5>']
        """
        self.check(vocabulary)
        shifts = self._shifts(vocabulary)
        return [self._token(place, int(code), shifts[place]) for place, code in enumerate(sid)]

    def text(self, sid: Sequence[int], vocabulary: Vocabulary) -> str:
        """Give one item as it stands in a prompt.

        >>> DIALECTS["onerec"].text([12, 5], Vocabulary((64, 64)))
        '<|sid_begin|><s_a_12><s_b_5><|sid_end|>'
        """
        return self.begin + self.between.join(self.tokens(sid, vocabulary)) + self.end

    def strings(self, vocabulary: Vocabulary) -> list[str]:
        """Give every token that a trainer has to add, level after level, then what stands around an item."""
        self.check(vocabulary)
        shifts = self._shifts(vocabulary)
        codes = [
            self._token(place, code, shifts[place])
            for place, size in enumerate(vocabulary.levels)
            for code in range(size)
        ]
        return codes + [one for one in (self.begin, self.end) if one]

    def check(self, vocabulary: Vocabulary) -> None:
        """Raise DataError where codes have no place of their own: IDs that are paths in one vocabulary."""
        if vocabulary.places and "{letter}" in self.token + "{place}":
            raise DataError(
                f"dialect {self.name}: names a code by its place; expected codes by level, got IDs of up to "
                f"{vocabulary.places} tokens of one vocabulary, which mean the same at every place"
            )

    def _shifts(self, vocabulary: Vocabulary) -> list[int]:
        sizes = vocabulary.sizes
        return [self.first + (sum(sizes[:place]) if self.shifted else 0) for place in range(len(sizes))]

    def _token(self, place: int, code: int, shift: int) -> str:
        return self.token.format(letter=string.ascii_lowercase[place], place=place, code=code + shift)


DIALECTS: Mapping[str, Dialect] = {
    one.name: one
    for one in (
        Dialect("angle", "<{letter}_{code}>", "LC-Rec, LETTER, MiniOneRec with RQ-VAE"),
        Dialect("angle+1", "<{letter}_{code}>", "MiniOneRec with constrained or RQ-KMeans+", first=1),
        Dialect("pipe", "<|{letter}_{code}|>", "GREAM", first=1),
        Dialect("onerec", "<s_{letter}_{code}>", "OpenOneRec", begin="<|sid_begin|>", end="<|sid_end|>"),
        Dialect("ci", "<CI{code}>", "OpenP5", shifted=True),
        Dialect("level", "<L{place}_{code}>", "UniGenRec", between=" "),
        Dialect("forge", "C{code}", "FORGE", shifted=True),
        Dialect("sid", "<|sid_{code}|>", "eugeneyan", shifted=True, begin="<|sid_start|>", end="<|sid_end|>"),
        Dialect("plain", "{code}", "whoever splits at spaces", between=" "),
    )
}


def shifted_ids(sids: npt.ArrayLike, vocabulary: Vocabulary, *, first: int = 1) -> I64:
    """Give codes as numbers of one vocabulary that begins at `first`: (n, L) -> (n, L) int64; -1 stays.

    UniGRec has first = 1 (0 is padding), DDRO 32128, the first number after T5's words.

    >>> shifted_ids([[0, 5]], Vocabulary((256, 256))).tolist()
    [[1, 262]]
    """
    codes = np.asarray(sids, dtype=np.int64)
    offsets = np.asarray(vocabulary.offsets, dtype=np.int64) - vocabulary.offsets[0] + first
    return np.where(codes < 0, codes, codes + offsets)


def shared_ids(sids: npt.ArrayLike, *, first: int = 1) -> I64:
    """Give codes as numbers that all places share: (n, L) -> (n, L) int64; -1, no code, stays. MMGRec.

    >>> shared_ids([[0, 5]]).tolist()
    [[1, 6]]
    """
    codes = np.asarray(sids, dtype=np.int64)
    return np.where(codes < 0, codes, codes + first)


def read(text: str) -> list[int]:
    """Give the numbers that stand in a text of any dialect, in order: what a test reads back."""
    return [int(number) for number in re.findall(r"(?:^|[^\d])(\d+)", text)]
