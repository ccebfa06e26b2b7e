"""The door to transformers' tokenizers: SID tokens added to any of them, or a tokenizer of nothing else.

Standing alone, it has the token ids of vocabulary.py. Added to a language model's, SID tokens come after its
own words: all of the first level, then the second, and so on, then what stands around an item, which is the
order that trainers add them in (OpenOneRec demands it).
"""

import copy
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError, MissingExtraError
from sid_tokenizers.dialects import DIALECTS, Dialect
from sid_tokenizers.vocabulary import FIRST, Vocabulary

try:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
except ImportError as error:
    raise MissingExtraError("A tokenizer for transformers", "transformers") from error

I64 = npt.NDArray[np.int64]


def standing_alone(vocabulary: Vocabulary, dialect: Dialect) -> PreTrainedTokenizerFast:
    """Give a tokenizer whose tokens are pad, bos, eos and the SIDs', with the ids of the vocabulary.

    What stands around an item comes after, if the dialect has it. Blanks between tokens are passed over;
    any other text raises an error of `tokenizers`, because there is no token for what is unknown. Raises
    DataError where codes of two levels are written alike.
    """
    strings = vocabulary.strings()[:FIRST] + _distinct(vocabulary, dialect)
    tokenizer = Tokenizer(models.WordLevel({token: number for number, token in enumerate(strings)}))
    pattern = "|".join([*map(re.escape, strings[:FIRST] + dialect.around), dialect.pattern(vocabulary)])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.Split(Regex(r"^\s+$"), "removed")]
    )
    if not dialect.between:
        tokenizer.decoder = decoders.Fuse()
    pad, bos, eos = strings[:FIRST]
    names = {"pad_token": pad, "bos_token": bos, "eos_token": eos}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)  # type: ignore[no-untyped-call]


def extended(
    base: "str | Path | PreTrainedTokenizerBase", vocabulary: Vocabulary, dialect: Dialect
) -> PreTrainedTokenizerBase:
    """Give a copy of a tokenizer, an object or a folder, to which the SID tokens are added.

    Tokens that it has already keep their ids. Raises DataError where one of them is its pad, bos or the like,
    or where codes of two levels are written alike.
    """
    tokenizer: PreTrainedTokenizerBase
    if isinstance(base, str | Path):
        if not Path(base).is_dir():
            raise DataError(f"{base}: is no folder of a tokenizer; expected one that save_pretrained wrote")
        tokenizer = AutoTokenizer.from_pretrained(str(base), local_files_only=True)
    else:
        tokenizer = copy.deepcopy(base)
    strings = _distinct(vocabulary, dialect)
    taken = set(strings) & set(tokenizer.special_tokens_map.values())
    if taken:
        raise DataError(
            f"dialect {dialect.name}: {min(taken)!r} is a special token of the tokenizer already; choose a "
            "dialect that writes codes otherwise"
        )
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in strings])
    return tokenizer


def token_ids(
    tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary, dialect: Dialect
) -> tuple[I64, ...]:
    """Give the tokenizer's id of every code, place by place: (sizes[place],) int64 each.

    Raises DataError where the tokenizer lacks one.
    """
    known = tokenizer.get_vocab()
    found = []
    for level in dialect.levels(vocabulary):
        lacking = [token for token in level if token not in known]
        if lacking:
            raise DataError(
                f"tokenizer: lacks {len(lacking):,} tokens of dialect {dialect.name}, {lacking[0]!r} first; "
                "expected one that release.pretrained_tokenizer(...) gave"
            )
        found.append(np.array([known[token] for token in level], dtype=np.int64))
    return tuple(found) * (vocabulary.places or 1)


def dialect_named(name: str) -> Dialect:
    """Give a dialect, or raise DataError listing those there are."""
    if name not in DIALECTS:
        raise DataError(f"unknown dialect {name!r}; there are: {', '.join(DIALECTS)}")
    return DIALECTS[name]


def _distinct(vocabulary: Vocabulary, dialect: Dialect) -> list[str]:
    strings = dialect.strings(vocabulary)
    if len(set(strings)) < len(strings):
        raise DataError(
            f"dialect {dialect.name}: writes codes of two levels alike; expected a token of its own for each"
        )
    return strings
