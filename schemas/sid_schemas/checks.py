"""Facts that must hold for a table, derived from its schema, as numbers that one SQL query computes.

A check is a SQL expression that yields one number, and the bounds it must keep. DuckDB computes the
numbers of a table in one pass; `suites` lets Great Expectations judge them. So the cost does not
grow with the number of checks, and no table is ever loaded into pandas.
"""

from dataclasses import dataclass

import pyarrow as pa

from sid_schemas.tables import Column, Table


@dataclass(frozen=True)
class Check:
    """One number about one table, and the bounds it must keep."""

    table: str
    name: str
    sql: str
    why: str
    minimum: float | None = None
    maximum: float | None = None
    failing: str | None = None  # a WHERE clause that finds offending rows, for the message

    def bounds(self) -> str:
        """Give the bounds in words: `0`, `at least 1`, `0 to 9`."""
        if self.minimum == self.maximum:
            return f"{self.minimum:g}"
        if self.maximum is None:
            return f"at least {self.minimum:g}"
        if self.minimum is None:
            return f"at most {self.maximum:g}"
        return f"{self.minimum:g} to {self.maximum:g}"


def none_of(table: str, name: str, condition: str, why: str) -> Check:
    """Give the check that no row of the table meets `condition`."""
    sql = f"count(*) filter (where {condition})"
    return Check(table, name, sql, why, minimum=0, maximum=0, failing=condition)


def checks_of(table: Table) -> list[Check]:
    """Derive every check that the schema of one table implies."""
    checks = [] if table.may_be_empty else [Check(table.name, "rows", "count(*)", table.doc, 1)]
    for column in table.columns:
        checks += _column_checks(table.name, column)
    if table.dense:
        dense = f'"{table.dense}"'
        sql = f"coalesce(max({dense}) + 1, 0) - count(distinct {dense})"
        why = "indexes count 0..N-1 without a gap"
        checks.append(Check(table.name, f"{table.dense}_gaps", sql, why, 0, 0))
    if len(table.key) > 1:
        key = ", ".join(f'"{name}"' for name in table.key)
        sql = f"count(*) - count(distinct ({key}))"
        checks.append(Check(table.name, "key_repeats", sql, f"({key}) is the key", 0, 0))
    return checks


def _column_checks(table: str, column: Column) -> list[Check]:
    name, quoted, checks = column.name, f'"{column.name}"', []

    def none(kind: str, condition: str, why: str) -> None:
        checks.append(none_of(table, f"{name}_{kind}", condition, f"{column.doc}: {why}"))

    if not column.nullable:
        none("nulls", f"{quoted} is null", "never null")
    if column.unique:
        sql = f"count({quoted}) - count(distinct {quoted})"
        checks.append(Check(table, f"{name}_repeats", sql, f"{column.doc}: unique", 0, 0))
    if column.minimum is not None:
        none("below", f"{quoted} < {column.minimum:.0f}", f"at least {column.minimum:.0f}")
    if column.maximum is not None:
        none("above", f"{quoted} > {column.maximum:.0f}", f"at most {column.maximum:.0f}")
    if column.among:
        allowed = ", ".join(f"'{value}'" for value in column.among)
        none("unknown", f"{quoted} not in ({allowed})", f"one of {allowed}")
    if column.references:
        other, key = column.references
        none("orphans", f'{quoted} not in (select "{key}" from {other})', f"stands in {other}.{key}")
    if pa.types.is_fixed_size_list(column.type):
        numbers = f"flatten({quoted})" if pa.types.is_nested(column.type.value_type) else quoted
        bad = f"len(list_filter({numbers}, lambda x: x is null or not isfinite(x))) > 0"
        none("not_finite", bad, "finite numbers only")
    elif pa.types.is_list(column.type) and pa.types.is_integer(column.type.value_type):
        none("bad_entries", f"list_min({quoted}) < 0", "no negative entry")
    return checks
