"""What users open: a warehouse, a release in it, and in that tables, SIDs, samples, codebooks."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sid_schemas import DataError, RecipeError, WarehouseError
from sid_tokenizers.dialects import code_ids
from sid_tokenizers.positions import one_length
from sid_tokenizers.sid_items import Found, SidItems
from sid_tokenizers.trie import Trie
from sid_tokenizers.trie_mask import TrieMask
from sid_tokenizers.vocabulary import Vocabulary
from sid_warehouse import copies, files, origin, parquet, releases
from sid_warehouse.arrays import padded_matrix
from sid_warehouse.loading import columns
from sid_warehouse.loading.features import Categories
from sid_warehouse.locks import Pin
from sid_warehouse.names import Ref
from sid_warehouse.samples import Samples

SPLITS = ("train", "valid", "test")
LEVELS = ("sid", "item")

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sid_tokenizers.scheme import Scheme
    from sid_warehouse.constrained import SidLogitsProcessor
    from sid_warehouse.torch_samples import TorchSamples, TorchStream


def open_warehouse(path: str | Path) -> "Warehouse":
    """Open a warehouse for reading, a folder or s3://...; raises WarehouseError where there is none."""
    return Warehouse(path)


class Warehouse:
    """A folder of releases, or a place in an object store whose releases are downloaded when opened."""

    def __init__(self, path: str | Path) -> None:
        """Look at a folder, or the one that s3://BUCKET/PREFIX has here; raises WarehouseError without it."""
        self.path = origin.work_folder(str(path)) if origin.is_url(str(path)) else Path(path)
        if not self.path.is_dir():
            raise WarehouseError(
                f"{self.path}: no warehouse there. Name another with --warehouse or "
                "$SIDMILL_WAREHOUSE, or make one with `sidmill run RECIPE`"
            )

    def release(self, ref: str) -> "Release":
        """Open a release: `movietweetings` is the latest, `movietweetings@v3` that one, `@production` a tag.

        It is pinned: gc leaves it until it is closed, forgotten, or this process ends.
        """
        copies.bring(self.path, Ref.parse(ref))
        return Release(releases.folder_of(self.path, Ref.parse(ref)), pinned=True)

    def releases(self) -> list["Release"]:
        """Give all releases, by data set and version; from an object store, all are downloaded."""
        copies.bring_all(self.path)
        return [
            Release(self.path / "releases" / dataset / f"v{version}")
            for dataset in releases.datasets(self.path)
            for version in releases.versions(self.path, dataset)
        ]


