"""Settled: IDs of new items around those that are published, by what a release has frozen.

assign.py writes what is settled here. Codes of vectors may be another item's, so the policy of the base
resolves them; a scheme that gives every item an ID of its own is told which are taken.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sid_pipelines.collisions import as_they_are
from sid_pipelines.contents import apart
from sid_pipelines.identified import Identified
from sid_pipelines.stage import count
from sid_pipelines.vectors import Stored, blocks_from
from sid_schemas import DataError
from sid_schemas.tables import named_sids
from sid_tokenizers import Tokenizer, Vocabulary, resolve
from sid_tokenizers.base import Codes
from sid_tokenizers.collisions import Policy, Resolution, group_sizes
from sid_tokenizers.indexers.paths import stacked
from sid_tokenizers.metrics import ReconstructionTotal
from sid_warehouse.arrays import matrix, padded_matrix
from sid_warehouse.believed import believed
from sid_warehouse.stages import StageOutput

Popularity = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Published:
    """The SIDs of a release, of one embedding where several are tokenized.

    folder: where what they were made by lies. tokenized, resolved: the facts of it. codes: (n, L), as the
    scheme gave them; sids: (n, W), -1 where there is no digit; slots, keys: (n,).
    """

    folder: Path
    tokenized: Mapping[str, Any]
    resolved: Mapping[str, Any]
    codes: Codes
    sids: Codes
    slots: npt.NDArray[np.int32]
    keys: pa.ChunkedArray
    vocabulary: Vocabulary

    @classmethod
    def of(cls, base: StageOutput, name: str) -> "Published":
        """Read them. name: of the embedding, "" for those of the release."""
        folder = apart(base.folder, name)
        facts = base.facts["sids"][name] if name else base.facts
        vocabulary = Vocabulary.load(folder / "vocabulary.json")
        table = base.read(named_sids(name)[0].name, ["codes", "sid", "slot", "sid_key"])
        sids = padded_matrix(table["sid"], vocabulary.length, -1)
        return cls(
            folder,
            facts["tokenizer"],
            facts["collisions"],
            sids if vocabulary.places else matrix(table["codes"]).astype(np.int32, copy=False),
            sids,
            table["slot"].to_numpy(),
            table["sid_key"],
            vocabulary,
        )

    def __len__(self) -> int:
        """Give how many items have a SID."""
        return len(self.sids)


@dataclass(frozen=True)
class Settled:
    """IDs of new items.

    codes: (n, L), as the scheme gave them. done: the IDs they became. vocabulary: of these and of published
    ones. joined: published items that stood alone under their codes, and no longer do. error: of
    reconstruction, None where nothing is decoded.
    """

    codes: Codes
    done: Resolution
    vocabulary: Vocabulary
    joined: int = 0
    error: Mapping[str, float] | None = None

    def after(self, published: Published) -> "Settled":
        """Give this, after asserting that every published token keeps its id."""
        kept = self.vocabulary.strings()[: len(published.vocabulary)] == published.vocabulary.strings()
        assert kept, f"tokens would move: {published.vocabulary.levels} to {self.vocabulary.levels}"
        return self

    def all_codes(self, published: Published) -> Codes:
        """Give the codes of all items."""
        return stacked(published.codes, self.codes)

    def all_sids(self, published: Published) -> Codes:
        """Give the SIDs of all items."""
        return stacked(published.sids, self.done.sids)


def settled_nothing(published: Published) -> Settled:
    """Give the IDs of no items."""
    vocabulary, none = published.vocabulary, np.empty(0, dtype=np.int32)
    nothing = np.empty((0, vocabulary.length), dtype=np.int32)
    levels = vocabulary.sizes
    done = Resolution(nothing, none, none.astype(bool), none, levels, _state(published), 0)
    return Settled(np.empty((0, published.codes.shape[1]), dtype=np.int32), done, vocabulary)


def settled_ids(published: Published, found: Identified) -> Settled:
    """Give the IDs of a scheme that leaves nothing to resolve."""
    done = as_they_are(found.codes, found.vocabulary, found.duplicates)
    return Settled(found.codes, done, found.vocabulary).after(published)


def settled_codes(
    published: Published,
    tokenizer: Tokenizer,
    policy: Policy,
    vectors: Stored,
    popularity: Popularity | None,
    progress: Callable[[int, int], None],
) -> Settled:
    """Give the codes of items behind the published ones, resolved; raises DataError where that cannot be."""
    first, n = len(published), len(vectors)
    codes, total = np.empty((n - first, len(tokenizer.levels)), dtype=np.int32), ReconstructionTotal()
    for start, X in blocks_from(vectors, first):
        made = codes[start - first : start - first + len(X)] = tokenizer.encode(X)
        if tokenizer.reconstructs:
            total.add(X, tokenizer.decode(made))
        progress(start + len(X) - first, n - first)
    joined = _joined_alone(published, codes, policy)
    if joined and policy.length == "L or L+1":
        raise DataError(
            f"assign: {count(joined, 'published SID')} without a suffix would begin those of new items with "
            f"the same codes, and {policy.name} may not give published items one. Build anew with "
            "[collisions] policy = 'suffix' or 'next-nearest', which take new items, or `sidmill retokenize`"
        )
    done = resolve(
        codes,
        lambda rows: vectors.rows(rows + first),
        tokenizer,
        policy=policy,
        popularity=None if popularity is None else popularity[first:],
        taken=published.sids,
        state=_state(published),
    )
    return Settled(codes, done, Vocabulary(done.levels), joined, total.result()).after(published)


def _state(published: Published) -> dict[str, npt.NDArray[Any]]:
    from safetensors.numpy import load_file

    with believed(published.folder):
        state: dict[str, npt.NDArray[Any]] = load_file(published.folder / "collisions" / "state.safetensors")
    return state


def _joined_alone(published: Published, codes: Codes, policy: Policy) -> int:
    """Give how many published items stood alone under their codes, and no longer do.

    Where the last digit says "alone", as GRID's 0 does, it is no longer true of them; exports that
    promise it must refuse.
    """
    if not policy.adds or not len(codes):
        return 0
    prefixes = published.sids[:, : codes.shape[1]]
    _, before = group_sizes(prefixes)
    _, after = group_sizes(np.concatenate([prefixes, codes]))
    return int(((before == 1) & (after[: len(prefixes)] > 1)).sum())
