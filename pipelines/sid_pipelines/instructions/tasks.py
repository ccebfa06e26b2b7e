"""The tasks of instruction data, under LC-Rec's names: what a task is made of, and what its prompt may show.

A task says which rows give examples; how they are worded is a template's matter (templates.py), and what a
prompt must not give away is the audit's (audit.py), which reads `shows` and `guesses` here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Source = Literal["samples", "items"]
SAMPLES: Source = "samples"
ITEMS: Source = "items"


@dataclass(frozen=True)
class Task:
    """One kind of example.

    of: whether each sample of a split gives one, or each item; items' examples all train. guesses: whether
    the target item, or its text, is what the answer has to find. shows: what of the target stands in the
    prompt by design: its title, its SID. says: one line for the menu.
    """

    name: str
    says: str
    of: Source
    guesses: bool = True
    shows: frozenset[str] = frozenset()


TITLE, SID = "title", "sid"

TASKS: Mapping[str, Task] = {
    one.name: one
    for one in (
        Task("seqrec", "history of SIDs -> SID of the target", SAMPLES),
        Task("fusionseqrec", "history of SIDs -> title or description of the target", SAMPLES),
        Task("titleseqrec", "history of titles -> SID of the target", SAMPLES),
        Task("itemsearch", "history and what is searched for -> SID of the target", SAMPLES),
        Task("query2index", "query -> SID of the target", SAMPLES),
        Task("query2docid", "query -> docid of the target", SAMPLES),
        Task("preferenceobtain", "history of SIDs -> the kinds a user prefers", SAMPLES, guesses=False),
        Task("historyreconstruction", "history -> the same, as SIDs or titles", SAMPLES, guesses=False),
        Task("item2index", "title or description -> SID", ITEMS, shows=frozenset({TITLE})),
        Task("description2index", "description -> SID", ITEMS, shows=frozenset({TITLE})),
        Task("item2docid", "title or description -> docid", ITEMS, shows=frozenset({TITLE})),
        Task("index2item", "SID -> title or description", ITEMS, shows=frozenset({SID})),
    )
}
