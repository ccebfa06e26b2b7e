"""What a stage that goes on from a release reads beside what is new: the rest of it.

Such a stage has the role `base`. It makes what is new and takes everything else from there, so that rows
that are published stay as they are, to the byte where a table only grows at its end.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import duckdb
import pyarrow as pa

from sid_pipelines.stage import Work
from sid_schemas import Table
from sid_schemas.tables import ITEMS_CLEAN, TEXTS
from sid_warehouse.db import scan, view
from sid_warehouse.stages import StageOutput


def base_rows(work: Work, table: str) -> int:
    """Give how many rows of a table are published already; 0 where nothing is gone on from."""
    base = work.inputs.get("base")
    return int(base.manifest["rows"].get(table, 0)) if base else 0


def write_grown(work: Work, table: Table, rows: pa.Table | Iterable[pa.RecordBatch]) -> int:
    """Write a table, behind the base's parts where there is a base; give the number of all its rows."""
    base = work.inputs.get("base")
    return work.out.extend(table, base.parts(table.name), rows) if base else work.out.write(table, rows)


def view_items(connection: duckdb.DuckDBPyConnection, work: Work) -> None:
    """Make `items_clean` a view of all items: those of the base, and those that clean or extend wrote."""
    _view_all(connection, work, "clean", ITEMS_CLEAN)


def view_texts(connection: duckdb.DuckDBPyConnection, work: Work) -> None:
    """Make `texts` a view of what was embedded of all items, in the base and now."""
    _view_all(connection, work, "text", TEXTS)


def _view_all(connection: duckdb.DuckDBPyConnection, work: Work, role: str, table: Table) -> None:
    base, parts = work.inputs.get("base"), work.inputs[role].parts(table.name)
    if base is None:
        view(connection, table.name, parts)
        return
    columns = ", ".join(table.names)
    connection.execute(f"""
        create view {table.name} as select {columns} from {scan(base.parts("items"))}
        union all select {columns} from {scan(parts)}""")


def grown(base: StageOutput, name: str, new: Mapping[str, Any]) -> dict[str, Any]:
    """Give the facts of an embedding table that grew: counts of the base and of what is new, added up."""
    before = base.facts["embeddings"][name]
    counted = ("items", "present", "missing", "zero_vectors", "duplicate_vectors")
    return {**new, **{key: before[key] + new[key] for key in counted}, "added": new["items"]}
