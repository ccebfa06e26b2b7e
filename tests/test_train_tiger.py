"""The example that trains a T5 on a release, and what stands beside it: known answers, and a slow twin."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import ROOT, Run

sys.path.append(str(ROOT / "examples"))

import baselines
import train_tiger
from baselines import Questions, Score, measure, sasrec, table
from train_tiger import Data, Settings, answers, main, network, run

from sid_pipelines.evaluation.baselines import popularity
from sid_pipelines.evaluation.ranking import rank
from sid_pipelines.probes import Lists

TINY = Settings(epochs=2, width=16, layers=1, history=3, batch_size=16, beams=16, check_every=1)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def asked(*pairs: tuple[list[int], int], n_items: int = 30) -> Questions:
    return Questions([np.array(history) for history, _ in pairs], [target for _, target in pairs], n_items)


# What stands beside it


def test_sasrec_learns_which_item_follows_which() -> None:
    walks = [np.arange(start, start + 8) % 30 for start in range(30)] * 4
    valid = asked(*[(walk[:-1].tolist(), int(walk[-1])) for walk in walks])
    assert measure(rank(sasrec(valid, dim=32, epochs=15, rate=0.01), valid), valid).ndcg > 0.8


# The T5


@pytest.fixture(scope="module")
def tiger(small: Run) -> tuple[Data, Any]:
    data = Data(small.release, TINY)
    torch.manual_seed(0)
    return data, network(data)


def test_beam_search_ranks_all_items_by_their_likelihood(tiger: tuple[Data, Any]) -> None:
    """With as many beams as SIDs nothing is cut off, and every item's likelihood can be had on its own."""
    data, model = tiger
    found = list(answers(model, data, "test"))
    sids = torch.tensor(data.release.table("sids")["token_ids"].to_pylist())
    (batch,) = data.asked("test")
    assert len(found) == len(batch["input_ids"])
    for user, items in enumerate(found):
        every = {name: batch[name][user].expand(len(sids), -1) for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            chances = model(**every, labels=sids).logits.log_softmax(-1)
        likelihood = chances.gather(2, sids[:, :, None]).sum((1, 2))
        assert sorted(items[items >= 0]) == list(range(len(sids)))
        assert likelihood[items[: len(sids)]].numpy() == pytest.approx(
            likelihood.sort().values.flip(0).numpy()
        )


@pytest.mark.parametrize("shuffled", [False, True])
def test_what_is_written_is_turned_into_the_item_that_was_meant(small: Run, shuffled: bool) -> None:
    data = Data(small.release, replace(TINY, beams=1), shuffled=shuffled)
    sids = np.array(small.release.table("sids")["token_ids"].to_pylist())
    for split in ("valid", "test"):
        (batch,) = data.asked(split)
        start = torch.full((len(batch["labels"]), 1), data.vocabulary.bos)
        assert (
            data.items(torch.cat([start, batch["labels"]], 1))[:, 0].tolist() == batch["target_item"].tolist()
        )
        own = sids[batch["target_item"]].tolist()
        assert (batch["labels"].tolist() == own) is not shuffled


def test_shuffled_sids_are_the_same_sids(small: Run) -> None:
    data = Data(small.release, TINY, shuffled=True)
    assert data.dealt is not None
    sids = small.release.table("sids")["token_ids"].to_pylist()
    assert data.dealt[0].tolist() == [data.vocabulary.pad] * data.vocabulary.length
    assert sorted(data.dealt[1:].tolist()) == sorted(sids)
    assert data.dealt[1:].tolist() != sids


def test_dealing_items_their_own_sids_changes_no_batch(small: Run) -> None:
    plain, dealt = Data(small.release, TINY), Data(small.release, TINY, shuffled=True)
    sids = small.release.table("sids")["token_ids"].to_pylist()
    dealt.dealt = torch.tensor([[0] * len(sids[0]), *sids])
    for one, other in zip(plain.epoch(1), dealt.epoch(1), strict=True):
        for name in ("input_ids", "attention_mask", "labels", "target_item"):
            assert torch.equal(one[name], other[name])


def test_a_seed_gives_the_same_numbers_again(small: Run) -> None:
    torch.manual_seed(5)
    first = run(small.release, TINY)
    torch.manual_seed(6)
    assert run(small.release, TINY) == first
    assert 0 <= first.ndcg <= first.recall <= 1


def test_no_epochs_measure_random_weights(small: Run) -> None:
    assert run(small.release, replace(TINY, epochs=0)).recall >= 0


def test_the_command_prints_one_table(
    small: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_tiger, "Settings", lambda **given: replace(TINY, **given))
    monkeypatch.setattr(train_tiger.Settings, "epochs", 2, raising=False)
    monkeypatch.setattr(train_tiger.Settings, "seed", 0, raising=False)
    monkeypatch.setattr(
        baselines, "sasrec", lambda valid, seed: popularity(Lists.of(valid.histories), valid.n_items)
    )
    folder = small.release.folder.parents[2]
    main(["--warehouse", str(folder), "--release", "small", "--epochs", "1", "--baselines"])
    said = capsys.readouterr().out
    assert "small@v1, test, seed 0; TIGER: 1 epochs" in said
    rows = said.split("NDCG@10\n")[1].splitlines()
    assert [row[:26].strip() for row in rows] == [
        "popularity", "item-kNN", "item-kNN, tuned on valid", "SASRec", "TIGER, released SIDs",
    ]  # fmt: skip


def test_what_cannot_be_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no warehouse there"):
        main(["--warehouse", str(tmp_path / "none")])


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_a_missing_package_is_named_with_its_command(package: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; import train_tiger"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "examples", capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "Training a T5 needs an optional package. Run: pip install 'sidmill[transformers]'"
    ]


def test_a_table_shows_four_places() -> None:
    assert table({"x": Score(0.25, 0.125)}).splitlines()[1].split() == ["x", "0.2500", "0.1250"]
