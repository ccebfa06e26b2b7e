"""One vocabulary for all levels: special tokens first, then level after level, each shifted past the last.

The `angle` token strings `<a_12>` are LC-Rec's, LETTER's and MiniOneRec's. Where IDs are paths of any length
(indexer.py), a code is the same token at every place, so there is one level that all places share.
"""

import json
import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError

PAD, BOS, EOS = 0, 1, 2
FIRST = 3
MAX_LEVELS = len(string.ascii_lowercase)  # a letter names each level
FORMAT = 1


@dataclass(frozen=True)
class Vocabulary:
    """How SIDs become token ids and strings.

    levels: codes per level, coarse to fine. places: 0, or how long the longest ID is where all places share
    the one level. names: the token of each code there. prefix: stands before the letter of each token, so
    that users' `<ua_12>` and items' `<a_12>` can meet in one trainer.
    """

    levels: tuple[int, ...]
    places: int = 0
    names: tuple[str, ...] = ()
    prefix: str = ""
    pad: int = field(default=PAD, init=False)
    bos: int = field(default=BOS, init=False)
    eos: int = field(default=EOS, init=False)

    def __post_init__(self) -> None:
        """Refuse more levels than there are letters to name them."""
        if not 1 <= len(self.levels) <= MAX_LEVELS:
            raise ValueError(f"expected 1 to {MAX_LEVELS} levels, got {len(self.levels)}")
        if self.places and (len(self.levels) != 1 or len(self.names) != self.levels[0]):
            raise ValueError(f"expected one level with a name for each code, got {list(self.levels)}")

    @property
    def length(self) -> int:
        """Give the codes of the longest SID."""
        return self.places or len(self.levels)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Give how many codes may stand at each place."""
        return self.levels * self.places if self.places else self.levels

    @property
    def offsets(self) -> tuple[int, ...]:
        """Give the token id of code 0 at each place."""
        if self.places:
            return (FIRST,) * self.places
        return tuple(FIRST + sum(self.levels[:level]) for level in range(len(self.levels)))

    def __len__(self) -> int:
        """Give the number of token ids, special ones included."""
        return FIRST + sum(self.levels)

    def token_ids(self, sids: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """Shift codes into the one vocabulary: (n, L) -> (n, L) int32; -1, no code, stays -1."""
        codes = np.asarray(sids, dtype=np.int32)
        return np.where(codes < 0, codes, codes + np.asarray(self.offsets, dtype=np.int32))

    def sids(self, token_ids: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """Shift token ids back into codes: (n, L) -> (n, L) int32; padding becomes -1, no code."""
        codes = np.asarray(token_ids, dtype=np.int32) - np.asarray(self.offsets, dtype=np.int32)
        return np.maximum(codes, np.int32(-1))

    def tokens(self, sid: Sequence[int]) -> list[str]:
        """Give one SID as token strings.

        >>> Vocabulary((64, 64)).tokens([12, 5])
        ['<a_12>', '<b_5>']
        >>> Vocabulary((64, 64), prefix="u").tokens([12, 5])
        ['<ua_12>', '<ub_5>']
        """
        if self.places:
            return [self.names[code] for code in sid]
        letters = string.ascii_lowercase
        return [f"<{self.prefix}{letters[level]}_{code}>" for level, code in enumerate(sid)]

    def strings(self) -> list[str]:
        """Give the string of every token id, in order."""
        special = ["<pad>", "<bos>", "<eos>"]
        if self.places:
            return special + list(self.names)
        letters = string.ascii_lowercase
        return special + [
            f"<{self.prefix}{letters[level]}_{code}>"
            for level, k in enumerate(self.levels)
            for code in range(k)
        ]

    def to_json(self) -> dict[str, Any]:
        """Give what `vocabulary.json` holds."""
        return {
            "format": FORMAT,
            "pad": self.pad,
            "bos": self.bos,
            "eos": self.eos,
            "levels": list(self.levels),
            **({"places": self.places} if self.places else {}),
            **({"prefix": self.prefix} if self.prefix else {}),
            "offsets": list(self.offsets),
            "size": len(self),
            "dialects": {"angle": self.strings()},
        }

    def save(self, path: Path) -> None:
        """Write `vocabulary.json`."""
        path.write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Read `vocabulary.json`; raises DataError for another format or what is none."""
        try:
            written = json.loads(path.read_text(encoding="utf-8"))
            found, levels, places = written["format"], tuple(written["levels"]), written.get("places", 0)
            names = tuple(written["dialects"]["angle"][FIRST:]) if places else ()
            prefix = written.get("prefix", "")
        except (OSError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise DataError(f"{path}: cannot be read as a vocabulary ({error!r}); it is damaged") from error
        if found != FORMAT:
            raise DataError(f"{path}: expected format {FORMAT}, got {found!r}")
        if not 1 <= len(levels) <= MAX_LEVELS or not all(type(k) is int and k > 0 for k in levels):
            raise DataError(f"{path}: levels: expected 1 to {MAX_LEVELS} numbers of codes, got {levels!r}")
        if type(places) is not int or places < 0 or not all(type(name) is str for name in names):
            raise DataError(f"{path}: places: expected 0 or more and a name for each code, got {places!r}")
        if type(prefix) is not str:
            raise DataError(f"{path}: prefix: expected text, got {prefix!r}")
        try:
            return cls(levels, places, names, prefix)
        except ValueError as error:
            raise DataError(f"{path}: {error}; it is damaged") from None


def sid_key(sid: Sequence[int]) -> str:
    """Give a SID as one scalar that joins anywhere.

    >>> sid_key([12, 5, 63])
    '12-5-63'
    """
    return "-".join(map(str, sid))
