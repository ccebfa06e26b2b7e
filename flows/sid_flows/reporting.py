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
        self._shown = self._began = time.monotonic()

    def line(self, text: str) -> None:
        """Put out one line."""
        raise NotImplementedError

    def started(self, stage: str) -> None:
        """Say nothing: the end says it all."""
        self._began = time.monotonic()

    def progress(self, stage: str, done: int, total: int) -> None:
        """Say how far a long stage is, every few seconds."""
        if time.monotonic() - self._shown >= EVERY and done < total:
            self._shown = time.monotonic()
            self.line(f"{stage:<11} {done:,} of {total:,}{self._pace(done, total)}")

    def _pace(self, done: int, total: int) -> str:
        """Give items a second and the time left, counted from when the stage began."""
        if not done:
            return ""
        rate = done / max(self._shown - self._began, 1e-9)
        left = (total - done) / max(rate, 1e-9)
        shown = f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s"
        return f", {rate:,.0f}/s, {shown} left"

    def finished(self, stage: str, summary: str, seconds: float) -> None:
        """Say what came out."""
        self.line(f"{stage:<11} {summary}  ({seconds:.1f} s)")

    def reused(self, stage: str, summary: str) -> None:
        """Say what was there."""
        self.line(f"{stage:<11} {summary}  (reused)")


class LogReporter(LineReporter):
    """Lines in the log, for workers and deployments."""

    def line(self, text: str) -> None:
        """Log one line."""
        LOGGER.info(text)


reporter: ContextVar[Reporter] = ContextVar("reporter", default=LogReporter())  # noqa: B039 (keeps a clock only)
