"""Dumps that tell what was shown: MIND on its real sample, and what is particular to each."""

import random
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from helpers import ROOT, run_chain

from sid_pipelines.sources import Candidate, source_named
from sid_schemas import SourceError
from sid_warehouse.stages import StageOutput

REAL = ROOT.parent / "shared" / "data" / "mind"
SAMPLES = ROOT / "tests" / "data" / "sources"


def ingested(folder: Path, kind: str, dump: Path) -> StageOutput:
    recipe = folder / "recipe.toml"
    recipe.write_text(
        f'dataset = "slates"\n[clean]\nmax_reject_rate = 1.0\n[source]\nkind = "{kind}"\npath = "{dump}"\n'
    )
    return run_chain(recipe, folder / "warehouse", until="ingest").outputs["ingest"]


def written(folder: Path, behaviors: list[str]) -> Path:
    folder.mkdir(parents=True)
    (folder / "behaviors.tsv").write_text("".join(f"{line}\n" for line in behaviors))
    (folder / "news.tsv").write_text("N1\tnews\tlocal\tA title\tAn abstract\t\t[]\t[]\n")
    return folder


def events(output: StageOutput) -> list[tuple[Any, ...]]:
    """Give the interactions without where they stood, in an order of their own."""
    names = ("user_id", "item_id", "ts", "position")
    rows = output.read("raw_interactions").select(names).to_pylist()
    return sorted(tuple(row[name] for name in names) for row in rows if row["position"] is None) + sorted(
        tuple(row[name] for name in names) for row in rows if row["position"] is not None
    )


@pytest.mark.realdata
@pytest.mark.skipif(not REAL.is_dir(), reason=f"needs the real MIND sample at {REAL}")
def test_mind_gives_what_plain_python_reads(tmp_path: Path) -> None:
    lines = [line.split("\t") for line in (REAL / "behaviors.tsv").read_text().splitlines()]
    shown = {number: line[4].split() for number, line in enumerate(lines, start=1)}
    clicks, first = [], {}
    for number, (impression, user, said, history, _) in enumerate(lines, start=1):
        moment = datetime.strptime(said, "%m/%d/%Y %I:%M:%S %p").replace(tzinfo=UTC)
        ts = int(moment.timestamp()) * 1000
        clicks += [
            (user, news[:-2], ts, place)
            for place, news in enumerate(shown[number], start=1)
            if news.endswith("-1")
        ]
        first[user] = min(first.get(user, (ts, int(impression), history)), (ts, int(impression), history))
    past = [
        (user, news, ts - len(history.split()) + place, None)
        for user, (ts, _, history) in first.items()
        for place, news in enumerate(history.split())
    ]
    output = ingested(tmp_path, "mind", REAL)
    assert events(output) == sorted(past, key=lambda one: one[:3]) + sorted(clicks)
    impressions = output.read("raw_impressions")
    assert (len(impressions), len(output.read("raw_items")), output.facts["rejects"]) == (5_000, 2_000, 0)
    assert pc.sum(pc.list_value_length(impressions["items"])).as_py() == 189_359
    for row in impressions.slice(0, 500).to_pylist():
        pairs = zip(row["items"], row["clicked"], strict=True)
        assert [f"{news}-{clicked:d}" for news, clicked in pairs] == shown[row["source_row"]]
        assert row["positions"] == list(range(1, len(row["items"]) + 1))


def test_a_history_is_taken_once_whatever_the_order_of_lines(tmp_path: Path) -> None:
    days = [
        "11/12/2019 2:14:46 PM",
        "11/12/2019 12:14:46 AM",
        "11/12/2019 12:14:46 AM",
        "11/14/2019 1:00:00 PM",
    ]
    histories = ["N1 N2 N3", "N1 N2", "N9", "N1 N2 N3 N4"]
    lines = [
        f"{10 - n}\tU{user}\t{day}\t{history}\tN5-1 N6-0 N7-1"
        for user in range(3)
        for n, (day, history) in enumerate(zip(days, histories, strict=True))
    ]
    output = ingested(tmp_path / "a", "mind", written(tmp_path / "a" / "dump", lines))
    past = defaultdict(list)
    for user, item, ts, position in events(output):
        if position is None:
            past[user].append((ts, item))
    midnight = int(datetime(2019, 11, 12, 0, 14, 46, tzinfo=UTC).timestamp()) * 1000
    assert past == {f"U{user}": [(midnight - 1, "N9")] for user in range(3)}  # of impression 8, not 9
    shuffled = random.Random(1).sample(lines, len(lines))
    again = ingested(tmp_path / "b", "mind", written(tmp_path / "b" / "dump", shuffled))
    assert events(again) == events(output)
    rows = output.read("raw_interactions").select(["source_file", "source_row"]).to_pylist()
    assert rows == sorted(rows, key=lambda row: (row["source_file"], row["source_row"]))


def test_no_made_up_time_is_before_1970(tmp_path: Path) -> None:
    lines = ["1\tU1\t1/1/1970 12:00:00 AM\tN1 N2 N3\tN4-1"]
    output = ingested(tmp_path, "mind", written(tmp_path / "dump", lines))
    assert [ts for _, _, ts, _ in events(output)] == [0, 0, 0, 0]


def test_a_clicked_hotel_that_was_not_in_the_list_has_no_place(tmp_path: Path) -> None:
    output = ingested(tmp_path, "trivago", SAMPLES / "trivago")
    [click] = [row for row in output.read("raw_interactions").to_pylist() if row["item_id"] == "9999"]
    assert (click["event_type"], click["position"]) == ("click", None)
    [shown] = [row for row in output.read("raw_impressions").to_pylist() if row["ts"] == click["ts"]]
    assert shown["clicked"] == [False, False]


def test_two_campaigns_are_two_data_sets() -> None:
    names = ["men.csv", "item_context.csv"]
    men = [Candidate(Path("/x/men") / name, None, "men") for name in names]
    women = [
        Candidate(Path("/x/women") / name.replace("men.csv", "women.csv"), None, "women") for name in names
    ]
    source = source_named("open-bandit")()
    assert [file.label for file in source.find(men)] == ["men/men.csv", "men/item_context.csv"]
    with pytest.raises(SourceError, match=r"men/men.csv and women/women.csv are of different campaigns"):
        source.find([*men, *women])
