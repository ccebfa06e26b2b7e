"""Instruction data: every example rebuilt from the release, and an audit that can fail."""

import ast
import hashlib
import json
import re
import shutil
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import Run, quickly, run_chain, write_dump

from sid_pipelines.instructions import NAMES, TASKS, Instructions, load, style_named
from sid_pipelines.instructions.audit import RULES, stands_in, words
from sid_pipelines.trainers import TRAINERS, Feed
from sid_pipelines.trainers.export import export
from sid_pipelines.trainers.formats import gream as gream_format
from sid_schemas import RecipeError
from sid_tokenizers.dialects import DIALECTS
from sid_warehouse import parquet
from sid_warehouse.reader import Release

HOSTILE = 'The "{item}" Affair\u2028 100% \\ 😀'
SERIES = ("Harbour (1990)", "Harbour (1990) Again")
TWINS = ("Amélie!", "AMELIE")
TITLES = (*SERIES, *TWINS, HOSTILE, "Lamp", "Quarry", "Meadow", "Orchard")
SPLITS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A release with a series, two items of one title, and a title full of traps.

    User u has the items u, u + 1, ..., u + 6 of 9, in this order.
    """
    folder = tmp_path_factory.mktemp("leaky")
    movies = [
        f"{item:07d}::{title}::{'Drama|Comedy' if item % 2 else 'Horror'}"
        for item, title in enumerate(TITLES)
    ]
    ratings = [
        f"{user + 1}::{(user + step) % 9:07d}::8::{1_300_000_000 + 100 * step + user}"
        for user in range(9)
        for step in range(7)
    ]
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        return run_chain(write_dump(folder, ratings, movies), folder / "w")


def copied(run: Run, to: Path) -> Path:
    """Give a copy of a release's folder, to be spoilt."""
    shutil.copytree(run.release.folder, to)
    return to


def made(release: Release, style: str = "lc-rec", **options: Any) -> Instructions:
    return Instructions(Feed(release), style, **{"leakage": "report", **options})


def counts(instructions: Instructions) -> dict[tuple[str, str], int]:
    """Read all splits; give what the audit found."""
    for split in instructions.splits:
        for _ in instructions.split(split):
            pass
    return {
        (one["rule"], one["split"]): one["count"] for one in instructions.report()["findings"] if one["count"]
    }


def read(folder: Path, split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{split}.jsonl").open(encoding="utf-8")]


# Templates


@pytest.mark.parametrize("name", NAMES)
def test_a_style_has_words_for_its_tasks(name: str) -> None:
    assert resources.files("sid_pipelines.instructions").joinpath("templates", f"{name}.toml").is_file()
    style = style_named(name)
    for stage, tasks in (("sft", style.tasks), ("rl", style.rl_tasks)):
        for task in tasks:
            for split in SPLITS:
                assert style.candidates(task, split, stage), (task, split)  # type: ignore[arg-type]
    for task, templates in style.templates.items():
        for one in templates:
            # What stands in the prompt of the target must be what the task may show.
            shown = {"title": {"title", "description"}, "sid": {"item", "items"}}
            allowed = {field for what in TASKS[task].shows for field in shown[what]}
            assert not (one.asks & {"item", "items", "title", "description", "docid"}) - allowed, one


def test_minionerec_is_worded_as_its_decoder_and_rewards_want() -> None:
    style = style_named("minionerec")
    assert style.frame("sft").endswith("### User Input: \n{input}\n\n### Response:\n")
    assert style.frame("rl") == "### User Input: \n{input}\n\n### Response:\n"
    assert all(one.source for templates in style.templates.values() for one in templates)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[seqrec]]\ninstruction = '{itme}'\noutput = '{item}'", "nearest known one is 'item'"),
        ("[[seqrec]]\ninstruction = '{item.__class__}'\noutput = ''", "unknown key"),
        ("[[seqrec]]\ninstruction = '{item!r}'\noutput = ''", "unknown key"),
        ("[[seqrek]]\noutput = '{item}'", "'seqrec'"),
        ("[[seqrec]]\noutput = '{item}'\nsplit = 'train'", "Extra inputs"),
        ("tasks = [", "expected TOML"),
    ],
)
def test_a_template_file_is_checked(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f"trainer = 'me'\ndialect = 'angle'\ntasks = ['seqrec']\n{text}\n")
    with pytest.raises(RecipeError, match=says):
        load(file)


