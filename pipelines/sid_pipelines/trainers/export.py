"""Writes the folder of a trainer's format: beside it first, with a README and all hashes, then renamed.

Unlike those of table formats (exports/tables.py) such a folder is one release's for good: trainers know no
versions, and a folder that changed below a running experiment would be worse than a second one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sid_pipelines.exports.tables import FINGERPRINT, MARK
from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import Feed
from sid_pipelines.trainers.writing.folder import Folder
from sid_schemas import RecipeError, WarehouseError
from sid_schemas.nearest import unknown
from sid_warehouse import files
from sid_warehouse.reader import Release

README = "README.md"


@dataclass(frozen=True)
class Written:
    """One file that is there now. written: false where it was there before."""

    file: str
    bytes: int
    written: bool


def export(release: Release, form: Format, to: Path, given: Mapping[str, Any]) -> list[Written]:
    """Write a release in a trainer's format into a new or empty folder; say what files there are.

    The same release with the same settings into the same folder changes nothing. Raises RecipeError where the
    folder holds anything else, where a setting is not one, or where the format cannot hold the release.
    """
    settings = settings_of(form, given)
    mark = {
        "format": form.name,
        "ref": release.ref,
        FINGERPRINT: release.record["fingerprint"],
        "settings": settings.told(),
    }
    if found := _there(to, mark):
        return found
    _check_intact(release)
    try:
        with files.writing(to.parent) as scratch:
            folder = Folder(scratch)
            body = form.write(Feed(release), folder, settings)
            (scratch / README).write_text(_readme(form, release, settings, folder, body), encoding="utf-8")
            made = files.inventory(scratch)
            files.write_json(scratch / MARK, mark | {"files": made})
            if to.is_dir():
                to.rmdir()  # empty: looked at above
            if not files.rename_folder(scratch, to):
                raise WarehouseError(f"{to}: somebody else wrote there meanwhile; nothing of ours was")
    except OSError as error:
        reason = error.strerror or str(error)
        raise WarehouseError(
            f"{to}: cannot be written ({reason}). Nothing was; mend that, or choose another folder with --to"
        ) from error
    return [Written(file, entry["bytes"], written=True) for file, entry in made.items()]


def settings_of(form: Format, given: Mapping[str, Any]) -> Settings:
    """Give the settings of a format, checked, or raise RecipeError naming the key that is none or unfit."""
    known = list(form.settings.model_fields)
    for key in given:
        if key not in known:
            raise RecipeError(f"format {form.name}: {unknown(key, known)}")
    try:
        return form.settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "settings"
        raise RecipeError(
            f"format {form.name}: {where} = {first['input']!r}: {first['msg'].removeprefix('Value error, ')}"
        ) from None


def _check_intact(release: Release) -> None:
    """Raise WarehouseError where a file of the release is not what was published."""
    for name, entry in release.record["files"].items():
        path = release.folder / name
        if not path.is_file() or files.sha256_once(path) != entry["sha256"]:
            raise WarehouseError(
                f"{path}: is not what was published. Run `sidmill verify {release.ref}`; nothing was exported"
            )


def _there(to: Path, mark: Mapping[str, Any]) -> list[Written]:
    """Give the files of this very export where the folder has it already, none where it is new or empty."""
    if to.exists() and not to.is_dir():
        raise RecipeError(f"{to}: is no folder; expected a new or empty one")
    found = sorted(path.name for path in to.glob("*"))
    if not found:
        return []
    if MARK not in found:
        raise RecipeError(f"{to}: holds {found[0]!r}; expected a new or empty folder")
    theirs = files.read_json(to / MARK)
    made = theirs.pop("files", {})
    if theirs != mark:
        raise RecipeError(
            f"{to}: is an export of {theirs.get('ref')} as {theirs.get('format')}, of other content or "
            "settings; a trainer's folder stays what it is. Choose another one with --to"
        )
    for name, entry in made.items():
        if not (to / name).is_file() or files.sha256(to / name) != entry["sha256"]:
            raise WarehouseError(f"{to / name}: is not what was exported. Remove the folder and export again")
    return [Written(file, entry["bytes"], written=False) for file, entry in made.items()]


def _readme(form: Format, release: Release, settings: Settings, folder: Folder, body: str) -> str:
    chosen = ", ".join(f"`{key} = {value}`" for key, value in settings.told().items())
    escaped = ((name, says.replace("|", "\\|")) for name, says in folder.says.items())
    rows = [f"| `{name}` | {says} |" for name, says in escaped]
    return "\n".join(
        [
            *([f"---\n{folder.card.strip()}\n---", ""] if folder.card else []),
            f"# {release.ref} for {form.trainer}",
            "",
            f"Written by `sidmill export {release.ref} --format {form.name}`, from the release with "
            f"fingerprint {release.record['fingerprint']}. Settings: {chosen or 'none'}.",
            "",
            body.strip(),
            "",
            "| file | what it is |",
            "|---|---|",
            *rows,
            "",
            "`sidmill-export.json` has the SHA-256 of every file.",
            "",
        ]
    )
