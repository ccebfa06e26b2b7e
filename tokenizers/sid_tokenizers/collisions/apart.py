"""Settle some first codes here and some there: where that comes to the same, and how what came of it joins.

`resolve` sees all codes at once. Most policies let no item matter to one of other codes (`Policy.apart`):
then `resolve` over the items of some first codes gives what it gives them among all.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from sid_tokenizers.collisions.base import Policy, Resolution
from sid_tokenizers.collisions.groups import Rows


def can_part(policy: Policy, levels: Sequence[int], counts: npt.ArrayLike) -> bool:
    """Say whether items of different first codes may be resolved apart.

    levels: of the tokenizer. counts: (K,) items of every first code, those that are taken too. A policy that
    moves items never moves one from under its first code while there is room; `counts` says whether there
    always is.

    >>> from sid_tokenizers.collisions import policy_named
    >>> [can_part(policy_named("next-nearest"), [2, 4], counts) for counts in ([4, 1], [5, 0])]
    [True, False]
    """
    if policy.apart != "prefix":
        return policy.apart == "codes"
    return int(np.max(counts, initial=0)) <= math.prod(levels[1:]) * policy.room


def cut(counts: npt.ArrayLike, number: int) -> list[int]:
    """Cut first codes into at most `number` ranges of about as many items each, and give their edges.

    >>> cut([5, 1, 1, 3, 0], 2), cut([5, 1, 1, 3, 0], 9)
    ([0, 1, 5], [0, 1, 2, 3, 4, 5])
    """
    ends = np.cumsum(counts)
    inner = np.searchsorted(ends, ends[-1] * np.arange(1, number) / number) + 1
    edges: list[int] = np.unique([0, *inner, len(ends)]).tolist()
    return edges


def joined(n: int, parts: Iterable[tuple[Rows, Resolution]]) -> Resolution:
    """Put together what came of n items: (rows, their resolution) of parts that hold every row once.

    A level that was added is as large as the largest part has it.
    """
    whole: Resolution | None = None
    for rows, part in parts:
        assert not part.state, "what a policy fits is fitted on all items"
        if whole is None:
            whole = _empty(n, part)
        suffix = None
        if whole.suffix is not None and part.suffix is not None:
            suffix = whole.suffix
            suffix[rows] = part.suffix
        whole.sids[rows], whole.slots[rows], whole.moved[rows] = part.sids, part.slots, part.moved
        levels = tuple(map(max, whole.levels, part.levels))
        duplicates = whole.duplicates + part.duplicates
        whole = Resolution(whole.sids, whole.slots, whole.moved, suffix, levels, {}, duplicates)
    assert whole is not None, "no parts"
    return whole


def _empty(n: int, like: Resolution) -> Resolution:
    return Resolution(
        np.empty((n, like.sids.shape[1]), dtype=like.sids.dtype),
        np.empty(n, dtype=like.slots.dtype),
        np.empty(n, dtype=like.moved.dtype),
        None if like.suffix is None else np.empty(n, dtype=like.suffix.dtype),
        like.levels,
        {},
        0,
    )
