"""What differs between two releases: IDs, items, users, splits, samples, metrics, recipe, hashes.

Everything is compared by the ids of the source, since indexes of two releases may differ. A release about
to be published can be compared too: see `Side`. What happened to events and samples is diff_events.py's.
"""

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from sid_warehouse import parquet
from sid_warehouse.churn import churn
from sid_warehouse.db import connect, view
from sid_warehouse.diff_events import compare_events, compare_samples
from sid_warehouse.reader import Release

SHOWN = 10  # examples of each kind
MEMORY = "4GiB"  # DuckDB's; what a build has by default
TABLES = ("items", "users", "interactions", "sids", "sequences", "train", "valid", "test")
CODEBOOK = "tokenizer/tokenizer.safetensors"
NAMES = ("name", "step", "label", "level", "length", "rule")  # keys that tell entries of a list apart


@dataclass(frozen=True)
class Side:
    """One of the two releases. tables: the folder that holds each. hashes: SHA-256 by path in the release."""

    record: Mapping[str, Any]
    metrics: Mapping[str, Any]
    tables: Mapping[str, Path]
    hashes: Mapping[str, str]

    @classmethod
    def of(cls, release: Release) -> "Side":
        """Take a published release."""
        record = release.record
        hashes = {name: entry["sha256"] for name, entry in record["files"].items()}
        return cls(record, release.metrics, dict.fromkeys(record["rows"], release.folder), hashes)

    @property
    def ref(self) -> str:
        """Give its name, such as `movietweetings@v3`."""
        version = self.record.get("version")
        return f"{self.record['dataset']}@v{version}" if version else f"{self.record['dataset']}, unpublished"

    @property
    def levels(self) -> list[int]:
        """Give how many codes each level of its SIDs has."""
        return [one["codes"] for one in self.metrics["collisions"]["levels"]]


def compare(
    a: Release | Side,
    b: Release | Side,
    *,
    shown: int | None = SHOWN,
    memory: str = MEMORY,
    events: bool = True,
) -> dict[str, Any]:
    """Give what is different in b, the later one, as JSON has it, what matters most first.

    shown: examples listed of moved, added and removed items, None for all; counts are always whole.
    memory: DuckDB's bound; what exceeds it goes to the system's temporary folder. events: whether events and
    samples are compared too, which takes longest; "test_frozen" is None where they are not.
    """
    a, b = (one if isinstance(one, Side) else Side.of(one) for one in (a, b))
    with (
        tempfile.TemporaryDirectory(prefix="sidmill-") as spill,
        connect(spill=Path(spill), memory=memory) as connection,
    ):
        for name, side in (("a", a), ("b", b)):
            for table in TABLES:
                view(connection, f"{name}_{table}", parquet.parts(side.tables[table], table))
        sids = churn(connection, "a_sids", "b_sids", min(len(a.levels), len(b.levels)))
        found: dict[str, Any] = {
            "a": _named(a),
            "b": _named(b),
            "notes": _notes(a, b, sids["kept"]),
            "token_ids_moved": _token_ids(connection),
            "sids": sids | {"examples": _moved(connection, shown)},
            "items": _ids(connection, "item") | _item_examples(connection, shown),
            "users": _ids(connection, "user"),
        }
        found |= {"splits": {}, "samples": {}}
        if events:
            _common_numbers(connection)
            found["splits"] = compare_events(connection)
            found["samples"] = compare_samples(connection)
    test = found["samples"].get("test")
    found["test_frozen"] = test["same"] == test["a"] if test else None
    found["recipe"] = changes(a.record["recipe"], b.record["recipe"])
    found["hashes"] = changes(_hashes(a), _hashes(b))
    found["metrics"] = [_with_difference(one) for one in changes(a.metrics, b.metrics)]
    return found


def _named(side: Side) -> dict[str, Any]:
    record = side.record
    return {
        "ref": side.ref,
        "fingerprint": record["fingerprint"],
        "kind": record.get("kind", "build"),
        "levels": side.levels,
    }


def _notes(a: Side, b: Side, kept: int) -> list[str]:
    """Say what makes parts of the comparison mean less than they seem to."""
    notes = []
    if a.record["dataset"] != b.record["dataset"]:
        notes.append(f"two data sets, {a.record['dataset']} and {b.record['dataset']}, compared by item id")
    if not kept:
        notes.append("no item is in both")
    if len(a.levels) != len(b.levels):
        both = min(len(a.levels), len(b.levels))
        notes.append(
            f"SIDs have up to {len(a.levels)} codes in a and {len(b.levels)} in b; "
            f"levels are compared up to {both}"
        )
    return notes


