"""One contract for every scheme that gives items IDs by what is known of them, on real items and on any."""

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from sid_schemas import DataError
from sid_tokenizers import TOKENIZERS, Catalogue, Events, Indexer, load, tokenizer_named
from sid_tokenizers.base import Codes, Vectors
from sid_tokenizers.indexers.by_item import ByItem, bytes_of, strings_of
from sid_tokenizers.indexers.paths import beginning, counted, padded, stacked, unpadded
from sid_tokenizers.indexers.seats import Seats
from sid_tokenizers.indexers.tree import Tree, even_blocks, grow

INDEXERS = {name: scheme for name, scheme in TOKENIZERS.items() if issubclass(scheme, Indexer)}

# Another value than the default for every parameter of every scheme.
OTHER_VALUES: dict[str, object] = {
    "seed": 9,
    "first": 5,
    "low": 10,
    "high": 20,
    "users": "random",
    "column": "texts",
    "words": 3,
    "branching": 4,
    "leaf": 5,
    "depth": 7,
    "constrained": True,
    "positions": "aware",
    "n_init": 2,
    "max_iter": 7,
    "tol": 0.5,
    "drop_root": True,
    "max_depth": 2,
    "min_count": 1,
    "order": "frequency",
    "shuffled": False,
    "flat": True,
    "n_clusters": 3,
    "token_size": 8,
    "last": "random",
}
OTHER_FOR = {("spectral+category", "order"): "cid-first"}

# Settings that take another way through a scheme than its defaults do.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "kmeans-tree": [
        {"branching": 6, "leaf": 9, "positions": "aware"},
        {"branching": 3, "leaf": 20},
        {"branching": 12, "depth": 3, "constrained": True, "positions": "aware"},
        {"branching": 9, "depth": 3},
    ],
    "category-path": [{"order": "frequency", "min_count": 20, "max_depth": 2}, {"drop_root": True}],
    "spectral": [
        {"n_clusters": 5, "token_size": 20},
        {"n_clusters": 5, "token_size": 20, "last": "random"},
        {"last": "item"},
    ],
    "spectral+category": [{"order": "cid-first", "last": "item"}, {"token_size": 30, "last": "random"}],
    "sequential": [{"users": "random"}],
}
MADE = [(name, params) for name in INDEXERS for params in ({}, *VARIANTS.get(name, []))]
SAME = {"independent", "sequential", "title", "text-docid"}  # nothing is drawn by default


Items = tuple[Vectors, Catalogue]


@pytest.fixture(scope="module")
def items(real: Vectors, known: Catalogue) -> Items:
    """Every other item: enough for trees to be deep."""
    return part((real, known), np.arange(0, len(real), 2))


@pytest.fixture(params=list(INDEXERS))
def scheme(request: pytest.FixtureRequest) -> type[Indexer]:
    found: type[Indexer] = INDEXERS[request.param]
    return found


@pytest.fixture(
    params=MADE, ids=lambda made: "-".join([made[0], *(str(value) for value in made[1].values())])
)
def indexer(request: pytest.FixtureRequest) -> Indexer:
    name, params = request.param
    made: Indexer = INDEXERS[name](**params)
    return made


def other_values(scheme: type[Indexer]) -> dict[str, object]:
    names = inspect.signature(scheme).parameters
    return {name: OTHER_FOR.get((scheme.name, name), OTHER_VALUES[name]) for name in names}


def sound(ids: Codes, n: int) -> None:
    """Check what every matrix of IDs owes: unique, none begins another, -1 in the last places alone."""
    assert ids.dtype == np.int32
    assert ids.shape[0] == n
    assert ids.shape[1] >= 1
    assert (ids[:, 0] >= 0).all()
    assert (ids >= -1).all()
    assert not ((ids[:, :-1] < 0) & (ids[:, 1:] >= 0)).any()
    paths = unpadded(ids)
    assert len(set(paths)) == n
    assert not {path[:end] for path in paths for end in range(1, len(path))} & set(paths)


def part(items: Items, rows: np.ndarray) -> Items:
    return items[0][rows], items[1].rows(rows)


def fit(indexer: Indexer, items: Items) -> Indexer:
    return indexer.fit(items[0], about=items[1])


def index(indexer: Indexer, items: Items, taken: Codes | None = None) -> Codes:
    return indexer.index(items[0], about=items[1], taken=taken)


def test_init_only_stores(scheme: type[Indexer]) -> None:
    given = other_values(scheme)
    made = scheme(**given)
    assert made.get_params() == given
    assert not [name for name in vars(made) if name.endswith("_")]
    assert clone(made).get_params() == given
    defaults = scheme().get_params()
    assert not [name for name in given if given[name] == defaults[name]]


def test_it_says_what_it_is(scheme: type[Indexer]) -> None:
    assert tokenizer_named(scheme.name) is scheme
    assert scheme.paper
    assert scheme.__doc__
    assert scheme.traits.unique
    scheme().check_params()


