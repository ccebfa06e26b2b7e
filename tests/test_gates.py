"""Gates: each promise of a release is broken once, and the gate that guards it must see it."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from helpers import Run, judge_plainly, more_dump, quickly, run_append, run_chain, small_dump

from sid_flows.execute import execute
from sid_pipelines import gates
from sid_pipelines.failing import repeats, rows_of, schema_checks
from sid_pipelines.placed import shown_promises
from sid_pipelines.promises import SidShape, sid_promises
from sid_pipelines.refusal import broken, keep, sentence
from sid_schemas import TABLES, Check, GateRefusedError, checks_of, embeddings_table
from sid_schemas.suites import Verdict, judge, suite
from sid_schemas.tables import INTERACTIONS, SEQUENCES, SID_TO_ITEMS, SIDS, TEST, TRAIN, Column, Table
from sid_tokenizers import Vocabulary
from sid_warehouse import files, garbage, parquet
from sid_warehouse.db import connect
from sid_warehouse.retention import Rules
from sid_warehouse.stages import StageOutput, StageStore


def with_column(table: pa.Table, name: str, row: int, value: object) -> pa.Table:
    values = table[name].to_pylist()
    values[row] = value
    place = table.column_names.index(name)
    return table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type))


def reverse(name: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: with_column(table, name, 0, table[name][0].as_py()[::-1])


def repeat_sid(table: pa.Table) -> pa.Table:
    return with_column(table, "sid", 1, table["sid"][0].as_py())


def as_test_target(table: pa.Table) -> pa.Table:
    """Point the first train sample at the user's last event, which is the test target."""
    return with_column(table, "end", 0, 4)


def last_becomes(split: str) -> Callable[[pa.Table], pa.Table]:
    """Call the first user's test event, which is the last, another split."""
    return lambda table: with_column(table, "split", table["split"].to_pylist().index("test"), split)


def parquet_rows(path: Path) -> int:
    return int(pa.parquet.read_metadata(path).num_rows)


