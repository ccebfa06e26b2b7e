"""What to say of a name that is none: the nearest one that is."""

import difflib
from collections.abc import Sequence


def unknown(key: str, known: Sequence[str]) -> str:
    """Give the message for a key that is none.

    >>> unknown("sede", ["seed", "name"])
    "unknown key 'sede'; the nearest known one is 'seed'"
    """
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    return f"unknown key {key!r}; " + (f"the nearest known one is {near[0]!r}" if near else "there are none")