class Release:
    """One immutable release; the folder alone is enough, wherever it was copied to."""

    def __init__(self, folder: str | Path, *, pinned: bool = False) -> None:
        """Open the release in a folder. pinned: hold it, so that gc leaves it meanwhile."""
        self.folder = Path(folder)
        self._pin = Pin(self.folder) if pinned else None
        self.record: dict[str, Any] = releases.read(self.folder)
        self._sid_items: dict[str, SidItems] = {}

    def close(self) -> None:
        """Let gc have the release, unless samples of it are still in use; what is read here stays good."""
        if self._pin:
            self._pin.close()

    def __enter__(self) -> "Release":
        """Give the release; it is let go at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go."""
        self.close()

    @property
    def ref(self) -> str:
        """Give its name, such as `movietweetings@v3`."""
        return f"{self.record['dataset']}@v{self.record['version']}"

    @property
    def tables(self) -> list[str]:
        """Give the names of its tables."""
        return sorted(self.record["rows"])

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Read a table, all of it or some columns; raises WarehouseError listing those there are."""
        return parquet.read(self.folder, name, columns)

    @property
    def metrics(self) -> dict[str, Any]:
        """Give `metrics.json`: collisions, codebook use, reconstruction, ledger, audit."""
        metrics: dict[str, Any] = files.read_json(self.folder / "metrics.json")
        return metrics

    @property
    def vocabulary(self) -> Vocabulary:
        """Give the vocabulary that token ids are in."""
        return Vocabulary.load(self.folder / "vocabulary.json")

    @property
    def user_vocabulary(self) -> Vocabulary:
        """Give the vocabulary of users' token ids; raises WarehouseError where users have no SIDs."""
        if "user_sids" not in self.record["rows"]:
            raise WarehouseError(f"{self.ref}: users have no SIDs; add [users] to the recipe and run it")
        return Vocabulary.load(self.folder / "users" / "vocabulary.json")

    def vocabulary_of(self, embedding: str) -> Vocabulary:
        """Give the vocabulary of `sids_<embedding>`, where embeddings are tokenized each on its own."""
        return Vocabulary.load(self._apart(embedding) / "vocabulary.json")

    def trie(self, embedding: str = "") -> Trie:
        """Give the prefix tree over all SIDs, for constrained decoding; embedding: of `sids_<embedding>`."""
        return Trie.load(self._apart(embedding) / "trie.safetensors")

    def trie_mask(self, *, items: npt.ArrayLike | None = None, embedding: str = "") -> TrieMask:
        """Give the prefix tree as masks for many beams at once, of numpy; see `TrieMask`.

        items: item_indexes that alone may be found, such as those in stock; all of them without it. Raises
        DataError where there are none, or where they are anything else, such as a mask of booleans.
        """
        vocabulary = self.vocabulary_of(embedding)
        if items is None:
            return TrieMask(self.trie(embedding), vocabulary.sizes)
        chosen = self._chosen(np.asarray(items))
        sids = self._sids(f"sids_{embedding}" if embedding else "sids", vocabulary)
        trie = Trie.build(sids[chosen])
        named = np.where(trie.items < 0, -1, chosen[trie.items]).astype(np.int32)
        return TrieMask(replace(trie, items=named), vocabulary.sizes)

    def _chosen(self, items: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        known = int(self.record["rows"]["items"])
        if items.dtype.kind not in "iu" or not items.size:
            raise DataError(
                f"{self.ref}: items: expected one item_index or more, 0 to {known - 1}; got {items.size} "
                f"values of type {items.dtype}. np.flatnonzero makes item_indexes of a mask"
            )
        chosen = np.unique(items).astype(np.int64)
        if not 0 <= chosen[0] <= chosen[-1] < known:
            raise DataError(f"{self.ref}: items: expected 0 to {known - 1}, got {chosen[0]} to {chosen[-1]}")
        return chosen

    def logits_processor(
        self,
        *,
        tokenizer: "PreTrainedTokenizerBase | None" = None,
        dialect: str = "angle",
        prompt_length: int = 1,
        begin: int | None = None,
        end: int | None = None,
        items: npt.ArrayLike | None = None,
        embedding: str = "",
        in_place: bool = False,
    ) -> "SidLogitsProcessor":
        """Give what keeps `model.generate` to SIDs of this release: a transformers LogitsProcessor.

        tokenizer, dialect: whose ids codes have, and how it spells them; without one, ids are those of
        `vocabulary`. end: the token after an item, by default the tokenizer's or the vocabulary's eos.
        items: as in `trie_mask`. prompt_length, begin, in_place: as in `SidLogitsProcessor`. Raises
        MissingExtraError without transformers, DataError where the tokenizer lacks a token.
        """
        from sid_warehouse.constrained import SidLogitsProcessor
        from sid_warehouse.pretrained import dialect_named, token_ids

        vocabulary = self.vocabulary_of(embedding)
        if tokenizer is None:
            ids = code_ids(vocabulary)
            end = vocabulary.eos if end is None else end
        else:
            ids = token_ids(tokenizer, vocabulary, dialect_named(dialect))
            end = tokenizer.eos_token_id if end is None else end
        if end is None:
            raise DataError("end: the tokenizer has no eos; expected the token that follows an item")
        return SidLogitsProcessor(
            self.trie_mask(items=items, embedding=embedding),
            ids,
            end=end,
            prompt_length=prompt_length,
            begin=begin,
            in_place=in_place,
        )

    def pretrained_tokenizer(
        self,
        base: "str | Path | PreTrainedTokenizerBase | None" = None,
        *,
        dialect: str = "angle",
        embedding: str = "",
    ) -> "PreTrainedTokenizerBase":
        """Give a transformers tokenizer that has every SID token as one id; `save_pretrained` writes it.

        base: a tokenizer, or its folder, that they are added to; without one they stand alone, and ids are
        those of `vocabulary`. dialect: how codes are spelled (see dialects.py). Raises MissingExtraError
        without transformers, DataError where the dialect cannot spell these SIDs.
        """
        from sid_warehouse.pretrained import dialect_named, extended, standing_alone

        vocabulary = self.vocabulary_of(embedding)
        if base is None:
            return standing_alone(vocabulary, dialect_named(dialect))
        return extended(base, vocabulary, dialect_named(dialect))

    def items_of(self, sids: npt.ArrayLike, *, embedding: str = "") -> Found:
        """Give all items of SIDs (n, L), -1 after the end of shorter ones: in slot order, none for no SID."""
        return self.sid_items(embedding).of(sids)

    def sid_items(self, embedding: str = "") -> SidItems:
        """Give the way from SIDs back to items, read once; `ranked` makes beams a ranked list of items."""
        if embedding not in self._sid_items:
            vocabulary = self.vocabulary_of(embedding)
            name = f"sid_to_items_{embedding}" if embedding else "sid_to_items"
            items = self.table(name, ["item_indexes"])["item_indexes"].combine_chunks()
            self._sid_items[embedding] = SidItems(
                self._sids(name, vocabulary),
                items.flatten().to_numpy(),
                items.value_lengths().to_numpy(),
                vocabulary.sizes,
            )
        return self._sid_items[embedding]

    def _sids(self, table: str, vocabulary: Vocabulary) -> npt.NDArray[np.int32]:
        return padded_matrix(self.table(table, ["sid"])["sid"], vocabulary.length, -1)

    def tokenizer(self, embedding: str = "") -> "Scheme":
        """Give the fitted tokenizer; embedding: the one of `sids_<embedding>`."""
        from sid_tokenizers.registry import load

        return load(self._apart(embedding) / "tokenizer")

    def _apart(self, embedding: str) -> Path:
        """Give where the SIDs of an embedding have their files; raises WarehouseError where it has none."""
        if not embedding:
            return self.folder
        there = [name.removeprefix("sids_") for name in self.tables if name.startswith("sids_")]
        if embedding not in there:
            raise WarehouseError(
                f"{self.ref}: has no table sids_{embedding}; there are: {', '.join(there) or 'none'}"
            )
        return self.folder / f"sids_{embedding}"

    def samples(
        self,
        split: str,
        *,
        max_history: int = 50,
        level: str = "sid",
        padding: str = "left",
        expansion: str = "prefix",
        features: Sequence[str] = (),
        targets: str = "one",
        positions: bool = False,
        fixed: bool = True,
    ) -> Samples:
        """Give the samples of `train`, `valid` or `test` as numpy arrays of token ids; needs no torch.

        level: "sid", or "item" for one token an item: its item_index + 1, as 0 is padding. max_history: the
        newest items of a history that are kept. padding: the side that is filled up, "left" or "right".
        expansion: "prefix" for every sample, "last" for each user's last of the split. features: what is
        given of each event beside its item, some of event_type, value, time, time_gap, category (see
        loading/features.py). targets: "all" gives every item of a session, "one" the first. fixed: False
        makes a batch as wide as its longest history, for histories of thousands of items.

        Where SIDs differ in length, shorter ones are filled up with `pad` at their end, so that every
        item takes the same number of tokens. positions: give `history_positions` and `target_positions`
        too, where every code stands inside its item, as DiscRec reads them; `block_mask` of the samples
        goes with them. Raises DataError where SIDs differ in length, RecipeError for what is no option.
        """
        if split not in SPLITS:
            raise WarehouseError(f"{self.ref}: has no split {split!r}; there are: {', '.join(SPLITS)}")
        if level not in LEVELS:
            raise RecipeError(f"level: expected {', '.join(LEVELS)}; got {level!r}")
        return Samples(
            self.folder,
            split,
            self._item_tokens() if level == "item" else self._sid_tokens(positions),
            pad=0 if level == "item" else self.vocabulary.pad,
            max_history=max_history,
            positions=positions,
            padding=padding,
            expansion=expansion,
            features=features,
            targets=targets,
            fixed=fixed,
            categories=self._categories() if "category" in features else None,
            origin={"release": self.ref, "fingerprint": self.record["fingerprint"], "level": level},
        )

    def _sid_tokens(self, positions: bool) -> npt.NDArray[np.int32]:
        column = columns.column(self.folder, "sids", "token_ids")
        if positions:
            one_length(column.combine_chunks().value_lengths())
        tokens = columns.padded(column, self.vocabulary.length, self.vocabulary.pad)
        del column
        pa.default_memory_pool().release_unused()  # what was needed for reading, twice the tokens
        return tokens

    def _item_tokens(self) -> npt.NDArray[np.int32]:
        return np.arange(1, self.record["rows"]["items"] + 1, dtype=np.int32)[:, None]

    def _categories(self) -> Categories:
        return Categories.read(columns.column(self.folder, "items", "category_path"))

    @overload
    def sequences(
        self,
        split: str,
        *,
        max_history: int = ...,
        level: str = ...,
        padding: str = ...,
        expansion: str = ...,
        features: Sequence[str] = ...,
        targets: str = ...,
        positions: bool = ...,
        fixed: bool = ...,
        iterable: Literal[False] = ...,
    ) -> "TorchSamples": ...

    @overload
    def sequences(
        self,
        split: str,
        *,
        max_history: int = ...,
        level: str = ...,
        padding: str = ...,
        expansion: str = ...,
        features: Sequence[str] = ...,
        targets: str = ...,
        positions: bool = ...,
        fixed: bool = ...,
        iterable: Literal[True],
        batch_size: int | None = ...,
        shuffle: bool = ...,
        seed: int = ...,
        rank: int = ...,
        world_size: int = ...,
        drop_last: bool = ...,
        even: bool = ...,
    ) -> "TorchStream": ...

    def sequences(
        self,
        split: str,
        *,
        max_history: int = 50,
        level: str = "sid",
        padding: str = "left",
        expansion: str = "prefix",
        features: Sequence[str] = (),
        targets: str = "one",
        positions: bool = False,
        fixed: bool = True,
        iterable: bool = False,
        batch_size: int | None = None,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        even: bool = False,
    ) -> "TorchSamples | TorchStream":
        """Give the samples of a split as a torch Dataset of token ids, memory-mapped.

        Each sample is a dict: `history` (max_history * L,) left-padded and `target` (L,), both int64
        tensors; `history_length` in items, `user_index` and `target_item` as numbers; more as asked for:
        `Samples.batch` names all. max_history to fixed: as in `samples`, which gives the same as numpy
        arrays.

        Map-style by default: the DataLoader draws, batches and shards. iterable: the data set does so
        itself; with a batch_size it gives ready batches, to be read with `DataLoader(..., batch_size=None)`.
        shuffle to even: as `Stream` has them; they are for iterable alone. Raises MissingExtraError without
        torch.
        """
        from sid_warehouse.torch_samples import TorchSamples, TorchStream

        samples = self.samples(
            split,
            max_history=max_history,
            level=level,
            padding=padding,
            expansion=expansion,
            features=features,
            targets=targets,
            positions=positions,
            fixed=fixed,
        )
        if iterable:
            return TorchStream(
                samples.stream(
                    batch_size=batch_size,
                    shuffle=shuffle,
                    seed=seed,
                    rank=rank,
                    world_size=world_size,
                    drop_last=drop_last,
                    even=even,
                )
            )
        if batch_size is not None or shuffle or seed or rank or world_size != 1 or drop_last or even:
            raise RecipeError(
                "sequences: batch_size, shuffle, seed, rank, world_size, drop_last and even are for "
                "iterable=True; got iterable=False. Give them to the DataLoader and its sampler"
            )
        return TorchSamples(samples)
