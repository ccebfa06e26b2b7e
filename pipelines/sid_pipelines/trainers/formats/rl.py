"""Prompts with what a reward needs, for reinforcement learning on a language model.

Every row has the same reward fields; beside them stand the columns of the style's own trainer: prompt and
completion (MiniOneRec, TRL), verl's chat with `reward_model` (GREAM), or OpenOneRec's messages. No reward is
computed here: it depends on what the model answers.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from sid_pipelines.instructions.examples import Example
from sid_pipelines.instructions.prepared import Instructions
from sid_pipelines.instructions.tasks import TASKS
from sid_pipelines.trainers.base import Format
from sid_pipelines.trainers.feed import SPLITS, Feed
from sid_pipelines.trainers.formats.sft import (
    CHAT,
    MESSAGE,
    TRACE,
    InstructionSettings,
    about,
    chat_rows,
    instructions,
    tables,
    trace,
    write_audit,
)
from sid_pipelines.trainers.writing.folder import Folder

REWARD = (
    ("target_sid", pa.string()),
    ("target_item_id", pa.string()),
    ("target_title", pa.string()),
    ("target_sids", pa.list_(pa.string())),
    ("history_sids", pa.list_(pa.string())),
    ("sharing_sid", pa.int32()),
    ("candidates", pa.int32()),
)
OWN: dict[str, tuple[tuple[str, pa.DataType], ...]] = {
    "text": (("prompt", pa.string()), ("completion", pa.string())),
    "verl": (
        ("data_source", pa.string()),
        ("prompt", pa.list_(MESSAGE)),
        ("ability", pa.string()),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
        ("extra_info", pa.struct([("title", pa.string()), ("type", pa.string()), ("index", pa.int64())])),
    ),
    "messages": tuple((field.name, field.type) for field in CHAT),
}
HOW = {
    "text": (
        "`prompt` and `completion` are what MiniOneRec's RL data sets give TRL's trainer. Its own rewards "
        "look the target up by the history, as text: of samples with equal histories only the last one's "
        "target counts there. A reward that takes `completion` of the row does not have that fault."
    ),
    "verl": (
        "`data.train_files=train.parquet data.val_files=valid.parquet data.prompt_key=prompt` for verl. "
        "GREAM's reward reads `reward_model.ground_truth` and `extra_info.type`: `reason` wants the answer "
        "inside <answer>; `direct` knows SIDs of 4 or 5 codes alone."
    ),
    "messages": (
        "`data.train_files=train.parquet data.val_files=valid.parquet` for OpenOneRec's "
        "`verl_rl/recipe/onerec`: the last message is the ground truth, `source` the data source."
    ),
}


def write(feed: Feed, out: Folder, settings: InstructionSettings) -> str:
    """Write the prompts of every split, and what the audit found in them."""
    made = instructions(feed, settings, "rl")
    made.refuse_leaks()
    schema = schema_of(made)
    for split in SPLITS:
        rows = tables(prompts(feed, made, split), schema)
        out.parquet(f"{split}.parquet", f"prompts of {split} with reward fields", schema, rows)
    write_audit(out, made)
    return f"""\
{about(feed, made)}

Reward fields: `target_sid`, `target_item_id`, `target_title`; `target_sids`, of all targets of a session;
`history_sids`, oldest first; `sharing_sid`, how many items have the target's SID; `candidates`, how many SIDs
there are, all of which a decoder may choose from.

{HOW[made.style.rl]}
"""


def schema_of(made: Instructions) -> pa.Schema:
    """Give the columns of a style's rows."""
    return pa.schema([*TRACE, *OWN[made.style.rl], *REWARD])


def prompts(feed: Feed, made: Instructions, split: str) -> Iterator[dict[str, Any]]:
    """Yield a split's rows."""
    sids = made.texts.sids
    sharing = Counter(sids)
    for number, one in enumerate(made.split(split)):
        reward = {
            "target_sid": sids[one.item_index],
            "target_item_id": feed.item_ids[one.item_index],
            "target_title": made.texts.titles[one.item_index],
            "target_sids": [sids[item] for item in one.targets],
            "history_sids": [sids[item] for item in one.history],
            "sharing_sid": sharing[sids[one.item_index]],
            "candidates": len(sharing),
        }
        yield trace(one) | _own(feed, made, one, number) | reward


def _own(feed: Feed, made: Instructions, one: Example, number: int) -> dict[str, Any]:
    if made.style.rl == "text":
        return {"prompt": one.prompt, "completion": one.output}
    if made.style.rl == "messages":
        return next(chat_rows(feed, [one], "rl"))
    return verl(feed, made.texts.titles[one.item_index], one, number)


def verl(feed: Feed, title: str, one: Example, number: int) -> dict[str, Any]:
    """Give verl's columns of one example, as GREAM's transform_rl.py makes them."""
    reasons = "<answer>" in one.system
    return {
        "data_source": feed.dataset,
        "prompt": one.messages[:-1],
        "ability": "rec" if TASKS[one.task].guesses else "text",
        "reward_model": {"style": "rule", "ground_truth": one.output},
        "extra_info": {"title": title, "type": "reason" if reasons else "direct", "index": number},
    }


FORMAT = Format(
    "rl",
    "reinforcement learning on language models (MiniOneRec, GREAM, OpenOneRec)",
    "prompts with reward fields, in Parquet",
    write,
    InstructionSettings,
    papers=(3, 4, 5, 7, 13),
)
