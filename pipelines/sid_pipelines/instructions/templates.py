"""Templates: how trainers word their tasks, as TOML beside this file, one file for each trainer.

A style is one trainer's file: its prompt's frame, its dialect, its separators, and for each task one
template or more. Where the wording is the trainer's interface the file says so and names the lines;
elsewhere the words are ours. `load` reads anybody's file in the same form. A template holds names in
braces, and nothing else is done with it: no attribute, index or format can be asked for.
"""

import string
import tomllib
from collections.abc import Mapping
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sid_pipelines.instructions.tasks import TASKS
from sid_schemas import RecipeError
from sid_schemas.nearest import unknown
from sid_tokenizers.dialects import DIALECTS

FIELDS: Mapping[str, str] = {
    "item": "SID of the target",
    "items": "SIDs of all targets of a session, one after the other",
    "title": "title of the target",
    "description": "description of the target",
    "categories": "categories of the target, broad to narrow",
    "docid": "docid of the target",
    "inters": "SIDs of the history, oldest first",
    "inter_titles": "titles of the history, in quotes",
    "preference": "the commonest categories of the history",
    "query": "what the user had searched for at the target",
    "category": "what the catalogue is called",
}
NAMES = ("gream", "lc-rec", "minionerec", "openonerec")
Stage = Literal["sft", "rl"]


class Model(BaseModel):
    """A part of a template file: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Template(Model):
    """One wording of a task.

    system, instruction, input: what is asked; output: what is to be answered. splits: whose examples take it.
    stage: empty for both. source: the trainer's lines, where the words are its interface.
    """

    instruction: str = ""
    input: str = ""
    output: str
    system: str = ""
    splits: tuple[Literal["train", "valid", "test"], ...] = ("train", "valid", "test")
    stage: Literal["sft", "rl", ""] = ""
    source: str = ""

    @model_validator(mode="after")
    def _names(self) -> "Template":
        for text in (self.instruction, self.input, self.output, self.system):
            names_of(text, FIELDS)
        return self

    @cached_property
    def asks(self) -> frozenset[str]:
        """Give the fields that stand in the prompt."""
        return names_of(self.system + self.instruction + self.input, FIELDS)

    @cached_property
    def needs(self) -> frozenset[str]:
        """Give the fields without which it cannot be filled."""
        return self.asks | names_of(self.output, FIELDS)


class Style(Model):
    """One trainer's wording.

    prompt: the frame that makes one text of `{system}`, `{instruction}` and `{input}`; rl_prompt: the same
    for reinforcement learning, where that differs. system, rl_system: of chat messages. separator: between
    SIDs of a history, title_separator between its titles. strip: characters that titles lose at both ends.
    end: follows every answer. max_history, max_targets: items. rl: the columns that its RL trainer reads
    (trainers/formats/rl.py). rl_min_history: shorter ones give no RL prompt.
    """

    name: str
    trainer: str
    dialect: str
    prompt: str = "{instruction}"
    rl_prompt: str = ""
    system: str = ""
    rl_system: str = ""
    separator: str = ", "
    title_separator: str = ", "
    strip: str = ""
    end: str = ""
    max_history: int = Field(20, ge=1)
    max_targets: int = Field(1, ge=1)
    tasks: tuple[str, ...]
    rl_tasks: tuple[str, ...] = ("seqrec",)
    rl: Literal["text", "verl", "messages"] = "verl"
    rl_min_history: int = Field(1, ge=1)
    templates: Mapping[str, tuple[Template, ...]]

    @model_validator(mode="after")
    def _known(self) -> "Style":
        for text in (self.prompt, self.rl_prompt):
            names_of(text, ("system", "instruction", "input"))
        if self.dialect not in DIALECTS:
            raise ValueError(unknown(self.dialect, list(DIALECTS)))
        for task in (*self.templates, *self.tasks, *self.rl_tasks):
            if task not in TASKS:
                raise ValueError(unknown(task, list(TASKS)))
        return self

    def candidates(self, task: str, split: str, stage: Stage) -> list[tuple[str, Template]]:
        """Give the templates that examples of a split may take, each with the name that examples carry."""
        return [
            (f"{self.name}/{task}/{number}", one)
            for number, one in enumerate(self.templates.get(task, ()))
            if split in one.splits and one.stage in ("", stage)
        ]

    def frame(self, stage: Stage) -> str:
        """Give the frame of prompts."""
        return self.rl_prompt if stage == "rl" and self.rl_prompt else self.prompt

    def system_of(self, template: Template, stage: Stage) -> str:
        """Give the system text of a template, empty where there is none."""
        return template.system or (self.rl_system if stage == "rl" and self.rl_system else self.system)


def style_named(name: str) -> Style:
    """Give one of our styles; raises RecipeError for a name that is none."""
    if name not in NAMES:
        raise RecipeError(f"style: {unknown(name, list(NAMES))}")
    file = resources.files(__package__).joinpath("templates", f"{name}.toml")
    return _style(name, file.read_text(encoding="utf-8"), f"templates/{name}.toml")


def load(path: Path) -> Style:
    """Read a style from anybody's file in the form of ours; raises RecipeError saying what it lacks."""
    try:
        return _style(path.stem, path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise RecipeError(f"templates: {path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"templates: {path}: byte {error.start} is no UTF-8; expected TOML") from None


def _style(name: str, text: str, where: str) -> Style:
    try:
        written: dict[str, Any] = tomllib.loads(text)
        templates = {key: written.pop(key) for key in list(written) if _are_templates(written[key])}
        return Style(name=name, templates=templates, **written)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise RecipeError(f"{where}: {place}: {first['msg'].removeprefix('Value error, ')}") from None
    except (tomllib.TOMLDecodeError, TypeError) as error:
        raise RecipeError(f"{where}: {error}; expected TOML in the form of ours") from None


def _are_templates(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def names_of(text: str, known: Mapping[str, str] | tuple[str, ...]) -> frozenset[str]:
    """Give the names in braces of a template text; raises ValueError for any that is not known.

    >>> sorted(names_of("{inters}: which {item}?", FIELDS))
    ['inters', 'item']
    """
    names = set()
    for _, name, form, conversion in string.Formatter().parse(text):
        if name is None:
            continue
        if name not in known or form or conversion:
            raise ValueError(f"{text!r}: {unknown(name, list(known))}")
        names.add(name)
    return frozenset(names)
