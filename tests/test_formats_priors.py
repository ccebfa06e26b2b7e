"""Formats of histories, sessions, lists as shown and queries: what their readers demand, value by value."""

import ast
import csv
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import Run, quickly, run_chain, small_dump

from sid_pipelines.trainers import TRAINERS
from sid_pipelines.trainers.export import export
from sid_pipelines.trainers.formats import human_priors
from sid_pipelines.trainers.reading.lists import ranges
from sid_pipelines.trainers.reading.negatives import Negatives
from sid_pipelines.trainers.reading.words import words_of
from sid_schemas import RecipeError
from sid_schemas.tables import EVENT_TYPES, SPLIT_NAMES
from sid_warehouse.reader import Release


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A release with SIDs of two embeddings and of users."""
    folder = tmp_path_factory.mktemp("several")
    recipe = small_dump(folder)
    two = '[[embed]]\n[[embed]]\nmodality = "collaborative"\nmodel = "ppmi-svd"\ndim = 4\n'
    recipe.write_text(recipe.read_text().replace("[tokenize]\n", two + "[tokenize]\n"))
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        more = ("tokenize.vectors=collaborative", 'tokenize.each=["text"]', "users.levels=[3, 2]")
        return run_chain(recipe, folder / "w", *more).release


def written(release: Release, name: str, to: Path, /, **given: str) -> Path:
    export(release, TRAINERS[name], to / name, given)
    return to / name


def histories(release: Release) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in release.table("interactions").to_pylist():
        found[row["user_index"]].append(row)
    return found


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


# -- whole histories ---------------------------------------------------------------------------------


def test_events_are_those_of_the_release(searched: Run, tmp_path: Path) -> None:
    folder = written(searched.release, "events", tmp_path)
    rows = pq.read_table(folder / "histories.parquet").to_pylist()
    truth, names = histories(searched.release), json.loads((folder / "categories.json").read_text())
    paths = searched.release.table("items", ["category_path"])["category_path"].to_pylist()
    ids = searched.release.table("users", ["user_id"])["user_id"].to_pylist()
    assert [row["user_index"] for row in rows] == sorted(truth)
    for row in rows:
        mine = truth[row["user_index"]]
        assert row["user_id"] == ids[row["user_index"]]
        assert row["items"] == [one["item_index"] for one in mine]
        assert row["ts"] == [one["ts"] for one in mine]
        assert row["gap"] == [-1, *(b - a for a, b in zip(row["ts"], row["ts"][1:], strict=False))]
        assert [EVENT_TYPES[one] for one in row["event_type"]] == [one["event_type"] for one in mine]
        assert [SPLIT_NAMES[one] for one in row["split"]] == [one["split"] for one in mine]
        for name in ("value", "query", "position"):
            assert row[name] == [one[name] for one in mine]
        sessions = list(dict.fromkeys(one["session_id"] for one in mine))
        assert row["session"] == [sessions.index(one["session_id"]) for one in mine]
        for item, category in zip(row["items"], row["category"], strict=True):
            assert names[category] == (" ".join(paths[item][0].split()) if paths[item] else "")
    assert names[0] == ""
    assert any(name.startswith('3 Star, "x" y') for name in names)  # one line, whatever the source has


def test_items_have_their_sids_beside_them(small: Run, tmp_path: Path) -> None:
    rows = pq.read_table(written(small.release, "events", tmp_path) / "items.parquet")
    assert rows["item_index"].to_pylist() == list(range(len(rows)))
    assert rows["sid"].to_pylist() == small.release.table("sids", ["sid"])["sid"].to_pylist()
    first = small.release.table("items", ["category_path"])["category_path"].to_pylist()
    assert [bool(one) for one in rows["category"].to_pylist()] == [bool(path) for path in first]


def test_a_bound_keeps_the_newest_events(small: Run, tmp_path: Path) -> None:
    whole = pq.read_table(written(small.release, "events", tmp_path / "a") / "histories.parquet")
    cut = pq.read_table(
        written(small.release, "events", tmp_path / "b", max_history="2") / "histories.parquet"
    )
    for name in ("items", "gap", "value", "split", "session"):
        assert cut[name].to_pylist() == [one[-2:] for one in whole[name].to_pylist()]


def test_a_history_of_tens_of_thousands_of_events_goes_along(
    small: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users fill chunks of their own here; that the chunks' borders leave no trace is what is seen."""
    whole = written(small.release, "events", tmp_path / "a")
    monkeypatch.setattr("sid_pipelines.chunks.chunks.__defaults__", (None, 7))
    parts = written(small.release, "events", tmp_path / "b")
    assert (whole / "histories.parquet").read_bytes() == (parts / "histories.parquet").read_bytes()


