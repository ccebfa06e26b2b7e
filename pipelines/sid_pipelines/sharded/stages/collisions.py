"""Collisions by buckets of first codes, where the policy can settle them apart; else all codes in one task.

    deal (by ranges of items) -> settle (by bucket) -> the SIDs of all items
    write (by ranges of items) -> table sids, what blocks add up to

Vectors are read once, in the order they are stored, and dealt to the buckets: only those that the policy may
ask for. Where a bucket does not come out even, all codes are settled at once, which says what is wrong as the
local stage says it. The driver makes what is small beside that: quality, which reads vectors, split and
categories as the local stage does, the way back and the trie.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sid_pipelines import collisions
from sid_pipelines.sharded.given import Given
from sid_pipelines.sharded.job import ALL, Ref, Results, Step, Task
from sid_pipelines.sharded.passing import named
from sid_pipelines.sharded.shards import Shards, numbered
from sid_pipelines.sharded.slices import rows_between
from sid_pipelines.sharded.stages.tokenize import ITEMS, ranges_of
from sid_pipelines.sharded.tables import check_count, parts_of, send_parts
from sid_pipelines.stage import Outcome, Work
from sid_pipelines.vectors import coded_vectors
from sid_schemas import DataError
from sid_schemas.tables import named_sids
from sid_tokenizers import Tokenizer, Vocabulary, load, resolve
from sid_tokenizers.base import Codes, Vectors
from sid_tokenizers.collisions import Policy, Resolution, group_sizes, policy_named
from sid_tokenizers.collisions.apart import can_part, cut, joined
from sid_tokenizers.metrics import ReconstructionTotal
from sid_warehouse import files
from sid_warehouse.arrays import matrix

LOOKED, POPULARITY, RESOLVED = "looked.npy", "popularity.npy", "resolved.npy"  # what the driver gives tasks
SETTLED, STATE = "settled", "state"  # keys of what it takes
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Parted:
    """What the tasks know. ranges: of each, the edges of its blocks; buckets: the edges of first codes.

    levels: of the SIDs, once they are settled.
    """

    given: Given
    ranges: Sequence[Sequence[int]]
    buckets: Sequence[int] = ()
    levels: Sequence[int] = ()


def run(work: Work, shards: Shards) -> Outcome:
    """Write what the local stage writes."""
    coded = work.inputs["tokenize"]
    tokenizer = load(coded.folder / "tokenizer")
    if not isinstance(tokenizer, Tokenizer):
        return collisions.run(work)
    table = coded.read("codes", ["codes", "fitted"])
    codes, fitted = matrix(table["codes"]).astype(np.int32, copy=False), table["fitted"].to_numpy()
    vectors = coded_vectors(work.inputs, stacked=tokenizer.traits.stacked)
    number = shards.number(len(codes), ITEMS)
    parted = Parted(Given.of(work), ranges_of(vectors.edges(), number))
    done = _resolved(work, shards, codes, tokenizer, parted, number)
    cost = _write(work, shards, tokenizer, done, replace(parted, levels=done.levels))
    return collisions.finished(work, tokenizer, codes, fitted, done, Vocabulary(done.levels), cost)


# --- settled


def _resolved(
    work: Work, shards: Shards, codes: Codes, tokenizer: Tokenizer, parted: Parted, number: int
) -> Resolution:
    """Give all items their SIDs, by buckets or at once."""
    policy = policy_named(work.params.policy, work.params.params)
    told = {}
    if "popularity" in policy.needs:
        told[POPULARITY] = _share(shards, POPULARITY, collisions.popularity_of(work, len(codes)))
    counts = np.bincount(codes[:, 0], minlength=tokenizer.levels[0])
    buckets = cut(counts, number)
    if len(buckets) > 2 and can_part(policy, tokenizer.levels, counts):
        looked = np.ones(len(codes), dtype=bool)
        if policy.looks_at == "colliding":
            looked = group_sizes(codes)[1] > 1
        given = told | {LOOKED: _share(shards, LOOKED, looked)}
        refs = [Ref(key, name, str(path)) for key in _keys(parted.ranges) for name, path in given.items()]
        apart = replace(parted, buckets=buckets)
        made = shards.run("resolve", refs, Step("deal", deal, apart), Step("settle", settle, apart))
        if not any(told["refused"] for told in made.of("settle")):
            return _joined(len(codes), policy, tokenizer, made, "settle")
    refs = [Ref(ALL, ALL), *(Ref(ALL, name, str(path)) for name, path in told.items())]
    made = shards.run("resolve-at-once", refs, Step("settle-all", settle_all, parted))
    return _joined(len(codes), policy, tokenizer, made, "settle-all")


def _share(shards: Shards, name: str, array: npt.NDArray[Any]) -> Path:
    """Write an array where the workers find it."""
    folder = shards.scratch.absolute() / "driver"
    with files.writing(folder) as draft:
        np.save(draft / name, array)
        return (draft / name).replace(folder / name)


def _keys(ranges: Sequence[object]) -> list[str]:
    return [numbered(number) for number in range(len(ranges))]


def deal(task: Task) -> Mapping[str, Any]:
    """Send codes, and vectors where they may be asked for, of a range of items to the buckets they are in."""
    work, edges, bounds = task.params.given.work(task), task.params.ranges[int(task.key)], task.params.buckets
    came = named(task)
    first, stop = edges[0], edges[-1]
    coded = work.inputs["tokenize"]
    codes = matrix(rows_between(coded.parts("codes"), ["codes"], first, stop)["codes"])
    looked = np.load(came[LOOKED], mmap_mode="r")[first:stop]
    bucket = np.searchsorted(bounds, codes[:, 0], side="right") - 1
    tokenizer = load(coded.folder / "tokenizer")
    vectors = coded_vectors(work.inputs, stacked=tokenizer.traits.stacked)
    for number in range(len(bounds) - 1):
        own = np.flatnonzero(bucket == number)
        path = task.out / f"codes-{number}.npy"
        np.save(path, _records(row=own + first, codes=codes[own], looked=looked[own]))
        task.emit(numbered(number), path, name=f"codes-{task.key}")
        if POPULARITY in came and task.key == numbered(0):
            task.emit(numbered(number), came[POPULARITY], name=POPULARITY)
    for place, (start, X) in enumerate(vectors.between(edges)):
        rows = slice(start - first, start - first + len(X))
        for number in np.unique(bucket[rows][looked[rows]]).tolist():
            path = task.out / f"vectors-{number}-{numbered(place)}.npy"
            np.save(path, X[(bucket[rows] == number) & looked[rows]])
            task.emit(numbered(number), path, name=f"vectors-{task.key}-{numbered(place)}")
    return {}


def _records(**columns: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Give columns, (m,) or (m, k), as one array of m records."""
    kinds = [(name, column.dtype, column.shape[1:]) for name, column in columns.items()]
    records = np.empty(len(next(iter(columns.values()))), dtype=kinds)
    for name, column in columns.items():
        records[name] = column
    return records


