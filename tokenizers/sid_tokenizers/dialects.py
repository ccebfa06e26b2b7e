"""Dialects: how trainers write one and the same SID, as strings or as numbers, and the way back.

vocabulary.py numbers the tokens of our own loader; here stands how other people's trainers spell them. A
dialect knows no item and no file: codes and the vocabulary in, text or numbers out. Reading back is strict:
what could not have been written with this vocabulary raises DataError. Whether an item has that SID, the trie
knows.
"""

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.vocabulary import Vocabulary

I64 = npt.NDArray[np.int64]
NAME = r"<(?:\\[\s\S]|[^\\<>])*>"  # a token of IDs that are paths: indexers/categories.py


@dataclass(frozen=True)
class Dialect:
    """One way to write SIDs as strings.

    token: the string of a code, with `{letter}` (a, b, ... by place), `{place}` (0, 1, ...) and `{code}`.
    first: what code 0 is called. shifted: codes count on from level to level, so `{code}` alone tells the
    place. begin, end: stand around every item. between: between the codes of one item. names: IDs that are
    paths in one vocabulary are written by the names that it has. used_by: whose it is.
    """

    name: str
    token: str
    used_by: str
    first: int = 0
    shifted: bool = False
    begin: str = ""
    end: str = ""
    between: str = ""
    names: bool = False

    def tokens(self, sid: Sequence[int], vocabulary: Vocabulary) -> list[str]:
        """Give the strings of one SID's codes, without what stands around an item.

        >>> DIALECTS["onerec"].tokens([12, 5], Vocabulary((64, 64)))
        ['<s_a_12>', '<s_b_5>']
        """
        self.check(vocabulary)
        if vocabulary.places and self.names:
            return vocabulary.tokens(sid)
        shifts = self._shifts(vocabulary)
        return [self._token(place, int(code), shifts, vocabulary) for place, code in enumerate(sid)]

    def text(self, sid: Sequence[int], vocabulary: Vocabulary) -> str:
        """Give one item as it stands in a prompt.

        >>> DIALECTS["onerec"].text([12, 5], Vocabulary((64, 64)))
        '<|sid_begin|><s_a_12><s_b_5><|sid_end|>'
        """
        return self.begin + self.between.join(self.tokens(sid, vocabulary)) + self.end

    def codes(self, text: str, vocabulary: Vocabulary) -> list[int]:
        """Read back what `text` wrote of one item; raises DataError where it could not have written that.

        >>> DIALECTS["pipe"].codes("<|a_13|><|b_6|>", Vocabulary((64, 64)))
        [12, 5]
        """
        self.check(vocabulary)
        inner = text.removeprefix(self.begin).removesuffix(self.end)
        sid = self._read(inner, vocabulary)
        if not self._has(sid, vocabulary) or self.text(sid, vocabulary) != text:
            raise DataError(
                f"dialect {self.name}: {text!r} is no SID of the vocabulary; expected one to "
                f"{vocabulary.length} codes, such as {self.text([0] * vocabulary.length, vocabulary)!r}"
            )
        return sid

    def strings(self, vocabulary: Vocabulary) -> list[str]:
        """Give every token that a trainer has to add, level after level, then what stands around an item."""
        return [one for level in self.levels(vocabulary) for one in level] + self.around

    def levels(self, vocabulary: Vocabulary) -> list[list[str]]:
        """Give the token of every code, level by level; one level where all places share one vocabulary."""
        self.check(vocabulary)
        if vocabulary.places and self.names:
            return [list(vocabulary.names)]
        shifts = self._shifts(vocabulary)
        return [
            [self._token(place, code, shifts, vocabulary) for code in range(size)]
            for place, size in enumerate(vocabulary.levels)
        ]

    def pattern(self, vocabulary: Vocabulary) -> str:
        """Give a regular expression that finds the tokens of codes; a group in it has the number."""
        if vocabulary.places and self.names:
            return NAME
        letter = re.escape(vocabulary.prefix) + "[a-z]"
        pattern = re.escape(self.token)
        for key, what in {"letter": letter, "place": "[0-9]{1,2}", "code": "([0-9]{1,9})"}.items():
            pattern = pattern.replace(re.escape(f"{{{key}}}"), what)
        return pattern

    @property
    def around(self) -> list[str]:
        """Give the tokens that stand around an item, if there are any."""
        return [one for one in (self.begin, self.end) if one]

    def check(self, vocabulary: Vocabulary) -> None:
        """Raise DataError where a code's string tells its place, but IDs are paths in one vocabulary."""
        placed = self.shifted or "{letter}" in self.token or "{place}" in self.token
        if vocabulary.places and placed and not self.names:
            raise DataError(
                f"dialect {self.name}: names a code by its place; expected codes by level, got IDs of up to "
                f"{vocabulary.places} tokens of one vocabulary, which mean the same at every place. Such IDs "
                f"can be written as: {', '.join(one.name for one in DIALECTS.values() if one.names)}"
            )

    def _read(self, inner: str, vocabulary: Vocabulary) -> list[int]:
        """Give the codes that stand in a text; of what is none, anything that does not read the same."""
        found = re.findall(self.pattern(vocabulary), inner)[: vocabulary.length + 1]
        if vocabulary.places and self.names:
            known = _numbered(vocabulary.names)
            return [known.get(name, -1) for name in found]
        shifts = self._shifts(vocabulary)
        return [int(number) - shift for number, shift in zip(found, shifts, strict=False)]

    @staticmethod
    def _has(sid: Sequence[int], vocabulary: Vocabulary) -> bool:
        within = all(0 <= code < size for code, size in zip(sid, vocabulary.sizes, strict=False))
        return within and 1 <= len(sid) <= vocabulary.length

    def _shifts(self, vocabulary: Vocabulary) -> list[int]:
        sizes = vocabulary.sizes
        return [self.first + (sum(sizes[:place]) if self.shifted else 0) for place in range(len(sizes))]

    def _token(self, place: int, code: int, shifts: Sequence[int], vocabulary: Vocabulary) -> str:
        letter = vocabulary.prefix + string.ascii_lowercase[0 if vocabulary.places else place]
        return self.token.format(letter=letter, place=place, code=code + shifts[place])


