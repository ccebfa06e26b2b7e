"""Impressions and item pairs, where the source has them, under our own numbers and with their split."""

from collections.abc import Sequence

import duckdb

from sid_pipelines.stage import Work
from sid_schemas.tables import IMPRESSIONS, ITEM_PAIRS
from sid_warehouse.db import view


def write(work: Work, connection: duckdb.DuckDBPyConnection, cuts: Sequence[int] | None) -> dict[str, int]:
    """Write `impressions` and `item_pairs`; give how many lists, shown items and pairs were left out.

    connection: with views `events` (interactions with their split), `users`, `items_clean`. cuts: the
    two moments of a split by global time, where it is one.
    """
    ingest = work.inputs["ingest"]
    left_out: dict[str, int] = {}
    if "raw_impressions" in ingest.manifest["rows"]:
        view(connection, "raw_impressions", ingest.parts("raw_impressions"))
        lists, items = _impressions(work, connection, cuts)
        left_out |= {"impressions": lists, "shown_items": items}
    if "raw_item_pairs" in ingest.manifest["rows"]:
        view(connection, "raw_item_pairs", ingest.parts("raw_item_pairs"))
        written = work.out.write(ITEM_PAIRS, _pairs(connection).to_arrow_reader())
        left_out["item_pairs"] = ingest.manifest["rows"]["raw_item_pairs"] - written
    return left_out


def _impressions(
    work: Work, connection: duckdb.DuckDBPyConnection, cuts: Sequence[int] | None
) -> tuple[int, int]:
    connection.execute("""
        create temp table lists as
        select row_number() over (order by source_file, source_row) as list, users.user_index,
            raw_impressions.* exclude (filename, file_row_number)
        from raw_impressions join users using (user_id)""")
    connection.execute("""
        create temp table kept as
        with shown as (
            select list, propensities is not null as weighted, generate_subscripts(items, 1) as place,
                unnest(items) as item_id, unnest(clicked) as clicked, unnest(positions) as position,
                unnest(propensities) as propensity
            from lists)
        select list, list(item_index order by place) as items, list(clicked order by place) as clicked,
            list(position order by place) as positions,
            case when any_value(weighted) then list(propensity order by place) end as propensities
        from shown join items_clean using (item_id) group by list""")
    written = connection.sql(f"""
        select lists.* exclude (items, clicked, positions, propensities), len(lists.items) as n_shown,
            kept.items, kept.clicked, kept.positions, kept.propensities, {_split(cuts)} as split
        from lists join kept using (list)
        asof left join ({_times()}) as event
            on lists.user_index = event.user_index and lists.ts >= event.ts
        join ({_firsts()}) as first on first.user_index = lists.user_index
        order by lists.user_index, lists.ts, source_file, source_row""")
    rows = work.out.write(IMPRESSIONS, written.to_arrow_reader())
    [(lists, items)] = connection.sql(
        "select count(*), coalesce(sum(len(items)), 0) from raw_impressions"
    ).fetchall()
    [(kept,)] = connection.sql("select coalesce(sum(len(items)), 0) from kept").fetchall()
    return lists - rows, items - kept


def _split(cuts: Sequence[int] | None) -> str:
    """Give a list's split: by its own time under global time, else by the user's event before it."""
    if cuts:
        valid, test = cuts
        return (
            f"case when lists.ts >= {test} then 'test' when lists.ts >= {valid} then 'valid' else 'train' end"
        )
    return "coalesce(event.split, first.split)"  # before the first event: as the first event


def _times() -> str:
    """Give the split of each user's last event at each time, in the declared order."""
    return """select user_index, ts, last(split order by filename, file_row_number) as split
        from events semi join lists using (user_index) group by user_index, ts"""


def _firsts() -> str:
    return """select user_index, first(split order by filename, file_row_number) as split
        from events semi join lists using (user_index) group by user_index"""


def _pairs(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
    return connection.sql("""
        select item.item_index, other.item_index as other_index, kind, null::double as score
        from raw_item_pairs as pair
        join items_clean as item using (item_id)
        join items_clean as other on other.item_id = pair.other_id
        order by item.item_index, kind, other_index""")
