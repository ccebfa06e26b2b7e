"""How a run tells what it does: one small interface, so that stages know neither terminal nor Prefect."""

import logging
import time
from contextvars import ContextVar
from typing import Any, Protocol

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

    def published(self, release: dict[str, Any]) -> None:
        """A release is out."""


class LogReporter:
    """Plain lines in the log, for workers and deployments."""

    def __init__(self) -> None:
        """Start with no progress shown."""
        self._shown = time.monotonic()

    def started(self, stage: str) -> None:
        """Log nothing: the end says it all."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """Log a line now and then."""
        if time.monotonic() - self._shown >= EVERY:
            self._shown = time.monotonic()
            LOGGER.info("%s: %d of %d", stage, done, total)

    def finished(self, stage: str, summary: str, seconds: float) -> None:
        """Log what came out."""
        LOGGER.info("%s: %s (%.1f s)", stage, summary, seconds)

    def reused(self, stage: str, summary: str) -> None:
        """Log what was there."""
        LOGGER.info("%s: reused: %s", stage, summary)

    def published(self, release: dict[str, Any]) -> None:
        """Log the release's name."""
        LOGGER.info("published %s@v%d", release["dataset"], release["version"])


reporter: ContextVar[Reporter] = ContextVar("reporter", default=LogReporter())  # noqa: B039 (stateless enough)
