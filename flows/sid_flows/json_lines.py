"""What a run tells as one JSON object per line, for programs that collect logs.

Every line has time (UTC), level, event and message; what a line is not about is null:

    event    begun, waiting, started, progress, finished, reused, retrying, failed, error
    dataset, stage, rows, seconds, rate (rows or items a second), key, reused, done, total, attempt
"""

import json
import os
import sys
import time
from datetime import UTC, datetime
from typing import Any

from sid_flows import reporting

WANTED = "SIDMILL_LOG"  # "json" asks for it
FIELDS = ("dataset", "stage", "rows", "seconds", "rate", "key", "reused", "done", "total", "attempt")


def wanted() -> bool:
    """Say whether the environment asks for JSON lines."""
    return os.environ.get(WANTED) == "json"


def write(event: str, message: str, *, level: str = "INFO", **fields: Any) -> None:
    """Write one line to standard error, which leaves standard output to results."""
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "level": level,
        "event": event,
        "message": message,
        **dict.fromkeys(FIELDS),
        **fields,
    }
    sys.stderr.write(json.dumps(line) + "\n")  # in ASCII, so that nothing in a title commands a terminal
    sys.stderr.flush()


class JsonReporter:
    """A JSON line for everything that a run reports; of progress every few seconds."""

    def __init__(self) -> None:
        """Start with no line shown."""
        self._dataset: str | None = None
        self._began = self._shown = time.monotonic()

    def begun(self, dataset: str) -> None:
        """Tell of a run."""
        self._dataset = dataset
        self._write("begun", f"a run on {dataset} begins")

    def waiting(self, holder: str) -> None:
        """Tell who has the data set."""
        self._write("waiting", f"another run has this data set: {holder}")

    def started(self, stage: str) -> None:
        """Tell of a stage."""
        self._began = time.monotonic()
        self._write("started", f"{stage} begins", stage=stage)

    def progress(self, stage: str, done: int, total: int) -> None:
        """Tell how far a long stage is."""
        now = time.monotonic()
        if now - self._shown < reporting.EVERY or (total and done >= total):
            return
        self._shown, took = now, now - self._began
        told = {"done": done, "total": total or None, "seconds": round(took, 3)}
        rate = round(reporting.rate_of(done, took), 1)
        self._write("progress", f"{done} of {total or 'unknown'}", stage=stage, rate=rate, **told)

    def finished(self, stage: str, summary: str, seconds: float, *, rows: int = 0, key: str = "") -> None:
        """Tell what came out."""
        rate = round(reporting.rate_of(rows, seconds), 1)
        took = {"rows": rows, "seconds": round(seconds, 3), "rate": rate}
        self._write("finished", summary, stage=stage, key=key or None, reused=False, **took)

    def reused(self, stage: str, summary: str, *, rows: int = 0, key: str = "") -> None:
        """Tell what was there."""
        self._write("reused", summary, stage=stage, key=key or None, reused=True, rows=rows)

    def failed(self, stage: str, message: str) -> None:
        """Tell what a stage ended in."""
        self._write("failed", message, level="ERROR", stage=stage)

    def retrying(self, stage: str, attempt: int, seconds: float, why: str) -> None:
        """Tell what went wrong, and after how many seconds it is tried again."""
        message = f"{reporting.again(attempt, seconds)}: {why}"
        self._write("retrying", message, level="WARNING", stage=stage, attempt=attempt, seconds=seconds)

    def _write(self, event: str, message: str, **fields: Any) -> None:
        write(event, message, dataset=self._dataset, **fields)
