"""LC-Rec's own datasets, collator and decoding constraint on `sidmill export --format lc-rec`.

    python benchmarks/readers/lc_rec.py CHECKOUT EXPORT WAREHOUSE REF

CHECKOUT: of RUCAIBox/LC-Rec. Arguments are parsed by the trainer's own parser. plain_tokenizer.py, which
begins texts with `<s>` as Llama's does, stands in for a language model's tokenizer; nothing else is stubbed.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from plain_tokenizer import plain_tokenizer

from sid_warehouse.reader import open_warehouse

checkout, export, warehouse, ref = sys.argv[1:]
sys.path[:0] = [checkout, f"{checkout}/index"]
release = open_warehouse(warehouse).release(ref)
name = release.record["dataset"]
users = release.table("sequences", ["items"])["items"].to_pylist()
sids = ["".join(tokens) for tokens in release.table("sids", ["tokens"])["tokens"].to_pylist()]

import utils  # noqa: E402
from collator import Collator  # noqa: E402

data_path = tempfile.mkdtemp()
(Path(data_path) / name).symlink_to(Path(export).resolve())
parser = utils.parse_test_args(utils.parse_dataset_args(argparse.ArgumentParser()))
args = parser.parse_args(
    f"--data_path {data_path} --dataset {name} --tasks seqrec,item2index,index2item,fusionseqrec "
    "--train_prompt_sample_num 1,1,1,1 --train_data_sample_num 0,0,0,0".split()
)
train, valid = utils.load_datasets(args)
test = utils.load_test_dataset(args)


def told(history: list[int], target: int) -> dict[str, str]:
    return {"item": sids[target], "inters": ", ".join(sids[item] for item in history[-20:])}


sequences, item2index, index2item, fused = train.datasets
expected = [told(items[:i], items[i]) for items in users for i in range(1, len(items) - 2)]
assert sequences.inter_data == expected
assert [{k: one[k] for k in ("item", "inters")} for one in fused.inter_data] == expected
assert valid.inter_data == [told(items[:-2], items[-2]) for items in users]
assert test.inter_data == [told(items[:-1], items[-1]) for items in users]
print(f"train: {len(sequences):,} seqrec and {len(fused):,} fusionseqrec samples, all equal")
print(f"valid: {len(valid.inter_data):,}, test: {len(test):,} samples, all equal")

titles = release.table("items", ["title"])["title"].to_pylist()
given = [" ".join(title.split()).strip(".!?,;:`") for title in titles]
for dataset in (item2index, index2item):
    assert [(one["item"], one["title"]) for one in dataset.feat_data] == list(zip(sids, given, strict=True))
print(f"items: {len(item2index):,} with their SID and title")

tokens = sequences.get_new_tokens()
assert set(tokens) == {one for row in release.table("sids", ["tokens"])["tokens"].to_pylist() for one in row}
assert sequences.get_all_items() == set(sids)
tokenizer = plain_tokenizer(tokens, bos=True)
allowed = test.get_prefix_allowed_tokens_fn(tokenizer)
prompt = test[0]["input_ids"]
for sid in sids:
    row = tokenizer(prompt + sid)["input_ids"] + [tokenizer.eos_token_id]
    start = len(tokenizer(prompt)["input_ids"])
    for end in range(start, len(row)):
        assert row[end] in allowed(0, torch.tensor(row[:end])), (sid, end)
print(
    f"decoding: {len(tokens)} new tokens; the constraint lets all {len(sids):,} items through, and their end"
)

args.only_train_response, tokenizer.model_max_length = True, 2048  # as finetune.py has it
batch = Collator(args, tokenizer)([sequences[i] for i in range(4)])
for i in range(4):
    answer = tokenizer.decode(batch["labels"][i][batch["labels"][i] >= 0])
    assert answer.startswith(sequences.inter_data[i]["item"]), answer
print(f"collated: {tuple(batch['input_ids'].shape)}; only the target's tokens are trained: {answer!r}")

from datasets import EmbDataset  # noqa: E402

vectors = EmbDataset(f"{export}/{name}.emb-text.npy")
stored = np.stack(release.table("embeddings_text", ["vector"])["vector"].to_numpy())
assert (np.stack([vectors[i].numpy() for i in range(len(vectors))]) == stored).all()
print(f"vectors: {len(vectors):,} x {vectors.dim}, equal")
