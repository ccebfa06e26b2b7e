"""SIDs cut into pieces: every way decodes, what is seen often has few; ActionPiece against a slow twin."""

from collections import defaultdict
from fractions import Fraction
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from helpers import Run
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from sid_pipelines import pieces as stage
from sid_pipelines.stage import Resources, Work
from sid_schemas import DataError, MissingExtraError, RecipeError
from sid_tokenizers import Catalogue, Events, RQKMeans
from sid_tokenizers.base import Codes, Vectors
from sid_tokenizers.pieces import (
    BPE,
    PIECES,
    ActionPiece,
    NGram,
    Pieces,
    PrefixNGram,
    Unigram,
    load,
    pieces_named,
)
from sid_tokenizers.pieces.action_merges import Corpus, Weights, learn
from sid_tokenizers.pieces.substrings import frequent_runs
from sid_warehouse.stages import StageStore

LEVELS = [64] * 8


@pytest.fixture(scope="module")
def sids(real: Vectors) -> Codes:
    return RQKMeans(levels=LEVELS, n_init=1, max_iter=20).fit(real).encode(real)


@pytest.fixture(scope="module")
def seen(known: Catalogue) -> np.ndarray:
    """Train events of each item: the impressions that pieces are trained by."""
    assert known.popularity is not None
    return known.popularity


@pytest.fixture(params=PIECES)
def way(request: pytest.FixtureRequest) -> type[Pieces]:
    found: type[Pieces] = PIECES[request.param]
    return found


def lengths(pieces: Codes) -> np.ndarray:
    return (pieces >= 0).sum(axis=1)


# What every way owes.


def test_pieces_make_the_sids_again(way: type[Pieces], sids: Codes, seen: np.ndarray) -> None:
    fitted = way().fit(sids, levels=LEVELS, weight=seen)
    pieces = fitted.pieces(sids)
    assert pieces.dtype == np.int32
    assert np.array_equal(fitted.decode(pieces), sids)
    assert pieces.min() >= -1
    assert pieces.max() < fitted.size <= 2 * sum(LEVELS)
    assert not ((pieces[:, :-1] < 0) & (pieces[:, 1:] >= 0)).any()


def test_a_loaded_table_gives_the_same_pieces(way: type[Pieces], sids: Codes, tmp_path: Path) -> None:
    fitted = way(table_size=700).fit(sids, levels=LEVELS)
    fitted.save(tmp_path)
    again = load(tmp_path)
    assert type(again) is way
    assert (again.size, again.levels, again.fit_) == (fitted.size, fitted.levels, fitted.fit_)
    assert again.get_params() == fitted.get_params()
    assert np.array_equal(again.pieces(sids), fitted.pieces(sids))
    assert np.array_equal(again.decode(again.pieces(sids)), sids)
    assert (tmp_path / "pieces.model").exists() is (way in (Unigram, BPE))


def test_a_damaged_model_is_refused(sids: Codes, tmp_path: Path) -> None:
    Unigram().fit(sids[:50], levels=LEVELS).save(tmp_path)
    (tmp_path / "pieces.model").write_bytes(b"no model")
    with pytest.raises(DataError, match=r"pieces\.model: cannot be read as a SentencePiece model"):
        load(tmp_path)
    (tmp_path / "pieces.model").unlink()
    with pytest.raises(DataError, match=r"pieces\.model: cannot be read as a SentencePiece model"):
        load(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 2, "tokenizer": "ngram"}', '{"format": 2}'])
def test_a_damaged_table_is_refused(text: str, sids: Codes, tmp_path: Path) -> None:
    NGram().fit(sids[:50], levels=LEVELS).save(tmp_path)
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(DataError, match="holds no pieces that can be used"):
        load(tmp_path)


def test_row_order_does_not_matter(
    way: type[Pieces], sids: Codes, seen: np.ndarray, known: Catalogue
) -> None:
    some = np.arange(0, len(sids), 4)
    order = np.random.default_rng(0).permutation(some)
    assert known.events is not None
    events = [known.events.of(rows, len(sids)) for rows in (some, order)]
    one, other = (
        way().fit(sids[rows], levels=LEVELS, weight=seen[rows], sequences=sequences)
        for rows, sequences in zip((some, order), events, strict=True)
    )
    assert one.fit_ == other.fit_
    assert one.report() == other.report()
    assert np.array_equal(one.pieces(sids), other.pieces(sids))


