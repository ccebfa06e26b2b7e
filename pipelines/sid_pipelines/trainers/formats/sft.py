"""Instruction data to tune a language model with: questions and answers in the wording of a trainer.

Rows carry the texts in three forms, so that most trainers find theirs: instruction, input and output; one
prompt in the trainer's frame; and chat messages. rl.py gives the same questions with what a reward needs.
"""

import json
import uuid
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from sid_pipelines.instructions.examples import Example
from sid_pipelines.instructions.prepared import Instructions, Leakage
from sid_pipelines.instructions.tasks import TASKS
from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import SPLITS, Feed
from sid_pipelines.trainers.writing.folder import Folder
from sid_warehouse import files

Style = Literal["lc-rec", "minionerec", "gream", "openonerec"]
BATCH = 4096
SHARD = 1000  # examples in a file that OpenOneRec's reader takes whole
MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
TRACE = (
    ("example_id", pa.string()),
    ("task", pa.string()),
    ("template", pa.string()),
    ("split", pa.string()),
    ("user_index", pa.int32()),
    ("item_index", pa.int32()),
    ("sample_row", pa.int64()),
    ("start", pa.int32()),
    ("end", pa.int32()),
)
TEXTS = ("system", "instruction", "input", "output", "prompt")
SCHEMA = pa.schema([*TRACE, *((name, pa.string()) for name in TEXTS), ("messages", pa.list_(MESSAGE))])
CHAT_COLUMNS = ("uuid", "source", "metadata", "images", "videos", "messages")
CHAT = pa.schema([(name, pa.string()) for name in CHAT_COLUMNS])
IDS = uuid.UUID("0c0f2c52-7a55-5d0c-8f6e-3a1d0b6c9e11")  # ours; names each example by release, stage and row


class Worded(Settings):
    """templates: a TOML file in the form of ours that takes the place of a style's own."""

    templates: str = ""

    def told(self) -> dict[str, Any]:
        """Give the file by its name and hash: no path of ours in a folder, and other words make another."""
        path = Path(self.templates)
        known = f"{path.name}, sha256 {files.sha256(path)}" if path.is_file() else path.name
        return super().told() | {"templates": known}


class InstructionSettings(Worded):
    """style: whose wording. templates: a TOML file in the form of ours that takes its place. tasks: with
    commas between, empty for the style's own. dialect: of SIDs, empty for the style's own. max_history:
    items, 0 for the style's own. seed: of the choice among templates. category: what MiniOneRec's prompts
    call the items, empty for the data set's name. leakage: what becomes of examples whose prompt gives the
    answer away or whose target is held out: the export is refused, they are dropped, or they are written
    and only reported.
    """

    style: Style = "lc-rec"
    tasks: str = ""
    dialect: str = ""
    max_history: int = Field(0, ge=0)
    seed: int = 0
    category: str = ""
    leakage: Leakage = "refuse"


class SftSettings(InstructionSettings):
    """style, templates, tasks, dialect, max_history, seed, category, leakage: as in InstructionSettings.

    files: jsonl; parquet; or shards, which OpenOneRec's trainer reads.
    """

    files: Literal["jsonl", "parquet", "shards"] = "jsonl"


def write(feed: Feed, out: Folder, settings: SftSettings) -> str:
    """Write the examples of every split, and what the audit found in them."""
    made = instructions(feed, settings, "sft")
    made.refuse_leaks()
    for split in SPLITS:
        if settings.files == "shards":
            shards(out, split, chat_rows(feed, made.split(split), "sft"))
        elif settings.files == "parquet":
            out.parquet(f"{split}.parquet", _says(split), SCHEMA, tables(rows(made.split(split)), SCHEMA))
        else:
            out.json_lines(f"{split}.jsonl", _says(split), rows(made.split(split)))
    if settings.files == "jsonl":
        out.json("dataset_info.json", "what LLaMA-Factory wants to know of the files", _info(feed), indent=1)
    write_audit(out, made)
    return _readme(feed, made, settings)


def instructions(feed: Feed, settings: InstructionSettings, stage: Literal["sft", "rl"]) -> Instructions:
    """Give the examples that settings ask for; raises RecipeError for settings that are unknown."""
    return Instructions(
        feed, settings.style, templates=settings.templates, tasks=settings.tasks, stage=stage,
        dialect=settings.dialect, max_history=settings.max_history, seed=settings.seed,
        category=settings.category, leakage=settings.leakage, splits=SPLITS,
    )  # fmt: skip


def trace(example: Example) -> dict[str, Any]:
    """Give the columns that tell where an example comes from."""
    return {
        "example_id": example.example_id,
        "task": example.task,
        "template": example.template,
        "split": example.split,
        "user_index": example.user_index,
        "item_index": example.item_index,
        "sample_row": example.row,
        "start": example.start,
        "end": example.end,
    }


