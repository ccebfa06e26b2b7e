"""What a probe is allowed, and what was chosen for it on the example's valid split; needs no torch."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from sid_pipelines.evaluation.ranking import K
from sid_schemas import RecipeError

REVISION = 2  # raised whenever a change can alter a probe's or a baseline's numbers


@dataclass(frozen=True)
class Settings:
    """The budget and form of a probe; the same for every release that is compared.

    steps: of training, each on batch_size pieces of histories. history: the newest items that are read.
    beams: SIDs that are searched, no fewer than an answer has items. width, layers, heads, dropout: of the
    transformer. learning_rate: after warming up; it falls to 0.
    """

    steps: int = 500
    batch_size: int = 64
    history: int = 20
    width: int = 64
    layers: int = 2
    heads: int = 4
    dropout: float = 0.2
    learning_rate: float = 5e-3
    weight_decay: float = 0.05
    beams: int = 50

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for one in fields(self):
            least = K if one.name == "beams" else 1 if isinstance(one.default, int) else 0
            value = getattr(self, one.name)
            if value < least:
                raise RecipeError(f"--{one.name.replace('_', '-')}: expected {least} or more, got {value}")

    def to_json(self) -> dict[str, Any]:
        """Give it for a record."""
        return asdict(self)
