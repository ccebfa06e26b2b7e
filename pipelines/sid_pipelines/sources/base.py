"""What a source is: it finds the files of a dump and turns their lines into records or rejects."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from sid_pipelines.sources.lines import line_batches
from sid_schemas import SourceError
from sid_warehouse.db import literal


@dataclass(frozen=True)
class RawFile:
    """One file of a dump. label: `folder/name`, which `source_file` columns hold."""

    path: Path
    label: str
    role: str


@dataclass(frozen=True)
class Parsed:
    """What one batch of lines gave; in = records + rejects, always. Both keep the `raw` line."""

    records: pa.Table
    rejects: pa.Table


class Source(ABC):
    """A kind of dump."""

    kind: ClassVar[str]
    title: ClassVar[str]
    licence: ClassVar[str]
    template: ClassVar[str]

    @abstractmethod
    def find(self, folder: Path) -> list[RawFile]:
        """Give the files of the dump in a folder; raises SourceError naming what is missing."""

    @abstractmethod
    def interactions_sql(self, label: str) -> str:
        """Give the SELECT that parses table `lines` (source_row, raw) into interactions and `reason`."""

    @abstractmethod
    def items_sql(self, label: str) -> str:
        """Give the SELECT that parses table `lines` (source_row, raw) into items and `reason`."""

    def parse(self, connection: duckdb.DuckDBPyConnection, file: RawFile, encoding: str) -> Iterator[Parsed]:
        """Read a file in bounded batches; a line becomes a record or a reject with its reason."""
        select = self.interactions_sql if file.role == "interactions" else self.items_sql
        sql = select(literal(file.label))
        for batch in line_batches(file.path, encoding=encoding):
            connection.register("lines", pa.table(batch))
            parsed = connection.sql(f"select * from ({sql}) order by source_row").to_arrow_table()
            connection.unregister("lines")
            good = pc.is_null(parsed["reason"])
            rejects = parsed.filter(pc.invert(good))
            yield Parsed(parsed.filter(good), rejects)


def file_in(folder: Path, name: str) -> Path:
    """Give `name` or `name.gz` in a folder, or raise SourceError saying what the folder holds."""
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    holds = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
    raise SourceError(
        f"{folder / name}: no such file, nor {name}.gz; the folder holds: {holds}. "
        "Check [source] path and kind"
    )
