"""What a class says of its keys: in `key: meaning` of its docstring, in Field descriptions, and in comments.

Our docstrings explain keys in running text, as "name: of the data set in file names. embedding: whose vectors
go along." A key's meaning ends where the next known key begins; that of a paragraph's last key ends with its
sentence, for what follows is of the class. "As for PQ" is no meaning: what the parent says is taken.
"""

import inspect
import re
import textwrap
import tokenize
from collections.abc import Iterable, Mapping
from io import StringIO
from typing import Any

VALUE = re.compile(r'\. "?[a-z0-9-]+"?: ')  # where the meaning of a key's next value begins
SENTENCE = re.compile(r"(?<!e\.g)(?<!i\.e)\. +(?=[A-Z])")
ELSEWHERE = re.compile(r"as (?:for|in) `?\w+`?(?:, whose .*)?", re.DOTALL)


def meanings(owner: type, keys: Iterable[str]) -> dict[str, str]:
    """Give what a class says of its keys, by key; a key of which nothing is said is missing.

    What the class says itself comes before what its parents say.

    >>> class Box:
    ...     '''A box. width, height: in metres. colour (red, blue): as the
    ...     paint has it.'''
    >>> meanings(Box, ["width", "height", "colour", "weight"])
    {'width': 'in metres', 'height': 'in metres', 'colour': '(red, blue) as the paint has it'}
    """
    wanted = list(keys)
    found: dict[str, str] = {}
    for base in owner.__mro__:
        if base is object or base.__module__.partition(".")[0] in ("pydantic", "abc", "typing"):
            continue
        own = [
            *wanted,
            *inspect.get_annotations(base),
            *made_by(base),
        ]  # a meaning ends at any of them
        told = (described(base), in_docstring(base.__dict__.get("__doc__") or "", own), commented(base))
        for source in told:
            for name, text in source.items():
                if name in wanted and text and not ELSEWHERE.fullmatch(text):
                    found.setdefault(name, text)
    return {name: found[name] for name in wanted if name in found}


def described(owner: type) -> dict[str, str]:
    """Give the descriptions of a pydantic model's own fields."""
    fields: Mapping[str, Any] = owner.__dict__.get("__pydantic_fields__", {})
    return {name: one.description for name, one in fields.items() if one.description}


def in_docstring(text: str, keys: Iterable[str]) -> dict[str, str]:
    """Give what stands behind `key:` or `one, other:` in a docstring."""
    names = "|".join(sorted(map(re.escape, keys), key=len, reverse=True))
    if not names or not text:
        return {}
    key, between = rf"`?\b(?:{names})\b`?(?: \([^)]*\))?", r"(?:,| and|, and)"
    head_of = re.compile(rf"(?:(?<=[.,;:)\]] )|^)({key}(?:{between} {key})*): ")
    found: dict[str, str] = {}
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        line = " ".join(paragraph.split())
        heads = list(head_of.finditer(line))
        for head, after in zip(heads, [*heads[1:], None], strict=False):
            meaning = line[head.end() : after.start() if after else len(line)].strip()
            if after is None or after[0].strip("`: ").endswith("_"):
                meaning = sentence(meaning)
            meaning = meaning.rstrip(";.")
            beside = re.match(r"`?\w+`? (\([^)]*\))$", head[1])  # of one key, as (AdamW)
            for name in re.findall(rf"\b(?:{names})\b", re.sub(r" \([^)]*\)", "", head[1])):
                found.setdefault(name, f"{beside[1]} {meaning}" if beside else meaning)
    return found


def sentence(text: str) -> str:
    """Give the first sentence; where values are told one by one, up to that of the last value.

    >>> sentence("how, e.g. By hand. More"), sentence('"a": one. Holds it. "b": two. Else. So')
    ('how, e.g. By hand', '"a": one. Holds it. "b": two')
    """
    begun = max((found.end() for found in VALUE.finditer(text)), default=0)
    end = SENTENCE.search(text, begun)
    return text[: end.start()] if end else text


def commented(owner: type) -> dict[str, str]:
    """Give the comments at the end of the lines that declare a class's own fields."""
    try:
        source = inspect.getsource(owner)
        tokens = list(tokenize.generate_tokens(StringIO(textwrap.dedent(source)).readline))
    except (OSError, TypeError, tokenize.TokenError, IndentationError):
        return {}
    found: dict[str, str] = {}
    for one in tokens:
        declared = (
            re.match(r"\s+(\w+)\s*:[^=#]+(=|#|,|$)", one.line) if one.type == tokenize.COMMENT else None
        )
        text = one.string.lstrip("# ").rstrip(".")
        if declared and not text.startswith(("noqa", "type:")):
            found.setdefault(declared[1], text)
    return found


def made_by(owner: type) -> list[str]:
    """Give the names of a class's own constructor's parameters."""
    constructor = owner.__dict__.get("__init__")
    return list(inspect.signature(constructor).parameters)[1:] if inspect.isfunction(constructor) else []


def parameters_of(owner: type) -> dict[str, inspect.Parameter]:
    """Give the parameters of a class's constructor, by name."""
    return {
        name: one for name, one in inspect.signature(owner).parameters.items() if not name.startswith("_")
    }
