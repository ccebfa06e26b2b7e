"""What ingest knows of a dump on its way: the tally of each file, and rows that wait on disk.

Tallies of the pieces of a file add up to that of the file.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sid_pipelines.sources.fields import OTHER_UNIT
from sid_pipelines.stage import count
from sid_schemas import SourceError
from sid_warehouse.db import scan

EXAMPLES = 3  # rejects per file that messages and reports show
REASONS = 10  # reasons per file, the most frequent first


@dataclass
class FileTally:
    """What came out of one file: rows = records + skipped + rejects."""

    rows: int = 0
    records: int = 0
    rejects: int = 0
    headers: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    examples: list[dict[str, Any]] = field(default_factory=list)
    cut_off: bool = False
    first_time: tuple[int, int] | None = None  # row and ts of the first record
    other_units: int = 0
    other_unit: dict[str, Any] | None = None  # the first row whose time is of another unit

    def add_records(self, records: pa.Table) -> None:
        """Count records."""
        self.records += len(records)
        if self.first_time is None and len(records) and "ts" in records.column_names:
            self.first_time = (records["source_row"][0].as_py(), records["ts"][0].as_py())

    def add_rejects(self, rejects: pa.Table) -> None:
        """Count rejected rows and remember the first few."""
        self.rejects += len(rejects)
        # Without what was got, which differs from row to row.
        self.reasons.update(reason.split(", got ")[0] for reason in rejects["reason"].to_pylist())
        columns = ["source_row", "reason", "raw"]
        self.examples += rejects.select(columns).slice(0, EXAMPLES - len(self.examples)).to_pylist()
        other = rejects.filter(pc.match_substring(rejects["reason"], OTHER_UNIT))
        self.other_units += len(other)
        if len(other) and self.other_unit is None:
            [self.other_unit] = other.select(columns).slice(0, 1).to_pylist()

    def check_units(self, label: str) -> None:
        """Raise SourceError where times are of another unit than declared, showing rows."""
        if self.other_unit is None:
            return
        row, raw = self.other_unit["source_row"], self.other_unit["raw"][:120]
        if self.first_time is None:
            raise SourceError(
                f"{label}, row {row}: {self.other_unit['reason']}, and so in all {self.other_units:,} rows, "
                f"as in {raw!r}. Is [source] kind right, and for a table its time_unit?"
            )
        good_row, good = self.first_time
        others = f"{count(self.other_units, 'row')} {'is' if self.other_units == 1 else 'are'} not"
        raise SourceError(
            f"{label}: times in two units. Row {good_row} is as declared ({good} in milliseconds), {others}, "
            f"first row {row}: {self.other_unit['reason']}, as in {raw!r}. Bring the column to one unit"
        )

    def check(self, label: str) -> None:
        """Raise SourceError for times of another unit, and assert that every line is accounted for."""
        lost = self.rows - self.records - self.rejects - sum(self.skipped.values())
        assert lost == 0, f"{label}: {lost} lines lost"
        self.check_units(label)

    def add(self, after: Self) -> None:
        """Count on what came out of the lines that follow."""
        self.rows += after.rows
        self.records += after.records
        self.rejects += after.rejects
        self.headers += after.headers
        self.skipped.update(after.skipped)
        self.reasons.update(after.reasons)
        self.examples = [*self.examples, *after.examples][:EXAMPLES]
        self.cut_off |= after.cut_off
        self.first_time = self.first_time or after.first_time
        self.other_units += after.other_units
        self.other_unit = self.other_unit or after.other_unit

    def facts(self) -> dict[str, Any]:
        """Give the tally as JSON."""
        return {
            "rows": self.rows,
            "records": self.records,
            "rejects": self.rejects,
            "headers": self.headers,
            "skipped": dict(self.skipped.most_common(REASONS)),
            "reasons": dict(self.reasons.most_common(REASONS)),
            "examples": self.examples,
            "cut_off": self.cut_off,
        }


class Spilled:
    """A table that waits on disk, written batch by batch, read by DuckDB."""

    def __init__(self, path: Path) -> None:
        """Name the file; it is there once something was added."""
        self.path = path
        self.rows = 0
        self._writer: pq.ParquetWriter | None = None

    def add(self, table: pa.Table) -> None:
        """Write rows; the first table decides the schema."""
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self.path, table.schema, compression="zstd")
        self._writer.write_table(table.cast(self._writer.schema))
        self.rows += len(table)

    @property
    def started(self) -> bool:
        """Say whether there is a file, which may hold no row."""
        return self._writer is not None

    def close(self) -> str:
        """End the file and give the SQL that reads it."""
        assert self._writer is not None
        self._writer.close()
        return scan([self.path])
