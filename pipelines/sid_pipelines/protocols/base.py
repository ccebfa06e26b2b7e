"""What a split protocol is, and the shares into which protocols divide."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any, ClassVar

from sid_pipelines.chunks import Chunk, Labels
from sid_pipelines.order import Events
from sid_pipelines.packed import Arrays
from sid_schemas import DataError

OWN = ("train_after_own_held_out", "valid_after_own_test")


@dataclass(frozen=True)
class Labelling:
    """What a protocol knows of the whole data set when it labels: plain data, which workers can be sent.

    facts: go into the report. known: what else is JSON. arrays: numbers by name.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    known: dict[str, Any] = field(default_factory=dict)
    arrays: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class Protocol(ABC):
    """A way to divide events; its fields are the recipe's keys.

    leaks: what a model may learn that it could not have known. advice: what to change where nothing is
    left in a split. every_user: whether only users that are too short have no test event.
    """

    name: ClassVar[str]
    leaks: ClassVar[str]
    advice: ClassVar[str]
    every_user: ClassVar[bool] = False

    @property
    def forbids(self) -> tuple[str, ...]:
        """Give the rules that a release must keep."""
        return OWN

    @property
    def allows(self) -> tuple[str, ...]:
        """Give the rules that this protocol breaks by design; the audit counts how often."""
        return ("test_before_last_train",)

    def check_params(self) -> None:
        """Raise DataError where a parameter is out of range."""
        if hasattr(self, "ratios"):
            check_ratios(self.ratios)

    @property
    def sessions(self) -> tuple[int, int] | None:
        """Give (targets per sample, gap in milliseconds) where a session is one sample, else None."""
        return None

    def params(self) -> dict[str, Any]:
        """Give the parameters as JSON has them."""
        values = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    @property
    def looks_ahead(self) -> bool:
        """Say whether `prepare` looks at the events."""
        return type(self).prepare is not Protocol.prepare

    def prepare(self, events: Events) -> Labelling:
        """Find what must be known of all events before the first is labelled; here, nothing."""
        return Labelling()

    @abstractmethod
    def label(self, chunk: Chunk, labelling: Labelling, events: Events) -> Labels:
        """Label whole users' events in the declared order; events: for hashes of their content."""


def check_ratios(ratios: Sequence[float]) -> None:
    """Raise DataError unless these are shares of train, valid and test, of which only valid may be 0."""
    fits = len(ratios) == 3 and min(ratios) >= 0 and abs(sum(ratios) - 1) < 1e-9
    if not (fits and ratios[0] > 0 and ratios[2] > 0):
        raise DataError(
            f"ratios = {list(ratios)}: expected shares of train, valid and test that add up to 1, such as "
            "[0.8, 0.1, 0.1]; only valid may be 0"
        )


def cut_places(ratios: Sequence[float], n: Any) -> list[Any]:
    """Give how many of n are before each cut: floor(n * train), floor(n * (train + valid)).

    n: a number or an array. Shares are decimal fractions, not binary ones: 0.7 + 0.1 is 0.8 here.

    >>> cut_places([0.8, 0.1, 0.1], 45_324), cut_places([0.7, 0.1, 0.2], 10)
    ([36259, 40791], [7, 8])
    """
    train, valid, _ = (Fraction(str(ratio)) for ratio in ratios)
    return [share_of(train, n), share_of(train + valid, n)]


def share_of(share: Fraction, n: Any) -> Any:
    """Give floor(n * share); n may be an array."""
    share = share.limit_denominator(10**9)  # so that products of int64 arrays fit
    return n * share.numerator // share.denominator
