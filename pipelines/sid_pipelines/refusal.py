"""What a refused release is told by: one line for people, and the failing rows of each check in a folder.

    <warehouse>/refused/<dataset>/<key>/refusal.json     each broken promise, its rows as JSON
    <warehouse>/refused/<dataset>/<key>/<table>.<check>.parquet   the rows with their types

The key is that of the gates' output, had there been one. The folder is whole or absent; the same refusal
again replaces it, and `sidmill gc` removes it at the age at which it removes outputs of stages.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from sid_pipelines.failing import rows_of
from sid_schemas import WarehouseError
from sid_schemas.suites import Verdict
from sid_warehouse import files

KEPT = 20  # rows of each check
SHOWN = 3  # of them in the message, the first in full
ROOM = 240  # characters for the rows after the first
HIDDEN = ("filename", "file_row_number")  # of views on stage outputs


@dataclass(frozen=True)
class Broken:
    """A promise that does not hold. name: table and check. rows: the first failing ones, None for no row."""

    name: str
    why: str
    expected: str
    measured: float | None
    rows: pa.Table | None

    @property
    def says(self) -> str:
        """Give the sentence about it, with rows as column=value pairs."""
        got = "nothing" if self.measured is None else f"{self.measured:g}"
        shown = _shown(self.rows) if self.rows is not None else []
        rows = f", as in {' and in '.join(shown)}" if shown else ""
        return f"{self.name} ({self.why}): expected {self.expected}, got {got}{rows}"


def broken(connection: duckdb.DuckDBPyConnection, verdict: Verdict) -> Broken:
    """Look for the rows of a check that failed."""
    check = verdict.check
    rows = failing_rows(connection, rows_of(check))
    return Broken(f"{check.table}.{check.name}", check.why, check.bounds(), verdict.measured, rows)


def failing_rows(connection: duckdb.DuckDBPyConnection, query: str | None) -> pa.Table | None:
    """Give the first KEPT rows of a query in the order of their values; None where it gives none.

    A query that fails in turn, as for lack of memory, must not hide the refusal: it gives none either.
    """
    if query is None:
        return None
    try:
        found = connection.sql(f"from ({query}) order by all limit {KEPT}").to_arrow_table()
    except duckdb.Error:
        return None
    found = found.drop_columns([name for name in HIDDEN if name in found.column_names])
    return found if found.num_rows else None


def sentence(promises: Sequence[Broken], folder: Path | None) -> str:
    """Give the one line of a refusal; folder: where the rows were kept."""
    said = "; ".join(one.says for one in promises)
    kept = f". Failing rows, {KEPT} of each at most, are in {folder}" if folder else ""
    return f"{len(promises)} of the release's promises do not hold; nothing was published: {said}{kept}"


def keep(folder: Path, promises: Sequence[Broken]) -> bool:
    """Write the broken promises and their rows to a folder, which is there whole or as it was.

    Gives whether it is: a full disk must not hide the refusal.
    """
    try:
        _write(folder, promises)
    except (OSError, WarehouseError):
        return False
    return True


def _write(folder: Path, promises: Sequence[Broken]) -> None:
    with files.writing(folder.parent) as scratch:
        fresh, old = scratch / "new", scratch / "old"
        fresh.mkdir()
        told: list[dict[str, Any]] = []
        for one in promises:
            rows: list[dict[str, Any]] = [] if one.rows is None else one.rows.to_pylist()
            entry = {"promise": one.name, "why": one.why, "expected": one.expected, "measured": one.measured}
            told.append(entry | {"rows": _plain(rows)})
            if one.rows is not None:
                pq.write_table(one.rows, fresh / f"{one.name}.parquet")
        files.write_json(fresh / "refusal.json", told)
        files.sync_tree(fresh)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        files.sync(folder.parent)


def _shown(rows: pa.Table) -> list[str]:
    """Give rows in words: the first, and up to SHOWN while they are short."""
    shown: list[str] = []
    for row in rows.slice(0, SHOWN).to_pylist():
        text = ", ".join(f"{name}={_short(repr(value))}" for name, value in row.items())
        if shown and sum(map(len, shown[1:])) + len(text) > ROOM:
            break
        shown.append(text)
    return shown


def _short(text: str) -> str:
    return text if len(text) < 60 else f"{text[:57]}..."


def _plain(value: Any) -> Any:
    """Give a value as JSON can hold it: dates, bytes, NaN and infinity as text."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
