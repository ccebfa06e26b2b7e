"""GREAM: LC-Rec's files in its dialect, conversations to tune with, chat prompts with rewards for verl.

Its chains of thought are written by a language model outside (`data_process/construct_cot.py`): where they
belong is in `<DS>.cot_slots.jsonl`, and its own `transform.py` puts them between our conversations.
"""

import heapq
from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa
from pydantic import Field

from sid_pipelines.instructions.examples import draw
from sid_pipelines.instructions.prepared import Instructions, Leakage
from sid_pipelines.instructions.templates import Stage
from sid_pipelines.trainers.base import Format, Name
from sid_pipelines.trainers.feed import Feed
from sid_pipelines.trainers.formats.lc_rec import item_texts, write_inter
from sid_pipelines.trainers.formats.rl import OWN, verl
from sid_pipelines.trainers.formats.sft import TRACE, Worded, about, tables, trace, write_audit
from sid_pipelines.trainers.writing.folder import Folder
from sid_tokenizers.dialects import DIALECTS

READER = "GREAM"
LEVELS, CODES = 5, 256  # tokens <|a_1|> to <|e_256|>, all that scripts/construct_model.py adds
SAID = pa.struct([("from", pa.string()), ("value", pa.string())])
ALIGN = pa.schema([*TRACE, ("conversations", pa.list_(SAID))])
RL = pa.schema([*TRACE, *OWN["verl"]])


class GreamSettings(Worded):
    """name: of the data set in file names, empty for the release's. tasks: with commas between, empty for
    GREAM's own. seed: of the choice among templates. leakage: what becomes of examples whose prompt gives the
    answer away or whose target is held out: the export is refused, they are dropped, or they are written and
    only reported.

    epochs: how often every example stands in the conversations, each time in other words; `transform.py` cuts
    them in three parts. val_samples: of the valid split, drawn by hash, 0 for all.
    """

    name: Name = ""
    tasks: str = ""
    seed: int = 0
    leakage: Leakage = "refuse"
    epochs: int = Field(3, ge=1)
    val_samples: int = Field(1000, ge=0)


def write(feed: Feed, out: Folder, settings: GreamSettings) -> str:
    """Write the files of one data set."""
    feed.require_leave_one_out(READER)
    feed.require_levels(READER)
    feed.require_prefix_free(READER)
    _require_tokens(feed)
    rounds = [_instructions(feed, settings, "sft", number) for number in range(settings.epochs)]
    asked = _instructions(feed, settings, "rl", 0)
    for made in (*rounds, asked):
        made.refuse_leaks()
    name = settings.name or feed.dataset
    _write_base(feed, out, name)
    says = f"examples of train, {settings.epochs} times over, as data_process/get_align.py makes them"
    out.parquet(f"{name}-align.parquet", says, ALIGN, tables(_conversations(rounds), ALIGN))
    _write_rl(feed, out, name, asked, settings)
    says = "train samples that a chain of thought may be written for; assistant_response is to be filled in"
    out.json_lines(f"{name}.cot_slots.jsonl", says, _slots(feed, asked))
    write_audit(out, rounds[0])
    out.json("audit-rl.json", "the same for the prompts", asked.report(), indent=1)
    return f"""\
{about(feed, rounds[0])}

- Put the folder at `data/{name}`. `python data_process/transform.py --dataset {name}` makes
  `{name}-mix.parquet` of `{name}-align.parquet` and of every `result_*.jsonl` beside it; move that to
  `LLaMA-Factory/data`, and name it in `dataset_info.json` as the repository does with its own (sharegpt;
  columns conversations and system).
- Chains of thought: none are here, as a language model writes them. `{name}.cot_slots.jsonl` has the samples
  that they belong to, in the columns of `result_*.jsonl`. `data_process/construct_cot.py` writes
  `result_<model>.jsonl` from the files here; it shows the model the target: so its text is cut at step 4.
- RL: `TRAIN_FILE={name}-rl.parquet TEST_FILE={name}-val.parquet` in `scripts/run.sh`. Its reward wants the
  answer inside <answer>, after <think>.
- `{name}.review.json` is empty: `transform.py` opens it and reads nothing in it.
- Tasks `itemsearch` and `preferenceobtain` are made of queries and categories here; the repository has a
  language model write intentions and preferences (`construct_preference.py`).
- `eval/` asks in the repository's own words. Where that matters, train with them: `--set templates=FILE`.
"""


