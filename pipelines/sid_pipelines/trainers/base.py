"""What a trainer's format is: a name, who reads it, what may be chosen, one function that writes it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from sid_pipelines.trainers.feed import Feed
from sid_pipelines.trainers.writing.folder import Folder

# A part of file names that a user chooses, empty for the release's own; nothing that leaves the folder.
Name = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9_-]*)?$")]


class Settings(BaseModel):
    """What may be chosen of a format, `--set key=value`; each format adds keys of its own.

    Values come as text from the command line, so fields are numbers, booleans, text, or literals.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    def told(self) -> dict[str, Any]:
        """Give what the folder says of its settings; by it, too, the same export is known again."""
        return self.model_dump(mode="json")


@dataclass(frozen=True)
class Format:
    """One trainer format.

    name: as in `--format`. trainer: whose files they are, with the repository and the commit that was read.
    says: one line for the menu. papers: rows of docs/papers.md that it feeds. write: writes all files, and
    gives the body of the folder's README in Markdown: which file the trainer wants where, how it is started.
    protocols: the only split protocols whose releases it can hold, empty for all; a recipe with another one
    is refused before its chain runs.
    `write` raises RecipeError, before it writes anything, for a release that the format cannot hold.
    """

    name: str
    trainer: str
    says: str
    write: Callable[[Feed, Folder, Any], str]
    settings: type[Settings] = Settings
    papers: tuple[int, ...] = ()
    protocols: tuple[str, ...] = ()
