"""What a release gives to trainers: items, SIDs, vectors, users' events and samples, streamed in order.

Arrays by item or user (codes, titles, ids) are held whole; what grows with events or with vectors comes in
batches, so a format that only passes it on needs memory for the catalogue alone. The `require_*` say in one
line why a format cannot hold a release; formats call them before they write anything.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sid_pipelines.chunks import TEST, VALID, Chunk, chunks
from sid_schemas import RecipeError
from sid_tokenizers.vocabulary import Vocabulary
from sid_warehouse import parquet
from sid_warehouse.arrays import padded_matrix
from sid_warehouse.mapped import Mapped
from sid_warehouse.reader import SPLITS, Release

ROWS = 65_536  # samples, items or vectors of a batch
EVENTS = 1 << 22  # of all histories of a batch, unless one alone has more
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class User:
    """One user's whole sequence, oldest first, in the declared total order. Arrays are (n,).

    split: of each event, as its place in SPLIT_NAMES: 0 train, 1 valid, 2 test, 3 context.
    """

    index: int
    id: str
    items: I32
    ts: I64
    split: npt.NDArray[np.int8]
    values: npt.NDArray[np.float64]  # NaN where the source has none


@dataclass(frozen=True)
class SampleBatch:
    """Samples of one split, with their histories. Arrays are (n,) but `history` and `targets`.

    The history of sample i is history[offsets[i]:offsets[i + 1]], oldest first, `history_ts` likewise; all
    its targets are targets[target_offsets[i]:target_offsets[i + 1]], `target` being the first.
    row: of the sample in its split's table, which names it for good. start, end: where the history stands in
    the user's sequence; the first target stands at `end`.
    """

    row: I64
    user: I32
    target: I32
    target_ts: I64
    n_targets: I32
    offsets: I64
    history: I32
    history_ts: I64
    start: I64
    end: I64
    targets: I32
    target_offsets: I64

    def __len__(self) -> int:
        """Give the number of samples."""
        return len(self.user)

    def __iter__(self) -> Iterator[tuple[int, int, I32]]:
        """Yield (user_index, target, history) sample by sample."""
        for i, (user, target) in enumerate(zip(self.user.tolist(), self.target.tolist(), strict=True)):
            yield user, target, self.history[self.offsets[i] : self.offsets[i + 1]]


class Feed:
    """A release as trainers read it."""

    def __init__(self, release: Release) -> None:
        """Look at an open release; nothing is read yet."""
        self.release = release

    # What it is

    @property
    def ref(self) -> str:
        """Give the release's name, such as `movietweetings@v3`."""
        return self.release.ref

    @property
    def dataset(self) -> str:
        """Give the name of the data set."""
        return str(self.release.record["dataset"])

    @cached_property
    def n_items(self) -> int:
        """Give how many items have an ID; their numbers are 0..n_items-1."""
        return int(self.release.record["rows"]["items"])

    @cached_property
    def n_users(self) -> int:
        """Give how many users there are; their numbers are 0..n_users-1."""
        return int(self.release.record["rows"]["users"])

    @property
    def protocol(self) -> str:
        """Give the name of the split protocol."""
        return str(self.release.record["recipe"]["split"]["protocol"])

    @property
    def split_settings(self) -> dict[str, Any]:
        """Give [split] of the recipe, defaults included."""
        return dict(self.release.record["recipe"]["split"])

    # Items, row i being item i

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Give the vocabulary of the SIDs."""
        return self.release.vocabulary

    @cached_property
    def sids(self) -> I32:
        """Give the final SIDs: (n_items, longest), filled with -1 at the end where they are shorter."""
        return padded_matrix(self.release.table("sids", ["sid"])["sid"], self.vocabulary.length, -1)

    @cached_property
    def codes(self) -> I32:
        """Give what the tokenizer gave before collisions were resolved: (n_items, levels)."""
        column = self.release.table("sids", ["codes"])["codes"].combine_chunks()
        return padded_matrix(pa.chunked_array([column]), int(pc.max(column.value_lengths()).as_py()), -1)

    @cached_property
    def n_shared(self) -> int:
        """Give how many items there are more than SIDs, 0 where every item has an SID of its own."""
        return self.n_items - int(self.release.record["rows"]["sid_to_items"])

    @cached_property
    def item_ids(self) -> list[str]:
        """Give the source's own item ids."""
        ids: list[str] = self.release.table("items", ["item_id"])["item_id"].to_pylist()
        return ids

    @cached_property
    def user_ids(self) -> list[str]:
        """Give the source's own user ids."""
        ids: list[str] = self.release.table("users", ["user_id"])["user_id"].to_pylist()
        return ids

    @cached_property
    def titles(self) -> list[str]:
        """Give the title of every item on one line; where there is none, its id, on one line too."""
        table = self.release.table("items", ["title", "item_id"])
        return [
            one_line(title or "") or one_line(item)
            for title, item in zip(table["title"].to_pylist(), table["item_id"].to_pylist(), strict=True)
        ]

    def item_texts(self, column: str) -> list[str]:
        """Give one text column of `items` on one line each, empty where there is none."""
        return [one_line(row[column] or "") for row in self.items([column])]

    @cached_property
    def category_paths(self) -> list[list[str]]:
        """Give the categories of every item, broad to narrow, each on one line."""
        return [[one_line(one) for one in row["category_path"]] for row in self.items(["category_path"])]

    def items(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield some columns of `items`, item by item."""
        yield from self.rows("items", columns)

    def vectors(self, name: str) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the vectors of `embeddings_<name>` in batches: (rows, dim) float32; missing ones are zero."""
        table = self.require_embedding(name)
        for piece in self.tables(table, ["vector"]):
            column = piece["vector"].combine_chunks()
            flat = column.flatten().to_numpy(zero_copy_only=False)
            yield flat.reshape(-1, column.type.list_size).astype(np.float32, copy=False)

    def dim(self, name: str) -> int:
        """Give the width of `embeddings_<name>`."""
        table = self.require_embedding(name)
        schema = pq.read_schema(parquet.parts(self.release.folder, table)[0])
        return int(schema.field("vector").type.list_size)

    @property
    def embeddings(self) -> list[str]:
        """Give the names of the embeddings that the release publishes."""
        return [
            one.removeprefix("embeddings_") for one in self.release.tables if one.startswith("embeddings_")
        ]

    # Events

    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[Chunk]:
        """Yield all events in whole users, about a million at a time (see chunks.py); None: all columns."""
        yield from chunks(
            parquet.parts(self.release.folder, "interactions"), list(columns) if columns else None
        )

    def users(self) -> Iterator[User]:
        """Yield every user who has events, in order of their number."""
        ids = self.user_ids
        for chunk in self.chunks(["user_index", "item_index", "ts", "value", "split"]):
            values = pc.fill_null(chunk.table["value"], float("nan")).to_numpy()
            for start, stop in zip(chunk.edges[:-1].tolist(), chunk.edges[1:].tolist(), strict=True):
                mine, index = slice(start, stop), int(chunk.users[start])
                yield User(
                    index, ids[index], chunk.items[mine], chunk.ts[mine], chunk.labels[mine], values[mine]
                )

    @cached_property
    def n_without_value(self) -> int:
        """Give how many events have no value, such as stars."""
        return sum(chunk.table["value"].null_count for chunk in self.chunks(["user_index", "value"]))

    def count(self, split: str) -> int:
        """Give the number of samples of a split."""
        return int(self.release.record["rows"][split])

    def samples(self, split: str, *, max_history: int = 0) -> Iterator[SampleBatch]:
        """Yield the samples of `train`, `valid` or `test` with their histories, in stored order.

        max_history: the newest items of a history that are kept; 0 keeps all. A batch has as many samples as
        memory is flat with, however long histories are.
        """
        samples = self._mapped(split)
        for first in range(0, len(samples), ROWS):
            rows = np.arange(first, min(first + ROWS, len(samples)))
            user, start, end, target, ts, n_targets = (
                samples.take(name, rows)
                for name in ("user_index", "start", "end", "target", "target_ts", "n_targets")
            )
            if max_history:
                start = np.maximum(start, end - max_history)
            start, end = start.astype(np.int64), end.astype(np.int64)
            for mine in _pieces(end - start):
                yield self._batch(
                    rows[mine], user[mine], start[mine], end[mine], target[mine], ts[mine], n_targets[mine]
                )

    def _batch(
        self, rows: I64, user: I32, start: I64, end: I64, target: I32, ts: I64, n_targets: I32
    ) -> SampleBatch:
        sequences = self._sequences
        place = user.astype(np.int64)
        history, offsets = sequences.ragged("items", place, start, end)
        history_ts, _ = sequences.ragged("ts", place, start, end)
        targets, target_offsets = sequences.ragged("items", place, end, end + n_targets)
        return SampleBatch(
            rows, user, target, ts, n_targets, offsets, history, history_ts, start, end, targets,
            target_offsets,
        )  # fmt: skip

    @cached_property
    def _sequences(self) -> Mapped:
        return self._mapped("sequences")

    def _mapped(self, table: str) -> Mapped:
        return Mapped(self.release.folder / f"{table}.arrow")

    def rows(self, table: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield some columns of any table of the release, row by row; raises WarehouseError without it."""
        for piece in self.tables(table, columns):
            yield from piece.to_pylist()

    def tables(self, table: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield some columns of any table of the release in pieces; raises WarehouseError without it."""
        for part in parquet.parts(self.release.folder, table):
            with pq.ParquetFile(part, pre_buffer=False) as file:
                for batch in file.iter_batches(ROWS // 8, columns=list(columns)):
                    yield pa.Table.from_batches([batch])

    # What a format cannot hold

    def refuse(self, reader: str, expected: str, got: str, instead: str) -> RecipeError:
        """Give the error of a release that a format cannot hold, to be raised.

        reader: the trainer. expected, got: without a full stop. instead: what to do.
        """
        return RecipeError(f"{self.ref}: {reader} expects {expected}; got {got}. {instead}")

    def require_leave_one_out(self, reader: str) -> None:
        """Refuse where not each user's last event tests and the one before validates, as the reader does."""
        if self._otherwise_split:
            raise self.refuse(
                reader,
                "leave-one-out, as it takes each user's last two events for valid and test by itself",
                f"{self._otherwise_split:,} of {self.n_users:,} users split otherwise ({self.protocol})",
                "Make a release with protocol = 'leave-one-out' and k_core of 3 or more, not by append, or "
                "choose a format with a file for each split",
            )

    @cached_property
    def _otherwise_split(self) -> int:
        """Give how many users do not end with one valid and one test event, the only ones that they have."""
        found = 0
        for chunk in self.chunks(["user_index", "split"]):
            last = chunk.edges[1:] - 1
            held = np.add.reduceat((chunk.labels == VALID) | (chunk.labels == TEST), chunk.edges[:-1])
            ends = (chunk.labels[last] == TEST) & (chunk.labels[np.maximum(last - 1, 0)] == VALID)
            found += int((~ends | (held != 2) | (chunk.sizes < 3)).sum())
        return found

    def require_samples(self, reader: str, *splits: str) -> None:
        """Refuse a release without a sample of one of these splits."""
        for split in splits:
            if not self.count(split):
                raise self.refuse(
                    reader,
                    f"samples to {split}",
                    f"none ({self.protocol})",
                    "Choose a [split] protocol that has some",
                )

    def require_one_target(self, reader: str) -> None:
        """Refuse samples that have several targets, as those of a next session: the reader takes one."""
        for split in SPLITS:
            counts = (piece["n_targets"].to_numpy() for piece in self.tables(split, ["n_targets"]))
            if several := sum(int((count > 1).sum()) for count in counts):
                raise self.refuse(
                    reader,
                    "one target for each sample",
                    f"{several:,} samples of {split} with several ({self.protocol})",
                    "Choose a protocol of single events",
                )

    def require_length(self, reader: str, lowest: int = 1, highest: int = 26) -> int:
        """Give the one length of all SIDs, or refuse: lengths differ, or it is not in lowest..highest."""
        lengths = (self.sids >= 0).sum(axis=1)
        shortest, longest = int(lengths.min()), int(lengths.max())
        wanted = f"{lowest}" if lowest == highest else f"{lowest} to {highest}"
        if shortest != longest:
            raise self.refuse(
                reader,
                "SIDs of one length",
                f"SIDs of {shortest} to {longest} codes",
                "Choose a tokenizer of codes, and a collision policy that gives all as many: next-nearest",
            )
        if not lowest <= longest <= highest:
            raise self.refuse(
                reader,
                f"SIDs of {wanted} codes",
                f"{longest}",
                "Choose as many [tokenize] levels, and a collision policy that adds no digit: next-nearest",
            )
        return longest

    def require_levels(self, reader: str) -> None:
        """Refuse IDs that are paths in one vocabulary, where a code means the same at every place."""
        if self.vocabulary.places:
            raise self.refuse(
                reader,
                "a code for each level",
                f"IDs that are paths of up to {self.vocabulary.places} tokens of one vocabulary",
                "Choose a tokenizer of codes, such as rq-kmeans",
            )

    def require_prefix_free(self, reader: str) -> None:
        """Refuse SIDs of which one begins another: no decoder could tell where an item ends."""
        trie = self.release.trie()
        inner = np.diff(trie.offsets) > 0
        both = np.flatnonzero(inner & (trie.items >= 0))
        if len(both):
            item = int(trie.items[both[0]])
            raise self.refuse(
                reader,
                "SIDs of which none begins another",
                f"{len(both):,} that do, as that of item {self.item_ids[item]!r}",
                "Choose a collision policy with one length for all, such as suffix or next-nearest",
            )

    def require_unique(self, reader: str) -> None:
        """Refuse SIDs that items share."""
        if self.n_shared:
            raise self.refuse(
                reader,
                "an SID of its own for every item",
                f"{self.n_shared:,} items too many for their SIDs",
                "Choose a collision policy that tells them apart, such as next-nearest or suffix",
            )

    def require_embedding(self, name: str) -> str:
        """Give the table of an embedding, or refuse a name that is none."""
        if name not in self.embeddings:
            there = ", ".join(self.embeddings) or "none"
            raise RecipeError(f"{self.ref}: has no embedding {name!r}; there are: {there}")
        return f"embeddings_{name}"

    def require_table(self, reader: str, table: str, instead: str) -> None:
        """Refuse a release without a table, or with an empty one. instead: what brings it."""
        if not self.release.record["rows"].get(table):
            raise self.refuse(reader, f"a table {table!r}", "a release without it", instead)


def _pieces(sizes: I64) -> Iterator[slice]:
    """Yield the rows in slices whose sizes add up to about EVENTS; a larger row is the last of its slice."""
    number = (np.cumsum(sizes) - sizes) // EVENTS
    edges = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(sizes)]
    yield from (slice(first, last) for first, last in pairwise(edges))


def one_line(text: str) -> str:
    """Give a text without tabs, line breaks and other control characters, single spaces between words."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


__all__ = ["SPLITS", "Feed", "SampleBatch", "User", "one_line"]
