"""Who answers without SIDs: popularity, and item-kNN as plain and as tuned on the example's valid split.

Both learn from train events alone and need no torch. Item-kNN is Deshpande and Karypis (2004), Item-Based
Top-N Recommendation Algorithms: cosines between items over the users that they share.
"""

from collections.abc import Callable, Iterator

import numpy as np
from scipy import sparse

from sid_pipelines.evaluation.questions import Exam, Items
from sid_pipelines.evaluation.ranking import Score, Scorer, Scores, measure, rank, rank_alike
from sid_pipelines.probes import Lists
from sid_pipelines.stage import Progress

CELLS = 2**25  # numbers of scores that are held at once
PAIRS = 2**26  # of items with a user in common, which item-kNN holds: 2 GB while it sorts them
STEPS = 2**32  # of counting them, a minute
ROWS = 1024  # of cosines that are worked out at once
TELL = 256  # answers
TUNED = {"shrink": 40.0, "decay": 0.6}  # chosen on MovieTweetings, valid


def popularity(train: Lists, n_items: int) -> Scorer:
    """Score an item by its events, whoever asks."""
    counts = _events(train, n_items)
    return lambda histories: np.broadcast_to(counts, (len(histories), n_items))


def _events(train: Lists, n_items: int) -> Scores:
    return np.bincount(train.items, minlength=n_items).astype(float)


def item_knn(train: Lists, n_items: int, *, shrink: float = 0, decay: float = 1) -> Scorer:
    """Score an item by the sum of its cosines to the items of the history, which are of users in common.

    shrink: added to each denominator, so that two items with few users are not taken for twins. decay: the
    weight of an event against the one after it. Every pair of items that share a user is held in memory
    (`too_many_pairs`). Scores are sparse.
    """
    matrix = _matrix(train, n_items)
    cosines = sparse.csr_array(matrix.T @ matrix)
    roots = np.sqrt(np.bincount(matrix.indices, minlength=n_items))
    for first in range(0, n_items, ROWS):
        edges = cosines.indptr[first : first + ROWS + 1]
        own = slice(edges[0], edges[-1])
        rows = np.repeat(roots[first : first + ROWS], np.diff(edges))
        cosines.data[own] /= rows * roots[cosines.indices[own]] + shrink

    def scores(histories: list[Items]) -> sparse.csr_array:
        sizes = [len(one) for one in histories]
        weights = np.concatenate([decay ** np.arange(size, dtype=float)[::-1] for size in sizes])
        places = (np.repeat(np.arange(len(sizes)), sizes), np.concatenate(histories))
        weighed = sparse.csr_array((weights, places), (len(sizes), n_items))
        return sparse.csr_array(weighed @ cosines)

    return scores


def too_many_pairs(train: Lists, n_items: int) -> str | None:
    """Say why item-kNN cannot be asked, before it takes the memory; None where it can."""
    sizes = np.diff(_matrix(train, n_items).indptr).astype(float)
    steps = float((sizes**2).sum())
    if min(steps, float(n_items) ** 2) <= PAIRS and steps <= STEPS:
        return None
    return (
        f"users have {steps:,.0f} pairs of items between them, and it holds at most {PAIRS:,} and counts "
        f"{STEPS:,}"
    )


def _matrix(train: Lists, n_items: int) -> sparse.csr_array:
    """Give who has what: (users, items) of 1, however often."""
    pair_up = (np.ones(len(train.items)), (train.owners, train.items))
    matrix = sparse.csr_array(pair_up, (len(train), n_items))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def baselines(
    exam: Exam, progress: Progress = lambda done, total: None
) -> tuple[dict[str, Score], dict[str, str]]:
    """Train all on train events and ask them: scores, and why some were not asked.

    progress: is told the answers that were counted.
    """
    n, asked = exam.asked.n_items, exam.asked
    answers: dict[str, Callable[[], Iterator[Items]]] = {
        "popularity": lambda: rank_alike(_events(exam.train, n), asked)
    }
    why = too_many_pairs(exam.train, n)
    if why is None:
        batch = max(1, min(256, CELLS // n))
        answers |= {
            "item-kNN": lambda: rank(item_knn(exam.train, n), asked, batch=batch),
            "item-kNN, tuned": lambda: rank(item_knn(exam.train, n, **TUNED), asked, batch=batch),
        }
    total = len(answers) * len(asked)
    scores = {
        name: measure(_told(make(), number * len(asked), total, progress), asked)
        for number, (name, make) in enumerate(answers.items())
    }
    return scores, {} if why is None else {"item-kNN": why}


def _told(answers: Iterator[Items], before: int, total: int, progress: Progress) -> Iterator[Items]:
    """Pass answers on, telling how many there were."""
    for number, one in enumerate(answers, 1):
        yield one
        if number % TELL == 0:
            progress(before + number, total)