def _require_tokens(feed: Feed) -> None:
    longest, codes = feed.vocabulary.length, max(feed.vocabulary.levels)
    if longest > LEVELS or codes > CODES:
        raise feed.refuse(
            READER,
            f"SIDs of up to {LEVELS} codes out of {CODES}, the tokens that scripts/construct_model.py adds",
            f"{longest} codes out of {codes}",
            "Choose fewer [tokenize] levels or smaller ones",
        )


def _instructions(feed: Feed, settings: GreamSettings, stage: Stage, number: int) -> Instructions:
    tunes = stage == "sft"
    return Instructions(
        feed, "gream", templates=settings.templates, tasks=settings.tasks if tunes else "", stage=stage,
        seed=settings.seed + number, leakage=settings.leakage,
        splits=("train",) if tunes else ("train", "valid"),
    )  # fmt: skip


def _write_base(feed: Feed, out: Folder, name: str) -> None:
    pipe, vocabulary = DIALECTS["pipe"], feed.vocabulary
    write_inter(feed, out, name)
    rows = ((str(i), pipe.tokens(sid[sid >= 0].tolist(), vocabulary)) for i, sid in enumerate(feed.sids))
    out.json_object(f"{name}.index.json", "the SID of every item, as its tokens, codes from 1", rows)
    out.json_object(f"{name}.item.json", "the texts of every item", item_texts(feed))
    out.json_object(f"{name}.review.json", "empty: releases have no reviews", ())


def _conversations(rounds: list[Instructions]) -> Iterator[dict[str, Any]]:
    for made in rounds:
        for one in made.split("train"):
            said = (("human", one.user_text), ("gpt", one.output))
            yield trace(one) | {"conversations": [{"from": who, "value": text} for who, text in said]}


def _write_rl(feed: Feed, out: Folder, name: str, made: Instructions, settings: GreamSettings) -> None:
    titles = made.texts.titles

    def rows(split: str) -> Iterator[dict[str, Any]]:
        for number, one in enumerate(made.split(split)):
            yield trace(one) | verl(feed, titles[one.item_index], one, number)

    out.parquet(f"{name}-rl.parquet", "prompts of train with their reward", RL, tables(rows("train"), RL))
    valid = rows("valid")
    if settings.val_samples:
        valid = iter(heapq.nsmallest(settings.val_samples, valid, key=partial(_drawn, settings.seed)))
    out.parquet(f"{name}-val.parquet", "prompts of valid with their reward", RL, tables(valid, RL))


def _drawn(seed: int, row: dict[str, Any]) -> int:
    return draw(seed, "val", "valid", row["sample_row"])


def _slots(feed: Feed, made: Instructions) -> Iterator[dict[str, Any]]:
    """Yield the columns of construct_cot.py's results, for train samples with a history as long as RL's."""
    for batch in feed.samples("train", max_history=made.max_history):
        places = (batch.user.tolist(), batch.start.tolist(), batch.end.tolist())
        for user, start, end in zip(*places, strict=True):
            if end - start >= made.style.rl_min_history:
                yield {
                    "user_id": str(user),
                    "target_index": end,
                    "history_length": end - start,
                    "history_start_index": start,
                    "history_end_index": end - 1,
                    "assistant_response": None,
                }


FORMAT = Format(
    "gream",
    "GREAM (Indolent-Kawhi/GRRM at d85bd17)",
    "LC-Rec's files, conversations, RL prompts, slots for chains of thought",
    write,
    GreamSettings,
    papers=(7,),
    protocols=("leave-one-out",),
)
