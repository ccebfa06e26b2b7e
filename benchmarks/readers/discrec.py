"""DiscRec's own dataset, RQ-VAE and input on `sidmill export --format discrec --set cf=collaborative`.

    python benchmarks/readers/discrec.py CHECKOUT EXPORT WAREHOUSE REF

CHECKOUT: of Ten-Mao/DiscRec. The export is linked into a folder of its own, as the trainer writes `cache/`
beside it. `prepare_input` gets the SIDs of `indices.npy` in the place of those that it would learn. Stubbed:
its model, `layers.DiscRec`, which wants another version of transformers.
"""

import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import torch

from sid_warehouse.reader import open_warehouse

checkout, export, warehouse, ref = sys.argv[1:]
sys.path.insert(0, checkout)
release = open_warehouse(warehouse).release(ref)
users = [[item + 1 for item in items] for items in release.table("sequences", ["items"])["items"].to_pylist()]
sids = np.array(release.table("sids", ["sid"])["sid"].to_pylist())

from data.dataset import SeqRecDataset  # noqa: E402
from layers.Rqvae import RQVAE  # noqa: E402

folder = Path(tempfile.mkdtemp(), "Beauty")
folder.mkdir()
for path in Path(export).resolve().iterdir():
    (folder / path.name).symlink_to(path)


def told(user: int, history: list[int], target: int) -> tuple[int, list[int], int]:
    return user, (history + [0] * 20)[:20] if len(history) < 20 else history[-20:], target


expected = {
    "train": [
        told(u, items[:i], items[i]) for u, items in enumerate(users) for i in range(1, len(items) - 2)
    ],
    "valid": [told(u, items[:-2], items[-2]) for u, items in enumerate(users)],
    "test": [told(u, items[:-1], items[-1]) for u, items in enumerate(users)],
}
for split, rows in expected.items():
    dataset = SeqRecDataset(str(folder.parent), "Beauty", 20, split)
    assert (dataset.num_items, dataset.num_users) == (len(sids), len(users))
    read = [(int(one["user_seqs"]), one["his_seqs"].tolist(), int(one["next_items"])) for one in dataset]
    assert read == rows
    print(f"{split}: {len(read):,} samples of {len(users):,} users, {len(sids):,} items, equal")

stored = {
    name: np.stack(release.table(f"embeddings_{name}", ["vector"])["vector"].to_numpy())
    for name in ("text", "collaborative")
}
rqvae = RQVAE(
    item_emb_path=f"{export}/Beauty.emb-llama-td.npy",
    cf_emb_path=f"{export}/Beauty-cf_emb.pt",
    in_dims=[stored["text"].shape[1], 64, stored["collaborative"].shape[1]],
    cf_loss_open=True,
)
assert (rqvae.item_emb.weight[1:].numpy() == stored["text"]).all()
assert (rqvae.cf_emb.weight[1:].numpy() == stored["collaborative"]).all()
print(
    f"RQVAE: item_emb {tuple(rqvae.item_emb.weight.shape)}, cf_emb {tuple(rqvae.cf_emb.weight.shape)}, equal"
)

# Of run_discrec.py only prepare_input runs; its model is written for another version of transformers.
sys.modules["layers.DiscRec"] = types.SimpleNamespace(DiscRec=None)
from run_discrec import prepare_input  # noqa: E402

indices = torch.from_numpy(np.load(f"{export}/indices.npy"))
matrix = torch.nn.Embedding(dataset.num_items + 1, 4)
matrix.weight.data.copy_(indices)  # run_discrec.py 595 and 596
one = dataset[0]
tokens, mask, _, labels, shift = prepare_input(
    torch.from_numpy(one["his_seqs"])[None], torch.from_numpy(one["next_items"])[None], matrix
)
offset = 2 + 256 * np.arange(4)
history = np.array(users[0][-21:-1]) - 1
assert (tokens[0, : 4 * len(history)].numpy() == (sids[history] + offset).reshape(-1)).all()
assert labels[0].tolist() == [*(sids[users[0][-1] - 1] + offset).tolist(), 1]
print(f"prepare_input: tokens of user 0's history and target equal, {int(mask.sum())} of {mask.numel()} seen")