def test_what_is_unknown_is_refused(leaky: Run) -> None:
    feed = Feed(leaky.release)
    for options, says in (
        ({"style": "lcrec"}, "'lc-rec'"),
        ({"style": "lc-rec", "tasks": "seqrek"}, "'seqrec'"),
        ({"style": "lc-rec", "tasks": "seqrec,seqrec"}, "twice"),
        ({"style": "minionerec", "tasks": "itemsearch"}, "no template"),
        ({"style": "lc-rec", "dialect": "angel"}, "'angle'"),
        ({"style": "lc-rec", "templates": "/nowhere.toml"}, "cannot be read"),
    ):
        with pytest.raises(RecipeError, match=says):
            Instructions(feed, **options)  # type: ignore[arg-type]


# Examples


def test_every_example_is_rebuilt_from_its_columns(leaky: Run, tmp_path: Path) -> None:
    release = leaky.release
    export(release, TRAINERS["sft"], tmp_path / "to", {"leakage": "report", "seed": "7"})
    sids = ["".join(tokens) for tokens in release.table("sids", ["tokens"])["tokens"].to_pylist()]
    items = release.table("items").to_pylist()
    titles = [" ".join(row["title"].replace("\u2028", " ").split()).strip(".!?,;:`") for row in items]
    sequences = release.table("sequences", ["items"])["items"].to_pylist()
    style, seen, asked = style_named("lc-rec"), set(), Counter[str]()
    for split in SPLITS:
        samples = release.table(split).to_pylist()
        for row in read(tmp_path / "to", split):
            number = row["item_index"]
            if row["sample_row"] is None:
                assert (row["user_index"], row["start"], row["end"], split) == (None, None, None, "train")
                key, history = number, []
            else:
                key, sample = row["sample_row"], samples[row["sample_row"]]
                assert {"user_index": row["user_index"], "target": number}.items() <= sample.items()
                assert (row["start"], row["end"]) == (max(sample["start"], sample["end"] - 20), sample["end"])
                assert sequences[row["user_index"]][row["end"]] == number
                history = sequences[row["user_index"]][row["start"] : row["end"]]
            task = row["task"]
            assert row["example_id"] == f"{task}-{split}-{key}"
            assert row["example_id"] not in seen
            seen.add(row["example_id"])
            kinds = Counter(kind for item in history for kind in items[item]["category_path"])
            fields = {
                "item": sids[number],
                "title": titles[number],
                "inters": ", ".join(sids[item] for item in history),
                "categories": ", ".join(items[number]["category_path"]),
                "preference": ", ".join(kind for kind, _ in kinds.most_common(3)),
            }
            fit = [
                (f"lc-rec/{task}/{n}", one)
                for n, one in enumerate(style.templates[task])
                if all(fields.get(field) for field in one.needs)
            ]
            digest = hashlib.blake2b(f"7|{task}|{split}|{key}".encode(), digest_size=8).digest()
            name, one = fit[int.from_bytes(digest, "big") % len(fit)]
            assert row["template"] == name
            assert row["instruction"] == one.instruction.format(**fields)
            assert row["output"] == one.output.format(**fields)
            assert row["prompt"] == style.prompt.format(instruction=row["instruction"])
            assert [said["content"] for said in row["messages"]] == [row["instruction"], row["output"]]
            asked[task, split] += 1
    with_history = {
        split: sum(row["end"] > row["start"] for row in release.table(split).to_pylist()) for split in SPLITS
    }
    for task in style.tasks:
        for split in SPLITS:
            expected = with_history[split] if TASKS[task].of == "samples" else 9 * (split == "train")
            assert asked[task, split] == expected, (task, split)


def test_what_an_example_is_depends_on_no_other_task_and_no_order(leaky: Run) -> None:
    whole = {one.example_id: one for one in made(leaky.release).split("train")}
    some = list(made(leaky.release, tasks="index2item,seqrec").split("train"))
    assert {one.task for one in some} == {"index2item", "seqrec"}
    assert all(whole[one.example_id] == one for one in some)
    others = [one.template for one in made(leaky.release, tasks="seqrec", seed=1).split("train")]
    assert others != [one.template for one in some if one.task == "seqrec"]


