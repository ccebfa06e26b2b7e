"""SETRec: vectors whose order means nothing, for each item; and the contract of continuous schemes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.base import clone

from sid_schemas import DataError
from sid_tokenizers import Catalogue, Events, SETRec, load
from sid_tokenizers.base import Vectors
from sid_tokenizers.learned.setrec import contexts, decoder_mask, position_ids, score
from sid_tokenizers.positions import block_mask, code_positions

pytest.importorskip("torch")

QUICK = {"width": 64, "hidden": [128], "epochs": 12}
OTHER = {
    "n_sem": 2,
    "width": 6,
    "hidden": [8],
    "seed": 9,
    "alpha": 0.5,
    "ce_weight": 0.3,
    "history": 3,
    "epochs": 2,
    "batch_size": 20,
    "learning_rate": 2e-3,
    "weight_decay": 1e-3,
}


@pytest.fixture(scope="module")
def stacked(real: Vectors, known: Catalogue) -> Vectors:
    assert known.cf is not None
    return np.concatenate([real, known.cf], axis=1)


@pytest.fixture(scope="module")
def fitted(stacked: Vectors, known: Catalogue) -> SETRec:
    return setrec().fit(stacked, about=known)


def setrec(**more: object) -> SETRec:
    return SETRec(**{**QUICK, **more})  # type: ignore[arg-type]


def small() -> tuple[Vectors, Catalogue]:
    """30 items of 7 columns, the last 3 cf, and 10 users who saw 5 of them each."""
    draw = np.random.default_rng(0)
    X = draw.normal(size=(30, 7)).astype(np.float32)
    events = Events(np.repeat(np.arange(10), 5), draw.integers(0, 30, size=50))
    return X, Catalogue([f"i{row:02}" for row in range(30)], cf=X[:, 4:], events=events)


def test_an_item_has_one_token_of_behaviour_and_n_of_content(fitted: SETRec, stacked: Vectors) -> None:
    tokens = fitted.vectors(stacked)
    assert tokens.shape == (len(stacked), 1 + 4, 64)
    assert tokens.dtype == np.float32
    changed = stacked.copy()
    changed[:, -64:] += 1  # behaviour
    differs = (fitted.vectors(changed) != tokens).any(axis=(0, 2))
    assert differs.tolist() == [True, False, False, False, False]


def test_tokens_of_an_item_share_a_position_and_do_not_see_each_other() -> None:
    """Off side, codes in order: DiscRec's positions tell the codes of an item apart, not the items."""
    items, tokens = 7, 5

    def kinds(positions: npt.NDArray[np.int64]) -> tuple[int, int]:
        table = positions.reshape(items, tokens)
        return len(np.unique(table[0])), len(np.unique(table[:, 0]))

    assert kinds(position_ids(items, tokens)) == (1, items)
    assert kinds(code_positions(items, tokens, eos=False)) == (tokens, 1)


