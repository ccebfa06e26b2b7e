"""Protocols that cut each user's own history: the last events, the last sessions, a share of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sid_pipelines.chunks import MINUTE, TEST, TRAIN, VALID, Chunk, Labels, Rows
from sid_pipelines.order import Events
from sid_pipelines.protocols.base import OWN, Labelling, Protocol, cut_places
from sid_schemas import DataError


@dataclass(frozen=True)
class LeaveKOut(Protocol):
    """Each user's last k events are test targets, the k before them validation; the rest trains.

    Users with fewer than 2k + 1 events only train. Leaks: other users' train events may be later than a
    test target, so a model may learn from the future of the catalogue.

    k: events of each user that test, and as many that validate.
    """

    name = "leave-k-out"
    leaks = "other users' train events may be later than a test target"
    advice = "no user has 2k + 1 events: lower [split] k, or [clean] k_core for longer users"
    every_user = True

    k: int = 2

    def check_params(self) -> None:
        """Raise DataError for k below 1."""
        if self.k < 1:
            raise DataError(f"k = {self.k}: expected at least 1")

    def label(self, chunk: Chunk, labelling: Labelling, events: Events) -> Labels:
        """Count from each user's last event."""
        return _last_k(chunk, self.k)


def _last_k(chunk: Chunk, k: int) -> Labels:
    left = chunk.spread(chunk.edges[1:]) - np.arange(len(chunk))  # 1 at the user's last event
    labels = np.select([left <= k, left <= 2 * k], [TEST, VALID], TRAIN).astype(np.int8)
    labels[chunk.spread(chunk.sizes < 2 * k + 1)] = TRAIN
    return labels


@dataclass(frozen=True)
class LeaveOneOut(Protocol):
    """Each user's last event is the test target, the one before it the validation target; the rest trains.

    Users with fewer than 3 events only train. Leaks as leave-k-out does, of which it is the case k = 1.
    """

    name = "leave-one-out"
    leaks = LeaveKOut.leaks
    advice = "no user has 3 events: use a larger dump, or lower [clean] k_core"
    every_user = True

    def label(self, chunk: Chunk, labelling: Labelling, events: Events) -> Labels:
        """Count from each user's last event."""
        return _last_k(chunk, 1)


@dataclass(frozen=True)
class PerUserRatio(Protocol):
    """Each user's events are divided by shares: in time, or drawn at random by a seeded content hash.

    The first floor(n * train) events train, at least one; up to floor(n * (train + valid)) is validation,
    the rest test. Leaks: other users' later events; a random draw also the user's own later events.

    ratios: shares of train, valid and test. draw: "time" takes them in order, "random" by the hash.
    """

    name = "per-user-ratio"
    leaks = "other users' train events may be later than a test target; with draw = 'random' the user's too"
    advice = "no user has 2 events: use a larger dump, or other [split] ratios"
    every_user = True

    ratios: Sequence[float] = (0.8, 0.1, 0.1)
    draw: Literal["time", "random"] = "time"

    @property
    def forbids(self) -> tuple[str, ...]:
        """Give the rules that a release must keep."""
        return OWN if self.draw == "time" else ()

    @property
    def allows(self) -> tuple[str, ...]:
        """Give the rules that this protocol breaks by design."""
        return (*(() if self.draw == "time" else OWN), "test_before_last_train")

    def label(self, chunk: Chunk, labelling: Labelling, events: Events) -> Labels:
        """Rank each user's events, by time or by hash, and cut the ranks."""
        rank = chunk.place
        if self.draw == "random":
            high, low = events.hashes(chunk, np.arange(len(chunk)), salt="draw ")
            rank = np.empty(len(chunk), dtype=np.int64)
            rank[np.lexsort((low, high, chunk.users))] = chunk.place
        train, valid = cut_places(self.ratios, chunk.sizes)
        train = np.maximum(train, 1)
        later = rank >= chunk.spread(np.maximum(train, valid))
        return (rank >= chunk.spread(train)).astype(np.int8) + later


@dataclass(frozen=True)
class Sessions(Protocol):
    """Each user's last session is test, the one before it validation; the rest trains.

    A session is a run of events with one session_id; where there is none, events at most `gap_minutes`
    apart. Sessions that stand between each other's events count as one, so that no session_id is ever
    divided. Users with fewer than 3 sessions only train. A session is one sample: all before it is its
    history, its first `next` events are the targets. Leaks: as leave-one-out does.

    next: events of a session that are targets. gap_minutes: pause after which a new session begins.
    """

    name = "sessions"
    leaks = LeaveKOut.leaks
    advice = "no user has 3 sessions: change [split] gap_minutes, or use leave-one-out"
    every_user = True

    next: int = 1
    gap_minutes: float = 30.0

    @property
    def forbids(self) -> tuple[str, ...]:
        """Give the rules that a release must keep."""
        return (*OWN, "sessions_divided")

    @property
    def sessions(self) -> tuple[int, int]:
        """Give (targets per sample, gap in milliseconds); the gap is rounded here and nowhere else."""
        return self.next, round(self.gap_minutes * MINUTE)

    def check_params(self) -> None:
        """Raise DataError for parameters out of range."""
        if self.next < 1 or not self.gap_minutes > 0:
            raise DataError(
                f"next = {self.next}, gap_minutes = {self.gap_minutes}: expected at least 1, above 0"
            )

    def label(self, chunk: Chunk, labelling: Labelling, events: Events) -> Labels:
        """Count from each user's last session."""
        session = np.cumsum(chunk.session_starts(self.sessions[1]), dtype=np.int64)
        last: Rows = session[chunk.edges[1:] - 1]
        left = chunk.spread(last) - session
        labels = np.select([left == 0, left == 1], [TEST, VALID], TRAIN).astype(np.int8)
        sessions = last - session[chunk.edges[:-1]] + 1
        labels[chunk.spread(sessions) < 3] = TRAIN
        return labels
