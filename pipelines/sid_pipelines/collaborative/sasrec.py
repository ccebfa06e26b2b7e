"""SASRec: a transformer that predicts each user's next item; its table of items is what is published.

The only model here that reads order beyond a window. LETTER takes 32 columns of it, UniGRec 256.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from sid_pipelines.collaborative.base import CollaborativeModel, curve
from sid_pipelines.collaborative.events import TrainEvents
from sid_pipelines.stage import Progress
from sid_schemas import DataError
from sid_tokenizers.base import Vectors

MOST_SCORES = 4 << 30  # bytes


@dataclass(frozen=True)
class SASRec(CollaborativeModel):
    """Self-attentive sequential recommendation; the vectors are the table that input and output share.

    blocks, heads, dropout: of the transformer; heads divide dim. max_length: events that a prediction may
    look back; longer histories are cut into pieces, so that every event is a target (the repository
    keeps the last max_length events alone). loss: "ce", softmax over all items, which costs events x items
    and is refused where a batch needs more than 4 GiB; or "bce", each target against `negatives` items that
    the user does not have, as in the paper.
    epochs: at most; training ends where `patience` checks of one epoch in a row find no lower loss on a
    seeded tenth of the users' last train events, which are then no targets; 0 trains all epochs on all
    events. The vectors of the best check are kept. device: see lightgcn.py.

    negatives: items drawn for each target, with "bce". patience: checks without a lower loss after which
    training ends; 0 for all epochs on all events.
    """

    epochs: int = 30
    blocks: int = 2
    heads: int = 1
    dropout: float = 0.2
    max_length: int = 50
    loss: Literal["ce", "bce"] = "ce"
    negatives: int = 1
    learning_rate: float = 0.003
    batch_size: int = 64
    patience: int = 3
    device: str = "cpu"

    name: ClassVar[str] = "sasrec"
    source: ClassVar[str] = (
        "Kang and McAuley 2018 (Self-Attentive Sequential Recommendation); softmax over all items as in "
        "Klenitskiy and Vasilev 2023 (Turning Dross Into Gold Loss). Cutting long histories into pieces and "
        "ending on train events are ours"
    )
    needs: ClassVar[tuple[str, str] | None] = ("torch", "collaborative")

    def check_params(self) -> None:
        """Raise DataError where an option is out of range."""
        super().check_params()
        self._check(epochs=1, blocks=1, heads=1, max_length=1, negatives=1, batch_size=1, patience=0)
        self._check_above_zero("learning_rate")
        self._check_shares("dropout")
        if self.dim % self.heads:
            raise DataError(f"{self.name}: heads = {self.heads}, expected a divisor of dim = {self.dim}")

    def _fit(self, events: TrainEvents, progress: Progress) -> tuple[dict[str, Vectors], dict[str, Any]]:
        from sid_pipelines.collaborative.sasrec_training import train

        scores = 8 * self.batch_size * self.max_length * events.n_items  # and their gradient, in bytes
        if self.loss == "ce" and scores > MOST_SCORES:
            raise DataError(
                f"{self.name}: loss = 'ce' holds {scores / 2**30:.0f} GiB of scores per batch of "
                f"{events.n_items:,} items, expected 4 or less. Lower batch_size, or set loss = 'bce'"
            )

        vectors, facts = train(self, events, progress)
        self._check_finite(vectors, "lower learning_rate")
        return {"": vectors}, {**facts, "loss": curve(facts["loss"])}
