"""All generated pages, and where the written ones stand: what mkdocs and the tests of guides read."""

import re
from collections.abc import Iterator
from functools import cache

from handbook import commands, formats, policies, python, recipe, sources, tables, tokenizers
from handbook.places import DOCS, ROOT

FAMILIES = {"sources": sources, "schemes": tokenizers, "policies": policies, "formats": formats}
COPIED = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}


@cache
def generated() -> dict[str, str]:
    """Give the Markdown of every page that is made from code, by its path in the documentation."""
    made = {
        "reference/recipe.md": recipe.page(),
        "reference/commands.md": commands.page(),
        "reference/tables.md": tables.page(),
        "reference/python.md": python.page(),
    }
    for family in FAMILIES.values():
        made |= dict(family.pages())
    return made


def copied() -> dict[str, str]:
    """Give the pages that stand at the root of the repository, their links made to work from docs/."""
    made = {}
    for path, name in COPIED.items():
        text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        made[path] = re.sub(
            r"\]\((CONTRIBUTING|CHANGELOG)\.md", lambda found: f"]({found[1].lower()}.md", text
        )
    return made


def family(name: str) -> list[str]:
    """Give the paths of a family's pages in the order of the menu, its index first."""
    return [path for path in generated() if path.startswith(f"{name}/")]


def written() -> Iterator[str]:
    """Give the paths of the pages that people wrote."""
    for path in sorted(DOCS.rglob("*.md")):
        if not path.is_relative_to(DOCS / "handbook"):
            yield path.relative_to(DOCS).as_posix()


def without_outside(text: str, page: str) -> str:
    """Take links away that leave the documentation, such as to a test: the site has no such page.

    >>> without_outside("See [the test](../tests/test_x.py) and [data](data.md).", "a.md")
    'See the test and [data](data.md).'
    """
    up = "../" * (page.count("/") + 1)
    return re.sub(rf"\[([^\]]+)\]\({re.escape(up)}(?!\.\./)[^)]*\)", r"\1", text)
