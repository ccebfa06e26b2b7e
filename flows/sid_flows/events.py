"""What a run tells Prefect's automations: flows/automations.yaml has some that listen.

    sidmill.release.published   a release is there
    sidmill.gate.refused        a quality gate refused one, nothing was published
    sidmill.drift.high          an append was published that calls for retraining

The resource is `sidmill.dataset.<dataset>`; the flow run is related. Nobody listens to an ephemeral server,
so nothing is sent to one.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sid_flows.prefect_settings import has_server
from sid_flows.reporting import LOGGER
from sid_schemas import GateRefusedError

PUBLISHED, REFUSED, DRIFTED = "sidmill.release.published", "sidmill.gate.refused", "sidmill.drift.high"


def published(warehouse: Path, record: Mapping[str, Any]) -> None:
    """Tell that a release is there, and where it calls for retraining, that too."""
    dataset = record["dataset"]
    told = {
        "ref": f"{dataset}@v{record['version']}",
        "folder": str(warehouse / "releases" / dataset / f"v{record['version']}"),
        **{name: record[name] for name in ("kind", "base", "version", "fingerprint", "rows", "metrics")},
    }
    emit(PUBLISHED, dataset, told)
    if reasons := record["metrics"]["retrain"]:
        emit(DRIFTED, dataset, told | {"reasons": reasons, "message": f"{told['ref']}: {'; '.join(reasons)}"})


@contextmanager
def of_run(dataset: str) -> Iterator[None]:
    """Tell where a gate refuses what a run made."""
    try:
        yield
    except GateRefusedError as error:
        emit(REFUSED, dataset, {"dataset": dataset, "message": str(error)})
        raise


def emit(event: str, dataset: str, payload: Mapping[str, Any]) -> None:
    """Send an event about a data set; one that cannot be sent fails no run."""
    if not has_server():
        return
    from prefect.events import emit_event

    try:
        resource = {"prefect.resource.id": f"sidmill.dataset.{dataset}", "prefect.resource.name": dataset}
        emit_event(event=event, resource=resource, payload=dict(payload))
    except Exception as error:
        LOGGER.warning("event %s could not be sent (%s: %s)", event, type(error).__name__, error)
