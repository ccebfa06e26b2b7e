"""How one release stands: metrics, baselines, and a probe for each seed, of its SIDs and of random IDs.

Each model is kept when it is done, so a stopped evaluation goes on where it was.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Protocol

from sid_pipelines.evaluation.baselines import baselines
from sid_pipelines.evaluation.codes import Codes
from sid_pipelines.evaluation.headlines import headlines
from sid_pipelines.evaluation.kept import Kept
from sid_pipelines.evaluation.questions import Exam, exam
from sid_pipelines.evaluation.settings import REVISION, Settings
from sid_schemas import DataError, MissingExtraError, RecipeError
from sid_warehouse.reader import Release

MEASURES = ("recall_at_10", "ndcg_at_10")
IDS = ("released", "random")  # as they are; the same SIDs, dealt to other items


class Report(Protocol):
    """Who is told what is under way."""

    def started(self, stage: str) -> None:
        """A model begins."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """A model has done part of its work."""

    def finished(self, stage: str, summary: str, seconds: float) -> None:
        """A model is done."""

    def reused(self, stage: str, summary: str) -> None:
        """A model was done already."""


@dataclass(frozen=True)
class Asked:
    """What an evaluation asks. seeds: how many, from 0 on. max_users: 0 for all. probe: or metrics alone."""

    split: str = "valid"
    seeds: int = 3
    max_users: int = 0
    probe: bool = True
    settings: Settings = field(default_factory=Settings)

    def check(self) -> None:
        """Refuse what cannot be, and a probe without torch; torch is not imported."""
        for name, least in (("seeds", 1), ("max_users", 0)):
            if getattr(self, name) < least:
                option = name.replace("_", "-")
                raise RecipeError(f"--{option}: expected {least} or more, got {getattr(self, name)}")
        if self.probe and find_spec("torch") is None:
            raise MissingExtraError("A probe (--no-probe leaves it out)", "torch")


def standing(release: Release, warehouse: Path, asked: Asked, report: Report) -> dict[str, Any]:
    """Give how a release stands, as JSON; raises DataError where its split has no samples."""
    questions = exam(release, asked.split, max_users=asked.max_users)
    kept = Kept(warehouse, release.record["fingerprint"])
    identity = {
        "revision": REVISION,
        "split": asked.split,
        "questions": questions.digest,
        "packages": {name: _version(name) for name in ("numpy", "scipy")},
    }
    found = _baselines(release.ref, questions, kept, identity, report)
    return {
        "ref": release.ref,
        "fingerprint": release.record["fingerprint"],
        "metrics": headlines(release),
        "questions": {
            "split": asked.split,
            "asked": len(questions.asked),
            "of": questions.total,
            "repeats": questions.repeats,
            "come_back": questions.asked.come_back,
            "train_events": len(questions.train.items),
            "digest": questions.digest,
        },
        "baselines": found["scores"],
        "left_out": found["left_out"],
        "probe": _probes(release, questions, kept, identity, asked, report),
    }


def _baselines(
    ref: str, questions: Exam, kept: Kept, identity: Mapping[str, Any], report: Report
) -> dict[str, Any]:
    """Give the scores of each baseline, and why some were left out."""
    name, began = f"{ref} baselines", time.monotonic()
    report.started(name)

    def make() -> dict[str, Any]:
        scores, left_out = baselines(questions, lambda done, total: report.progress(name, done, total))
        told = {one: dict(zip(MEASURES, score, strict=True)) for one, score in scores.items()}
        return {"scores": told, "left_out": left_out}

    found, was_there = kept.get_or_make({"what": "baselines", **identity}, make)
    said = ", ".join(f"{one} {score['ndcg_at_10']:.4f}" for one, score in found["scores"].items())
    if was_there:
        report.reused(name, f"NDCG@10: {said}")
    else:
        report.finished(name, f"NDCG@10: {said}", time.monotonic() - began)
    return found


def _probes(
    release: Release, questions: Exam, kept: Kept, identity: Mapping[str, Any], asked: Asked, report: Report
) -> dict[str, Any]:
    """Give the runs of each seed and their means by IDS; or {"none": why there is no probe}."""
    if not asked.probe:
        return {"none": "--no-probe"}
    try:
        codes = Codes.of(release)
    except DataError as error:
        return {"none": str(error)}
    from sid_pipelines.evaluation.probe import probe  # brings torch

    identity = {
        "what": "probe",
        **identity,
        "packages": {**identity["packages"], "torch": _version("torch")},
        "settings": asked.settings.to_json(),
        # A fingerprint is of what a release was made from; its SIDs are what is trained on.
        "sids": {
            name: facts["sha256"]
            for name, facts in release.record["files"].items()
            if name.startswith("sids/") or name == "vocabulary.json"
        },
    }
    runs: dict[str, list[dict[str, Any]]] = {ids: [] for ids in IDS}
    for seed in range(asked.seeds):
        for ids in IDS:
            name = f"{release.ref} {ids} IDs, seed {seed}"
            dealt = codes if ids == "released" else codes.dealt(seed)
            began = time.monotonic()
            report.started(name)

            def make(dealt: Codes = dealt, seed: int = seed, name: str = name) -> dict[str, Any]:
                told = lambda done, total: report.progress(name, done, total)  # noqa: E731
                return probe(dealt, questions, asked.settings, seed, told)

            result, was_there = kept.get_or_make({**identity, "ids": ids, "seed": seed}, make)
            said = f"Recall@10 {result['recall_at_10']:.4f}, NDCG@10 {result['ndcg_at_10']:.4f}"
            if was_there:
                report.reused(name, said)
            else:
                report.finished(name, said, time.monotonic() - began)
            runs[ids].append(result)
    told = {"settings": asked.settings.to_json(), "tokens_of_an_item": codes.width}
    return told | {ids: {**_summary(each), "runs": each} for ids, each in runs.items()}


def _summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Give mean and sample standard deviation of each measure; None for the latter with one seed."""
    values = {name: [run[name] for run in runs] for name in MEASURES}
    return {
        name: {"mean": mean(each), "spread": stdev(each) if len(each) > 1 else None}
        for name, each in values.items()
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
