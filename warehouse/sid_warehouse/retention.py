"""Which releases of a data set stay, and why: plain rules over what is there.

garbage.py finds what is there, asks the readers, and removes the rest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sid_warehouse.tags import Tag


@dataclass(frozen=True)
class Rules:
    """What is kept beside the latest, the tagged and what is in use. Without either, every release is.

    last: the newest so many of each data set. days: those younger than that.
    """

    last: int | None = None
    days: float | None = None


def reasons(
    there: Mapping[int, Mapping[str, Any]], tags: Sequence[Tag], rules: Rules, now: datetime
) -> dict[int, list[str]]:
    """Give for each version of one data set why it stays; one without a reason may go.

    there: the records by version, ascending. A tag keeps the release that it says and the one that a
    rollback would go to. A record without a time that can be read is kept.
    """
    newest = list(there)[-rules.last :] if rules.last else []
    why: dict[int, list[str]] = {version: [] for version in there}
    why[max(there)].append("the latest")
    for tag in tags:
        why.get(tag.now.version, []).append(f"tag {tag.name}")
        if tag.earlier and tag.earlier.version != tag.now.version:
            why.get(tag.earlier.version, []).append(f"where tag {tag.name} rolls back to")
    for version, record in there.items():
        if version in newest:
            why[version].append(f"one of the newest {rules.last}")
        if rules.days is not None and _age(record, now) < timedelta(days=rules.days):
            why[version].append(f"younger than {rules.days:g} days")
        if rules == Rules() and not why[version]:
            why[version].append("neither --keep-last nor --keep-days")
    return why


def _age(record: Mapping[str, Any], now: datetime) -> timedelta:
    try:
        return now - datetime.fromisoformat(record["created"])
    except (KeyError, TypeError, ValueError):
        return timedelta(0)


def keep_bases(there: Mapping[int, Mapping[str, Any]], why: dict[int, list[str]]) -> None:
    """Add to the reasons: the base of a release that stays does too, but not that one's base in turn."""
    for version in [one for one in there if why[one]]:
        base = (there[version].get("base") or {}).get("version")
        if base in why:
            why[base].append(f"base of v{version}")


def said(rules: Rules) -> str:
    """Say why a release goes."""
    told = [f"not one of the newest {rules.last}"] if rules.last else []
    told += [f"older than {rules.days:g} days"] if rules.days is not None else []
    return ", ".join([*told, "no tag, no reader"])