class Dealt:
    """The vectors of a bucket's items; they stay on disk until they are asked for."""

    def __init__(self, looked: npt.NDArray[np.bool_], paths: Sequence[Path]) -> None:
        """Take which items have a vector here, (m,), and the files that hold them in the items' order."""
        self._looked, self._place = looked, np.cumsum(looked) - 1
        self._paths = paths  # not their maps: each would keep a file open
        self._starts = np.cumsum([0, *(len(np.load(path, mmap_mode="r")) for path in paths)])

    def rows(self, wanted: Rows) -> Vectors:
        """Give the vectors of some items, in the order asked for."""
        assert self._looked[wanted].all(), "a policy asked for vectors that it does not look at"
        place = self._place[wanted]
        file = np.searchsorted(self._starts, place, side="right") - 1
        found = np.empty((len(wanted), np.load(self._paths[0], mmap_mode="r").shape[1]), dtype=np.float32)
        for number in np.unique(file).tolist():
            own = np.flatnonzero(file == number)
            found[own] = np.load(self._paths[number], mmap_mode="r")[place[own] - self._starts[number]]
        return found


def settle(task: Task) -> Mapping[str, Any]:
    """Resolve the items of a bucket, as if there were no others; facts: whether the policy refused them.

    Why it did it would say of these items alone, so the driver has all settled at once then.
    """
    came = named(task)
    records = np.concatenate([np.load(path) for name, path in came.items() if name.startswith("codes-")])
    paths = [path for name, path in came.items() if name.startswith("vectors-")]
    popularity = None
    if POPULARITY in came:
        popularity = np.load(came[POPULARITY], mmap_mode="r")[records["row"]]
    dealt = Dealt(records["looked"], paths)
    try:
        return _settle(task, records["row"], records["codes"], dealt.rows, popularity) | {"refused": False}
    except DataError:
        return {"refused": True}


def settle_all(task: Task) -> Mapping[str, Any]:
    """Resolve all items, as the local stage does."""
    work = task.params.given.work(task)
    coded = work.inputs["tokenize"]
    codes = matrix(coded.read("codes", ["codes"])["codes"]).astype(np.int32, copy=False)
    tokenizer = load(coded.folder / "tokenizer")
    vectors = coded_vectors(work.inputs, stacked=tokenizer.traits.stacked)
    came = named(task)
    popularity = np.load(came[POPULARITY]) if POPULARITY in came else None
    return _settle(task, np.arange(len(codes)), codes, vectors.rows, popularity)


