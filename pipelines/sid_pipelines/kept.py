"""What an append promises of its base: nothing that is published has moved, changed or gone.

promises.py and placed.py have what any release promises of itself.
"""

from collections.abc import Collection, Iterable

from sid_pipelines.contents import VECTORS
from sid_pipelines.failing import Sought, none_in
from sid_schemas import Check
from sid_warehouse.db import scan
from sid_warehouse.stages import StageOutput

# Columns of each table that must be found again, for every row of the base.
STAND = {
    "sids": ("item_index", "item_id", "codes", "sid", "sid_key", "slot", "token_ids", "text"),
    "users": ("user_index", "user_id"),
    "items": ("item_index", "item_id", "title", "text"),
    "interactions": ("user_index", "item_index", "ts", "event_type", "value"),
}
# The same of tables that not every release has.
BESIDE = {
    "soft_sids": ("item_index", "level", "codes", "probabilities"),
    "docids": ("item_index", "item_id", "docid"),
    "item_paths": ("item_index", "path_number", "path", "text"),
    "sid_pieces": ("item_index", "item_id", "scheme", "piece_ids"),
}
NAMED = "sids_"  # how the SIDs of one embedding among several are called
TOKENS = ("item_index", "item_id", "tokens")  # of tables of continuous tokens
SAMPLES = ("train", "valid", "test")
WHY = {
    "sids": "every published item keeps its number, SID, slot and tokens",
    "soft_sids": "every published item keeps its soft codes",
    "docids": "every published item keeps its docid",
    "item_paths": "every published path stands as it was",
    "sid_pieces": "every published item keeps its pieces",
    VECTORS: "every published item keeps its continuous tokens",
    "users": "every published user keeps its number",
    "items": "every published item keeps its number and text",
    "interactions": "every published event is still there",
    "train": "every published train sample is still there, at its place in its user's sequence",
    "valid": "every published valid sample is still there, at its place in its user's sequence",
    "test": "every published test sample is still there, at its place in its user's sequence",
    "sequences": "every published sequence begins the one there is now",
}


def base_promises(base: StageOutput, *, frozen: bool, unchanged: Collection[str]) -> list[Check]:
    """Give the checks against a base.

    frozen: whether labels that are published stay too. unchanged: tables that are the base's files, or begin
    with them, of which nothing can be lost.
    """
    columns = {**STAND, **_beside(base.manifest["rows"])}
    if frozen:
        columns["interactions"] = (*STAND["interactions"], "split")
        columns |= dict.fromkeys(SAMPLES, ("user_index", "start", '"end"', "target", "target_ts"))
    checks = [
        _none(table, None if table in unchanged else _lost(base, table, names))
        for table, names in columns.items()
    ]
    begins = f"""select user_index, old.items as items_before, now.items as items_now
        from {scan(base.parts("sequences"))} as old left join sequences as now using (user_index)
        where now.items[:len(old.items)] is distinct from old.items"""
    checks.append(_none("sequences", None if "sequences" in unchanged else begins))
    if not frozen:
        return checks
    # Nothing may join a frozen valid or test set.
    for table in ("valid", "test"):
        more = f"count(*) - (select count(*) from {scan(base.parts(table))})"
        why, old = f"no sample joins the frozen {table} set", scan(base.parts(table))
        key = 'user_index, "end"'
        joined = f"from {table} as now anti join (select {key} from {old}) as old using ({key})"
        checks.append(Sought(table, "base_joined", more, why, minimum=0, maximum=0, rows=joined))
    return checks


def _beside(tables: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Give the columns to be found again of those tables that not every release has."""
    found = {}
    for table in tables:
        if table in BESIDE:
            found[table] = BESIDE[table]
        elif table.startswith(VECTORS):
            found[table] = TOKENS
        elif table.startswith(NAMED):
            found[table] = STAND["sids"]
    return found


def begins_with(base: StageOutput, output: StageOutput, table: str) -> bool:
    """Say whether a table of an output begins with the very files that a release has of it."""
    parts = {
        name: entry["sha256"]
        for name, entry in base.manifest["files"].items()
        if name.startswith(f"{table}/") and name.endswith(".parquet")
    }
    own = output.manifest["files"]
    return bool(parts) and all(name in own and own[name]["sha256"] == sha for name, sha in parts.items())


def _lost(base: StageOutput, table: str, columns: tuple[str, ...]) -> str:
    """Give the query for rows of the base that do not stand in the table as often as they did."""
    named = ", ".join(columns)
    now = f"{table}_stored" if table in SAMPLES else table
    return f"select {named} from {scan(base.parts(table))} except all select {named} from {now}"


def _none(table: str, lost: str | None) -> Check:
    """Give the check that a query for what is lost has no rows; None where nothing can be."""
    alike = VECTORS if table.startswith(VECTORS) else "sids" if table.startswith(NAMED) else table
    if lost is None:
        return Check(table, "base_lost", "0", WHY[alike], minimum=0, maximum=0)
    return none_in(table, "base_lost", lost, WHY[alike])
