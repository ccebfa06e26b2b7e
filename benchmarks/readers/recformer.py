"""Recformer's own `load_data`, `encode_item` and data sets on `sidmill export --format recformer`.

    python benchmarks/readers/recformer.py CHECKOUT EXPORT WAREHOUSE REF

Both functions are taken out of `finetune.py` and `tokenization.py` by their syntax tree, as these files
import models and an optimizer that current transformers lack; `dataloader.py` is imported with an empty
`recformer` beside it. From outside: words instead of Longformer's tokens. Needs torch and transformers.
"""

import ast
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

from sid_warehouse.reader import open_warehouse

checkout, export, warehouse, ref = sys.argv[1:]
sys.path.insert(0, checkout)
import json  # noqa: E402
import os  # noqa: E402

# `finetune.py` imports models and an optimizer that current transformers lack: take its `load_data` alone.
tree = ast.parse(Path(checkout, "finetune.py").read_text())
[load] = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "load_data"]
for name in ("recformer",):
    sys.modules[name] = ModuleType(name)
    sys.modules[name].RecformerTokenizer = object
from dataloader import RecformerEvalDataset, RecformerTrainDataset  # noqa: E402
from utils import read_json  # noqa: E402

# Nothing but the functions of the trainer, read from its files, runs below.
scope = {"read_json": read_json, "os": os, "json": json}
exec(compile(ast.Module([load], []), "finetune.py", "exec"), scope)
names = {"train_file": "train.json", "dev_file": "val.json", "test_file": "test.json"}
given = SimpleNamespace(data_path=export, meta_file="meta_data.json", item2id_file="smap.json", **names)
train, val, test, meta, item2id, id2item = scope["load_data"](given)

release = open_warehouse(warehouse).release(ref)
sequences = release.table("sequences", ["items"])["items"].to_pylist()
items = release.table("items", ["item_id", "title"]).to_pylist()
assert [id2item[i] for i in range(len(items))] == [one["item_id"] for one in items]
assert set(meta) == set(item2id)
tree = ast.parse(Path(checkout, "recformer", "tokenization.py").read_text())
[kind] = [node for node in tree.body if isinstance(node, ast.ClassDef)]
[encode] = [node for node in kind.body if isinstance(node, ast.FunctionDef) and node.name == "encode_item"]
exec(compile(ast.Module([encode], []), "tokenization.py", "exec"), scope)
words = SimpleNamespace(
    config=SimpleNamespace(max_attr_num=3, max_attr_length=32), item_tokenize=lambda text: text.split()
)
for one in items:
    tokens, types = scope["encode_item"](words, meta[one["item_id"]])
    assert tokens[0] == "title"
    assert 2 in types  # no item is keys alone
    assert len(tokens) == len(types)
print(f"load_data: {len(items):,} items, each with a value, numbered as the release's")
data = RecformerTrainDataset(train, collator=None)
assert [data[k] for k in range(len(data))] == [one[:-2] for one in sequences]
print(f"train: {len(data):,} sequences")
for mode, place in (("val", -2), ("test", -1)):
    data = RecformerEvalDataset(train, val, test, mode, collator=None)
    assert [data[k] for k in range(len(data))] == [(one[:place], [one[place]]) for one in sequences]
    print(f"{mode}: {len(data):,} sequences with their targets")
