"""Table `placed`: where every event stands in its user's order; and what samples promise, checked on it.

The gates recompute here with SQL what sequences.py made with arrays, from the published tables alone.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import duckdb

from sid_pipelines.failing import Sought, none_in
from sid_schemas import Check
from sid_schemas.checks import none_of
from sid_warehouse.db import quote

SPLITS = ("train", "valid", "test")


def place(connection: duckdb.DuckDBPyConnection, params: Mapping[str, Any]) -> None:
    """Make table `placed` of view `interactions`. params: those of sequences, as its manifest has them.

    place: from 0 in the declared order. before_*: of the user's event before. latest, last_held,
    last_test: the latest time, the last valid or test place, the last test place among the user's
    earlier events. least_start, n_targets: where a history may begin and how many targets there are,
    were the event a target. Where sessions are samples, session_id and before_session are kept too.
    """
    next_, gap = params["sessions"] or (1, 0)
    starts, left, reach, dropped = "true", "1", "place", "exclude (session_id, before_session, reach)"
    if params["sessions"]:
        starts = f"""place = 0 or ((session_id is distinct from before_session
            or (session_id is null and ts - before_ts > {gap})) and max(reach) over earlier < place)"""
        reach = """case when session_id is null then place
            else max(place) over (partition by user_index, session_id) end"""
        dropped = "exclude (reach)"
        left = """coalesce(min(case when starts_session then place end) over (
            partition by user_index order by place rows between 1 following and unbounded following),
            count(*) over (partition by user_index)) - place"""
    bound = f"greatest(place - {params['window']}, 0)" if params["window"] else "0"
    connection.execute(f"""
        create temp table placed as
        with ordered as (
            select user_index, item_index, ts, split, session_id, row_number() over mine - 1 as place,
                lag(ts) over mine as before_ts, lag(split) over mine as before_split,
                lag(session_id) over mine as before_session
            from interactions
            window mine as (partition by user_index order by filename, file_row_number)),
        reached as (select *, {reach} as reach from ordered),
        told as (
            select * {dropped}, {starts} as starts_session,
                max(ts) over earlier as latest,
                max(case when split in ('valid', 'test') then place end) over earlier as last_held,
                max(case when split = 'test' then place end) over earlier as last_test
            from reached
            window earlier as (
                partition by user_index order by place rows between unbounded preceding and 1 preceding))
        select *, least({next_}, {left}) as n_targets,
            greatest({bound}, case when split = 'train' then coalesce(last_held + 1, 0) else 0 end)
                as least_start
        from told""")


def view_samples(connection: duckdb.DuckDBPyConnection, split: str, stored: str) -> None:
    """Make a view of a split's samples beside the event at their `end`; stored: the view of its files."""
    connection.execute(f"""
        create view {split} as
        select sample.*, event.item_index as at_item, event.ts as at_ts, event.split as at_split,
            event.latest, event.last_held, event.least_start, event.n_targets as own_targets
        from {quote(stored)} as sample left join placed as event
            on event.user_index = sample.user_index and event.place = sample."end" """)


def sequence_promises() -> list[Check]:
    """Give the checks that sequences are the interactions in the declared order."""
    return [
        Sought(
            "sequences",
            "events_lost",
            "(select count(*) from interactions) - coalesce(sum(len(items)), 0)",
            "every interaction stands in a sequence",
            minimum=0,
            maximum=0,
            rows="""select user_index, coalesce(events, 0) as events, coalesce(len(items), 0) as in_sequence
                from (select user_index, count(*) as events from interactions group by user_index) as counted
                full join sequences using (user_index)
                where coalesce(events, 0) <> coalesce(len(items), 0)""",
        ),
        none_of("sequences", "out_of_order", "ts <> list_sort(ts)", "a sequence never goes back in time"),
        none_of(
            "sequences",
            "uneven_lists",
            "len(ts) <> len(items) or len(event_type) <> len(items) or len(value) <> len(items)",
            "the lists of a sequence are equally long",
        ),
        none_in(
            "sequences",
            "not_declared_order",
            """from (
                select user_index, unnest(items) as item_index, unnest(ts) as ts,
                    generate_subscripts(items, 1) - 1 as place from sequences)
                anti join placed using (user_index, place, item_index, ts)""",
            "a sequence has its user's interactions in the declared order",
        ),
    ]


