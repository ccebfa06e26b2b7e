"""ColaRec's own data sets on `sidmill export --format colarec`, up to a collated batch.

    python benchmarks/readers/colarec.py CHECKOUT EXPORT WAREHOUSE REF

From outside: the tokenizer's words, which are T5's and not here, are those of a text split at spaces; its
layout of a sequence, `V4T5Tokenizer.encode` and `padding`, runs as it is. Needs transformers, tqdm and
pandas.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from sid_warehouse.reader import open_warehouse

checkout, export, warehouse, ref = sys.argv[1:]
release = open_warehouse(warehouse).release(ref)
sys.path.insert(0, checkout)
from other.config_class import DataFileConfig, DataProcessConfig  # noqa: E402
from other.new_utils import PrefixTree  # noqa: E402
from src.datasets import get_train_dataloader_augitem, get_valid_dataloader_timeorder  # noqa: E402
from src.tokenization import V4T5Tokenizer  # noqa: E402

config = DataProcessConfig(seq_type="short")
config.updata_for_type()


class Words(V4T5Tokenizer):
    pad_token_id, eos_token_id, atom_pad_id, atom_user_pad_id = 0, 1, 2, 3

    def __init__(self):
        self.config, self.words = config, {}

    def tokenize(self, text):
        return text.split()

    def convert_tokens_to_ids(self, words):
        return [self.words.setdefault(word, len(self.words) + 4) for word in words]


users = release.table("sequences", ["items", "ts"]).to_pylist()
sids = release.table("sids", ["sid"])["sid"].to_pylist()
with tempfile.TemporaryDirectory() as root:
    shutil.copytree(export, Path(root, "datasets", "small"))
    os.chdir(root)
    files, words = DataFileConfig("small"), Words()
    data, loader = get_train_dataloader_augitem(files, config, words, 32, num_workers=0, return_dataset=True)
    loaders = {
        split: get_valid_dataloader_timeorder(files, config, words, 32, 0, split)
        for split in ("valid", "test")
    }

pairs = [(number + 1, item + 1) for number, user in enumerate(users) for item in user["items"][:-2]]
assert data.dataset == pairs
assert all(
    value["cid"] == [code + 1 for code in sids[int(key) - 1]] for key, value in data.item_corpus.items()
)
untied = [n for n, user in enumerate(users) if len(set(user["ts"][:-2])) == len(user["ts"][:-2])]
assert all(data.user_seq[n + 1] == [item + 1 for item in users[n]["items"][:-2]] for n in untied)
batch = next(iter(loader))
labels = batch[3]["labels"].tolist()
assert all([code - 1 for code in label] in sids for label in labels)
print(f"v7CL2TrainDataset: {len(data)} pairs, the train events; {len(untied)} users without ties in order")
print(f"collate_fn: labels {tuple(batch[3]['labels'].shape)}, every one an SID with 1 added")
for place, (split, (loader, held)) in enumerate(loaders.items()):
    assert held.target_seq == {n + 1: [user["items"][-2 + place] + 1] for n, user in enumerate(users)}
    next(iter(loader))
    print(f"BasedValidDataset {split}: {len(held)} users, each with the {split} item of the release")
tree = PrefixTree()
tree.set_all([[0, *one["cid"]] for one in data.item_corpus.values()])
assert all(sid[2] + 1 in tree.find([0, sid[0] + 1, sid[1] + 1]) for sid in sids)
highest = max(max(one["cid"]) for one in data.item_corpus.values())
print(f"PrefixTree: {len(sids)} SIDs of 3; highest code {highest}")
