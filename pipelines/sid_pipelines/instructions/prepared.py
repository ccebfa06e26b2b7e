"""One set of examples as exports want it: tasks checked, leaks looked for before anything is written.

What every format with instruction data shares (sft.py, rl.py and gream.py in trainers/formats, and those that
add a chat folder): `Wanted` are the settings that they have in common, `Instructions` gives the examples
split by split.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sid_pipelines.instructions.audit import Audit
from sid_pipelines.instructions.examples import Example, Examples
from sid_pipelines.instructions.tasks import TASKS
from sid_pipelines.instructions.templates import Stage, Style, load, style_named
from sid_schemas import RecipeError
from sid_schemas.nearest import unknown
from sid_tokenizers.dialects import DIALECTS

if TYPE_CHECKING:
    from sid_pipelines.trainers.feed import Feed

Leakage = Literal["refuse", "drop", "report"]


class Instructions:
    """The examples of a release in one style, audited."""

    def __init__(
        self,
        feed: "Feed",
        style: str,
        *,
        templates: str = "",
        tasks: str = "",
        stage: Stage = "sft",
        dialect: str = "",
        max_history: int = 0,
        seed: int = 0,
        category: str = "",
        leakage: Leakage = "refuse",
        splits: Sequence[str] = ("train", "valid", "test"),
    ) -> None:
        """Check what is wanted; reads no example yet.

        style: one of templates.NAMES. templates: a file in their form that takes its place. tasks: with
        commas between, empty for the style's own. Raises RecipeError for what is unknown or has no
        template.
        """
        self.style = load(Path(templates)) if templates else style_named(style)
        if dialect and dialect not in DIALECTS:
            raise RecipeError(f"dialect: {unknown(dialect, list(DIALECTS))}")
        self.tasks = tasks_of(self.style, tasks, stage)
        self.leakage, self.splits = leakage, splits
        self.made = Examples(
            feed, self.style, self.tasks, stage=stage, dialect=dialect, max_history=max_history,
            seed=seed, category=category,
        )  # fmt: skip
        self.texts, self.max_history = self.made.texts, self.made.max_history
        self.audit = Audit(self.texts)

    @property
    def skipped(self) -> Counter[tuple[str, str]]:
        """Give how many rows no template could be filled for, by (task, split), of the splits read."""
        return self.made.skipped

    def refuse_leaks(self) -> None:
        """Read every example once where leaks are to be refused; raises RecipeError naming the worst."""
        if self.leakage != "refuse":
            return
        for split in self.splits:
            for _ in self.audit.screen(self.made.split(split)):
                pass
        broken = self.audit.breaches()
        if broken:
            worst = max(broken, key=lambda one: one["count"])
            names = ", ".join(self.audit.named[worst["rule"]][:2])
            others = f" and {len(broken) - 1} more findings" if len(broken) > 1 else ""
            raise RecipeError(
                f"{self.made.feed.ref}: {worst['rule']}: {worst['count']:,} of {worst['of']:,} "
                f"{worst['split']} {worst['says']}, as {names}{others}. Leave such examples out with "
                "--set leakage=drop, or keep them, counted, with --set leakage=report"
            )
        self.audit = Audit(self.texts)  # counts anew what is written

    def split(self, split: str) -> Iterator[Example]:
        """Yield a split's examples, without those that are to be left out."""
        yield from self.audit.screen(self.made.split(split), drop=self.leakage == "drop")

    def report(self) -> dict[str, Any]:
        """Give what `audit.json` holds, after the splits were read."""
        return {"leakage": self.leakage, **self.audit.report(self.skipped)}


def tasks_of(style: Style, tasks: str, stage: Stage) -> list[str]:
    """Give the names of the tasks that are wanted, or raise RecipeError."""
    names = [one.strip() for one in tasks.split(",") if one.strip()]
    names = names or list(style.rl_tasks if stage == "rl" else style.tasks)
    for name in names:
        if name not in TASKS:
            raise RecipeError(f"tasks: {unknown(name, list(TASKS))}")
        if not style.candidates(name, "train", stage):
            there = sorted({one for one in style.templates if style.candidates(one, "train", stage)})
            raise RecipeError(
                f"style {style.name}: has no template of task {name!r}; there are: {', '.join(there)}"
            )
    if len(names) != len(set(names)):
        raise RecipeError(f"tasks: {tasks!r} names a task twice")
    return names