def test_ids_are_unique_and_none_begins_another(indexer: Indexer, real: Vectors, known: Catalogue) -> None:
    ids = index(fit(indexer, (real, known)), (real, known))
    sound(ids, len(real))
    tokens = [indexer.token(code) for code in range(ids.max() + 3)]
    assert len(set(tokens)) == len(tokens)
    docids = indexer.docids(ids, known)
    assert docids is None or len(set(docids)) == len(real)
    paths = indexer.paths(known)
    assert paths is None or len(paths) == len(real)


def test_row_order_does_not_matter(indexer: Indexer, items: Items) -> None:
    ids = index(fit(indexer, items), items)
    order = np.random.default_rng(1).permutation(len(ids))
    other, turned = clone(indexer), part(items, order)
    assert np.array_equal(index(fit(other, turned), turned), ids[order])
    assert other.fit_ == indexer.fit_


def test_a_second_fit_starts_afresh(indexer: Indexer, items: Items) -> None:
    ids = index(fit(indexer, items), items)
    again = fit(clone(indexer), part(items, np.arange(100, 200)))
    assert np.array_equal(index(fit(again, items), items), ids)


def test_another_seed_draws_otherwise(scheme: type[Indexer], real: Vectors, known: Catalogue) -> None:
    first, second = (index(fit(scheme(seed=seed), (real, known)), (real, known)) for seed in (0, 1))
    assert (first.shape == second.shape and np.array_equal(first, second)) is (scheme.name in SAME)


def test_save_and_load_keep_everything(indexer: Indexer, items: Items, tmp_path: Path) -> None:
    old, new = part(items, np.arange(0, 500)), part(items, np.arange(500, 600))
    fit(indexer, old).save(tmp_path / "t")
    again = load(tmp_path / "t")
    assert isinstance(again, type(indexer))
    assert again.get_params() == indexer.get_params()
    assert again.fit_ == indexer.fit_
    ids = index(indexer, old)
    assert np.array_equal(index(again, old), ids)
    assert np.array_equal(index(again, new, ids), index(indexer, new, ids))
    assert all(again.token(code) == indexer.token(code) for code in range(ids.max() + 3))
    assert again.docids(ids, old[1]) == indexer.docids(ids, old[1])
    assert again.paths(new[1]) == indexer.paths(new[1])
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == [
        "tokenizer.json",
        "tokenizer.safetensors",
    ]


def test_new_items_go_around_published_ones(indexer: Indexer, items: Items) -> None:
    turn = np.random.default_rng(2).permutation(len(items[0]))
    first, second, third = (part(items, np.sort(rows)) for rows in np.split(turn, [500, 600]))
    published = index(fit(indexer, first), first)
    for new in (second, third):
        added = index(indexer, new, published)
        published = stacked(published, added)  # what was published is all there, as it was
        sound(published, len(published))
    nothing = index(indexer, part(items, np.arange(0)), published)
    assert len(nothing) == 0
    assert nothing.shape[1] >= 1


def test_items_may_be_more_than_those_of_the_fit(indexer: Indexer, items: Items) -> None:
    fit(indexer, part(items, np.arange(0, 500)))
    sound(index(indexer, items), len(items[0]))


def test_what_is_missing_is_named(scheme: type[Indexer], real: Vectors, known: Catalogue) -> None:
    for need in scheme().needs:
        if need != "vectors":
            with pytest.raises(DataError, match=rf"{need} too: pass about=Catalogue\({need}=...\)"):
                scheme().fit(real, about=replace(known, **{need: None}))
    with pytest.raises(DataError, match="stands there twice"):
        scheme().fit(real, about=replace(known, item_ids=["a"] * len(real)))
    with pytest.raises(DataError, match="not fitted yet"):
        index(scheme(), (real, known))
    with pytest.raises(DataError, match="row 3: holds NaN"):
        scheme().fit(np.where(np.arange(len(real))[:, None] == 3, np.nan, real), about=known)
    with pytest.raises(DataError, match="seed: expected 0 or more"):
        scheme(seed=-1).fit(real, about=known)  # type: ignore[call-arg]


WORDS = st.text(alphabet="ab7<>\\[] I", max_size=3)


@st.composite
def catalogues(draw: st.DrawFn) -> tuple[Items, int]:
    """Few items with much in common: equal vectors, names that look like tokens, users of one item."""
    n = draw(st.integers(1, 24))
    item_ids = draw(st.lists(st.text(min_size=1, max_size=3), min_size=n, max_size=n, unique=True))
    vectors = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    categories = draw(st.lists(st.lists(WORDS, max_size=3), min_size=n, max_size=n))
    titles = draw(st.lists(WORDS, min_size=n, max_size=n))
    pairs = draw(st.lists(st.tuples(st.integers(0, 5), st.integers(0, n - 1)), max_size=40))
    users, items = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2).T
    about = Catalogue(
        item_ids=item_ids,
        categories=categories,
        titles=titles,
        texts=titles,
        events=Events(np.ascontiguousarray(users), np.ascontiguousarray(items)),
    )
    X = np.stack([[value, value**2] for value in vectors]).astype(np.float32)
    return (X, about), draw(st.integers(1, n))


