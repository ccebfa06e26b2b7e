"""What is known of items beside their vectors: ids, behaviour, popularity, categories, domains, words.

Schemes name in `traits.inputs` what they need of it. Everything about behaviour comes from train events
alone, or the IDs leak.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Events:
    """Train events, user by user, each user's in the declared total order.

    users: (m,) int64, numbers of users in ascending order; items: (m,) int64, rows of the catalogue.
    """

    users: Rows
    items: Rows

    def of(self, wanted: Rows, n: int) -> "Events":
        """Give the events of some of n rows, under their numbers among those wanted."""
        place = np.full(n, -1, dtype=np.int64)
        place[wanted] = np.arange(len(wanted))
        items = place[self.items]
        return Events(self.users[items >= 0], items[items >= 0])


@dataclass(frozen=True)
class Catalogue:
    """Items, row by row as the vectors that go with it; what is None is not known.

    item_ids: unique. cf: (n, e) float32, behaviour vectors, zeros where an item has none. popularity: (n,)
    int64, train events. categories: broad to narrow. domains: of which catalogue. titles, texts: "" where
    there is none; texts are what was embedded. events: of train.
    """

    item_ids: Sequence[str]
    cf: npt.NDArray[np.float32] | None = None
    popularity: Rows | None = None
    categories: Sequence[Sequence[str]] | None = None
    domains: Sequence[str] | None = None
    titles: Sequence[str] | None = None
    texts: Sequence[str] | None = None
    events: Events | None = None

    def __post_init__(self) -> None:
        """Raise DataError where a column has not as many rows as there are ids."""
        n = len(self.item_ids)
        for name, column in self._columns().items():
            if len(column) != n:
                raise DataError(f"catalogue: {name}: expected {n} rows, as item_ids has, got {len(column)}")
        items = np.empty(0) if self.events is None else self.events.items
        if len(items) and not 0 <= items.min() <= items.max() < n:
            raise DataError(
                f"catalogue: events: expected rows 0 to {n - 1}, got {items.min()}, {items.max()}"
            )

    def __len__(self) -> int:
        """Give the number of items."""
        return len(self.item_ids)

    def content_columns(self, dim: int) -> int:
        """Give how many of `dim` stacked columns come before those of cf; raises DataError where none do."""
        own = 0 if self.cf is None else self.cf.shape[1]
        if dim <= own:
            raise DataError(
                f"vectors: expected more than {own} columns, the last {own} those of cf, got {dim}; "
                "pass X = [content | cf]"
            )
        return dim - own

    def order(self, n: int) -> Rows:
        """Give the rows in order of their ids, which are unique; raises DataError where there are not n."""
        if len(self) != n:
            raise DataError(f"catalogue: expected {n} items, as there are vectors, got {len(self)}")
        order = np.argsort(np.asarray(self.item_ids, dtype=np.str_), kind="stable").astype(np.int64)
        for before, after in pairwise(order):
            if self.item_ids[before] == self.item_ids[after]:
                raise DataError(f"catalogue: item_ids: {self.item_ids[after]!r} stands there twice")
        return order

    def rows(self, wanted: Rows) -> "Catalogue":
        """Give some items in the order asked for; events of others are left out."""
        events = None if self.events is None else self.events.of(wanted, len(self))
        taken: dict[str, Any] = {
            name: column[wanted] if isinstance(column, np.ndarray) else [column[row] for row in wanted]
            for name, column in self._columns().items()
        }
        return replace(self, events=events, **taken)

    def _columns(self) -> dict[str, Any]:
        named = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "events"}
        return {name: column for name, column in named.items() if column is not None}
