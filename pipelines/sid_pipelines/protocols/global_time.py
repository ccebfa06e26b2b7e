"""The protocol that leaks no event of the future: two moments divide the events of all users."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal

import numpy as np

from sid_pipelines.chunks import CONTEXT, TRAIN, Chunk, Labels, Rows
from sid_pipelines.order import Events
from sid_pipelines.protocols.base import OWN, Labelling, Protocol, cut_places
from sid_schemas import DataError


@dataclass(frozen=True)
class GlobalTime(Protocol):
    """Two moments divide all users' events: before the first trains, from the second on is test.

    cuts: the two moments (milliseconds, ISO text or TOML dates, UTC); without them `ratios` sets them.
    cut: "events": the moments at which those shares of all events are reached; equal times all go to the
    later side. "samples": every event with a history is a sample, all are sorted by time, then tie rule,
    then user, and cut by count, as MiniOneRec does. A user's first event is no sample: it trains if it is
    before the first cut, else it is context. Then equal times may stand on both sides of a cut.
    Leaks no event of the future; the only protocol here of which that is true. But cleaning came before:
    which users and items survive the k-core and the bot filter was decided on all events.

    ratios: shares of train, valid and test.
    """

    name = "global-time"
    leaks = (
        "nothing later than a cut is seen before it, but which users and items survive the k-core was "
        "decided on all events; many test users and items are new"
    )
    advice = "move [split] ratios or cuts: all events are on one side of a cut"

    ratios: Sequence[float] = (0.8, 0.1, 0.1)
    cuts: Sequence[int | str | datetime | date] = ()
    cut: Literal["events", "samples"] = "events"

    def __post_init__(self) -> None:
        """Bring the moments to milliseconds, so that one moment has one spelling."""
        object.__setattr__(self, "cuts", tuple(milliseconds(moment) for moment in self.cuts))

    @property
    def forbids(self) -> tuple[str, ...]:
        """Give the rules that a release must keep."""
        return (*OWN, "train_after_cut", "valid_after_cut", "test_before_last_train")

    @property
    def allows(self) -> tuple[str, ...]:
        """Give the rules that this protocol breaks by design."""
        return ("equal_times_across_cut",) if self.cut == "samples" else ()

    def check_params(self) -> None:
        """Raise DataError for ratios or cuts that divide nothing."""
        super().check_params()
        if self.cuts and (len(self.cuts) != 2 or self.moments[0] > self.moments[1]):
            raise DataError(f"cuts = {list(self.cuts)}: expected two moments, the first not after the second")
        if self.cuts and self.cut == "samples":
            raise DataError("cut = 'samples' counts samples; it does not go with cuts")

    @property
    def moments(self) -> list[int]:
        """Give the cuts in milliseconds."""
        return [milliseconds(moment) for moment in self.cuts]

    def prepare(self, events: Events) -> Labelling:
        """Find the two moments: 8 bytes of memory per event."""
        if self.cuts:
            return Labelling({"cuts": self.moments})
        samples = self.cut == "samples"
        columns = ["user_index", "ts"]
        times = np.concatenate(
            [chunk.ts[chunk.place > 0] if samples else chunk.ts for chunk in events.stored(columns)]
        )
        if not len(times):
            raise DataError("split: global-time: no event has a history; cut = 'events' needs none")
        places = cut_places(self.ratios, len(times))
        times.partition(places)
        valid, test = (int(times[place]) for place in places)
        if not samples:
            return Labelling({"cuts": [valid, test]})
        ranks = [place - int((times < times[place]).sum()) for place in places]
        return Labelling({"cuts": [valid, test]}, {"firsts": _firsts(events, (valid, test), ranks)})

    def label(self, chunk: Chunk, labelling: Labelling, events: Events) -> Labels:
        """Label by time; where samples are cut, those at a cut's time by tie rule and user too."""
        cuts = labelling.facts["cuts"]
        labels: Labels = (chunk.ts >= cuts[0]).astype(np.int8) + (chunk.ts >= cuts[1])
        if "firsts" in labelling.known:
            first, second = (tuple(key) for key in labelling.known["firsts"])
            labels[(chunk.place == 0) & (labels != TRAIN)] = CONTEXT
            rows = _samples_at(chunk, cuts)
            if len(rows):
                labels[rows] = [(key >= first) + (key >= second) for key in events.keys(chunk, rows)]
        return labels


def _firsts(events: Events, cuts: tuple[int, int], ranks: list[int]) -> list[tuple[Any, ...]]:
    """Give the key of the first sample behind each cut; ranks: samples at its very time before it."""
    at_cut: dict[int, list[tuple[Any, ...]]] = {cut: [] for cut in cuts}
    for chunk in events.stored():
        if np.isin(chunk.ts, cuts).any():
            chunk = events.order(chunk)
            for key in events.keys(chunk, _samples_at(chunk, cuts)):
                at_cut[key[0]].append(key)
    return [sorted(at_cut[cut])[rank] for cut, rank in zip(cuts, ranks, strict=True)]


def _samples_at(chunk: Chunk, times: Sequence[int]) -> Rows:
    return np.flatnonzero(np.isin(chunk.ts, times) & (chunk.place > 0))


def milliseconds(moment: int | str | datetime | date) -> int:
    """Give a moment as milliseconds since 1970 UTC; a time without zone is UTC, a day is its beginning.

    >>> milliseconds("2021-08-10T20:23:34.042Z"), milliseconds("1970-01-02")
    (1628627014042, 86400000)
    """
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError:
            raise DataError(
                f"cuts: {moment!r} is no moment; expected such as '2021-08-10T12:00:00Z'"
            ) from None
    if isinstance(moment, int):
        return moment
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000
