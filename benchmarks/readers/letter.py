"""LETTER's own datasets, decoding trie and tokenizer training on `sidmill export --format letter`.

    python benchmarks/readers/letter.py CHECKOUT EXPORT WAREHOUSE REF

CHECKOUT: of HonghuiBao2000/LETTER; its T5 tokenizer is in it. Needs k-means-constrained. Stubbed: `wandb`.
The RQ-VAE is trained for one epoch by `RQ-VAE/main.py` itself, on the CPU and with one hidden layer of 64.
"""

import argparse
import runpy
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import torch
from transformers import T5Tokenizer

from sid_warehouse.reader import open_warehouse

checkout, export, warehouse, ref = sys.argv[1:]
sys.path.insert(0, f"{checkout}/LETTER-TIGER")
release = open_warehouse(warehouse).release(ref)
name = release.record["dataset"]
users = release.table("sequences", ["items"])["items"].to_pylist()
sids = ["".join(tokens) for tokens in release.table("sids", ["tokens"])["tokens"].to_pylist()]

import utils  # noqa: E402
from generation_trie import Trie  # noqa: E402

data_path = tempfile.mkdtemp()
(Path(data_path) / name).symlink_to(Path(export).resolve())
parser = utils.parse_test_args(utils.parse_dataset_args(argparse.ArgumentParser()))
args = parser.parse_args(["--data_path", data_path, "--dataset", name, "--index_file", ".index.json"])
train, valid = utils.load_datasets(args)
test = utils.load_test_dataset(args)


def told(history: list[int], target: int) -> dict[str, str]:
    return {"input_ids": "".join(sids[item] for item in history[-20:]), "labels": sids[target]}


expected = [told(items[:i], items[i]) for items in users for i in range(1, len(items) - 2)]
assert [train[i] for i in range(len(train))] == expected
assert [valid[i] for i in range(len(valid))] == [told(items[:-2], items[-2]) for items in users]
assert [test[i] for i in range(len(test))] == [told(items[:-1], items[-1]) for items in users]
print(f"LETTER-TIGER: train {len(train):,}, valid {len(valid):,}, test {len(test):,}: all equal")

tokenizer = T5Tokenizer.from_pretrained(f"{checkout}/LETTER-TIGER/ckpt/TIGER")
added = tokenizer.add_tokens(train.datasets[0].get_new_tokens())
trie = Trie([[0, *tokenizer.encode(candidate)] for candidate in test.get_all_items()])
allowed = utils.prefix_allowed_tokens_fn(trie)
for sid in sids:
    row = [0, *tokenizer.encode(sid)]
    assert len(row) == len(release.vocabulary.levels) + 2, row
    for end in range(1, len(row)):
        assert row[end] in allowed(0, torch.tensor(row[:end]))
print(f"its T5 tokenizer took {added} tokens; its trie lets all {len(sids):,} items through")

behaviour = next(Path(export).glob("*.pt"))
cf = torch.load(behaviour).squeeze().detach().numpy()  # main.py 68, to the letter
stored = np.stack(release.table("embeddings_collaborative", ["vector"])["vector"].to_numpy())
assert cf.dtype == np.float32
assert (cf == stored).all()
print(f"{behaviour.name}: {cf.shape} {cf.dtype}, equal to embeddings_collaborative")

for module in ("utils", "data"):
    sys.modules.pop(module)
sys.path[0] = f"{checkout}/RQ-VAE"
sys.modules["wandb"] = types.SimpleNamespace(init=lambda **_: None, log=lambda *_, **__: None)
sys.argv = ["main.py", "--data_path", f"{export}/{name}.emb-text.npy", "--cf_emb", str(behaviour)]
sys.argv += ["--e_dim", str(cf.shape[1]), "--epochs", "1", "--eval_step", "1", "--device", "cpu"]
sys.argv += ["--num_workers", "0", "--layers", "64"]
sys.argv += ["--ckpt_dir", tempfile.mkdtemp()]
runpy.run_path(f"{checkout}/RQ-VAE/main.py", run_name="__main__")
