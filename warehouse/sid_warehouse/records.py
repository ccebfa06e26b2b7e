"""What a `release.json` must be before anything in it is believed, and how releases follow each other.

A record may come from a store that others can write to, so that what it says ends up in paths and SQL
only after this look. Unlike releases.py this touches no disk.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sid_schemas import WarehouseError
from sid_warehouse.names import DATASET, check_member

FORMAT = 1
NAME = "release.json"
SHA256 = re.compile(r"[0-9a-f]{64}")
Record = dict[str, Any]


def check(record: Any, where: object) -> Record:
    """Give a record back; raises WarehouseError naming `where` for a later format or an unfit value."""
    found = record.get("format") if isinstance(record, dict) else None
    if found != FORMAT or isinstance(found, bool):
        raise WarehouseError(
            f"{where}: expected format {FORMAT}, got {found!r}. It was written by another version of sidmill"
        )
    assert isinstance(record, dict)
    for key, fits, expected in (
        ("dataset", _is_dataset(record.get("dataset")), "a data set's name"),
        ("version", _is_count(record.get("version"), least=1), "a whole number from 1 on"),
        ("fingerprint", isinstance(record.get("fingerprint"), str), "a string"),
        ("files", isinstance(record.get("files"), dict), "an object with the files"),
        ("rows", _has_tables(record.get("rows", {})), "the rows of each table"),
        ("embeddings", _has_widths(record.get("embeddings", {})), "dim for each table of embeddings"),
        ("base", _is_base(record), "{'version': an earlier one, ...}, or null where nothing is appended to"),
    ):
        if not fits:
            raise WarehouseError(f"{where}: {key!r} holds {_short(record.get(key))}; expected {expected}")
    for name, entry in record["files"].items():
        try:
            check_member(name)
        except WarehouseError as error:
            raise WarehouseError(f"{where}: 'files': {error}") from None
        entry = entry if isinstance(entry, dict) else {}
        hashed = bool(SHA256.fullmatch(str(entry.get("sha256")))) and _is_count(entry.get("bytes"))
        if name == NAME or not hashed:
            raise WarehouseError(f"{where}: 'files': {name!r} has no usable size and SHA-256")
    return record


def _is_dataset(value: Any) -> bool:
    return isinstance(value, str) and bool(DATASET.fullmatch(value))


def _is_count(value: Any, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**63


def _has_tables(rows: Any) -> bool:
    """Say whether these are numbers of rows by table; a table's name is a folder's too."""
    return isinstance(rows, dict) and all(_is_table(name) and _is_count(rows[name]) for name in rows)


def _has_widths(embeddings: Any) -> bool:
    return isinstance(embeddings, dict) and all(
        _is_table(name) and isinstance(facts, dict) and _is_count(facts.get("dim", 1))
        for name, facts in embeddings.items()
    )


def _is_table(name: str) -> bool:
    return bool(re.fullmatch(r"[a-z][a-z0-9_]{0,80}", name))


def _is_base(record: Record) -> bool:
    base = record.get("base")
    if base is None:
        return record.get("kind") != "append"
    version, own = base.get("version") if isinstance(base, dict) else None, record.get("version")
    return isinstance(version, int) and isinstance(own, int) and 1 <= version < own


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "..."


def base_version(record: Mapping[str, Any]) -> int | None:
    """Give the version that a release appends to; None for one that appends to nothing."""
    base = record.get("base")
    return int(base["version"]) if record.get("kind") == "append" and base else None


def settle(there: Sequence[Record], record: Mapping[str, Any]) -> Record | None:
    """Give the release among those there that is the one to publish, or None: it may be published.

    Raises WarehouseError for an append to a base that another append went on from: both would give their
    new items the same IDs.
    """
    for one in reversed(there):
        if one["fingerprint"] == record["fingerprint"]:
            return one
    base = base_version(record)
    followers = {base_version(one): one for one in there}
    if base is None or base not in followers:
        return None
    first = newest = followers[base]
    while newest["version"] in followers:
        newest = followers[newest["version"]]
    dataset = first["dataset"]
    raise WarehouseError(
        f"{dataset}@v{base} has an append already, {dataset}@v{first['version']}; two to one base would give "
        f"their new items the same IDs. Append to the newest, {dataset}@v{newest['version']}"
    )
