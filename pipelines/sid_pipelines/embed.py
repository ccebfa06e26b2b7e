"""Embed: one vector per item, each distinct text once."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from sid_pipelines.encoders import TextEncoder
from sid_pipelines.stage import Outcome, Stage, Work, count
from sid_schemas import DataError, embeddings_table
from sid_tokenizers.base import Vectors
from sid_warehouse.arrays import vectors_column


@dataclass(frozen=True)
class EmbedParams:
    """What embed depends on: the modality, and the encoder's name and weights."""

    modality: str
    model: str
    weights: str  # SHA-256 over the model's files
    folder: str = field(metadata={"keyed": False})


def run(work: Work) -> Outcome:
    """Write `embeddings_<modality>`: unit vectors, float32."""
    params: EmbedParams = work.params
    texts = work.inputs["text"].read("texts")
    strings = texts["text"].to_pylist()
    if missing := sum(not text for text in strings):
        item = texts["item_id"][strings.index("")].as_py()
        raise DataError(
            f"embed: {count(missing, 'item')} without any text, the first is item {item!r}; "
            "expected text for every item. Add a field to [[embed]] template, leave such items out with "
            '[clean] require = ["title"], or stop before with --until sequences'
        )
    encoder = TextEncoder(params.model, Path(params.folder))
    vectors = encoder.encode(strings, work.progress)
    table = embeddings_table(params.modality, vectors.shape[1])
    work.out.write(table, _as_arrow(texts, vectors))
    facts = {
        "name": table.name,
        "model": params.model,
        "weights": params.weights,
        "dim": vectors.shape[1],
    }
    return Outcome(facts, f"{count(len(vectors), 'vector')} of {vectors.shape[1]} numbers")


def _as_arrow(texts: pa.Table, vectors: Vectors) -> pa.Table:
    columns = {name: texts[name] for name in ("item_index", "item_id")}
    columns |= {
        "vector": vectors_column(vectors),
        "present": pa.array(np.ones(len(vectors), dtype=bool)),
    }
    return pa.table(columns)


STAGE = Stage("embed", revision=3, parents=("text",), run=run, needs=("sentence_transformers", "text"))
