"""DDRO's own loading functions and instance builder on `sidmill export --format ddro`.

    python benchmarks/readers/ddro.py CHECKOUT EXPORT WAREHOUSE REF

From outside: T5's words, which are not here, are those of a text split at spaces (a stub of `T5Tokenizer`),
and `trl`, which only training needs, is an empty module. Needs transformers, datasets and torch.
"""

import json
import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import transformers

from sid_warehouse.reader import open_warehouse

checkout, export, warehouse, ref = sys.argv[1:]
for name in ("trl", "trl.trainer", "trl.trainer.dpo_config", "T5ForPretrain"):
    sys.modules[name] = ModuleType(name)
sys.modules["trl"].DPOTrainer = sys.modules["trl.trainer.dpo_config"].DPOConfig = object
sys.modules["T5ForPretrain"].T5ForPretrainDPO = object
transformers.T5Tokenizer = SimpleNamespace(
    from_pretrained=lambda path: SimpleNamespace(
        get_vocab=lambda: {"<unk>": 2, "</s>": 1, "the": 3}, tokenize=str.split
    )
)
sys.path[:0] = [f"{checkout}/src/pretrain", f"{checkout}/src", f"{checkout}/src/data/data_prep/build_t5_data"]
sys.argv = [
    "x", "--data_path", f"{export}/docs.json", "--query_path", f"{export}/train-queries.tsv.gz",
    "--qrels_path", f"{export}/train-qrels.tsv.gz", "--current_data", "query",
]  # fmt: skip
import generate_train_instances as instances  # noqa: E402
import train_ddro_encoder_decoder as dpo  # noqa: E402
from utils.pretrain_dataset import PretrainDataForT5  # noqa: E402
from utils.trie import Trie  # noqa: E402

release = open_warehouse(warehouse).release(ref)
codes = release.table("sids", ["sid"])["sid"].to_pylist()
starts = [32128 + sum(release.vocabulary.levels[:place]) for place in range(len(codes[0]))]
tokens = {
    f"D{item}": [code + at for code, at in zip(sid, starts, strict=True)] for item, sid in enumerate(codes)
}
users = release.table("sequences", ["items"])["items"].to_pylist()

documents = dpo.load_encoded_docids(f"{export}/encoded_docid/pq_docid.txt")
assert documents == tokens
highest = max(map(max, tokens.values()))
print(f"load_encoded_docids: {len(documents)} documents, token ids {starts[0]} to {highest}")
for split, place in (("train", None), ("dev", -2), ("test", -1)):
    queries = dpo.load_query_texts(f"{export}/{split}-queries.tsv.gz")
    pairs = dpo.load_training_data(f"{export}/{split}-triples.tsv", documents, queries)
    assert len(pairs) == len(queries)
    assert all(one["positive_doc_id"] != one["negative_doc_id"] for one in pairs)
    if place:
        wanted = [tokens[f"D{user[place]}"] for user in users]
        assert [one["positive_doc_id"] for one in pairs] == wanted
        own = [[tokens[f"D{item}"] for item in user] for user in users]
        assert not any(one["negative_doc_id"] in mine for one, mine in zip(pairs, own, strict=True))
    print(f"load_query_texts, load_training_data {split}: {len(pairs)} triples")

trie = Trie([[0, *row] for row in tokens.values()])
assert sorted(row[1:] for row in trie) == sorted(tokens.values())
print(f"Trie: {len(tokens)} docids")
with tempfile.TemporaryDirectory() as folder:
    instances.args.output_path = f"{folder}/finetune.json"
    numbers = instances.add_docid_to_vocab(f"{export}/docs.json")
    encoded = instances.get_encoded_docid(f"{export}/encoded_docid/pq_docid.txt")
    instances.gen_query_instance(*numbers[:3], encoded)
    made = [json.loads(line) for line in Path(instances.args.output_path).read_text().splitlines()]
    data = PretrainDataForT5(instances.args.output_path, 128, len(starts), None, None, f"{folder}/cache")
    assert len(made) == release.record["rows"]["train"] == len(data)
    for row in range(0, len(data), 997):
        assert data[row]["docid_labels"].tolist() == tokens[made[row]["query_id"].strip("[]").upper()]
print(f"generate_train_instances.gen_query_instance, PretrainDataForT5: {len(data)} rows, labels the docids")