def _token_ids(connection: duckdb.DuckDBPyConnection) -> int:
    """Count items whose SID stayed while its token ids changed: a model would read other items, silently."""
    [(moved,)] = connection.sql("""
        select count(*) from a_sids as a join b_sids as b using (item_id)
        where a.sid is not distinct from b.sid and a.token_ids is distinct from b.token_ids""").fetchall()
    return int(moved)


def _moved(connection: duckdb.DuckDBPyConnection, shown: int | None) -> list[dict[str, Any]]:
    rows = connection.execute(
        """select item_id, title, a.sid_key, b.sid_key
        from a_sids as a join b_sids as b using (item_id) join b_items using (item_id)
        where a.sid is distinct from b.sid order by item_id limit $1""",
        [shown],
    ).fetchall()
    return [{"item_id": item, "title": title, "a": old, "b": new} for item, title, old, new in rows]


def _ids(connection: duckdb.DuckDBPyConnection, kind: str) -> dict[str, int]:
    """Count the items or users of both releases, and those that are in both under another index."""
    id_, index = f"{kind}_id", f"{kind}_index"
    [(before, after, kept, renumbered)] = connection.sql(f"""
        select count(a.{id_}), count(b.{id_}), count(*) filter (a.{id_} = b.{id_}),
            count(*) filter (a.{index} <> b.{index})
        from a_{kind}s as a full join b_{kind}s as b on a.{id_} = b.{id_}""").fetchall()
    counts = {"a": before, "b": after, "kept": kept, "added": after - kept, "removed": before - kept}
    return counts | {"index_moved": renumbered}


def _item_examples(connection: duckdb.DuckDBPyConnection, shown: int | None) -> dict[str, Any]:
    found = {}
    for what, of, other in (("added", "b", "a"), ("removed", "a", "b")):
        rows = connection.execute(
            f"""select item_id, title, sid_key from {of}_items join {of}_sids using (item_id)
            where item_id not in (select item_id from {other}_items) order by item_id limit $1""",
            [shown],
        ).fetchall()
        found[f"{what}_examples"] = [
            {"item_id": item, "title": title, "sid": sid} for item, title, sid in rows
        ]
    return found


def _common_numbers(connection: duckdb.DuckDBPyConnection) -> None:
    """Make tables item_numbers and user_numbers: one number for each id, and its index in a and in b."""
    for kind in ("item", "user"):
        connection.execute(f"""
            create table {kind}_numbers as
            select row_number() over () as number, a.{kind}_index as a, b.{kind}_index as b
            from a_{kind}s as a full join b_{kind}s as b on a.{kind}_id = b.{kind}_id""")


def _hashes(side: Side) -> dict[str, str]:
    """Give the fingerprints of what went into a release: raw files, encoders, vectors, codebook."""
    found = {f"raw file {one['label']}": one["sha256"] for one in side.record["raw_files"]}
    for label, stage in side.record["stages"].items():
        if "weights" in stage["params"]:
            found[f"encoder of {label.removeprefix('embed ')}"] = stage["params"]["weights"]
    return found | {"codebook": side.hashes[CODEBOOK]}


def changes(a: Any, b: Any) -> list[dict[str, Any]]:
    """Give the values that differ between two nested mappings, under dotted names; None where there is none.

    >>> changes({"x": {"y": 1, "z": [1, 2]}}, {"x": {"y": 3, "z": [1, 2]}})
    [{'name': 'x.y', 'a': 1, 'b': 3}]
    """
    old, new = dict(_flat(a)), dict(_flat(b))
    return [
        {"name": name, "a": old.get(name), "b": new.get(name)}
        for name in old | new
        if name not in new or name not in old or old[name] != new[name]
    ]


def _with_difference(change: dict[str, Any]) -> dict[str, Any]:
    """Add b - a where both are numbers, else None."""
    a, b = change["a"], change["b"]
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in (a, b))
    return {**change, "difference": b - a if numbers else None}


def _flat(value: Any, name: str = "") -> Iterable[tuple[str, Any]]:
    """Yield every value with its dotted name; entries of a list go by what tells them apart."""
    inner: Iterable[tuple[Any, Any]]
    if isinstance(value, Mapping):
        inner = value.items()
    elif isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
        inner = zip(_entry_names(value), value, strict=True)
    else:
        yield name, value
        return
    for key, one in inner:
        yield from _flat(one, f"{name}.{key}" if name else str(key))


def _entry_names(entries: list[Mapping[str, Any]]) -> list[str]:
    for key in NAMES:
        names = [str(one.get(key, "")) + (f" {one['split']}" if one.get("split") else "") for one in entries]
        if len(set(names)) == len(names) and all(key in one for one in entries):
            return names
    return [str(number) for number in range(1, len(entries) + 1)]
