"""Examples: templates filled with what a release has, each with the place that it can be rebuilt from.

Which template an example takes is settled by a hash of seed, task, split and row alone, so that neither the
order of reading nor the other tasks change it. A row for which no template can be filled gives no example,
and is counted. audit.py looks at examples; trainers/formats/sft.py and trainers/formats/rl.py write them.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from sid_pipelines.instructions.events import TargetEvents, Targets
from sid_pipelines.instructions.tasks import ITEMS, TASKS, Task
from sid_pipelines.instructions.templates import Stage, Style, Template
from sid_tokenizers.dialects import DIALECTS

if TYPE_CHECKING:
    from sid_pipelines.trainers.feed import Feed, SampleBatch

KINDS = 3  # categories that a preference names


@dataclass(frozen=True, slots=True)
class Example:
    """One example, and where it comes from.

    example_id: `task-split-row`, which no other example of the set has. template: its name. row: of the
    sample in its split's table, None for items' examples, as are user_index, start and end: the history is
    items[start:end] of the user's sequence. item_index: the target, `targets` all of a session. shown: what
    fills the prompt. event_split: of the target's own event, as its place in SPLIT_NAMES. held_before:
    valid and test events in the history.
    """

    example_id: str
    task: str
    template: str
    split: str
    user_index: int | None
    item_index: int
    row: int | None
    start: int | None
    end: int | None
    system: str
    instruction: str
    input: str
    output: str
    prompt: str
    shown: Mapping[str, str]
    history: tuple[int, ...] = ()
    targets: tuple[int, ...] = ()
    event_split: int = 0
    held_before: int = 0

    @property
    def user_text(self) -> str:
        """Give what the user says in a chat."""
        return "\n".join(one for one in (self.instruction, self.input) if one)

    @property
    def messages(self) -> list[dict[str, str]]:
        """Give the example as chat messages: system, where there is one, user, assistant."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [
            *system,
            {"role": "user", "content": self.user_text},
            {"role": "assistant", "content": self.output},
        ]


class Texts:
    """What a release says of its items, as templates want it; arrays by item are held whole."""

    def __init__(self, feed: "Feed", style: Style, dialect: str = "") -> None:
        """Read texts and SIDs. dialect: other than the style's. Raises DataError for SIDs that it lacks."""
        self.feed, self.style = feed, style
        self.dialect = DIALECTS[dialect or style.dialect]
        self.dialect.check(feed.vocabulary)

    @cached_property
    def sids(self) -> list[str]:
        """Give every item's SID as it stands in prompts."""
        vocabulary = self.feed.vocabulary
        return [self.dialect.text(row[row >= 0].tolist(), vocabulary) for row in self.feed.sids]

    @cached_property
    def titles(self) -> list[str]:
        """Give every item's title, stripped as the trainer does; empty where there is none."""
        return [one.strip().strip(self.style.strip or None) for one in self.feed.item_texts("title")]

    @cached_property
    def descriptions(self) -> list[str]:
        """Give every item's description, empty where there is none."""
        return self.feed.item_texts("description")

    @cached_property
    def categories(self) -> list[list[str]]:
        """Give every item's categories, broad to narrow."""
        return self.feed.category_paths

    @cached_property
    def docids(self) -> list[str]:
        """Give every item's docid; empty where the release has none."""
        if not self.feed.release.record["rows"].get("docids"):
            return [""] * self.feed.n_items
        return [" ".join(row["docid"].split()) for row in self.feed.rows("docids", ["docid"])]

    def of_item(self, item: int) -> dict[str, str]:
        """Give the fields of a target."""
        title = self.titles[item]
        return {
            "item": self.sids[item],
            "items": self.sids[item],
            "title": title,
            "description": self.descriptions[item],
            "categories": ", ".join(self.categories[item]),
            "docid": self.docids[item],
        }

    def of_history(self, history: Sequence[int], wanted: Set[str]) -> dict[str, str]:
        """Give those fields of a history, oldest first, that are wanted; titles where every item has one."""
        fields = {}
        if "inters" in wanted:
            fields["inters"] = self.style.separator.join([self.sids[item] for item in history])
        if "inter_titles" in wanted and all(titles := [self.titles[item] for item in history]):
            fields["inter_titles"] = self.style.title_separator.join([f'"{one}"' for one in titles])
        if "preference" in wanted:
            fields["preference"] = ", ".join(self._kinds(history))
        return fields

    def _kinds(self, history: Sequence[int]) -> list[str]:
        """Give the commonest categories of a history, ties in the order of their first item."""
        counted = Counter(kind for item in history for kind in self.categories[item])
        return [kind for kind, _ in counted.most_common(KINDS)]


