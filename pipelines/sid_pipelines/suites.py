"""A release's gates for people who run Great Expectations themselves: suites, and the SQL of their numbers.

    <folder>/<table>.suite.json     what must hold; Great Expectations reads it back
    <folder>/<table>.profile.sql    what DuckDB computes of the release: one row, a column for each check
    <folder>/<table>.profile.json   that row as it is now
    <folder>/README.md              how to run them

Checks that Python counts, as of the trie, are in no suite; nor are those against the base of an append, nor
those of leaks where `[gates] leakage = "warn"` let the release have them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sid_pipelines.gates import LEAK, GatesParams, measure, promised, view_all
from sid_pipelines.released import outputs_of
from sid_schemas import Check, RecipeError
from sid_schemas.suites import suite_json
from sid_warehouse import files
from sid_warehouse.db import connect, literal, quote
from sid_warehouse.stages import StageOutput

RELEASE = "getvariable('release')"
README = """# Quality gates of {ref} for your own Great Expectations

`TABLE.profile.sql` computes one row of numbers over the release's files, `TABLE.suite.json` says between
which bounds each must lie, and why. DuckDB reads the data; Great Expectations sees the one row, so that
tables of any size cost it the same. `TABLE.profile.json` is the row as it was when these files were written.
Needs duckdb >= 2 and great-expectations >= 1.24.

```python
{code}
```

Tables: {tables}. A copy of the release is checked by its own folder in `release`.
{left}"""
LEFT = """
The recipe has `[gates] leakage = "warn"`: leaks did not refuse this release, and no suite judges them.
`release.json` has them under `gates`.
"""
CODE = """import json
from pathlib import Path

import duckdb
import great_expectations as gx

suites, release = Path({folder!r}), {release!r}
context = gx.get_context(mode="ephemeral")
context.variables.progress_bars = {{"globally": False, "metric_calculations": False}}
source = context.data_sources.add_pandas("profiles")
for file in sorted(suites.glob("*.suite.json")):
    table = file.name.removesuffix(".suite.json")
    connection = duckdb.connect()
    connection.execute("set variable release = " + "'" + release.replace("'", "''") + "'")
    profile = connection.sql((suites / f"{{table}}.profile.sql").read_text()).df()
    batch = source.add_dataframe_asset(table).add_batch_definition_whole_dataframe("profile")
    suite = gx.ExpectationSuite(**json.loads(file.read_text()))
    result = batch.get_batch({{"dataframe": profile}}).validate(suite)
    for one in result.results:
        if not one.success:
            told = one.expectation_config
            print(table, told.kwargs["column"], told.meta["notes"], one.result)"""


@dataclass(frozen=True)
class Written:
    """What was written of one table."""

    table: str
    checks: int


class _Recorder:
    """Stands for a connection and notes the statements that make views and tables, by what they make."""

    def __init__(self) -> None:
        self.statements: dict[str, str] = {}

    def execute(self, statement: str) -> None:
        made = re.match(r'\s*create (?:temp )?(?:view|table) "?(\w+)"?', statement)
        assert made
        self.statements[made[1]] = statement.strip()


def write(folder: Path, to: Path, ref: str) -> list[Written]:
    """Write the suites of the release in a folder to a new or empty one, whole or not at all.

    Raises RecipeError where there is something else, MissingExtraError without Great Expectations.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise RecipeError(f"--to {to}: expected a new or an empty folder; choose another")
    outputs = outputs_of(folder)
    params = _params(outputs["gates"])
    warned = params.leakage == "warn"
    checks = [one for one in promised(outputs, params) if not (warned and one.name.startswith(LEAK))]
    recorder: Any = _Recorder()
    view_all(recorder, outputs)
    own = {table: [one for one in checks if one.table == table] for table in _tables(checks)}
    with files.explained(to.parent), files.writing(to.parent) as scratch:
        made, spill = scratch / "made", scratch / "spill"
        made.mkdir()
        with connect(spill=spill) as connection:
            view_all(connection, outputs)
            measured = measure(connection, checks)
        for table, mine in own.items():
            script = _script(folder, table, mine, recorder.statements)
            (made / f"{table}.profile.sql").write_text(script, encoding="utf-8")
            files.write_json(made / f"{table}.suite.json", suite_json(table, mine))
            files.write_json(made / f"{table}.profile.json", measured[table])
        code = CODE.format(folder=str(to), release=str(folder))
        left = LEFT if warned else ""
        told = README.format(ref=ref, code=code, tables=", ".join(own), left=left)
        (made / "README.md").write_text(told, encoding="utf-8")
        if not files.rename_folder(made, to):
            raise RecipeError(f"--to {to}: somebody else wrote there meanwhile; choose another folder")
    return [Written(table, len(mine)) for table, mine in own.items()]


def _tables(checks: Sequence[Check]) -> list[str]:
    return list(dict.fromkeys(check.table for check in checks))


def _params(gates: StageOutput) -> GatesParams:
    """Give the bounds that the release was judged by; those that this version does not know are left out."""
    known = {field.name for field in fields(GatesParams)}
    return GatesParams(**{name: value for name, value in gates.manifest["params"].items() if name in known})


def _script(folder: Path, table: str, checks: Sequence[Check], statements: Mapping[str, str]) -> str:
    """Give the SQL that computes a table's numbers: the views it needs, and one query."""
    columns = ",\n    ".join(f"({check.sql})::double as {quote(check.name)}" for check in checks)
    query = f"select\n    {columns},\n    count(*) as rows_of_table\nfrom {quote(table)}"
    needed = _needed(query, statements)
    above = [statement for name, statement in statements.items() if name in needed]
    script = ";\n\n".join([*above, query]) + ";\n"
    inside = f"{literal(str(folder))[:-1]}/"
    return (
        f"-- The numbers of table {table}; `set variable release = '...'` names the release's folder.\n"
        + (script.replace(inside, f"{RELEASE} || '/"))
    )


def _needed(query: str, statements: Mapping[str, str]) -> set[str]:
    """Give the views and tables that a query reads, and those that these read."""
    found: set[str] = set()
    pending = [query]
    while pending:
        text = pending.pop()
        named = [name for name in statements if name not in found and re.search(rf"\b{name}\b", text)]
        found.update(named)
        pending += [statements[name] for name in named]
    return found
