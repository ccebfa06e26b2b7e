"""The data sets of generative-recommenders on `sidmill export --format hstu`.

    python benchmarks/readers/hstu.py CHECKOUT EXPORT WAREHOUSE REF [ml-1m | ml-20m | amzn-books]

Runs `get_reco_dataset` as its trainer does, in the export's folder. From outside only the counts are set
which the README of the export has one put into `preprocessor.py`. Needs torch and pandas.
"""

import os
import sys
from pathlib import Path

import numpy as np

from sid_warehouse.reader import open_warehouse

checkout, export, warehouse, ref, *name = sys.argv[1:]
name = name[0] if name else "ml-20m"
release = open_warehouse(warehouse).release(ref)
sequences = release.table("sequences").to_pylist()
n_items = release.record["rows"]["items"]
sys.path.insert(0, str(Path(checkout).resolve()))
os.chdir(export)
from generative_recommenders.research.data import reco_dataset  # noqa: E402

made = reco_dataset.get_common_preprocessors


def with_counts() -> dict:
    """Give the trainer's own preprocessors, with the counts of this release."""
    found = made()
    found[name]._expected_num_unique_items = n_items
    found[name]._expected_max_item_id = n_items
    return found


reco_dataset.get_common_preprocessors = with_counts
LENGTH = 200
data = reco_dataset.get_reco_dataset(name, max_sequence_length=LENGTH, chronological=True)
assert data.max_item_id == n_items
assert data.all_item_ids == list(range(1, n_items + 1))
for split, dataset, ends in (("train", data.train_dataset, -1), ("eval", data.eval_dataset, None)):
    assert len(dataset) == len(sequences)
    for row, stored in zip(dataset, sequences, strict=False):
        n = int(row["history_lengths"])
        for column, start in (("ids", "items"), ("ratings", "value"), ("timestamps", "ts")):
            whole = np.array(stored[start][:ends])
            whole = {"ids": whole + 1, "ratings": whole.astype(int), "timestamps": whole // 1000}[column]
            assert row[f"historical_{column}"][:n].tolist() == whole[-LENGTH - 1 : -1][-LENGTH:].tolist()
            assert row[f"target_{column}"] == whole[-1]
        assert row["user_id"] == stored["user_index"]
    print(f"{split}: {len(dataset):,} users; histories, targets, values and times those of the release")
print(f"items: {data.num_unique_items:,}, numbers 1 to {data.max_item_id:,}")