@pytest.mark.parametrize("name", [one for one in DIALECTS if one != "plain"])
def test_a_dialect_spells_the_items(name: str, leaky: Run) -> None:
    vocabulary, sids = leaky.release.vocabulary, leaky.release.table("sids", ["sid"])["sid"].to_pylist()
    for one in made(leaky.release, tasks="seqrec", dialect=name).split("test"):
        assert one.output == DIALECTS[name].text(sids[one.item_index], vocabulary)
        assert DIALECTS[name].text(sids[one.history[-1]], vocabulary) in one.prompt


def test_files_of_other_kinds_hold_the_same(leaky: Run, tmp_path: Path) -> None:
    for files in ("jsonl", "parquet", "shards"):
        wanted = {"leakage": "report", "files": files, "style": "openonerec", "tasks": "seqrec,index2item"}
        export(leaky.release, TRAINERS["sft"], tmp_path / files, wanted)
    for split in SPLITS:
        rows = read(tmp_path / "jsonl", split)
        assert pq.read_table(tmp_path / "parquet" / f"{split}.parquet").to_pylist() == rows
        names = json.loads((tmp_path / "shards" / split / "file_list.json").read_text())
        files = [pq.ParquetFile(tmp_path / "shards" / split / name) for name in names]
        assert all(one.num_row_groups == 1 for one in files)
        chats = [row for one in files for row in one.read().to_pylist()]
        assert len({row["uuid"] for row in chats}) == len(chats) == len(rows)
        for chat, row in zip(chats, rows, strict=True):
            told = json.loads(chat["messages"])
            assert ast.literal_eval(chat["messages"]) == told  # how OpenOneRec's RL reader takes it
            assert [(said["role"], said["content"][0]["text"]) for said in told] == [
                (said["role"], said["content"]) for said in row["messages"]
            ]
            assert json.loads(chat["metadata"])["example_id"] == row["example_id"]


# The audit


def test_titles_in_the_prompt_are_caught_dropped_or_kept(leaky: Run, tmp_path: Path) -> None:
    titles = leaky.release.table("items", ["title"])["title"].to_pylist()
    users = leaky.release.table("sequences", ["items"])["items"].to_pylist()
    leaking = set()
    for split in SPLITS:
        for number, row in enumerate(leaky.release.table(split).to_pylist()):
            target = titles[row["target"]]
            shown = {titles[item] for item in users[row["user_index"]][row["start"] : row["end"]]}
            # The first of the series stands in the second's title; the twins are one title to the audit.
            if (target == SERIES[0] and SERIES[1] in shown) or (target in TWINS and shown & set(TWINS)):
                leaking.add(f"titleseqrec-{split}-{number}")
    assert len(leaking) >= 3
    wanted = {"tasks": "titleseqrec,seqrec"}
    with pytest.raises(RecipeError, match=r"target_title_in_prompt: \d+ of .* --set leakage=drop"):
        export(leaky.release, TRAINERS["sft"], tmp_path / "refused", wanted)
    assert not (tmp_path / "refused").exists()
    kept, dropped = {}, {}
    for into, leakage in ((kept, "report"), (dropped, "drop")):
        export(leaky.release, TRAINERS["sft"], tmp_path / leakage, {**wanted, "leakage": leakage})
        for split in SPLITS:
            into.update({row["example_id"]: row for row in read(tmp_path / leakage, split)})
    assert kept.keys() - dropped.keys() == leaking
    assert all(dropped[name] == kept[name] for name in dropped)
    report = json.loads((tmp_path / "report" / "audit.json").read_text())
    found = [one for one in report["findings"] if one["rule"] == "target_title_in_prompt"]
    assert sum(one["count"] for one in found) == len(leaking)
    assert all(one["verdict"] == ("breach" if one["count"] else "ok") for one in found)
    assert set(report["examples"]["target_title_in_prompt"]) <= leaking
    report = json.loads((tmp_path / "drop" / "audit.json").read_text())
    assert sum(report["dropped"].values()) == len(leaking)
    assert not [one for one in report["findings"] if one["verdict"] == "breach"]


