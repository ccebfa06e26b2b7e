"""What a run leaves in Prefect for people to look at: tables, a link, and how far long stages are.

    sidmill-ledger     what cleaning took, step by step
    sidmill-metrics    the few numbers that a release is judged by first
    sidmill-report     where its report is
    sidmill-progress-STAGE

None of them may ever fail a run: what Prefect refuses is noted in the log, and no more.
"""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from sid_flows.prefect_settings import has_server
from sid_flows.reporting import LOGGER
from sid_warehouse import origin

PATIENCE = 5.0  # seconds that a stage runs before it gets a progress artifact, and between its updates


def of_release(warehouse: Path, record: Mapping[str, Any]) -> None:
    """Leave ledger, metrics and the link to the report of a release that was just published."""
    from prefect import artifacts

    folder = warehouse / "releases" / record["dataset"] / f"v{record['version']}"
    ref = f"{record['dataset']}@v{record['version']}"
    with _harmless("sidmill-ledger"):
        artifacts.create_table_artifact(
            table=[dict(row) for row in record["ledger"]],
            key="sidmill-ledger",
            description=f"{ref}: what is left after each step of [clean]",
        )
    with _harmless("sidmill-metrics"):
        artifacts.create_table_artifact(
            table=metrics_rows(record),
            key="sidmill-metrics",
            description=f"{ref}: what it is judged by first",
        )
    with _harmless("sidmill-report"):
        report = folder / "report.html"
        store = origin.of(warehouse)
        within = report.relative_to(warehouse).as_posix()
        artifacts.create_link_artifact(
            link=f"{store.url}/{within}" if store else report.as_uri(),
            link_text=f"report of {ref}",
            key="sidmill-report",
            description="Browsers open no files from a page of a server; then use "
            f"`sidmill report {ref} --open`, or open {report}",
        )


def metrics_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Give rows and headline metrics of a release as a table: what, and its value.

    >>> metrics = {"max_group": 1, "reconstruction": {"mse": 0.5}, "retrain": []}
    >>> [tuple(row.values()) for row in metrics_rows({"metrics": metrics, "rows": {"sids": 9}})]
    [('max_group', 1), ('reconstruction.mse', 0.5), ('retrain', ''), ('rows.sids', 9)]
    """
    found = _flat(record["metrics"]) | _flat(record["rows"], "rows.")
    return [{"metric": name, "value": value} for name, value in found.items()]


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{before}{name}.")
        else:
            flat[before + name] = "; ".join(map(str, value)) if isinstance(value, list | tuple) else value
    return flat


class ProgressReporter:
    """Shows in Prefect how far a long stage is, where there is a server that somebody may look at."""

    def __init__(self) -> None:
        """Start with nothing shown."""
        self._live = has_server()
        self._began = self._shown = time.monotonic()
        self._artifact: UUID | None = None

    def begun(self, dataset: str) -> None:
        """Show nothing."""

    def waiting(self, holder: str) -> None:
        """Show nothing: the log has it."""

    def started(self, stage: str) -> None:
        """Count from here."""
        self._began = self._shown = time.monotonic()
        self._artifact = None

    def progress(self, stage: str, done: int, total: int) -> None:
        """Show how far it is, every few seconds."""
        now = time.monotonic()
        if not (self._live and total) or now - self._shown < PATIENCE:
            return
        self._shown = now
        rate = done / max(now - self._began, 1e-9)
        self._show(stage, 100 * done / total, f"{done:,} of {total:,}, {rate:,.0f}/s")

    def finished(self, stage: str, summary: str, seconds: float, *, rows: int = 0, key: str = "") -> None:
        """Show that it is done, where anything was shown."""
        if self._artifact is not None:
            self._show(stage, 100.0, summary)

    def reused(self, stage: str, summary: str, *, rows: int = 0, key: str = "") -> None:
        """Show nothing."""

    def failed(self, stage: str, message: str) -> None:
        """Leave what is shown: it says how far it came."""

    def retrying(self, stage: str, attempt: int, seconds: float, why: str) -> None:
        """Show nothing: the log has it."""

    def _show(self, stage: str, percent: float, text: str) -> None:
        from prefect import artifacts

        with _harmless(f"progress of {stage}"):
            if self._artifact is None:
                name = re.sub(r"[^a-z0-9]+", "-", stage.lower()).strip("-")
                made = artifacts.create_progress_artifact(
                    progress=percent, key=f"sidmill-progress-{name}", description=f"{stage}: {text}"
                )
                self._artifact = made if isinstance(made, UUID) else None
            else:
                artifacts.update_progress_artifact(
                    artifact_id=self._artifact, progress=percent, description=f"{stage}: {text}"
                )


@contextmanager
def _harmless(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of any kind: the run matters, the artifact does not
        LOGGER.warning("%s could not be left in Prefect (%s: %s)", what, type(error).__name__, error)
