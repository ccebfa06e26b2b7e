"""The leakage audit: what each protocol must never leak, and how often it leaks what it may.

A rule is written twice: here on the arrays that stream through split, and as SQL that the gates run on
the published tables, so that neither is believed alone. A finding is {rule, split, count, of, verdict,
says}; the verdict is "ok", "allowed" (by design, or to be known: counted) or "breach".
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sid_pipelines.chunks import TEST, TRAIN, VALID, Chunk, Labels, Mask
from sid_pipelines.packed import Arrays
from sid_pipelines.protocols import Protocol
from sid_schemas import Check
from sid_schemas.tables import SPLIT_NAMES

Finding = dict[str, Any]
HELD_OUT = ("valid", "test")


@dataclass(frozen=True)
class Context:
    """What rules need beside the events: the protocol, and what it found of the whole data set."""

    protocol: Protocol
    facts: Mapping[str, Any]

    def cut(self, place: int) -> tuple[int, bool]:
        """Give a cut's time, and whether events at that very time may stand before it."""
        return self.facts["cuts"][place], getattr(self.protocol, "cut", "") == "samples"


@dataclass(frozen=True)
class Rule:
    """One kind of leak. split: of the events counted. sql: finds them in `placed` (see placed.py).

    count: finds them among whole users' events; None where they show only once all events are known.
    """

    split: str
    says: str
    sql: Callable[[Context], str]
    count: Callable[[Context, Chunk, Labels], Mask] | None = None


def _after(place: int, label: int) -> Callable[[Context, Chunk, Labels], Mask]:
    def count(context: Context, chunk: Chunk, labels: Labels) -> Mask:
        cut, equal = context.cut(place)
        late = chunk.ts > cut if equal else chunk.ts >= cut
        found: Mask = late & (labels == label)
        return found

    return count


def _after_sql(place: int, split: str) -> Callable[[Context], str]:
    def sql(context: Context) -> str:
        cut, equal = context.cut(place)
        return f"split = '{split}' and ts {'>' if equal else '>='} {cut}"

    return sql


def _at_cut(context: Context, chunk: Chunk, labels: Labels) -> Mask:
    train = (labels == TRAIN) & (chunk.ts == context.cut(0)[0])
    found: Mask = train | (labels == VALID) & (chunk.ts == context.cut(1)[0])
    return found


def _own_users(context: Context, chunk: Chunk, labels: Labels) -> Mask:
    held = chunk.any_of_user((labels == VALID) | (labels == TEST))
    found: Mask = (labels == TRAIN) & chunk.spread(held)
    return found


def _divided(context: Context, chunk: Chunk, labels: Labels) -> Mask:
    """Find the first event of each (user, session_id) with two labels; without ids, where a run is cut."""
    codes, gap = chunk.session_codes, _gap(context)
    none = codes == -1
    run = none & np.append(False, none[:-1]) & (chunk.place > 0)
    found: Mask = run & (np.diff(labels, prepend=labels[:1]) != 0)
    found &= np.diff(chunk.ts, prepend=chunk.ts[:1]) <= gap
    rows = np.flatnonzero(~none)
    keys = chunk.users[rows].astype(np.int64) << 32 | codes[rows]
    _, first, own = np.unique(keys, return_index=True, return_inverse=True)
    differs = np.zeros(len(first), dtype=bool)
    differs[own[labels[rows] != labels[rows][first][own]]] = True
    found[rows[first[differs]]] = True
    return found


def _divided_sql(context: Context) -> str:
    return f"""(user_index, place) in (
            select (user_index, min(place)) from placed where session_id is not null
            group by user_index, session_id having count(distinct split) > 1)
        or (place > 0 and session_id is null and before_session is null
            and ts - before_ts <= {_gap(context)} and split <> before_split)"""


def _gap(context: Context) -> int:
    return (context.protocol.sessions or (1, 0))[1]


