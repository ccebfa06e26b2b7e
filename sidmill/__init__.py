"""sidmill: raw dumps in, versioned semantic IDs out.

    import sidmill
    release = sidmill.open("warehouse/data").release("movietweetings")
    release.table("sids")          # pyarrow.Table
    release.sequences("train")     # torch Dataset

Importing it is cheap: nothing but this file is loaded until it is used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from sid_warehouse import Release, Warehouse

__all__ = ["Release", "Warehouse", "open"]


def open(path: "str | Path") -> "Warehouse":
    """Open a warehouse folder for reading; raises WarehouseError where there is none."""
    from sid_warehouse import open_warehouse

    return open_warehouse(path)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("sidmill")
    if name in ("Release", "Warehouse"):
        import sid_warehouse

        return getattr(sid_warehouse, name)
    raise AttributeError(f"module 'sidmill' has no attribute {name!r}")