VECTORS = embeddings_table("text", 384)
SPOILT: list[tuple[str, Table, Callable[[pa.Table], pa.Table], str]] = [
    ("collisions", SIDS, repeat_sid, "sids.collision_rate"),
    ("collisions", SIDS, lambda t: t.slice(0, len(t) - 1), "items.without_sid"),
    ("collisions", SIDS, lambda t: with_column(t, "item_index", 1, 0), "sids.item_index_repeats"),
    ("collisions", SIDS, lambda t: with_column(t, "sid", 0, [1]), "sids.uneven_length"),
    ("collisions", SIDS, lambda t: with_column(t, "sid", 0, [-1, 0]), "sids.sid_bad_entries"),
    ("sequences", TEST, lambda t: with_column(t, "target", 0, 99), "test.target_orphans"),
    ("sequences", TEST, lambda t: with_column(t, "start", 0, 4), "test.history_after_target"),
    ("sequences", TEST, lambda t: with_column(t, "end", 0, 2), "test.wrong_target"),
    ("sequences", TEST, lambda t: with_column(t, "user_index", 0, 99), "test.user_index_orphans"),
    ("sequences", TEST, lambda t: with_column(t, "target_ts", 0, 5), "test.history_after_target"),
    ("sequences", TEST, lambda t: t.slice(0, 0), "test.events_without_sample"),
    ("collisions", SIDS, lambda t: with_column(t, "sid_key", 0, "0-0-0"), "sids.wrong_key"),
    ("collisions", SIDS, lambda t: with_column(t, "item_id", 0, "?"), "sids.not_the_items"),
    ("collisions", SIDS, lambda t: with_column(t, "token_ids", 0, [3, 3]), "sids.wrong_tokens"),
    ("collisions", SIDS, lambda t: with_column(t, "text", 0, "<a_1>"), "sids.wrong_text"),
    ("collisions", SIDS, lambda t: with_column(t, "sid", 0, [9, 1]), "sids.beyond_level"),
    ("collisions", SIDS, lambda t: with_column(t, "codes", 0, [0, 4]), "sids.beyond_level"),
    ("collisions", SIDS, lambda t: with_column(t, "tokens", 0, ["<z_99>", "<q>"]), "sids.wrong_strings"),
    ("collisions", SIDS, lambda t: with_column(t, "suffix", 0, 1), "sids.wrong_suffix"),
    ("collisions", SIDS, repeat_sid, "sids.trie_differs"),
    ("collisions", SIDS, lambda t: with_column(t, "slot", 0, 1), "sids.no_way_back"),
    ("collisions", SID_TO_ITEMS, lambda t: t.slice(1), "sids.no_way_back"),
    ("collisions", SID_TO_ITEMS, lambda t: with_column(t, "item_indexes", 0, [8]), "sids.no_way_back"),
    ("collisions", SID_TO_ITEMS, lambda t: with_column(t, "n", 0, 2), "sid_to_items.wrong_n"),
    ("embed text", VECTORS, lambda t: t.slice(1), "embeddings_text.items_missing"),
    ("embed text", VECTORS, lambda t: with_column(t, "item_id", 0, "?"), "embeddings_text.not_the_items"),
    ("embed text", VECTORS, lambda t: with_column(t, "vector", 0, [float("nan")] * 384), "vector_not_finite"),
    ("sequences", TEST, lambda t: with_column(t, "end", 0, 99), "test.wrong_target"),
    ("sequences", TRAIN, lambda t: t.slice(1), "train.events_without_sample"),
    ("sequences", TRAIN, as_test_target, "train.wrong_target"),
    ("sequences", TRAIN, lambda t: t.slice(1), "train.miscounted"),
    ("sequences", TEST, lambda t: with_column(t, "start", 0, 1), "test.wrong_start"),
    ("sequences", TEST, lambda t: with_column(t, "n_targets", 0, 2), "test.wrong_n_targets"),
    ("sequences", SEQUENCES, lambda t: with_column(t, "value", 0, [1.0]), "sequences.uneven_lists"),
    ("split", INTERACTIONS, last_becomes("train"), "interactions.leak_train_after_own_held_out"),
    ("split", INTERACTIONS, last_becomes("valid"), "test.wrong_target"),
    ("sequences", SEQUENCES, reverse("items"), "not_declared_order"),
    ("sequences", SEQUENCES, reverse("ts"), "sequences.out_of_order"),
    ("sequences", SEQUENCES, lambda t: with_column(t, "items", 0, [0]), "sequences.events_lost"),
    ("sequences", SEQUENCES, lambda t: t.slice(1), "sequences.user_index_gaps"),
]  # fmt: skip


# No row is to blame for these: a file beside the table, and a count that another output has.
ROWLESS = ("sids.trie_differs", "train.miscounted")
# Of these Great Expectations is asked, as in a run; it takes seconds, and of the others the bounds are.
JUDGED = ("sids.collision_rate", "test.wrong_n_targets", "sequences.events_lost", "sequences.user_index_gaps")


@pytest.mark.parametrize(("stage", "table", "spoil", "check"), SPOILT, ids=[case[3] for case in SPOILT])
def test_a_broken_promise_is_refused(
    small: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    table: Table,
    spoil: Callable[[pa.Table], pa.Table],
    check: str,
) -> None:
    if check not in JUDGED:
        monkeypatch.setattr(gates, "judge", judge_plainly)
    folder = tmp_path / stage
    shutil.copytree(small.outputs[stage].folder, folder)
    shutil.rmtree(folder / table.name)
    parquet.write(folder, table, spoil(small.outputs[stage].read(table.name)))
    outputs = small.outputs | {stage: StageOutput(folder, small.outputs[stage].manifest)}
    planned = next(one for one in small.plan.stages if one.stage.name == "gates")
    fresh = replace(planned, done=None, key="0" * 16)
    plan = replace(small.plan, warehouse=tmp_path / "w", store=StageStore(tmp_path / "w", "small"))
    with pytest.raises(GateRefusedError, match="nothing was published") as caught:
        execute(plan, fresh, outputs)
    assert check in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3
    assert plan.store.find("gates", fresh.key) is None
    kept = tmp_path / "w/refused/small" / fresh.key
    assert str(kept) in str(caught.value) or check in ROWLESS
    [told] = [one for one in files.read_json(kept / "refusal.json") if check in one["promise"]]
    assert (told["rows"] == []) is (check in ROWLESS)
    assert len(told["rows"]) <= 20
    if told["rows"]:
        assert parquet_rows(kept / f"{told['promise']}.parquet") == len(told["rows"])
        assert f"{next(iter(told['rows'][0]))}=" in str(caught.value)


