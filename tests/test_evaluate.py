"""`sidmill evaluate`: what is asked, how it counts, the baselines, what is kept, and the command itself."""

import json
import math
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers import ROOT, Run
from scipy import sparse
from typer.testing import CliRunner

from sid_pipelines.evaluation import baselines as modules
from sid_pipelines.evaluation import questions, side_by_side, standing
from sid_pipelines.evaluation.baselines import baselines, item_knn, popularity
from sid_pipelines.evaluation.kept import Kept
from sid_pipelines.evaluation.questions import Exam, Questions, exam
from sid_pipelines.evaluation.ranking import K, Score, gains, measure, rank, rank_alike
from sid_pipelines.evaluation.settings import Settings
from sid_pipelines.evaluation.standing import Asked
from sid_pipelines.probes import Lists
from sid_schemas import DataError, MissingExtraError, RecipeError, SidmillError
from sid_warehouse import garbage
from sid_warehouse.reader import Release
from sid_warehouse.retention import Rules
from sidmill.cli import app


def asked(*pairs: tuple[list[int], int], n_items: int = 30) -> Questions:
    return Questions([np.array(history) for history, _ in pairs], [target for _, target in pairs], n_items)


def dense(scores: Any) -> np.ndarray:
    return np.asarray(scores.toarray())


# How answers count


@pytest.mark.parametrize(
    ("answer", "gain"),
    [
        ([7, 1, 2], 1.0),
        ([1, 2, 7], 0.5),  # place 3: 1 / log2(4)
        ([0, 1, 7], 1 / math.log2(3)),  # 0 is of the history, so 7 is at place 2
        ([*range(8, 17), 7, 18], 1 / math.log2(11)),  # place 10
        ([*range(8, 18), 7], 0.0),  # place 11
        ([0, *range(8, 17), 7], 1 / math.log2(11)),
        ([1, 2, -1, -1], 0.0),  # a beam that found no more
        ([], 0.0),
    ],
)
def test_a_known_place_has_its_gain(answer: list[int], gain: float) -> None:
    score = measure([answer], asked(([0, 3], 7)))
    assert score == pytest.approx(Score(float(gain > 0), gain))


def test_scores_are_means_over_users() -> None:
    both = asked(([0], 7), ([0], 8), ([0], 9), ([0], 10))
    assert measure([[7], [8, 1], [1, 2, 9], [1]], both) == pytest.approx(Score(0.75, 2.5 / 4))


def test_equal_scores_go_by_item_number_and_not_by_target() -> None:
    level = asked(([0], 10), ([0], 11))
    everything = measure(rank(lambda histories: np.zeros((len(histories), 30)), level), level)
    assert everything == pytest.approx(
        Score(0.5, 0.5 / math.log2(11))
    )  # 10 is tenth among 1 to 29, 11 is not


def test_popularity_and_item_knn_are_counted_by_hand() -> None:
    train = Lists.of([[0, 1], [0, 1], [0, 2], [3]])
    assert popularity(train, 5)([np.array([0, 1])]).tolist() == [[3, 2, 1, 1, 0]]
    (scores,) = dense(item_knn(train, 5)([np.array([1])]))
    assert scores == pytest.approx([2 / math.sqrt(6), 1, 0, 0, 0])
    (scores,) = dense(item_knn(train, 5, shrink=1, decay=0.5)([np.array([2, 1])]))
    assert scores[0] == pytest.approx(0.5 / (math.sqrt(3) + 1) + 2 / (math.sqrt(6) + 1))


def test_where_users_come_back_to_items_the_history_may_be_an_answer() -> None:
    both = asked(([0, 3], 3), ([5, 1], 2))
    assert gains([[0, 3], [1, 2]], both).tolist() == [0, 1]  # one who comes back changes nothing
    both = replace(both, come_back=True)
    assert gains([[0, 3], [1, 2]], both).tolist() == pytest.approx([1 / math.log2(3)] * 2)