def test_sids_that_were_not_there_can_be_written(way: type[Pieces], sids: Codes) -> None:
    fitted = way(table_size=800).fit(sids[:100], levels=LEVELS)
    never = np.array([[63, 0] * 4, [0, 63] * 4])
    pieces = fitted.pieces(never)
    assert pieces.max() < fitted.size
    if way in (NGram, PrefixNGram):  # hashed: what a row stands for is known of the SIDs seen alone
        with pytest.raises(DataError, match="row 0: are those of no SID that was fitted on"):
            fitted.decode(pieces)
    else:
        assert np.array_equal(fitted.decode(pieces), never)


def test_what_is_no_sid_is_refused(way: type[Pieces], sids: Codes) -> None:
    ragged = np.pad(sids, ((0, 0), (0, 1)), constant_values=-1)
    ragged[7, 8] = 0
    with pytest.raises(DataError, match="SIDs, row 7: has 9 codes, row 0 has 8; expected one length"):
        way().fit(ragged, levels=[*LEVELS, 2])
    with pytest.raises(DataError, match="SIDs: expected 7 codes, as there are levels, got 8"):
        way().fit(sids, levels=LEVELS[:7])
    with pytest.raises(DataError, match="SIDs, row 0: level 3 has codes 0 to 63, got 64"):
        way().fit(np.full((1, 8), [0, 0, 64, 0, 0, 0, 0, 0]), levels=LEVELS)
    for weight in (np.zeros(len(sids), dtype=int), np.ones(3, dtype=int), np.full(len(sids), 0.5)):
        with pytest.raises(DataError, match="weight: expected 1342 whole numbers >= 0, not all zero"):
            way().fit(sids, levels=LEVELS, weight=weight)
    with pytest.raises(DataError, match="table_size: expected"):
        way(table_size=1).fit(sids, levels=LEVELS)
    with pytest.raises(DataError, match="table_size: expected 0 or more, got -1"):
        way(table_size=-1).fit(sids, levels=LEVELS)
    with pytest.raises(DataError, match="not fitted yet"):
        way().pieces(sids)
    fitted = way().fit(sids[:50], levels=LEVELS)
    with pytest.raises(DataError, match="pieces: expected 0 to"):
        fitted.decode(np.full((1, 8), fitted.size))
    with pytest.raises(DataError, match="pieces, row 0"):
        fitted.decode(np.full((1, fitted.pieces(sids[:1]).shape[1]), 1))


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(RecipeError, match="no pieces are called 'words'; there are: actionpiece, bpe, ngram"):
        pieces_named("words")


# Groups of a fixed cut.


def test_ngrams_have_exact_rows_where_the_table_has_room() -> None:
    sids = np.array([[0, 1, 2, 3], [3, 3, 3, 3], [1, 0, 0, 0]])
    fitted = NGram(n=2, table_size=32).fit(sids, levels=[4] * 4)
    assert fitted.pieces(sids).tolist() == [[1, 16 + 11], [15, 31], [4, 16]]  # offset + c1 K + c2
    assert fitted.size == 32
    everything = np.stack(np.meshgrid(*[np.arange(4)] * 4), axis=-1).reshape(-1, 4)
    assert np.array_equal(fitted.decode(fitted.pieces(everything)), everything)
    assert [group["sharing"] for group in fitted.report()["groups"]] == [0, 0]
    single = NGram(n=1, table_size=16).fit(sids, levels=[4] * 4)
    assert single.pieces(sids)[0].tolist() == [0, 5, 10, 15]
    odd = NGram(n=3, table_size=200).fit(sids, levels=[4] * 4)  # 100 rows for each group
    assert odd.pieces(sids).tolist() == [[6, 64 + 3], [63, 64 + 3], [16, 64]]
    with pytest.raises(DataError, match="pieces, row 0"):
        odd.decode([[64, 64]])


def test_prefixes_have_a_piece_each() -> None:
    sids = np.array([[0, 1, 2], [0, 1, 3], [0, 2, 2]])
    fitted = PrefixNGram(table_size=3 * 64).fit(sids, levels=[4] * 3)
    assert fitted.pieces(sids).tolist() == [[0, 4 + 1, 20 + 6], [0, 4 + 1, 20 + 7], [0, 4 + 2, 20 + 10]]
    assert np.array_equal(fitted.decode(fitted.pieces(sids)), sids)


