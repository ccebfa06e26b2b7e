"""The leakage audit of examples: what a prompt gives away of its answer, and what train examples hold out.

Unlike the audit of a split (sid_pipelines/audit.py), which looks at events, this one reads the texts that a
model will: a title counts as named where its words stand in a row in what fills the prompt, in whatever case,
accents and punctuation. Titles that only resemble the target's, and other languages' titles, are not found.
Findings have the form of the split's: {rule, split, count, of, verdict, says}.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sid_pipelines.audit import Finding, breaches, finding
from sid_pipelines.chunks import TRAIN
from sid_pipelines.instructions.examples import Example, Texts
from sid_pipelines.instructions.tasks import SID, TASKS, TITLE, Task

KEPT = 5  # examples of each rule that the report names
SID_FIELDS = frozenset({"inters", "item", "items"})
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Rule:
    """One kind of leak. strict: never to be written unasked. says: follows the count of examples."""

    says: str
    strict: bool = False
    splits: tuple[str, ...] = SPLITS


RULES: dict[str, Rule] = {
    "target_title_in_prompt": Rule("prompts hold the title of the item that is to be guessed", strict=True),
    "query_names_target": Rule("queries hold the title of the item that they should find", strict=True),
    "target_sid_in_prompt": Rule("prompts hold the SID to be guessed, not as history", strict=True),
    "train_target_held_out": Rule(
        "train examples have a target whose own event is not train", strict=True, splits=("train",)
    ),
    "train_history_held_out": Rule(
        "train examples have valid or test events in their history", strict=True, splits=("train",)
    ),
    "target_in_history": Rule("histories hold the target, or an item that shares its SID"),
    "title_by_design": Rule("prompts of tasks that ask with the title or description hold the title"),
    "sid_by_design": Rule("prompts of tasks that ask with the SID hold the SID"),
    "title_of_several": Rule("prompts ask for one item by a title that several have", splits=("train",)),
    "unseen_items": Rule("items' examples are of items without a train event", splits=("train",)),
}  # fmt: skip


class Audit:
    """Counts leaks while examples stream by; memory is a title for each item."""

    def __init__(self, texts: Texts) -> None:
        """Start at nothing."""
        self.texts = texts
        self.seen: Counter[str] = Counter()
        self.found: Counter[tuple[str, str]] = Counter()
        self.named: dict[str, list[str]] = defaultdict(list)
        self.dropped: Counter[str] = Counter()

    @cached_property
    def titles(self) -> list[str]:
        """Give every item's title as words, empty where it has none."""
        return [words(one) for one in self.texts.titles]

    @cached_property
    def shared(self) -> frozenset[str]:
        """Give the titles that several items have."""
        return frozenset(one for one, n in Counter(self.titles).items() if one and n > 1)

    @cached_property
    def unseen(self) -> frozenset[int]:
        """Give the items without a train event."""
        rows = self.texts.feed.items(["popularity_train"])
        return frozenset(item for item, row in enumerate(rows) if not row["popularity_train"])

    def screen(self, examples: Iterable[Example], *, drop: bool = False) -> Iterator[Example]:
        """Count every example and pass it on. drop: leave out those that break a strict rule."""
        for example in examples:
            broken = [RULES[rule].strict for rule in self.add(example)]
            if drop and any(broken):
                self.dropped[example.split] += 1
            else:
                yield example

    def add(self, example: Example) -> list[str]:
        """Count one example; give the rules that it breaks, the allowed ones too."""
        task = TASKS[example.task]
        broken = [*self._held_out(example), *(self._texts(example, task) if task.guesses else ())]
        self.seen[example.split] += 1
        for rule in broken:
            self.found[rule, example.split] += 1
            if len(self.named[rule]) < KEPT:
                self.named[rule].append(example.example_id)
        return broken

    def _held_out(self, example: Example) -> Iterator[str]:
        if example.split != "train":
            return
        if example.row is None:
            if example.item_index in self.unseen:
                yield "unseen_items"
            return
        if example.event_split != TRAIN:
            yield "train_target_held_out"
        if example.held_before:
            yield "train_history_held_out"

    def _texts(self, example: Example, task: Task) -> Iterator[str]:
        title = self.titles[example.item_index]
        for field, text in example.shown.items():
            if not title or field in SID_FIELDS or title not in words(text):
                continue
            if TITLE in task.shows:
                yield "title_by_design"
                if title in self.shared:
                    yield "title_of_several"
            else:
                yield "query_names_target" if field == "query" else "target_title_in_prompt"
            break
        sid, prompt = self.texts.sids[example.item_index], example.system + example.user_text
        if stands_in(sid, prompt):
            had = {self.texts.sids[item] for item in example.history}
            if SID in task.shows:
                yield "sid_by_design"
            elif any(one.startswith(sid) for one in had):
                yield "target_in_history"
            elif stands_in(sid, without(had, prompt)):
                yield "target_sid_in_prompt"

    def findings(self) -> list[Finding]:
        """Give one finding for each rule and split that had examples; what was dropped is no breach."""
        found = []
        for rule, known in RULES.items():
            for split in known.splits:
                if not self.seen[split]:
                    continue
                left_out = known.strict and self.dropped[split] > 0
                found.append(
                    finding(
                        rule,
                        known.says + (", and were left out" if left_out else ""),
                        count=self.found[rule, split],
                        of=self.seen[split],
                        split=split,
                        strict=known.strict and not left_out,
                    )
                )
        return found

    def breaches(self) -> list[Finding]:
        """Give the findings that break a strict rule."""
        return breaches(self.findings())

    def report(self, skipped: Counter[tuple[str, str]]) -> dict[str, Any]:
        """Give what `audit.json` holds.

        skipped: rows by (task, split) that no template could be filled for.
        """
        return {
            "findings": self.findings(),
            "examples": dict(sorted(self.named.items())),
            "by_design": {name: sorted(task.shows) for name, task in TASKS.items() if task.shows},
            "dropped": {split: self.dropped[split] for split in SPLITS if self.seen[split]},
            "skipped": [
                {"task": task, "split": split, "rows": n} for (task, split), n in sorted(skipped.items())
            ],
        }


def words(text: str) -> str:
    """Give the words of a text in a row between blanks: small letters, no accents, no punctuation.

    >>> words("Amélie: The Movie!")
    ' amelie the movie '
    """
    plain = unicodedata.normalize("NFKD", text.casefold())
    found = re.findall(r"\w+", "".join(one for one in plain if not unicodedata.combining(one)))
    return f" {' '.join(found)} " if found else ""


def without(sids: Iterable[str], text: str) -> str:
    """Give a text without some SIDs, the longest first: a path may end in what is another item's whole path.

    >>> without({"<1>", "<2><1>"}, "after <2><1>, <1>: what?")
    'after  ,  : what?'
    """
    for sid in sorted(sids, key=len, reverse=True):
        text = text.replace(sid, " ")
    return text


def stands_in(sid: str, text: str) -> bool:
    """Say whether a SID stands in a text, and not only as a part of longer numbers.

    >>> stands_in("C1C12", "C1C121, C7C9"), stands_in("C1C12", "C7C9, C1C12")
    (False, True)
    """
    start = text.find(sid)
    while start >= 0:
        end = start + len(sid)
        before, after = text[max(start - 1, 0) : start], text[end : end + 1]
        if not (sid[0].isdigit() and before.isdigit()) and not (sid[-1].isdigit() and after.isdigit()):
            return True
        start = text.find(sid, start + 1)
    return False
