"""Don't Waste It's own `InteractionData` on `sidmill export --format human-priors`.

    python benchmarks/readers/human_priors.py CHECKOUT EXPORT WAREHOUSE REF

Its `dataload.py` is loaded from its file. Stubbed: what that imports of its package REC (images, parallel
training, lists that several processes share, colours of its log) and torch_geometric. Needs torch, polars,
pandas and scikit-learn.
"""

import importlib.util
import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

from sid_warehouse.reader import open_warehouse

checkout, export, warehouse, ref = sys.argv[1:]
release = open_warehouse(warehouse).release(ref)
name = release.record["dataset"]
root = Path(checkout, "code", "REC")
for module in ("REC", "REC.data", "REC.utils", "REC.data.shareables", "REC.data.comm", "torch_geometric"):
    sys.modules[module] = MagicMock()
for module in ("REC.data.qwen_vl_utils", "REC.llm_dict", "torch_geometric.utils"):
    sys.modules[module] = MagicMock()
sys.modules["REC.data.shareables"].SharedList = list
sys.modules["REC.data.comm"].get_local_rank = lambda: 0
sys.modules["REC"].data, sys.modules["REC.data"].comm = sys.modules["REC.data"], sys.modules["REC.data.comm"]
sys.modules["REC.utils"].set_color = lambda text, _: text


def load(called: str, path: Path) -> ModuleType:
    """Import a file under a name of its own."""
    spec = importlib.util.spec_from_file_location(called, path)
    assert spec
    assert spec.loader
    sys.modules[called] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


load(f"REC.data.{name}_tag_dict", Path(export, f"{name}_tag_dict.py"))
loader = load("REC.data.dataload", root / "data" / "dataload.py")
config: dict[str, object] = defaultdict(lambda: None)
config |= {
    "pred_len": 1,
    "eval_pred_len": 1,
    "MAX_ITEM_LIST_LENGTH": 50,
    "dataset": name,
    "category_by": "item",
}
config |= {"eval_num_cats": 17, "tag_version": "v1", "timestamp_required": True}
config |= {"data_path": f"{export}/dataset", "text_path": f"{export}/information/{name}.parquet"}
config |= {"text_keys": ["title", "category_name", "brand_name"], "use_image": False}
heads = sys.modules[f"REC.data.{name}_tag_dict"].tag_to_general["v1"]
config["eval_num_cats"] = len(heads["category_counts"])
data = loader.InteractionData(config)
data.build()

ids = release.table("items", ["item_id"])["item_id"].to_pylist()
sequences = release.table("sequences", ["items", "ts"]).to_pylist()
assert data.id2token["item_id"] == ["[PAD]", *sorted({ids[i] for one in sequences for i in one["items"]})]
number = {one: n for n, one in enumerate(data.id2token["item_id"])}
kept = [one for one in sequences if len(one["items"]) > 2]
assert data.user_seq[1:] == [[number[ids[i]] for i in one["items"]] for one in kept]
assert data.time_seq[1:] == [[ts // 1000 for ts in one["ts"]] for one in kept]
print(
    f"InteractionData: {data.user_num - 1:,} users, {data.item_num - 1:,} items, {data.interact_num:,} events"
)
told = [sum(one["tag_category"]) for one in data.item_to_info[1:]]
assert told == [1] * (data.item_num - 1)
counts = heads["category_counts"]
print(f"{len(counts)} heads, each item in one; train events {sum(counts.values()):,}")