def test_the_collision_table_counts_what_shares_a_row(sids: Codes) -> None:
    fitted = NGram(table_size=400).fit(sids, levels=LEVELS)
    pieces = fitted.pieces(sids)
    for number, group in enumerate(fitted.report()["groups"]):
        rows = defaultdict(set)
        for sid, row in zip(sids[:, 2 * number : 2 * number + 2].tolist(), pieces[:, number], strict=True):
            rows[row].add(tuple(sid))
        assert group["levels"] == [2 * number + 1, 2 * number + 2]
        assert (group["rows"], group["hashed"]) == (100, True)
        assert group["distinct"] == len(np.unique(sids[:, 2 * number : 2 * number + 2], axis=0))
        assert group["sharing"] == sum(len(own) for own in rows.values() if len(own) > 1) > 0
    assert not np.array_equal(NGram(table_size=400, seed=1).fit(sids, levels=LEVELS).pieces(sids), pieces)


def test_sids_that_share_all_rows_cannot_be_told_apart() -> None:
    sids = np.stack(np.meshgrid(*[np.arange(6)] * 2), axis=-1).reshape(-1, 2)
    fitted = NGram(n=2, table_size=20).fit(sids, levels=[6, 6])
    assert fitted.report()["sids_sharing_all_pieces"] >= 36 - 20
    with pytest.raises(DataError, match="or of several; where they are of several, raise table_size"):
        fitted.decode(fitted.pieces(sids))


# What is learned.


@pytest.mark.parametrize("way", [Unigram, BPE, ActionPiece])
def test_items_seen_often_have_fewer_pieces(way: type[Pieces], sids: Codes, seen: np.ndarray) -> None:
    """The paper's check; without frequencies, and with those of other items, it fails."""

    def agreement(weight: np.ndarray | None) -> float:
        pieces = way().fit(sids, levels=LEVELS, weight=weight).pieces(sids)
        return float(spearmanr(seen, lengths(pieces)).statistic)

    assert agreement(seen) < -0.3
    assert agreement(None) > -0.2
    assert agreement(np.random.default_rng(0).permutation(seen)) > -0.2


def test_a_larger_table_has_longer_pieces(sids: Codes, seen: np.ndarray) -> None:
    for way in (Unigram, BPE, ActionPiece):
        means = [
            lengths(way(table_size=size).fit(sids, levels=LEVELS, weight=seen).pieces(sids)).mean()
            for size in (513, 768, 1024)
        ]
        assert means[0] > means[1] > means[2]
        assert means[0] > 7.9  # no more than one row for each code


def test_sentencepiece_starts_from_all_runs_seen_twice(sids: Codes, seen: np.ndarray) -> None:
    some, weight = np.unique(sids[:60], axis=0), seen[:60] + 1
    counts: dict[tuple[int, tuple[int, ...]], int] = defaultdict(int)
    for sid, count in zip(some.tolist(), weight.tolist(), strict=True):
        for start, stop in combinations(range(9), 2):
            if stop - start > 1:
                counts[start, tuple(sid[start:stop])] += count
    slow = sorted(
        (-count * len(codes), len(codes), start, codes)
        for (start, codes), count in counts.items()
        if count > 1
    )
    fast = frequent_runs(some, weight, 10**6)
    assert [
        (-n * (stop - start), stop - start, start, tuple(some[row, start:stop]))
        for (row, start, stop), n in fast
    ] == slow
    assert frequent_runs(some, weight, 10) == fast[:10]


