"""PRISM's own data sets, of its tokenizer and of its recommender, on `sidmill export --format prism`.

    python benchmarks/readers/prism.py CHECKOUT EXPORT WAREHOUSE REF

Both modules are loaded from their files, as their packages import the models too. Needs torch and pandas.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np

from sid_warehouse.reader import open_warehouse

checkout, export, warehouse, ref = sys.argv[1:]


def module(path):
    spec = importlib.util.spec_from_file_location(Path(path).stem, Path(checkout, "src", path))
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


release = open_warehouse(warehouse).release(ref)
users = release.table("sequences", ["items"])["items"].to_pylist()
sids = release.table("sids", ["sid"])["sid"].to_pylist()
paths = release.table("items", ["category_path"])["category_path"].to_pylist()


def matrix(name):
    column = release.table(f"embeddings_{name}", ["vector"])["vector"].combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), -1)


items = module("sid_tokenizer/prism/multimodal_dataset.py").PRISMDataset(export, n_layers=len(sids[0]))
assert items.item_ids.tolist() == list(range(1, len(sids) + 1))
assert np.array_equal(items.content_embeddings.numpy(), matrix("text"))
assert np.array_equal(items.collab_embeddings.numpy(), matrix("collaborative"))
assert [texts[1:] for texts in items.tag_texts_per_item] == [list(dict.fromkeys(path)) for path in paths]
assert items.has_popularity
assert len(items[0])
print(f"PRISMDataset: {items.num_items} items, tags by level {items.num_tags_per_level}")

reader = module("recommender/prism/dataset.py")
mapper = reader.SemanticIDMapper(f"{export}/semantic_id_mappings.json", num_layers=len(sids[0]))
tops = [max(column) for column in zip(*sids, strict=True)]
starts = [1 + sum(top + 1 for top in tops[:level]) for level in range(len(tops))]
codes = [[code + start for code, start in zip(sid, starts, strict=True)] for sid in sids]
assert mapper.get_codes_batch(range(1, len(sids) + 1)) == codes
content, collab = reader.load_content_embeddings(export), f"{export}/lightgcn/item_embeddings_collab.npy"
assert np.array_equal(content[len(sids)], matrix("text")[-1])
assert np.array_equal(reader.load_collab_embeddings(collab)[len(sids)], matrix("collaborative")[-1])
print(f"SemanticIDMapper: {len(mapper)} items, {mapper.get_vocab_size()} tokens")
for name, mode, end in (("train", "train", -3), ("valid", "evaluation", -2), ("test", "evaluation", -1)):
    data = reader.GenRecDataset(f"{export}/{name}.parquet", mapper, mode=mode, max_len=20)
    ends = [range(1, len(user) + end + 1) if mode == "train" else [len(user) + end] for user in users]
    targets = [user[at] + 1 for user, places in zip(users, ends, strict=True) for at in places]
    assert [one["target"] for one in data.data] == targets
    assert [data[row]["target"] for row in range(len(data))] == [codes[target - 1] for target in targets]
    print(f"GenRecDataset {name}: {len(data)} samples, targets those of the release's sequences")
