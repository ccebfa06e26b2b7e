"""Where the written guides and examples are, and rows of their tables that generated pages quote."""

import re
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
EXAMPLES = ROOT / "examples" / "schemes"
READMES = DOCS / "handbook" / "readmes"


def rows_of(page: str, begins: str, *, after: str = "") -> list[str]:
    """Give the lines of a guide's tables that begin so, from a heading on."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return [line for line in text[text.index(after) :].splitlines() if line.startswith(begins)]


def cells(row: str) -> list[str]:
    """Give the cells of a row of a table."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def schemes_table(presets: Sequence[str]) -> str:
    """Give what was measured of presets: the rows of docs/papers.md, with their head."""
    lines = (
        (DOCS / "papers.md").read_text(encoding="utf-8").partition("## Presets side by side")[2].splitlines()
    )
    head = [line for line in lines if line.startswith("|")][:2]
    names = {name.removesuffix(".toml") for name in presets}
    rows = [line for line in lines if line.startswith("|") and cells(line)[0] in names]
    return "\n".join([*head, *rows]) if rows else ""


def papers_table(presets: Sequence[str]) -> list[str]:
    """Give number and name of the papers whose rows name one of these presets."""
    found = []
    for row in rows_of("papers.md", "| "):
        parts = cells(row)
        if parts[0].isdigit() and any(f"`{name}`" in row for name in presets):
            found.append(f"{parts[0]} ({parts[1]})")
    return found
