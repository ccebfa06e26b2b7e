"""Several IDs of one thing side by side: an SID of each embedding (MSCGRec), SIDs of users (TTDS).

A format of ours after the papers. Other formats have one SID an item; here all tables share one vocabulary,
each shifted past the one before, so that they can be told apart in one sequence.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import I32, SPLITS, Feed
from sid_pipelines.trainers.reading.lists import lists, ranges
from sid_pipelines.trainers.writing.folder import Folder
from sid_tokenizers.vocabulary import FIRST, Vocabulary
from sid_warehouse.arrays import padded_matrix

READER = "a format of several IDs"
SAMPLES = pa.schema(
    [
        pa.field("user_index", pa.int32()),
        pa.field("user_tokens", pa.list_(pa.int32())),
        pa.field("history", pa.list_(pa.int32())),
        pa.field("input_ids", pa.list_(pa.int32())),
        pa.field("target", pa.int32()),
        pa.field("labels", pa.list_(pa.int32())),
    ]
)
README = """
A format of ours, after papers whose code is not public: MSCGRec (an SID for each modality, a history of all
their codes, the target by the codes of one) and TTDS (SIDs of users beside those of items). Secondary
knowledge.

* Tables here, in this order: {tables}. `vocabularies.json` has the token that each begins at, and its
  levels; 0 is padding, 1 begins and 2 ends a sequence, for all of them. There are {size:,} tokens.
* `items.parquet`: row i is item i, a column of tokens for each table; {users}
* `train`, `valid`, `test`: `input_ids` are all tokens of the history's items, table after table within an
  item, oldest item first, at most {history} items; `labels` are the tokens of the target in `{target}`;
  `user_tokens` are the user's, empty where there are none. `history` and `target` are row numbers of
  `items.parquet`.
* Which codes may follow: the release's own prefix trees, `release.trie("<table>")`, tokens shifted back.
"""


class IdentitiesSettings(Settings):
    """target: the table whose codes the target has, by the name of its embedding; empty for `sids`.

    max_history: newest items of a history that are kept.
    """

    target: str = ""
    max_history: int = Field(default=20, ge=1)


def write(feed: Feed, out: Folder, settings: IdentitiesSettings) -> str:
    """Write items with all of their tokens, users with theirs, and samples."""
    named = {
        "sids": "",
        **{one: one.removeprefix("sids_") for one in feed.release.tables if one.startswith("sids_")},
    }
    users = "user_sids" in feed.release.tables
    if len(named) == 1 and not users:
        raise feed.refuse(
            READER,
            "SIDs of several embeddings, or of users",
            "one SID for each item and none for users",
            "Set [tokenize] each as examples/schemes/mscgrec.toml does, or add [users] as ttds.toml does",
        )
    target = f"sids_{settings.target}" if settings.target else "sids"
    if target not in named:
        there = ", ".join(one for one in named.values() if one)
        raise feed.refuse(
            READER, "target to name one of its tables", repr(settings.target), f"There are: {there}"
        )
    feed.require_one_target(READER)
    tables, vocabularies, end = {}, {}, FIRST
    for table, name in named.items():
        vocabulary = feed.release.vocabulary_of(name) if name else feed.vocabulary
        tables[table] = _tokens(feed, table, vocabulary, end)
        vocabularies[table] = _told(vocabulary, end)
        end += len(vocabulary) - FIRST
    user_tokens = np.full((feed.n_users, 0), -1, np.int32)
    if users:
        vocabulary = feed.release.user_vocabulary
        user_tokens = _user_tokens(feed, vocabulary, end)
        vocabularies["user_sids"] = _told(vocabulary, end)
        end += len(vocabulary) - FIRST
        rows = pa.table(
            {"user_index": np.arange(feed.n_users, dtype=np.int32), "tokens": _ragged(user_tokens)}
        )
        out.parquet("users.parquet", "row i is user i: tokens, empty without an SID", rows.schema, [rows])
    columns: dict[str, pa.Array] = {"item_index": pa.array(np.arange(feed.n_items, dtype=np.int32))}
    rows = pa.table(columns | {table: _ragged(tokens) for table, tokens in tables.items()})
    out.parquet("items.parquet", "row i is item i: its tokens in each table", rows.schema, [rows])
    together = np.concatenate(list(tables.values()), axis=1)
    for split in SPLITS:
        says = f"{split} samples, histories as all tokens"
        out.parquet(
            f"{split}.parquet",
            says,
            SAMPLES,
            _samples(feed, split, settings, together, tables[target], user_tokens),
        )
    out.json(
        "vocabularies.json", "where the tokens of each table begin", {"size": end, "tables": vocabularies}
    )
    return README.format(
        tables=", ".join(f"`{one}`" for one in vocabularies),
        size=end,
        users="`users.parquet` likewise: row i is user i."
        if users
        else "users have no SIDs in this release.",
        history=settings.max_history,
        target=target,
    )


def _told(vocabulary: Vocabulary, first: int) -> dict[str, Any]:
    return {"first": first, "levels": list(vocabulary.levels), "places": vocabulary.places}


def _tokens(feed: Feed, table: str, vocabulary: Vocabulary, first: int) -> I32:
    """Give each item's tokens in a table, from `first` on: (n_items, L), -1 after a shorter SID."""
    sids = padded_matrix(feed.release.table(table, ["sid"])["sid"], vocabulary.length, -1)
    tokens = vocabulary.token_ids(sids)
    return np.where(tokens < 0, -1, tokens + (first - FIRST)).astype(np.int32)


def _user_tokens(feed: Feed, vocabulary: Vocabulary, first: int) -> I32:
    """Give each user's tokens: (n_users, L); -1 for those whom train events say nothing of."""
    table = feed.release.table("user_sids", ["user_index", "sid"])
    found = np.full((feed.n_users, vocabulary.length), -1, np.int32)
    tokens = vocabulary.token_ids(padded_matrix(table["sid"], vocabulary.length, -1))
    found[table["user_index"].to_numpy()] = np.where(tokens < 0, -1, tokens + (first - FIRST))
    return found


def _ragged(tokens: I32) -> pa.ListArray:
    """Give rows of tokens as lists, -1 left out."""
    there = tokens >= 0
    offsets = np.concatenate([[0], np.cumsum(there.sum(axis=1))]).astype(np.int64)
    return lists(tokens[there], offsets)


def _samples(
    feed: Feed, split: str, settings: IdentitiesSettings, together: I32, target: I32, users: I32
) -> Iterator[pa.Table]:
    flat = _flat(together)
    for batch in feed.samples(split, max_history=settings.max_history):
        history = batch.history
        places, offsets = ranges(flat[1][history], flat[1][history + 1])
        columns = {
            "user_index": batch.user,
            "user_tokens": _ragged(users[batch.user]),
            "history": lists(history, batch.offsets),
            "input_ids": lists(flat[0][places], offsets[batch.offsets]),
            "target": batch.target,
            "labels": _ragged(target[batch.target]),
        }
        yield pa.table([columns[name] for name in SAMPLES.names], schema=SAMPLES)


def _flat(tokens: I32) -> tuple[I32, npt.NDArray[np.int64]]:
    there = tokens >= 0
    return tokens[there], np.concatenate([[0], np.cumsum(there.sum(axis=1))]).astype(np.int64)


FORMAT = Format(
    "identities",
    "MSCGRec and TTDS (a format of ours, after the papers; their code is not public)",
    "the SIDs of every modality and of users in one vocabulary, and samples of all of them",
    write,
    IdentitiesSettings,
    papers=(19, 33, 47),
)
