"""Sequences: the tables a trainer reads. Items with text and train popularity, users, events, samples.

A sample is two positions in its user's sequence; prefixes are never expanded on disk. Parquet is the
published truth; the `.arrow` twins are uncompressed, so that a DataLoader maps them into memory.
"""

from dataclasses import dataclass

import duckdb

from sid_pipelines.stage import Outcome, Stage, Work, count
from sid_schemas.tables import INTERACTIONS, ITEMS, SEQUENCES, TEST, TRAIN, USERS, VALID
from sid_warehouse import parquet
from sid_warehouse.db import connect, view

SPLITS = (TRAIN, VALID, TEST)


@dataclass(frozen=True)
class SequencesParams:
    """Sequences has no parameter of its own yet."""


def run(work: Work) -> Outcome:
    """Write items, users, interactions, sequences, train, valid, test."""
    clean, split, text = (work.inputs[name] for name in ("clean", "split", "text"))
    sources = {
        "events": split.parts("interactions"),
        "users_clean": clean.parts("users"),
        "items_clean": clean.parts("items_clean"),
        "texts": text.parts("texts"),
    }
    with connect(spill=work.out.spill, memory=work.resources.memory) as connection:
        for name, parts in sources.items():
            view(connection, name, parts)
        # Stored order is the declared order, so row numbers carry it from here on.
        connection.execute("""
            create temp table ordered as
            select *, row_number() over (
                partition by user_index order by filename, file_row_number) as place
            from events""")
        work.out.write(ITEMS, _items(connection).to_arrow_reader())
        work.out.write(USERS, connection.sql("from users_clean order by user_index").to_arrow_reader())
        work.out.write(
            INTERACTIONS,
            connection.sql("from ordered order by user_index, place").to_arrow_reader(),
        )
        work.out.write(
            SEQUENCES,
            connection.sql("""
                select user_index, list(item_index order by place) as items,
                    list(ts order by place) as ts,
                    list(event_type order by place) as event_type,
                    list(value order by place) as value
                from ordered group by user_index order by user_index""").to_arrow_reader(),
        )
        for table in SPLITS:
            # The target stands at `end`, counted from 0; its history is everything before it.
            work.out.write(
                table,
                connection.sql(f"""
                    select user_index, 0 as start, place - 1 as "end", item_index as target,
                        ts as target_ts
                    from ordered where split = '{table.name}' and place > 1
                    order by user_index, place""").to_arrow_reader(),
            )
    for table in (SEQUENCES, *SPLITS):
        parquet.write_ipc(work.out.folder, table)
    rows = work.out.rows
    said = [count(rows["sequences"], "user sequence")]
    said += [count(rows[table.name], f"{table.name} sample") for table in SPLITS]
    return Outcome({"samples": {table.name: rows[table.name] for table in SPLITS}}, ", ".join(said))


def _items(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
    return connection.sql("""
        with counts as (
            select item_index, min(ts) as first_ts,
                count(*) filter (where split = 'train') as popularity_train
            from events group by item_index)
        select item.item_index, item.item_id, title, text, description, brand, price,
            category_path, image_ref, coalesce(popularity_train, 0)::int as popularity_train,
            first_ts, domain
        from items_clean as item
        join texts using (item_index)
        left join counts using (item_index)
        order by item.item_index""")


STAGE = Stage("sequences", revision=2, parents=("clean", "split", "text"), run=run)
