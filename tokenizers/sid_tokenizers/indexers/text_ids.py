"""Words as IDs: an item's docid is its title or a plain form of its text, and its SID the number of it.

Unlike numbered.py's schemes what a language model reads and writes is text; the number only joins tables.
Docids are made unique in the order of the numbers, so that items that come later never change an earlier
docid. For that `docids` must be given the whole catalogue, not the new items alone.
"""

import unicodedata
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

from sid_schemas import DataError
from sid_tokenizers.base import Codes
from sid_tokenizers.catalogue import Catalogue
from sid_tokenizers.indexers.numbered import Numbered, Numbers, counted_on
from sid_tokenizers.residual import check_at_least
from sid_tokenizers.scheme import Traits

Column = Literal["titles", "texts"]


class TextIDs(Numbered):
    """Items are numbered from 0 in order of their ids and named by text; `suffix` sets equal texts apart."""

    suffix: ClassVar[str]

    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range."""
        check_at_least(self, seed=0)

    def _numbers(self, about: Catalogue, taken: Numbers) -> Numbers:
        return counted_on(len(about), 0, taken)

    @abstractmethod
    def _texts(self, about: Catalogue) -> list[str]:
        """Give each item's text; it need not be unique."""

    def docids(self, ids: Codes, about: Catalogue) -> list[str]:
        """Give the unique text of each item of a whole catalogue. ids: (n, 1), as `index` gave them."""
        texts = self._texts(about)
        turn = ids[:, 0].argsort(kind="stable").tolist()
        named = unique_texts([texts[row] for row in turn], self.suffix)
        by_row = dict(zip(turn, named, strict=True))
        return [by_row[row] for row in range(len(texts))]


class Title(TextIDs):
    """The docid is the title, `title_{item id}` where there is none.

    Of equal titles the lowest number keeps it; the next are called "title (2)", "title (3)" and so on, past
    those that another item is called already. seed: without effect, nothing is drawn.
    """

    name: ClassVar[str] = "title"
    paper: ClassVar[str] = "Hua et al. 2023, How to Index Item IDs, title IDs [S]; made unique by a count [D]"
    traits: ClassVar[Traits] = Traits(gives="text", ordered=False, unique=True, inputs=("titles",))
    suffix: ClassVar[str] = " ({})"

    def __init__(self, *, seed: int = 0) -> None:
        """Store the parameters; `fit` checks them."""
        self.seed = seed

    def _texts(self, about: Catalogue) -> list[str]:
        assert about.titles is not None
        titles = (" ".join(title.split()) for title in about.titles)
        return [title or f"title_{own}" for title, own in zip(titles, about.item_ids, strict=True)]


class TextDocid(TextIDs):
    """The docid is the item's text, in lower case and without punctuation: see `normalized`.

    In ZeroGR a language model writes the text; its form, and that it is unique, are what can be checked. Here
    it is taken from the catalogue. column: "titles", or "texts" for what was embedded. words: so many of the
    first words are kept, 0 for all. Of equal texts the lowest number keeps it; the next are called "text 2",
    "text 3" and so on, past those taken. A text without a letter is "item {item id}", normalized. seed:
    without effect, nothing is drawn.
    """

    name: ClassVar[str] = "text-docid"
    paper: ClassVar[str] = "ZeroGR [S]: normalized unique text; taken from the catalogue, not written [D]"
    traits: ClassVar[Traits] = Traits(gives="text", ordered=False, unique=True, inputs=("titles", "texts"))
    suffix: ClassVar[str] = " {}"

    def __init__(self, *, column: Column = "titles", words: int = 16, seed: int = 0) -> None:
        """Store the parameters; `fit` checks them."""
        self.column = column
        self.words = words
        self.seed = seed

    @property
    def needs(self) -> tuple[str, ...]:
        """Give what of `traits.inputs` is read: the one column."""
        return (self.column,)

    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range."""
        check_at_least(self, words=0, seed=0)
        if self.column not in get_args(Column):
            raise DataError(f"column: expected one of {', '.join(get_args(Column))}, got {self.column!r}")

    def _texts(self, about: Catalogue) -> list[str]:
        column: Sequence[str] = getattr(about, self.column)
        texts = (" ".join(normalized(text).split()[: self.words or None]) for text in column)
        return [text or normalized(f"item {own}") for text, own in zip(texts, about.item_ids, strict=True)]


def normalized(text: str) -> str:
    """Give a text in lower case, without punctuation and symbols, white space single. Twice gives the same.

    >>> normalized("  Spider-Man:  Into the\\tSpider-Verse (2018)")
    'spiderman into the spiderverse 2018'
    """
    while (plain := _plain(text)) != text:
        text = plain  # composing letters may bring punctuation back
    return text


def _plain(text: str) -> str:
    kept = (one for one in text.lower() if unicodedata.category(one)[0] not in "PS")
    return " ".join(unicodedata.normalize("NFKC", "".join(kept)).split())


def unique_texts(texts: Sequence[str], suffix: str) -> list[str]:
    """Give texts of which no two are equal: what is taken by one before gets the next count that is free.

    >>> unique_texts(["Hamlet", "Hamlet", "Hamlet (2)", "Hamlet"], " ({})")
    ['Hamlet', 'Hamlet (2)', 'Hamlet (2) (2)', 'Hamlet (3)']
    """
    taken: set[str] = set()
    counts: dict[str, int] = {}
    names = []
    for text in texts:
        name, count = text, counts.get(text, 1)
        while name in taken:
            count += 1
            name = text + suffix.format(count)
        counts[text] = count
        taken.add(name)
        names.append(name)
    return names
