"""Soft codes: of every item and level the likeliest codes with their probabilities, as table `soft_sids`.

They are the tokenizer's, before collisions are resolved: an item that was moved has another hard code.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from sid_pipelines.based import base_rows, write_grown
from sid_pipelines.stage import Work
from sid_pipelines.vectors import Stored, blocks_from
from sid_schemas.tables import SOFT_SIDS
from sid_tokenizers import Tokenizer
from sid_tokenizers.base import Vectors
from sid_warehouse.arrays import codes_column


def soft_facts(tokenizer: Tokenizer, top: int, temperature: float) -> dict[str, Any] | None:
    """Give what the probabilities depend on, or None where none are asked for.

    temperature: 0 for the one that the tokenizer was trained at, where it has one, else 1.
    """
    if not top:
        return None
    return {"top": top, "temperature": temperature or tokenizer.soft_temperature}


def write_soft(work: Work, tokenizer: Tokenizer, vectors: Stored, facts: Mapping[str, Any]) -> None:
    """Write `soft_sids`, of new items behind those of the base; see `soft_rows`."""
    blocks = blocks_from(vectors, base_rows(work, "sids"))
    write_grown(work, SOFT_SIDS, soft_rows(tokenizer, blocks, facts))


def soft_rows(
    tokenizer: Tokenizer, blocks: Iterable[tuple[int, Vectors]], facts: Mapping[str, Any]
) -> Iterator[pa.RecordBatch]:
    """Give one row for each item and level, of blocks of (first item, vectors).

    facts: as `soft_facts` gives them. Raises DataError where `top` is too large.
    """
    for start, X in blocks:
        codes, shares = tokenizer.encode_soft(X, facts["top"], temperature=facts["temperature"])
        n, length, top = codes.shape
        columns = {
            "item_index": pa.array(np.repeat(np.arange(start, start + n, dtype=np.int32), length)),
            "level": pa.array(np.tile(np.arange(1, length + 1, dtype=np.int32), n)),
            "codes": codes_column(codes.reshape(-1, top)),
            "probabilities": pa.ListArray.from_arrays(
                pa.array(np.arange(n * length + 1, dtype=np.int32) * top),
                pa.array(shares.reshape(-1)),
            ),
        }
        yield from pa.table(columns).to_batches()
