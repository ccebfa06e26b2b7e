"""Dialects and numberings: known answers of TRAINER_FORMATS, and the way back, which is strict."""

import doctest
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sid_schemas import DataError
from sid_tokenizers import dialects, sid_items, trie_mask
from sid_tokenizers.base import Codes
from sid_tokenizers.dialects import DIALECTS, NUMBERINGS, Dialect, Numbering, shared_ids, shifted_ids
from sid_tokenizers.docid_tokens import pq_docids
from sid_tokenizers.vocabulary import Vocabulary

LEVELS = Vocabulary((8192, 8192, 8192))
NAMES = ("<Drama>", "<Sci-Fi, new>", r"<a\<b>", r"<\7>", "<1>", "<CI7>", "<02>", "<tab\there>")
PATHS = Vocabulary((len(NAMES),), 3, NAMES)

# As the trainers' own sources spell codes (1989, 6393, 6164); see docs/trainers.md.
SPELLED = {
    "angle": "<a_1989><b_6393><c_6164>",
    "angle+1": "<a_1990><b_6394><c_6165>",
    "pipe": "<|a_1990|><|b_6394|><|c_6165|>",
    "onerec": "<|sid_begin|><s_a_1989><s_b_6393><s_c_6164><|sid_end|>",
    "ci": "<CI1989><CI14585><CI22548>",
    "level": "<L0_1989> <L1_6393> <L2_6164>",
    "forge": "C1989C14585C22548",
    "sid": "<|sid_start|><|sid_1989|><|sid_14585|><|sid_22548|><|sid_end|>",
    "plain": "1989 6393 6164",
}
NUMBERED = {
    "grid": [[1989], [6393], [6164]],
    "offset": [[1990, 14586, 22549]],
    "vocab-offset": [[34117, 46713, 54676]],
    "shared": [[1990, 6394, 6165]],
    "flat": [[1989, 6393, 6164]],
}
every_dialect = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
every_numbering = pytest.mark.parametrize("numbering", NUMBERINGS.values(), ids=NUMBERINGS)


@pytest.mark.parametrize("module", [dialects, trie_mask, sid_items])
def test_examples_in_docstrings(module: ModuleType) -> None:
    done = doctest.testmod(module)
    assert done.attempted
    assert not done.failed


@every_dialect
def test_known_answers(dialect: Dialect) -> None:
    assert dialect.text([1989, 6393, 6164], LEVELS) == SPELLED[dialect.name]
    assert dialect.codes(SPELLED[dialect.name], LEVELS) == [1989, 6393, 6164]


@every_numbering
def test_known_numbers(numbering: Numbering) -> None:
    numbers = numbering.numbers([[1989, 6393, 6164]], LEVELS)
    assert numbers.dtype == np.int64
    assert numbers.flags.c_contiguous
    assert numbers.tolist() == NUMBERED[numbering.name]
    assert numbering.codes(numbers, LEVELS).tolist() == [[1989, 6393, 6164]]


few = settings(max_examples=25)


@st.composite
def with_sids(draw: st.DrawFn) -> tuple[Vocabulary, Codes]:
    """Give a vocabulary and SIDs of it, (n, L), some of them shorter."""
    sizes = tuple(draw(st.lists(st.integers(1, 12), min_size=1, max_size=5)))
    seed = np.random.default_rng(draw(st.integers(0, 2**16)))
    n = draw(st.integers(0, 6))
    sids = seed.integers(0, sizes, (n, len(sizes)), dtype=np.int32)
    sids[np.arange(len(sizes)) >= seed.integers(1, len(sizes) + 1, n)[:, None]] = -1
    return Vocabulary(sizes, prefix=draw(st.sampled_from(["", "u"]))), sids


@every_dialect
@few
@given(given_sids=with_sids())
def test_what_is_written_is_read_back(dialect: Dialect, given_sids: tuple[Vocabulary, Codes]) -> None:
    vocabulary, sids = given_sids
    for row in sids:
        sid = row[row >= 0].tolist()
        assert dialect.codes(dialect.text(sid, vocabulary), vocabulary) == sid
        assert set(dialect.tokens(sid, vocabulary)) <= set(dialect.strings(vocabulary))


