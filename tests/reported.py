"""Reading a report's page as a reader would: its figures as JSON, its text, its tags."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

FIGURE = re.compile(r'<script type="application/json" data-plot="plot-([\w-]+)">(.*?)</script>', re.DOTALL)


def figures_of(page: str) -> dict[str, dict[str, Any]]:
    """Give what each figure of a page draws, by its name."""
    return {name: json.loads(text) for name, text in FIGURE.findall(page)}


class Read(HTMLParser):
    """A page without its scripts: what is written, by which tags, with which attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags, self.attributes = "", [], set()
        self.rows: list[list[str]] = []
        self.scripts: list[dict[str, str | None]] = []
        self._silent = self._cell = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self._silent = tag in ("script", "style")
        if tag == "script":
            self.scripts.append(dict(attrs))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        self._silent = self._silent and tag not in ("script", "style")
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.text += data
            if self._cell:
                self.rows[-1][-1] += data

    def row(self, first: str) -> list[str]:
        """Give the first row whose first cell is this."""
        return next(row for row in self.rows if row and row[0] == first)


def page_of(folder: Path) -> str:
    """Give a release's own page."""
    return (folder / "report.html").read_text(encoding="utf-8")