@lru_cache(maxsize=4)
def _numbered(names: tuple[str, ...]) -> dict[str, int]:
    return {name: code for code, name in enumerate(names)}


DIALECTS: Mapping[str, Dialect] = {
    one.name: one
    for one in (
        Dialect("angle", "<{letter}_{code}>", "LC-Rec, LETTER, MiniOneRec with RQ-VAE", names=True),
        Dialect("angle+1", "<{letter}_{code}>", "MiniOneRec with constrained or RQ-KMeans+", first=1),
        Dialect("pipe", "<|{letter}_{code}|>", "GREAM", first=1),
        Dialect("onerec", "<s_{letter}_{code}>", "OpenOneRec", begin="<|sid_begin|>", end="<|sid_end|>"),
        Dialect("ci", "<CI{code}>", "OpenP5", shifted=True, names=True),
        Dialect("level", "<L{place}_{code}>", "UniGenRec", between=" "),
        Dialect("forge", "C{code}", "FORGE", shifted=True),
        Dialect("sid", "<|sid_{code}|>", "eugeneyan", shifted=True, begin="<|sid_start|>", end="<|sid_end|>"),
        Dialect("plain", "{code}", "whoever splits at spaces", between=" "),
    )
}


@dataclass(frozen=True)
class Numbering:
    """One way to write SIDs as numbers, as one matrix.

    first: the number of code 0, at the first place. shared: all places count alike; else each counts on
    where the one before ends. by_place: rows are places, columns items. used_by: whose it is, and which
    numbers are no codes.
    """

    name: str
    used_by: str
    first: int = 0
    shared: bool = False
    by_place: bool = False

    def numbers(self, sids: npt.ArrayLike, vocabulary: Vocabulary) -> I64:
        """Give codes (n, L) as numbers, (n, L) or (L, n) int64; -1, no code, stays.

        >>> NUMBERINGS["grid"].numbers([[0, 5], [1, 6]], Vocabulary((64, 64))).tolist()
        [[0, 1], [5, 6]]
        """
        codes = np.asarray(sids, dtype=np.int64)
        numbers = np.where(codes < 0, codes, codes + self._shifts(vocabulary))
        return np.ascontiguousarray(numbers.T) if self.by_place else numbers

    def codes(self, numbers: npt.ArrayLike, vocabulary: Vocabulary) -> I64:
        """Read back codes (n, L); raises DataError naming the first number that no code of its place has.

        >>> NUMBERINGS["offset"].codes([[1, 70]], Vocabulary((64, 64))).tolist()
        [[0, 5]]
        """
        given = np.asarray(numbers, dtype=np.int64)
        rows = given.T if self.by_place else given
        shifts = self._shifts(vocabulary)
        if rows.ndim != 2 or rows.shape[1] != len(shifts):
            raise DataError(f"numbering {self.name}: expected {len(shifts)} places, got shape {given.shape}")
        codes = np.where(rows == -1, -1, rows - shifts)
        wrong = np.argwhere((codes >= np.asarray(vocabulary.sizes)) | ((codes < 0) & (rows != -1)))
        if len(wrong):
            row, place = wrong[0].tolist()
            first = int(shifts[place])
            raise DataError(
                f"numbering {self.name}, row {row}: expected {first} to "
                f"{first + vocabulary.sizes[place] - 1} at place {place}, got {rows[row, place]}"
            )
        return codes

    def after(self, vocabulary: Vocabulary) -> int:
        """Give the first number past all codes: RecGPT's padding, MMGRec's start, whose end is the next.

        >>> NUMBERINGS["flat"].after(Vocabulary((15360,) * 4))
        15360
        """
        return int(np.max(self._shifts(vocabulary) + np.asarray(vocabulary.sizes)))

    def _shifts(self, vocabulary: Vocabulary) -> I64:
        offsets = np.asarray(vocabulary.offsets, dtype=np.int64) - vocabulary.offsets[0]
        return self.first + (np.zeros_like(offsets) if self.shared else offsets)