def sample_promises(params: Mapping[str, Any], samples: Mapping[str, int]) -> list[Check]:
    """Give the checks of all samples. params: of sequences; samples: how many it counted of each split."""
    checks = [check for split in SPLITS for check in _of_split(split, params, samples[split])]
    checks.append(
        none_of(
            "train",
            "leak_held_out_in_history",
            "start <= last_held",
            "no valid or test event stands in a train history",
        )
    )
    if params["expansion"] == "last":
        lasts = f"select max(place) as last from placed where {_candidates('train')} group by user_index"
        checks.append(
            Sought(
                "train",
                "not_last",
                f'(select coalesce(sum(last), 0) from ({lasts})) - coalesce(sum("end"), 0)',
                "the target is the user's last train event with a history",
                minimum=0,
                maximum=0,
                rows=f"""from train join (select user_index, {lasts.removeprefix("select ")}) as own
                    using (user_index) where "end" <> last""",
            )
        )
    return checks


def _candidates(split: str) -> str:
    """Give the condition that an event can be a target of a split: it has a history."""
    return f"split = '{split}' and starts_session and place > least_start"


def _of_split(split: str, params: Mapping[str, Any], counted: int) -> list[Check]:
    one_each = params["expansion"] == "last" and split == "train"
    targets = "count(distinct user_index)" if one_each else "count(*)"
    missing = f"(select {targets} from placed where {_candidates(split)}) - count(*)"
    served = "user_index" if one_each else 'user_index, "end" as place'
    without = f"""from placed anti join (select {served} from {split}) as made
        using ({served.replace('"end" as ', "")}) where {_candidates(split)}"""
    return [
        none_of(
            split,
            "wrong_target",
            f"""at_item is distinct from target or at_ts is distinct from target_ts
                or at_split is distinct from '{split}'""",
            f"the target is the {split} event at `end` of the user's sequence",
        ),
        none_of(
            split,
            "history_after_target",
            'start >= "end" or target_ts < latest',
            "the history lies before its target, and is not empty",
        ),
        none_of(
            split,
            "wrong_start",
            "start is distinct from least_start",
            "the history begins where it is declared to",
        ),
        none_of(
            split,
            "wrong_n_targets",
            "n_targets is distinct from own_targets",
            "n_targets are the targets there are",
        ),
        Sought(
            split,
            "events_without_sample",
            missing,
            f"every {split} event that can be is a target",
            minimum=0,
            maximum=0,
            rows=without,
        ),
        Check(
            split, "miscounted", f"count(*) - {counted}", "there are as many samples as were counted", 0, 0
        ),
    ]


def shown_promises(tables: Collection[str], cuts: Sequence[int] | None) -> list[Check]:
    """Give the checks of impressions, where there are any. cuts: of a split by global time."""
    if "impressions" not in tables:
        return []
    checks = [
        none_of(
            "impressions",
            "uneven_lists",
            """len(items) = 0 or len(items) > n_shown or len(clicked) <> len(items)
                or len(positions) <> len(items) or len(propensities) <> len(items)""",
            "the lists are equally long, and not empty",
        ),
        none_of(
            "impressions",
            "unknown_items",
            "list_max(items) >= (select count(*) from items)",
            "every item shown stands in items",
        ),
        none_in(
            "impressions",
            "leak_clicked_held_out",
            """from (
                select user_index, ts, unnest(items) as item_index, unnest(clicked) as clicked
                from impressions where split = 'train') as shown
                semi join (from interactions where split in ('valid', 'test')) as held
                using (user_index, ts, item_index) where clicked""",
            "no clicked item of a train list is a valid or test event",
        ),
    ]
    if cuts:
        broken = f"(split = 'train' and ts >= {cuts[0]}) or (split = 'valid' and ts >= {cuts[1]})"
        checks.append(
            none_of("impressions", "leak_after_cut", broken, "no list is later than the cut after it")
        )
    return checks
