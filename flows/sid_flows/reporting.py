"""How a run tells what it does: one small interface, so that stages know neither terminal nor Prefect.

LineReporter   a line per stage; the console's reporters and LogReporter say where to
JsonReporter   (json_lines.py) one JSON object per line, for programs
Several        tells all of some reporters
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

LOGGER = logging.getLogger("sidmill")
EVERY = 10.0  # seconds between progress lines in a log


class Reporter(Protocol):
    """What a run reports. rows: written, in all tables; key: of the stage's output."""

    def begun(self, dataset: str) -> None:
        """A run on a data set begins; what follows is about it."""

    def waiting(self, holder: str) -> None:
        """Another run has the data set."""

    def started(self, stage: str) -> None:
        """A stage begins."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """A stage has done part of its work. total: 0 where nobody knows how much there is."""

    def finished(self, stage: str, summary: str, seconds: float, *, rows: int = 0, key: str = "") -> None:
        """A stage is done."""

    def reused(self, stage: str, summary: str, *, rows: int = 0, key: str = "") -> None:
        """A stage was done already."""

    def failed(self, stage: str, message: str) -> None:
        """A stage ended in an error, which is raised as well."""

    def retrying(self, stage: str, attempt: int, seconds: float, why: str) -> None:
        """A stage failed and is tried again, for the attempt of that number, in about so many seconds."""


class LineReporter:
    """A line per stage when it ends, and one now and then while it works. Subclasses say where to."""

    def __init__(self) -> None:
        """Start with no line shown."""
        self._shown = self._began = time.monotonic()

    def line(self, text: str) -> None:
        """Put out one line."""
        raise NotImplementedError

    def begun(self, dataset: str) -> None:
        """Say nothing: the recipe is named already."""

    def waiting(self, holder: str) -> None:
        """Say who has the data set."""
        self.line(f"{'waits':<11} another run has this data set: {holder}")

    def started(self, stage: str) -> None:
        """Say nothing: the end says it all."""
        self._began = time.monotonic()

    def progress(self, stage: str, done: int, total: int) -> None:
        """Say how far a long stage is, every few seconds."""
        if time.monotonic() - self._shown >= EVERY and (done < total or not total):
            self._shown = time.monotonic()
            pace = self.pace(done, total)
            how_far = f"{done:,} of {total:,}{pace and ', '}{pace}" if total else f"{done:,} tasks done"
            self.line(f"{stage:<11} {how_far}")

    def pace(self, done: int, total: int) -> str:
        """Give items a second and the time left, counted from when the stage began; "" before the first."""
        if not (done and total):
            return ""
        rate = done / max(time.monotonic() - self._began, 1e-9)
        left = (total - done) / max(rate, 1e-9)
        shown = f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s"
        return f"{rate:,.0f}/s, {shown} left"

    def finished(self, stage: str, summary: str, seconds: float, *, rows: int = 0, key: str = "") -> None:
        """Say what came out."""
        self.line(f"{stage:<11} {summary}  ({self.took(rows, seconds)})")

    def took(self, rows: int, seconds: float) -> str:
        """Give what stands between brackets at the end of a stage's line."""
        return f"{seconds:.1f} s"

    def reused(self, stage: str, summary: str, *, rows: int = 0, key: str = "") -> None:
        """Say what was there."""
        self.line(f"{stage:<11} {summary}  (reused)")

    def failed(self, stage: str, message: str) -> None:
        """Say nothing: whoever catches the error does."""

    def retrying(self, stage: str, attempt: int, seconds: float, why: str) -> None:
        """Say what went wrong, and when it is tried again."""
        self.line(f"{stage:<11} {again(attempt, seconds)}: {why}")


class LogReporter(LineReporter):
    """Lines in the log, for workers and deployments; with rows and their rate."""

    def line(self, text: str) -> None:
        """Log one line."""
        LOGGER.info(text)

    def took(self, rows: int, seconds: float) -> str:
        """Give seconds, rows and rows a second."""
        return f"{seconds:.1f} s, {rows:,} rows, {rate_of(rows, seconds):,.0f} rows/s"


def rate_of(rows: int, seconds: float) -> float:
    """Give rows a second; what took no time that can be measured counts as a millisecond."""
    return rows / max(seconds, 1e-3)


def again(attempt: int, seconds: float) -> str:
    """Say when what failed is tried again.

    >>> again(2, 10.0)
    'attempt 2 in about 10 s'
    """
    return f"attempt {attempt} in about {seconds:.0f} s"


class Several:
    """Tells all of some reporters, in their order."""

    def __init__(self, reporters: Sequence[Reporter]) -> None:
        """Take them."""
        self.reporters = reporters

    def begun(self, dataset: str) -> None:
        """Tell all."""
        for one in self.reporters:
            one.begun(dataset)

    def waiting(self, holder: str) -> None:
        """Tell all."""
        for one in self.reporters:
            one.waiting(holder)

    def started(self, stage: str) -> None:
        """Tell all."""
        for one in self.reporters:
            one.started(stage)

    def progress(self, stage: str, done: int, total: int) -> None:
        """Tell all."""
        for one in self.reporters:
            one.progress(stage, done, total)

    def finished(self, stage: str, summary: str, seconds: float, *, rows: int = 0, key: str = "") -> None:
        """Tell all."""
        for one in self.reporters:
            one.finished(stage, summary, seconds, rows=rows, key=key)

    def reused(self, stage: str, summary: str, *, rows: int = 0, key: str = "") -> None:
        """Tell all."""
        for one in self.reporters:
            one.reused(stage, summary, rows=rows, key=key)

    def failed(self, stage: str, message: str) -> None:
        """Tell all."""
        for one in self.reporters:
            one.failed(stage, message)

    def retrying(self, stage: str, attempt: int, seconds: float, why: str) -> None:
        """Tell all."""
        for one in self.reporters:
            one.retrying(stage, attempt, seconds, why)


reporter: ContextVar[Reporter] = ContextVar("reporter", default=LogReporter())  # noqa: B039 (keeps a clock only)


@contextmanager
def also(*further: Reporter) -> Iterator[None]:
    """Tell further reporters too, within the block."""
    token = reporter.set(Several([reporter.get(), *further]))
    try:
        yield
    finally:
        reporter.reset(token)
