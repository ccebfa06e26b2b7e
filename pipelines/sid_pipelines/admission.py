"""Admission: which events of a new dump, and of those that waited, join a release that is published.

The rules are those of `clean`, judged on published and candidate events together, but a published event
never goes: not for a later repeat, not for a core that shrank. So this asks only which candidates may come.
Numbers of users and items that are published stay; new ones count on in byte order of their ids.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import duckdb
import numpy as np
import numpy.typing as npt

from sid_pipelines.clean import CleanParams
from sid_pipelines.kcore import k_core, single_pass
from sid_pipelines.rows import CONTENT
from sid_pipelines.stage import count
from sid_schemas import DataError
from sid_schemas.tables import RAW_INTERACTIONS, RAW_ITEMS
from sid_warehouse.db import literal, scan, view
from sid_warehouse.stages import StageOutput

Dump = Literal["delta", "snapshot"]
SAME = ("ts", "event_type", "value")  # with user and item, what makes two events one
MOST_KNOWN = 0.5  # a delta that repeats more than this share of its rows is no delta


@dataclass
class Admission:
    """Candidates on their way in, as table `candidates` of a DuckDB connection, and the ledger of it.

    base: a release. ingest: the new dump. earlier: what the base read, or what waited since; None where
    that is not at hand. session_gap: milliseconds after a user's last published event within which an event
    belongs to its session, where sessions must not be divided.
    """

    connection: duckdb.DuckDBPyConnection
    base: StageOutput
    ingest: StageOutput
    earlier: StageOutput | None
    dump: Dump
    clean: CleanParams
    session_gap: int | None = None
    ledger: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def run(self, min_overlap: float) -> None:
        """Leave in `candidates` what is admitted, and make `waiting`, `new_users`, `new_items`."""
        self._read()
        self._known(min_overlap)
        if not self.ledger[-1]["interactions"]:  # a dump of items alone
            self.connection.execute("create temp table waiting as from candidates")
            self._number()
            return
        self._filter()
        self._dedupe()
        self._late()
        self._bots()
        self._metadata()
        self._k_core()
        self._number()

    def _read(self) -> None:
        """Put the new dump's events, and those that waited, under the numbers that are published."""
        connection = self.connection
        for name, table in (("published", "interactions"), ("users", "users"), ("items", "items")):
            view(connection, name, self.base.parts(table))
        view(connection, "dumped", self.ingest.parts("raw_interactions"))
        columns = ", ".join(RAW_INTERACTIONS.names)
        sources = [f"select {columns}, 1 as dump from dumped", *self._waiting(columns)]
        described = [f"select * from {scan(self.ingest.parts('raw_items'))}", *self._described()]
        connection.execute(f"""
            create temp table described as
            select {", ".join(RAW_ITEMS.names)} from ({" union all by name ".join(described)});
            create temp table candidates as
            select row_number() over (order by dump, source_file, source_row) as n, raw.*,
                users.user_index as u, items.item_index as i
            from ({" union all ".join(sources)}) as raw
            left join users using (user_id) left join items using (item_id)""")
        [(waited,)] = connection.sql("select count(*) from candidates where dump = 0").fetchall()
        self.facts["waited"] = waited if self.earlier else None
        self._enter("raw", f"what this dump holds, and {count(waited, 'event')} that waited")

    def _waiting(self, columns: str) -> list[str]:
        """Give the SQL of events that an earlier dump had and no release has; a snapshot has all anew."""
        if self.earlier is None or self.dump == "snapshot":
            return []
        if self.earlier.manifest["stage"] == "extend":
            return [f"select {columns}, 0 as dump from {scan(self.earlier.parts('waiting'))}"]
        if self.earlier.facts["interactions"] == self.base.manifest["rows"]["interactions"]:
            return []  # all that was read is published
        return [
            f"""select {columns}, 0 as dump from {scan(self.earlier.parts("raw_interactions"))} as earlier
            anti join published using (source_file, source_row)"""
        ]

    def _described(self) -> list[str]:
        """Give the SQL of what earlier dumps said of items that this one does not describe."""
        if self.earlier is None or self.dump == "snapshot":
            return []
        table = "waiting_items" if self.earlier.manifest["stage"] == "extend" else "raw_items"
        dumped = scan(self.ingest.parts("raw_items"))
        earlier = scan(self.earlier.parts(table))
        return [f"select * from {earlier} as earlier anti join {dumped} as dumped using (item_id)"]

    def _known(self, min_overlap: float) -> None:
        """Take out what is published already; refuse a dump that is not what it was declared to be."""
        connection = self.connection
        same = " and ".join(f"other.{name} is not distinct from one.{name}" for name in SAME)
        [(new,)] = connection.sql("select count(*) from candidates where dump = 1").fetchall()
        connection.execute(f"""
            create temp table known as
            select one.n, one.dump from candidates as one
            where exists (from published as other
                where other.user_index = one.u and other.item_index = one.i and {same})""")
        [(known,)] = connection.sql("select count(*) from known where dump = 1").fetchall()
        published = self.base.manifest["rows"]["interactions"]
        self.facts["known_events"] = known
        if self.dump == "snapshot":
            [(found,)] = connection.sql(f"""
                select count(*) from published as one
                where exists (from candidates as other where other.u = one.user_index
                    and other.i = one.item_index and {same})""").fetchall()
            self.facts["published_events_in_snapshot"] = found
            if found < min_overlap * published:
                raise DataError(
                    f"append: this snapshot has {found:,} of the {published:,} published events "
                    f"({found / published:.1%}); expected {min_overlap:.0%} or more. Either it numbers users "
                    "or items anew, and then it cannot be appended, or it holds only what is new: set "
                    "[append] dump = 'delta'"
                )
        elif known > MOST_KNOWN * new:
            raise DataError(
                f"append: {known:,} of the {new:,} events in this delta are published already; expected only "
                "new ones. If it holds everything again, set [append] dump = 'snapshot'"
            )
        if self.dump == "snapshot" or self.clean.exact_duplicates == "drop":
            self._keep("anti join known using (n)")
            self._enter("published", "the event is published already")

    def _filter(self) -> None:
        """Judge events by what they hold, as clean does."""
        clean = self.clean
        if clean.events:
            among = ", ".join(literal(name) for name in clean.events)
            self._keep(f"where event_type in ({among})")
            self._enter("event_types", f"the event is none of {', '.join(clean.events)}")
        for name, bound, holds in (("below", clean.min_value, ">="), ("above", clean.max_value, "<=")):
            if bound is not None:
                self._keep(f"where coalesce(value {holds} {float(bound)!r}, false)")
                self._enter(f"value_{name}", f"the value is {name} {bound:g}, or there is none")
        if clean.since is not None or clean.until is not None:
            inside = [f"ts >= {int(clean.since)}"] if clean.since is not None else []
            inside += [f"ts < {int(clean.until)}"] if clean.until is not None else []
            self._keep(f"where {' and '.join(inside)}")
            self._enter("time_window", "the event is outside the time window")

    def _dedupe(self) -> None:
        """Judge events of one user and item among themselves and beside published ones."""
        clean = self.clean
        content = "n" if clean.ties == "source" else ", ".join([*CONTENT[1:], "n"])
        if clean.exact_duplicates == "drop":
            self._keep(f"""qualify row_number() over (
                partition by user_id, item_id, ts, event_type, value order by {content}) = 1""")
            self._enter("exact_duplicates", "the same user, item, time, type and value stood there already")
        if clean.dedupe == "all":
            return
        self._keep("anti join published on published.user_index = u and published.item_index = i")
        order = f"ts, {content}"
        if clean.dedupe == "last":
            order = ", ".join(f"{column} desc" for column in order.split(", "))
        self._keep(f"qualify row_number() over (partition by user_id, item_id order by {order}) = 1")
        reason = f"the user has an event on the item already; a published one stays, else the {clean.dedupe}"
        self._enter("repeated_items", reason)

    def _late(self) -> None:
        """Take out events that would change a history that models have seen."""
        bound, why = "ts < last", "the user has a later event that is published, and histories do not change"
        if self.session_gap is not None:
            bound = f"ts <= last + {self.session_gap}"
            why = "the user's published session would go on, or a history change"
        self.connection.execute("""
            create temp table lasts as
            select user_index as u, max(ts) as last, count(*) as events from published group by user_index""")
        self._keep(
            f"anti join (select candidates.n from candidates join lasts using (u) where {bound}) using (n)"
        )
        self._enter("late", why)

    def _bots(self) -> None:
        most = self.clean.max_events_per_user
        if most is not None:
            self._keep(f"""qualify count(*) over (partition by user_id)
                + coalesce((select events from lasts where lasts.u = candidates.u), 0) <= {int(most)}""")
            self._enter("bots", f"the user has more than {most:,} events, published ones included")

    def _metadata(self) -> None:
        """Judge new items by what dumps say of them; what is left out here waits for a description."""
        clean, connection = self.clean, self.connection
        connection.execute("create temp table waiting as from candidates where false")
        [(described,)] = connection.sql("select count(*) from described").fetchall()
        needed = clean.without_metadata == "drop" or (clean.without_metadata == "auto" and described)
        rules = [("no_metadata", "no dump describes the item", "true")] if needed else []
        for name in clean.require:
            given = "len(category_path) > 0" if name == "category_path" else f"{name} is not null"
            rules.append((f"no_{name}", f"the item has no {name}", given))
        for step, reason, given in rules:
            self._keep(
                f"where i is not null or item_id in (select item_id from described where {given})", wait=True
            )
            self._enter(step, reason)

    def _k_core(self) -> None:
        """Judge users and items by their events, published ones included; what is left out here waits."""
        clean, connection = self.clean, self.connection
        first_user, first_item = (self.base.manifest["rows"][name] for name in ("users", "items"))
        numbers = connection.sql(f"""
            select n, coalesce(u, {first_user} - 1 + dense_rank() over new_user)::int as u,
                coalesce(i, {first_item} - 1 + dense_rank() over new_item)::int as i
            from candidates
            window new_user as (partition by u is null order by user_id),
                new_item as (partition by i is null order by item_id)
            order by n""").fetchnumpy()
        users, items = (np.asarray(numbers[name], dtype=np.int32) for name in ("u", "i"))
        # A published user or item has enough, whatever has become of its core.
        held = (
            np.full(first_user, max(clean.k_core_user, 1), dtype=np.int32),
            np.full(first_item, max(clean.k_core_item, 1), dtype=np.int32),
        )
        method = k_core if clean.k_core == "iterative" else single_pass
        alive = method(users, items, clean.k_core_user, clean.k_core_item, held=held)
        kept = np.asarray(numbers["n"])[alive]
        self._keep_numbered(kept)
        self._enter(
            "k_core",
            f"fewer than {clean.k_core_user} events of the user or {clean.k_core_item} of the item, "
            "published and earlier ones included; they wait",
        )

    def _keep_numbered(self, kept: npt.NDArray[np.int64]) -> None:
        import pyarrow as pa

        self.connection.register("kept_numbers", pa.table({"n": kept}))
        self._keep("semi join kept_numbers using (n)", wait=True)
        self.connection.unregister("kept_numbers")

    def _number(self) -> None:
        """Number what is new: users of admitted events, and items that get an ID."""
        connection = self.connection
        first_user, first_item = (int(self.base.manifest["rows"][name]) for name in ("users", "items"))
        catalog = "union select item_id from described anti join items using (item_id)"
        universe = catalog if self.clean.universe == "catalog" else ""
        connection.execute(f"""
            create temp table new_users as
            select ({first_user} - 1 + row_number() over (order by user_id))::int as user_index, user_id
            from (select distinct user_id from candidates where u is null);
            create temp table new_items as
            select ({first_item} - 1 + row_number() over (order by item_id))::int as item_index, item_id,
                title, description, brand, price, coalesce(category_path, []) as category_path, image_ref,
                coalesce(domain, 'unknown') as domain
            from (select distinct item_id from candidates where i is null {universe})
            left join described using (item_id);
            update candidates set u = new_users.user_index from new_users
            where candidates.u is null and candidates.user_id = new_users.user_id;
            update candidates set i = new_items.item_index from new_items
            where candidates.i is null and candidates.item_id = new_items.item_id""")
        [(users, cold)] = connection.sql(f"""
            select count(distinct u), count(distinct u) filter (where u >= {first_user})
            from candidates""").fetchall()
        [(changed,)] = connection.sql("""
            select count(*) from described join items using (item_id)
            where described.title is distinct from items.title""").fetchall()
        [(first, last)] = connection.sql("select min(ts), max(ts) from candidates").fetchall()
        self.facts |= {
            "active_users": users,
            "cold_users": cold,
            "cold_user_rate": cold / max(users, 1),
            "changed_titles": changed,
            "first_ts": first,
            "last_ts": last,
        }

    def _keep(self, rest: str, *, wait: bool = False) -> None:
        """Keep the candidates that a rest of a SELECT gives; wait: the others are not lost but wait."""
        connection = self.connection
        connection.execute(f"create temp table kept as select candidates.* from candidates {rest}")
        if wait:
            connection.execute("insert into waiting from (from candidates anti join kept using (n))")
        connection.execute("drop table candidates; alter table kept rename to candidates")

    def _enter(self, step: str, reason: str) -> None:
        """Enter what a step left of the candidates, in the form of clean's ledger."""
        [(events, users, items)] = self.connection.sql(
            "select count(*), count(distinct user_id), count(distinct item_id) from candidates"
        ).fetchall()
        before = self.ledger[-1]["interactions"] if self.ledger else events
        entry: Mapping[str, Any] = {"step": step, "reason": reason, "interactions": events}
        self.ledger.append({**entry, "users": users, "items": items, "removed": before - events})
