"""Which rows break a check: a WHERE clause on its table, or a query of its own; refusal.py shows them.

A number says that something is wrong; rows say what. They are looked for only where a check has failed.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from sid_schemas import Check, checks_of
from sid_schemas.tables import Table
from sid_warehouse.db import quote


@dataclass(frozen=True)
class Sought(Check):
    """A check whose failing rows no WHERE clause on its own table finds. rows: the query that does."""

    rows: str = ""


def none_in(table: str, name: str, rows: str, why: str) -> Sought:
    """Give the check that a query has no rows; `table` is what it is told of."""
    sql = f"(select count(*) from ({rows}))"
    return Sought(table, name, sql, why, minimum=0, maximum=0, rows=rows)


def sought(check: Check, rows: str) -> Sought:
    """Give a check with the query that finds its failing rows."""
    return Sought(**{name: getattr(check, name) for name in Check.__dataclass_fields__}, rows=rows)


def among(check: Check, column: str, values: Iterable[int]) -> Check:
    """Give a check that Python counted with the rows it found: those that have one of the values.

    >>> among(Check("sids", "n", "", "why"), "item_index", [3, 5]).failing
    'item_index in (3, 5)'
    """
    numbers = ", ".join(str(int(value)) for value in values)
    return replace(check, failing=f"{column} in ({numbers})" if numbers else None)


def rows_of(check: Check) -> str | None:
    """Give the query that finds the failing rows of a check; None where no row is to blame."""
    if isinstance(check, Sought):
        return check.rows
    return f"select * from {quote(check.table)} where {check.failing}" if check.failing else None


def schema_checks(table: Table) -> list[Check]:
    """Derive the checks of a table from its schema, with the rows that repeat a key or leave a gap."""
    repeated: dict[str, tuple[str, ...]] = {
        f"{column.name}_repeats": (column.name,) for column in table.columns if column.unique
    }
    if len(table.key) > 1:
        repeated["key_repeats"] = table.key
    checks: list[Check] = []
    for check in checks_of(table):
        if check.name in repeated:
            checks.append(sought(check, repeats(table.name, *map(quote, repeated[check.name]))))
        elif table.dense and check.name == f"{table.dense}_gaps":
            checks.append(sought(check, _gaps(table.name, quote(table.dense))))
        else:
            checks.append(check)
    return checks


def repeats(table: str, *columns: str) -> str:
    """Give the query for rows of which another one has the same in all columns, or expressions."""
    key = ", ".join(columns)
    return f"""select * from {quote(table)} where ({key}) in (
        select ({key}) from {quote(table)} group by {key} having count(*) > 1)"""


def _gaps(table: str, column: str) -> str:
    """Give the query for the first number of each run of numbers that no row has, of those from 0 on.

    A hole may be as long as numbers are, so that it is not listed in full.
    """
    return f"""select (number + 1)::bigint as missing_{column.strip('"')} from (
            select number, lead(number) over (order by number) as following from (
                select distinct {column}::hugeint as number from {quote(table)} where {column} >= 0
                union all select -1))
        where following > number + 1"""
