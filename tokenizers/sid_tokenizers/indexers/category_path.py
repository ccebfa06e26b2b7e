"""A category's path and a number within it: IDs that words of the catalogue spell.

Unlike the trees, nothing is learned but which names there are: equal paths differ by the number alone.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, takewhile
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.base import Codes, Vectors
from sid_tokenizers.catalogue import Catalogue
from sid_tokenizers.indexer import Indexer
from sid_tokenizers.indexers.by_item import bytes_of, strings_of
from sid_tokenizers.indexers.categories import Names, Reading
from sid_tokenizers.indexers.paths import Path, counted, padded
from sid_tokenizers.residual import check_at_least
from sid_tokenizers.scheme import Traits

ORDERS = ("path", "frequency")


class CategoryPath(Indexer):
    """Semantic indexing: the tokens of an item's categories, broad to narrow, then its number among equals.

    drop_root: leave out the first category, as Amazon's, which every item has. max_depth: how many
    categories at most; None, all. min_count: categories that no more items than this have do not count.
    order: "path", the source lists them broad to narrow; "frequency", they have no order, so those that
    more items have come first. shuffled, seed: items are numbered in a drawn order, so that the number tells
    nothing; without, in order of their ids.
    flat: for `paths` alone: the list is no path, and each category is a path of its own, max_depth or not.

    SemID of "How to Index Item IDs" in the form of LLM-RecSys-ID [C]: tokens `<name>`, then `<n>` from 1
    within the identical path; items shuffled before. Amazon: drop_root. Yelp: order "frequency", min_count
    10, max_depth 5. Different [D]: there, an item without categories has the token of its own index; here, a
    number within the empty path. A path ends before a category that fit has not seen. What names may
    hold is settled by categories.escaped.

    HyPE [C for the form of its targets; D for where paths come from]: every path to an item, `paths`, each
    written before the item's docid (hype.py). There, an external hierarchy has the candidates and a
    language model picks; here, they are the source's. A path ends where fit has not seen the step.

    Learns `names_` (categories.py), and `steps_` (m, 2) int32, the codes of a name and of one right below it
    in some path; -1 stands above the first.
    """

    name: ClassVar[str] = "category-path"
    paper: ClassVar[str] = "How to Index Item IDs (SemID) [C]; HyPE (paths) [C form; candidates D]"
    traits: ClassVar[Traits] = Traits(fixed_length=False, unique=True, inputs=("categories",))

    names_: Names
    steps_: npt.NDArray[np.int32]

    def __init__(
        self,
        *,
        drop_root: bool = False,
        max_depth: int | None = None,
        min_count: int = 0,
        order: str = "path",
        shuffled: bool = True,
        flat: bool = False,
        seed: int = 0,
    ) -> None:
        """Store the parameters; `fit` checks them."""
        self.drop_root = drop_root
        self.max_depth = max_depth
        self.min_count = min_count
        self.order = order
        self.shuffled = shuffled
        self.flat = flat
        self.seed = seed

    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range."""
        check_at_least(self, min_count=0, seed=0)
        check_depth(self.max_depth)
        if self.order not in ORDERS:
            raise DataError(f"order: expected one of {', '.join(ORDERS)}, got {self.order!r}")

    @property
    def _reading(self) -> Reading:
        return Reading(self.drop_root, self.min_count, self.order == "frequency", self.max_depth)

    def _fit(self, X: Vectors, about: Catalogue) -> None:
        assert about.categories is not None
        self.names_ = Names.of(about.categories)
        steps = {step for path in self._all_paths(about) for step in pairwise((-1, *path))}
        self.steps_ = np.array(sorted(steps), dtype=np.int32).reshape(-1, 2)

    def _all_paths(self, about: Catalogue) -> list[Path]:
        """Give the paths of all items, one after another; one each, or where the list is flat, many."""
        return [path for paths in self._item_paths(about) for path in paths]

    def _item_paths(self, about: Catalogue) -> list[list[Path]]:
        self._check_about(about)
        assert about.categories is not None
        # Each of a flat list is a path of its own, however few of them the ID has.
        reading = replace(self._reading, max_depth=None, flat=True) if self.flat else self._reading
        whole = self.names_.read(about.categories, reading)
        return [[(code,) for code in path] if self.flat else [path][: len(path)] for path in whole]

    def _index(self, X: Vectors, about: Catalogue, taken: Codes) -> Codes:
        self._check_about(about)
        assert about.categories is not None
        paths = self.names_.read(about.categories, self._reading)
        rows = np.arange(len(paths))
        if self.shuffled:
            rows = np.random.default_rng(self.seed).permutation(len(paths))
        drawn = padded(counted([paths[row] for row in rows], first=len(self.names_), taken=taken))
        ids = np.empty_like(drawn)
        ids[rows] = drawn
        return ids

    def token(self, code: int) -> str:
        """Give `<name>` for a category, `<n>` for a number, from 1."""
        return self.names_.token(code) if code < len(self.names_) else f"<{code - len(self.names_) + 1}>"

    def paths(self, about: Catalogue) -> list[Sequence[Sequence[str]]]:
        """Give every path to each item, as names; none where it has no category that fit has seen."""
        known = set(map(tuple, self.steps_.tolist()))
        found: list[Sequence[Sequence[str]]] = []
        for paths in self._item_paths(about):
            valid = [self._known(path, known) for path in paths]
            found.append([[self.names_.names[code] for code in path] for path in valid if path])
        return found

    @staticmethod
    def _known(path: Path, steps: set[tuple[int, ...]]) -> Path:
        """Give a path as far as its steps are known."""
        return tuple(below for _, below in takewhile(steps.__contains__, pairwise((-1, *path))))

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {
            "names": bytes_of(self.names_.names),
            "counts": np.array(self.names_.counts, dtype=np.int64),
            "steps": self.steps_,
        }

    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self.names_ = Names(strings_of(arrays["names"]), arrays["counts"].tolist())
        self.steps_ = arrays["steps"]


def check_depth(max_depth: int | None) -> None:
    """Raise DataError where it is neither None nor a whole number from 0 on."""
    if max_depth is not None and (type(max_depth) is not int or max_depth < 0):
        raise DataError(f"max_depth: expected a whole number from 0 on, or none, got {max_depth!r}")
