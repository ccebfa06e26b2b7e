"""How a run tells what it does: one small interface, so that stages know neither terminal nor Prefect."""

import logging
import time
from contextvars import ContextVar
from typing import Protocol

LOGGER = logging.getLogger("sidmill")
EVERY = 10.0  # seconds between progress lines in a log


class Reporter(Protocol):
    """What a run reports."""

    def started(self, stage: str) -> None:
        """A stage begins."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """A stage has done part of its work."""

    def finished(self, stage: str, summary: str, seconds: float) -> None:
        """A stage is done."""

    def reused(self, stage: str, summary: str) -> None:
        """A stage was done already."""


class LineReporter:
    """A line per stage when it ends, and one now and then while it works. Subclasses say where to."""

    def __init__(self) -> None:
        """Start with no line shown."""
        self._shown = time.monotonic()

    def line(self, text: str) -> None:
        """Put out one line."""
        raise NotImplementedError

    def started(self, stage: str) -> None:
        """Say nothing: the end says it all."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """Say how far a long stage is, every few seconds."""
        if time.monotonic() - self._shown >= EVERY and done < total:
            self._shown = time.monotonic()
            self.line(f"{stage:<12}{done:,} of {total:,}")

    def finished(self, stage: str, summary: str, seconds: float) -> None:
        """Say what came out."""
        self.line(f"{stage:<12}{summary}  ({seconds:.1f} s)")

    def reused(self, stage: str, summary: str) -> None:
        """Say what was there."""
        self.line(f"{stage:<12}{summary}  (reused)")


class LogReporter(LineReporter):
    """Lines in the log, for workers and deployments."""

    def line(self, text: str) -> None:
        """Log one line."""
        LOGGER.info(text)


reporter: ContextVar[Reporter] = ContextVar("reporter", default=LogReporter())  # noqa: B039 (keeps a clock only)
