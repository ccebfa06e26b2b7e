"""The few pieces of HTML that reports are made of. Whatever comes from data is escaped here."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

CLIP = 90  # letters of a title that are shown
KEY = 30  # letters that are not worth a second line


class Markup(str):
    """HTML that is escaped already."""


class Right(str):
    """Text that stands to the right, as numbers do."""


def code(text: str) -> Markup:
    """Give a text in the font of code; a short one stays on its line."""
    kind = " class=key" if len(text) <= KEY else ""
    return Markup(f"<code{kind}>{escape(text)}</code>")


def bar(share: float) -> Markup:
    """Give a share as a number and a bar."""
    width = f"{100 * min(max(share, 0.0), 1.0):.1f}"
    return Markup(f'{share:.3f}<div class="bar"><span style="width:{width}%"></span></div>')


def percent(share: float | None) -> str:
    """Give a share as people read it."""
    return "none" if share is None else f"{share:.1%}"


def sentence(text: str) -> str:
    """Give words as a sentence: a capital, a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def clipped(text: str) -> str:
    """Give a title as long as fits a line."""
    return text if len(text) <= CLIP else f"{text[: CLIP - 1]}\u2026"


def paragraph(text: str, kind: str = "") -> str:
    """Give a paragraph of plain text. kind: its class."""
    named = f' class="{kind}"' if kind else ""
    return f"<p{named}>{escape(text)}</p>"


def section(name: str, title: str, says: str, parts: Iterable[str], *, good: str = "") -> str:
    """Give a section of the page: headline, what it shows in a sentence, what good looks like, the rest."""
    page = [f'<section id="{name}"><h2>{escape(title)}</h2>', paragraph(says, "lead")]
    if good:
        page.append(f'<p class="good"><b>Good:</b> {escape(good)}</p>')
    return "\n".join([*page, *parts, "</section>"])


def details(summary: str, parts: Iterable[str], *, opened: bool = False) -> str:
    """Give what opens on a click, or by the keyboard."""
    return "\n".join(
        [f"<details{' open' * opened}><summary>{escape(summary)}</summary>", *parts, "</details>"]
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, label: str = "") -> str:
    """Give a table; numbers stand to the right, cells that are no Markup are escaped.

    label: what a screen reader calls it, by default its columns. It scrolls in its own box where it is wide.
    """
    rows = list(rows)
    right = [any(_stands_right(row[place]) for row in rows) for place in range(len(columns))]
    head = "".join(
        f"<th scope=col{' class=number' * numeric}>{escape(column)}</th>"
        for column, numeric in zip(columns, right, strict=True)
    )
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    named = escape(label or ", ".join(filter(None, columns)))
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{named}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _stands_right(value: Any) -> bool:
    return isinstance(value, int | float | Right)


def _cell(value: Any) -> str:
    if isinstance(value, Markup):
        return f"<td>{value}</td>"
    if _stands_right(value):
        shown = value if isinstance(value, Right) else _number(value)
        return f'<td class="number">{escape(shown)}</td>'
    return f"<td>{escape('' if value is None else str(value))}</td>"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
