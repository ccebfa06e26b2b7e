"""Where commands write by --to: outside of the warehouse, whose files are sidmill's own."""

from pathlib import Path

from sid_schemas import RecipeError


def outside(path: Path, warehouse: Path) -> Path:
    """Give the path of a --to with its folder named whole; raise RecipeError where it is in the warehouse.

    Links are followed: what counts is where the bytes would go.
    """
    try:
        path = path.expanduser().absolute()
    except RuntimeError as error:  # ~somebody who has no home here
        raise RecipeError(f"--to {path}: {error} Name it by its whole path") from error
    if path.resolve().is_relative_to(warehouse.expanduser().resolve()):
        raise RecipeError(f"--to {path}: is inside the warehouse {warehouse}; choose a place outside of it")
    return path