def test_collisions_left_are_refused_unless_allowed(tmp_path: Path) -> None:
    recipe = small_dump(tmp_path)
    crowded = ("collisions.policy=none", "tokenize.levels=[2, 2]")
    with pytest.raises(GateRefusedError, match=r"sids\.collision_rate .*expected 0, got 0\.\d"):
        run_chain(recipe, tmp_path / "w", *crowded)
    assert not (tmp_path / "w" / "releases").exists()
    done = run_chain(recipe, tmp_path / "w", *crowded, "gates.max_collision_rate=0.9")
    assert done.release.metrics["collisions"]["after"]["collided_items"] > 0


def test_capacity_bounds_groups_and_not_the_rate(tmp_path: Path) -> None:
    recipe = small_dump(tmp_path)
    crowded = ("tokenize.levels=[2, 2]", "collisions.policy=capacity", "collisions.capacity=3")
    done = run_chain(recipe, tmp_path / "w", *crowded)
    assert 1 < done.release.metrics["collisions"]["after"]["max_group"] <= 3
    names = {(check["table"], check["check"]) for check in done.release.record["gates"]}
    assert ("sid_to_items", "overfull") in names
    assert ("sids", "collision_rate") not in names
    with pytest.raises(GateRefusedError, match=r"sids\.collision_rate"):
        run_chain(recipe, tmp_path / "w", *crowded, "gates.max_collision_rate=0.0")
    with duckdb.connect() as connection:
        connection.sql("create table sid_to_items as select 4 as n union all select 3")
        shape = SidShape(2, Vocabulary((2, 2)), "L", 3, None)
        [check] = [one for one in sid_promises(shape) if one.name == "overfull"]
        assert gates.measure(connection, [check]) == {"sid_to_items": {"overfull": 1}}


SUFFIXED = [
    ("L", "([0, 1], null, 'ok')", True),
    ("L", "([0, 1], 1, 'a digit nobody added')", False),
    ("L", "([0, 1, 0], null, 'too long')", False),
    ("L+1", "([0, 1, 4], 4, 'ok')", True),
    ("L+1", "([0, 1, 4], 3, 'another digit')", False),
    ("L+1", "([0, 1], null, 'no digit')", False),
    ("L or L+1", "([0, 1], null, 'ok')", True),
    ("L or L+1", "([0, 2, 4], 4, 'ok')", True),
    ("L or L+1", "([0, 2, 4], null, 'a digit without suffix')", False),
]


@pytest.mark.parametrize(("length", "row", "holds"), SUFFIXED)
def test_sids_have_the_declared_shape(length: str, row: str, holds: bool) -> None:
    shape = SidShape(2, Vocabulary((5, 5, 8)), length, None, 0.0)
    names = ("uneven_length", "wrong_suffix")
    checks = [one for one in sid_promises(shape) if one.table == "sids" and one.name in names]
    with duckdb.connect() as connection:
        connection.sql(f"""
            create table sids as select sid, suffix, sid as token_ids, sid as tokens, [0, 1] as codes
            from (values {row}) as t(sid, suffix, why)""")
        measured = gates.measure(connection, checks)["sids"]
    assert (sum(measured.values()) == 0) is holds  # type: ignore[arg-type]