@pytest.mark.parametrize("way", [Unigram, BPE])
def test_a_model_says_nothing_of_where_it_was_trained(
    way: type[Unigram] | type[BPE], sids: Codes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = way(table_size=700).fit(sids, levels=LEVELS)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    second = way(table_size=700).fit(sids, levels=LEVELS)
    assert first.model_ == second.model_
    assert b".tsv" not in first.model_
    assert b"identity" in first.model_
    assert not list(tmp_path.iterdir())


def test_sentencepiece_is_an_extra(monkeypatch: pytest.MonkeyPatch, sids: Codes) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install .*sidmill\[pieces\]"):
        Unigram().fit(sids, levels=LEVELS)
    monkeypatch.undo()
    with pytest.raises(DataError, match="has characters for 65534 codes, but levels have 65600"):
        Unigram().fit(np.zeros((2, 2), dtype=int), levels=[65_536, 64])


# ActionPiece.


def test_weights_are_those_of_the_paper() -> None:
    weights = Weights(4)
    unit = weights.unit
    assert [Fraction(weight, unit) for weight in weights.inside()[1:]] == [
        Fraction(2, m) for m in range(1, 5)
    ]
    assert Fraction(weights.across()[2][3], unit) == Fraction(1, 6)


def test_a_small_example_by_hand() -> None:
    # One user, items {0, 2} then {1, 2} of levels 2 and 1, tokens 0, 1 and 2.
    corpus = Corpus(np.array([[0, 2], [1, 2]]), np.array([0, 0]), np.array([1, 1]))
    unit = Weights(2).unit
    weight = {pair: Fraction(count, unit) for pair, count in corpus.counts.items()}
    # Within: {0, 2} and {1, 2} weigh 2/2. Across: 1/4 for each of 0-1, 0-2, 2-1 and 2-2.
    assert weight == {
        (0, 2): Fraction(5, 4),
        (1, 2): Fraction(5, 4),
        (0, 1): Fraction(1, 4),
        (2, 2): Fraction(1, 4),
    }
    assert corpus.heaviest() == (0, 2)  # of equals the lowest
    corpus.merge((0, 2), 3)
    weight = {pair: Fraction(count, unit) for pair, count in corpus.counts.items()}
    assert corpus.items == [[3], [1, 2]]
    assert weight == {(1, 2): Fraction(1), (1, 3): Fraction(1, 2), (2, 3): Fraction(1, 2)}
    fitted = ActionPiece(table_size=5).fit(
        [[0, 0], [1, 0]], levels=[2, 1], sequences=Events(np.array([4, 4]), np.array([0, 1]))
    )
    assert fitted.rules_.tolist() == [[0, 2], [1, 2]]
    assert fitted.pieces([[0, 0], [1, 0]]).tolist() == [[3], [4]]


def test_what_neighbours_are_merged_into_stands_between_them() -> None:
    corpus = Corpus(
        np.array([[0, 3], [1, 4], [2, 5]]), np.zeros(3, dtype=np.int64), np.ones(3, dtype=np.int64)
    )
    corpus.merge((1, 3), 6)
    assert (corpus.items, corpus.between) == ([[0], [4], [2, 5]], [6, -1, -1])
    corpus.merge((4, 6), 7)  # the second item's last token: what stands before it takes its place
    assert (corpus.items, corpus.between) == ([[0], [7], [2, 5]], [-1, -1, -1])
    corpus.merge((0, 7), 8)  # both are gone: the first has the new token, the second goes
    assert (corpus.items[0], corpus.after[0], corpus.before[2]) == ([8], 2, 0)


Slot = tuple[str, frozenset[int]]  # "item", or "between" two


def slow_pairs(sequences: list[list[Slot]]) -> dict[tuple[int, int], Fraction]:
    """Count every pair anew: neighbours are whatever stands side by side."""
    counts: dict[tuple[int, int], Fraction] = defaultdict(Fraction)
    for slots in sequences:
        for kind, own in slots:
            for pair in combinations(sorted(own), 2):
                assert kind == "item"
                counts[pair] += Fraction(2, len(own))
        for (_, left), (_, right) in pairwise(slots):
            for one in left:
                for other in right:
                    counts[min(one, other), max(one, other)] += Fraction(1, len(left) * len(right))
    return counts


def slow_merge(slots: list[Slot], pair: tuple[int, int], new: int) -> list[Slot]:
    """Merge from first to last; each merge makes the line anew."""
    at = 0
    while at < len(slots):
        kind, own = slots[at]
        if kind == "item" and pair[0] != pair[1] and set(pair) <= own:
            slots = [*slots[:at], (kind, own - set(pair) | {new}), *slots[at + 1 :]]
            continue
        for first, second in (pair, pair[::-1]):
            if at + 1 < len(slots) and first in own and second in slots[at + 1][1]:
                left, right = own - {first}, slots[at + 1][1] - {second}
                kinds = (kind, slots[at + 1][0])
                line = [
                    *slots[:at],
                    (kinds[0], left),
                    ("between", frozenset({new})),
                    (kinds[1], right),
                    *slots[at + 2 :],
                ]
                slots = slow_tidied(line, at)
                break
        else:
            at += 1
    return slots


def slow_tidied(line: list[Slot], at: int) -> list[Slot]:
    """Drop what is empty around `at`; an item without tokens takes what stands before or behind it."""
    for place in (at, at + 2):
        kind, own = line[place]
        if own or kind != "item":
            continue
        for beside in (place - 1, place + 1):
            if 0 <= beside < len(line) and line[beside][0] == "between" and line[beside][1]:
                line[place], line[beside] = ("item", line[beside][1]), ("between", frozenset())
                break
    return [slot for slot in line if slot[1]]


def slow_learn(sequences: list[list[Slot]], first: int, count: int) -> list[tuple[int, int]]:
    rules: list[tuple[int, int]] = []
    while len(rules) < count and (counts := slow_pairs(sequences)):
        pair = min(counts, key=lambda pair: (-counts[pair], pair))
        sequences = [slow_merge(slots, pair, first + len(rules)) for slots in sequences]
        rules.append(pair)
    return rules


@settings(max_examples=150)
@given(
    st.integers(1, 3),
    st.lists(
        st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=3), min_size=1, max_size=6),
        min_size=1,
        max_size=4,
    ),
)
def test_merges_are_those_of_counting_anew(length: int, users: list[list[list[int]]]) -> None:
    tokens = [
        [[3 * level + code for level, code in enumerate(item[:length])] for item in user] for user in users
    ]
    flat = np.array([item for user in tokens for item in user])
    owners = np.repeat(np.arange(len(users)), [len(user) for user in users])
    corpus = Corpus(flat, owners, np.ones(len(flat), dtype=np.int64))
    slow = [[("item", frozenset(item)) for item in user] for user in tokens]
    assert learn(corpus, 9, 40) == slow_learn(slow, 9, 40)