SMALL: dict[str, dict[str, Any]] = {
    "kmeans-tree": {"branching": 3, "depth": 3},  # NCI's leaves may be full: test_kmeans_tree.py
    "spectral": {"n_clusters": 2, "token_size": 3},
    "spectral+category": {"n_clusters": 2, "token_size": 3, "last": "random"},
}


@settings(max_examples=60)
@given(catalogues())
def test_any_catalogue_gets_sound_ids(given: tuple[Items, int]) -> None:
    items, fitted = given
    n = len(items[0])
    old, new = part(items, np.arange(fitted)), part(items, np.arange(fitted, n))
    for name, scheme in INDEXERS.items():
        indexer = fit(scheme(**SMALL.get(name, {})), old)
        published = index(indexer, old)
        sound(published, fitted)
        both = stacked(published, index(indexer, new, published))
        sound(both, n)
        codes = range(int(both.max()) + 2)
        assert len({indexer.token(code) for code in codes}) == len(codes)


# What the schemes are made of.


def test_beginnings_are_found_where_there_are_any() -> None:
    assert beginning(np.empty((0, 1), dtype=np.int32)) is None
    assert beginning(padded([(1, 2), (1, 3), (2,)])) is None
    assert beginning(padded([(5,), (1, 2), (1, 2)])) == (1, 2)
    assert beginning(padded([(1, 2), (1,)])) == (1, 0)


PATHS = st.lists(st.lists(st.integers(0, 2), max_size=3).map(tuple), max_size=12)


@given(PATHS, PATHS)
def test_counting_goes_on_and_never_meets(
    first: list[tuple[int, ...]], second: list[tuple[int, ...]]
) -> None:
    published = padded(counted(first, first=3))
    new = padded(counted(second, first=3, taken=published))
    both = unpadded(stacked(published, new))
    assert len(set(both)) == len(first) + len(second)
    for path in {*first, *second}:
        own = [one[-1] for one in both if one[:-1] == path]
        assert own == list(range(3, 3 + len(own)))
    assert unpadded(padded(both)) == both
    if both:
        assert beginning(padded(both)) is None


@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=4), min_size=1, max_size=6))
def test_beginning_agrees_with_looking_at_all_pairs(paths: list[list[int]]) -> None:
    pairs = [(i, j) for i, a in enumerate(paths) for j, b in enumerate(paths) if i != j and b[: len(a)] == a]
    found = beginning(padded(paths))
    assert found in pairs if pairs else found is None


def test_a_tree_numbers_its_nodes_by_breadth() -> None:
    def odd_and_even(rows: np.ndarray, depth: int) -> np.ndarray | None:
        return (rows >> depth & 1).astype(np.int32) if len(rows) > 2 else None

    tree, leaves = grow(7, odd_and_even)
    assert tree.parents.tolist() == [-1, 0, 0, 1, 1, 2, 2]  # 0246 and 135; then 04, 26, 15, 3
    assert leaves.tolist() == [3, 5, 4, 6, 3, 5, 4]


def test_what_is_no_tree_is_refused() -> None:
    for parents in ([], [0], [-1, 1], [-1, -1], [-1, 0, 1, 0]):
        with pytest.raises(DataError, match="tree: parents: expected"):
            Tree(np.array(parents, dtype=np.int32))


def test_seats_count_what_is_left() -> None:
    tree = Tree(np.array([-1, 0, 0, 1, 1], dtype=np.int32))  # leaves 2, 3, 4
    seats = Seats(tree, 2)
    assert seats.room == [6, 4, 2, 2, 2]
    seats.keep([(0, 0, 0), (1,)])  # one place of leaf 3; leaf 2 as a whole
    assert seats.room == [3, 3, 0, 1, 2]
    assert seats.open_children(0).tolist() == [1]
    assert [seats.take(4), seats.take(4), seats.take(3)] == [0, 1, 1]
    assert seats.room[0] == 0
    with pytest.raises(KeyError):
        seats.keep([(4, 4, 4)])


def test_blocks_are_even() -> None:
    assert np.bincount(even_blocks(10, 3, 9)).tolist() == [3, 2, 3, 2]
    assert np.bincount(even_blocks(100, 3, 4)).tolist() == [25] * 4


def test_what_is_kept_by_item_comes_back() -> None:
    kept = ByItem.of(["b", "a", "ü"], [2, 1, 3])
    assert kept.get(["a", "ü", "c", "b"]).tolist() == [1, 3, -1, 2]
    assert ByItem.of([], []).get(["a"]).tolist() == [-1]
    assert strings_of(bytes_of(["ü", "", '"'])) == ["ü", "", '"']
