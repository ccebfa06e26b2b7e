"""Churn: of the items that two versions have in common, how many have another semantic ID.

Counted three ways, since they mean different things to a model: whole SIDs that moved, codes that changed
level by level, and prefixes that changed, which is what codes of a coarse-to-fine scheme mean.
"""

from typing import Any

import duckdb

from sid_warehouse.db import quote


def churn(connection: duckdb.DuckDBPyConnection, a: str, b: str, levels: int) -> dict[str, Any]:
    """Compare two relations with columns item_id and sid, over the items in both.

    levels: how many levels to look at one by one; a SID that ends before a level has none there. A moved
    SID is one that differs at all, in length too. Shares are of the kept items, None where there are none.
    """
    counted = ["count(*)", "count(*) filter (a.sid is distinct from b.sid)"]
    for level in range(1, levels + 1):
        counted.append(f"count(*) filter (a.sid[{level}] is distinct from b.sid[{level}])")
        counted.append(f"count(*) filter (a.sid[1:{level}] is distinct from b.sid[1:{level}])")
    [(kept, moved, *changed)] = connection.sql(
        f"select {', '.join(counted)} from {quote(a)} as a join {quote(b)} as b using (item_id)"
    ).fetchall()
    codes, prefixes = changed[::2], changed[1::2]
    return {
        "kept": kept,
        "moved": moved,
        "share": _share(moved, kept),
        "levels": [
            {"level": level, "changed": number, "share": _share(number, kept)}
            for level, number in enumerate(codes, start=1)
        ],
        "prefixes": [
            {"length": length, "changed": number, "share": _share(number, kept)}
            for length, number in enumerate(prefixes, start=1)
        ],
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
