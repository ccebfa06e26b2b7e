"""The Mult-VAE notebook's own loading cells on `sidmill export --format mult-vae`.

    python benchmarks/readers/mult_vae.py CHECKOUT EXPORT WAREHOUSE REF

Runs the four cells under "Load the pre-processed training and validation data" and the one that loads the
test data, as they stand in the notebook; the models want TensorFlow 1.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from sid_warehouse.reader import open_warehouse

checkout, export, warehouse, ref = sys.argv[1:]
release = open_warehouse(warehouse).release(ref)
cells = json.loads(Path(checkout, "VAE_ML20M_WWW2018.ipynb").read_text())["cells"]
sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
names = {"os": os, "np": np, "pd": pd, "sparse": sparse, "pro_dir": f"{export}/pro_sg"}
wanted = (
    "unique_sid = list()",
    "def load_train_data",
    "train_data = load",
    "def load_tr_te",
    "vad_data_tr, vad",
    "test_data_tr, test",
)
for start in wanted:
    [cell] = [source for source in sources if source.startswith(start)]
    exec(compile(cell, start, "exec"), names)

ids = release.table("items", ["item_id"])["item_id"].to_pylist()
user_ids = release.table("users", ["user_id"])["user_id"].to_pylist()
had = {}
for one in release.table("interactions", ["user_index", "item_index", "split"]).to_pylist():
    had.setdefault(user_ids[one["user_index"]], {}).setdefault(one["split"], set()).add(
        ids[one["item_index"]]
    )
order = Path(export, "pro_sg", "unique_uid.txt").read_text().splitlines()
columns = names["unique_sid"]
start = 0
for name, fold, held, matrix in (
    ("train", "train", None, "train"),
    ("valid", "context", "valid", "vad"),
    ("test", "context", "test", "test"),
):
    parts = (
        [names[f"{matrix}_data"]]
        if held is None
        else [names[f"{matrix}_data_tr"], names[f"{matrix}_data_te"]]
    )
    for row in range(parts[0].shape[0]):
        mine = had[order[start + row]]
        read = [{columns[column] for column in part[row].indices} for part in parts]
        known = mine[fold] & set(columns)
        assert read[0] == known
        assert held is None or read[1] == (mine[held] & set(columns)) - known != set()
    assert max(part.max() for part in parts) == 1
    start += parts[0].shape[0]
    print(f"{name}: " + ", ".join(f"{part.shape}, {part.nnz} ones" for part in parts))
assert len(set(order)) == start == len(order)
print("users of the three parts are disjoint; nothing predicted folds in; columns are the items that train")