def test_no_sid_begins_another() -> None:
    shape = SidShape(2, Vocabulary((5, 5, 8)), "L or L+1", None, 0.0)
    [check] = [one for one in sid_promises(shape) if one.name == "not_prefix_free"]
    with duckdb.connect() as connection:
        connection.sql(
            "create table sids as select * from (values ([0, 1], null), ([0, 1, 2], 2)) as t(sid, suffix)"
        )
        assert gates.measure(connection, [check]) == {"sids": {"not_prefix_free": 1}}


def test_checks_may_all_be_scalar_subqueries() -> None:
    with duckdb.connect() as connection:
        connection.sql("create table t as select * from range(3)")
        assert gates.measure(connection, [Check("t", "n", "(select 7)", "why")]) == {"t": {"n": 7}}


def test_an_offending_row_is_shown_by_column() -> None:
    check = Check("t", "n", "", "why", 0, 0, failing="b = 'x'")
    with duckdb.connect() as connection:
        connection.sql(
            "create table t as select 1 as a, 'x' as b, 'part-0' as filename, 5 as file_row_number"
        )
        told = broken(connection, Verdict(check, 1, False))
    assert told.says == "t.n (why): expected 0, got 1, as in a=1, b='x'"


def test_up_to_three_short_rows_are_shown_and_twenty_kept(tmp_path: Path) -> None:
    check = Check("t", "n", "", "why", 0, 0, failing="a > 2")
    with duckdb.connect() as connection:
        connection.sql("create table t as select range as a, 'nan'::float as x from range(30, 0, -1)")
        told = broken(connection, Verdict(check, 28, False))
        assert told.says.endswith("got 28, as in a=3, x=nan and in a=4, x=nan and in a=5, x=nan")
        assert told.rows is not None
        assert told.rows["a"].to_pylist() == list(range(3, 23))
        connection.sql(
            "create table long as select range as a, repeat('y', 90) as b, b as c, b as d, b as e"
            " from range(5)"
        )
        wide = broken(connection, Verdict(replace(check, table="long", failing="a > 1"), 3, False))
        assert wide.says.count(" and in ") == 0
        assert wide.says.count("...") == 4
        lost = broken(connection, Verdict(replace(check, failing="no_such_column"), None, False))
    assert (lost.rows, lost.says) == (None, "t.n (why): expected 0, got nothing")
    folder = tmp_path / "refused" / "key"
    assert keep(folder, [wide])
    assert keep(folder, [told, lost])  # the same gates again
    assert sorted(path.name for path in folder.iterdir()) == ["refusal.json", "t.n.parquet"]
    assert [path.name for path in folder.parent.iterdir()] == ["key"]
    first, second = files.read_json(folder / "refusal.json")
    assert first["rows"][0] == {"a": 3, "x": "nan"}
    assert (second["rows"], second["measured"], second["expected"]) == ([], None, "0")
    (tmp_path / "file").touch()
    assert not keep(tmp_path / "file" / "key", [told])
    line = sentence([told, lost], folder)
    assert line.startswith("2 of the release's promises do not hold; nothing was published: t.n (why)")
    assert line.endswith(f". Failing rows, 20 of each at most, are in {folder}")


@pytest.mark.parametrize(
    ("split", "clicked", "count"), [("train", True, 1), ("train", False, 0), ("test", True, 0)]
)
def test_a_train_list_with_a_held_out_click_is_a_leak(split: str, clicked: bool, count: int) -> None:
    [check] = [one for one in shown_promises({"impressions"}, None) if one.name == "leak_clicked_held_out"]
    with duckdb.connect() as connection:
        connection.sql(
            "create table interactions as select 0 as user_index, 1 as item_index, 9 as ts, 'test' as split"
        )
        connection.sql(f"""create table impressions as
            select 0 as user_index, 9 as ts, [2, 1] as items, [true, {clicked}] as clicked,
                '{split}' as split""")
        assert gates.measure(connection, [check]) == {"impressions": {check.name: count}}


