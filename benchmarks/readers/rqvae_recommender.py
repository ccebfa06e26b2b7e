"""RQ-VAE-Recommender's own `AmazonReviews` and `SeqData` on `sidmill export --format rqvae-recommender`.

    python benchmarks/readers/rqvae_recommender.py CHECKOUT EXPORT WAREHOUSE REF

Its `process` embeds texts with sentence-t5-xxl (11 GB), which is put aside from outside:
`_encode_text_feature` keeps the texts and gives zeros. Needs torch, torch_geometric, polars, pandas, einops,
gin-config, sentence-transformers.
"""

import shutil
import sys
import tempfile

import torch

from sid_warehouse.reader import open_warehouse

checkout, export, warehouse, ref = sys.argv[1:]
sys.path.insert(0, checkout)
from data import amazon, processed  # noqa: E402

release = open_warehouse(warehouse).release(ref)
users = release.table("sequences", ["items"])["items"].to_pylist()
items = release.table("items", ["title", "brand", "category_path", "price"]).to_pylist()
name = release.record["dataset"]
texts: list[str] = []


def kept(sentences: object) -> torch.Tensor:
    """Keep the texts that the trainer would embed; give zeros for vectors."""
    texts.extend(sentences)
    return torch.zeros(len(texts), 768)


amazon.AmazonReviews._encode_text_feature = staticmethod(kept)
with tempfile.TemporaryDirectory() as root:
    shutil.copytree(f"{export}/raw", f"{root}/raw")
    given = {"root": root, "dataset": processed.RecDataset.AMAZON, "split": name}
    test = processed.SeqData(is_train=False, **given)
    train = processed.SeqData(is_train=True, subsample=True, **given)
assert len(texts) == len(items)
for text, item in zip(texts, items, strict=True):
    assert text.startswith(f"Title: {item['title']}; Brand: {item['brand'] or 'Unknown'}; "), text
    assert f"Categories: {item['category_path']}; " in text, text
print(f"items: {len(texts):,} texts, in the release's order; the first: {texts[0]!r}")
for user, stored in enumerate(users):
    history = test.sequence_data["itemId"][user]
    assert history[history >= 0].tolist() == stored[-21:-1]
    assert int(test.sequence_data["itemId_fut"][user]) == stored[-1]
    assert int(test.sequence_data["userId"][user]) == user + 1
    assert train.sequence_data["itemId"][user] == stored[:-2]
    assert int(train.sequence_data["itemId_fut"][user]) == stored[-2]  # its flaw: the validation target
print(f"test: {len(test):,} users, the newest 20 items before the last one, and that as target")
print(f"train: {len(train):,} users, items[:-2], and items[-2] as target, the release's validation target")
