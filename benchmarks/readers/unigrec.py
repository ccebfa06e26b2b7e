"""UniGRec's own reading, dataset and loader on `sidmill export --format unigrec --set cf=collaborative`.

    python benchmarks/readers/unigrec.py CHECKOUT EXPORT WAREHOUSE REF

CHECKOUT: of Jialei-03/UniGRec. Its dataset asks for a checkpoint of its RQ-VAE; it gets an untrained one.
"""

import argparse
import sys
import tempfile

import numpy as np
import torch

from sid_warehouse.reader import open_warehouse

checkout, export, warehouse, ref = sys.argv[1:]
sys.path[:0] = [f"{checkout}/model", f"{checkout}/rqvae"]
release = open_warehouse(warehouse).release(ref)
users = [[item + 1 for item in items] for items in release.table("sequences", ["items"])["items"].to_pylist()]

import dataset as theirs  # noqa: E402
from dataloader import GenRecDataLoader  # noqa: E402
from datasets import EmbDataset  # noqa: E402
from models.rqvae import RQVAE  # noqa: E402


def told(history: list[int], target: int) -> dict[str, object]:
    return {"history": ([0] * 20 + history)[-20:], "target": target}


train = theirs.process_data(f"{export}/train.parquet", "train", 20)
assert train == [told(items[:i], items[i]) for items in users for i in range(1, len(items) - 2)]
print(f"train: {len(train):,} samples, expanded by the trainer, equal")
for split, less in (("valid", 1), ("test", 0)):
    rows = theirs.process_data(f"{export}/{split}.parquet", "evaluation", 20)
    assert rows == [told(items[: len(items) - less - 1], items[len(items) - less - 1]) for items in users]
    print(f"{split}: {len(rows):,} samples, equal")

vectors = EmbDataset(f"{export}/item_emb_td.parquet", return_item_id=True)
stored = np.stack(release.table("embeddings_text", ["vector"])["vector"].to_numpy())
assert (vectors.item_ids == np.arange(1, len(stored) + 1)).all()
assert (vectors.embeddings == stored).all()
print(f"vectors: {len(vectors):,} x {vectors.dim}, numbers 1 to {len(vectors):,}, equal")

folder = tempfile.mkdtemp()
small = {
    "e_dim": 32,
    "layers": [64],
    "num_emb_list": [16, 16, 16],
    "kmeans_init": False,
    "sk_epsilons": [0.0, 0.0, 0.0],
}
untrained = RQVAE(in_dim=vectors.dim, vq_type="soft", distance="l2", temperature=0.001, **small)
torch.save({"args": argparse.Namespace(**small), "state_dict": untrained.state_dict()}, f"{folder}/rqvae.pth")
dataset = theirs.GenRecDataset(
    f"{export}/test.parquet",
    f"{folder}/rqvae.pth",
    f"{export}/item_emb_td.parquet",
    "evaluation",
    20,
    device="cpu",
)
batch = next(
    iter(
        GenRecDataLoader(dataset, batch_size=64, shuffle=False, num_workers=0, device="cpu", pin_memory=False)
    )
)
for i in range(64):
    history = np.array(users[i][-21:-1]) - 1
    assert (batch["history_embs"][i][20 - len(history) :].numpy() == stored[history]).all()
    assert batch["attention_mask"][i].sum() == len(history)
    assert (batch["target_embs"][i].numpy() == stored[users[i][-1] - 1]).all()
print(f"loader: a batch of {tuple(batch['history_embs'].shape)}, vectors of the right items, padding masked")