@pytest.mark.parametrize("by", ["event", "item"])
def test_human_priors(searched: Run, tmp_path: Path, by: str) -> None:
    folder = written(searched.release, "human-priors", tmp_path, by=by)
    rows = pq.read_table(folder / "dataset" / "searched.parquet").to_pylist()
    info = pq.read_table(folder / "information" / "searched.parquet").to_pylist()
    said = (folder / "searched_tag_dict.py").read_text().removeprefix("tag_to_general = ")
    heads = ast.literal_eval(said)
    heads = heads if by == "event" else heads["v1"]
    truth = histories(searched.release)
    trained = [one for mine in truth.values() for one in mine if one["split"] == "train"]
    assert sum(heads["category_counts"].values()) == len(trained)
    ids = searched.release.table("items", ["item_id"])["item_id"].to_pylist()
    kinds = sorted({one["event_type"] for mine in truth.values() for one in mine})
    for row, mine in zip(rows, truth.values(), strict=True):
        assert row["item_id"] == [ids[one["item_index"]] for one in mine]
        assert row["timestamp"] == [one["ts"] // 1000 for one in mine]
        assert len(set(row["event_id"])) <= len(kinds)
        if by == "event":
            numbers = heads["category_to_int"]
            assert row["event_id"] == [numbers[one["event_type"]] for one in mine]
    assert [row["item_id"] for row in info] == ids
    if by == "item":
        of = heads["tag_to_category"]
        assert {row["tag"] for row in info} == set(of)
        assert "none" in of  # the table is total
        assert {head for one in of.values() for head in one} == set(heads["category_counts"]) == {"(other)"}


def test_no_head_has_few_items() -> None:
    tags = ["a"] * 30 + ["b"] * 12 + ["c"] * 3 + ["d"] * 2
    assert human_priors._grouped(tags) == {"a": "a", "b": "(other)", "c": "(other)", "d": "(other)"}
    assert human_priors._grouped(["a"] * 10 + ["b"] * 11) == {"a": "a", "b": "b"}


def test_human_priors_refuse_a_name_that_no_module_has(small: Run, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="a name that Python can import; got 'a-b'"):
        written(small.release, "human-priors", tmp_path, name="a-b")
    assert not (tmp_path / "human-priors").exists()


def test_dare_reads_plain_rows(small: Run, tmp_path: Path) -> None:
    folder = written(small.release, "dare", tmp_path, max_history="4", negatives="3")
    release, truth = small.release, histories(small.release)
    names = json.loads((folder / "categories.json").read_text())
    paths = release.table("items", ["category_path"])["category_path"].to_pylist()
    for split, pattern in (("train", "train_0001_*.npy"), ("valid", "val.npy"), ("test", "test.npy")):
        [path] = folder.glob(pattern)
        rows = np.load(path)  # needs no pickle, whatever the trainer allows
        samples = release.table(split).to_pylist()
        assert len(rows) == 4 * len(samples)
        if split == "train":
            assert path.name == f"train_0001_{len(rows)}.npy"
        for sample, mine in zip(samples, rows.reshape(-1, 4), strict=True):
            events = truth[sample["user_index"]]
            past = [one["item_index"] + 1 for one in events[sample["start"] : sample["end"]]][-4:]
            met = {one["item_index"] + 1 for one in events}
            for place, x in enumerate(mine):
                assert x[0] == sample["user_index"] + 1
                assert list(x[3]) == ([0, 1] if place else [1, 0])
                assert (x[1] == sample["target"] + 1) if not place else x[1] not in met
                assert list(x[4][-4:]) == [0] * (4 - len(past)) + past
                path_of = paths[x[1] - 1]
                assert names[x[2] - 1] == (path_of[-1] if path_of else "")
                assert [bool(one) for one in x[5]] == [bool(one) for one in x[4]]
        assert len({x[1] for x in rows.reshape(-1, 4)[0]}) == 4  # no negative comes twice


def test_negatives_are_never_what_a_user_met() -> None:
    draw = Negatives(50, seed=1)
    for user in range(30):
        seen = np.random.default_rng(user).choice(50, size=user, replace=True)
        found = draw(user, 0, seen, 10)
        assert len(set(found.tolist())) == len(found) == 10
        assert not set(found.tolist()) & set(seen.tolist())
        assert (draw(user, 0, seen[::-1], 10) == found).all()
    assert sorted(draw(0, 0, np.arange(47), 10)) == [47, 48, 49]
    assert not len(draw(0, 0, np.arange(50), 3))


def test_ada_retrieval(searched: Run, tmp_path: Path) -> None:
    folder = written(searched.release, "ada-retrieval", tmp_path)
    frames = {name: pa.ipc.open_file(folder / f"{name}.ftr").read_all().to_pydict()
              for name in ("train", "valid", "test", "user_history")}  # fmt: skip
    truth = histories(searched.release)
    assert frames["train"]["user_id"] == [user + 1 for user in truth]
    for row, mine in enumerate(truth.values()):
        items = [one["item_index"] + 1 for one in mine]
        assert frames["valid"]["item_id"][row] == items[-2]
        assert frames["test"]["item_id"][row] == items[-1]
        train, whole = frames["train"]["item_seq"][row], frames["user_history"]["item_seq"][row]
        assert [*train, *items[-2:]] == whole
        assert len(set(train)) == len(train)
        assert min(train) > 0
        assert whole.index(items[-1]) in (
            len(whole) - 1,
            len(whole) - 2,
        )  # its history is what stood before it
    assert "n_items: 10\n" in (folder / "searched.yaml").read_text()


def test_recformer(searched: Run, small: Run, tmp_path: Path) -> None:
    folder = written(searched.release, "recformer", tmp_path)
    told = {name: json.loads((folder / f"{name}.json").read_text())
            for name in ("train", "val", "test", "smap", "meta_data")}  # fmt: skip
    for user, mine in histories(searched.release).items():
        items = [one["item_index"] for one in mine]
        key = str(user)
        assert told["train"][key] + told["val"][key] + told["test"][key] == items
    assert list(told["smap"]) == searched.release.table("items", ["item_id"])["item_id"].to_pylist()
    assert set(told["meta_data"]) == set(told["smap"])
    for item, fields in told["meta_data"].items():
        assert list(fields) == ["title", "brand", "category"]
        assert any(fields.values())
        assert item != "1008" or fields["title"] == "1008"
        assert all("\u2028" not in text and "\t" not in text for text in fields.values())


def test_unimp(small: Run, tmp_path: Path) -> None:
    folder = written(small.release, "unimp", tmp_path, shortest="2")
    told = {
        name: json.loads((folder / f"{name}_users.json").read_text()) for name in ("train", "eval", "test")
    }
    for user, mine in histories(small.release).items():
        if len(mine) < 4:
            assert str(user) not in told["test"]
            continue
        whole = [[one["item_index"], "", round(one["value"])] for one in mine]
        assert [told[name][str(user)] for name in ("train", "eval", "test")] == [
            whole[:-2],
            whole[:-1],
            whole,
        ]
    codes = json.loads((folder / "id2semantic.json").read_text())
    sids = small.release.table("sids", ["sid"])["sid"].to_pylist()
    for item, sid in enumerate(sids):
        shifted = [int(one) for one in codes[str(item)].split(",")]
        assert shifted == [sid[0], *(code + 4 * level for level, code in enumerate(sid[1:], start=1))]


# -- sessions and baskets ----------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{}, {"steps": "2"}, {"max_size": "1"}])
def test_sessions_follow_their_history(searched: Run, tmp_path: Path, given: dict[str, str]) -> None:
    folder, truth = written(searched.release, "sessions", tmp_path, **given), histories(searched.release)
    for split in ("train", "valid", "test"):
        rows = pq.read_table(folder / f"{split}.parquet").to_pylist()
        targets: dict[int, list[int]] = defaultdict(list)
        for row in rows:
            mine = truth[row["user_index"]]
            begin = len(row["history"])  # nothing is cut here: all that stands before
            assert row["history"] == [one["item_index"] for one in mine[:begin]]
            assert row["history_ts"] == [one["ts"] for one in mine[:begin]]
            told = mine[begin : begin + len(row["targets"])]
            assert row["targets"] == [one["item_index"] for one in told]
            assert {one["split"] for one in told} == {split}
            assert [EVENT_TYPES[one] for one in row["event_type"]] == [one["event_type"] for one in told]
            if not given.get("steps"):
                assert len({one["session_id"] for one in told}) == 1
            targets[row["user_index"]] += row["targets"]
            assert len(row["targets"]) <= int(given.get("steps", given.get("max_size", "99")))
        for user, mine in truth.items():
            assert targets[user] == [one["item_index"] for one in mine if one["split"] == split]


def test_only_positive_events_are_history(small: Run, tmp_path: Path) -> None:
    folder, truth = (
        written(small.release, "sessions", tmp_path, min_value="6", max_history="2"),
        histories(small.release),
    )
    for row in pq.read_table(folder / "test.parquet").to_pylist():
        mine = truth[row["user_index"]]
        liked = [one["item_index"] for one in mine[:-1] if one["value"] >= 6]
        assert row["history"] == liked[-2:]
        assert row["positive"] == [mine[-1]["value"] >= 6]
        assert row["value"] == [mine[-1]["value"]]


def test_baskets_have_pairs_without_repeats(searched: Run, tmp_path: Path) -> None:
    folder = written(searched.release, "baskets", tmp_path)
    baskets = {row["basket"]: row for row in pq.read_table(folder / "baskets.parquet").to_pylist()}
    pairs = pq.read_table(folder / "pairs.parquet").to_pylist()
    seen = set()
    for pair in pairs:
        assert pair["item"] < pair["other"]
        assert {pair["item"], pair["other"]} <= set(baskets[pair["basket"]]["items"])
        assert pair["split"] == baskets[pair["basket"]]["split"]
        seen.add((pair["basket"], pair["item"], pair["other"]))
    assert (
        len(seen) == len(pairs) == sum(len(b["items"]) * (len(b["items"]) - 1) // 2 for b in baskets.values())
    )
    for user, mine in histories(searched.release).items():
        parts = {(one["session_id"], one["split"]) for one in mine}
        assert len([one for one in baskets.values() if one["user_index"] == user]) == len(parts)
    clicks = written(searched.release, "baskets", tmp_path / "clicks", event_type="click")
    assert len(pq.read_table(clicks / "pairs.parquet")) < len(pairs)
    with pytest.raises(RecipeError, match=r"no basket of two items"):
        written(searched.release, "baskets", tmp_path / "none", by="time")
    with pytest.raises(RecipeError, match=r"expects a type of event; got 'buy'"):
        written(searched.release, "baskets", tmp_path / "none", event_type="buy")


# -- lists as shown, and queries ---------------------------------------------------------------------


def test_slates_are_as_shown(searched: Run, tmp_path: Path) -> None:
    folder = written(searched.release, "slates", tmp_path)
    truth = searched.release.table("impressions").to_pylist()
    rows = pq.read_table(folder / "slates.parquet").to_pylist()
    assert len(rows) == len(truth) == 32
    for row, one in zip(rows, truth, strict=True):
        assert (row["items"], row["clicked"], row["ts"]) == (one["items"], one["clicked"], one["ts"])
        clicks = [place for place, clicked in enumerate(one["clicked"]) if clicked]
        assert row["click_index"] == (clicks[0] if clicks else -1)
    assert sum(row["click_index"] == -1 for row in rows) == 1  # kept


def test_slates_are_finn_nos_arrays(searched: Run, tmp_path: Path) -> None:
    folder = written(searched.release, "slates", tmp_path, steps="3", places="2")
    with np.load(folder / "data.npz") as pack:
        data = dict(pack)
    mine = defaultdict(list)
    for row in searched.release.table("impressions").to_pylist():
        mine[row["user_index"]].append(row)
    users = list(mine)
    assert data["userId"].tolist() == users
    assert data["slate"].shape == (len(users), 3, 3)
    assert all(one.shape == (len(users), 3) for name, one in data.items() if name not in ("userId", "slate"))
    for u, user in enumerate(users):
        for t, row in enumerate(mine[user][-3:]):
            slate = [1, *(item + 3 for item in row["items"][:2])]
            assert data["slate"][u, t].tolist() == slate + [0] * (3 - len(slate))
            assert data["slate_lengths"][u, t] == len(slate)
            place = row["clicked"].index(True) + 1 if any(row["clicked"]) else 0
            assert data["click_idx"][u, t] == place
            assert data["click"][u, t] == (row["items"][place - 1] + 3 if place else 1)
            assert data["interaction_type"][u, t] == (1 if row["query"] else 2)
            assert SPLIT_NAMES[data["split"][u, t] - 1] == row["split"]
    names = json.loads((folder / "ind2val.json").read_text())["category"]
    with np.load(folder / "itemattr.npz") as pack:
        numbers = pack["category"]
    paths = searched.release.table("items", ["category_path"])["category_path"].to_pylist()
    assert len(numbers) == len(paths) + 3
    for path, number in zip(paths, numbers[3:], strict=True):
        assert names[str(int(number))] == (" ".join(path[0].split()) if path else "none")


def test_without_lists_there_are_no_slates(small: Run, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"expects a table 'impressions'; got a release without it"):
        written(small.release, "slates", tmp_path)


@pytest.mark.parametrize("name", ["timeline", "uditsr", "suggestions"])
def test_without_queries_there_is_no_search(small: Run, tmp_path: Path, name: str) -> None:
    with pytest.raises(RecipeError, match="expects events with the query before them"):
        written(small.release, name, tmp_path)
    assert not (tmp_path / name).exists()


def test_a_timeline_has_both_kinds(searched: Run, tmp_path: Path) -> None:
    folder, truth = written(searched.release, "timeline", tmp_path), histories(searched.release)
    words = json.loads((folder / "words.json").read_text())
    kinds = set()
    for row in pq.read_table(folder / "timeline.parquet").to_pylist():
        mine = truth[row["user_index"]]
        assert row["items"] == [one["item_index"] for one in mine]
        assert row["ts"] == sorted(row["ts"])
        for kind, query, numbers, one in zip(
            row["kind"], row["query"], row["query_words"], mine, strict=True
        ):
            assert query == one["query"]
            assert kind == bool(numbers) == bool(query)
            told = [words[number] for number in numbers]
            assert told == (words_of(query) if query else [])
            kinds.add(kind)
    assert kinds == {0, 1}
    shown = pq.read_table(folder / "impressions.parquet")
    assert shown["items"].to_pylist() == searched.release.table("impressions")["items"].to_pylist()


def test_words_that_train_lacks_are_unknown() -> None:
    from collections import Counter

    from sid_pipelines.trainers.reading.words import Words

    words = Words(Counter({"red": 2, "shoe": 2, "blue": 3}))
    assert words.names == ["", "<unknown>", "blue", "red", "shoe"]
    assert words.numbers("Red, SHOE green") == [3, 4, 1]
    assert words.numbers("!?") == [1]  # a search has a word, whatever was typed
    assert words.numbers(None) == words.numbers(" ") == []


def test_uditsr(searched: Run, tmp_path: Path) -> None:
    folder, truth = written(searched.release, "uditsr", tmp_path, negatives="2"), histories(searched.release)
    words = json.loads((folder / "words.json").read_text())

    def read(name: str) -> list[dict[str, str]]:
        with (folder / f"{name}_data.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    train = [(int(row["user"]), ast.literal_eval(row["query"]), int(row["item"])) for row in read("train")]
    events = [one for mine in truth.values() for one in mine if one["split"] == "train"]
    assert [(user, item) for user, _, item in train] == [
        (one["user_index"], one["item_index"]) for one in events
    ]
    for (_, query, _), one in zip(train, events, strict=True):
        assert [words[number] for number in query] == (words_of(one["query"]) if one["query"] else [])
    for split in ("valid", "test"):
        groups = defaultdict(list)
        for row in read(split):
            groups[row["sample_num"]].append(row)
        held = [one for mine in truth.values() for one in mine if one["split"] == split]
        for rows, one in zip(groups.values(), held, strict=True):
            met = {other["item_index"] for other in truth[one["user_index"]]}
            assert [row["label"] for row in rows] == ["1", *["0"] * (len(rows) - 1)]
            assert int(rows[0]["item"]) == one["item_index"]
            assert not met & {int(row["item"]) for row in rows[1:]}
            assert len(rows) == 1 + min(2, 9 - len(met))
            assert len({row["query"] for row in rows}) == 1


def test_suggestions(searched: Run, tmp_path: Path) -> None:
    folder = written(searched.release, "suggestions", tmp_path)
    rows = [row for split in ("train", "valid", "test") for row in lines(folder / f"{split}.jsonl")]
    assert rows
    for row in rows:
        assert row["query"].startswith(row["prefix"])
        assert 0 < len(row["prefix"]) < len(row["query"])
        assert row["query"] not in row["before"]
    queries = {one["query"] for mine in histories(searched.release).values() for one in mine if one["query"]}
    assert {row["query"] for row in rows} == queries
    preferred = [
        row for split in ("train", "valid", "test") for row in lines(folder / f"preferences.{split}.jsonl")
    ]
    clicked = [
        one
        for one in searched.release.table("impressions").to_pylist()
        if any(one["clicked"]) and one["query"]
    ]
    assert len(preferred) == len(clicked)
    for row in preferred:
        assert row["chosen"]
        assert row["rejected"]
        assert row["chosen"] not in row["rejected"]


def test_documents(searched: Run, tmp_path: Path) -> None:
    folder = written(searched.release, "documents", tmp_path)
    docids = searched.release.table("sids", ["text"])["text"].to_pylist()
    train = lines(folder / "train.json")
    assert [row["text_id"] for row in train[: len(docids)]] == docids
    assert all(row["text"].startswith("Passage: ") for row in train[: len(docids)])
    for split, rows in (("train", train[len(docids) :]), ("test", lines(folder / "test.json"))):
        asked = [
            one
            for mine in histories(searched.release).values()
            for one in mine
            if one["split"] == split and one["query"]
        ]
        assert [(row["text_id"], row["text"]) for row in rows] == [
            (docids[one["item_index"]], f"Question: {one['query']}") for one in asked
        ]
    source, target = (
        (folder / f"train.{name}").read_text().split("\n")[:-1] for name in ("source", "target")
    )
    assert len(source) == len(target) == len(train)
    assert [row["text_id"] for row in train] == target
    corpus = (folder / "msmarco_corpus.tsv").read_text().split("\n")[:-1]
    assert [line.split("\t")[0] for line in corpus] == [str(n) for n in range(len(docids))]
    assert all(line.count("\t") == 1 for line in corpus)
    with pytest.raises(RecipeError, match="expects a table 'docids'"):
        written(searched.release, "documents", tmp_path / "none", docid="text")


# -- several IDs, several domains --------------------------------------------------------------------


def test_identities_share_one_vocabulary(several: Release, tmp_path: Path) -> None:
    folder = written(several, "identities", tmp_path, target="text", max_history="3")
    told = json.loads((folder / "vocabularies.json").read_text())
    assert list(told["tables"]) == ["sids", "sids_text", "user_sids"]
    items = pq.read_table(folder / "items.parquet").to_pylist()
    users = pq.read_table(folder / "users.parquet")["tokens"].to_pylist()
    for table, vocabulary in told["tables"].items():
        starts = vocabulary["first"] + np.cumsum([0, *vocabulary["levels"][:-1]])
        for row in several.table(table).to_pylist():
            expected = [code + int(start) for code, start in zip(row["sid"], starts, strict=False)]
            found = users[row["user_index"]] if table == "user_sids" else items[row["item_index"]][table]
            assert found == expected
            assert max(found) < told["size"]
    for split in ("train", "valid", "test"):
        rows = pq.read_table(folder / f"{split}.parquet").to_pylist()
        samples, truth = several.table(split).to_pylist(), histories(several)
        for row, sample in zip(rows, samples, strict=True):
            events = truth[sample["user_index"]][sample["start"] : sample["end"]][-3:]
            past = [one["item_index"] for one in events]
            assert row["history"] == past
            assert row["input_ids"] == [
                token for item in past for table in ("sids", "sids_text") for token in items[item][table]
            ]
            assert row["labels"] == items[sample["target"]]["sids_text"]
            assert row["user_tokens"] == users[sample["user_index"]]


def test_identities_want_more_than_one(small: Run, several: Release, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="got one SID for each item and none for users"):
        written(small.release, "identities", tmp_path)
    with pytest.raises(RecipeError, match=r"expects target to name one of its tables; got 'image'"):
        written(several, "identities", tmp_path, target="image")


def test_domains_share_histories_and_divide_targets(small: Run, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="expects items of 2 to 1,000 domains; got 1"):
        written(small.release, "domains", tmp_path)
    folder, truth = written(small.release, "domains", tmp_path, by="category"), histories(small.release)
    folders = json.loads((folder / "domains.json").read_text())
    paths = small.release.table("items", ["category_path"])["category_path"].to_pylist()
    texts = small.release.table("sids", ["text"])["text"].to_pylist()
    for split in ("train", "valid", "test"):
        found = 0
        for domain, place in folders.items():
            for row in lines(folder / place / f"{split}.jsonl"):
                assert (paths[row["target"]] or [""])[0] == domain == row["domain"]
                assert row["target_sid"] == texts[row["target"]]
                assert row["history_sids"] == [texts[item] for item in row["history"]]
                items = [one["item_index"] for one in truth[row["user"]]]
                place_of = items.index(row["target"])
                assert row["history"] == items[:place_of][-20:]
                found += 1
        assert found == len(small.release.table(split))


def test_ranges_are_laid_one_after_the_other() -> None:
    places, offsets = ranges(np.array([3, 5, 0]), np.array([5, 5, 2]))
    assert places.tolist() == [3, 4, 0, 1]
    assert offsets.tolist() == [0, 2, 2, 4]
