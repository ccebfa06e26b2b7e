"""HyPE's targets: the path to an item written before its docid, and read back.

Unlike the ID of category_path.py, an item may have several paths; the docid alone says which item it is.
"""

import re
from collections.abc import Sequence

from sid_schemas import DataError

PATH, BELOW, DOC = "[PATH] ", " > ", " [DOC] "


def path_text(path: Sequence[str], docid: str) -> str:
    r"""Write a path and a docid as one text; `>`, `[` and backslashes in names have a backslash before them.

    >>> path_text(["Games", "Cards"], "<Games><Cards><1>")
    '[PATH] Games > Cards [DOC] <Games><Cards><1>'
    """
    names = (re.sub(r"([\\>\[])", r"\\\1", name) for name in path)
    return f"{PATH}{BELOW.join(names)}{DOC}{docid}"


def parse(text: str) -> tuple[list[str], str]:
    """Give back the path and the docid; raises DataError where the text is no such target.

    >>> parse("[PATH] Games > Cards [DOC] <Games><Cards><1>")
    (['Games', 'Cards'], '<Games><Cards><1>')
    """
    path, found, docid = text.removeprefix(PATH).partition(DOC)
    if not (found and text.startswith(PATH)):
        raise DataError(f"text: expected '[PATH] a > b [DOC] docid', got {text!r}")
    return [re.sub(r"\\(.)", r"\1", name, flags=re.DOTALL) for name in path.split(BELOW)], docid
