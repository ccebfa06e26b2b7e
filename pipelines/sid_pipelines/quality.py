"""Quality: are items that are alike near each other by SID? By vectors, by users in training, by category."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from sid_pipelines.vectors import StoredVectors
from sid_tokenizers.base import Codes
from sid_tokenizers.metrics import purity_by_prefix
from sid_tokenizers.neighbours import (
    cooccurrence_neighbours,
    cosine_neighbours,
    mean_share,
    overlap_by_query,
    sample_rows,
)
from sid_warehouse.db import scan
from sid_warehouse.stages import StageOutput

TOP = 10


def judge(
    sids: Codes,
    vectors: StoredVectors,
    fitted: npt.NDArray[np.bool_],
    connection: duckdb.DuckDBPyConnection,
    split: StageOutput,
    items: Sequence[Path],
    *,
    ordered: bool,
    queries: npt.NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """Give neighbour overlaps at 10, for all items and for those fitted on, and purity by prefix.

    sids: (n, W), -1 where there is no digit. items: the parts of a table of all items. queries: the items
    that neighbours are judged on; at most 2,000, seeded, where none are given.
    Category is the first entry of an item's category path; without order there are no prefixes to judge.
    """
    queries = sample_rows(len(sids)) if queries is None else queries
    cosine = cosine_neighbours(vectors.blocks(), queries, vectors.rows(queries), top=TOP)
    events = connection.sql(f"""
        select user_index, item_index from {scan(split.parts("interactions"))}
        where split = 'train'""").fetchnumpy()
    users, seen = (np.asarray(events[name], dtype=np.int64) for name in ("user_index", "item_index"))
    shared = cooccurrence_neighbours(users, seen, len(sids), queries, top=TOP)
    labels = connection.sql(f"""
        select coalesce(dense_rank() over (order by category_path[1] nulls last), 0)::bigint
            * (category_path[1] is not null)::int - 1 as label
        from {scan(items)} order by item_index""").fetchnumpy()["label"]
    labels = np.asarray(labels, dtype=np.int64)
    by_cosine = overlap_by_query(sids, cosine, ordered=ordered)
    by_users = overlap_by_query(sids, shared, ordered=ordered)
    inside = fitted[queries]
    return {
        "neighbour_overlap_at_10": mean_share(by_cosine),
        "neighbour_overlap_at_10_fit": mean_share(by_cosine[inside]),
        "cf_neighbour_overlap_at_10": mean_share(by_users),
        "cf_neighbour_overlap_at_10_fit": mean_share(by_users[inside]),
        "category_purity": purity_by_prefix(sids, labels) if ordered else [],
        "category_purity_fit": purity_by_prefix(sids[fitted], labels[fitted]) if ordered else [],
    }
