"""IDs that are numbers or words: their order, that they are one to one, and PQ codes as docids."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sid_schemas import DataError
from sid_tokenizers import Catalogue, Events, Independent, RandomNumbers, Sequential, TextDocid, Title
from sid_tokenizers.base import Vectors
from sid_tokenizers.docid_tokens import pq_codes, pq_docids
from sid_tokenizers.indexers.numbered import Numbered
from sid_tokenizers.indexers.sequential import appearance
from sid_tokenizers.indexers.text_ids import normalized, unique_texts

ALL = [Sequential(), Independent(), RandomNumbers(), Title(), TextDocid(), TextDocid(column="texts")]


def ids_of(scheme: Numbered, X: Vectors, about: Catalogue) -> list[int]:
    return scheme.fit(X, about=about).index(X, about=about)[:, 0].tolist()


def slow_appearance(events: Events, users: list[int]) -> list[int]:
    """Walk the users one by one, as the source does."""
    seen: dict[int, None] = {}
    for user in users:
        for own, item in zip(events.users.tolist(), events.items.tolist(), strict=True):
            if own == user:
                seen.setdefault(item)
    return list(seen)


@pytest.mark.parametrize("scheme", ALL, ids=repr)
def test_all_maps_are_one_to_one(scheme: Numbered, real: Vectors, known: Catalogue) -> None:
    ids = scheme.fit(real, about=known).index(real, about=known)
    assert len(np.unique(ids)) == len(real)
    tokens = {scheme.token(code) for code in ids[:, 0].tolist()}
    assert len(tokens) == len(real)
    docids = scheme.docids(ids, known)
    assert docids is None or len(set(docids)) == len(real)


@pytest.mark.parametrize("scheme", ALL, ids=repr)
def test_items_that_come_later_change_nothing(scheme: Numbered, real: Vectors, known: Catalogue) -> None:
    late = np.zeros(len(real), dtype=bool)
    late[::5] = True
    before, after = known.rows(np.flatnonzero(~late)), known.rows(np.flatnonzero(late))
    ids = np.empty((len(real), 1), dtype=np.int32)
    ids[~late] = scheme.fit(real[~late], about=before).index(real[~late], about=before)
    ids[late] = scheme.index(real[late], about=after, taken=ids[~late])
    assert len(np.unique(ids)) == len(real)
    first, whole = scheme.docids(ids[~late], before), scheme.docids(ids, known)
    if first is not None and whole is not None:
        assert [docid for docid, new in zip(whole, late, strict=True) if not new] == first
        assert len(set(whole)) == len(real)


def test_sequential_numbers_items_as_train_events_bring_them_up(real: Vectors, known: Catalogue) -> None:
    """The paper's check. Numbers in order of the ids, the rule off, fail both parts of it."""
    assert known.events is not None
    assert known.popularity is not None
    seen = slow_appearance(known.events, sorted(set(known.events.users.tolist())))
    unseen = np.flatnonzero(known.popularity == 0)
    assert len(unseen)

    def holds(numbers: list[int]) -> tuple[bool, bool]:
        of = np.array(numbers)
        return bool((np.diff(of[seen]) == 1).all()), bool(of[unseen].min() > of[seen].max())

    numbers = ids_of(Sequential(), real, known)
    assert holds(numbers) == (True, True)
    assert min(numbers) == 1001
    assert holds(ids_of(Independent(first=1001), real, known)) == (False, False)
    docids = Sequential().fit(real, about=known).docids(np.array(numbers)[:, None], known)
    assert docids == [str(number) for number in numbers]


def test_sequential_walks_users_in_four_orders() -> None:
    events = Events(users=np.array([0, 0, 0, 1, 2, 2, 3, 3]), items=np.array([5, 1, 5, 3, 2, 1, 4, 3]))
    assert appearance(events).tolist() == slow_appearance(events, [0, 1, 2, 3]) == [5, 1, 3, 2, 4]
    assert appearance(events, "short2long").tolist() == slow_appearance(events, [1, 2, 3, 0])
    assert appearance(events, "long2short").tolist() == slow_appearance(events, [0, 2, 3, 1])
    orders = {tuple(appearance(events, "random", seed)) for seed in range(8)}
    assert orders == {tuple(appearance(events, "random", seed)) for seed in range(8)}
    assert len(orders) > 2
    assert appearance(Events(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))).tolist() == []
    with pytest.raises(DataError, match="users: expected one of original"):
        Sequential(users="shortest").check_params()  # type: ignore[arg-type]


def test_sequential_needs_events(real: Vectors, known: Catalogue) -> None:
    bare = Catalogue(known.item_ids)
    with pytest.raises(DataError, match="sequential is fitted on events too"):
        Sequential().fit(real, about=bare)
    with pytest.raises(DataError, match="sequential is fitted on events too"):
        Sequential().fit(real, about=known).index(real, about=bare)