class Examples:
    """The examples of some tasks, split by split.

    `skipped` counts rows that no template could be filled for.
    """

    def __init__(
        self,
        feed: "Feed",
        style: Style,
        tasks: Sequence[str],
        *,
        stage: Stage = "sft",
        dialect: str = "",
        max_history: int = 0,
        seed: int = 0,
        category: str = "",
    ) -> None:
        """Read nothing yet.

        max_history: items, 0 for the style's own. category: what the catalogue is called.
        """
        self.feed, self.style, self.stage, self.seed = feed, style, stage, seed
        self.tasks = [TASKS[name] for name in tasks]
        self.texts = Texts(feed, style, dialect)
        self.max_history = max_history or style.max_history
        self.category = category or feed.dataset
        self.skipped: Counter[tuple[str, str]] = Counter()
        self.wanted = {field for name in tasks for one in style.templates[name] for field in one.needs}

    def split(self, split: str) -> Iterator[Example]:
        """Yield a split's examples, sample after sample; in train, items' examples come after those."""
        self.skipped = Counter({key: n for key, n in self.skipped.items() if key[1] != split})
        yield from self._of_samples(split)
        if split == "train":
            for task in self.tasks:
                if task.of == ITEMS:
                    yield from self._of_items(task)

    def _of_items(self, task: Task) -> Iterator[Example]:
        known = self.style.candidates(task.name, "train", self.stage)
        for item in range(self.feed.n_items):
            fields = self.texts.of_item(item) | {"category": self.category}
            if chosen := self._choose(known, task.name, "train", item, fields):
                yield self._filled(*chosen, fields, task=task.name, split="train", item=item, row=item)

    def _of_samples(self, split: str) -> Iterator[Example]:
        tasks = [one for one in self.tasks if one.of != ITEMS]
        if not tasks:
            return
        known = {task.name: self.style.candidates(task.name, split, self.stage) for task in tasks}
        events = TargetEvents(self.feed)
        for batch in self.feed.samples(split, max_history=self.max_history):
            told = events.of(batch)
            for place in range(len(batch)):
                yield from self._of_sample(split, batch, told, place, tasks, known)

    def _of_sample(
        self,
        split: str,
        batch: "SampleBatch",
        told: Targets,
        place: int,
        tasks: Sequence[Task],
        known: Mapping[str, list[tuple[str, Template]]],
    ) -> Iterator[Example]:
        row, item = int(batch.row[place]), int(batch.target[place])
        history = batch.history[batch.offsets[place] : batch.offsets[place + 1]].tolist()
        first = int(batch.target_offsets[place])
        last = min(int(batch.target_offsets[place + 1]), first + self.style.max_targets)
        targets = batch.targets[first:last].tolist()
        if self.stage == "rl" and len(history) < self.style.rl_min_history:
            for task in tasks:
                self.skipped[task.name, split] += 1
            return
        fields = self.texts.of_item(item) | self.texts.of_history(history, self.wanted)
        fields["items"] = self.style.separator.join([self.texts.sids[one] for one in targets])
        fields |= {"query": " ".join(told.query[place].split()), "category": self.category}
        for task in tasks:
            if chosen := self._choose(known[task.name], task.name, split, row, fields):
                yield self._filled(
                    *chosen, fields, task=task.name, split=split, item=item, row=row,
                    sample=(int(batch.user[place]), int(batch.start[place]), int(batch.end[place])),
                    history=tuple(history), targets=tuple(targets),
                    told=(int(told.split[place]), int(told.held_before[place])),
                )  # fmt: skip

    def _choose(
        self,
        known: Sequence[tuple[str, Template]],
        task: str,
        split: str,
        row: int,
        fields: Mapping[str, str],
    ) -> tuple[str, Template] | None:
        """Give one of the templates that can be filled, or count the row."""
        fit = [one for one in known if all(fields.get(name) for name in one[1].needs)]
        if not fit:
            self.skipped[task, split] += 1
            return None
        return fit[draw(self.seed, task, split, row) % len(fit)]

    def _filled(
        self,
        name: str,
        template: Template,
        fields: Mapping[str, str],
        *,
        task: str,
        split: str,
        item: int,
        row: int,
        sample: tuple[int, int, int] | None = None,
        history: tuple[int, ...] = (),
        targets: tuple[int, ...] = (),
        told: tuple[int, int] = (0, 0),
    ) -> Example:
        user, start, end = sample or (None, None, None)
        system = self.style.system_of(template, self.stage).format_map(fields)
        instruction = template.instruction.format_map(fields)
        given = template.input.format_map(fields)
        return Example(
            f"{task}-{split}-{row}", task, name, split, user, item, row if sample else None, start, end,
            system, instruction, given, template.output.format_map(fields) + self.style.end,
            self.style.frame(self.stage).format(system=system, instruction=instruction, input=given),
            {key: fields[key] for key in template.asks},
            history, targets or (item,), *told,
        )  # fmt: skip


def draw(seed: int, task: str, split: str, row: int) -> int:
    """Give a number that depends on these alone, the same on every machine.

    >>> draw(0, "seqrec", "train", 7) == draw(0, "seqrec", "train", 7)
    True
    """
    key = f"{seed}|{task}|{split}|{row}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")
