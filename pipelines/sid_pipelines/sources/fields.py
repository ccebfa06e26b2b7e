"""What a field must be: the SQL expression of a column, and the checks that turn a line into a reject.

The names in `sql` are fields of the form. The first check that a row fails is its reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sid_schemas.tables import FIRST_MS, LAST_MS
from sid_warehouse.db import literal

UNITS = {"s": ("seconds", 1), "ms": ("milliseconds", 1_000), "us": ("microseconds", 1_000_000)}  # a second
EARLIEST_S = 631_152_000  # 1990: an earlier time is too old for a log, so more likely of another unit
LATEST_S = LAST_MS // 1000
NUMBER = "([0-9]{1,15}(?:\\.[0-9]+)?)"  # more digits might be no finite double
OTHER_UNIT = "a time in another unit"  # ingest refuses a file where a reason says so


@dataclass(frozen=True)
class Field:
    """A column's SQL expression and its checks: (condition that must not be, reason as SQL).

    lets: columns computed once from fields, which `sql` and the checks may name.
    """

    sql: str
    checks: tuple[tuple[str, str], ...] = ()
    lets: Mapping[str, str] = field(default_factory=dict)


def value(sql: str) -> Field:
    """Give a column that any row may fill, or leave null."""
    return Field(sql)


def constant(text: str) -> Field:
    """Give a column that is the same in every row."""
    return Field(literal(text))


def name_of(name: str, what: str) -> Field:
    """Give an id: any text but nothing. what: such as "a user id"."""
    # What begins with a blank or a bracket is found by comparing, which costs less than cutting.
    blank = f"{name} is null or ({name} < '!' and trim({name}, e' \\t\\r\\n') = '')"
    nested = f"({name} >= '[' and {name} < '\\') or ({name} >= '{{' and {name} < '|')"
    return Field(
        name,
        (
            (blank, literal(f"expected {what}, got nothing")),
            (nested, literal(f"expected {what}, got a list or an object")),
        ),
    )


def number(name: str, what: str, *, low: float, high: float) -> Field:
    """Give a required number within bounds. what: such as "a rating"."""
    typed = _let(name, "number")
    plain = what.removeprefix("a ").removeprefix("an ")
    return Field(
        typed,
        (
            (f"{typed} is null or not isfinite({typed})", literal(f"expected a number as {plain}")),
            (f"{typed} not between {low} and {high}", literal(f"expected {what} from {low:g} to {high:g}")),
        ),
        {typed: f"try_cast({name} as double)"},
    )


def _let(name: str, kind: str) -> str:
    return f"_{name.strip(chr(34))}_{kind}"


def optional_number(sql: str) -> Field:
    """Give a number where the text is one, else null; text such as `$4.99` loses its sign."""
    return Field(_found_number(sql, f"^\\s*\\$?\\s*{NUMBER}\\s*$"))


def price(sql: str) -> Field:
    """Give a price: a number, maybe after `$` or `from`; of a range its lower end; else null."""
    rest = f"(?:-\\s*\\$?\\s*{NUMBER}\\s*)?$"
    return Field(_found_number(sql, f"^\\s*(?:[Ff]rom\\s+)?\\$?\\s*{NUMBER}\\s*{rest}"))


def _found_number(sql: str, pattern: str) -> str:
    return f"try_cast(regexp_extract(replace({sql}, ',', ''), {literal(pattern)}, 1) as double)"


def optional_text(sql: str) -> Field:
    """Give text, null where it is blank."""
    return Field(f"nullif({_trimmed(sql)}, '')")


def _trimmed(sql: str) -> str:
    return f"trim({sql}, e' \\t\\r\\n')"


def unix(name: str, unit: str) -> Field:
    """Give whole unix time of a unit ("s", "ms", "us") as milliseconds, from 1970 to 2100."""
    words, per_second = UNITS[unit]
    whole = _let(name, "whole")
    low, high = FIRST_MS * per_second // 1_000, LAST_MS * per_second // 1_000
    plausible = {one: f"{whole} between {EARLIEST_S * one} and {LATEST_S * one}" for _, one in UNITS.values()}
    others = " or ".join(sql for one, sql in plausible.items() if one != per_second)
    sql = f"{whole} * {1_000 // per_second}" if per_second <= 1_000 else f"{whole} // {per_second // 1_000}"
    return Field(
        f"case when {whole} between {low} and {high} then {sql} end",
        (
            (f"{whole} is null", literal(f"expected whole unix {words} as time")),
            (
                f"not ({plausible[per_second]}) and ({others})",
                literal(f"expected unix {words}, got {OTHER_UNIT}"),
            ),
            (f"{whole} not between {low} and {high}", literal(f"expected unix {words} from 1970 to 2100")),
        ),
        {whole: f"case when regexp_full_match({name}, '-?[0-9]{{1,18}}') then {name}::bigint end"},
    )


def moment(name: str, *formats: str, example: str) -> Field:
    """Give a written time as milliseconds; formats are strptime's, a time without a zone is UTC."""
    listed = ", ".join(literal(one) for one in formats)
    parsed = _let(name, "moment")
    return Field(
        parsed,
        (
            (f"{parsed} is null", literal(f"expected a time such as {example!r}")),
            (f"{parsed} not between {FIRST_MS} and {LAST_MS}", literal("expected a time from 1970 to 2100")),
        ),
        # The cast takes a zone, where the format has one, to UTC.
        {parsed: f"epoch_ms(try_strptime({name}, [{listed}])::timestamp)"},
    )


def json_list(name: str) -> str:
    """Give the SQL of a list of texts from a JSON array; a lone text is a list of one, else empty.

    Entries that are blank or null are left out.
    """
    listed = f"coalesce(try(from_json({name}, '[\"VARCHAR\"]')), [{name}])"
    return (
        f"case when {name} is null then []::varchar[] else "
        f"list_filter(list_transform({listed}, lambda x: {_trimmed('x')}), "
        "lambda x: x is not null and x <> '') end"
    )


def pairs(*names: str) -> Field:
    """Give the pairs of an item from JSON arrays of other items' ids; a field's name is the kind."""
    listed = [
        f"list_transform({json_list(name)}, lambda x: {{'other': x, 'kind': {literal(name)}}})"
        for name in names
    ]
    return Field(f"list_concat({', '.join(listed)})" if len(listed) > 1 else listed[0])


def joined(*lists: str) -> str:
    """Give the SQL of the texts of several lists, joined by a blank; null where there is none."""
    whole = f"list_concat({', '.join(lists)})" if len(lists) > 1 else lists[0]
    return f"nullif(array_to_string({whole}, ' '), '')"