def test_random_numbers_are_of_the_range_and_no_order(real: Vectors, known: Catalogue) -> None:
    numbers = ids_of(RandomNumbers(), real, known)
    assert 1000 <= min(numbers) < max(numbers) < 13_000
    order = np.argsort(known.item_ids)
    assert abs(np.corrcoef(np.argsort(order), numbers)[0, 1]) < 0.1
    assert numbers != ids_of(RandomNumbers(seed=1), real, known)
    narrow = ids_of(RandomNumbers(low=5, high=10), real, known)  # 1342 items: the range grows to them
    assert sorted(narrow) == list(range(5, 5 + len(real)))
    with pytest.raises(DataError, match="high: expected more than low, 13000, got 13000"):
        RandomNumbers(low=13_000).check_params()


def test_titles_are_docids_and_equal_ones_are_counted() -> None:
    titles = ["Hamlet", " Hamlet\t", "", "Hamlet (2)", "Hamlet"]
    about = Catalogue(["b", "a", "c", "d", "e"], titles=titles)
    X = np.zeros((5, 2), dtype=np.float32)
    scheme = Title().fit(X, about=about)
    ids = scheme.index(X, about=about)
    assert ids[:, 0].tolist() == [1, 0, 2, 3, 4]
    assert scheme.docids(ids, about) == ["Hamlet (2)", "Hamlet", "title_c", "Hamlet (2) (2)", "Hamlet (3)"]


def test_text_docids_are_normal_and_unique(real: Vectors, known: Catalogue) -> None:
    """ZeroGR's check; titles as they stand are neither."""
    assert known.titles is not None
    for column in ("titles", "texts"):
        scheme = TextDocid(column=column).fit(real, about=known)  # type: ignore[arg-type]
        docids = scheme.docids(scheme.index(real, about=known), known)
        assert len(set(docids)) == len(real)
        assert all(normalized(docid) == docid != "" for docid in docids)
        assert max(len(docid.split()) for docid in docids) <= 17  # 16, and the count of equal ones
    assert not all(normalized(title) == title for title in known.titles)
    about = Catalogue(["a-1", "b", "c", "d"], titles=["!?", "It's 5", "its   5!", "ITS 5 2"])
    short = TextDocid().fit(real[:4], about=Catalogue(**{**vars(about), "texts": [""] * 4}))
    docids = short.docids(np.arange(4, dtype=np.int32)[:, None], about)
    assert docids == ["item a1", "its 5", "its 5 2", "its 5 2 2"]
    with pytest.raises(DataError, match="column: expected one of titles, texts, got 'names'"):
        TextDocid(column="names").check_params()  # type: ignore[arg-type]


@given(st.text())
def test_normalizing_twice_is_normalizing_once(text: str) -> None:
    once = normalized(text)
    assert normalized(once) == once == once.lower()
    assert once == " ".join(once.split())


@given(st.lists(st.sampled_from(["a", "b", "a (2)", "a (3)", "b (2)", "a (2) (2)"])))
def test_unique_texts_depend_on_what_is_before_alone(texts: list[str]) -> None:
    named = unique_texts(texts, " ({})")
    assert len(set(named)) == len(texts)
    assert all(name.startswith(text) for name, text in zip(named, texts, strict=True))
    assert unique_texts(texts[:-1], " ({})") == named[: max(len(texts) - 1, 0)]


def test_pq_docids_are_ddros() -> None:
    levels = [256] * 24
    draw = np.random.default_rng(0)
    codes = draw.integers(0, 256, size=(50, 24))
    docids = pq_docids(codes, levels)
    assert np.array_equal(docids, 32128 + np.arange(24) * 256 + codes)
    assert docids.max() < 32128 + 24 * 256
    assert np.array_equal(pq_codes(docids, levels), codes)
    assert pq_docids([[1, 2, 3]], [4, 8, 4], vocab_size=100).tolist() == [[101, 106, 115]]
    assert pq_codes([[101, 106, 115]], [4, 8, 4], vocab_size=100).tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("docids", "said"),
    [
        ([[32128, 32128]], "docids, row 0: piece 2 has codes 0 to 255, got -256"),
        ([[32128, 32384], [32384, 32384]], "docids, row 1: piece 1 has codes 0 to 255, got 256"),
        ([[32128]], r"docids: expected shape \(n, 2\), got \(1, 1\)"),
    ],
)
def test_token_ids_that_are_no_docids_are_refused(docids: list[list[int]], said: str) -> None:
    with pytest.raises(DataError, match=said):
        pq_codes(docids, [256, 256])


def test_a_saved_scheme_gives_the_same_ids(real: Vectors, known: Catalogue, tmp_path: Path) -> None:
    for number, scheme in enumerate(ALL):
        scheme.fit(real, about=known).save(tmp_path / str(number))
        again = type(scheme).load(tmp_path / str(number))
        assert np.array_equal(again.index(real, about=known), scheme.index(real, about=known))
        assert again.get_params() == scheme.get_params()
