"""OpenOneRec's own prompt builders and training dataset on `sidmill export --format openonerec`.

    python benchmarks/readers/openonerec.py CHECKOUT EXPORT WAREHOUSE REF

CHECKOUT: of Kuaishou-OneRec/OpenOneRec. Needs webdataset, easydict, sortedcontainers, torchdata, fastparquet.
Builders run unchanged, as commands. The loader runs with one rank (gloo) and one worker. plain_tokenizer.py
stands in for Qwen3's tokenizer, a bare config of transformers for its model's. Stubbed: what reading does not
call.
"""

import importlib.machinery
import json
import os
import subprocess
import sys
import tempfile
import types
from itertools import pairwise
from pathlib import Path

import pandas as pd
import torch.distributed as dist
from plain_tokenizer import plain_tokenizer
from transformers import Qwen2Config

from sid_tokenizers.dialects import DIALECTS
from sid_warehouse.reader import open_warehouse

checkout, export, warehouse, ref = sys.argv[1:]
export = str(Path(export).resolve())
release = open_warehouse(warehouse).release(ref)
vocabulary, onerec = release.vocabulary, DIALECTS["onerec"]
sequences = release.table("sequences", ["items"])["items"].to_pylist()
text = [
    "<|sid_begin|>" + "".join(f"<s_{'abc'[place]}_{code}>" for place, code in enumerate(sid)) + "<|sid_end|>"
    for sid in release.table("sids", ["sid"])["sid"].to_pylist()
]
samples = []
for row in release.table("train", ["user_index", "start", "end", "target"]).to_pylist():
    items = sequences[row["user_index"]][row["start"] : row["end"]][-512:]
    samples.append((row["user_index"], "".join(text[item] for item in items), text[row["target"]]))


def built(script: str, *options: str) -> pd.DataFrame:
    to = tempfile.mkdtemp()
    command = [sys.executable, f"{checkout}/data/onerec_data/{script}", "--output_dir", to, *options]
    command += ["--pid2sid", f"{export}/pid2sid.parquet"]
    subprocess.run(command, check=True, capture_output=True)
    return pd.read_parquet(f"{to}/train.parquet")


rows = built("pretrain/video_rec.py", "--input", f"{export}/metadata.parquet")
told = [json.loads(one)[0]["text"] for one in rows["segments"]]
assert told == [history + target for _, history, target in samples]
assert [json.loads(one)["uid"] for one in rows["metadata"]] == [user for user, _, _ in samples]
print(f"pretrain/video_rec.py: {len(rows):,} rows of split 0, text and uid equal")
rows = built("sft/video_rec.py", "--input", f"{export}/metadata.parquet", "--seed", "1")
for messages, (_, history, target) in zip(rows["messages"], samples, strict=True):
    _, user, assistant = json.loads(messages)
    assert history in user["content"][0]["text"]
    assert assistant["content"][0]["text"] == target
print(f"sft/video_rec.py: {len(rows):,} rows, histories and answers equal")
rows = built("sft/item_understand.py", "--input", f"{export}/pid2caption.parquet", "--seed", "1")
captions = release.table("items", ["text"])["text"].to_pylist()
assert len(rows) == len(text)
for messages, sid, caption in zip(rows["messages"], text, captions, strict=True):
    _, user, assistant = json.loads(messages)
    assert sid in user["content"][0]["text"]
    assert caption in assistant["content"][0]["text"]
print(f"sft/item_understand.py: {len(rows):,} rows, SIDs and texts equal")


class Unneeded(types.ModuleType):
    """Any package that the trainer imports and reading does not call."""

    __path__ = ()

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return object


class Stubs:
    """Stand in for what is not installed and for the trainer's training half."""

    names = (
        "onerec_llm.models",
        "deepspeed",
        "apex",
        "flash_attn",
        "torchao",
        "liger_kernel",
        "wandb",
        "tensorboard",
    )

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        wanted = any(name == one or name.startswith(f"{one}.") for one in self.names)
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if wanted else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return Unneeded(spec.name)

    def exec_module(self, module: types.ModuleType) -> None: ...


sys.meta_path.insert(0, Stubs())
sys.path.insert(0, f"{checkout}/pretrain")
from onerec_llm.data.dataloaders import get_dataloader  # noqa: E402

model = tempfile.mkdtemp()
tokenizer = plain_tokenizer(onerec.strings(vocabulary))
first = len(tokenizer) - len(onerec.strings(vocabulary))
tokenizer.save_pretrained(model)
Qwen2Config(pad_token_id=0).save_pretrained(model)
os.environ |= {
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29577",
    "RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_RANK": "0",
}
dist.init_process_group("gloo")
settings = {"base_model_dir": model, "max_length": 20_000, "cut_to_pad": 1, "local_shuffle_buffer_size": 64,
            "itemic_id_range": [first, len(tokenizer) - 1]}  # fmt: skip
for kind in ("pretrain", "sft"):
    os.chdir(f"{export}/{kind}")
    loader = get_dataloader("chat_completion_parquet", sources="file_list.json", num_workers=1, **settings)
    left = {history + target: (history, target) for _, history, target in samples}
    seen = 0
    for number, packed in enumerate(loader):
        ids, mask, trained = (packed[key][0] for key in ("input_ids", "itemic_id_mask", "loss_mask"))
        ends = packed["cu_seqlens"].tolist()
        for start, end in pairwise(ends[:-1]):
            if end > 19_000:
                break  # the last sample of a pack is cut
            items = tokenizer.decode(ids[start:end][mask[start:end].bool()])
            assert items in left, items
            if kind == "sft":
                answer = tokenizer.decode(ids[start:end][trained[start:end].bool()])
                assert answer == left[items][1], answer
            else:
                assert trained[start:end][mask[start:end].bool()].all()
            seen += 1
        if number == 20:
            break
    print(
        f"get_dataloader, {kind}: {seen:,} samples of 21 packs, each one of the release's, "
        + ("the answer alone trained" if kind == "sft" else "all SIDs trained")
    )
dist.destroy_process_group()
