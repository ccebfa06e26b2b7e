"""What a column of a table may hold, in any file: lists as text, numbers, times in one of four units.

Unlike the fields of other sources (fields.py), a value may be missing, and a time of another unit than
the rest is told apart whatever its form.
"""

from sid_pipelines.sources.fields import EARLIEST_S, LATEST_S, OTHER_UNIT, UNITS, Field
from sid_schemas.tables import FIRST_MS, LAST_MS
from sid_warehouse.db import literal

ISO = (
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]{1,9})?)?\s*(Z|UTC|[+-][0-9]{2}(:?[0-9]{2})?)?)?"
)
NUMBER = r"-?[0-9]{1,18}(\.[0-9]*)?([eE]\+?[0-9]{1,2})?"


def entries(sql: str, separator: str) -> str:
    """Give the SQL of the texts in a JSON array, or in a text with separators; blank ones are left out."""
    alone = f"string_split({sql}, {literal(separator)})" if separator else f"[{sql}]"
    array = f"case when starts_with(ltrim({sql}), '[') then try(from_json({sql}, '[\"VARCHAR\"]')) end"
    return (
        f"case when {sql} is null then []::varchar[] else list_filter(list_transform("
        f"coalesce({array}, {alone}), lambda x: trim(x)), lambda x: x is not null and x <> '') end"
    )


def number_or_nothing(sql: str, what: str) -> Field:
    """Give a number, null where there is none; any other text is a reject."""
    typed = f"_{what}_number"
    wrong = f"nullif(trim({sql}), '') is not null and ({typed} is null or not isfinite({typed}))"
    return Field(
        typed,
        ((wrong, literal(f"expected a number or nothing as {what}")),),
        {typed: f"try_cast({sql} as double)"},
    )


def place_or_nothing(sql: str) -> Field:
    """Give a position, a whole number from 0, null where there is none; any other text is a reject."""
    typed = "_position_number"
    wrong = (
        f"nullif(trim({sql}), '') is not null and not coalesce(isfinite({typed}) "
        f"and {typed} between 0 and 2147483647 and {typed} = floor({typed}), false)"
    )
    return Field(
        f"try_cast({typed} as integer)",
        ((wrong, literal("expected a whole number from 0, or nothing, as position")),),
        {typed: f"try_cast({sql} as double)"},
    )


def unit_of(sql: str) -> str:
    """Give the SQL of the unit that a time shows: s, ms, us, iso, or null where it shows none."""
    number = f"try_cast({sql} as double)"
    sizes = " ".join(
        f"when {number} between {EARLIEST_S * one} and {LATEST_S * one} then {literal(unit)}"
        for unit, (_, one) in UNITS.items()
    )
    return (
        f"case when regexp_full_match(trim({sql}), {literal(ISO)}) then 'iso' "
        f"when regexp_full_match(trim({sql}), {literal(NUMBER)}) then case {sizes} end end"
    )


def instant(sql: str, unit: str) -> Field:
    """Give a time of a unit as milliseconds, from 1970 to 2100; parts of a second are kept."""
    if unit == "iso":
        expected = "a time such as '2019-11-24T10:11:12Z'"
        # DuckDB heeds a zone only in a timestamptz, and only where it stands close by.
        text = f"regexp_replace(replace(trim({sql}), ',', '.'), '\\s*(UTC|[+-][0-9:]+|Z)$', '\\1')"
        dated = f"if(length(trim({sql})) = 10, trim({sql}), replace({text}, 'UTC', 'Z'))"
        made = (
            f"case when regexp_full_match(trim({sql}), {literal(ISO)}) "
            f"then epoch_us(try_cast({dated} as timestamptz)) end"
        )
        typed, milliseconds = "_instant_us", "_instant_us // 1000"
    else:
        words, per_second = UNITS[unit]
        expected = f"unix {words}"
        made = (
            f"case when regexp_full_match(trim({sql}), {literal(NUMBER)}) "
            f"then try_cast(trim({sql}) as decimal(27, 9)) end"
        )
        typed = "_instant"
        milliseconds = {1: "floor(_instant * 1000)::bigint", 1_000: "floor(_instant)::bigint"}.get(
            per_second, "floor(_instant)::bigint // 1000"
        )
    low, high = _bounds(unit)
    return Field(
        f"case when {typed} between {low} and {high} then {milliseconds} end",
        (
            (f"_shown <> {literal(unit)}", literal(f"expected {expected}, got {OTHER_UNIT}")),
            (f"{typed} is null", literal(f"expected {expected} as time")),
            (f"{typed} not between {low} and {high}", literal(f"expected {expected} from 1970 to 2100")),
        ),
        {typed: made, "_shown": unit_of(sql)},
    )


def _bounds(unit: str) -> tuple[int, int]:
    """Give the first and last time of a unit; of ISO, in microseconds."""
    per_second = UNITS["us" if unit == "iso" else unit][1]
    return FIRST_MS * per_second // 1_000, LAST_MS * per_second // 1_000