def test_what_is_before_a_window_is_left_out_too() -> None:
    one = replace(asked(([3], 7)), before=[np.array([0, 1, 3])])
    assert gains([[0, 1, 3, 2, 7]], one).tolist() == [1 / math.log2(3)]
    (answer,) = rank(lambda histories: np.zeros((1, 30)), one)
    assert len(answer) == K + 3
    (answer,) = rank_alike(np.zeros(30), one)
    assert len(answer) == K + 3


def test_the_best_of_many_are_those_of_sorting_all() -> None:
    draw = np.random.default_rng(0)
    scores = draw.integers(0, 6, (40, 200)).astype(float)  # many are equal
    histories = [draw.choice(200, size, replace=False) for size in draw.integers(1, 300, 40).clip(max=190)]
    many = Questions(histories, [0] * 40, 200)
    rows = iter(scores)
    found = list(rank(lambda some: np.stack([next(rows) for _ in some]), many, batch=7))
    for one, items, history in zip(scores, found, histories, strict=True):
        plain = sorted(range(200), key=lambda item: (-one[item], item))
        assert items.tolist() == plain[: K + len(history)]


def test_sparse_scores_and_those_of_all_users_are_ranked_as_any() -> None:
    draw = np.random.default_rng(3)
    scores = np.where(draw.random((30, 90)) < 0.2, draw.integers(0, 4, (30, 90)), 0).astype(float)
    many = asked(*(([*range(size)], 0) for size in draw.integers(1, 85, 30)), n_items=90)
    plain, few = iter(scores), iter(scores)
    found = rank(lambda some: sparse.csr_array(np.stack([next(few) for _ in some])), many, batch=7)
    slow = rank(lambda some: np.stack([next(plain) for _ in some]), many, batch=7)
    assert [one.tolist() for one in found] == [one.tolist() for one in slow]
    alike = rank_alike(scores[0], many)
    slow = rank(lambda some: np.tile(scores[0], (len(some), 1)), many)
    assert [one.tolist() for one in alike] == [one.tolist() for one in slow]


def test_item_knn_is_left_out_with_a_reason_where_it_would_take_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train = Lists.of([[0, 1, 1, 2], [1, 2]])  # 9 + 4 pairs
    exam = Exam(asked(([0], 1), ([1], 2), n_items=20), train, 2, 0, "x")
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(modules, "TELL", 1)
    scores, left_out = baselines(exam, lambda done, total: told.append((done, total)))
    assert set(scores) == {"popularity", "item-kNN", "item-kNN, tuned"}
    assert left_out == {}
    assert told == [(1, 6), (2, 6), (3, 6), (4, 6), (5, 6), (6, 6)]
    monkeypatch.setattr(modules, "PAIRS", 13)
    assert modules.too_many_pairs(train, 20) is None
    monkeypatch.setattr(modules, "PAIRS", 12)
    assert modules.too_many_pairs(train, 3) is None  # no more than 9 can be
    few, left_out = baselines(exam)
    assert few == {"popularity": scores["popularity"]}
    assert left_out["item-kNN"].startswith("users have 13 pairs of items between them, and it holds at most")
    monkeypatch.setattr(modules, "STEPS", 12)
    assert modules.too_many_pairs(train, 3) is not None


def test_item_knn_is_the_plain_sum_of_cosines() -> None:
    draw = np.random.default_rng(2)
    train = [draw.integers(0, 12, size).tolist() for size in draw.integers(0, 9, 40)]  # items come again
    users = [set(own) for own in train]
    had = [{user for user, own in enumerate(users) if item in own} for item in range(12)]

    def cosine(a: int, b: int) -> float:
        both = len(had[a] & had[b])
        return both / (math.sqrt(len(had[a]) * len(had[b])) + 3) if both else 0

    history = [4, 9, 4]
    plain = [
        sum(0.5**age * cosine(item, other) for age, other in enumerate(history[::-1])) for item in range(12)
    ]
    (scores,) = dense(item_knn(Lists.of(train), 12, shrink=3, decay=0.5)([np.array(history)]))
    assert scores.tolist() == pytest.approx(plain)


# What is asked


