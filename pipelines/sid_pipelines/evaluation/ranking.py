"""How answers count: Recall@10 and NDCG@10 over the whole catalogue, one target each.

What the user has already is left out of an answer, unless users of this data set come back to what they have
(`Questions.come_back`).
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from sid_pipelines.evaluation.questions import Items, Questions

K = 10
BATCH = 256  # questions that are scored at once
Scores = npt.NDArray[np.float64]
# Histories, oldest first -> (n, n_items); sparse where most scores are 0 and none is less.
Scorer = Callable[[list[Items]], Scores | sparse.csr_array]


class Score(NamedTuple):
    """Recall@10 and NDCG@10, means over questions."""

    recall: float
    ndcg: float


def gains(answers: Iterable[npt.ArrayLike], asked: Questions) -> Scores:
    """Give what each answer gains: (n,), 1 / log2(p + 1) for a target at place p up to 10, else 0.

    answers: for each question item numbers, best first, each once at most; -1 is none. With one target the
    best NDCG is 1, so the gain is the NDCG. What the user has takes no place unless users come back to it.
    """
    found = np.zeros(len(asked))
    pairs = zip(answers, asked.had, asked.targets, strict=True)
    for number, (answer, had, target) in enumerate(pairs):
        items = np.asarray(answer)
        new = items if asked.come_back else items[~np.isin(items, had)]
        for place in np.flatnonzero(new[:K] == target):
            found[number] = 1 / math.log2(place + 2)
    return found


def measure(answers: Iterable[npt.ArrayLike], asked: Questions) -> Score:
    """Give Recall@10 and NDCG@10 of answers as `gains` takes them."""
    found = gains(answers, asked)
    return Score(float(np.mean(found > 0)), float(np.mean(found)))


def rank(scorer: Scorer, asked: Questions, *, batch: int = BATCH) -> Iterator[Items]:
    """Yield the best items for each question, as many as `measure` can need; equal scores by item number.

    So nobody gains by scoring all items alike.
    """
    for start in range(0, len(asked), batch):
        scores = scorer(asked.histories[start : start + batch])
        had = asked.had[start : start + batch]
        if isinstance(scores, sparse.csr_array):
            rows = zip(scores.indptr[:-1], scores.indptr[1:], strict=True)
            some = [(scores.indices[first:end], scores.data[first:end]) for first, end in rows]
            for (items, own), one in zip(some, had, strict=True):
                yield _best_of_few(items, own, asked.n_items, K + len(one))
        else:
            for own, one in zip(scores, had, strict=True):
                yield _best(own, K + len(one))


def rank_alike(scores: Scores, asked: Questions) -> Iterator[Items]:
    """Yield what `rank` does where scores, (n_items,), are the same whoever asks: they are sorted once."""
    best = _best(scores, K + max(map(len, asked.had), default=0))
    for had in asked.had:
        yield best[: K + len(had)]


def _best_of_few(items: Items, scores: Scores, n_items: int, most: int) -> Items:
    """Give what `_best` does, from the items whose score is not 0."""
    order = np.argsort(items[scores > 0])
    items, scores = items[scores > 0][order].astype(np.int64), scores[scores > 0][order]
    best = items[_best(scores, most)]
    rest = np.setdiff1d(np.arange(min(n_items, most)), items)  # the first of the others are among them
    return np.concatenate([best, rest[: most - len(best)]])


def _best(scores: Scores, most: int) -> Items:
    """Give the numbers of the highest scores, best first; of equal ones the lower number is better."""
    if most < len(scores):
        least = np.partition(scores, len(scores) - most)[len(scores) - most]
        candidates = np.flatnonzero(scores >= least)
    else:
        candidates = np.arange(len(scores))
    return candidates[np.argsort(-scores[candidates], kind="stable")][:most]
