"""Names of data sets, releases and tags, checked once so that none can leave the warehouse or its SQL."""

import re
from dataclasses import dataclass

from sid_schemas import RecipeError, WarehouseError

DATASET = re.compile(r"[a-z][a-z0-9_-]{0,62}")
# Schemas of DuckDB's own, and the name it gives the database in catalog.duckdb.
RESERVED = {"catalog", "main", "temp", "system", "pg_catalog", "information_schema"}
VERSION = re.compile(r"v([1-9][0-9]{0,8})")
TAG = re.compile(r"(?!v[0-9]|latest$)[a-z][a-z0-9_-]{0,39}")  # nothing that reads like a version


def check_dataset(name: str) -> str:
    """Give the name back, or raise RecipeError where it is not one."""
    if not DATASET.fullmatch(name) or name in RESERVED:
        raise RecipeError(
            f"dataset {name!r}: expected a lower-case letter, then letters, digits, '_' or '-', "
            f"at most 63 in all, and none of {', '.join(sorted(RESERVED))}"
        )
    return name


def check_tag(name: str) -> str:
    """Give the name of a tag back, or raise RecipeError where it is not one."""
    if not TAG.fullmatch(name):
        raise RecipeError(
            f"tag {name!r}: expected a lower-case letter, then letters, digits, '_' or '-', at most 40 in "
            "all; neither 'latest' nor a 'v' with a digit, as versions have"
        )
    return name


@dataclass(frozen=True)
class Ref:
    """A release as users write it: `movietweetings` (the latest), `movietweetings@v3`, or by a tag.

    >>> Ref.parse("movietweetings@production")
    Ref(dataset='movietweetings', version=None, tag='production')
    """

    dataset: str
    version: int | None = None
    tag: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Ref":
        """Read a reference, or raise RecipeError."""
        dataset, at, rest = text.partition("@")
        check_dataset(dataset)
        if not at:
            return cls(dataset)
        if match := VERSION.fullmatch(rest):
            return cls(dataset, int(match[1]))
        if TAG.fullmatch(rest):
            return cls(dataset, tag=rest)
        raise RecipeError(
            f"{text!r}: expected DATASET, DATASET@vN or DATASET@TAG, "
            f"as in {dataset}@v1 or {dataset}@production"
        )

    def __str__(self) -> str:
        """Write the reference back."""
        at = self.tag or (self.version and f"v{self.version}")
        return f"{self.dataset}@{at}" if at else self.dataset


def check_member(name: object) -> str:
    """Give a file's name in a release back, or raise WarehouseError where it could leave the folder.

    A name is a relative path in POSIX form, such as `items/part-00000.parquet`; anybody who can write a
    release.json can write anything there.
    """
    safe = isinstance(name, str) and name.isprintable() and "\\" not in name and len(name) <= 512
    parts = name.split("/") if isinstance(name, str) else []
    if not safe or any(part in ("", ".", "..") or len(part.encode()) > 255 for part in parts):
        raise WarehouseError(f"{name!r} is no name of a file in a release; expected FILE or FOLDER/FILE")
    return str(name)
