"""MiniOneRec's own datasets, as sft.py and rl.py make them, on `sidmill export --format minionerec`.

    python benchmarks/readers/minionerec.py CHECKOUT EXPORT WAREHOUSE REF

CHECKOUT: of AkaliKong/MiniOneRec. plain_tokenizer.py stands in for the tokenizer of a language model; `fire`
and `bitsandbytes`, which sft.py imports, are stubbed. Files are found by the globs of sft.sh.
"""

import ast
import csv
import sys
import types
from pathlib import Path

import numpy as np
from plain_tokenizer import plain_tokenizer

from sid_warehouse.reader import open_warehouse

checkout, export, warehouse, ref = sys.argv[1:]
sys.path.insert(0, checkout)
for module in ("fire", "bitsandbytes"):
    sys.modules.setdefault(module, types.ModuleType(module))
release = open_warehouse(warehouse).release(ref)
sequences = release.table("sequences", ["items"])["items"].to_pylist()
sids = ["".join(tokens) for tokens in release.table("sids", ["tokens"])["tokens"].to_pylist()]
titles = [" ".join(title.split()) for title in release.table("items", ["title"])["title"].to_pylist()]

import data  # noqa: E402
from sft import TokenExtender  # noqa: E402

category = "Industrial_and_Scientific"
files = {
    split: str(next(Path(export, split).glob(f"{category}*11.csv"))) for split in ("train", "valid", "test")
}
index, items = (f"{export}/index/{category}.{kind}.json" for kind in ("index", "item"))
tokens = TokenExtender(f"{export}/index", category).get_new_tokens()
tokenizer = plain_tokenizer(tokens)
print(f"sft.py: {len(tokens)} new tokens")


def samples(split: str) -> list[tuple[list[int], int]]:
    rows = release.table(split, ["user_index", "start", "end", "target"]).to_pylist()
    return [
        (sequences[row["user_index"]][max(row["start"], row["end"] - 10) : row["end"]], row["target"])
        for row in rows
    ]


for split, file in files.items():
    rl = data.SidDataset(file, category=category)
    given = samples(split)
    assert len(rl) == len(given)
    for one, (history, target) in zip((rl[i] for i in range(len(rl))), given, strict=True):
        past = ", ".join(sids[item] for item in history)
        assert f"interacted with items {past} in chronological" in one["prompt"], one
        assert one["completion"] == sids[target] + "\n"
    print(f"rl.py, SidDataset: {split} {len(rl):,} samples, prompts and completions equal")

common = {"tokenizer": tokenizer, "max_len": 4096, "category": category}
given = samples("test")
sets = {
    "SidSFTDataset": data.SidSFTDataset(files["test"], **common),
    "EvalSidDataset": data.EvalSidDataset(files["test"], **common),
    "SFTData": data.SFTData(files["test"], **common),
    "TitleHistory2SidSFTDataset": data.TitleHistory2SidSFTDataset(files["test"], items, index, **common),
    "FusionSeqRecDataset": data.FusionSeqRecDataset(files["test"], items, index, **common),
}
for name, dataset in sets.items():
    by_title = name in ("SFTData", "TitleHistory2SidSFTDataset")
    for i, (history, target) in enumerate(given):
        one = dataset[i]
        labels = [token for token in one["labels"] if token != -100]
        prompt = tokenizer.decode(one["input_ids"][: -len(labels)])
        told = titles if by_title else sids
        assert all(told[item] in prompt for item in history), prompt
        answer = tokenizer.decode(labels)
        if name == "FusionSeqRecDataset":
            assert titles[target].strip() in answer, answer
        else:
            assert answer.startswith(f'"{titles[target]}"' if name == "SFTData" else sids[target]), answer
    print(f"{name}: {len(dataset):,} samples, histories and answers equal")

features = data.SidItemFeatDataset(items, index, tokenizer=None)
assert features.sid2title == dict(zip(sids, titles, strict=True))
print(f"SidItemFeatDataset: {len(features.sid2title):,} SIDs with title, {len(features.title2sid):,} back")
rl = [data.RLTitle2SidDataset(items, index), data.RLSeqTitle2SidDataset(files["train"], sample=10000)]
print(f"rl.py: RLTitle2SidDataset {len(rl[0]):,}, RLSeqTitle2SidDataset {len(rl[1]):,} samples")

with next(Path(export, "info").glob(f"{category}*.txt")).open() as file:  # as evaluate.py 57 to 61 does
    info = file.readlines()
assert [line.split("\t")[0].strip() for line in info] == sids
assert [line.split("\t")[1].strip() for line in info] == titles
print(f"info: {len(info):,} lines")

vectors = np.load(f"{export}/index/{category}.emb-qwen-td.npy").astype(
    np.float32
)  # rq/rqkmeans_constrained.py 203
stored = np.stack(release.table("embeddings_text", ["vector"])["vector"].to_numpy())
assert np.abs(vectors - stored).max() < 1e-3
print(f"vectors: {vectors.shape}, float16 of embeddings_text")

with Path(files["test"]).open(newline="") as file:
    for row, (history, target) in zip(csv.DictReader(file), given, strict=True):
        assert (ast.literal_eval(row["history_item_id"]), int(row["item_id"])) == (history, target)
print("columns of numbers equal")
