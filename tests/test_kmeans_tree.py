"""The k-means tree: the bounds of both papers, likeness by common beginnings, and what new items find."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from sid_schemas import DataError
from sid_tokenizers import Catalogue, KMeansTree
from sid_tokenizers.base import Codes, Vectors
from sid_tokenizers.indexers.capped import capped_clusters
from sid_tokenizers.indexers.paths import beginning, padded, unpadded
from sid_tokenizers.kmeans import kmeans
from sid_tokenizers.residual import unit_rows

COLAREC = {"branching": 32, "depth": 3}


def ids_of(tree: KMeansTree, X: Vectors, about: Catalogue) -> Codes:
    return tree.fit(X, about=about).index(X, about=about)


def likeness(ids: Codes, X: Vectors) -> float:
    """Give the rank correlation of common beginnings and cosine, over drawn pairs."""
    a, b = np.random.default_rng(0).integers(0, len(X), (2, 40_000))
    a, b = a[a != b], b[a != b]
    common = ((ids[a] == ids[b]) & (ids[a] >= 0)).cumprod(axis=1).sum(axis=1)
    unit = unit_rows(X)
    return float(spearmanr(common, (unit[a] * unit[b]).sum(axis=1))[0])


@pytest.mark.parametrize(("branching", "leaf"), [(10, 100), (30, 30), (5, 8)])
def test_leaves_hold_no_more_than_they_may(
    real: Vectors, known: Catalogue, branching: int, leaf: int
) -> None:
    tree = KMeansTree(branching=branching, leaf=leaf)
    ids = ids_of(tree, real, known)
    assert np.bincount(tree.items_.values).max() <= leaf < len(real)
    assert np.bincount(tree.parents_[1:]).max() <= branching
    assert ids.max() < max(leaf, branching)


@pytest.mark.parametrize("params", [{"leaf": 30}, {**COLAREC, "constrained": True}])
def test_siblings_are_closer_than_strangers(
    real: Vectors, known: Catalogue, params: dict[str, int | bool]
) -> None:
    shuffled = np.random.default_rng(1).permutation(len(real))
    own = likeness(ids_of(KMeansTree(**params), real, known), real)  # type: ignore[arg-type]
    strange = likeness(ids_of(KMeansTree(**params), real[shuffled], known), real)  # type: ignore[arg-type]
    assert own > 0.1
    assert abs(strange) < 0.03


def test_colarec_bounds_every_cluster(known: Catalogue) -> None:
    """Sizes at most 12 ** (3 - level), and digits 1 to 12, on vectors of behaviour; not without the bound."""
    assert known.cf is not None

    def sizes(constrained: bool) -> tuple[int, int, int]:
        tree = KMeansTree(branching=12, depth=3, constrained=constrained)
        ids = ids_of(tree, known.cf, known)  # type: ignore[arg-type]
        assert (ids >= 0).all()
        assert ids.shape[1] == 3
        assert [tree.token(code) for code in (0, 11)] == ["<1>", "<12>"]
        last = max(int(one.split("-")[-1]) for one in tree.docids(ids, known))
        first = np.bincount(ids[:, 0])
        return first.max(), np.unique(ids[:, :2], axis=0, return_counts=True)[1].max(), last

    bounded, free = sizes(True), sizes(False)
    assert all(size <= bound for size, bound in zip(bounded, (144, 12, 12), strict=True))
    assert all(size > bound for size, bound in zip(free, (144, 12, 12), strict=True))


def test_colarec_as_in_its_paper_bounds_5000_items() -> None:
    """32 branches: at most 1024 items in a cluster and 32 in the next; a heart as dense as this has more."""
    draw = np.random.default_rng(0)
    X = (draw.normal(size=(5000, 6)) * draw.pareto(1.0, size=(5000, 1))).astype(np.float32)
    about = Catalogue(item_ids=[f"{row:04}" for row in range(5000)])

    def sizes(constrained: bool) -> list[int]:
        ids = ids_of(KMeansTree(**COLAREC, constrained=constrained), X, about)  # type: ignore[arg-type]
        assert beginning(ids) is None
        second = np.unique(ids[:, :2], axis=0, return_counts=True)[1]
        return [int(np.bincount(ids[:, 0]).max()), int(second.max()), int(ids[:, 2].max()) + 1]

    assert np.less_equal(sizes(True), [1024, 32, 32]).all()
    assert np.greater(sizes(False), [1024, 32, 32]).all()


def test_colarec_is_refused_where_items_do_not_fit(real: Vectors, known: Catalogue) -> None:
    with pytest.raises(DataError, match="1342 items to fit on, but branching 11 and depth 3 hold 1331"):
        KMeansTree(branching=11, depth=3, constrained=True).fit(real, about=known)


def test_bounded_clusters_cost_little(known: Catalogue) -> None:
    """Where k-means keeps the bound it is k-means; where it does not, few rows move."""
    assert known.cf is not None
    centroids = kmeans(known.cf, 16, seed=0)
    free = capped_clusters(known.cf, centroids, len(known.cf), max_iter=20, tol=1e-3)
    bounded = capped_clusters(known.cf, centroids, 90, max_iter=20, tol=1e-3)
    assert np.bincount(bounded).max() <= 90 < np.bincount(free).max()

    def error(codes: np.ndarray) -> float:
        return sum(float(known.cf[codes == k].var(axis=0).sum() * (codes == k).sum()) for k in range(16))  # type: ignore[index]

    everything = float(known.cf.var(axis=0).sum() * len(known.cf))
    drawn = np.random.default_rng(0).permutation(np.arange(len(free)) % 16)
    assert error(free) < error(bounded) < (error(free) + everything) / 2 < error(drawn)


def test_positions_may_have_tokens_of_their_own(real: Vectors, known: Catalogue) -> None:
    shared, aware = KMeansTree(leaf=30), KMeansTree(leaf=30, positions="aware")
    ids, wide = ids_of(shared, real, known), ids_of(aware, real, known)
    assert shared.docids(ids, known) == aware.docids(wide, known)  # the digits are the same
    for place in range(ids.shape[1]):
        there = wide[:, place][wide[:, place] >= 0]
        assert (there // 30 == place).all()
        assert aware.token(int(there[0])) == f"<{place}_{there[0] % 30}>"


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=40),
    st.integers(2, 4),
    st.integers(1, 5),
    st.sampled_from([None, 4]),
)
def test_equal_vectors_end_in_leaves_too(
    values: list[int], branching: int, leaf: int, depth: int | None
) -> None:
    """NCI's code recurses forever where nothing tells vectors apart."""
    X = np.array(values, dtype=np.float32)[:, None]
    about = Catalogue(item_ids=[f"{row:02}" for row in range(len(X))])
    tree = KMeansTree(branching=branching, leaf=leaf, depth=depth, constrained=depth is not None)
    ids = ids_of(tree, X, about)
    assert beginning(ids) is None
    assert len(set(unpadded(ids))) == len(X)
    assert np.bincount(tree.items_.values).max() <= (leaf if depth is None else branching)


