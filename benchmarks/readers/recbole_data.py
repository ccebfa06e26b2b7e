"""RecBole's own `create_dataset` and `data_preparation` on `--format recbole`, in both layouts.

    python benchmarks/readers/recbole_data.py EXPORT WAREHOUSE REF

Needs recbole 1.2.1 from PyPI, with pandas 2 and NumPy 1, as it predates the next ones. The layout is seen
from the files.
"""

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import init_logger

from sid_warehouse.reader import open_warehouse

export, warehouse, ref = sys.argv[1:]
release = open_warehouse(str(Path(warehouse).resolve())).release(ref)
users = release.table("sequences", ["items"])["items"].to_pylist()
name = release.record["dataset"]
layout = "atomic" if Path(export, f"{name}.inter").exists() else "split"
folder = tempfile.mkdtemp()
export = str(Path(export).resolve())
Path(folder, name).symlink_to(export)
sys.argv[1:] = []  # the trainer reads the command line too
os.chdir(folder)  # and writes its log where it runs


def prepared(model: str, **more: object) -> tuple:
    """Give the trainer's data set and its three loaders."""
    given = {"data_path": folder, "checkpoint_dir": folder, "use_gpu": False, "worker": 0, **more}
    config = Config(model, name, config_file_list=[f"{export}/config.yaml"], config_dict=given)
    init_logger(config)
    dataset = create_dataset(config)
    return dataset, *data_preparation(config, dataset)


def numbers(dataset: object, field: str, ids: object) -> list[int]:
    """Give the release's numbers of what the trainer numbered anew."""
    return np.atleast_1d(dataset.id2token(field, ids)).astype(int).tolist()


def sample(dataset: object, row: object) -> tuple[int, list[int], int]:
    """Give (user, history, target) of a sample in the release's numbers."""
    items = numbers(dataset, "item_id", row["item_id_list"][: int(row["item_length"])])
    user, target = (numbers(dataset, field, row[field])[0] for field in ("user_id", "item_id"))
    return user, items, target


dataset, *loaders = prepared("SASRec")
print(f"{layout}: {dataset.user_num - 1:,} users, {dataset.item_num - 1:,} items, without [PAD]")
for split, loader in zip(("train", "valid", "test"), loaders, strict=True):
    inter = loader.dataset.inter_feat
    samples = (sample(dataset, inter[i]) for i in range(len(inter)))
    read = {(user, item): history for user, history, item in samples}
    stored = release.table(split).to_pylist()
    assert len(stored) == len(inter)
    for row in stored:
        history = users[row["user_index"]][row["start"] : row["end"]][-50:]
        assert read[row["user_index"], row["target"]] == history, row
    print(
        f"{split}: {len(stored):,} samples of a SASRec data set, histories and targets those of the release"
    )

if layout == "atomic":
    columns = {"inter": ["user_id", "item_id", "rating", "timestamp"], "item": ["item_id", "title", "sid"]}
    dataset, *_ = prepared("SASRec", load_col=columns)
    sids = release.table("sids", ["tokens"])["tokens"].to_pylist()
    titles = release.table("items", ["title"])["title"].to_pylist()
    for number in range(1, dataset.item_num):
        item = numbers(dataset, "item_id", number)[0]
        feature = dataset.item_feat[number]
        assert [t for t in dataset.id2token("sid", feature["sid"]) if t != "[PAD]"] == sids[item]
        words = [t for t in dataset.id2token("title", feature["title"]) if t != "[PAD]"]
        assert words == titles[item].replace('"', "'").split(), (words, titles[item])
    print(f"items: {dataset.item_num - 1:,} titles and SIDs read as features, those of the release")