def test_what_a_query_finds_does_not_hang_on_the_others() -> None:
    """One step of attention: with the mask only what changed moves; off side, a block of codes."""
    queries = np.random.default_rng(0).normal(size=(5, 8))
    changed = queries.copy()
    changed[3] += 1

    def attended(given: npt.NDArray[np.float64], mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        weight = np.where(mask, np.exp(given @ given.T), 0)
        out: npt.NDArray[np.float64] = weight / weight.sum(axis=1, keepdims=True) @ given
        return out

    def moved(mask: npt.NDArray[np.bool_]) -> list[int]:
        rows = np.abs(attended(changed, mask) - attended(queries, mask)).max(axis=1)
        return [int(row) for row in np.flatnonzero(rows > 1e-6)]

    assert moved(decoder_mask(5)) == [3]
    assert moved(block_mask(1, 5, eos=False)) == [0, 1, 2, 3, 4]


def test_the_order_of_tokens_means_nothing_to_the_score(fitted: SETRec, stacked: Vectors) -> None:
    tokens, weights = fitted.vectors(stacked[:50]), np.array([0.5, 1.0, 2.0, 0.1, 0.7])
    queries = fitted.vectors(stacked[50:60])
    slow = sum(w * queries[:, t] @ tokens[:, t].T for t, w in enumerate(weights))
    found = score(queries, tokens, weights)
    assert np.allclose(found, slow, rtol=1e-4, atol=1e-4)
    order = np.array([3, 0, 4, 1, 2])
    permuted = score(queries[:, order], tokens[:, order], weights[order])
    assert np.allclose(permuted, found, rtol=1e-4, atol=1e-4)
    one_side = score(queries, tokens[:, order], weights)  # or the test tells nothing
    assert not np.allclose(one_side, found, rtol=0.1)


def test_tokens_of_content_give_it_back(fitted: SETRec, stacked: Vectors, known: Catalogue) -> None:
    def error(tokenizer: SETRec) -> float:
        return float(np.square(tokenizer.decode(tokenizer.vectors(stacked)) - stacked)[:, :-64].sum())

    untrained = setrec(epochs=0).fit(stacked, about=known)
    assert error(fitted) < 0.8 * error(untrained)
    assert error(setrec(alpha=0.0).fit(stacked, about=known)) > 1.3 * error(fitted)


def test_behaviour_comes_back_exactly(fitted: SETRec, stacked: Vectors, known: Catalogue) -> None:
    decoded = fitted.decode(fitted.vectors(stacked))
    assert decoded.shape == stacked.shape
    assert np.allclose(decoded[:, -64:], stacked[:, -64:], atol=1e-3)
    narrow = setrec(width=16, epochs=0).fit(stacked, about=known)
    assert not np.allclose(narrow.decode(narrow.vectors(stacked))[:, -64:], stacked[:, -64:], atol=1e-2)


def test_every_item_is_nearest_to_itself(fitted: SETRec, stacked: Vectors) -> None:
    flat = fitted.vectors(stacked).reshape(len(stacked), -1).astype(np.float64)
    norms = np.square(flat).sum(axis=1)
    far = norms[:, None] + norms - 2 * flat @ flat.T
    assert np.array_equal(far.argmin(axis=1), np.arange(len(stacked)))
    np.fill_diagonal(far, np.inf)
    assert far.min() > 1e-3


def test_cross_entropy_teaches_tokens_to_find_what_follows(
    fitted: SETRec, stacked: Vectors, known: Catalogue
) -> None:
    """Users whose last item is among the ten best, of 1342, by the tokens of what they had before."""
    assert known.events is not None
    users, items = known.events.users, known.events.items
    last = np.flatnonzero(np.append(np.diff(users) != 0, True))
    first = np.searchsorted(users, users)
    last = last[last - first[last] >= 5]
    before = np.stack([stacked[items[max(first[row], row - 20) : row]].mean(axis=0) for row in last])

    def found(tokenizer: SETRec) -> float:
        scores = score(tokenizer.vectors(before), tokenizer.vectors(stacked), np.ones(5))
        own = scores[np.arange(len(last)), items[last]]
        return float(((scores > own[:, None]).sum(axis=1) < 10).mean())

    assert found(fitted) > 0.03
    assert found(setrec(ce_weight=0.0).fit(stacked, about=known)) < 0.75 * found(fitted)


def test_contexts_by_hand() -> None:
    # User 0 has items 0, 1, 2; user 1 has items 3, 2. Item 2 came after (0, 1), and after 3.
    events = Events(np.array([0, 0, 0, 1, 1]), np.array([0, 1, 2, 3, 2]))
    expected = [[0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0.25, 0.25, 0, 0.5, 0], [0] * 5, [0] * 5]
    each = np.eye(5, dtype=np.float32)  # of which a mean row shows the shares
    found, known = contexts(events, each, 2)
    assert np.allclose(found, expected)
    assert known.tolist() == [False, True, True, False, False]
    assert np.allclose(contexts(events, each, 1)[0][2], [0, 0.5, 0, 0.5, 0])
    nobody = Events(np.empty(0, np.int64), np.empty(0, np.int64))
    found, known = contexts(nobody, each, 2)
    assert not found.any()
    assert not known.any()


def test_init_only_stores() -> None:
    given = dict(OTHER)
    tokenizer = SETRec(**given)  # type: ignore[arg-type]
    assert tokenizer.get_params() == given
    assert not [name for name in vars(tokenizer) if name.endswith("_")]
    assert clone(tokenizer).get_params() == given
    defaults = SETRec().get_params()
    assert not [name for name, value in given.items() if value == defaults[name]]


def test_save_and_load_keep_everything(tmp_path: Path) -> None:
    X, about = small()
    tokenizer = SETRec(**OTHER).fit(X, about=about)  # type: ignore[arg-type]
    tokenizer.save(tmp_path)
    again = load(tmp_path)
    assert isinstance(again, SETRec)
    assert again.get_params() == OTHER
    assert again.fit_ == tokenizer.fit_
    tokens = tokenizer.vectors(X)
    assert np.array_equal(again.vectors(X), tokens)
    assert np.array_equal(again.decode(tokens), tokenizer.decode(tokens))


def test_same_seed_same_tokens_whatever_the_row_order(stacked: Vectors, known: Catalogue) -> None:
    quick = {"hidden": [16], "width": 8, "epochs": 2}
    tokens = setrec(**quick).fit(stacked, about=known).vectors(stacked)
    order = np.random.default_rng(1).permutation(len(stacked))
    again = setrec(**quick).fit(stacked[order], about=known.rows(order))
    assert np.array_equal(again.vectors(stacked), tokens)
    assert np.array_equal(again.vectors(stacked[:3]), tokens[:3])
    other = setrec(**quick, seed=1).fit(stacked, about=known)
    assert not np.array_equal(other.vectors(stacked), tokens)


def test_a_second_fit_starts_afresh(stacked: Vectors, known: Catalogue) -> None:
    X, about = small()
    first = SETRec(**OTHER).fit(stacked, about=known).fit(X, about=about)  # type: ignore[arg-type]
    assert np.array_equal(first.vectors(X), SETRec(**OTHER).fit(X, about=about).vectors(X))  # type: ignore[arg-type]


def test_misuse_is_refused(tmp_path: Path) -> None:
    X, about = small()
    with pytest.raises(DataError, match="not fitted"):
        setrec().vectors(X)
    with pytest.raises(DataError, match="not fitted"):
        setrec().save(tmp_path)
    for need in ("cf", "events"):
        with pytest.raises(DataError, match=rf"setrec is fitted on {need} too: pass about=Catalogue\({need}"):
            setrec().fit(X, about=replace(about, **{need: None}))
    with pytest.raises(DataError, match="expected more than 3 columns, the last 3 those of cf, got 3"):
        setrec().fit(X[:, :3], about=about)
    with pytest.raises(DataError, match="row 1: holds NaN"):
        setrec().fit(np.where(np.arange(30)[:, None] == 1, np.nan, X), about=about)
    fitted = SETRec(**OTHER).fit(X, about=about)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="expected 7 columns as in fit, got 6"):
        fitted.vectors(X[:, :6])
    with pytest.raises(DataError, match=r"tokens: expected shape \(n, 3, 6\), got \(2, 3, 5\)"):
        fitted.decode(np.zeros((2, 3, 5)))
    with pytest.raises(DataError, match=r"setrec: training diverged .* lower learning_rate \(now 1e\+"):
        setrec(learning_rate=1e30).fit(X, about=about)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("n_sem", 0), ("width", 1.5), ("hidden", [0]), ("alpha", -1), ("history", 0), ("learning_rate", 0)],
)
def test_parameters_are_checked(parameter: str, value: object) -> None:
    with pytest.raises(DataError, match=parameter):
        SETRec().set_params(**{parameter: value}).check_params()


def test_no_events_and_odd_items_give_tokens() -> None:
    X, about = small()
    nobody = Events(np.empty(0, np.int64), np.empty(0, np.int64))
    for odd in (X, np.zeros_like(X), np.ones_like(X), X[:1]):
        known = replace(about.rows(np.arange(len(odd))), cf=odd[:, 4:], events=nobody)
        tokens = SETRec(**OTHER).fit(odd, about=known).vectors(odd)  # type: ignore[arg-type]
        assert np.isfinite(tokens).all()
