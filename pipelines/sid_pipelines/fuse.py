"""Fuse: one vector of several embeddings, learned on items with a train event, made block by block.

The methods are in fusion/; this file reads what they need, and writes what they make, with what there is to
know of it: which items have which modality, what was fitted on, and the fitted transform for appends.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sid_pipelines.based import base_rows
from sid_pipelines.catalogue import train_events
from sid_pipelines.embedded import ROWS, write_embeddings
from sid_pipelines.fusion import MAIN, Fitted, Fusion, Modality, fusion_named, load_fusion
from sid_pipelines.fusion.inputs import Mask, Rows, any_there
from sid_pipelines.stage import Outcome, Stage, Work, count
from sid_pipelines.tokenize import train_items
from sid_pipelines.vectors import StoredVectors
from sid_schemas import DataError
from sid_schemas.tables import ITEM_PAIRS
from sid_tokenizers.base import Vectors
from sid_warehouse.db import connect
from sid_warehouse.stages import StageOutput

NAME = "fused"


@dataclass(frozen=True)
class FuseParams:
    """What fuse depends on: the method, its options, and the names of the embeddings, in order."""

    method: str
    options: Mapping[str, Any]
    inputs: tuple[str, ...]


def run(work: Work) -> Outcome:
    """Write `embeddings_fused`, what further tables the method gives beside it, and `fusion/`.

    The inputs are the roles `embed:<name>`. A fusion is fitted on vectors of items that have the modality.
    What the `missing` rule of an embedding put in place of others' vectors is used where they are fused;
    a vector of zeros counts as none. `present` is false for an item that has no modality of its own.
    """
    params: FuseParams = work.params
    fusion = fusion_named(params.method)(**params.options)
    base = work.inputs.get("base")
    outputs = {name: work.inputs[f"embed:{name}"] for name in params.inputs}
    inputs = {name: _modality(output) for name, output in outputs.items()}
    n = len(next(iter(inputs.values())).present)
    old = base_rows(work, f"embeddings_{NAME}")
    if base:
        fitted = load_fusion(base.folder / "fusion")
    else:
        with connect(spill=work.out.spill, memory=work.resources.duckdb) as connection:
            train = train_items(connection, work.inputs["split"], n)
        events = train_events(work.inputs["split"], n) if fusion.needs_events else None
        fitted = fusion.fit(inputs, train, _pairs(work, fusion), events)
    fitted.save(work.out.folder / "fusion")

    first = next(iter(outputs.values()))
    items = first.read(first.facts["name"], ["item_index", "item_id"]).slice(old)
    facts: dict[str, Any] = {}
    for table, dim in fitted.widths.items():
        facts[table] = write_embeddings(
            work,
            name=f"{NAME}_{table}" if table else NAME,
            dim=dim,
            dtype="float32",
            items=items,
            blocks=_fused(fitted, inputs, table, work, old),
        )
    main = facts.pop(MAIN)
    coverage = _coverage({name: one.present for name, one in inputs.items()})
    facts = {
        **main,
        "modality": NAME,
        "method": params.method,
        "params": fusion.params(),
        "missing_rule": "mask",
        "inputs": {
            name: {
                "modality": one.kind,
                "dim": one.vectors.dim,
                "present": int(one.present.sum()),
                "coverage": float(one.present.mean()) if n else 0.0,
                "parent": outputs[name].manifest["key"],
            }
            for name, one in inputs.items()
        },
        "items_with": coverage,
        **fitted.facts,
        "further": list(facts.values()),
    }
    shares = ", ".join(f"{name} {one['coverage']:.1%}" for name, one in facts["inputs"].items())
    without = f", {count(main['missing'], 'item')} without any" if main["missing"] else ""
    return Outcome(
        facts,
        f"{params.method} of {shares} into {main['dim']} numbers, "
        f"fitted on {count(fitted.facts['fit_items'], 'item')}{without}",
    )


def _modality(output: StageOutput) -> Modality:
    vectors = StoredVectors.of(output)
    return Modality(vectors, vectors.present, output.manifest["stage"].removeprefix("embed_"))


def _pairs(work: Work, fusion: Fusion) -> Rows | None:
    """Give the pairs of the kinds that the fusion names, or None where it needs none: (p, 2)."""
    if not fusion.needs_pairs:
        return None
    output = work.inputs["pairs"]
    if ITEM_PAIRS.name not in output.manifest["rows"]:
        return None
    table = output.read(ITEM_PAIRS.name, ["item_index", "other_index", "kind"])
    there = sorted(table["kind"].unique().to_pylist())
    wanted = list(getattr(fusion, "kinds", ()))
    for kind in wanted:
        if kind not in there:
            listed = ", ".join(there) or "none"
            raise DataError(f"fuse: kinds: item_pairs has no kind {kind!r}; there are: {listed}")
    if wanted:
        table = table.filter(pc.is_in(table["kind"], pa.array(wanted)))
    ends = [table[name].to_numpy().astype(np.int64) for name in ("item_index", "other_index")]
    return np.stack(ends, axis=1)


def _fused(
    fitted: Fitted, inputs: Mapping[str, Modality], table: str, work: Work, first: int
) -> Iterator[tuple[Vectors, Mask]]:
    n = len(next(iter(inputs.values())).present)
    for start in range(first, n, ROWS):
        wanted = np.arange(start, min(start + ROWS, n))
        blocks = {name: one.vectors.rows(wanted) for name, one in inputs.items()}
        there = {name: np.asarray(block.any(axis=1)) for name, block in blocks.items()}
        vectors, made = fitted.tables(blocks, there, wanted)[table]
        real = any_there({name: one.present[wanted] for name, one in inputs.items()})
        if table == MAIN:
            work.progress(start + len(wanted), n)
        yield vectors, made & real


def _coverage(present: Mapping[str, Mask]) -> dict[str, int]:
    """Give how many items have each combination of modalities, such as "text+image"; "none" for none.

    >>> _coverage({"text": np.array([True, True]), "image": np.array([False, True])})
    {'text': 1, 'text+image': 1}
    """
    names = list(present)
    codes = np.zeros(len(present[names[0]]), dtype=np.int64)
    for place, name in enumerate(names):
        codes += present[name].astype(np.int64) << place
    numbers, counts = np.unique(codes, return_counts=True)
    return {
        "+".join(name for place, name in enumerate(names) if number >> place & 1) or "none": int(items)
        for number, items in zip(numbers, counts, strict=True)
    }


STAGE = Stage("fuse", revision=5, parents=("split",), run=run)
