"""The few pieces of HTML that reports are made of. Whatever comes from data is escaped here."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


class Markup(str):
    """HTML that is escaped already."""


def code(text: str) -> Markup:
    """Give a text in the font of code."""
    return Markup(f"<code>{escape(text)}</code>")


def bar(share: float) -> Markup:
    """Give a share as a number and a bar."""
    width = f"{100 * min(max(share, 0.0), 1.0):.1f}"
    return Markup(f'{share:.3f}<div class="bar"><span style="width:{width}%"></span></div>')


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Give a table; numbers stand to the right, cells that are no Markup are escaped."""
    rows = list(rows)
    right = [bool(rows) and _is_number(rows[0][place]) for place in range(len(columns))]
    head = "".join(
        f"<th{' class=number' * numeric}>{escape(column)}</th>"
        for column, numeric in zip(columns, right, strict=True)
    )
    body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _cell(value: Any) -> str:
    if isinstance(value, Markup):
        return f"<td>{value}</td>"
    if _is_number(value):
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
        return f'<td class="number">{shown}</td>'
    return f"<td>{escape('' if value is None else str(value))}</td>"
