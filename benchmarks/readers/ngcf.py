"""NGCF's own `Data` on `sidmill export --format ngcf`.

    python benchmarks/readers/ngcf.py CHECKOUT EXPORT WAREHOUSE REF

Reads, builds the matrices and draws a batch as it is; the model wants TensorFlow 1.
"""

import shutil
import sys
import tempfile

from sid_warehouse.reader import open_warehouse

checkout, export, warehouse, ref = sys.argv[1:]
sys.path.insert(0, f"{checkout}/NGCF")
from utility.load_data import Data  # noqa: E402

release = open_warehouse(warehouse).release(ref)
events = release.table("interactions", ["user_index", "item_index", "split"]).to_pylist()
edges = {(one["user_index"], one["item_index"]) for one in events if one["split"] == "train"}
tests = {(one["user_index"], one["item_index"]) for one in events if one["split"] == "test"}

with tempfile.TemporaryDirectory() as folder:
    shutil.copytree(export, folder, dirs_exist_ok=True)  # it writes matrices there
    data = Data(folder, 256)
    matrix, _, _ = data.get_adj_mat()
assert {(user, item) for user, items in data.train_items.items() for item in items} == edges
assert {(user, item) for user, items in data.test_set.items() for item in items} == tests
rows, columns = matrix[: data.n_users, data.n_users :].nonzero()
assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == edges
users, positives, negatives = data.sample()
assert all((user, item) in edges for user, item in zip(users, positives, strict=True))
assert not any((user, item) in edges for user, item in zip(users, negatives, strict=True))
print(f"Data: {data.n_users} users, {data.n_items} items, {data.n_train} train, {data.n_test} test")
print(f"adjacency: {matrix.shape}, its {len(rows)} edges are the release's train events, and no other")
print(f"sample: {len(users)} users, positives are train events, negatives are not")
