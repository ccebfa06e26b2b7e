"""The policies by the names that recipes use, and `resolve`, the one door to them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError, RecipeError
from sid_tokenizers.base import Codes, Vectors, check_vectors
from sid_tokenizers.collisions.base import Policy, Ranker, Resolution, State, Task
from sid_tokenizers.collisions.fsq_level import FsqLevel
from sid_tokenizers.collisions.groups import Rows, slots_of
from sid_tokenizers.collisions.hashed import HashDigit
from sid_tokenizers.collisions.mincost import MinCost
from sid_tokenizers.collisions.nearest import NextNearest
from sid_tokenizers.collisions.shared import Capacity, Keep
from sid_tokenizers.collisions.sinkhorn_reassign import SinkhornReassign
from sid_tokenizers.collisions.suffixes import (
    Suffix,
    SuffixFromZero,
    SuffixOnCollision,
    SuffixPopularity,
    UniqueToken,
)

POLICIES: dict[str, type[Policy]] = {
    policy.name: policy
    for policy in (
        Keep,
        SuffixOnCollision,
        Suffix,
        SuffixFromZero,
        SuffixPopularity,
        HashDigit,
        UniqueToken,
        NextNearest,
        MinCost,
        SinkhornReassign,
        FsqLevel,
        Capacity,
    )
}


def policy_named(name: str, params: Mapping[str, Any] | None = None) -> Policy:
    """Give a policy by its recipe name, parameters checked; lists become tuples.

    Raises RecipeError for an unknown name or parameter, DataError for one that is out of range.

    >>> policy_named("capacity", {"capacity": 2})
    Capacity(capacity=2)
    """
    if name not in POLICIES:
        raise RecipeError(f"no collision policy is called {name!r}; there are: {', '.join(POLICIES)}")
    known = [field.name for field in dataclasses.fields(POLICIES[name])]
    given = dict(params or {})
    for key in given:
        if key not in known:
            there = f"it has: {', '.join(known)}" if known else "it has none"
            raise RecipeError(f"collision policy {name!r} has no parameter {key!r}; {there}")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    policy = POLICIES[name](**values)
    policy.check_params()
    return policy


def resolve(
    codes: Codes,
    X: Vectors | Callable[[Rows], Vectors],
    tokenizer: Ranker,
    *,
    policy: str | Policy,
    params: Mapping[str, Any] | None = None,
    item_ids: Sequence[str] | Sequence[int] | npt.NDArray[Any] | None = None,
    popularity: npt.ArrayLike | None = None,
    taken: Codes | None = None,
    state: State | None = None,
) -> Resolution:
    """Apply a policy, by its recipe name and parameters or as an object.

    codes: (n, L), as the tokenizer gave them. X: (n, d), the vectors they were made from, or a function
    from rows to their vectors where (n, d) does not fit into memory. item_ids: (n,), unique; they settle
    ties, so that row order does not matter; without them rows do. popularity: (n,), for policies that
    need it. taken: (m, W), SIDs this policy gave before; they never move, and new items are settled around
    them. state: of that earlier resolution.

    Raises RecipeError for an unknown policy or parameter, or a policy that does not fit the tokenizer;
    DataError for codes or an array X that are not what they should be, or where the policy cannot keep its
    promise. What a function gives for X is not checked.
    """
    if isinstance(policy, str):
        policy = policy_named(policy, params)
    elif params:
        raise RecipeError("params go with a policy's name; a policy object has its own")
    policy.check_params()
    if policy.needs_reconstruction and not getattr(tokenizer, "reconstructs", True):
        name = getattr(tokenizer, "name", type(tokenizer).__name__)
        raise RecipeError(
            f"{policy.name} codes what the tokenizer left over, but {name!r} does not decode to the vectors; "
            "choose next-nearest or a suffix"
        )
    codes = _checked_codes(codes, tuple(tokenizer.levels))
    n = len(codes)
    order = _item_order(item_ids, n)
    task = Task(
        codes=codes[order],
        taken=_checked_taken(taken, policy, tuple(tokenizer.levels)),
        tokenizer=tokenizer,
        vectors=_reader(X, order),
        popularity=_checked_popularity(popularity, policy, order),
        state=state or {},
    )
    settled = policy.settle(task)
    slots = slots_of(np.concatenate([task.taken, settled.sids]))[len(task.taken) :]
    assert not (policy.unique and slots.any()), f"{policy.name} broke its promise"
    length = len(tokenizer.levels)
    back = np.empty(n, dtype=np.int64)
    back[order] = np.arange(n)
    sids = settled.sids[back]
    return Resolution(
        sids=sids,
        slots=slots[back],
        moved=(sids[:, :length] != codes).any(axis=1),
        suffix=sids[:, length].copy() if policy.adds else None,
        levels=settled.levels,
        state=settled.state,
        duplicates=int(task.repeats.sum()),
    )


def _checked_codes(codes: npt.ArrayLike, levels: tuple[int, ...]) -> Codes:
    array = np.asarray(codes)
    if array.ndim != 2 or array.shape[1] != len(levels):
        raise DataError(f"codes: expected shape (n, {len(levels)}), got {array.shape}")
    array = _whole("codes", array)
    _check_range("codes", array, levels)
    return array


def _checked_taken(taken: npt.ArrayLike | None, policy: Policy, levels: tuple[int, ...]) -> Codes:
    width = len(levels) + policy.adds
    if taken is None:
        return np.empty((0, width), dtype=np.int32)
    array = np.asarray(taken)
    if array.ndim != 2 or array.shape[1] != width:
        raise DataError(f"taken: {policy.name} gives SIDs of shape (m, {width}), got {array.shape}")
    array = _whole("taken", array)
    _check_range("taken", array, levels)
    if policy.adds:
        least = -1 if policy.length == "L or L+1" else 0
        last = array[:, len(levels)]
        wrong = last[(last < least) | (last >= (policy.digits or np.inf))]
        if len(wrong):
            upper = f" to {policy.digits - 1}" if policy.digits else " or more"
            raise DataError(f"taken: {policy.name} gives last digits {least}{upper}, got {wrong[0]}")
    twice = np.flatnonzero(slots_of(array))
    if policy.unique and len(twice):
        raise DataError(
            f"taken, row {twice[0]}: repeats an earlier SID ({len(twice)} such rows), which {policy.name} "
            "never gives. Pass the SIDs of a release made with this policy"
        )
    return array


def _whole(what: str, array: npt.NDArray[Any]) -> Codes:
    """Give whole numbers as int32, or raise DataError; nothing is rounded or wrapped around."""
    if array.dtype.kind not in "iu" and array.size:
        raise DataError(f"{what}: expected whole numbers, got {array.dtype}")
    codes = array.astype(np.int32, copy=False)
    wrong = array[codes != array]
    if len(wrong):
        raise DataError(f"{what}: expected numbers of 32 bits, got {wrong[0]}")
    return codes


def _check_range(what: str, codes: npt.NDArray[Any], levels: tuple[int, ...]) -> None:
    for level, k in enumerate(levels):
        column = codes[:, level]
        wrong = column[(column < 0) | (column >= k)]
        if len(wrong):
            raise DataError(f"{what}: level {level + 1} has codes 0 to {k - 1}, got {wrong[0]}")


def _checked_popularity(
    popularity: npt.ArrayLike | None, policy: Policy, order: Rows
) -> npt.NDArray[np.float64] | None:
    if popularity is None:
        if "popularity" in policy.needs:
            raise DataError(
                f"{policy.name} needs popularity: (n,) numbers, such as counts of training events"
            )
        return None
    array = np.asarray(popularity, dtype=np.float64)
    if array.shape != order.shape or not np.isfinite(array).all():
        raise DataError(f"popularity: expected {len(order)} finite numbers, got shape {array.shape}")
    return array[order]


def _item_order(item_ids: Sequence[Any] | npt.NDArray[Any] | None, n: int) -> Rows:
    """Give the rows in item order: strings by their bytes, numbers by value."""
    if item_ids is None:
        return np.arange(n)
    ids = np.asarray(item_ids)
    if ids.shape != (n,) or ids.dtype.kind not in "USiuO":
        raise DataError(f"item_ids: expected {n} strings or whole numbers, got {ids.dtype} {ids.shape}")
    order = np.argsort(ids, kind="stable")
    equal = np.flatnonzero(ids[order][1:] == ids[order][:-1])
    if len(equal):
        raise DataError(f"item_ids: {ids[order[equal[0]]]!r} stands there twice; expected unique ids")
    return order


def _reader(X: Vectors | Callable[[Rows], Vectors], order: Rows) -> Callable[[Rows], Vectors]:
    """Give a function from rows in item order to their vectors."""
    if callable(X):
        read = X
    else:
        array = check_vectors(X)
        if len(array) != len(order):
            raise DataError(f"X: expected {len(order)} rows of vectors, got shape {array.shape}")

        def read(rows: Rows) -> Vectors:
            return array[rows]

    def vectors(rows: Rows) -> Vectors:
        # Whoever reads from a disk reads forwards.
        at = order[rows]
        forwards = np.argsort(at)
        found = np.asarray(read(at[forwards]), dtype=np.float32)
        out = np.empty_like(found)
        out[forwards] = found
        return out

    return vectors