def _settle(
    task: Task,
    rows: Rows,
    codes: Codes,
    vectors: Callable[[Rows], Vectors],
    popularity: npt.NDArray[np.int64] | None,
) -> dict[str, Any]:
    """Resolve some items, (n,) `rows`, and send what came of it to the driver."""
    given: Given = task.params.given
    tokenizer = load(given.inputs["tokenize"].folder / "tokenizer")
    assert isinstance(tokenizer, Tokenizer)
    policy = policy_named(given.params.policy, given.params.params)
    done = resolve(codes, vectors, tokenizer, policy=policy, popularity=popularity)
    np.save(task.out / "settled.npy", _as_records(rows, done))
    task.emit(SETTLED, task.out / "settled.npy")
    for name, array in done.state.items():
        np.save(task.out / f"{name}.npy", array)
        task.emit(STATE, task.out / f"{name}.npy", name=name)
    return {"levels": list(done.levels), "duplicates": done.duplicates}


def _as_records(rows: Rows, done: Resolution) -> npt.NDArray[Any]:
    return _records(row=rows, sid=done.sids, slot=done.slots, moved=done.moved)


def _resolution(policy: Policy, length: int, records: npt.NDArray[Any], levels: Sequence[int]) -> Resolution:
    sids = np.ascontiguousarray(records["sid"])
    suffix = sids[:, length].copy() if policy.adds else None
    slots, moved = np.ascontiguousarray(records["slot"]), np.ascontiguousarray(records["moved"])
    return Resolution(sids, slots, moved, suffix, tuple(levels), {}, 0)


def _joined(n: int, policy: Policy, tokenizer: Tokenizer, made: Results, step: str) -> Resolution:
    parts: list[tuple[Rows, Resolution]] = []
    for path, told in zip(made.paths(SETTLED), made.of(step), strict=True):
        records = np.load(path)
        part = _resolution(policy, len(tokenizer.levels), records, told["levels"])
        parts.append((records["row"], replace(part, duplicates=told["duplicates"])))
    check_count("collisions", "items settled", n, sum(len(rows) for rows, _ in parts))
    state = {ref.name: np.load(ref.path) for ref in made.refs if ref.key == STATE}
    return replace(joined(n, parts), state=state)


# --- written


def _write(
    work: Work, shards: Shards, tokenizer: Tokenizer, done: Resolution, parted: Parted
) -> dict[str, dict[str, float] | None]:
    """Write table `sids` by ranges, and give what resolution cost."""
    path = _share(shards, RESOLVED, _as_records(np.arange(len(done.sids)), done))
    refs = [Ref(key, RESOLVED, str(path)) for key in _keys(parted.ranges)]
    made = shards.run("write-sids", refs, Step("write", write, parted))
    schema = named_sids(work.params.name)[0]
    check_count("collisions", "SIDs", len(done.sids), work.out.extend(schema, parts_of(made, schema)))
    blocks = [
        (ReconstructionTotal(**every), ReconstructionTotal(**fit))
        for told in made.of("write")
        for every, fit in told["errors"]
    ]
    return collisions.reconstruction_cost(blocks)


def write(task: Task) -> Mapping[str, Any]:
    """Write the SIDs of a range of items; facts: the error of each block of theirs."""
    work, edges = task.params.given.work(task), task.params.ranges[int(task.key)]
    [path] = task.paths
    first, stop = edges[0], edges[-1]
    coded = work.inputs["tokenize"]
    tokenizer = load(coded.folder / "tokenizer")
    assert isinstance(tokenizer, Tokenizer)
    policy = policy_named(work.params.policy, work.params.params)
    items = rows_between(coded.parts("codes"), ["item_index", "item_id", "codes", "fitted"], first, stop)
    records = np.load(path, mmap_mode="r")[first:stop]
    done = _resolution(policy, len(tokenizer.levels), records, task.params.levels)
    codes = matrix(items["codes"]).astype(np.int32, copy=False)
    schema = named_sids(work.params.name)[0]
    work.out.write(schema, collisions.sids_table(items, codes, done, Vocabulary(done.levels)))
    send_parts(task, schema)
    if not tokenizer.reconstructs:
        return {"errors": []}
    vectors = coded_vectors(work.inputs, stacked=tokenizer.traits.stacked)
    blocks = ((start - first, X) for start, X in vectors.between(edges))
    errors = collisions.errors_of(tokenizer, blocks, done.sids, items["fitted"].to_numpy())
    return {"errors": [(asdict(every), asdict(fit)) for every, fit in errors]}
