"""OpenP5: users' sequences as text, and the caches in which it looks for IDs before it makes its own.

Its collaborative IDs are tokens in angle brackets, found again by `<.*?>`; any SID of such tokens can take
their place. The trainer reads a cache wherever there is one (`utils/indexing.py` 120 to 126).
"""

import re
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import Feed
from sid_pipelines.trainers.writing.folder import Folder
from sid_tokenizers.dialects import DIALECTS

READER = "OpenP5"
TOKEN = re.compile(r"<[^<>\s]+>")  # what train.py 200 finds again, and one line of words can hold


class OpenP5Settings(Settings):
    """token_size, cluster, last: of the cache's name, as in the trainer's `--collaborative_...` options.

    ids: what `user_sequence.txt` has: the source's own, or `index`, the numbers of the release.
    """

    token_size: int = Field(500, ge=1)
    cluster: int = Field(20, ge=1)
    last: Literal["sequential", "random"] = "sequential"
    ids: Literal["source", "index"] = "source"


def write(feed: Feed, out: Folder, settings: OpenP5Settings) -> str:
    """Write the files of one data set."""
    feed.require_leave_one_out(READER)
    feed.require_unique(READER)
    items, users = (_names(feed, ids, settings.ids) for ids in (feed.item_ids, feed.user_ids))
    sids = ["".join(tokens) for tokens in _tokens(feed)]
    cache = f"collaborative_indexing_{settings.token_size}_{settings.cluster}_{settings.last}"
    _lines(out, "user_sequence.txt", "every user and all items, oldest first", _sequences(feed, users, items))
    _lines(out, "user_indexing.txt", "every user and the number in prompts", _numbered(users))
    _lines(out, f"item_{cache}.txt", "every item and its SID", map(" ".join, zip(items, sids, strict=True)))
    numbers = [str(number + 1) for number in range(len(users))]
    _lines(
        out,
        f"user_sequence_{cache}.txt",
        "users by number, items by SID, as the trainer would make it of the other three",
        _sequences(feed, numbers, sids),
    )
    return f"""\
Put this folder at `data/{feed.dataset}` of the trainer and run with `--item_indexing collaborative
--collaborative_token_size {settings.token_size} --collaborative_cluster {settings.cluster}
--collaborative_last_token {settings.last}`: it finds the two files of that name, takes the SIDs in them for
its own, and every `<...>` in them for a new token. The three values are nothing but a name here.

- Give them to *every* command: where no cache has the name, the trainer silently makes IDs of its own.
  By default `generate_dataset.py` has 500 and 20, `generate_dataset_eval.py` 100 and 20, `train.py` 200 and
  20; `generate_dataset.sh` passes 100 and 10.
- `--item_indexing sequential` and `random` work too: the trainer makes those IDs by itself.
- `src_t5` on one device stops in collaborative indexing: `MultiTaskDataset.py` 141 asks for
  `self.collaborative_sparse`, which nothing sets. Run it with `--distributed 1`, or run `src_llama`.
- The trainer writes `item_` before every SID (`--his_prefix 1`), and needs no text of items.
"""


def _tokens(feed: Feed) -> list[list[str]]:
    """Give every SID as tokens, or refuse what the trainer would not find again."""
    vocabulary = feed.vocabulary
    spell = vocabulary.tokens if vocabulary.places else lambda sid: DIALECTS["ci"].tokens(sid, vocabulary)
    tokens = [spell([code for code in sid if code >= 0]) for sid in feed.sids.tolist()]
    for item, sid in enumerate(tokens):
        for token in sid:
            if not TOKEN.fullmatch(token):
                raise feed.refuse(
                    READER,
                    "tokens in angle brackets without blanks, such as <CI12>",
                    f"{token!r} in the ID of item {feed.item_ids[item]!r}",
                    "Choose a tokenizer of codes or clusters, such as rq-kmeans or spectral",
                )
    return tokens


def _names(feed: Feed, ids: list[str], which: str) -> list[str]:
    """Give what a line calls users or items, or refuse ids that it could not be split at."""
    if which == "index":
        return [str(number) for number in range(len(ids))]
    for one in ids:
        if not one or any(letter.isspace() for letter in one):
            raise feed.refuse(READER, "ids without blanks", repr(one), "Export with --set ids=index")
    return ids


def _sequences(feed: Feed, users: list[str], items: list[str]) -> Iterator[str]:
    for user in feed.users():
        yield " ".join([users[user.index], *(items[item] for item in user.items.tolist())])


def _numbered(users: list[str]) -> Iterator[str]:
    return (f"{user} {number + 1}" for number, user in enumerate(users))


def _lines(out: Folder, name: str, says: str, lines: Iterator[str]) -> None:
    with out.text(name, says) as file:
        file.writelines(f"{line}\n" for line in lines)


FORMAT = Format(
    "openp5",
    "OpenP5 (agiresearch/OpenP5 at 7f11038)",
    "users' sequences as text, SIDs in its index caches",
    write,
    OpenP5Settings,
    papers=(45,),
    protocols=("leave-one-out",),
)
