"""What a stage is: a name, parents, parameters, and a function from parents' outputs to one new output."""

import importlib.util
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sid_schemas import DataError, MissingExtraError
from sid_warehouse import files
from sid_warehouse.stages import FORMAT, StageDraft, StageOutput

DUCKDB_SHARE = 0.5
Needs = tuple[str, str] | None  # an optional package, and the extra that brings it
Progress = Callable[[int, int], None]  # done, total


@dataclass(frozen=True)
class Resources:
    """What a stage may use. It must not shape the output, so it is no part of the fingerprint."""

    memory: str = "8GiB"
    cache: Path = Path(".sidmill-cache")  # what runs and data sets share: content-addressed, safe to delete

    @property
    def duckdb(self) -> str:
        """Give DuckDB's share of the memory; the rest is for what Python, numpy and Arrow hold."""
        number, unit = re.fullmatch(r"([0-9.]+)\s?([KMGT]i?B)", self.memory).groups()  # type: ignore[union-attr]
        base = 1024 if "i" in unit else 1000
        return f"{int(float(number) * base ** (1 + 'KMGT'.index(unit[0])) * DUCKDB_SHARE)}B"


@dataclass(frozen=True)
class Work:
    """What a stage is given: its parameters, its parents' outputs by name, and where to write."""

    params: Any
    inputs: Mapping[str, StageOutput]
    out: StageDraft
    resources: Resources
    progress: Progress


@dataclass(frozen=True)
class Outcome:
    """What a stage reports: facts for metrics and lineage, and one line for people."""

    facts: dict[str, Any]
    summary: str


@dataclass(frozen=True)
class Stage:
    """One step of the chain. Raise `revision` whenever a change can alter what `run` writes.

    tests/test_revisions.py fails when the code of a stage changes without it, because a stale output
    would otherwise be served under an old key.
    """

    name: str
    revision: int
    parents: tuple[str, ...]
    run: Callable[[Work], Outcome]
    needs: Callable[[Any], Needs] = lambda params: None  # by its parameters

    def check_needs(self, params: Any) -> None:
        """Raise MissingExtraError where the optional package is not installed; it is not imported."""
        needs = self.needs(params)
        if needs and importlib.util.find_spec(needs[0]) is None:
            raise MissingExtraError(f"Stage {self.name!r} ({needs[0]})", needs[1])

    def identity(self, params: Any, parents: Mapping[str, str]) -> dict[str, Any]:
        """Give everything that decides the output; its digest is the stage's key."""
        return {
            "store_format": FORMAT,
            "revision": self.revision,
            "params": keyed(params),
            "parents": dict(parents),
        }

    def key(self, params: Any, parents: Mapping[str, str]) -> str:
        """Give the fingerprint of an output, 16 hex digits."""
        return files.digest({"stage": self.name, **self.identity(params, parents)})[:16]


def too_little_memory(step: str, memory: str, error: Exception) -> DataError:
    """Give what DuckDB cannot do for lack of memory as one line that says what to raise."""
    return DataError(
        f"{step}: needs more than [engine] memory = {memory!r}; raise it ({str(error).splitlines()[0]})"
    )


def keyed(params: Any) -> dict[str, Any]:
    """Give the parameters that belong to the fingerprint: fields not marked `keyed=False`."""
    free = {field.name for field in fields(params) if not field.metadata.get("keyed", True)}
    return {name: value for name, value in asdict(params).items() if name not in free}


def count(number: int, noun: str) -> str:
    """Write a number with its noun.

    >>> count(1, "item"), count(1342, "item")
    ('1 item', '1,342 items')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
