"""One probe: train on the train events as SIDs, ask all questions, count; a seed gives the same again."""

import time
from collections.abc import Callable
from math import ceil
from typing import Any

import numpy as np

from sid_pipelines.evaluation.codes import Codes
from sid_pipelines.evaluation.decoding import BATCH, answers
from sid_pipelines.evaluation.questions import Exam, Items, Questions
from sid_pipelines.evaluation.ranking import K, measure
from sid_pipelines.evaluation.settings import Settings
from sid_pipelines.evaluation.training import train
from sid_pipelines.stage import Progress
from sid_tokenizers.learned.one_thread import one_thread


def probe(
    codes: Codes, exam: Exam, settings: Settings, seed: int, progress: Progress = lambda done, total: None
) -> dict[str, Any]:
    """Give recall and ndcg, both @10, and what they took: parameters, CPU seconds.

    short: the answers that have fewer items than they could, as where few beams hold much that the user has.
    progress: is told steps of training, and then so many questions as take about as long as a step.
    """
    total, began = settings.steps + ceil(len(exam.asked) / BATCH), time.process_time()
    with one_thread():
        network = train(codes, exam.train, settings, seed, lambda done: progress(done, total))
        found: list[Items] = [np.empty(0, np.int64)] * len(exam.asked)
        for number, items in answers(
            network,
            codes,
            exam.asked,
            settings.beams,
            settings.history,
            _after(settings.steps, total, progress),
        ):
            found[number] = items
    assert all(len(one) == K for one in found)
    score = measure(found, exam.asked)
    return {
        "seed": seed,
        "recall_at_10": score.recall,
        "ndcg_at_10": score.ndcg,
        "short": _short(found, exam.asked),
        "parameters": sum(one.numel() for one in network.parameters()),
        "device": "cpu",
        "cpu_seconds": round(time.process_time() - began, 1),
    }


def _short(found: list[Items], asked: Questions) -> int:
    """Count the answers that more beams would have filled."""
    short = 0
    for items, had in zip(found, asked.had, strict=True):
        there = int((items >= 0).sum())
        if there < K:  # most are not
            others = asked.n_items - (0 if asked.come_back else len(np.unique(had)))
            short += there < min(K, others)
    return short


def _after(steps: int, total: int, progress: Progress) -> Callable[[int], None]:
    return lambda done: progress(steps + ceil(done / BATCH), total)
