"""SETRec's own data sets on `sidmill export --format setrec`, and its vectors as finetune_t5.py loads them.

    python benchmarks/readers/setrec.py CHECKOUT EXPORT WAREHOUSE REF

The model wants a GPU and T5; its lines that open files are repeated here.
"""

import pickle
import sys
from pathlib import Path

import numpy as np
import torch

from sid_warehouse.reader import open_warehouse

checkout, export, warehouse, ref = sys.argv[1:]
sys.path.insert(0, f"{checkout}/code")
from utils.data_utils import SequentialCollator, SequentialDataset, SequentialTestDataset  # noqa: E402

release = open_warehouse(warehouse).release(ref)
users = release.table("sequences", ["items"])["items"].to_pylist()


def matrix(name):
    table = release.table(f"embeddings_{name}", ["vector"])["vector"].combine_chunks()
    return torch.tensor(table.flatten().to_numpy().reshape(len(table), -1))


data = SequentialDataset(f"{export}/", 50)
expected = [
    ([one + 1 for one in u[:-2][-50:][:t]], u[:-2][-50:][t]) for u in users for t in range(len(u[:-2][-50:]))
]
given = [(list(seq), label) for seq, label, _ in (data[row] for row in range(len(data)))]
# Where t is 0 the trainer's slice [-n:-n] is empty, as here.
assert given == expected
assert {u: data.testData[u][1] for u in data.testData} == {u: row[-1:] for u, row in enumerate(users)}
assert all(data.testData[u][0] == [one + 1 for one in row[:-1]] for u, row in enumerate(users))
sizes = f"{data.n_user} users, {data.m_item} items"
print(f"SequentialDataset: {len(data)} train samples, {len(data.testData)} tests, {sizes}")
valid = SequentialTestDataset(f"{export}/", 50)
batch = SequentialCollator()([valid[row] for row in range(64)])
print(
    f"SequentialTestDataset, SequentialCollator: {len(valid)} samples, batch {tuple(batch['inputs'].shape)}"
)

with Path(export, "SASRec_item_embed.pkl").open("rb") as file:
    item_embed = pickle.load(file)  # noqa: S301 - the trainer's way, of our own export
concat = torch.cat([torch.zeros(1, 64), item_embed], dim=0)
assert torch.equal(concat[1:], matrix("collaborative"))
[features] = Path(export).glob("*.emb-t5-tdcb.npy")
assert torch.equal(torch.FloatTensor(np.load(features, allow_pickle=True)), matrix("text"))
layer = torch.nn.Embedding.from_pretrained(concat, freeze=True)
assert torch.equal(
    layer(batch["inputs"])[batch["inputs"] == 0], torch.zeros(int((batch["inputs"] == 0).sum()), 64)
)
warm, cold = (np.load(f"{export}/{name}_item.npy", allow_pickle=True).tolist() for name in ("warm", "cold"))
assert set(warm) == {item for row in users for item in row[:-2]}
assert not set(warm) & set(cold)
print(f"SASRec_item_embed.pkl: {tuple(item_embed.shape)}; {len(warm)} warm and {len(cold)} cold items")