def test_many_equal_vectors_are_cut_into_blocks() -> None:
    X = np.ones((1000, 3), dtype=np.float32)
    tree = KMeansTree(branching=4, leaf=10)
    ids = ids_of(tree, X, Catalogue(item_ids=[f"{row:04}" for row in range(1000)]))
    assert beginning(ids) is None
    assert np.bincount(tree.items_.values).max() <= 10


def test_items_that_no_fit_has_seen_come_to_the_nearest_leaf(real: Vectors, known: Catalogue) -> None:
    tree = KMeansTree(leaf=30)
    ids = ids_of(tree, real, known)
    other = replace(known, item_ids=[f"new {own}" for own in known.item_ids])
    found = tree.set_params(leaf=3000).index(real, about=other)  # with room for all
    same = [a[: len(b) - 1] == b[:-1] for a, b in zip(unpadded(found), unpadded(ids), strict=True)]
    assert np.mean(same) > 0.95  # not all: by means of clusters, not by the centroids k-means stopped with


def test_a_full_leaf_sends_items_next_door_and_a_full_tree_refuses() -> None:
    """Leaves 0 and 10 with room for two each: the third zero goes to the tens, the fifth item nowhere."""
    X = np.array([[0.0], [0.1], [10.0]], dtype=np.float32)
    tree = KMeansTree(branching=2, leaf=2)
    ids = ids_of(tree, X, Catalogue(item_ids=["a", "b", "c"]))
    low, high = ids[0, 0], ids[2, 0]
    assert [path[0] for path in unpadded(ids)] == [low, low, high]
    assert unpadded(ids)[2] == (
        high,
    )  # alone in its leaf: its path is its ID, and there is no place beside it
    with pytest.raises(DataError, match="item 'd': expected a free place in some leaf, got a full tree"):
        tree.index(X[:1], about=Catalogue(item_ids=["d"]), taken=ids)
    tree.set_params(leaf=3)
    found = tree.index(X[2:], about=Catalogue(item_ids=["d"]), taken=ids)
    assert unpadded(found) == [(low, 2)]


def test_what_is_taken_must_be_of_this_tree(real: Vectors, known: Catalogue) -> None:
    tree = KMeansTree().fit(real, about=known)
    with pytest.raises(DataError, match=r"taken: \(99, 99, 99, 99\) is no ID of this tree"):
        tree.index(real, about=known, taken=padded([(99, 99, 99, 99)]))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"branching": 1}, "branching: expected 2 or more"),
        ({"depth": 1}, "depth: expected a whole number from 2 on"),
        ({"constrained": True}, "set depth"),
        ({"positions": "2d"}, "positions: expected one of shared, aware"),
        ({"positions": "aware", "depth": 3}, "set constrained too"),
    ],
)
def test_parameters_out_of_range_are_named(params: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        KMeansTree(**params).check_params()  # type: ignore[arg-type]
