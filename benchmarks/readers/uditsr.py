"""UDITSR's own `load_data` and `Dataset` on `sidmill export --format uditsr`.

    python benchmarks/readers/uditsr.py CHECKOUT EXPORT WAREHOUSE REF

Stubbed: dgl, of which only the model's graph is made. From outside: `np.Inf`, which NumPy 2 lacks. Needs
torch, pandas and scikit-learn.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import numpy as np

from sid_warehouse.reader import open_warehouse

checkout, export, warehouse, ref = sys.argv[1:]
sys.argv = sys.argv[:1]
sys.path.insert(0, checkout)
sys.modules["dgl"] = ModuleType("dgl")
np.Inf = np.inf  # as NumPy below 2 has it
from conf import Config  # noqa: E402
from utils import Dataset, load_data  # noqa: E402

release = open_warehouse(warehouse).release(ref)
events = release.table("interactions").to_pylist()
words = json.loads(Path(export, "words.json").read_text())
with tempfile.TemporaryDirectory() as folder:
    shutil.copytree(export, folder, dirs_exist_ok=True)
    config = Config()
    for name in ("train_data", "valid_data", "test_data"):
        setattr(config, f"{name}_path", f"{folder}/{name}.csv")
    for name in ("user2item", "item2query", "user2query"):
        setattr(config, f"{name}_path", f"{folder}/{name}.pkl")
    config.item_num, config.device = int(release.record["rows"]["items"]), "cpu"
    *read, _ = load_data(config)
    batch = Dataset(config, read[0]).next_batch()
for split, rows in zip(("train", "valid", "test"), read, strict=True):
    held = [one for one in events if one["split"] == split]
    positive = [row for row in rows if row[4] == 1]
    for (user, query, item, _, _, kind, *_), one in zip(positive, held, strict=True):
        assert (user, item) == (one["user_index"], one["item_index"])
        assert kind == bool(one["query"]) == bool(query)
        assert max(query, default=0) < len(words)
    searches = sum(row[5] for row in positive)
    print(f"{split}: {len(held):,} positives, {searches:,} of them searches, {len(rows):,} rows")
print("a batch: " + ", ".join(f"{name} {tuple(one.shape)}" for name, one in batch.items()))
