"""Tokenize by ranges of items: one task fits the scheme, all others code with its frozen codebooks.

    fit (one task) -> encode (a task for some blocks of vectors) -> codes, soft codes, what blocks add up to

Ranges are made of the local stage's own blocks, so that sums of floats are the same. A scheme that is no
Tokenizer sees the whole catalogue at once: it runs where the flow runs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from sid_pipelines import tokenize
from sid_pipelines.sharded.given import Given
from sid_pipelines.sharded.job import ALL, Ref, Results, Step, Task
from sid_pipelines.sharded.passing import named
from sid_pipelines.sharded.shards import Shards, numbered
from sid_pipelines.sharded.slices import rows_between
from sid_pipelines.sharded.tables import check_count, parts_of, send_parts
from sid_pipelines.soft import soft_facts, soft_rows
from sid_pipelines.stage import Outcome, Work
from sid_pipelines.vectors import coded_vectors
from sid_schemas.tables import CODES, SOFT_SIDS
from sid_tokenizers import Tokenizer, load, tokenizer_named
from sid_tokenizers.metrics import ReconstructionTotal
from sid_warehouse import parquet
from sid_warehouse.arrays import matrix

ITEMS = 1 << 18  # of a shard, about
TOKENIZER, HASHES = "tokenizer", "hashes"  # keys of what the driver takes
Ranges = Sequence[Sequence[int]]  # of each task, the edges of its blocks of vectors


@dataclass(frozen=True)
class Parted:
    """What the tasks know: of the stage, and the ranges of all of them."""

    given: Given
    ranges: Ranges


def run(work: Work, shards: Shards) -> Outcome:
    """Write what the local stage writes."""
    params: tokenize.TokenizeParams = work.params
    scheme = tokenizer_named(params.tokenizer)(**params.params)
    if not isinstance(scheme, Tokenizer):
        return tokenize.run(work)
    vectors = coded_vectors(work.inputs, stacked=scheme.traits.stacked)
    ranges = ranges_of(vectors.edges(), shards.number(len(vectors), ITEMS))
    parted = Parted(Given.of(work), ranges)
    steps = Step("fit", fit, parted), Step("encode", encode, parted)
    made = shards.run("tokenize", [Ref(ALL, ALL)], *steps)
    return _joined(work, made, len(vectors))


def ranges_of(edges: Sequence[int], number: int) -> list[tuple[int, ...]]:
    """Cut blocks into at most `number` runs of about as many each; gives each run's edges.

    >>> ranges_of([0, 10, 20, 25], 2)
    [(0, 10, 20), (20, 25)]
    """
    blocks = len(edges) - 1
    cuts = np.unique(np.linspace(0, blocks, min(number, blocks) + 1).round().astype(int)).tolist()
    return [tuple(edges[first : last + 1]) for first, last in pairwise(cuts)]


def fit(task: Task) -> Mapping[str, Any]:
    """Fit the scheme as the local stage does, and send it to all ranges with the items it was fitted on."""
    work = task.params.given.work(task)
    scheme = tokenizer_named(work.params.tokenizer)(**work.params.params)
    vectors = coded_vectors(work.inputs, stacked=scheme.traits.stacked)
    scope = tokenize.scope_of(work, scheme, len(vectors))
    sha256 = tokenize.fit_scheme(scheme, vectors, tokenize.about_items(work, scheme), scope.rows)
    scheme.save(task.out / TOKENIZER)
    np.save(task.out / "fitted.npy", scope.mask(len(vectors)))
    saved = sorted((task.out / TOKENIZER).iterdir())
    for number in range(len(task.params.ranges)):
        for path in (*saved, task.out / "fitted.npy"):
            task.emit(numbered(number), path, name=path.name)
    return scope.facts(sha256)


def encode(task: Task) -> Mapping[str, Any]:
    """Code a range with the tokenizer as it was saved; facts: what each block adds to the sums."""
    work, edges = task.params.given.work(task), task.params.ranges[int(task.key)]
    came = named(task)
    tokenizer, fitted = load(came["tokenizer.json"].parent), np.load(came["fitted.npy"], mmap_mode="r")
    assert isinstance(tokenizer, Tokenizer)
    vectors = coded_vectors(work.inputs, stacked=tokenizer.traits.stacked)
    blocks, hashes = [], []

    def coded() -> Iterator[tokenize.CodedBlock]:
        for block in tokenize.code_blocks(tokenizer, vectors.between(edges), fitted):
            blocks.append({name: asdict(total) for name, total in block.errors.items()})
            hashes.append(block.hashes)
            yield block

    embedded, first = work.inputs["vectors"], edges[0]
    items = rows_between(embedded.parts(embedded.facts["name"]), ["item_index", "item_id"], first, edges[-1])
    work.out.write(CODES, tokenize.code_rows(items, coded(), fitted, work.progress, first=first))
    send_parts(task, CODES)
    np.save(task.out / "hashes.npy", np.concatenate(hashes))
    task.emit(HASHES, task.out / "hashes.npy")
    if soft := soft_facts(tokenizer, work.params.soft, work.params.temperature):
        work.out.write(SOFT_SIDS, soft_rows(tokenizer, vectors.between(edges), soft))
        send_parts(task, SOFT_SIDS)
    if task.key == numbered(0):
        for name, path in came.items():
            if path.parent.name == TOKENIZER:
                task.emit(TOKENIZER, path, name=name)
    return {"edges": edges, "errors": blocks}


def _joined(work: Work, made: Results, count: int) -> Outcome:
    """Write the tables of so many items from their parts, and give the facts from what was counted."""
    params: tokenize.TokenizeParams = work.params
    folder = work.out.folder / TOKENIZER
    folder.mkdir()
    for path in made.paths(TOKENIZER):
        parquet.link(path, folder / path.name)
    tokenizer = load(folder)
    assert isinstance(tokenizer, Tokenizer)
    check_count("tokenize", "codes", count, work.out.extend(CODES, parts_of(made, CODES)))
    if params.soft:
        rows = work.out.extend(SOFT_SIDS, parts_of(made, SOFT_SIDS))
        check_count("tokenize", "soft codes", count * len(tokenizer.levels), rows)
    table = parquet.read(work.out.folder, CODES.name, ["codes", "fitted"])
    codes, fitted = matrix(table["codes"]).astype(np.int32, copy=False), table["fitted"].to_numpy()
    hashes = np.concatenate([np.load(path) for path in made.paths(HASHES)])
    coded = tokenize.Coded(len(codes), len(tokenizer.levels))
    for told in made.of("encode"):
        for (first, stop), errors in zip(pairwise(told["edges"]), told["errors"], strict=True):
            totals = {name: ReconstructionTotal(**total) for name, total in errors.items()}
            coded.keep(tokenize.CodedBlock(first, codes[first:stop], hashes[first:stop], totals))
    facts = coded.facts(tokenizer, fitted)
    facts["soft"] = soft_facts(tokenizer, params.soft, params.temperature)
    occupancy = tokenize.occupancy_of(codes[fitted], tokenizer)
    [fit_facts] = made.of("fit")
    return tokenize.finished(work, tokenizer, fit_facts, facts, codes, fitted, occupancy)