def rows(examples: Iterable[Example]) -> Iterator[dict[str, Any]]:
    """Yield what a line or row holds."""
    for one in examples:
        texts = {name: getattr(one, name) for name in TEXTS}
        yield trace(one) | texts | {"messages": one.messages}


def chat_rows(feed: Feed, examples: Iterable[Example], stage: str) -> Iterator[dict[str, str]]:
    """Yield examples as OpenOneRec's chat rows: text columns of JSON, nothing in them but text.

    Its RL reader takes `messages` for a Python literal (verl_rl/recipe/onerec/onerec_recipe.py), so
    characters beyond 16 bits must not be written as two escapes.
    """
    fingerprint = feed.release.record["fingerprint"]
    for one in examples:
        messages = [
            {"role": said["role"], "content": [{"type": "text", "text": said["content"]}]}
            for said in one.messages
        ]
        yield {
            "uuid": str(uuid.uuid5(IDS, f"{fingerprint}/{stage}/{one.example_id}")),
            "source": f"{feed.dataset}_{one.task}",
            "metadata": json.dumps(trace(one)),
            "images": "{}",
            "videos": "{}",
            "messages": json.dumps(messages, ensure_ascii=False),
        }


def shards(out: Folder, split: str, rows: Iterator[dict[str, str]]) -> None:
    """Write chat rows as files of one row group each, and their list."""
    names: list[str] = []
    while some := list(islice(rows, SHARD)):
        names.append(f"part-{len(names):05d}.parquet")
        table = pa.Table.from_pylist(some, CHAT)
        out.parquet(f"{split}/{names[-1]}", f"chat examples of {split}", CHAT, [table])
    out.json(f"{split}/file_list.json", f"the files of {split}, as the trainer's `sources` wants", names)


def tables(rows: Iterable[dict[str, Any]], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield rows as tables."""
    left = iter(rows)
    while some := list(islice(left, BATCH)):
        yield pa.Table.from_pylist(some, schema)


def write_audit(out: Folder, made: Instructions) -> None:
    """Write what the audit found in the examples that were read."""
    out.json("audit.json", "leaks that were looked for, and how many were found", made.report(), indent=1)


def about(feed: Feed, made: Instructions) -> str:
    """Say what was asked, in whose words, what was left out, and what the audit found."""
    style, skipped = made.style, made.skipped
    tasks = "\n".join(f"- `{one}`: {TASKS[one].says}" for one in made.tasks)
    left = ", ".join(f"{n:,} of {task} in {split}" for (task, split), n in sorted(skipped.items()))
    found = ", ".join(
        f"{one['count']:,} x {one['rule']} ({one['split']})"
        for one in made.report()["findings"]
        if one["count"]
    )
    return f"""\
Words: {style.trainer}, `{style.name}`. SIDs are spelled in dialect
`{made.texts.dialect.name}`, histories hold the newest {made.max_history} items. Tasks:

{tasks}

`sample_row` is the row of the sample in the release's `train`, `valid` or `test` table; its history is
`items[start:end]` of the user's sequence, its target the item at `end`. Items' own examples, which all train,
have no user. `template` names the wording: its choice hangs on seed, task, split and row alone.

Rows that no template could be filled for, for want of a history, a title, a description or a query:
{left or "none"}.
The audit found: {found or "nothing"} (`audit.json`)."""


def _says(split: str) -> str:
    return f"the examples of {split}"


def _info(feed: Feed) -> dict[str, Any]:
    columns = {"prompt": "instruction", "query": "input", "response": "output", "system": "system"}
    return {
        f"{feed.dataset}_{split}": {"file_name": f"{split}.jsonl", "columns": columns} for split in SPLITS
    }


def _readme(feed: Feed, made: Instructions, settings: SftSettings) -> str:
    return f"""\
{about(feed, made)}

Every example has its texts three times: `instruction`, `input`, `output` (Alpaca), `messages` (chat), and
`prompt`, one text in the frame of the trainer, which `output` follows. {_start(feed, settings)}"""


def _start(feed: Feed, settings: SftSettings) -> str:
    if settings.files == "shards":
        return (
            "Put `train/file_list.json` under `sources` in the config of OpenOneRec's data set; its reader "
            "takes the names in it from where it runs, and one row group of a file: so files are small. Each "
            "example has its other columns in `metadata`."
        )
    if settings.files == "jsonl":
        return f"LLaMA-Factory: `dataset_dir: THIS_FOLDER`, `dataset: {feed.dataset}_train`."
    return "`datasets.load_dataset('parquet', data_files=...)` reads them."


FORMAT = Format(
    "sft",
    "language models (LC-Rec, MiniOneRec, GREAM, OpenOneRec: their tasks)",
    "questions and answers: JSONL, Parquet, or OpenOneRec's shards",
    write,
    SftSettings,
    papers=(3, 5, 7, 18, 21, 36),
)