RULES: dict[str, Rule] = {
    "train_after_own_held_out": Rule(
        "train",
        "train events stand after a valid or test event of their own user",
        lambda context: "split = 'train' and last_held is not null",
        lambda context, chunk, labels: (
            (labels == TRAIN) & (chunk.last_before((labels == VALID) | (labels == TEST)) >= 0)
        ),
    ),
    "valid_after_own_test": Rule(
        "valid",
        "valid events stand after a test event of their own user",
        lambda context: "split = 'valid' and last_test is not null",
        lambda context, chunk, labels: (labels == VALID) & (chunk.last_before(labels == TEST) >= 0),
    ),
    "test_before_last_train": Rule(
        "test",
        "test targets are earlier than the last train event of all users",
        lambda context: "split = 'test' and ts < (select max(ts) from placed where split = 'train')",
    ),
    "train_after_cut": Rule(
        "train", "train events are later than the cut", _after_sql(0, "train"), _after(0, TRAIN)
    ),
    "valid_after_cut": Rule(
        "valid", "valid events are later than the second cut", _after_sql(1, "valid"), _after(1, VALID)
    ),
    "equal_times_across_cut": Rule(
        "train",
        "train or valid events have the very time of the cut after them",
        lambda context: " or ".join(
            f"(split = '{split}' and ts = {context.cut(place)[0]})"
            for place, split in enumerate(("train", "valid"))
        ),
        _at_cut,
    ),
    "train_of_held_out_users": Rule(
        "train",
        "train events are of users that have valid or test events",
        lambda context: """split = 'train' and user_index in (
            select user_index from placed where split in ('valid', 'test'))""",
        _own_users,
    ),
    "train_of_held_out_items": Rule(
        "train",
        "train events are on items that have valid or test events",
        lambda context: """split = 'train' and item_index in (
            select item_index from placed where split in ('valid', 'test'))""",
    ),
    "sessions_divided": Rule(
        "train",
        "sessions have events of two splits",
        _divided_sql,
        _divided,
    ),
}  # fmt: skip


class Audit:
    """Counts while events stream through; memory is 12 bytes per item, and 8 per test event that may yet
    turn out to be earlier than the last train event. What was counted of other users can be merged.
    """

    def __init__(self, protocol: Protocol, facts: Mapping[str, Any], n_items: int) -> None:
        """Start at nothing."""
        self.protocol, self.context = protocol, Context(protocol, facts)
        self.rules = (*protocol.forbids, *protocol.allows)
        self.forbidden = forbidden(protocol, facts)
        self.events = np.zeros(len(SPLIT_NAMES), dtype=np.int64)
        self.of_items = np.zeros((3, n_items), dtype=np.int32)  # train, valid, test events of each item
        self.found: Counter[str] = Counter()
        self.unseen_users: Counter[str] = Counter()
        self.times: list[int] = []  # of the first and the last event
        self.last_train = -1
        self.maybe_later: list[npt.NDArray[np.int64]] = []  # test times not before the last train time so far

    def add(self, chunk: Chunk, labels: Labels) -> None:
        """Count one chunk of whole users in the declared order."""
        self.events += np.bincount(labels, minlength=len(SPLIT_NAMES))
        self._span([int(chunk.ts.min()), int(chunk.ts.max())])
        for name in self.rules:
            rule = RULES[name]
            if rule.count:
                self.found[name] += int(rule.count(self.context, chunk, labels).sum())
        trained = chunk.any_of_user(labels == TRAIN)
        for label, name in enumerate(SPLIT_NAMES[:3]):
            mine = labels == label
            np.add.at(self.of_items[label], chunk.items[mine], 1)
            self.found[f"{name}_ties"] += int((mine & chunk.tied).sum())
            self.unseen_users[name] += int((mine & ~chunk.spread(trained)).sum())
        held = (labels == VALID) | (labels == TEST)
        self.found["held_out_users"] += int(chunk.any_of_user(held).sum())
        self.found["tied_users"] += int(chunk.any_of_user(held & chunk.tied).sum())
        self.found["short_users"] += int((~chunk.any_of_user(labels == TEST)).sum())
        self._later(chunk.ts[labels == TRAIN], chunk.ts[labels == TEST])

    def _span(self, times: Sequence[int]) -> None:
        seen = [*self.times, *times]
        self.times = [min(seen), max(seen)] if seen else []

    def _later(self, train: npt.NDArray[np.int64], test: npt.NDArray[np.int64]) -> None:
        if len(train):
            self.last_train = max(self.last_train, int(train.max()))
        later = test >= self.last_train
        self.found["test_before_last_train"] += int((~later).sum())
        self.maybe_later.append(test[later])

    def _settled(self) -> npt.NDArray[np.int64]:
        """Count the test times that are known by now to be too early; give the others."""
        waiting = np.concatenate([np.empty(0, dtype=np.int64), *self.maybe_later])
        early = waiting < self.last_train
        self.found["test_before_last_train"] += int(early.sum())
        self.maybe_later = [waiting[~early]]
        return self.maybe_later[0]

    def counted(self) -> tuple[dict[str, Any], Arrays]:
        """Give what was counted so far for another audit to `merge`: JSON, and what grows as arrays.

        items: (seen,) that have events. of_items: (3, seen) events of each. later: test times that may yet
        turn out too early.
        """
        later = self._settled()
        items = np.flatnonzero(self.of_items.any(axis=0)).astype(np.int32)
        known = {
            "events": self.events.tolist(),
            "times": self.times,
            "found": dict(self.found),
            "unseen_users": dict(self.unseen_users),
            "last_train": self.last_train,
        }
        return known, {"items": items, "of_items": self.of_items[:, items], "later": later}

    def merge(self, known: Mapping[str, Any], arrays: Arrays) -> None:
        """Add what was counted of other users."""
        self.events += known["events"]
        self._span(known["times"])
        self.found.update(known["found"])
        self.unseen_users.update(known["unseen_users"])
        self.last_train = max(self.last_train, known["last_train"])
        self.of_items[:, arrays["items"]] += arrays["of_items"]
        self.maybe_later.append(arrays["later"])

    def result(self) -> dict[str, Any]:
        """Give what was counted, as facts of the split."""
        events = dict(zip(SPLIT_NAMES, self.events.tolist(), strict=True))
        self._settled()
        train, valid, test = self.of_items
        self.found["train_of_held_out_items"] = int(train[(valid + test) > 0].sum())
        unseen = {"valid": int(valid[train == 0].sum()), "test": int(test[train == 0].sum())}
        users = {split: self.unseen_users[split] for split in HELD_OUT}
        return {
            "events": {name: number for name, number in events.items() if number or name != "context"},
            "short_users": self.found["short_users"] if self.protocol.every_user else 0,
            "test_ties": self.found["test_ties"],
            "test_tie_rate": self.found["test_ties"] / max(events["test"], 1),
            "test_or_valid_tie_rate": self.found["tied_users"] / max(self.found["held_out_users"], 1),
            "unseen_items": unseen,
            "unseen_users": users,
            "test_targets_before_last_train_event": self.found["test_before_last_train"],
            "leaks": f"{self.protocol.name}: {self.protocol.leaks}",
            "findings": [*self._rules(events), *self._known(events, unseen, users)],
        }

    def _rules(self, events: Mapping[str, int]) -> list[Finding]:
        return [
            finding(
                name,
                RULES[name].says,
                count=self.found[name],
                of=events[RULES[name].split],
                split=RULES[name].split,
                strict=name in self.forbidden,
            )
            for name in self.rules
        ]

    def _known(
        self, events: Mapping[str, int], items: Mapping[str, int], users: Mapping[str, int]
    ) -> list[Finding]:
        found = [
            finding(
                "tied_targets",
                "users have a valid or test event at the same time as the event before it",
                count=self.found["tied_users"],
                of=self.found["held_out_users"],
            )
        ]
        for split in HELD_OUT:
            ties, of = self.found[f"{split}_ties"], events[split]
            same = f"{split} events have the same time as the event before them"
            found += [
                finding("ties", same, count=ties, of=of, split=split),
                finding("unseen_items", f"{split} events are on items without a train event",
                        count=items[split], of=of, split=split),
                finding("unseen_users", f"{split} events are of users without a train event",
                        count=users[split], of=of, split=split),
            ]  # fmt: skip
        return found


