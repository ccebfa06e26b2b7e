"""The raw dump that a recipe names: its files, found and hashed before anything is read."""

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sid_flows.recipe import Recipe
from sid_pipelines.sources import Candidate, RawFile, candidates
from sid_schemas import SourceError
from sid_warehouse import files


@dataclass(frozen=True)
class Dump:
    """A dump as it lies on disk.

    base: the recipe's folder, which paths are relative to. files, hashes: the files, and what lineage keeps
    of each. cache: what runs share.
    """

    base: Path
    files: list[RawFile]
    hashes: list[dict[str, Any]]
    cache: Path

    @classmethod
    def of(cls, recipe: Recipe, base: Path, warehouse: Path) -> "Dump":
        """Find and hash the files; raises SourceError naming what is missing or in the way."""
        found = _raw_files(recipe, base)
        return cls(base, found, [_hashed(file) for file in found], warehouse / "cache")

    def image_roots(self, named: str | None) -> list[Path]:
        """Give the folders that `image_ref` is relative to: the one named, or those of the dump's files."""
        if named is None:
            return sorted({file.path.parent for file in self.files})
        root = (self.base / Path(named).expanduser()).resolve()
        if not root.is_dir():
            raise SourceError(
                f"[[embed]] images = {named!r}: no folder there. Paths are relative to the recipe"
            )
        return [root]

    def enriched(self, named: str) -> Path:
        """Give the file with the enriched texts of items."""
        path = (self.base / Path(named).expanduser()).resolve()
        if not path.is_file():
            raise SourceError(
                f"[[embed]] enriched = {named!r}: no file there. Paths are relative to the recipe"
            )
        return path


def _hashed(file: RawFile) -> dict[str, Any]:
    try:
        size, sha256 = file.path.stat().st_size, files.sha256_once(file.path)
    except OSError as error:
        raise SourceError(f"{file.path}: cannot be read ({error.strerror}). Check [source] path") from error
    return {
        "label": file.label,
        "role": file.role,
        "layout": file.layout,
        "part": file.part,
        "member": file.member,
        "sha256": sha256,
        "bytes": size,
    }


def _raw_files(recipe: Recipe, base: Path) -> list[RawFile]:
    """Give the dump's files: those that `path` and `items` name, as far as the source knows them."""
    source, files = recipe.source.made, _named("path", recipe.source.path, base)
    items = _named("items", recipe.source.items, base) if recipe.source.items else []
    found = source.find([one for group in files for one in group], [one for group in items for one in group])
    known = {file.path for file in found}
    for group in (*files, *items):
        if len(group) == 1 and group[0].path not in known:
            expected = ", ".join(layout.called for layout in source.layouts)
            raise SourceError(
                f"{group[0].path}: is no file of a {source.kind} dump that is read here; expected {expected} "
                "(plain, .gz or in a .zip)"
            )
    labels = [file.label for file in found]
    for label in labels:
        if labels.count(label) > 1:
            raise SourceError(f"[source] path: two files are called {label!r}; rename a folder")
    return found


def _named(key: str, given: str | list[str], base: Path) -> list[list[Candidate]]:
    """Give the files behind each path or glob of a key, group by group."""
    groups = []
    for pattern in [given] if isinstance(given, str) else given:
        literal = base / Path(pattern).expanduser()
        matches = glob.glob(str(Path(pattern).expanduser()), root_dir=base)  # noqa: PTH207 (knows root_dir)
        paths = [literal] if literal.exists() else sorted(base / match for match in matches)
        if not paths:
            raise SourceError(
                f"[source] {key} = {pattern!r}: expected a file, or a folder with the dump, found none at "
                f"{literal}. Paths are relative to the recipe"
            )
        for path in paths:
            try:
                groups.append(candidates(path.resolve()))
            except OSError as error:
                raise SourceError(
                    f"{path}: cannot be read ({error.strerror}). Check [source] {key}"
                ) from error
    return groups
