"""The door to Great Expectations: suites made from checks, judging one row of measured numbers per table.

Great Expectations never sees the data, only the profile that DuckDB computed; 10M rows cost it no
more than ten. This is the only module that imports it.
"""

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sid_schemas.checks import Check
from sid_schemas.errors import MissingExtraError


@dataclass(frozen=True)
class Verdict:
    """What Great Expectations said about one check."""

    check: Check
    measured: float | None
    passed: bool


def _great_expectations() -> Any:
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import great_expectations as gx
    except ImportError as error:
        raise MissingExtraError("Judging a release (great-expectations)", "quality") from error
    return gx


def suite(name: str, checks: Sequence[Check], *, present: bool = False) -> Any:
    """Give the Great Expectations suite of one table's checks; column names are check names.

    present: expect that each number is there too, as Great Expectations calls a bound over a null kept.
    """
    gx = _great_expectations()
    bounds = [
        gx.expectations.ExpectColumnValuesToBeBetween(
            column=check.name,
            min_value=check.minimum,
            max_value=check.maximum,
            meta={"notes": check.why},
        )
        for check in checks
    ]
    there = [
        gx.expectations.ExpectColumnValuesToNotBeNull(column=check.name, meta={"notes": check.why})
        for check in checks
        if present
    ]
    return gx.ExpectationSuite(name=name, expectations=[*bounds, *there])


def suite_json(name: str, checks: Sequence[Check]) -> dict[str, Any]:
    """Give a table's suite as `gx.ExpectationSuite(**...)` reads it back, for people who run their own."""
    told: dict[str, Any] = suite(name, checks, present=True).to_json_dict()
    return told


def judge(checks: Sequence[Check], measured: Mapping[str, Mapping[str, float | None]]) -> list[Verdict]:
    """Let Great Expectations judge the measured numbers, one suite per table.

    checks: any number of tables. measured: {table: {check name: number}}; a missing number fails.
    Raises MissingExtraError where Great Expectations is not installed.
    """
    gx = _great_expectations()
    import pandas as pd

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    source = context.data_sources.add_pandas("profile")
    verdicts: list[Verdict] = []
    for table in dict.fromkeys(check.table for check in checks):
        own = [check for check in checks if check.table == table]
        row = {check.name: measured[table].get(check.name) for check in own}
        frame = pd.DataFrame([row]).astype("float64")
        batch = source.add_dataframe_asset(table).add_batch_definition_whole_dataframe("profile")
        result = batch.get_batch({"dataframe": frame}).validate(suite(table, own))
        passed = {one.expectation_config.kwargs["column"]: bool(one.success) for one in result.results}
        # An expectation over a null passes in Great Expectations; a number we lack must not.
        verdicts += [
            Verdict(check, row[check.name], passed[check.name] and row[check.name] is not None)
            for check in own
        ]
    return verdicts
