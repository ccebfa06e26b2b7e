"""FlashRec: the catalogue of SIDs that its beam search keeps to, keys "a,b,c", values the items behind.

A server of models that are trained already, so there is no user here. Its keys are codes counted from 0 on
each level; shifting into the model's vocabulary is the server's (search/trie.py 701 to 719).
"""

from collections.abc import Iterator
from typing import Any

from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import Feed
from sid_pipelines.trainers.writing.folder import Folder
from sid_tokenizers.dialects import DIALECTS

READER = "FlashRec"
END = 1  # <|sid_end|> among the two boundary tokens


class FlashRecSettings(Settings):
    """boundary: end every key with 1 for `<|sid_end|>`, which a model of three levels that emits it wants."""

    boundary: bool = False


def write(feed: Feed, out: Folder, settings: FlashRecSettings) -> str:
    """Write the catalogue. One code alone would be read as a packed number, so SIDs have at least two."""
    feed.require_levels(READER)
    length = feed.require_length(READER, lowest=2)
    out.json_object(
        "catalog.json",
        "every SID once, ascending, as comma-joined codes, with the ids of its items in slot order",
        _rows(feed, (END,) if settings.boundary else ()),
    )
    sizes = [*feed.vocabulary.sizes, *([2] if settings.boundary else [])]
    begin, *_, end = DIALECTS["onerec"].strings(feed.vocabulary)[: sum(feed.vocabulary.sizes)]
    return f"""
Start the server with `--sid-vocab-file catalog.json`. The model's tokenizer has to have the SIDs' tokens one
after another, `{begin}` to `{end}`, then `<|sid_begin|>` and `<|sid_end|>` (dialect `onerec`). With START
and END the numbers of the first and the last token that a key's codes may stand for, `--sid
START:END/{_joined(sizes)}` says where they are.

- Without `--sid` the server finds them by itself (sid_layout.py 70 to 107), and takes keys of four codes for
  three levels and `<|sid_end|>`: with SIDs of four levels always give `--sid`. Keys here have
  {length + settings.boundary} codes.
- Values are for whoever looks up what was recommended; the server reads keys alone.
- `flashrec --catalog catalog.json` converts from RecIF and is not needed. It drops codes of 8192 and more.
"""


def _rows(feed: Feed, ending: tuple[int, ...]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    ids = feed.item_ids
    for row in feed.rows("sid_to_items", ["sid", "item_indexes"]):
        yield _joined([*row["sid"], *ending]), [{"pid": ids[item]} for item in row["item_indexes"]]


def _joined(numbers: list[int]) -> str:
    return ",".join(map(str, numbers))


FORMAT = Format(
    "flashrec",
    "FlashRec (PyPI flashrec 0.1.2)",
    "the catalogue of SIDs for constrained serving, as JSON",
    write,
    FlashRecSettings,
)
