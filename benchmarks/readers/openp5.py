"""OpenP5's own generation of its training files, and its T5 test set, on `sidmill export --format openp5`.

    python benchmarks/readers/openp5.py CHECKOUT EXPORT WAREHOUSE REF

CHECKOUT: of agiresearch/OpenP5. Its commands run unchanged, in a copy of the export, as they write beside it.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from sid_warehouse.reader import open_warehouse

checkout, export, warehouse, ref = sys.argv[1:]
release = open_warehouse(warehouse).release(ref)
name = release.record["dataset"]
users = release.table("sequences", ["items"])["items"].to_pylist()
sizes = release.vocabulary.levels
sids = [
    "".join(f"<CI{code + sum(sizes[:place])}>" for place, code in enumerate(sid))
    for sid in release.table("sids", ["sid"])["sid"].to_pylist()
]
folder = Path(tempfile.mkdtemp())
shutil.copytree(export, folder / name)
source = Path(checkout) / "src" / "src_llama"
common = [
    "--dataset",
    name,
    "--data_path",
    str(folder),
    "--item_indexing",
    "collaborative",
    "--tasks",
    "sequential",
]
common += [
    "--prompt_file",
    f"{checkout}/prompt.txt",
    "--collaborative_token_size",
    "500",
    "--collaborative_cluster",
    "20",
]


def generated(script: str, *options: str) -> list[dict[str, str]]:
    subprocess.run(
        [sys.executable, script, *common, *options], cwd=source, check=True, stdout=subprocess.DEVNULL
    )
    made = max((folder / name).glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    return json.loads(made.read_text())["data"]


def told(history: list[int], target: int) -> tuple[list[str], str]:
    return [sids[item] for item in history[-10:]], f"{name} item_{sids[target]}"


def read(row: dict[str, str]) -> tuple[list[str], str]:
    return re.findall(r"item_((?:<[^>]*>)+)", row["input"]), row["output"]


rows = generated("generate_dataset.py")
prompts = len(rows) // sum(len(items) - 3 for items in users)
expected = [told(items[:i], items[i]) for items in users for i in range(1, len(items) - 2)]
assert [read(row) for row in rows[::prompts]] == expected
assert "user_1 " in rows[0]["input"]
assert f"user_{len(users)} " in rows[-prompts]["input"]
print(
    f"generate_dataset.py: {len(rows):,} prompts of {len(expected):,} samples, all equal:\n"
    f"  {rows[0]['input']}"
)
for mode, last in (("validation", -2), ("test", -1)):
    rows = generated("generate_dataset_eval.py", "--mode", mode, "--prompt", "seen:0")
    assert [read(row) for row in rows] == [told(items[:last], items[last]) for items in users]
    print(f"generate_dataset_eval.py: {mode} {len(rows):,} rows, all equal")

cache = "user_sequence_collaborative_indexing_500_20_sequential.txt"
(folder / name / cache).unlink()
sys.path.insert(0, f"{checkout}/src/src_t5")
from data.TestDataset import TestDataset  # noqa: E402
from utils import indexing, utils  # noqa: E402

given = indexing.construct_user_sequence_dict(
    utils.ReadLineFromFile(str(folder / name / "user_sequence.txt"))
)
indexing.collaborative_indexing(str(folder), name, given, 500, 20, "sequential", 0)
assert (folder / name / cache).read_bytes() == (Path(export) / cache).read_bytes()
print("indexing.py made the user sequences of our other three files: the same bytes as ours")

args = argparse.Namespace(
    data_path=str(folder), item_indexing="collaborative", collaborative_token_size=500,
    collaborative_cluster=20, collaborative_last_token="sequential",
    collaborative_float32=0, prompt_file=f"{checkout}/prompt.txt",
    max_his=10, his_sep=" , ", his_prefix=1, test_prompt="seen:0", test_filtered=0,
)  # fmt: skip
test = TestDataset(args, name, "sequential")
assert [read(test[i]) for i in range(len(test))] == [told(items[:-1], items[-1]) for items in users]
assert test.all_items == sids
print(f"src_t5 TestDataset: {len(test):,} samples, all equal; {len(set(test.new_token))} new tokens")
