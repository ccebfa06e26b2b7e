"""Markdown of tables, values and docstrings."""

import inspect
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MARKS = (
    "Marks: **[C]** read in the authors' code, **[P]** the paper, **[S]** known from secondary text alone, "
    "**[M]** from memory, **[D]** ours where sources say nothing or where we do otherwise."
)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Give a table; cells are Markdown already.

    >>> print(table(["a", "b"], [["1", "x | y"]]))
    | a | b |
    |---|---|
    | 1 | x \\| y |
    """
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += [
        "| " + " | ".join(re.sub(r"(?<!\\)\|", r"\\|", " ".join(cell.split())) for cell in row) + " |"
        for row in rows
    ]
    return "\n".join(lines)


def code(value: Any) -> str:
    """Give code in a line, whatever it holds."""
    text = str(value)
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def plain(text: str) -> str:
    """Give text of a docstring as Markdown: what looks like a tag is none, nor are stars."""
    parts = re.split(r"(`[^`\n]+`)", text)
    return "".join(
        part
        if part.startswith("`") and len(part) > 1
        else re.sub(r"([*_\[\]])", r"\\\1", part.replace("<", "&lt;").replace(">", "&gt;"))
        for part in parts
    )


def prose(text: str) -> str:
    """Give a docstring as Markdown: its indented lines become blocks, its paragraphs one line each."""
    made: list[str] = []
    for kind, lines in _blocks(inspect.cleandoc(text).splitlines()):
        if kind == "block":
            made.append("```text\n" + inspect.cleandoc("\n".join(lines)) + "\n```")
        else:
            made.append(plain(" ".join(" ".join(lines).split())))
    return "\n\n".join(made)


def _blocks(lines: Sequence[str]) -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    last = ""
    for line in lines:
        kind = "blank" if not line.strip() else "block" if line.startswith(("  ", "\t")) else "words"
        if kind != "blank":
            if kind != last:
                found.append((kind, []))
            found[-1][1].append(line)
        last = kind
    return found


def toml(value: Any) -> str:
    """Give a value as a recipe writes it.

    >>> toml({"a": [1, True, "x"]}), toml(1e-05)
    ('{a = [1, true, "x"]}', '1e-05')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(name)} = {toml(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)


def _key(name: Any) -> str:
    return str(name) if re.fullmatch(r"[A-Za-z0-9_-]+", str(name)) else json.dumps(str(name))


def slug(name: str) -> str:
    """Give the file name of a page.

    >>> slug("rq-kmeans+fsq")
    'rq-kmeans-fsq'
    """
    return re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")
