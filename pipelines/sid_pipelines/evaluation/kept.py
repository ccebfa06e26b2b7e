"""Answers worked out once: `<warehouse>/evaluations/<release fingerprint>/<key>.json`, one a model.

The key is of all that decides the numbers, so that nothing stale is served and nothing is made twice.
Releases do not know of them; the folder is safe to delete.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sid_schemas import WarehouseError
from sid_warehouse import files

FOLDER = "evaluations"


class Kept:
    """The results of one release."""

    def __init__(self, warehouse: Path, fingerprint: str) -> None:
        """Look at its folder, which need not be there."""
        self.folder = warehouse / FOLDER / fingerprint

    def get(self, identity: dict[str, Any]) -> dict[str, Any] | None:
        """Give the result of an identity, or None where there is none that can be read."""
        try:
            kept = files.read_json(self._path(identity))
        except WarehouseError:
            return None  # missing, or damaged and made anew
        same = isinstance(kept, dict) and kept.get("identity") == files.as_json(identity)
        return kept.get("result") if same else None

    def get_or_make(
        self, identity: dict[str, Any], make: Callable[[], dict[str, Any]]
    ) -> tuple[dict[str, Any], bool]:
        """Give a result and whether it was there; it is made and kept otherwise.

        Raises WarehouseError where the folder cannot be written, before anything is made.
        """
        if (result := self.get(identity)) is not None:
            return result, True
        files.sweep(self.folder)
        with files.writing(self.folder) as draft, files.explained(self.folder):
            result = make()
            files.write_json(draft / "result.json", {"identity": identity, "result": result})
            files.sync(draft / "result.json")
            (draft / "result.json").replace(self._path(identity))
        return result, False

    def _path(self, identity: dict[str, Any]) -> Path:
        return self.folder / f"{files.digest(identity)[:16]}.json"