def test_sequences_keep_every_code(sids: Codes, known: Catalogue) -> None:
    assert known.events is not None
    some = np.arange(0, len(sids), 8)
    sequences = known.events.of(some, len(sids))
    fitted = ActionPiece(table_size=700).fit(sids[some], levels=LEVELS, sequences=sequences)
    lone = ActionPiece(table_size=700).fit(sids[some], levels=LEVELS)
    assert fitted.rules_.tolist() != lone.rules_.tolist()
    history = sids[some][sequences.items[:6]]
    codes = sorted((history + fitted.starts).ravel().tolist())
    lines = [fitted.encode_sequence(history, seed=seed).tolist() for seed in range(4)]
    for line in lines:
        assert sorted(code for piece in line for code in fitted._spelling()[piece]) == codes
        assert len(line) < len(codes)
    assert lines[0] == fitted.encode_sequence(history).tolist() != lines[1]


# The stage.


def test_the_stage_writes_pieces_of_every_scheme(example: Run, seen: np.ndarray, tmp_path: Path) -> None:
    params = stage.PiecesParams(schemes=("unigram", "ngram"), table_size=300)
    store = StageStore(tmp_path, "x")
    with store.write("pieces", "k", {}) as draft:
        work = Work(params, example.outputs, draft, Resources(), lambda done, total: None)
        outcome = stage.STAGE.run(work)
        output = draft.commit(outcome.facts, outcome.summary)
    resolved = example.outputs["collisions"].read("sids", ["item_id", "sid"])
    sids = np.array(resolved["sid"].to_pylist())
    rows = output.read("sid_pieces").to_pylist()
    assert [row["scheme"] for row in rows] == ["ngram"] * len(sids) + ["unigram"] * len(sids)
    for name, own in (("ngram", rows[: len(sids)]), ("unigram", rows[len(sids) :])):
        fitted = load(output.folder / "pieces" / name)
        pieces = fitted.pieces(sids)
        assert [row["item_id"] for row in own] == resolved["item_id"].to_pylist()
        assert [row["piece_ids"] for row in own] == [
            [one for one in row if one >= 0] for row in pieces.tolist()
        ]
        facts = output.facts["schemes"][name]
        assert facts["table_size"] == fitted.size <= 300
        assert facts["mean_pieces"] == pytest.approx((pieces >= 0).sum(axis=1).mean())
        assert facts["distinct"] <= len(sids)
    assert output.facts["schemes"]["ngram"]["spearman"] is None
    assert output.facts["schemes"]["unigram"]["spearman"] < -0.3
    assert output.facts["schemes"]["ngram"]["groups"][0]["levels"] == [1, 2]
    assert outcome.summary.startswith("pieces an SID: ngram 2.00; unigram ")


def test_the_stage_needs_sentencepiece_for_what_it_trains() -> None:
    assert stage.STAGE.needs(stage.PiecesParams()) == ("sentencepiece", "pieces")
    assert stage.STAGE.needs(stage.PiecesParams(schemes=("ngram", "actionpiece"))) is None
    with pytest.raises(RecipeError, match="no pieces are called"):
        stage.PiecesParams(schemes=("words",)).made()
