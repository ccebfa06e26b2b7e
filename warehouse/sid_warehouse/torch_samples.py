"""The door to torch: a split as a map-style or an iterable Dataset, numpy arrays as tensors without a copy.

Only this module and loading/collator.py import it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sid_schemas import MissingExtraError
from sid_warehouse.loading.batch import Batch
from sid_warehouse.loading.stream import Stream
from sid_warehouse.samples import Samples

try:
    import torch
    from torch.utils.data import Dataset, IterableDataset, default_collate, get_worker_info
    from torch.utils.data._utils.collate import default_collate_fn_map
except ImportError as error:
    raise MissingExtraError("Reading sequences as a torch Dataset", "torch") from error

MOST_WORKERS = 4096  # of one DataLoader


class Sample(dict[str, Any]):
    """One sample of a batch, of a type of its own, by which torch's collation knows to take it whole."""


class TorchBatch(Batch):
    """A batch of tensors, whose samples are of that type."""

    def __getitem__(self, index: int) -> Sample:
        """Give one sample, as `Batch` does."""
        return Sample(super().__getitem__(index))


def stacked(batch: Batch | Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Give a batch as one tensor for each name; torch's own collation does this with our batches too."""
    if isinstance(batch, Batch):
        return batch.arrays
    collated: dict[str, Any] = default_collate([dict(sample) for sample in batch])
    return collated


def _collated(batch: Batch | Sequence[Sample], *, collate_fn_map: Any = None) -> dict[str, Any]:
    return stacked(batch)


default_collate_fn_map[Sample] = _collated  # torch's own place for types that it does not know


class TorchSamples(Dataset[dict[str, Any]]):
    """`Samples` with tensors for arrays; any number of DataLoader workers may read it."""

    def __init__(self, samples: Samples) -> None:
        """Wrap the samples of one split."""
        self.samples = samples

    def __len__(self) -> int:
        """Give the number of samples."""
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Give one sample, as `Samples` does, arrays as tensors."""
        return _tensors(self.samples[index])

    def __getitems__(self, indices: Sequence[int]) -> TorchBatch:
        """Give several at once, as a DataLoader asks for them."""
        return TorchBatch(_tensors(self.samples.batch(indices).arrays))

    @property
    def category_names(self) -> tuple[str, ...]:
        """Give the names of the feature "category", as `Samples.category_names` does."""
        return self.samples.category_names

    def block_mask(self, *, eos: bool = False) -> torch.Tensor:
        """Give which token of a history may look at which, as `Samples.block_mask` does: a bool tensor."""
        return torch.from_numpy(self.samples.block_mask(eos=eos))

    def blocks(self) -> torch.Tensor:
        """Give the place of each token's item, as `Samples.blocks` does: (max_history * L,) int64."""
        return torch.from_numpy(self.samples.blocks())


class TorchStream(IterableDataset[dict[str, Any]]):
    """`Stream` with tensors for arrays; each DataLoader worker yields its own part.

    With a batch_size it yields batches: give the DataLoader batch_size=None. It keeps torchdata's protocol of
    stateful data sets. In shared memory are the epoch, so that workers that stay (persistent_workers) see it,
    and which workers went on from a loaded state, so that those of the next iteration begin at the start.
    """

    def __init__(self, stream: Stream) -> None:
        """Wrap one rank's share of a split."""
        self.stream = stream
        self._epoch = torch.full((), stream.epoch, dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]
        self._went_on = torch.zeros(MOST_WORKERS, dtype=torch.bool)
        self._went_on.share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        """Give how many batches, or single samples, this rank is given in an epoch."""
        return len(self.stream)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield batches or samples: this worker's, or all of them where there are no workers."""
        self.stream.set_epoch(int(self._epoch))
        worker = get_worker_info()
        if worker is None:
            return map(_tensors, self.stream.shard(0, 1))
        if self._went_on[worker.id]:
            self.stream.rewind()  # this process is a new copy of one that has the state still
        self._went_on[worker.id] = True
        return map(_tensors, self.stream.shard(worker.id, worker.num_workers))

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of another epoch, as `Stream.set_epoch` does; call it before every epoch."""
        self.stream.set_epoch(epoch)
        self._epoch.fill_(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Give where the stream stands in this process, as `Stream.state_dict` does."""
        return self.stream.state_dict()

    def state_after(self, batches: int) -> dict[str, Any]:
        """Give the state after so many batches of the epoch, as `Stream.state_after` does."""
        return self.stream.state_after(batches)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state was saved, as `Stream.load_state_dict` does, in the next iteration.

        Workers that stay (persistent_workers) have to be told before they start.
        """
        self.stream.load_state_dict(state)
        self._epoch.fill_(self.stream.epoch)
        self._went_on.fill_(False)


def _tensors(arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        for name, value in arrays.items()
    }
