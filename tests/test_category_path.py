"""Category paths: numbers dense within a path, names of any kind, and HyPE's paths within a hierarchy."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sid_schemas import DataError
from sid_tokenizers import Catalogue, CategoryPath, Trie
from sid_tokenizers.base import Codes, Vectors
from sid_tokenizers.indexers.categories import Names, escaped
from sid_tokenizers.indexers.hype import parse, path_text
from sid_tokenizers.indexers.paths import unpadded

TREE = [["All", "Games", "Cards"], ["All", "Games", "Cards"], ["All", "Games"], ["All", "7"], [], ["All"]]


def made(categories: list[list[str]]) -> tuple[Vectors, Catalogue]:
    about = Catalogue(item_ids=[f"{row:03}" for row in range(len(categories))], categories=categories)
    return np.zeros((len(categories), 1), dtype=np.float32), about


def ids_of(scheme: CategoryPath, items: tuple[Vectors, Catalogue]) -> Codes:
    return scheme.fit(items[0], about=items[1]).index(items[0], about=items[1])


def tokens_of(scheme: CategoryPath, ids: Codes) -> list[str]:
    return ["".join(scheme.token(code) for code in path) for path in unpadded(ids)]


def test_an_id_spells_the_path_and_counts_within_it() -> None:
    scheme = CategoryPath(drop_root=True, shuffled=False)
    assert tokens_of(scheme, ids_of(scheme, made(TREE))) == [
        "<Games><Cards><1>",
        "<Games><Cards><2>",
        "<Games><1>",
        "<\\7><1>",  # a category called 7 is not the number 7
        "<1>",
        "<2>",  # nothing is left of it without the root
    ]


def test_items_of_a_category_share_its_path_and_numbers_are_dense(real: Vectors, known: Catalogue) -> None:
    """Equal categories, equal beginnings; with no depth there is nothing that tells likeness."""
    assert known.categories is not None
    scheme, none = CategoryPath(), CategoryPath(max_depth=0)
    ids = unpadded(ids_of(scheme, (real, known)))
    spelled = [[scheme.names_.names[code] for code in path[:-1]] for path in ids]
    assert spelled == [list(path) for path in known.categories]
    within: dict[tuple[int, ...], list[int]] = {}
    for *path, last in ids:
        within.setdefault(tuple(path), []).append(last - len(scheme.names_))
    assert all(sorted(numbers) == list(range(len(numbers))) for numbers in within.values())
    assert all(len(path) == 1 for path in unpadded(ids_of(none, (real, known))))


def test_numbers_tell_nothing_once_items_are_shuffled(real: Vectors, known: Catalogue) -> None:
    """In order of ids, which a dump gives by age, a number would say when an item came."""

    def told(shuffled: bool) -> float:
        scheme = CategoryPath(max_depth=0, shuffled=shuffled)
        numbers = ids_of(scheme, (real, known))[:, 0]
        by_id = np.argsort(np.argsort(np.array(known.item_ids)))
        return float(np.corrcoef(numbers, by_id)[0, 1])

    assert abs(told(shuffled=True)) < 0.1
    assert told(shuffled=False) > 0.99


def test_yelp_keeps_the_frequent_ones_first(real: Vectors, known: Catalogue) -> None:
    assert known.categories is not None
    counts = Counter(name for path in known.categories for name in path)
    scheme = CategoryPath(order="frequency", min_count=50, max_depth=2)
    ids = unpadded(ids_of(scheme, (real, known)))
    for path, categories in zip(ids, known.categories, strict=True):
        names = [scheme.names_.names[code] for code in path[:-1]]
        kept = [name for name in categories if counts[name] > 50]
        assert names == sorted(kept, key=lambda name: (-counts[name], name))[:2]
    assert counts["History"] == 50  # is not more than 50
    assert "History" in scheme.names_.names
    assert not any(scheme.names_.names.index("History") in path[:-1] for path in ids)


def test_a_name_that_fit_has_not_seen_ends_a_path_but_not_a_list() -> None:
    scheme = CategoryPath(shuffled=False)
    published = ids_of(scheme, made(TREE))
    new = Catalogue(item_ids=["x", "y"], categories=[["All", "New", "Games"], ["All", "Games", "New"]])
    found = scheme.index(np.zeros((2, 1)), about=new, taken=published)
    assert tokens_of(scheme, found) == ["<All><2>", "<All><Games><2>"]
    scheme = CategoryPath(order="frequency", shuffled=False)
    published = ids_of(scheme, made(TREE))
    assert tokens_of(scheme, scheme.index(np.zeros((2, 1)), about=new, taken=published)) == [
        "<All><Games><2>",
        "<All><Games><3>",
    ]


@given(st.lists(st.text(), unique=True, max_size=20))
def test_names_of_any_kind_give_tokens_that_read_one_way(names: list[str]) -> None:
    kept = Names.of([names])
    tokens = [kept.token(code) for code in range(len(kept))]
    others = {f"<{number}>" for number in range(30)} | {f"<CI{number}>" for number in range(30)}
    assert len(set(tokens)) == len(tokens)
    assert not set(tokens) & others
    for name in names:
        inner = escaped(name)
        assert not {"<", ">"} & {inner[at] for at in range(len(inner)) if not _marked(inner, at)}


def _marked(text: str, at: int) -> bool:
    """Say whether the character at a place has an odd number of backslashes before it."""
    before = text[:at]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1


@pytest.mark.parametrize("flat", [False, True])
def test_hype_paths_lie_in_the_hierarchy(real: Vectors, known: Catalogue, flat: bool) -> None:
    assert known.categories is not None
    scheme = CategoryPath(flat=flat)
    ids = ids_of(scheme, (real, known))
    names, steps = scheme.names_.names, set(map(tuple, scheme.steps_.tolist()))
    trie = Trie.build(ids)
    paths = scheme.paths(known)
    several = 0
    for row, (own, sid) in enumerate(zip(paths, unpadded(ids), strict=True)):
        assert trie.item(sid) == row
        docid = "".join(map(scheme.token, sid))
        several += len(own) > 1
        for path in own:
            codes = [names.index(name) for name in path]
            assert all(step in steps for step in pairwise((-1, *codes)))
            assert parse(path_text(path, docid)) == (list(path), docid)
    if flat:  # genres are no path: each is one, and an item has several
        assert [[name] for name in known.categories[0]] == paths[0]
        assert several > len(real) / 2
        assert {above for above, _ in steps} == {-1}
    else:
        assert [[list(path)] for path in known.categories] == paths
        assert several == 0


def test_a_flat_list_has_all_its_paths_however_short_the_id() -> None:
    scheme, items = CategoryPath(flat=True, max_depth=2), made([["a", "b", "c"], ["b"], []])
    ids = ids_of(scheme, items)
    assert scheme.paths(items[1]) == [[["a"], ["b"], ["c"]], [["b"]], []]
    assert [len(path) - 1 for path in unpadded(ids)] == [2, 1, 0]


def test_a_category_called_as_a_special_token_is_another() -> None:
    scheme = CategoryPath()
    ids = ids_of(scheme, made([["pad"], ["bos"], ["eos"]]))
    special = {"<pad>", "<bos>", "<eos>"}
    tokens = {scheme.token(code) for path in unpadded(ids) for code in path[:-1]}
    assert len(tokens) == 3
    assert not tokens & special


def test_a_path_of_a_new_item_stays_in_the_hierarchy() -> None:
    scheme = CategoryPath().fit(made(TREE)[0], about=made(TREE)[1])
    odd = Catalogue(item_ids=["x", "y", "z"], categories=[["All", "Cards"], ["New"], ["All", "Games", "7"]])
    assert scheme.paths(odd) == [[["All"]], [], [["All", "Games"]]]  # Cards lie under Games alone


@given(st.lists(st.text(), min_size=1, max_size=4), st.text())
def test_any_path_is_read_back(path: list[str], docid: str) -> None:
    assert parse(path_text(path, docid)) == (path, docid)


def test_what_is_no_target_is_refused() -> None:
    for text in ("Games > Cards", "[PATH] Games", "[DOC] d", "x [PATH] a [DOC] d"):
        with pytest.raises(DataError, match=r"expected '\[PATH\] a > b \[DOC\] docid', got"):
            parse(text)


def test_parameters_out_of_range_are_named() -> None:
    with pytest.raises(DataError, match="order: expected one of path, frequency"):
        CategoryPath(order="abc").check_params()
    with pytest.raises(DataError, match="max_depth: expected a whole number from 0 on"):
        CategoryPath(max_depth=-1).check_params()
    with pytest.raises(DataError, match="min_count: expected 0 or more"):
        CategoryPath(min_count=-1).check_params()