def test_sids_alone_give_no_title_away(leaky: Run) -> None:
    assert not {rule for rule, _ in counts(made(leaky.release, tasks="seqrec,fusionseqrec"))} - {
        "target_in_history"
    }


@pytest.mark.parametrize(
    ("instruction", "rule"),
    [
        ("After {inters} comes {title}. Which one is it?", "target_title_in_prompt"),
        ("After {inters} comes {item}. Which one is it?", "target_sid_in_prompt"),
    ],
)
def test_a_spoilt_template_is_caught(instruction: str, rule: str, leaky: Run, tmp_path: Path) -> None:
    file = tmp_path / "spoilt.toml"
    file.write_text(
        "trainer = 'me'\ndialect = 'angle'\ntasks = ['seqrec']\n"
        f"[[seqrec]]\ninstruction = '{instruction}'\noutput = '{{item}}'\n"
    )
    spoilt = made(leaky.release, templates=str(file), leakage="refuse")
    with pytest.raises(RecipeError, match=rule):
        spoilt.refuse_leaks()
    spoilt = made(leaky.release, templates=str(file))
    samples = sum(len(leaky.release.table(split)) for split in SPLITS)
    assert sum(n for (one, _), n in counts(spoilt).items() if one == rule) == samples - sum(
        spoilt.skipped.values()
    )


def test_what_a_task_asks_with_is_no_leak(leaky: Run) -> None:
    found = counts(made(leaky.release, tasks="item2index,index2item"))
    assert found["title_by_design", "train"] == found["sid_by_design", "train"] == 9
    assert found["title_of_several", "train"] == 2  # Amélie, twice
    assert not {rule for rule, _ in found if RULES[rule].strict}


def test_held_out_targets_in_train_are_caught(leaky: Run, tmp_path: Path) -> None:
    folder = copied(leaky, tmp_path / "spoilt")
    shutil.copy(folder / "test.arrow", folder / "train.arrow")
    spoilt = made(Release(folder), tasks="seqrec", splits=("train",))
    assert counts(spoilt) == {("train_target_held_out", "train"): 9, ("train_history_held_out", "train"): 9}
    assert len(spoilt.audit.breaches()) == 2
    assert not counts(made(leaky.release, tasks="seqrec", splits=("train",)))


def test_queries_find_items_and_must_not_name_them(leaky: Run, tmp_path: Path) -> None:
    folder = copied(leaky, tmp_path / "searched")
    part = parquet.parts(folder, "interactions")[0]
    events = pq.read_table(part)
    titles = leaky.release.table("items", ["title"])["title"].to_pylist()
    queries = [
        f"where is {titles[item]}?" if place % 7 == 4 else "something quiet" if place % 2 else None
        for place, item in enumerate(events["item_index"].to_pylist())
    ]
    column = events.schema.get_field_index("query")
    pq.write_table(
        events.set_column(column, events.schema.field(column), pa.array(queries, pa.string())), part
    )
    searched = made(Release(folder), tasks="query2index,itemsearch", style="lc-rec")
    asked = [one for split in SPLITS for one in searched.split(split)]
    by_place = dict(zip(_places(events), queries, strict=True))
    naming = 0
    for one in asked:
        assert one.end is not None
        query = by_place[one.user_index, one.end]
        if one.task == "query2index" or "query" in one.shown:
            assert one.shown["query"] == " ".join((query or "").split())
            naming += words(titles[one.item_index]) in words(query or "")
        assert one.task != "query2index" or query
    found = [one for one in searched.report()["findings"] if one["rule"] == "query_names_target"]
    assert sum(one["count"] for one in found) == naming > 0
    assert {one["verdict"] for one in found if one["count"]} == {"breach"}


def _places(events: pa.Table) -> list[tuple[int, int]]:
    before: Counter[int] = Counter()
    places = []
    for user in events["user_index"].to_pylist():
        places.append((user, before[user]))
        before[user] += 1
    return places


def test_names_and_numbers_are_found_as_wholes() -> None:
    assert words("Amélie") in words("Did you like AMELIE, 2001?")
    assert words("Alien") not in words("Aliens")
    assert words("!?") == ""
    assert stands_in("1 2", "4 1 2 7")
    assert not stands_in("1 2", "1 22, 11 2")
    assert stands_in("<a_1><b_2>", "x<a_1><b_2>y")


