"""What users open: a warehouse, a release in it, and in that tables, SIDs, samples, codebooks."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sid_schemas import WarehouseError
from sid_tokenizers.positions import one_length
from sid_tokenizers.trie import Trie
from sid_tokenizers.vocabulary import Vocabulary
from sid_warehouse import copies, files, origin, parquet, releases
from sid_warehouse.arrays import padded_matrix
from sid_warehouse.locks import Pin
from sid_warehouse.names import Ref
from sid_warehouse.samples import Samples

SPLITS = ("train", "valid", "test")

if TYPE_CHECKING:
    from sid_tokenizers.scheme import Scheme
    from sid_warehouse.torch_samples import TorchSamples


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

    def samples(self, split: str, *, max_history: int = 50, positions: bool = False) -> Samples:
        """Give the samples of `train`, `valid` or `test` as numpy arrays of token ids; needs no torch.

        Where SIDs differ in length, shorter ones are filled up with `pad` at their end, so that every
        item takes the same number of tokens. positions: give `history_positions` and `target_positions`
        too, where every code stands inside its item, as DiscRec reads them; `block_mask` of the samples
        goes with them. Raises DataError where SIDs differ in length.
        """
        if split not in SPLITS:
            raise WarehouseError(f"{self.ref}: has no split {split!r}; there are: {', '.join(SPLITS)}")
        vocabulary = self.vocabulary
        column = self.table("sids", ["token_ids"])["token_ids"]
        if positions:
            one_length(column.combine_chunks().value_lengths())
        tokens = padded_matrix(column, vocabulary.length, vocabulary.pad)
        return Samples(
            self.folder, split, tokens, pad=vocabulary.pad, max_history=max_history, positions=positions
        )

    def sequences(self, split: str, *, max_history: int = 50, positions: bool = False) -> "TorchSamples":
        """Give the samples of a split as a map-style torch Dataset of SID token ids, memory-mapped.

        Each sample is a dict: `history` (max_history * L,) left-padded and `target` (L,), both int64
        tensors; `history_length` in items, `user_index` and `target_item` as numbers.
        positions: as in `samples`. Raises MissingExtraError without torch; `samples` gives the same as
        numpy arrays.
        """
        from sid_warehouse.torch_samples import TorchSamples

        return TorchSamples(self.samples(split, max_history=max_history, positions=positions))
