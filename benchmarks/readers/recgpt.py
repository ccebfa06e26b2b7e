"""RecGPT's own data sets on `sidmill export --format recgpt`, read as pre_train.py, eval.py and predict.py
read.

    python benchmarks/readers/recgpt.py CHECKOUT EXPORT WAREHOUSE REF

The programs themselves want a GPU and a trained autoencoder; their lines that open files are repeated here,
their three Dataset classes and the trie run as they are.
"""

import os
import pickle
import sys
from pathlib import Path

import numpy as np

from sid_warehouse.reader import open_warehouse

checkout, export, warehouse, ref = sys.argv[1:]
release = open_warehouse(warehouse).release(ref)
sys.path.insert(0, checkout)
os.chdir(export)
from utils.data import (  # noqa: E402
    GPT2RecBatchEvalAuxData,
    GPT2RecBatchTestAuxData,
    GPT2RecBatchTrainAuxData,
)
from utils.Trie import Trie  # noqa: E402


def load(name):
    with Path(name).open("rb") as file:
        return pickle.load(file)  # noqa: S301 - the trainer's way, of our own export


users = release.table("sequences", ["items"])["items"].to_pylist()
sids = release.table("sids", ["sid"])["sid"].to_pylist()
train, tokens = load("./data/pre_train/train.pkl"), load("./data/pre_train/token_id_list.pkl")
data = GPT2RecBatchTrainAuxData(train, len(tokens))
data.setTokenIdList(tokens)
for row, user in zip(range(len(data)), train, strict=True):
    ids, labels, embeds, mask = data[row]
    expected = [code for item in users[user][:-2][-256:] for code in sids[item]]
    assert ids[: len(expected)].tolist() == labels[: len(expected)].tolist() == expected
    assert set(ids[len(expected) :].tolist()) <= {15360}
    assert int(mask.sum()) == len(expected)
    assert embeds.shape == (1024, 192)
print(f"GPT2RecBatchTrainAuxData: {len(data)} rows, every token that of the release's train items, pad 15360")

test = load(f"./data/{release.record['dataset']}/test.pkl")
vectors = np.load(f"./data/{release.record['dataset']}/item_text_embeddings.npy")
tested = GPT2RecBatchTestAuxData(test, vectors.shape[0])
tested.setTokenIdList(tokens)
for row, user in zip(range(len(tested)), users, strict=True):
    _, ids, target, length, aux = tested[row]
    assert target == user[-1]
    assert ids[-length:].tolist() == [code for item in user[:-1][-255:] for code in sids[item]]
    assert aux[aux >= 0].tolist() == user[:-1][-255:]
print(f"GPT2RecBatchTestAuxData: {len(tested)} rows, history and target those of each user's sequence")

valid = GPT2RecBatchEvalAuxData(load("./data/eval/eval.pkl"), len(tokens))
valid.setTokenIdList(load("./data/eval/token_id_list_eval.pkl"))
valid.setIdMap(load("./data/eval/eval_id_map.pkl"))
for row, user in zip(range(len(valid)), users, strict=True):
    _, _, aux = valid[row]
    assert aux[aux >= 0].tolist() == user[:-1][-256:]
trie = Trie()
for codes in tokens:
    trie.insert(codes)
assert all(trie.search(sid) for sid in sids)
print(f"GPT2RecBatchEvalAuxData: {len(valid)} rows; Trie: {len(tokens)} SIDs of four")
