"""AlphaRec's own `AlphaRec_Data` on `sidmill export --format alpharec`.

    python benchmarks/readers/alpharec.py CHECKOUT EXPORT WAREHOUSE REF

From outside: matplotlib and the four modules under its model (abstract_model, abstract_RS, evaluator,
utils), which only training needs, are empty, and `reckit.randint_choice` is numpy's draw. Needs torch,
pandas, scipy and tqdm.
"""

import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np

from sid_warehouse.reader import open_warehouse

checkout, export, warehouse, ref = sys.argv[1:]
base = "models.General.base"
stubs = {
    "reckit": {"randint_choice": lambda high, size, exclusion: np.random.default_rng(0).choice(
        np.setdiff1d(np.arange(high), exclusion), size)},
    "matplotlib": {}, "matplotlib.pyplot": {},
    f"{base}.abstract_model": {"AbstractModel": object}, f"{base}.abstract_RS": {"AbstractRS": object},
    f"{base}.evaluator": {"ProxyEvaluator": object}, f"{base}.utils": {},
}  # fmt: skip
for name, members in stubs.items():
    sys.modules[name] = ModuleType(name)
    vars(sys.modules[name]).update(members)
sys.argv = ["main.py", "--rs_type", "General", "--model_name", "AlphaRec"]
sys.path.insert(0, checkout)
from models.General.AlphaRec import AlphaRec_Data  # noqa: E402

release = open_warehouse(warehouse).release(ref)
users = release.table("sequences", ["items"])["items"].to_pylist()
vectors = release.table("embeddings_text", ["vector"])["vector"].combine_chunks()
vectors = vectors.flatten().to_numpy().reshape(len(vectors), -1)
with tempfile.TemporaryDirectory() as root:
    Path(root, "General").mkdir()
    Path(root, "General", "ours").symlink_to(Path(export).resolve())
    given = {
        "data_path": f"{root}/General/",
        "dataset": "ours",
        "nodrop": False,
        "candidate": False,
        "batch_size": 64,
    }
    given |= {
        "neg_sample": 8,
        "cuda": "cpu",
        "model_name": "AlphaRec",
        "infonce": 1,
        "num_workers": 0,
        "lm_model": "v3",
    }
    data = AlphaRec_Data(SimpleNamespace(**given))
assert {u: set(items) for u, items in data.train_user_list.items()} == {
    u: set(row[:-2]) for u, row in enumerate(users)
}
assert data.valid_user_list == {u: row[-2:-1] for u, row in enumerate(users)}
assert data.test_user_list == {u: row[-1:] for u, row in enumerate(users)}
assert np.array_equal(data.item_cf_embeds, vectors)
means = np.stack([vectors[row[:-2]].mean(axis=0) for row in users])
assert np.allclose(data.user_cf_embeds, means, atol=1e-6)
batch = next(iter(data.train_loader))
edges = len(data.trainItem)
print(f"AlphaRec_Data: {data.n_users} users, {data.n_items} items, {edges} train edges; valid and test equal")
print(f"item_cf_embeds {data.item_cf_embeds.shape}: row i is item i; user_cf_embeds: means of train items")
print(f"train_loader: a batch of {len(batch[0])} with {batch[4].shape[1]} negatives each")
