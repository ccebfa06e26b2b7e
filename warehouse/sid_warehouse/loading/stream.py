"""The samples of a split in an order: shuffled by seed and epoch, dealt to ranks and workers, and resumed.

The order of an epoch is one permutation of all samples, which every process computes for itself. Its place p
goes to rank p % world_size; of a rank's batches, batch b goes to worker b % workers, and a DataLoader asks
its workers in turn. So what a rank is given does not depend on how many workers it has, and a place in the
epoch is one number. Nothing is stored but that number. Unlike torch's samplers it holds no list of all
samples.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sid_schemas import RecipeError
from sid_warehouse.loading.permutation import Permutation
from sid_warehouse.mapped import Rows

if TYPE_CHECKING:
    from sid_warehouse.samples import Samples

FORMAT = 1
AHEAD = 256  # samples that are read together where they are given one by one
PLACE = ("epoch", "step", "worker", "workers")


class Stream:
    """One rank's share of a split, epoch after epoch, as batches of numpy arrays or as single samples.

    batch_size: samples of a batch; None gives samples one by one. shuffle: another order for each seed and
    epoch. rank, world_size: which share of how many. drop_last: leave out the last samples of the order, so
    that every rank has equally many whole batches. even: give the first samples of the order again, so that
    every rank has equally many. With neither, every sample is given exactly once, and a rank may have one
    sample more than another, so perhaps one batch.
    """

    def __init__(
        self,
        samples: "Samples",
        *,
        batch_size: int | None = None,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        even: bool = False,
    ) -> None:
        """Check the options; raises RecipeError for what cannot be."""
        if batch_size is not None and batch_size < 1:
            raise RecipeError(f"batch_size: expected 1 or more, or None for single samples; got {batch_size}")
        if not 0 <= rank < world_size:
            raise RecipeError(f"rank: expected 0 to world_size - 1 = {world_size - 1}, got {rank}")
        if seed < 0:
            raise RecipeError(f"seed: expected 0 or more, got {seed}")
        if drop_last and even:
            raise RecipeError("drop_last, even: expected one of them at most: both give ranks equal shares")
        self.samples, self.batch_size, self.shuffle, self.seed = samples, batch_size, shuffle, seed
        self.rank, self.world_size, self.drop_last, self.even = rank, world_size, drop_last, even
        self.epoch = 0
        self.rewind()

    def rewind(self) -> None:
        """Stand at the start of the epoch, whatever state was loaded."""
        self._step, self._worker, self._workers = 0, 0, 1
        self._resumed = False

    def __len__(self) -> int:
        """Give how many batches, or single samples, this rank is given in an epoch."""
        return -(-self._share() // (self.batch_size or 1))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield what is left of the epoch after a loaded state, or else all of it."""
        return self.shard(0, 1)

    def shard(self, worker: int, workers: int) -> Iterator[dict[str, Any]]:
        """Yield a worker's part of `__iter__`: every batch, or sample, whose turn it is.

        Raises RecipeError where the loaded state is of a worker, and not of this one.
        """
        step = self._start(worker, workers)
        for next_step, one in self._from(step, workers):
            self._step = next_step
            yield one

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of another epoch; raises RecipeError below 0. The same epoch keeps its place."""
        if epoch < 0:
            raise RecipeError(f"epoch: expected 0 or more, got {epoch}")
        if epoch != self.epoch:
            self.epoch = epoch
            self.rewind()

    def state_dict(self) -> dict[str, Any]:
        """Give where the stream stands: plain numbers and text, to be saved beside a model.

        After the last batch it stands at the end: resumed there, it gives nothing until `set_epoch`.
        """
        place = {"epoch": self.epoch, "step": self._step, "worker": self._worker, "workers": self._workers}
        return {"format": FORMAT, **self.settings, **place}

    def state_after(self, batches: int) -> dict[str, Any]:
        """Give the state after so many batches (or samples) of this epoch, counted from its start.

        For whoever reads through a DataLoader with workers, which run ahead: count what was used. Such a
        state may be resumed with any number of workers.
        """
        if not 0 <= batches <= len(self):
            raise RecipeError(f"batches: expected 0 to {len(self)}, as many as an epoch has; got {batches}")
        return self.state_dict() | {"step": batches, "worker": 0, "workers": 1}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state was saved; raises RecipeError where it is of anything but this very stream."""
        for name, here in {"format": FORMAT, **self.settings}.items():
            if name not in state or state[name] != here:
                raise RecipeError(
                    f"state of a stream: {name} is {state.get(name)!r} there and {here!r} here. Open the "
                    "stream as it was when the state was saved, or begin without it"
                )
        epoch, step, worker, workers = (state.get(name) for name in PLACE)
        if not all(type(number) is int and number >= 0 for number in (epoch, step, worker, workers)):
            found = {name: state.get(name) for name in PLACE}
            raise RecipeError(f"state of a stream: expected numbers from 0, got {found}; it is damaged")
        self.epoch, self._step, self._worker, self._workers = epoch, step, worker, workers  # type: ignore[assignment]
        self._resumed = True

    @property
    def settings(self) -> dict[str, Any]:
        """Give what decides about the order and the batches, and about the samples themselves."""
        names = ("batch_size", "shuffle", "seed", "rank", "world_size", "drop_last", "even")
        return self.samples.settings | {name: getattr(self, name) for name in names}

    def _start(self, worker: int, workers: int) -> int:
        """Give a worker's first step, and stand there: where a loaded state says, or at the start."""
        if not self._resumed:
            self._step, self._worker, self._workers = 0, 0, 1
        if self._workers == 1:
            self._step += worker
        elif (self._worker, self._workers) != (worker, workers):
            raise RecipeError(
                f"state of a stream: worker {self._worker} of {self._workers} saved it, worker {worker} of "
                f"{workers} loads it. Use as many workers as then; a state of state_after fits any number"
            )
        self._worker, self._workers, self._resumed = worker, workers, False
        return self._step

    def _from(self, step: int, stride: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield what each step gives, and the step that comes after it."""
        order = Permutation(len(self.samples), seed=self.seed, epoch=self.epoch) if self.shuffle else None
        share, size = self._share(), self.batch_size
        while step < len(self):
            if size:
                mine = np.arange(step * size, min((step + 1) * size, share))
                step += stride
                yield step, self.samples.batch(self._indices(mine, order)).arrays
            else:
                mine = np.arange(step, min(step + AHEAD * stride, share), stride)
                for one in self.samples.batch(self._indices(mine, order)):
                    step += stride
                    yield step, one

    def _indices(self, mine: Rows, order: Permutation | None) -> Rows:
        """Give the samples that stand at some places of this rank's share."""
        places = (mine * self.world_size + self.rank) % len(self.samples)
        return places if order is None else order(places)

    def _share(self) -> int:
        """Give how many samples this rank has in an epoch."""
        n, ranks, size = len(self.samples), self.world_size, self.batch_size or 1
        if self.drop_last:
            return n // (ranks * size) * size
        if self.even:
            return -(-n // ranks)
        return (n - self.rank + ranks - 1) // ranks
