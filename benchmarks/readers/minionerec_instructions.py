"""The texts of MiniOneRec's own data sets against `sidmill export --format sft|rl --set style=minionerec`.

    python benchmarks/readers/minionerec_instructions.py CHECKOUT EXPORT SFT RL

CHECKOUT: of AkaliKong/MiniOneRec. EXPORT: of format minionerec, which its data sets read. SFT: of format sft
with style=minionerec, files=parquet, leakage=report, and category as the trainer calls EXPORT's. RL: of
format rl, style and leakage the same. The tokenizer of a language model is stood in for by
plain_tokenizer.py, by single bytes.
"""

import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow.parquet as pq
from plain_tokenizer import plain_tokenizer

checkout, export, sft, rl = sys.argv[1:]
sys.path.insert(0, checkout)
import data  # noqa: E402

category, called = "Industrial_and_Scientific", "industrial and scientific items"
files = {split: next(Path(export, split).glob(f"{category}*11.csv")) for split in ("train", "valid", "test")}
index, items = (f"{export}/index/{category}.{kind}.json" for kind in ("index", "item"))
tokens = sorted({token for sid in json.loads(Path(index).read_text()).values() for token in sid})
tokenizer = plain_tokenizer(tokens, bos=False)
common = {"tokenizer": tokenizer, "max_len": 10**6, "category": called}


def theirs(dataset: object) -> Counter[tuple[str, str]]:
    """Give (prompt, answer) of a data set, whether it holds text or numbers of tokens."""
    told: Counter[tuple[str, str]] = Counter()
    for i in range(len(dataset)):
        one = dataset[i]
        if "prompt" in one:
            told[one["prompt"], one["completion"]] += 1
            continue
        labels = [token for token in one["labels"] if token != -100]
        prompt = tokenizer.decode(one["input_ids"][: -len(labels)]).removeprefix("<s>")
        told[prompt, tokenizer.decode(labels).removesuffix("</s>")] += 1
    return told


def ours(folder: str, split: str, answer: str, *tasks: str) -> Counter[tuple[str, str]]:
    columns = pq.read_table(f"{folder}/{split}.parquet", columns=["task", "prompt", answer])
    return Counter((row["prompt"], row[answer]) for row in columns.to_pylist() if row["task"] in tasks)


def compare(name: str, dataset: object, own: Counter[tuple[str, str]], *, tells: bool = False) -> None:
    """Compare. tells: its prompts end with the answer (data.py 789 and 941), which ours do not."""
    told = theirs(dataset)
    if tells:
        assert all(prompt.endswith(answer.strip("\n")) for prompt, answer in told)
        told = Counter(
            {(prompt.removesuffix(answer.strip("\n")), answer): n for (prompt, answer), n in told.items()}
        )
        name += ", whose own prompts end with the answer: without it"
    assert told == own, (name, *list((told - own).items())[:1], *list((own - told).items())[:1])
    print(f"{name}: {sum(told.values()):,} prompts and answers, equal byte for byte")


for split, kind in (
    ("train", data.SidSFTDataset),
    ("valid", data.SidSFTDataset),
    ("test", data.EvalSidDataset),
):
    compare(
        f"sft {kind.__name__} {split}", kind(files[split], **common), ours(sft, split, "output", "seqrec")
    )
feats = data.SidItemFeatDataset(items, index, max_len=10**6, tokenizer=tokenizer)
compare("sft SidItemFeatDataset", feats, ours(sft, "train", "output", "item2index", "index2item"), tells=True)
for kind, task in (
    (data.FusionSeqRecDataset, "fusionseqrec"),
    (data.TitleHistory2SidSFTDataset, "titleseqrec"),
):
    compare(
        f"sft {kind.__name__} test",
        kind(files["test"], items, index, **common),
        ours(sft, "test", "output", task),
    )
sid = data.SidDataset(files["train"], category=called)
compare("rl SidDataset train", sid, ours(rl, "train", "completion", "seqrec"))
compare(
    "rl RLSeqTitle2SidDataset test",
    data.RLSeqTitle2SidDataset(files["test"]),
    ours(rl, "test", "completion", "titleseqrec"),
)
feats = data.RLTitle2SidDataset(items, index)
feats.inputs = [one for one in feats.inputs if "Which item has the title" in one["prompt"]]
feats.data = feats.inputs
compare("rl RLTitle2SidDataset titles", feats, ours(rl, "train", "completion", "item2index"), tells=True)

answers = defaultdict(list)  # rl.py 159 looks rewards up by prompt, then by history
for one in (sid[i] for i in range(len(sid))):
    answers[sid.prompt2history[one["prompt"]]].append(one["completion"])
wrong = sum(answer != sid.history2target[history] for history, given in answers.items() for answer in given)
print(
    f"rl.py's reward: {wrong:,} of {len(sid):,} train prompts are judged by another sample's target, "
    "as their histories are equal"
)
