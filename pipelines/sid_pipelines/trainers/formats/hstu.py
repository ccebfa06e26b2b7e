"""HSTU: one CSV row per user, with lists of items, values and times, as generative-recommenders reads them.

The reader evaluates each list and makes it int64 (`research/data/dataset.py` 71 to 80, 181 to 185), so a
value of 4.5 would become 4: values that are not whole are refused unless cutting is asked for. No SID
anywhere.
"""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import Feed, User, one_line
from sid_pipelines.trainers.reading.missing import MISSING
from sid_pipelines.trainers.writing.folder import Folder

READER = "HSTU"
HEADER = ("index", "user_id", "sequence_item_ids", "sequence_ratings", "sequence_timestamps")
MOVIES = ("movie_id", "title", "genres", "year", "cleaned_title")
FOLDERS = {"amzn-books": "amzn_books"}  # its name in files and code, where it differs from that in configs
LARGEST = 2**53  # the numbers below are whole in float64 and in int64 alike


class HstuSettings(Settings):
    """What may be chosen for HSTU.

    dataset: which of the trainer's data sets this takes the place of; for `ml-1m` and `ml-20m` items count
    from 1 and have texts, for `amzn-books` from 0. ratings: `exact` refuses values that are not whole, `cut`
    cuts them as the trainer would, `none` writes 1 for each.
    """

    dataset: Literal["ml-1m", "ml-20m", "amzn-books"] = "ml-20m"
    ratings: Literal["exact", "cut", "none"] = "exact"


def write(feed: Feed, out: Folder, settings: HstuSettings) -> str:
    """Write the sequences, and the items' texts where the trainer wants them."""
    feed.require_leave_one_out(READER)
    if settings.ratings != "none":
        _require_values(feed, whole=settings.ratings == "exact")
    movies = settings.dataset != "amzn-books"
    out.csv(
        f"tmp/{FOLDERS.get(settings.dataset, settings.dataset)}/sasrec_format.csv",
        "a row per user: items, values, times in seconds, oldest first",
        HEADER,
        (_row(user, 1 if movies else 0, settings.ratings) for user in feed.users()),
    )
    if movies:
        says = "titles, genres and years of items; a text that pandas would take for none ends in a space"
        out.csv(f"tmp/processed/{settings.dataset}/movies.csv", says, MOVIES, _movies(feed))
    return _readme(feed, settings)


def _require_values(feed: Feed, *, whole: bool) -> None:
    if missing := feed.n_without_value:
        got = f"{missing:,} events without"
    elif odd := sum(_odd(user, whole=whole) for user in feed.users()):
        got = f"{odd:,} that are negative, too large{' or not whole' * whole}"
    else:
        return
    cut = "--set ratings=cut, as the trainer would cut them, or " if whole and not missing else ""
    expected = f"a value of each event, {'a whole number of ' if whole else ''}0 or more"
    raise feed.refuse(READER, expected, got, f"Export with {cut}--set ratings=none, which writes 1")


def _odd(user: User, *, whole: bool) -> int:
    wrong = ~((user.values >= 0) & (user.values < LARGEST))
    if whole:
        wrong |= user.values != np.floor(user.values)
    return int(wrong.sum())


def _row(user: User, first: int, ratings: str) -> tuple[Any, ...]:
    values = np.ones(len(user.items)) if ratings == "none" else user.values
    lists = (user.items + first, values.astype(np.int64), user.ts // 1000)
    return (user.index, user.index, *(",".join(map(str, one.tolist())) for one in lists))


def _movies(feed: Feed) -> Iterator[tuple[Any, ...]]:
    for row, title in zip(feed.items(["item_index", "category_path"]), feed.titles, strict=True):
        cleaned, year = titled(title)
        genres = "|".join(one_line(one).replace("|", "/") for one in row["category_path"])
        yield row["item_index"] + 1, title, text(genres or "(no genres listed)"), year, text(cleaned)


def titled(title: str) -> tuple[str, int]:
    """Give a title without its year, and the year, 0 where it ends in none.

    >>> titled("Heat (1995)"), titled("Heat")
    (('Heat', 1995), ('Heat', 0))
    """
    year = title[-5:-1]
    if title[-6:-5] == "(" and title[-1:] == ")" and year.isascii() and year.isdigit():
        return title[:-6].strip() or title, int(year)
    return title, 0


def text(word: str) -> str:
    """Give a text that pandas reads as one: `NA` with a space behind it.

    Upon a missing one the trainer's `split` fails (`reco_dataset.py` 146 to 150).
    """
    return f"{word} " if word.strip() in MISSING else word


def _readme(feed: Feed, settings: HstuSettings) -> str:
    movies = settings.dataset != "amzn-books"
    name = settings.dataset.replace("-", "_")
    counts = f"`expected_num_unique_items={feed.n_items}`" + (
        f" and `expected_max_item_id={feed.n_items}`" if movies else ""
    )
    numbers = "from 1 (0 is padding)" if movies else "from 0 (the reader adds 1)"
    features = """
- `movies.csv` becomes item features by Python's `hash` of words, which differs from run to run: set
  PYTHONHASHSEED."""
    return f"""
Put `tmp/` into the trainer's checkout: the files take the place of its `{settings.dataset}`. Do not run
`preprocess_public_data.py`, which would download that data set and write over them. Then

1. in `generative_recommenders/research/data/preprocessor.py`, `{name}_dp`, set {counts}: the trainer takes
the
   catalogue from these numbers, not from the files;
2. start with a configuration of `configs/{settings.dataset}/`.

- Items count {numbers}: item_index {"+ 1" if movies else "as it is"}. Every item of the release has a number,
  whether an event has it or not.
- The trainer splits by itself: the last item of a user tests, all before it trains (`ignore_last_n`). So the
  release's validation event is a training target here: choose nothing by the release's valid split.
- Values become int64, so they are whole: ratings = {settings.ratings}. Times are in seconds.{
        features if movies else ""
    }
"""


FORMAT = Format(
    "hstu",
    "HSTU (facebookresearch/generative-recommenders at 2e81fab)",
    "one CSV row per user: items, values, times",
    write,
    HstuSettings,
    papers=(15,),
    protocols=("leave-one-out",),
)