def finding(
    rule: str, says: str, *, count: int, of: int, split: str | None = None, strict: bool = False
) -> Finding:
    """Give a finding; a strict rule must never be broken, others are counted."""
    verdict = "ok" if not count else "breach" if strict else "allowed"
    return {"rule": rule, "split": split, "count": count, "of": of, "verdict": verdict, "says": says}


def forbidden(protocol: Protocol, facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Give the rules that must be kept: none where an append was told to let all new events train."""
    return () if facts.get("relaxed") else protocol.forbids


def leak_checks(protocol: Protocol, facts: Mapping[str, Any]) -> list[Check]:
    """Give the checks of what a protocol forbids, on the published interactions; facts are split's."""
    context = Context(protocol, facts)
    checks = []
    for name in forbidden(protocol, facts):
        broken = RULES[name].sql(context)
        checks.append(
            Check(
                "interactions",
                f"leak_{name}",
                f"(select count(*) from placed where {broken})",
                f"under {protocol.name} no {RULES[name].says}",
                minimum=0,
                maximum=0,
                failing=f"""(user_index, item_index, ts) in (
                    select (user_index, item_index, ts) from placed where {broken})""",
            )
        )
    return checks


def breaches(findings: Sequence[Finding]) -> list[Finding]:
    """Give the findings that break a strict rule."""
    return [one for one in findings if one["verdict"] == "breach"]