def test_a_missing_column_is_refused_before_any_data_is_read(small: Run, tmp_path: Path) -> None:
    folder = tmp_path / "collisions"
    shutil.copytree(small.outputs["collisions"].folder, folder)
    part = parquet.parts(folder, "sids")[0]
    pa.parquet.write_table(small.outputs["collisions"].read("sids").drop_columns(["slot"]), part)
    with pytest.raises(GateRefusedError, match="expected columns"):
        gates._schema(folder, "sids")


@pytest.mark.parametrize("name", TABLES)
def test_every_check_of_every_table_is_sql_that_runs(name: str) -> None:
    with duckdb.connect() as connection:
        for other, table in TABLES.items():
            connection.register(other, table.arrow().empty_table())
        measured = gates.measure(connection, checks_of(TABLES[name]))
    assert set(measured[name]) == {check.name for check in checks_of(TABLES[name])}


def test_great_expectations_judges_each_number() -> None:
    checks = [Check("t", name, "", "why", 0, 1) for name in ("low", "in", "high", "missing")]
    verdicts = judge(checks, {"t": {"low": -1.0, "in": 0.5, "high": 2.0, "missing": None}})
    assert [verdict.passed for verdict in verdicts] == [False, True, False, False]


def test_a_suite_says_why() -> None:
    made = suite("sids", checks_of(SIDS))
    notes = {one.column: one.meta["notes"] for one in made.expectations}
    assert notes["item_index_gaps"] == "indexes count 0..N-1 without a gap"
    assert len(notes) == len(checks_of(SIDS))


OTHERS = [
    "split={protocol='leave-k-out', k=1}",
    "split={protocol='global-time', ratios=[0.6, 0.2, 0.2]}",
    "split={protocol='global-time', cut='samples', expansion='window', window=2}",
    "split={protocol='per-user-ratio', draw='random', ratios=[0.6, 0.2, 0.2]}",
    "split={protocol='user-holdout', ratios=[0.6, 0.2, 0.2]}",
    "split={protocol='cold-items', ratios=[0.6, 0.2, 0.2], expansion='last'}",
    "split={protocol='sessions', next=2}",
]


@pytest.mark.parametrize("protocol", OTHERS)
def test_every_protocol_makes_a_release(small: Run, tmp_path: Path, protocol: str) -> None:
    shutil.copytree(small.plan.warehouse, tmp_path / "w")  # so that nothing is embedded again
    done = run_chain(small_dump(tmp_path), tmp_path / "w", protocol, "gates.max_tie_rate=0")
    found = done.outputs["gates"].facts
    assert found["warnings"] == []
    assert {one["rule"] for one in found["findings"]} >= {"fit_scope", "repeated_targets", "unseen_items"}
    names = {f"{one['table']}.{one['check']}" for one in done.release.record["gates"]}
    assert "interactions.test_tie_rate" in names
    assert any(".leak_" in name for name in names)


def doctored(small: Run, stage: str, **changes: object) -> dict[str, StageOutput]:
    """Give the outputs with other facts or params in one stage's manifest."""
    output = small.outputs[stage]
    return small.outputs | {stage: StageOutput(output.folder, {**output.manifest, **changes})}


def judged(small: Run, outputs: dict[str, StageOutput], **params: object) -> StageOutput:
    planned = next(one for one in small.plan.stages if one.stage.name == "gates")
    key = files.digest({name: str(value) for name, value in params.items()})[:16]
    fresh = replace(planned, done=None, key=key, params=replace(planned.params, **params))  # type: ignore[arg-type]
    return execute(small.plan, fresh, outputs)


def test_a_leak_refuses_or_warns(small: Run) -> None:
    """Under user-holdout, what leave-one-out made is a leak: test users have train events."""
    params = small.outputs["split"].manifest["params"]
    other = {**params, "protocol": "user-holdout", "params": {}}
    outputs = doctored(small, "split", params=other)
    with pytest.raises(GateRefusedError, match=r"interactions\.leak_train_of_held_out_users .*got 36, as in"):
        judged(small, outputs)
    warned = judged(small, outputs, leakage="warn")
    assert warned.facts["warnings"] == ["interactions.leak_train_of_held_out_users"]
    verdicts = {one["check"]: one["verdict"] for one in gates.summary_of(warned)}
    assert [name for name, verdict in verdicts.items() if verdict == "warning"] == [
        "leak_train_of_held_out_users"
    ]


