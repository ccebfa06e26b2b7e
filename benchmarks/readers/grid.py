"""GRID's own configuration, data module and collation on `sidmill export --format grid`.

    python benchmarks/readers/grid.py CHECKOUT EXPORT WAREHOUSE REF

CHECKOUT: of snap-research/GRID. Needs its packages for reading: tensorflow-cpu, torch, lightning, hydra-core,
transformers. The configs are its own but for paths, workers (2 for 8) and the trainer, of which two numbers
are read. Texts of items come from its TFRecordIterator and two of its pre_processing functions.
"""

import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from sid_warehouse.reader import open_warehouse

checkout, export, warehouse, ref = sys.argv[1:]
sys.path.insert(0, checkout)
import src.utils  # noqa: E402, F401
from hydra.utils import instantiate  # noqa: E402
from omegaconf import OmegaConf, open_dict  # noqa: E402
from src.utils.custom_hydra_resolvers import *  # noqa: E402, F403

release = open_warehouse(warehouse).release(ref)
sids = np.array(release.table("sids", ["sid"])["sid"].to_pylist())
users = release.table("sequences", ["items"])["items"].to_pylist()
item_of = {tuple(sid): item for item, sid in enumerate(sids.tolist())}
depth = sids.shape[1]

tensor = torch.load(f"{export}/sids.pt")
assert (tensor.dtype, tensor.shape) == (torch.int64, (depth, len(sids)))
assert np.array_equal(tensor.numpy().T, sids)
vectors = torch.load(f"{export}/embeddings_text.pt")
stored = np.stack(release.table("embeddings_text", ["vector"])["vector"].to_numpy())
assert vectors.dtype == torch.float32
assert np.array_equal(vectors.numpy(), stored)
print(f"tensors: SIDs {tuple(tensor.shape)} {tensor.dtype}, vectors {tuple(vectors.shape)} {vectors.dtype}")


def loaders(experiment: str, **given: object) -> SimpleNamespace:
    """Give the data module of one of the trainer's configs, set up for one device."""
    config = OmegaConf.load(Path(checkout) / "configs" / "experiment" / f"{experiment}.yaml")
    with open_dict(config):
        config.update(given)
        config.paths = {"data_dir": export}
        for name, loader in config.data_loading.items():
            if "dataloader" in name:
                loader.dataloader.update(num_workers=2, persistent_workers=False)
    module = instantiate(config.data_loading.datamodule)
    module.trainer = SimpleNamespace(world_size=1, global_rank=0)
    module.setup()
    return module


def rows(batch: object) -> list[tuple[int, list[int]]]:
    """Give (user, items) of a collated batch: the tokens before the mask, then the label."""
    inputs, labels = batch
    tokens, of_user = (inputs.transformed_sequences[name] for name in ("sequence_data", "user_id"))
    out = []
    for i, row in enumerate(tokens):
        history = row[row >= 0].reshape(-1, depth).tolist()
        label = labels.labels["sequence_data"].reshape(-1, depth)[i].tolist()
        out.append((int(of_user[i][0]), [item_of[tuple(sid)] for sid in [*history, label]]))
    return out


given = {"data_dir": export, "semantic_id_path": f"{export}/sids.pt", "num_hierarchies": depth}
module = loaders("tiger_train_flat", **given)
for name, last, loader in (("val", -1, module.val_dataloader), ("test", None, module.test_dataloader)):
    seen = Counter()
    for batch in loader()[0]:
        for user, items in rows(batch):
            assert items == users[user][:last][-(120 // depth) :], (user, items)
            seen[user] += 1
    assert len(seen) == len(users)
    assert set(seen.values()) == {1}
    print(f"{name}: {len(seen):,} rows, the newest {120 // depth} items of every user's sequence, label last")

seen = Counter()
for step, batch in enumerate(module.train_dataloader()[0]):
    for user, items in rows(batch):
        train = users[user][:-2]
        starts = range(len(train) - len(items) + 1)
        assert any(train[start : start + len(items)] == items for start in starts), (user, items)
        seen[user] += 1
    if step == 200:
        break
print(
    f"training, {step + 1} batches: {sum(seen.values()):,} samples of {len(seen):,} users, "
    "each a part of items[:-2]"
)

from src.data.loading.components import pre_processing  # noqa: E402
from src.data.loading.components.iterators import TFRecordIterator  # noqa: E402

iterator = TFRecordIterator()
iterator.update_list_of_file_paths([str(path) for path in sorted(Path(export, "items").iterdir())])
iterator.should_shuffle_rows = False
texts = dict.fromkeys(range(len(sids)))
plain = SimpleNamespace(feature_map=None, features_to_consider=[], field_type_map={})
for row in iterator.iterrows():
    row = pre_processing.convert_to_dense_numpy_array(row, plain, ["id", "text"])
    row = pre_processing.convert_bytes_to_string(row, plain, ["text"])
    texts[int(row["id"][0])] = str(row["text"][0])
given = release.table("items", ["text"])["text"].to_pylist()
same = sum(texts[item] == text for item, text in enumerate(given))
assert None not in texts.values()
print(
    f"items: {len(texts):,} texts in ASCII, {same:,} as they were; one of the others: "
    + next(f"{text!r} -> {texts[i]!r}" for i, text in enumerate(given) if texts[i] != text)
)