@every_dialect
@few
@given(text=st.text(alphabet="<>|_ab cCILs017dinegt", max_size=24))
def test_a_text_is_read_only_if_it_is_written_so(dialect: Dialect, text: str) -> None:
    vocabulary = Vocabulary((8, 4))
    try:
        sid = dialect.codes(text, vocabulary)
    except DataError:
        return
    assert dialect.text(sid, vocabulary) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "a film", "<a_1", "<a_1><b_2>.", "<a_1> <b_2>", "<A_1>", "<b_1><a_2>", "<a_1><a_1>"),
        *("<a_8><b_0>", "<a_1><b_2><c_0>", "<a_01><b_2>", "<a_1><b_-1>", "<a_٣><b_1>", f"<a_{10**30}>"),
    ],
)
def test_what_is_no_sid_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"dialect angle: .* is no SID of the vocabulary; .*'<a_0><b_0>'"):
        DIALECTS["angle"].codes(text, Vocabulary((8, 4)))


@every_dialect
def test_tokens_come_level_after_level(dialect: Dialect) -> None:
    vocabulary = Vocabulary((2, 3))
    levels = dialect.levels(vocabulary)
    assert [len(level) for level in levels] == [2, 3]
    assert dialect.strings(vocabulary) == levels[0] + levels[1] + dialect.around
    assert [dialect.tokens([a, b], vocabulary) for a in range(2) for b in range(3)] == [
        [levels[0][a], levels[1][b]] for a in range(2) for b in range(3)
    ]


def test_angle_is_what_the_vocabulary_says() -> None:
    for vocabulary in (Vocabulary((2, 3)), Vocabulary((2, 3), prefix="u"), PATHS):
        assert DIALECTS["angle"].strings(vocabulary) == vocabulary.strings()[3:]
        assert DIALECTS["angle"].tokens([1, 2], vocabulary) == vocabulary.tokens([1, 2])


@pytest.mark.parametrize("name", ["angle", "ci"])
@given(path=st.lists(st.integers(0, len(NAMES) - 1), min_size=1, max_size=3))
def test_paths_keep_their_names(name: str, path: list[int]) -> None:
    text = "".join(NAMES[code] for code in path)
    assert DIALECTS[name].text(path, PATHS) == text
    assert DIALECTS[name].codes(text, PATHS) == path


def test_what_paths_cannot_be() -> None:
    for text in ("<Drama><Drama><Drama><Drama>", "<nothing>", "<Drama>x", ""):
        with pytest.raises(DataError, match="no SID"):
            DIALECTS["angle"].codes(text, PATHS)
    for name in ("angle+1", "pipe", "onerec", "level", "forge", "sid"):
        with pytest.raises(DataError, match=r": names a code by its place; .* written as: angle, ci$"):
            DIALECTS[name].text([1], PATHS)


@every_numbering
@few
@given(given_sids=with_sids())
def test_numbers_come_back(numbering: Numbering, given_sids: tuple[Vocabulary, Codes]) -> None:
    vocabulary, sids = given_sids
    numbers = numbering.numbers(sids, vocabulary)
    assert (numbering.codes(numbers, vocabulary) == sids).all()
    assert numbers.size == 0 or numbers.max() < numbering.after(vocabulary)


def test_numbers_that_are_no_codes() -> None:
    vocabulary = Vocabulary((8, 4))
    with pytest.raises(DataError, match=r"numbering offset, row 1: expected 9 to 12 at place 1, got 13"):
        NUMBERINGS["offset"].codes([[1, 9], [1, 13]], vocabulary)
    with pytest.raises(DataError, match=r"numbering offset, row 0: expected 1 to 8 at place 0, got 0"):
        NUMBERINGS["offset"].codes([[0, 9]], vocabulary)
    with pytest.raises(DataError, match=r"numbering grid: expected 2 places, got shape \(1, 2\)"):
        NUMBERINGS["grid"].codes([[0, 1]], vocabulary)


def test_numberings_agree_with_what_else_writes_them() -> None:
    codes, vocabulary = [[3, 250, 0], [0, 1, 255]], Vocabulary((256, 256, 256))
    assert (NUMBERINGS["vocab-offset"].numbers(codes, vocabulary) == pq_docids(codes, [256] * 3)).all()
    assert (NUMBERINGS["offset"].numbers(codes, vocabulary) == shifted_ids(codes, vocabulary)).all()
    assert (NUMBERINGS["shared"].numbers(codes, vocabulary) == shared_ids(codes)).all()
    assert (NUMBERINGS["flat"].after(vocabulary), NUMBERINGS["shared"].after(vocabulary)) == (256, 257)