def test_questions_are_the_samples_with_whole_histories(small: Run) -> None:
    release = small.release
    sequences = {row["user_index"]: row["items"] for row in release.table("sequences").to_pylist()}
    for split in ("valid", "test"):
        one = exam(release, split)
        rows = release.table(split).to_pylist()
        assert [history.tolist() for history in one.asked.histories] == [
            sequences[row["user_index"]][row["start"] : row["end"]] for row in rows
        ]
        assert one.asked.targets == [row["target"] for row in rows]
        assert (one.total, one.asked.n_items) == (len(rows), release.record["rows"]["items"])
    # Under leave-one-out a user's train events are what stands before the valid target.
    valid = exam(release, "valid")
    parts = np.split(valid.train.items, valid.train.edges[1:-1])
    assert [part.tolist() for part in parts] == [one.tolist() for one in valid.asked.histories]


def with_samples(warehouse: Path, change: Any) -> Release:
    """Change the valid samples of v1: change(row) gives another row."""
    import pyarrow.parquet as pq

    (part,) = (warehouse / "releases/small/v1/valid").glob("*.parquet")
    table = pq.read_table(part)
    pq.write_table(pa.Table.from_pylist([change(row) for row in table.to_pylist()], table.schema), part)
    return Release(warehouse / "releases/small/v1")


def test_a_window_is_read_and_all_before_it_is_had(warehouse: Path) -> None:
    plain = exam(Release(warehouse / "releases/small/v1"), "valid")
    one = exam(with_samples(warehouse, lambda row: row | {"start": row["end"] - 1}), "valid")
    assert [len(history) for history in one.asked.histories] == [1] * 12
    assert [had.tolist() for had in one.asked.had] == [had.tolist() for had in plain.asked.histories]
    assert one.digest != plain.digest


