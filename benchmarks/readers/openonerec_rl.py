"""OpenOneRec's own RL data set and rewards on `sidmill export --format rl --set style=openonerec`.

    python benchmarks/readers/openonerec_rl.py CHECKOUT RL WAREHOUSE REF

CHECKOUT: of Kuaishou-OneRec/OpenOneRec. Its OneRecDataset reads the Parquet files through `datasets`, makes
prompts and ground truths, and drops long ones; compute_score judges answers. Qwen3's tokenizer is stood in
for by plain_tokenizer.py. Stubbed: omegaconf (types only), and of verl a copy that stays local and two
tensor helpers.
"""

import json
import sys
import types

import pyarrow.parquet as pq
import torch
from plain_tokenizer import plain_tokenizer

from sid_warehouse.reader import open_warehouse

checkout, rl, warehouse, ref = sys.argv[1:]
sys.path.insert(0, f"{checkout}/verl_rl/recipe/onerec")


def stub(name: str, **members: object) -> None:
    module = sys.modules[name] = types.ModuleType(name)
    module.__dict__.update(members)


stub("omegaconf", DictConfig=dict, ListConfig=list)
for package in ("verl", "verl.utils"):
    stub(package)
stub("verl.utils.fs", copy_to_local=lambda src, cache_dir, use_shm: src)
stub("verl.utils.model", compute_position_id_with_mask=lambda mask: mask.cumsum(-1) - 1)
stub(
    "verl.utils.torch_functional",
    postprocess_data=lambda input_ids, attention_mask, **_: (input_ids, attention_mask),
)
sys.modules["verl.utils"].torch_functional = sys.modules["verl.utils.torch_functional"]
import transformers  # noqa: E402

transformers.ProcessorMixin = getattr(transformers, "ProcessorMixin", object)
from onerec_recipe import OneRecDataset, collate_fn, compute_score  # noqa: E402

release = open_warehouse(warehouse).release(ref)
sequences = release.table("sequences", ["items"])["items"].to_pylist()
text = [
    "<|sid_begin|>" + "".join(f"<s_{'abc'[place]}_{code}>" for place, code in enumerate(sid)) + "<|sid_end|>"
    for sid in release.table("sids", ["sid"])["sid"].to_pylist()
]
tokenizer = plain_tokenizer([f"<s_{level}_{code}>" for level in "abc" for code in range(64)])
config = {"max_prompt_length": 10240, "enable_think": True}  # as run_grpo.sh, with thinking
for split in ("train", "valid", "test"):
    file = f"{rl}/{split}.parquet"
    dataset = OneRecDataset(file, tokenizer, config)
    samples = release.table(split).to_pylist()
    written = pq.read_table(file).to_pylist()
    assert len(dataset) == len(written) == len(samples)
    for row, source in zip(dataset.dataframe, written, strict=True):
        sample = samples[source["sample_row"]]
        history = sequences[sample["user_index"]][sample["start"] : sample["end"]][-512:]
        assert [said["role"] for said in row["prompt"]] == ["system", "user"]
        assert "".join(text[item] for item in history) in row["prompt"][1]["content"]
        assert row["prompt"][1]["content"].endswith("/think")
        assert row["reward_model"] == {"ground_truth": text[sample["target"]], "style": "rule"}
    print(f"OneRecDataset {split}: {len(dataset):,} prompts, histories and ground truths equal")

rows = [dataset[i] for i in range(3)]
assert "".join(text[item] for item in sequences[rows[0]["user_index"]][:-1][-512:]) in tokenizer.decode(
    rows[0]["input_ids"]
)
assert rows[0]["source"] == f"{release.record['dataset']}_seqrec"
del rows[1:]
batch = collate_fn(rows)
assert isinstance(batch["input_ids"], torch.Tensor)
truth, other = rows[0]["reward_model"]["ground_truth"], text[0]
right = compute_score(rows[0]["source"], f"<think>long enough to count</think>{truth}", truth, {})
wrong = compute_score(rows[0]["source"], f"<think>long enough to count</think>{other}", truth, {})
assert right["score"] == right["hit_reward"] == right["format_reward"] == 1.0
assert wrong["score"] == 0.0
print(f"compute_score: {json.dumps(right)} for the target, score {wrong['score']} for another item")
