"""The Prefect flows for a release that is there: hand it over to others, and see whether it is intact.

They do what the commands of the same name do, by the same code. build.py has the flows that make releases.
"""

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

# Modules, not their functions; tasks.py says why.
from sid_flows import forms, handing_over, prefect_settings, recipe, reporting, tasks, verifying


@task(name="hand over", cache_policy=NO_CACHE, persist_result=False, **tasks.RETRIED)
def hand_over(place: Any, ref: Any, name: Any, to: Any, tables: Any, settings: Any) -> dict[str, Any]:
    """Write a release in a format; it may be downloaded first."""
    made = handing_over.hand_over(place, ref, name, to, tables=tables, settings=settings)
    reporting.LOGGER.info("%s as %s in %s: %d files or tables", made.ref, name, to, len(made.rows))
    return made.told


@task(name="verify", cache_policy=NO_CACHE, persist_result=False, **tasks.RETRIED)
def look(place: Any, ref: Any, quick: Any) -> dict[str, Any]:
    """Look whether a release is intact; raises WarehouseError where it is not."""
    found = verifying.verified(place, ref, quick=quick)
    found.check()
    reporting.LOGGER.info(found.says)
    return found.told


@flow(name="sidmill-export", flow_run_name="{ref} as {format_name}", persist_result=False)
def export(
    ref: str,
    format_name: forms.FormatName,
    to: str,
    tables: list[str] | None = None,
    settings: dict[str, Any] | None = None,
    warehouse: str | None = None,
) -> dict[str, Any]:
    """Write a release for others: as tables of a lake, or as the very files that a trainer reads.

    Args:
        ref: The release, as DATASET (its latest), DATASET@vN or DATASET@TAG.
        format_name: delta, iceberg, or a trainer's; `sidmill formats` says which is whose.
        to: The folder to write, new or empty, outside of the warehouse; on the worker's machine.
        tables: Of delta and iceberg, the tables to write, such as sids. Without it all.
        settings: What may be chosen of a trainer's format, by name.
        warehouse: A folder or s3://BUCKET/PREFIX. Without it $SIDMILL_WAREHOUSE, else warehouse/data.
    """
    prefect_settings.bind_server_to_us()
    prefect_settings.log_to_prefect()
    place = recipe.warehouse_path(warehouse)
    return hand_over(place, ref, format_name, Path(to), tables, settings)


@flow(name="sidmill-verify", flow_run_name="{ref}", persist_result=False)
def verify(ref: str, warehouse: str | None = None, quick: bool = False) -> dict[str, Any]:
    """Re-hash every file of a release and measure again what its gates checked; fails where it is not intact.

    Args:
        ref: The release, as DATASET (its latest), DATASET@vN or DATASET@TAG.
        warehouse: A folder or s3://BUCKET/PREFIX. Without it $SIDMILL_WAREHOUSE, else warehouse/data.
        quick: Whether to look at hashes and schemas only, not at gates.
    """
    prefect_settings.bind_server_to_us()
    prefect_settings.log_to_prefect()
    return look(recipe.warehouse_path(warehouse), ref, quick)
