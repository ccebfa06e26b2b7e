"""Enriched texts: what a language model wrote about each item. They are read from a file, never written here.

    descriptions.jsonl or .parquet: item_id, text, model, prompt

A template has them as {enriched}. Every row says which model wrote it and by which version of a prompt, so
that a release can say so too; a row that does not, or an item without a row, is refused.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from sid_pipelines.stage import count
from sid_schemas import SourceError
from sid_warehouse import files
from sid_warehouse.db import literal, scan

FIELD = "enriched"  # of a template
COLUMNS = ("item_id", "text", "model", "prompt")
LISTED = ", ".join(COLUMNS)
NAMED = 20  # of the models and prompts that facts list, the most frequent
CREATE = "create temp table enriched as select {columns}, row_number() over () as row from {file}"
EMPTY = "trim(coalesce({column}, '')) = ''"
REPEATED = """
    select row, item_id from enriched
    qualify row_number() over (partition by item_id order by row) = 2 order by row limit 1"""
LACKING = """
    select count(*), arg_min(item_id, item_index) from items
    where item_id not in (select item_id from enriched)"""
MADE_BY = """
    select model, prompt, count(*) from items join enriched using (item_id)
    group by model, prompt order by count(*) desc, model, prompt"""
JOINED = """
    select {columns}, enriched.text as enriched
    from items join enriched using (item_id) order by item_index"""


class Enriched:
    """A file of enriched texts, checked against the items that need them."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, path: Path, sha256: str, items: Sequence[Path]
    ) -> None:
        """Read the file; raises SourceError naming the first row that cannot be used.

        sha256: what the file was when the run was planned. items: the parts of `items_clean`.
        """
        self.connection, self.path, self.sha256 = connection, path, sha256
        with self._reading():
            connection.execute(CREATE.format(columns=LISTED, file=self._file()))
        if files.sha256(path) != sha256:
            raise SourceError(f"{path}: changed while it was read. Run again once it is complete")
        connection.execute(f"create temp view items as from {scan(items)}")
        self._check_rows()
        self._check_items()

    def _file(self) -> str:
        """Give the SQL that reads the columns as text; a glob in the path is taken by its letters."""
        if self.path.suffix == ".parquet":
            read = scan([self.path])
            there = self.connection.sql(f"from {read}").columns
            for column in COLUMNS:
                if column not in there:
                    raise SourceError(
                        f"{self.path}: no column {column!r}; expected {LISTED}, got {', '.join(there)}"
                    )
            return f"(select {', '.join(f'{column}::varchar as {column}' for column in COLUMNS)} from {read})"
        types = ", ".join(f"{column}: 'VARCHAR'" for column in COLUMNS)
        return f"read_json([{literal(str(self.path))}], format = 'newline_delimited', columns = {{{types}}})"

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (duckdb.Error, OSError) as error:
            [first, *_] = str(error).splitlines() or [""]
            raise SourceError(
                f"{self.path}: cannot be read ({first.strip()}); expected JSON lines or Parquet with {LISTED}"
            ) from None

    def _check_rows(self) -> None:
        for column in COLUMNS:
            empty = EMPTY.format(column=column)
            found = self.connection.sql(f"select row from enriched where {empty} order by row limit 1")
            for (row,) in found.fetchall():
                raise SourceError(
                    f"{self.path}, row {row}: {column!r} is missing or empty; expected {LISTED} in every row"
                )
        for row, item in self.connection.sql(REPEATED).fetchall():
            raise SourceError(
                f"{self.path}, row {row}: item {item!r} has a second text; expected one for each item"
            )

    def _check_items(self) -> None:
        [(lacking, first)] = self.connection.sql(LACKING).fetchall()
        if lacking:
            raise SourceError(
                f"{self.path}: {count(lacking, 'item')} without an enriched text, the first {first!r}; "
                "expected one for every item that gets an ID. Add their rows, or take {enriched} out of the "
                "template"
            )

    def batches(self, columns: Sequence[str], rows: int) -> Iterable[pa.RecordBatch]:
        """Give columns of the items, by item_index, and the column `enriched`."""
        named = ", ".join(f"items.{column}" for column in columns)
        reader = self.connection.sql(JOINED.format(columns=named)).to_arrow_reader(rows)
        return reader  # type: ignore[no-any-return]

    def facts(self) -> dict[str, Any]:
        """Say what the file is, whom it covers, and which models and prompts wrote it."""
        made_by = self.connection.sql(MADE_BY).fetchall()
        items = sum(number for *_, number in made_by)
        [(written,)] = self.connection.sql("select count(*) from enriched").fetchall()
        return {
            "file": self.path.name,
            "sha256": self.sha256,
            "items": items,
            "coverage": 1.0,
            "of_other_items": written - items,
            "models": sorted({model for model, *_ in made_by}),
            "prompts": len({prompt for _, prompt, _ in made_by}),
            "made_by": [
                {"model": model, "prompt": prompt, "items": number}
                for model, prompt, number in made_by[:NAMED]
            ],
        }
