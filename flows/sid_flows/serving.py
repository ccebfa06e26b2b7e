"""Serve the deployments from one process, for people without a worker: python -m sid_flows.serving RECIPE

Runs are started and scheduled from the server as with a worker; they end with this process. What prefect.yaml
says of work pools does not matter here.
"""

import argparse
from pathlib import Path
from typing import Any

from sid_flows import prefect_settings, recipe


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m sid_flows.serving", description=__doc__)
    parser.add_argument("recipe", type=Path, help="the recipe that runs start from, where none is named")
    parser.add_argument("--warehouse", "-w", help="folder or s3://BUCKET/PREFIX")
    parser.add_argument("--cron", default="17 3 * * *", help="when to append, in UTC [default: 17 3 * * *]")
    parser.add_argument("--limit", type=int, default=2, help="runs at once, of all data sets [default: 2]")
    given = parser.parse_args()
    place = recipe.warehouse_path(given.warehouse)
    prefect_settings.settle(place, quiet=False)

    if not prefect_settings.has_server():
        parser.error("PREFECT_API_URL is not set; start one with `prefect server start` and name it there")
    import prefect

    made = deployments(given.recipe.absolute(), given.warehouse or str(place), given.cron)
    prefect.serve(*made, limit=given.limit)


def deployments(recipe_path: Path, warehouse: str, cron: str) -> list[Any]:
    """Give the deployments of prefect.yaml, of one recipe."""
    from prefect.schedules import Cron
    from prefect.types.entrypoint import EntrypointType

    from sid_flows import build, release_flows

    dataset = recipe.dataset_of(recipe_path)
    on_recipe = {"recipe_path": str(recipe_path), "warehouse": warehouse}
    on_release = {"ref": dataset, "warehouse": warehouse}
    daily = Cron(cron, timezone="UTC", slug="daily")  # without a slug a second start is refused
    writes, reads = ["sidmill", "writes"], ["sidmill", "reads"]
    named: list[tuple[Any, str, list[str], dict[str, Any]]] = [
        (build.build, "build", writes, {"parameters": on_recipe}),
        (build.append, "append", writes, {"parameters": on_recipe, "schedule": daily}),
        (build.retokenize, "retokenize", writes, {"parameters": on_recipe | {"ref": dataset}}),
        (release_flows.export, "export", reads, {"parameters": on_release}),
        (release_flows.verify, "verify", reads, {"parameters": on_release}),
    ]
    # By module, so that it does not matter from which folder this is started.
    by_module = EntrypointType.MODULE_PATH
    return [
        flow.to_deployment(
            name,
            entrypoint_type=by_module,
            description=str(flow.fn.__doc__).partition("\n")[0],
            tags=tags,
            **given,
        )
        for flow, name, tags, given in named
    ]


if __name__ == "__main__":
    main()
