"""Lines that are JSON or Python literals, such as `{u'asin': 'B00', 'price': 9.49}`.

Unlike forms.Json it turns each line that is no JSON into JSON first. Nearly all lines are rewritten by
DuckDB at about the cost of reading JSON; the few with rare escapes go through ast.literal_eval, which
takes ten times as long, holds back all other threads, and says what is right.
"""

import ast
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from sid_pipelines.sources.forms import Json, Relation, registered
from sid_pipelines.sources.lines import LineReader
from sid_warehouse.db import literal

LONGEST = 1 << 20  # characters of a line for literal_eval, whose tree takes hundreds of bytes for each
MARK, WORD = "\x01", "\x02"  # stand for a quote and before a word; a line that has one is rewritten slowly

# A string with the `u` before it. The first group or the second is its content.
STRING = r"""u?(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")"""
# What may be in a line once its strings are marked.
REST = rf"(?:[-+0-9.eE\s{{}}\[\],:]|True|False|None|{MARK}[^{MARK}]*{MARK})*"
# A whole string, or a word without its first letter.
WORDS = rf"({MARK}[^{MARK}]*{MARK})|T(rue)|F(alse)|N(one)"
# Escapes that mean something else in JSON, or that plain replacing would get wrong.
UNSAFE = ("\\\\", "\\/", '\\"', MARK, WORD)


@dataclass(frozen=True)
class Literal(Json):
    """One JSON object or Python dict a line. fields: as those of Json."""

    expected: ClassVar[str] = "a JSON object or a Python dict"

    def relations(self, connection: duckdb.DuckDBPyConnection, reader: LineReader) -> Iterator[Relation]:
        """Make every line JSON and read its fields."""
        for batch in reader.batches():
            yield from self.read(connection, batch, as_json(connection, batch.column(1)))


def as_json(connection: duckdb.DuckDBPyConnection, lines: pa.StringArray) -> pa.StringArray:
    """Give each line as JSON, (n,); a line that is neither JSON nor a Python literal stays as it is."""
    with registered(connection, "literal_lines", pa.table([lines], names=["t"])):
        text = connection.sql(_rewritten("literal_lines")).to_arrow_table()["j"].combine_chunks()
    if not text.null_count:
        return text
    missing = pc.is_null(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd escapes
        slow = [rewrite(line) for line in lines.filter(missing).to_pylist()]
    return pc.replace_with_mask(text, missing, pa.array(slow, pa.string()))


def rewrite(line: str) -> str:
    """Give a Python literal as JSON, or the line as it is where it is none: the slow and obvious way.

    Tuples become lists. What JSON does not have makes no JSON: sets, bytes, complex numbers, and keys
    that are no text. A key that stands twice in the outermost dict stands twice in the JSON too.

    >>> rewrite("{'asin': 'B00', 'price': None, 'size': (1, 2)}")
    '{"asin": "B00", "price": null, "size": [1, 2]}'
    >>> rewrite("{'sizes': {1, 2}}")
    "{'sizes': {1, 2}}"
    """
    if len(line) > LONGEST:
        return line
    try:
        tree = ast.parse(line.lstrip(" \t"), mode="eval").body
        if not isinstance(tree, ast.Dict):
            return _dumped(ast.literal_eval(tree))
        pairs = [
            f"{_dumped_key(key)}: {_dumped(ast.literal_eval(value))}"
            for key, value in zip(tree.keys, tree.values, strict=True)
        ]
    except Exception:  # hostile text raises nearly anything: SyntaxError, MemoryError, RecursionError, ...
        return line
    return "{" + ", ".join(pairs) + "}"


def _dumped_key(key: ast.expr | None) -> str:
    if not isinstance(key, ast.Constant) or not isinstance(key.value, str):
        raise TypeError
    return json.dumps(key.value)


def _dumped(value: Any) -> str:
    _check_keys(value)
    return json.dumps(value)


def _check_keys(value: Any) -> None:
    """Raise TypeError for a key that is no text, which json.dumps would make one."""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError
        value = list(value.values())
    if isinstance(value, list | tuple):
        for inner in value:
            _check_keys(inner)


def _rewritten(relation: str) -> str:
    r"""Give the SQL of `j`: a line `t` as JSON, or null where that takes rewrite().

    Strings are found as whole tokens, so nothing in one is taken for a quote or a word. Between them only
    what JSON has too may stand. Inside, `\'` and `\xe9` become JSON's, and json_valid refuses the rest.
    """
    unsafe = " or ".join(f"contains(t, {literal(one)})" for one in UNSAFE)
    words = " or ".join(f"contains(m, '{word}')" for word in ("True", "False", "None"))
    worded = f"regexp_replace(m, {literal(WORDS)}, '\\1{WORD}\\2\\3\\4', 'g')"
    for tail, word in (("rue", "true"), ("alse", "false"), ("one", "null"), ("", "")):
        worded = f"replace({worded}, '{WORD}{tail}', '{word}')"
    quoted = "w"
    for old, new in (("\\'", "'"), ("\\x", "\\u00"), ('"', '\\"'), (MARK, '"')):
        quoted = f"replace({quoted}, {literal(old)}, {literal(new)})"
    return f"""
        select case when valid then t
            when regexp_full_match(m, {literal(REST)}) and json_valid(j) then j end as j
        from (select t, valid, m, {quoted} as j
            from (select t, valid, m, case when {words} then {worded} else m end as w
                from (select t, valid, case when not (valid or {unsafe})
                        then regexp_replace(t, {literal(STRING)}, '{MARK}\\1\\2{MARK}', 'g') end as m
                    from (select t, json_valid(t) as valid from {relation}))))"""
