"""What the fusions that torch trains share: how content is made ready, and how long and fast they learn."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from sid_pipelines.fusion.base import Fusion
from sid_pipelines.fusion.concat import Concat
from sid_pipelines.fusion.inputs import Arrays, FitRows, Mask, Modality, any_there
from sid_pipelines.fusion.whitening import KINDS, Kind, check_shrinkage
from sid_schemas import DataError
from sid_tokenizers.base import Vectors

if TYPE_CHECKING:
    from sid_pipelines.fusion.training import Schedule


@dataclass(frozen=True, kw_only=True)
class Trained(Fusion):
    """A fusion that learns a projection of content, which is every input but the collaborative one.

    Several content inputs are put side by side as `concat` does, each with the same weight.

    whiten, shrinkage: of content before the projection, as in `concat`. epochs: passes over the fit items
    (or pairs), max_steps: but no more batches than this, 0 for no bound. batch_size: also how many
    negatives there are. learning_rate: of AdamW, falling linearly to zero. weight_decay: AdamW's.
    """

    needs: ClassVar[tuple[str, str] | None] = ("torch", "torch")

    whiten: Kind = "scale"
    shrinkage: float = 0.5
    epochs: int = 100
    max_steps: int = 1000
    batch_size: int = 512
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2

    def check_params(self, inputs: Mapping[str, str]) -> None:
        """Raise DataError naming an option that does not fit."""
        super().check_params(inputs)
        check_shrinkage(self.shrinkage)
        if self.whiten not in KINDS:
            raise DataError(f"whiten: expected one of {', '.join(KINDS)}, got {self.whiten!r}")
        least = {"epochs": 1, "max_steps": 0, "batch_size": 2, "weight_decay": 0}
        for option, least_value in least.items():
            if getattr(self, option) < least_value:
                raise DataError(f"{option}: expected >= {least_value}, got {getattr(self, option)}")
        for option in ("learning_rate", "temperature"):
            if not 0 < getattr(self, option, 1.0) < np.inf:
                raise DataError(f"{option}: expected a number > 0, got {getattr(self, option)}")
        if getattr(self, "hidden", 0) < 0:
            raise DataError(f"hidden: expected >= 0, got {self.hidden}")  # type: ignore[attr-defined]

    @property
    def ready(self) -> Concat:
        """Give how content is made ready."""
        return Concat(whiten=self.whiten, shrinkage=self.shrinkage, unit_blocks=False, normalize=False)

    @property
    def schedule(self) -> "Schedule":
        """Give how long and how fast it learns; imports torch."""
        from sid_pipelines.fusion.training import Schedule

        return Schedule(
            self.epochs, self.max_steps, self.batch_size, self.learning_rate, self.weight_decay, self.seed
        )

    def content(self, inputs: Mapping[str, str]) -> list[str]:
        """Give the names of the inputs that are content."""
        return [name for name, kind in inputs.items() if kind != "collaborative"]

    def scope(self, inputs: Mapping[str, Modality]) -> Mask:
        """Give the items with some content, and with the collaborative vector where that is an input."""
        kinds = {name: one.kind for name, one in inputs.items()}
        content = self.content(kinds)
        allowed = any_there({name: inputs[name].present for name in content})
        for name in set(inputs) - set(content):
            allowed = allowed & inputs[name].present
        return allowed

    def learn_content(self, rows: FitRows) -> Arrays:
        """Learn how content is made ready."""
        names = self.content(rows.kinds)
        return self.ready.learn(
            FitRows(
                {name: rows.blocks[name] for name in names},
                {name: rows.present[name] for name in names},
                {name: rows.kinds[name] for name in names},
                rows.items,
            )
        )[0]

    def made_ready(
        self,
        arrays: Arrays,
        blocks: Mapping[str, Vectors],
        there: Mapping[str, Mask],
        kinds: Mapping[str, str],
    ) -> tuple[Vectors, Mask]:
        """Give content, numbers with a mean square of 1, and which items have any: (m, d), (m,)."""
        names = self.content(kinds)
        have = {name: there[name] for name in names}
        joined = self.ready.joined(arrays, {name: blocks[name] for name in names}, have)
        return joined * np.float32(joined.shape[1] ** 0.5), any_there(have)