def test_a_breach_that_a_stage_found_refuses_or_warns(small: Run) -> None:
    facts = small.outputs["sequences"].facts
    [one, *_] = facts["findings"]
    spoilt = {**facts, "findings": [{**one, "count": 3, "verdict": "breach"}]}
    outputs = doctored(small, "sequences", facts=spoilt)
    with pytest.raises(GateRefusedError, match=rf"audit\.{one['rule']} .*expected 0, got 3"):
        judged(small, outputs)
    warned = judged(small, outputs, leakage="warn", max_collision_rate=0.5)
    assert warned.facts["warnings"] == [f"audit.{one['rule']}"]
    assert gates.summary_of(warned)[-1]["verdict"] == "warning"


def test_fitting_on_items_that_train_never_saw_is_a_leak_unless_asked_for(small: Run, tmp_path: Path) -> None:
    recipe = small_dump(tmp_path)
    with (tmp_path / "dump" / "movies.dat").open("a") as file:
        file.write("7777777::Never Rated (2000)::Drama\n")
    done = run_chain(recipe, tmp_path / "w", "items.universe=catalog", "tokenize.fit_scope=all")
    [fit] = [one for one in done.outputs["gates"].facts["findings"] if one["rule"] == "fit_scope"]
    assert (fit["count"], fit["of"], fit["verdict"]) == (1, 10, "allowed")
    assert "(all items)" in fit["says"]
    params = done.outputs["tokenize"].manifest["params"] | {"fit_scope": "train"}
    with pytest.raises(GateRefusedError, match=r"audit\.fit_scope .*got 1"):
        judged(done, doctored(done, "tokenize", params=params))


def test_too_many_ties_are_refused(tmp_path: Path) -> None:
    recipe = small_dump(tmp_path)
    dump = tmp_path / "dump" / "ratings.dat"
    lines = [line.rsplit("::", 1) for line in dump.read_text().splitlines()]
    dump.write_text("".join(f"{first}::{int(second) // 10**7 * 10**7}\n" for first, second in lines))
    with pytest.raises(GateRefusedError, match=r"interactions\.test_tie_rate .*expected 0 to 0\.5, got"):
        run_chain(recipe, tmp_path / "w", "gates.max_tie_rate=0.5")
    assert run_chain(recipe, tmp_path / "w").release.metrics["split"]["audit"]["test_tie_rate"] > 0.5


# Rows of these are what the number counts of the data, and a bound may allow some.
ALLOWED = {"test_tie_rate", "duplicate_vectors", "collision_rate", "coverage"}
# No row is to blame where there is none, or where Python counts and found none.
NO_QUERY = {"rows", "miscounted", "trie_differs", "base_lost", "wrong_text", "not_the_sids"}


def failing_now(run: Run) -> set[str]:
    """Ask for the failing rows of every check of a run's gates; give the checks that have some."""
    planned = next(one for one in run.plan.stages if one.stage.name == "gates")
    params = replace(planned.params, max_tie_rate=1.0, max_duplicate_vectors=1.0, min_coverage=0.0)
    inputs = planned.inputs({**run.plan.given, **run.outputs})
    with connect() as connection:
        checks, _ = gates.measured_checks(connection, inputs, params)
        queries = {(check.table, check.name): rows_of(check) for check in checks}
        assert {name for (_, name), query in queries.items() if query is None} <= NO_QUERY
        return {name for (_, name), query in queries.items() if query and connection.sql(query).fetchall()}