# Reinforcement learning


@pytest.mark.parametrize("style", NAMES)
def test_prompts_have_what_rewards_need(style: str, leaky: Run, tmp_path: Path) -> None:
    export(
        leaky.release,
        TRAINERS["rl"],
        tmp_path / "to",
        {"style": style, "tasks": "seqrec", "leakage": "report"},
    )
    release, dialect = leaky.release, DIALECTS[style_named(style).dialect]
    spelled = [
        dialect.text(sid, release.vocabulary) for sid in release.table("sids", ["sid"])["sid"].to_pylist()
    ]
    users = release.table("sequences", ["items"])["items"].to_pylist()
    ids = release.table("items", ["item_id"])["item_id"].to_pylist()
    for split in SPLITS:
        rows = pq.read_table(tmp_path / "to" / f"{split}.parquet").to_pylist()
        assert rows
        for row in rows:
            history = users[row["user_index"]][row["start"] : row["end"]]
            assert row["history_sids"] == [spelled[item] for item in history]
            assert row["target_sid"] == spelled[row["item_index"]] == row["target_sids"][0]
            assert row["target_item_id"] == ids[row["item_index"]]
            assert row["sharing_sid"] == spelled.count(row["target_sid"])
            assert row["candidates"] == len(set(spelled))
            if style in ("lc-rec", "minionerec"):
                assert row["completion"].strip() == row["target_sid"]
                assert row["prompt"].rstrip().endswith("### Response:")
            elif style == "gream":
                assert row["reward_model"] == {"style": "rule", "ground_truth": row["target_sid"]}
                assert [said["role"] for said in row["prompt"]] == ["system", "user"]
                assert row["extra_info"]["type"] == "reason"
                assert len(history) >= 4
            else:
                assert json.loads(row["messages"])[-1]["content"][0]["text"] == row["target_sid"]


# GREAM


def test_gream_reads_its_files(leaky: Run, tmp_path: Path) -> None:
    release, to = leaky.release, tmp_path / "to"
    export(release, TRAINERS["gream"], to, {"epochs": "2", "val_samples": "3", "seed": "5"})
    index = json.loads((to / "small.index.json").read_text())
    codes = release.table("sids", ["sid"])["sid"].to_pylist()
    for item, sid in enumerate(codes):
        found = [int(re.fullmatch(r"<\|([a-z])_(\d+)\|>", token)[2]) for token in index[str(item)]]  # type: ignore[index]
        assert found == [code + 1 for code in sid]
    inter = json.loads((to / "small.inter.json").read_text())
    for line in (to / "small.cot_slots.jsonl").open():
        slot = json.loads(line)
        # transform.py takes the history and its target as items[start : end + 2].
        whole = inter[slot["user_id"]][slot["history_start_index"] : slot["history_end_index"] + 2]
        assert whole[-1] == inter[slot["user_id"]][slot["target_index"]]
        assert len(whole) == slot["history_length"] + 1
        assert slot["target_index"] < len(inter[slot["user_id"]]) - 2
    align = pq.read_table(to / "small-align.parquet").to_pylist()
    once = [one.example_id for one in made(release, "gream", splits=("train",)).split("train")]
    assert [row["example_id"] for row in align] == once * 2
    assert [row["template"] for row in align[: len(once)]] != [row["template"] for row in align[len(once) :]]
    for row in align:
        assert [said["from"] for said in row["conversations"]] == ["human", "gpt"]
    assert json.loads((to / "small.review.json").read_text()) == {}
    val = pq.read_table(to / "small-val.parquet").to_pylist()
    assert len(val) == min(3, len(release.table("valid")))
    for row in val:
        user = inter[str(row["user_index"])]
        assert row["reward_model"]["ground_truth"] == "".join(index[str(user[-2])])


def test_gream_refuses_tokens_that_its_model_lacks(
    leaky: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gream_format, "CODES", 3)
    with pytest.raises(RecipeError, match=r"out of 3, the tokens that .* adds; got"):
        export(leaky.release, TRAINERS["gream"], tmp_path / "to", {})
    assert not (tmp_path / "to").exists()
