"""Names of data sets and releases, checked once so that no name can leave the warehouse or its SQL."""

import re
from dataclasses import dataclass

from sid_schemas import RecipeError

DATASET = re.compile(r"[a-z][a-z0-9_-]{0,62}")
# Schemas of DuckDB's own, and the name it gives the database in catalog.duckdb.
RESERVED = {"catalog", "main", "temp", "system", "pg_catalog", "information_schema"}
VERSION = re.compile(r"v([1-9][0-9]{0,8})")


def check_dataset(name: str) -> str:
    """Give the name back, or raise RecipeError where it is not one."""
    if not DATASET.fullmatch(name) or name in RESERVED:
        raise RecipeError(
            f"dataset {name!r}: expected a lower-case letter, then letters, digits, '_' or '-', "
            f"at most 63 in all, and none of {', '.join(sorted(RESERVED))}"
        )
    return name


@dataclass(frozen=True)
class Ref:
    """A release as users write it: `movietweetings` (the latest) or `movietweetings@v3`."""

    dataset: str
    version: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Ref":
        """Read a reference, or raise RecipeError."""
        dataset, at, version = text.partition("@")
        check_dataset(dataset)
        if not at:
            return cls(dataset)
        if not (match := VERSION.fullmatch(version)):
            raise RecipeError(f"{text!r}: expected DATASET or DATASET@vN, as in {dataset}@v1")
        return cls(dataset, int(match[1]))

    def __str__(self) -> str:
        """Write the reference back."""
        return self.dataset if self.version is None else f"{self.dataset}@v{self.version}"