def test_whether_users_come_back_is_decided_by_the_whole_split(
    warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    had = exam(Release(warehouse / "releases/small/v1"), "valid")
    assert (had.repeats, had.asked.come_back) == (0, False)
    first = had.asked.had[0].tolist()
    release = with_samples(
        warehouse, lambda row: row | ({"target": first[0]} if row["user_index"] == 0 else {})
    )
    one = exam(release, "valid")
    assert (one.repeats, one.asked.come_back) == (1, True)  # 1 of 12
    some = [exam(release, "valid", max_users=most) for most in (1, 5, 11)]
    assert [(each.repeats, each.total, each.asked.come_back) for each in some] == [(1, 12, True)] * 3
    monkeypatch.setattr(questions, "COME_BACK", 0.09)  # more than one of 12
    other = exam(release, "valid")
    assert (other.repeats, other.asked.come_back) == (1, False)
    assert other.digest != one.digest


def test_the_order_of_rows_changes_nothing(small: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = exam(small.release, "valid", max_users=5)
    plain = Release.table

    def shuffled(self: Release, name: str, columns: list[str] | None = None) -> pa.Table:
        table = plain(self, name, columns)
        return table.take(np.random.default_rng(len(table)).permutation(len(table)))

    monkeypatch.setattr(Release, "table", shuffled)
    after = exam(small.release, "valid", max_users=5)
    assert after.digest == before.digest
    assert after.asked.targets == before.asked.targets
    assert [one.tolist() for one in after.asked.histories] == [one.tolist() for one in before.asked.histories]


def test_a_sample_of_users_is_the_same_every_time_and_grows(small: Run) -> None:
    users = [exam(small.release, "valid", max_users=most).asked for most in (4, 8, 12, 0)]
    assert [len(one) for one in users] == [4, 8, 12, 12]
    few, more = ({tuple(history.tolist()) for history in one.histories} for one in users[:2])
    assert few < more
    assert exam(small.release, "valid", max_users=99).digest == exam(small.release, "valid").digest
    assert exam(small.release, "valid").digest != exam(small.release, "test").digest


# The command

QUICK = ["--steps", "2", "--seeds", "2", "--beams", "10"]


@pytest.fixture
def warehouse(small: Run, tmp_path: Path) -> Path:
    """A warehouse of one's own with the small release, and under v2 and v3 once more as spoilt ones."""
    folder = tmp_path / "w"
    shutil.copytree(small.plan.warehouse / "releases", folder / "releases")
    return folder


def again(warehouse: Path, version: int, **changes: Any) -> Path:
    """Copy v1 to another version with another fingerprint; changes: of metrics.tokenizer."""
    folder = warehouse / "releases" / "small" / f"v{version}"
    shutil.copytree(folder.parent / "v1", folder)
    record = json.loads((folder / "release.json").read_text())
    record |= {"version": version, "fingerprint": f"{version:016x}"}
    (folder / "release.json").write_text(json.dumps(record))
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["tokenizer"] |= changes
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def evaluate(warehouse: Path, *arguments: str) -> Any:
    done = CliRunner().invoke(app, ["evaluate", *arguments, "-w", str(warehouse)], catch_exceptions=False)
    assert done.exit_code == 0
    return json.loads(done.stdout) if "--json" in arguments else done.stdout


def refused(warehouse: Path, *arguments: str) -> str:
    with pytest.raises(SidmillError) as error:
        CliRunner().invoke(app, ["evaluate", *arguments, "-w", str(warehouse)], catch_exceptions=False)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_command_tells_json_and_makes_nothing_twice(
    warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = evaluate(warehouse, "small@v1", *QUICK, "--json")
    (one,) = found["releases"]
    assert (one["ref"], one["questions"]["asked"], one["questions"]["split"]) == ("small@v1", 12, "valid")
    assert one["metrics"]["items"] == 9
    assert one["metrics"]["codes by level"] == "4x4"
    assert set(one["baselines"]) == {"popularity", "item-kNN", "item-kNN, tuned"}
    for ids in ("released", "random"):
        runs = one["probe"][ids]["runs"]
        assert [run["seed"] for run in runs] == [0, 1]
        each = [run["ndcg_at_10"] for run in runs]
        assert one["probe"][ids]["ndcg_at_10"]["mean"] == pytest.approx(sum(each) / 2)
        assert one["probe"][ids]["ndcg_at_10"]["spread"] == pytest.approx(abs(each[0] - each[1]) / 2**0.5)
        # Nine items, some of which the user has: every target is among ten, wherever it stands.
        assert one["probe"][ids]["recall_at_10"] == {"mean": 1.0, "spread": 0.0}
    assert one["probe"]["settings"]["steps"] == 2
    ndcgs = [row["ndcg_at_10"]["mean"] for row in found["ranking"]]
    assert ndcgs == sorted(ndcgs, reverse=True)
    assert sorted(row["kind"] for row in found["ranking"]) == ["baseline"] * 3 + ["random", "released"]

    kept = sorted((warehouse / "evaluations" / one["fingerprint"]).iterdir())
    assert len(kept) == 5  # the baselines, and two seeds of two kinds
    times = [path.stat().st_mtime_ns for path in kept]
    from sid_pipelines.evaluation import probe as module

    monkeypatch.setattr(module, "probe", None)  # whoever trains again fails
    assert evaluate(warehouse, "small@v1", *QUICK, "--json") == found
    said = evaluate(warehouse, "small", *QUICK)
    assert [path.stat().st_mtime_ns for path in kept] == times
    assert said.count("(reused)") == 5
    assert "small@v1 rq-kmeans on text" in said
    assert "12 questions of valid; 36 train events to learn from" in said


def test_baselines_are_what_a_plain_count_gives(warehouse: Path) -> None:
    (one,) = evaluate(warehouse, "small@v1", "--no-probe", "--json")["releases"]
    release = Release(warehouse / "releases/small/v1")
    lists = {row["user_index"]: row["items"] for row in release.table("sequences").to_pylist()}
    rows = release.table("valid").to_pylist()
    train = {row["user_index"]: lists[row["user_index"]][: row["end"]] for row in rows}  # leave one out
    users = [{user for user, had in train.items() if item in had} for item in range(9)]

    def cosine(a: int, b: int) -> float:
        return len(users[a] & users[b]) / math.sqrt(len(users[a]) * len(users[b])) if users[b] else 0

    def ndcg(score: Any) -> float:
        total = 0.0
        for row in rows:
            had = train[row["user_index"]]
            best = sorted(set(range(9)) - set(had), key=lambda item: (-score(had, item), item))
            total += 1 / math.log2(best.index(row["target"]) + 2)
        return total / len(rows)

    events = [item for had in train.values() for item in had]
    assert one["questions"]["train_events"] == len(events) == 36
    plain = {
        "popularity": ndcg(lambda had, item: events.count(item)),
        "item-kNN": ndcg(lambda had, item: sum(cosine(own, item) for own in had)),
    }
    assert plain["popularity"] != plain["item-kNN"]
    for name, value in plain.items():
        assert one["baselines"][name]["ndcg_at_10"] == pytest.approx(value)


def test_a_release_named_twice_is_one(warehouse: Path) -> None:
    found = evaluate(warehouse, "small", "small@v1", "small@v1", "--no-probe", "--json")
    assert [one["ref"] for one in found["releases"]] == ["small@v1"]


def test_other_sids_under_one_fingerprint_are_another_probe(warehouse: Path) -> None:
    evaluate(warehouse, "small@v1", *QUICK, "--json")
    record = warehouse / "releases/small/v1/release.json"
    told = json.loads(record.read_text())
    (name,) = (name for name in told["files"] if name.startswith("sids/"))
    told["files"][name]["sha256"] = "0" * 64
    record.write_text(json.dumps(told))
    evaluate(warehouse, "small@v1", *QUICK, "--json")
    (folder,) = (warehouse / "evaluations").iterdir()
    assert len(list(folder.iterdir())) == 1 + 2 * 4  # the baselines are the same


def test_leftovers_of_evaluations_are_garbage(warehouse: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = warehouse / "evaluations" / "f" / f".tmp-{socket.gethostname()}-{dead.pid}-abc"
    left.mkdir(parents=True)
    found = garbage.find(warehouse, Rules())
    assert [piece.path for piece in found.remove] == [left]


def test_sigterm_ends_in_a_line_and_leaves_nothing_half_made(warehouse: Path) -> None:
    code = (
        "import os, signal\n"
        "from sid_pipelines.evaluation import standing\n"
        "standing.baselines = lambda *_: os.kill(os.getpid(), signal.SIGTERM)\n"
        "from sidmill.cli import main; main()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, "evaluate", "small@v1", "--no-probe", "-w", str(warehouse)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 143
    (line,) = done.stderr.splitlines()
    assert line.startswith("sidmill: stopped; finished stages are kept, go on with: ")
    assert not list(warehouse.glob("evaluations/*/*"))


def test_a_stopped_evaluation_goes_on_where_it_was(warehouse: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sid_pipelines.evaluation import probe as module

    plain, calls = module.probe, []

    def stops(*arguments: Any) -> dict[str, Any]:
        calls.append(arguments[3])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(*arguments)

    monkeypatch.setattr(module, "probe", stops)
    assert "stopped; finished stages are kept, go on with: " in refused(warehouse, "small@v1", *QUICK)
    evaluate(warehouse, "small@v1", *QUICK)
    assert calls == [0, 0, 1, 1, 1]  # what was done is not done again
    (folder,) = (warehouse / "evaluations").iterdir()
    assert not list(folder.glob(".tmp-*"))
    damaged = sorted(folder.iterdir())[0]
    damaged.write_text("{")
    evaluate(warehouse, "small@v1", *QUICK)
    assert json.loads(damaged.read_text())["result"]


def test_files_are_written_as_they_are_named(warehouse: Path, tmp_path: Path) -> None:
    told = evaluate(warehouse, "small@v1", "--no-probe", "--json", "--to", str(tmp_path / "a.json"))
    assert json.loads((tmp_path / "a.json").read_text()) == told
    evaluate(warehouse, "small@v1", "--no-probe", "--to", str(tmp_path / "a.md"))
    page = (tmp_path / "a.md").read_text()
    assert "| popularity | " in page
    assert "| items | 9 |" in page
    assert "- small@v1: no probe: --no-probe" in page
    assert "expected a file that ends in .md or .json" in refused(warehouse, "small", "--to", "a.txt")
    evaluate(warehouse, "small@v1", "--no-probe", "--to", str(tmp_path / "new" / "b.md"))
    assert (tmp_path / "new" / "b.md").read_text() == page
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["b.md"]


def test_a_file_that_may_not_be_written_is_refused_before_anything_is_made(
    warehouse: Path, tmp_path: Path
) -> None:
    inside = warehouse / "releases/small/v1/metrics.json"
    before = inside.read_bytes()
    (tmp_path / "link.json").symlink_to(inside)
    for path in (inside, tmp_path / "link.json"):
        assert "inside the warehouse" in refused(warehouse, "small", "--no-probe", "--to", str(path))
    assert inside.read_bytes() == before
    (tmp_path / "file").write_text("")
    wrong = tmp_path / "file" / "a.json"
    assert refused(warehouse, "small", "--no-probe", "--to", str(wrong)).startswith(
        f"--to {wrong}: cannot be written ("
    )
    assert not (warehouse / "evaluations").exists()


def test_releases_that_were_asked_other_things_are_not_compared(warehouse: Path) -> None:
    folder = again(warehouse, 2)
    same = evaluate(warehouse, "small@v1", "small@v2", "--no-probe", "--json")
    assert not [one for one in same["says"] if "WARNING" in one]
    assert len(same["ranking"]) == 3  # baselines once
    (part,) = (folder / "valid").glob("*.parquet")
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(part).slice(1), part)
    shutil.rmtree(warehouse / "evaluations")
    other = evaluate(warehouse, "small@v1", "small@v2", "--no-probe", "--json")
    (warning,) = [one for one in other["says"] if "WARNING" in one]
    assert "differ in their questions" in warning
    assert {row["ref"] for row in other["ranking"]} == {"small@v1", "small@v2"}
    assert [one["questions"]["asked"] for one in other["releases"]] == [12, 11]


def test_a_scheme_without_codes_has_metrics_and_no_probe(warehouse: Path) -> None:
    again(warehouse, 3, gives="vectors")
    found = evaluate(warehouse, "small@v3", *QUICK, "--json")
    (one,) = found["releases"]
    assert one["probe"]["none"].startswith("an item is a set of vectors")
    assert one["metrics"]["items"] == 9
    assert any("small@v3: no probe: an item is a set of vectors" in said for said in found["says"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["small@v9"], "v9"),
        (["nothing"], "nothing"),
        (["small", "--split", "train"], "--split: expected valid or test, got 'train'"),
        (["small", "--seeds", "0"], "--seeds: expected 1 or more, got 0"),
        (["small", "--beams", "9"], "--beams: expected 10 or more, got 9"),
        (["small", "--steps", "0"], "--steps: expected 1 or more, got 0"),
        (["small", "--max-users", "-1"], "--max-users: expected 0 or more, got -1"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(warehouse: Path, arguments: list[str], says: str) -> None:
    assert says in refused(warehouse, *arguments)


def test_a_split_without_samples_is_said(warehouse: Path) -> None:
    import pyarrow.parquet as pq

    for part in (warehouse / "releases/small/v1/valid").glob("*.parquet"):
        pq.write_table(pq.read_table(part).slice(0, 0), part)
    said = refused(warehouse, "small@v1", "--no-probe")
    assert said.startswith("small@v1: split 'valid' has no samples")
    assert "try --split test" in said
    with pytest.raises(DataError):
        exam(Release(warehouse / "releases/small/v1"), "valid")


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_made(
    warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (warehouse / "evaluations").write_text("a file")
    monkeypatch.setattr(standing, "baselines", None)
    assert "cannot be written" in refused(warehouse, "small@v1", "--no-probe")


def test_metrics_and_baselines_need_no_torch(warehouse: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'torch' else find(name, *rest)\n"
        "from sidmill.cli import main; main()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, "evaluate", "small@v1", "-w", str(warehouse)]
    done = subprocess.run([*command, "--no-probe"], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "popularity" in done.stdout
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "sidmill: A probe (--no-probe leaves it out) needs an optional package. "
        "Run: pip install 'sidmill[torch]'"
    ]
    assert issubclass(MissingExtraError, SidmillError)


# What may be concluded


def stands(
    ref: str, ndcg: tuple[float, float], random: float = 0.1, short: int = 0, **questions: Any
) -> dict[str, Any]:
    def measured(mean: float, spread: float | None) -> dict[str, Any]:
        both = {name: {"mean": mean, "spread": spread} for name in standing.MEASURES}
        return {**both, "runs": [{"parameters": 10, "cpu_seconds": 2.0, "short": short}] * 3}

    told = {"split": "valid", "asked": 100, "of": 100, "repeats": 0, "come_back": False}
    told |= {"train_events": 7, "digest": "x"}
    return {
        "ref": ref,
        "metrics": {"tokenizer": "pq", "vectors": "text", "items": 5},
        "questions": told | questions,
        "baselines": {"popularity": {"recall_at_10": 0.2, "ndcg_at_10": 0.125}},
        "left_out": {},
        "probe": {"released": measured(*ndcg), "random": measured(random, 0.003)},
    }


def test_differences_within_the_spread_are_said() -> None:
    found = [stands("a@v1", (0.150, 0.003)), stands("b@v1", (0.154, 0.004)), stands("c@v1", (0.102, 0.004))]
    ranked = side_by_side.ranking(found)
    assert [row["name"] for row in ranked[:4]] == [
        "b@v1 pq on text", "a@v1 pq on text", "popularity", "c@v1 pq on text",
    ]  # fmt: skip
    assert ranked[1]["over_random"] == pytest.approx(0.05)
    assert side_by_side.table(ranked)[0][:3] == ["b@v1 pq on text", "0.1540 ± 0.0040", "0.1540 ± 0.0040"]
    said = side_by_side.sentences(found)
    assert "b@v1 and a@v1: the difference, 0.0040, is within the spread of seeds, 0.0050" in said
    assert "c@v1: its SIDs do no better than random IDs beyond the spread of seeds" in said
    assert not [one for one in said if "a@v1 and c@v1" in one or "a@v1: its" in one]


def test_what_was_asked_is_said() -> None:
    said = side_by_side.sentences([stands("a@v1", (0.2, 0.01), split="test", of=400, repeats=3)])
    assert said[0].startswith("100 of 400 questions of test, a sample by hash of the user; 7 train events")
    assert any(one.startswith("test is asked: rank on valid") for one in said)
    assert "a@v1: of 400 targets 3 are what the user has already; answers leave out what the user has" in said
    assert not [one for one in said if "fewer than 10 items" in one]
    one = stands("a@v1", (0.2, 0.01), short=4, repeats=50, come_back=True) | {"left_out": {"item-kNN": "so"}}
    said = side_by_side.sentences([one])
    assert "a@v1: of 100 targets 50 are what the user has already; answers may hold it" in said
    assert "a@v1: no item-kNN: so" in said
    assert any(one.startswith("a@v1: 4 of 100 answers have fewer than 10 items") for one in said)


def test_a_result_is_kept_by_all_that_decides_it(tmp_path: Path) -> None:
    kept = Kept(tmp_path, "f" * 16)
    first = {"seed": 0, "settings": Settings().to_json()}
    assert kept.get(first) is None
    assert kept.get_or_make(first, lambda: {"ndcg": 0.5}) == ({"ndcg": 0.5}, False)
    assert kept.get_or_make(first, dict) == ({"ndcg": 0.5}, True)
    other = {"seed": 0, "settings": replace(Settings(), steps=7).to_json()}
    assert kept.get(other) is None
    assert Kept(tmp_path, "e" * 16).get(first) is None
    with pytest.raises(RecipeError):
        Asked(seeds=0).check()
