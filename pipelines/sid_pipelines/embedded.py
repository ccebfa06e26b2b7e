"""Embedding tables as they are written: block by block, with what is odd about the vectors counted."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sid_pipelines.based import grown
from sid_pipelines.stage import Outcome, Work, count
from sid_schemas import DataError, embeddings_table
from sid_tokenizers.base import Vectors, content_hashes
from sid_warehouse.arrays import vectors_column
from sid_warehouse.stages import StageOutput

STAGES = ("embed_text", "embed_image", "embed_collaborative", "fuse")  # those that write such tables
ROWS = 65_536  # rows per block
Mask = npt.NDArray[np.bool_]


def write_embeddings(
    work: Work,
    *,
    name: str,
    dim: int,
    dtype: str,
    items: pa.Table,
    blocks: Iterable[tuple[Vectors, Mask]],
) -> dict[str, Any]:
    """Write `embeddings_<name>` and give what there is to say of it.

    dtype: "float32" or "float16". items: (item_index, item_id) of all items, or of the new ones where a base
    is gone on from. blocks: one after the other in item order, ((m, dim) float32, (m,) whether the item has
    this modality). Zero and duplicate vectors are
    counted over the items that have it, as they are stored. Raises DataError for a number that is not
    finite, or too large for float16, naming the item.
    """
    tally = Tally(f"embeddings_{name}", dim, dtype)
    table, batches, base = (
        embeddings_table(name, dim, dtype),
        _batches(items, blocks, tally),
        work.inputs.get("base"),
    )
    if base:
        work.out.extend(table, base.parts(table.name), batches)
    else:
        work.out.write(table, batches)
    if tally.rows != len(items):
        raise AssertionError(f"{tally.name}: {tally.rows} vectors for {len(items)} items")
    return grown(base, table.name, tally.facts()) if base else tally.facts()


def carried(work: Work, name: str) -> Outcome:
    """Take an embedding and its further tables over from the base, where no item is new."""
    facts: dict[str, Any] = work.inputs["base"].facts["embeddings"][f"embeddings_{name}"]
    for one in (facts, *facts.get("further", [])):
        table = embeddings_table(one["name"].removeprefix("embeddings_"), one["dim"], one["dtype"])
        work.out.extend(table, work.inputs["base"].parts(table.name))
    return Outcome({**facts, "added": 0}, f"nothing new; {count(facts['items'], 'vector')} as published")


def nothing_new(work: Work, rows: int) -> bool:
    """Say whether a base is gone on from and no item is new."""
    return "base" in work.inputs and not rows


@dataclass
class Tally:
    """What is counted of the vectors of one table."""

    name: str
    dim: int
    dtype: str
    rows: int = 0
    present: int = 0
    zero: int = 0
    hashes: list[npt.NDArray[np.uint64]] = field(default_factory=list)

    def add(self, vectors: Vectors, present: Mask) -> None:
        """Count one block, as it is stored: (m, dim), (m,)."""
        self.rows += len(vectors)
        self.present += int(present.sum())
        self.zero += int((~vectors[present].any(axis=1)).sum())
        self.hashes.append(content_hashes(np.ascontiguousarray(vectors[present], dtype=np.float32)))

    def facts(self) -> dict[str, Any]:
        """Give the counts under the names that metrics and the report use."""
        hashes = np.concatenate(self.hashes) if self.hashes else np.empty(0, dtype=np.uint64)
        return {
            "name": self.name,
            "dim": self.dim,
            "dtype": self.dtype,
            "items": self.rows,
            "present": self.present,
            "missing": self.rows - self.present,
            "zero_vectors": self.zero,
            "duplicate_vectors": len(hashes) - len(np.unique(hashes)),
        }


def _batches(
    items: pa.Table, blocks: Iterable[tuple[Vectors, Mask]], tally: Tally
) -> Iterator[pa.RecordBatch]:
    for vectors, present in blocks:
        start = tally.rows
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(vectors, dtype=tally.dtype)
        _check_finite(stored, vectors, items["item_id"].slice(start, len(stored)), tally.name)
        tally.add(stored, present)
        columns = {column: items[column].slice(start, len(stored)) for column in ("item_index", "item_id")}
        columns |= {"vector": vectors_column(stored), "present": pa.array(present)}
        yield from pa.table(columns).combine_chunks().to_batches()


def _check_finite(stored: Vectors, given: Vectors, item_ids: pa.ChunkedArray, table: str) -> None:
    bad = np.flatnonzero(~np.isfinite(stored).all(axis=1))
    if not len(bad):
        return
    if np.isfinite(given[bad[0]]).all():
        problem, advice = "does not fit into float16", "Set dtype = 'float32'"
    else:
        problem, advice = "holds NaN or infinity", "Check the encoder and its precision"
    raise DataError(
        f"{table}: the vector of item {item_ids[bad[0]].as_py()!r} {problem}, one of {len(bad):,} "
        f"in its block; expected finite numbers. {advice}"
    )


def embeddings_of(outputs: Mapping[str, StageOutput]) -> dict[str, StageOutput]:
    """Give the outputs that hold embedding tables, by their label in the plan, in its order."""
    return {label: output for label, output in outputs.items() if output.manifest["stage"] in STAGES}


def tables_of(output: StageOutput) -> list[str]:
    """Give the names of the embedding tables that an output holds, its main one first."""
    main = output.facts["name"]
    further = [name for name in output.manifest["rows"] if name.startswith("embeddings_") and name != main]
    return [main, *further]
