"""ActionPiece's own data set and tokenizer on `sidmill export --format actionpiece`.

    python benchmarks/readers/actionpiece.py CHECKOUT EXPORT WAREHOUSE REF

Reads the cache, splits, learns a small vocabulary of pieces and collates, with the trainer's configuration
and the options that the export's README gives. From outside: an accelerator and a log that do nothing, and a
cut through the ring of imports in which commit ae8e61a is stuck; and texts of its configuration, of which it
makes lists of one. Needs torch, faiss, datasets, sentence-transformers, scikit-learn and NumPy below 2.3.
"""

import contextlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np

from sid_warehouse.reader import open_warehouse

checkout, export, warehouse, ref = sys.argv[1:]
sys.path.insert(0, checkout)
# As published its modules import each other in a ring, so that `main.py` stops at once: cut it in two places.
for module, name in (("genrec.utils", "log"), ("genrec.trainer", "Trainer")):
    sys.modules[module] = ModuleType(module)
    setattr(sys.modules[module], name, lambda *_, **__: None)
import genrec.dataset  # noqa: E402

del sys.modules["genrec.utils"]
import genrec.utils  # noqa: E402
from genrec.datasets.AmazonReviews2014.dataset import AmazonReviews2014  # noqa: E402
from genrec.models.ActionPiece.tokenizer import ActionPieceTokenizer  # noqa: E402

release = open_warehouse(warehouse).release(ref)
ids = release.table("items", ["item_id"])["item_id"].to_pylist()
names = release.table("users", ["user_id"])["user_id"].to_pylist()
users = release.table("sequences", ["items"])["items"].to_pylist()
sids = release.table("sids", ["sid"])["sid"].to_pylist()
codes = release.table("sids", ["codes"])["codes"].to_pylist()
given = json.loads(
    Path(export, "README.md").read_text().partition("Settings as JSON: `")[2].partition("`")[0]
)

with tempfile.TemporaryDirectory() as root:
    shutil.copytree(f"{export}/cache", f"{root}/cache")
    size = sum(release.vocabulary.levels) + 5  # a few merges are enough
    given |= {"cache_dir": f"{root}/cache", "rq_n_codebooks": len(codes[0]), "actionpiece_vocab_size": size}
    config = genrec.utils.get_config("ActionPiece", "AmazonReviews2014", None, given)
    config |= {key: one[0] for key, one in config.items() if isinstance(one, list) and len(one) == 1}
    alone = SimpleNamespace(main_process_first=contextlib.nullcontext, is_main_process=False)
    config |= {"accelerator": alone, "device": "cpu", "num_proc": 1}
    dataset = AmazonReviews2014(config)
    split = dataset.split()
    print(f"data set: {dataset.n_users - 1:,} users, {dataset.n_items - 1:,} items, without [PAD]")
    for name, last in (("train", -2), ("val", -1), ("test", None)):
        read = dict(zip(split[name]["user"], split[name]["item_seq"], strict=True))
        assert read == {names[u]: [ids[i] for i in items[:last]] for u, items in enumerate(users)}
        print(f"{name}: {len(read):,} sequences, those of the release up to {last or 'the end'}")
    assert [dataset.id_mapping["id2item"][i + 1] for i in range(len(ids))] == ids
    texts = release.table("items", ["text"])["text"].to_pylist()
    assert [dataset.item2meta[item] for item in ids] == [" ".join(text.split()) for text in texts]

    tokenizer = ActionPieceTokenizer(config, dataset)
    assert tokenizer.item2feat == dict(zip(ids, sids, strict=True))
    vectors = tokenizer._get_sent_embs(dataset)
    stored = np.stack(release.table("embeddings_text", ["vector"])["vector"].to_numpy())
    assert (vectors == stored).all()
    assert tokenizer._get_sem_ids(dataset) == dict(zip(ids, codes, strict=True))
    print(
        f"features: {len(ids):,} SIDs; vectors {vectors.shape}; codes behind rq_n_codebooks; "
        f"{tokenizer.actionpiece.vocab_size} pieces learned on items[:-2]"
    )
    states = tokenizer.tokenize_function({"item_seq": [split["test"]["item_seq"][0]]}, "test")["state_seq"][0]
    feats = [[tokenizer.actionpiece.vocab[token][1] for token in state] for state in states]
    assert feats == [sids[item] for item in users[0][-21:]]
    print(f"tokenized: user 0, {len(feats)} items, their codes those of the release")
