"""GREAM's own data sets, transform.py and reward on `sidmill export --format gream`.

    python benchmarks/readers/gream.py CHECKOUT EXPORT WAREHOUSE REF

CHECKOUT: of Indolent-Kawhi/GRRM. transform.py runs unchanged, as a command, once without chains of thought
and once with one that fills a slot; utils/data.py's SeqRecDataset reads the files; verl/reward_answer.py
judges answers, and transform_rl.py makes prompts of the same files, which are compared with ours. Stubbed:
verl.model_judge.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq

from sid_warehouse.reader import open_warehouse

checkout, export, warehouse, ref = sys.argv[1:]
release = open_warehouse(warehouse).release(ref)
name = release.record["dataset"]
sequences = release.table("sequences", ["items"])["items"].to_pylist()
text = [
    "".join(f"<|{'abcde'[place]}_{code + 1}|>" for place, code in enumerate(sid))
    for sid in release.table("sids", ["sid"])["sid"].to_pylist()
]

with tempfile.TemporaryDirectory() as root:
    shutil.copytree(export, f"{root}/{name}")

    def run(script: str) -> None:
        command = [sys.executable, f"{checkout}/data_process/{script}", "--dataset", name, "--root", root]
        subprocess.run(command, check=True, capture_output=True, text=True)

    run("transform.py")
    align = pq.read_table(f"{root}/{name}/{name}-align.parquet").to_pylist()
    mixed = pq.read_table(f"{root}/{name}/{name}-mix.parquet").to_pylist()
    assert sorted(json.dumps(row["conversations"]) for row in mixed) == sorted(
        json.dumps(row["conversations"]) for row in align
    )
    assert {row["system"] for row in mixed} == {"You are a helpful assistant."}
    print(
        f"transform.py without chains of thought: {len(mixed):,} conversations, those of {name}-align.parquet"
    )
    slot = json.loads(Path(root, name, f"{name}.cot_slots.jsonl").read_text().splitlines()[100])
    slot["assistant_response"] = (
        "**Step 1:** one. **Step 2:** two. **Step 3:** three.\n- **Step 4: Recommend:** cut"
    )
    Path(root, name, "result_by_hand.jsonl").write_text(json.dumps(slot) + "\n")
    run("transform.py")
    mixed = pq.read_table(f"{root}/{name}/{name}-mix.parquet").to_pylist()
    thought = [row for row in mixed if "<think>" in row["conversations"][1]["value"]]
    user = sequences[int(slot["user_id"])]
    history = ", ".join(text[item] for item in user[slot["history_start_index"] : slot["target_index"]])
    assert thought
    assert len(mixed) == len(align) + len(thought)
    assert len({row["conversations"][1]["value"] for row in thought}) == 1
    assert history in thought[0]["conversations"][0]["value"]
    assert thought[0]["conversations"][1]["value"].endswith(
        f"<answer>{text[user[slot['target_index']]]}</answer>"
    )
    print(
        f"transform.py with one chain of thought in a slot: {len(thought)} conversations more, one for each "
        "of its three parts, history and answer those of the slot"
    )

    ours = {
        (row["user_index"], row["end"]): row
        for row in pq.read_table(f"{root}/{name}/{name}-rl.parquet").to_pylist()
    }
    run("transform_rl.py")
    theirs = pq.read_table(f"{root}/{name}/{name}-rl.parquet").to_pylist()
    keys = [(u, end) for u, items in enumerate(sequences) for end in range(4, len(items) - 2)]
    assert set(ours) == set(keys)
    assert len(theirs) == len(keys)
    for key, row in zip(keys, theirs, strict=True):
        for column in ("reward_model", "ability", "data_source"):
            assert ours[key][column] == row[column]
        assert [said["role"] for said in ours[key]["prompt"]] == [said["role"] for said in row["prompt"]]
        past = ", ".join(text[item] for item in sequences[key[0]][: key[1]][-20:])
        assert past in row["prompt"][1]["content"]
        assert past in ours[key]["prompt"][1]["content"]
        assert ours[key]["extra_info"]["type"] == row["extra_info"]["type"]
    print(f"transform_rl.py: {len(theirs):,} prompts of train as ours, ground truths and histories equal")

sys.path.insert(0, checkout)
from utils.data import SeqRecDataset  # noqa: E402

linked = Path(tempfile.mkdtemp())
(linked / name).symlink_to(Path(export).resolve())
args = SimpleNamespace(
    dataset=name, data_path=str(linked), max_his_len=20, his_sep=", ", index_file=".index.json",
    add_prefix=False, sample_valid=True, valid_prompt_id=0,
)  # fmt: skip
test = SeqRecDataset(args, mode="test")
for user, items in enumerate(sequences):
    asked = test[user]
    assert ", ".join(text[item] for item in items[:-1][-20:]) in asked["input_ids"]
    assert asked["labels"] == text[items[-1]]
print(f"utils/data.py, SeqRecDataset: {len(test):,} test prompts, histories and answers equal")

sys.modules["verl"] = types.ModuleType("verl")
judge = sys.modules["verl.model_judge"] = types.ModuleType("verl.model_judge")
judge.model_based_verify = None
sys.path.insert(0, f"{checkout}/verl")
from reward_answer import compute_score  # noqa: E402

row = next(iter(ours.values()))
truth = row["reward_model"]["ground_truth"]
for answer in (truth, next(one for one in text if one != truth)):
    told = f"<think>so</think> therefore <answer>{answer}</answer>"
    print("reward_answer.py:", compute_score(row["data_source"], told, truth, row["extra_info"]))