def test_rows_of_every_check_can_be_asked_for_and_none_fails(
    small: Run, searched: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quickly(monkeypatch)
    recipe = small_dump(tmp_path)
    extra = "[users]\nlevels = [4, 4]\nmixtures = true\n[pieces]\nschemes = ['bpe']\n"
    recipe.write_text(f"{recipe.read_text()}{extra}")
    several = ("embed.model=hashing", "embed.dim=16", "split.expansion=last")
    base = run_chain(recipe, tmp_path / "w", *several)
    appended = run_append(more_dump(tmp_path / "more"), tmp_path / "w")
    assert [failing_now(run) - ALLOWED for run in (small, searched, base, appended)] == [set()] * 4


@pytest.mark.parametrize("name", TABLES)
def test_rows_that_break_a_schema_can_be_asked_for(name: str) -> None:
    with duckdb.connect() as connection:
        for other, table in TABLES.items():
            connection.register(other, table.arrow().empty_table())
        for check in schema_checks(TABLES[name]):
            query = rows_of(check)
            assert (query is None) is (check.name == "rows")
            assert query is None or connection.sql(query).fetchall() == []


def test_gaps_and_repeats_are_found_as_rows() -> None:
    with duckdb.connect() as connection:
        connection.sql("create table t as select unnest([0, 1, 1, 4]) as n, unnest([5, 6, 6, 5]) as m")
        assert sorted(connection.sql(repeats("t", '"n"', '"m"')).fetchall()) == [(1, 6), (1, 6)]
        table = Table("t", "", (Column("n", pa.int64(), "", unique=True),), ("n",), dense="n")
        found = {
            check.name: connection.sql(rows_of(check) or "").fetchall()
            for check in schema_checks(table)
            if check.name in ("n_gaps", "n_repeats")
        }
    assert found == {"n_gaps": [(2,)], "n_repeats": [(1, 6), (1, 6)]}


@pytest.mark.parametrize(
    ("numbers", "missing"),
    [([], []), ([1, 0], []), ([2, 3, 2], [0]), ([0, 2, 5], [1, 3]), ([-4, 0, 2_000_000_000, None], [1])],
)
def test_a_gap_is_found_by_its_first_number_however_long_it_is(
    numbers: list[int], missing: list[int]
) -> None:
    with duckdb.connect(config={"memory_limit": "100MB"}) as connection:
        connection.register("t", pa.table({"n": pa.array(numbers, pa.int32())}))
        table = Table("t", "", (Column("n", pa.int32(), ""),), ("n",), dense="n")
        [query] = [rows_of(one) for one in schema_checks(table) if one.name == "n_gaps"]
        found = connection.sql(query or "")
        assert (found.columns, sorted(found.fetchall())) == (["missing_n"], [(one,) for one in missing])


def test_items_behind_no_sid_or_two_are_found_as_rows(small: Run) -> None:
    shape = SidShape(2, Vocabulary((4, 4)), "L", None, 0.0)
    [check] = [one for one in sid_promises(shape) if one.name == "items_too_many"]
    with duckdb.connect() as connection:
        connection.sql("create table sids as select unnest([0, 1, 2]) as item_index, 0 as slot")
        connection.sql(
            "create table sid_to_items as select unnest(['0-0', '0-1']) as sid_key,"
            " unnest([[0, 1], [1, 3]]) as item_indexes, 2 as n"
        )
        found = sorted(connection.sql(rows_of(check) or "").fetchall())
    assert found == [(1, 1, 2), (2, 1, 0), (3, 0, 1)]


def test_gc_removes_refused_rows_at_the_age_of_stage_outputs(tmp_path: Path) -> None:
    folder = tmp_path / "refused/small/key"
    folder.mkdir(parents=True)
    (folder / "refusal.json").write_text("[]")
    rules = Rules(None, None)
    assert garbage.find(tmp_path, rules, stage_days=7).remove == []
    [piece] = garbage.remove(tmp_path, rules, stage_days=0).remove
    assert (piece.what, piece.name, piece.bytes) == ("leftover", "refused/small/key", 2)
    assert not folder.exists()