NUMBERINGS: Mapping[str, Numbering] = {
    one.name: one
    for one in (
        Numbering("grid", "GRID: a tensor of (L, N)", shared=True, by_place=True),
        Numbering("offset", "UniGRec: 0 is padding and start", first=1),
        Numbering("vocab-offset", "DDRO: 32128 is the first number after T5's words", first=32_128),
        Numbering("shared", "MMGRec: 0 is padding, start and end come after", first=1, shared=True),
        Numbering("flat", "RecGPT: padding comes after", shared=True),
    )
}


def shifted_ids(sids: npt.ArrayLike, vocabulary: Vocabulary, *, first: int = 1) -> I64:
    """Give codes as numbers of one vocabulary that begins at `first`: (n, L) -> (n, L) int64; -1 stays.

    UniGRec has first = 1 (0 is padding), DDRO 32128, the first number after T5's words.

    >>> shifted_ids([[0, 5]], Vocabulary((256, 256))).tolist()
    [[1, 262]]
    """
    return Numbering("shifted", "", first=first).numbers(sids, vocabulary)


def shared_ids(sids: npt.ArrayLike, *, first: int = 1) -> I64:
    """Give codes as numbers that all places share: (n, L) -> (n, L) int64; -1, no code, stays. MMGRec.

    >>> shared_ids([[0, 5]]).tolist()
    [[1, 6]]
    """
    codes = np.asarray(sids, dtype=np.int64)
    return np.where(codes < 0, codes, codes + first)


def code_ids(vocabulary: Vocabulary) -> tuple[I64, ...]:
    """Give the token id of every code in our own vocabulary, place by place: (sizes[place],) each."""
    pairs = zip(vocabulary.offsets, vocabulary.sizes, strict=True)
    return tuple(np.arange(first, first + size, dtype=np.int64) for first, size in pairs)
