"""FINN.no's own `load_dataloaders` on `sidmill export --format slates`.

    python benchmarks/readers/finn_slates.py CHECKOUT EXPORT WAREHOUSE REF

From outside: its download of FINN.no's own files, which would replace these, does nothing, and gdown, which
it imports for that, is empty. Needs torch.
"""

import sys
from collections import defaultdict
from types import ModuleType

from sid_warehouse.reader import open_warehouse

checkout, export, warehouse, ref = sys.argv[1:]
sys.path.insert(0, checkout)
sys.modules["gdown"] = ModuleType("gdown")
from recsys_slates_dataset import data_helper, dataset_torch  # noqa: E402

data_helper.download_data_files = lambda **_: None
names, attributes, loaders = dataset_torch.load_dataloaders(
    export, valid_pct=0.25, test_pct=0.25, t_testsplit=1
)

release = open_warehouse(warehouse).release(ref)
lists = defaultdict(list)
for row in release.table("impressions").to_pylist():
    lists[row["user_index"]].append(row)
data = loaders["train"].dataset
for k, user in enumerate(lists):
    batch = data[k]
    assert int(batch["userId"]) == user
    for t, row in enumerate(lists[user][-20:]):
        assert batch["slate"][t].tolist()[: len(row["items"]) + 1] == [
            1,
            *(item + 3 for item in row["items"]),
        ]
        clicked = [item + 3 for item, one in zip(row["items"], row["clicked"], strict=True) if one]
        assert [int(batch["click"][t])] == (clicked or [1])
        assert int(batch["slate"][t][batch["click_idx"][t]]) == int(batch["click"][t])
        assert names["interaction_type"][int(batch["interaction_type"][t])] == (
            "search" if row["query"] else "rec"
        )
assert len(attributes["category"]) == int(release.record["rows"]["items"]) + 3
assert all(int(one) in names["category"] for one in attributes["category"])
unclicked = sum(not any(row["clicked"]) for rows in lists.values() for row in rows)
many = sum(map(len, lists.values()))
print(f"train: {len(data):,} users with {many:,} lists, {unclicked} of them unclicked, as shown")
print(
    f"{len(attributes['category']) - 3:,} items with a category that has a name; "
    f"valid {len(loaders['valid'].dataset)}, test {len(loaders['test'].dataset)} users"
)
