"""One vocabulary for all levels: special tokens first, then level after level, each shifted past the last.

The `angle` token strings `<a_12>` are LC-Rec's, LETTER's and MiniOneRec's.
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
    """How SIDs become token ids and strings. levels: codes per level, coarse to fine."""

    levels: tuple[int, ...]
    pad: int = field(default=PAD, init=False)
    bos: int = field(default=BOS, init=False)
    eos: int = field(default=EOS, init=False)

    def __post_init__(self) -> None:
        """Refuse more levels than there are letters to name them."""
        if not 1 <= len(self.levels) <= MAX_LEVELS:
            raise ValueError(f"expected 1 to {MAX_LEVELS} levels, got {len(self.levels)}")

    @property
    def offsets(self) -> tuple[int, ...]:
        """Give the token id of each level's code 0."""
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
        """
        return [f"<{string.ascii_lowercase[level]}_{code}>" for level, code in enumerate(sid)]

    def strings(self) -> list[str]:
        """Give the string of every token id, in order."""
        special = ["<pad>", "<bos>", "<eos>"]
        letters = string.ascii_lowercase
        return special + [
            f"<{letters[level]}_{code}>" for level, k in enumerate(self.levels) for code in range(k)
        ]

    def to_json(self) -> dict[str, Any]:
        """Give what `vocabulary.json` holds."""
        return {
            "format": FORMAT,
            "pad": self.pad,
            "bos": self.bos,
            "eos": self.eos,
            "levels": list(self.levels),
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
            found, levels = written["format"], tuple(written["levels"])
        except (OSError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise DataError(f"{path}: cannot be read as a vocabulary ({error!r}); it is damaged") from error
        if found != FORMAT:
            raise DataError(f"{path}: expected format {FORMAT}, got {found!r}")
        if not 1 <= len(levels) <= MAX_LEVELS or not all(type(k) is int and k > 0 for k in levels):
            raise DataError(f"{path}: levels: expected 1 to {MAX_LEVELS} numbers of codes, got {levels!r}")
        return cls(levels)


def sid_key(sid: Sequence[int]) -> str:
    """Give a SID as one scalar that joins anywhere.

    >>> sid_key([12, 5, 63])
    '12-5-63'
    """
    return "-".join(map(str, sid))
