"""Hybrid indexing: what an item is (its categories) and who has it (its spectral clusters) in one ID.

Unlike spectral.py and category_path.py, which each tell one of both.
"""

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.base import Vectors
from sid_tokenizers.catalogue import Catalogue
from sid_tokenizers.indexers.by_item import bytes_of, strings_of
from sid_tokenizers.indexers.categories import Names, Reading
from sid_tokenizers.indexers.category_path import check_depth
from sid_tokenizers.indexers.paths import Path
from sid_tokenizers.indexers.spectral import Spectral
from sid_tokenizers.scheme import Traits

ORDERS = ("category-first", "cid-first")


class SpectralCategory(Spectral):
    """Hybrid IDs: tokens of categories and of spectral clusters, then the item's last token.

    order: "category-first" or "cid-first". drop_root: leave out the first category, as
    Amazon's, which every item has. max_depth: how many categories of a path count. Both are as of
    CategoryPath. All others are Spectral's; a last token is counted within all that stands before it.

    HID of "How to Index Item IDs" [C for the parts and both orders]. The last token ends the ID in both
    orders [D], where the paper's CID brings its own along: no ID begins another, and none is longer for it.

    Learns what Spectral does, and `names_`, the categories.
    """

    name: ClassVar[str] = "spectral+category"
    paper: ClassVar[str] = "How to Index Item IDs (HID) [C; one last token D]"
    traits: ClassVar[Traits] = Traits(fixed_length=False, unique=True, inputs=("events", "categories"))

    names_: Names

    def __init__(
        self,
        *,
        order: str = "category-first",
        drop_root: bool = False,
        max_depth: int | None = None,
        n_clusters: int = 20,
        token_size: int = 200,
        last: str = "sequential",
        seed: int = 0,
    ) -> None:
        """Store the parameters; `fit` checks them."""
        super().__init__(n_clusters=n_clusters, token_size=token_size, last=last, seed=seed)
        self.order = order
        self.drop_root = drop_root
        self.max_depth = max_depth

    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range."""
        super().check_params()
        check_depth(self.max_depth)
        if self.order not in ORDERS:
            raise DataError(f"order: expected one of {', '.join(ORDERS)}, got {self.order!r}")

    def _fit(self, X: Vectors, about: Catalogue) -> None:
        assert about.categories is not None
        super()._fit(X, about)
        self.names_ = Names.of(about.categories)

    @property
    def _first(self) -> int:
        return self.token_size + len(self.names_)

    def _paths(self, about: Catalogue) -> list[Path]:
        self._check_about(about)
        assert about.categories is not None
        reading = Reading(drop_root=self.drop_root, max_depth=self.max_depth)
        categories = [
            tuple(self.token_size + code for code in path)
            for path in self.names_.read(about.categories, reading)
        ]
        clusters = super()._paths(about)
        first, second = (categories, clusters) if self.order == "category-first" else (clusters, categories)
        return [(*one, *other) for one, other in zip(first, second, strict=True)]

    def token(self, code: int) -> str:
        """Give `<CI3>` for a cluster, `<name>` for a category, and a last token as Spectral has it."""
        if self.token_size <= code < self._first:
            return self.names_.token(code - self.token_size)
        return super().token(code)

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        counts = np.array(self.names_.counts, dtype=np.int64)
        return super()._arrays() | {"names": bytes_of(self.names_.names), "counts": counts}

    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        super()._restore(arrays)
        self.names_ = Names(strings_of(arrays["names"]), arrays["counts"].tolist())
