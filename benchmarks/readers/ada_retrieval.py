"""Ada-Retrieval's own `SeqRecDataset` on `sidmill export --format ada-retrieval`.

    python benchmarks/readers/ada_retrieval.py CHECKOUT EXPORT WAREHOUSE REF

Nothing is stubbed. Needs torch, pandas and PyYAML.
"""

import sys
from pathlib import Path

import yaml

from sid_warehouse.reader import open_warehouse

checkout, export, warehouse, ref = sys.argv[1:]
sys.path.insert(0, checkout)
from src.data.adduserhistory import AddUserHistory  # noqa: E402
from src.data.seqrecdataset import SeqRecDataset  # noqa: E402
from src.utils.general import load_user_history  # noqa: E402

release = open_warehouse(warehouse).release(ref)
sequences = release.table("sequences", ["items"])["items"].to_pylist()
settled = yaml.safe_load(Path(export, f"{release.record['dataset']}.yaml").read_text())
history = load_user_history(export, "user_history", settled["n_users"], settled["user_history_file_format"])
for split, place in (("train", None), ("valid", -2), ("test", -1)):
    config = {**settled, "exp_name": "x", "max_seq_len": 50, "data_loader_task": split}
    config["data_format"] = settled[f"{split}_file_format"]
    data = SeqRecDataset(config, export, split)
    data.add_user_history_transform(AddUserHistory(history, 1))
    seen = 0
    for k in range(len(data)):
        user, item, _, past, length = data[k]
        items = [one + 1 for one in sequences[user - 1]]
        at = items.index(item)
        assert item < settled["n_items"]
        assert place is None or at == len(items) + place
        assert past.tolist() == [0] * max(0, 50 - at) + items[:at][-50:]
        assert length == min(at, 50)
        seen += 1
    print(f"{split}: {seen:,} rows, each item with all that stood before it, padded to 50")
