"""DARE's own `SeqRecDataset` on `sidmill export --format dare`.

    python benchmarks/readers/dare.py CHECKOUT EXPORT WAREHOUSE REF

Nothing is stubbed. Needs NumPy alone.
"""

import sys
from pathlib import Path

import numpy as np

from sid_warehouse.reader import open_warehouse

checkout, export, warehouse, ref = sys.argv[1:]
sys.path.insert(0, checkout)
from dataset import SeqRecDataset  # noqa: E402

release = open_warehouse(warehouse).release(ref)
sequences = release.table("sequences", ["items"])["items"].to_pylist()
for split, path in (("train", "train_{}.npy"), ("valid", "val.npy"), ("test", "test.npy")):
    data = SeqRecDataset(str(Path(export, path)), batch_size=64, max_length=100)
    batches = list(data)
    read = {name: np.concatenate([one[name] for one in batches]) for name in batches[0]}
    positive = read["target"][:, 0] == 1
    samples = release.table(split, ["user_index", "start", "end", "target"]).to_pylist()[
        : int(positive.sum())
    ]
    for k, row in zip(np.flatnonzero(positive), samples, strict=True):
        past = [item + 1 for item in sequences[row["user_index"]][row["start"] : row["end"]]][-100:]
        assert read["uid"][k] == row["user_index"] + 1
        assert read["iid"][k] == row["target"] + 1
        assert read["hist_iid"][k].tolist() == [0] * (100 - len(past)) + past
        assert read["mask"][k].sum() == len(past)
    for k in np.flatnonzero(~positive):
        assert read["iid"][k] - 1 not in sequences[read["uid"][k] - 1]
    print(
        f"{split}: {data.data_size:,} rows, {len(read['uid']):,} of them in whole batches; "
        f"{int(positive.sum()):,} positives are the release's samples, no negative is an item of its user"
    )
