"""The one epoch loop of this package: shuffled batches, an optimizer, its schedule, a look at the loss.

Only the `*_training.py` doors come here. What is trained, and on what loss, is theirs; that an epoch is the
same everywhere is this file's.
"""

from collections.abc import Callable, Iterable
from math import ceil
from typing import Literal

import torch
from torch import Tensor, nn

from sid_schemas import DataError

Optimizer = Literal["adamw", "adam", "adagrad"]
Schedule = Literal["linear", "constant"]

OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "adagrad": torch.optim.Adagrad}


class Loop:
    """Epochs over rows 0 to rows - 1 that change parameters.

    name: of the scheme, for messages. generator: of the order of rows. epochs: how many the schedule is
    laid out for; `epoch` runs one. batch_size: rows per step. learning_rate, weight_decay, optimizer: adam
    adds the decay to the gradient, adamw takes it off the parameters. schedule_warmup: epochs in which the
    rate rises; linear: it falls to 0 after, constant: it stays. clip: greatest norm of the gradient; 0 for
    none. device: where `loss_of` wants its row numbers.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        rows: int,
        *,
        name: str,
        generator: torch.Generator,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        weight_decay: float = 0.0,
        optimizer: Optimizer = "adamw",
        schedule: Schedule = "constant",
        schedule_warmup: int = 0,
        clip: float = 0.0,
        device: str = "cpu",
    ) -> None:
        """Make the optimizer and lay out its schedule; nothing is drawn yet."""
        self.parameters = list(parameters)
        self.rows, self.batch_size, self.clip, self.device = rows, batch_size, clip, device
        self.name, self.generator, self.learning_rate = name, generator, learning_rate
        self.optimizer = OPTIMIZERS[optimizer](self.parameters, lr=learning_rate, weight_decay=weight_decay)
        batches = ceil(rows / batch_size)
        factor = rate_factor(epochs * batches, schedule_warmup * batches, schedule)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)

    def epoch(self, loss_of: Callable[[Tensor], Tensor], order: Tensor | None = None) -> float:
        """Take one step per batch and give the mean of their losses.

        loss_of: from row numbers (b,) int64 to the loss of that batch, a scalar. order: (rows,) the row
        numbers of this epoch as they come; None for all, shuffled. Raises DataError where the loss is not
        finite, before the step is taken.
        """
        if order is None:
            order = torch.randperm(self.rows, generator=self.generator)
        losses = []
        for rows in torch.split(order, self.batch_size):
            self.optimizer.zero_grad()
            loss = loss_of(rows.to(self.device))
            self.check(loss)
            loss.backward()  # type: ignore[no-untyped-call]
            if self.clip:
                nn.utils.clip_grad_norm_(self.parameters, self.clip)
            self.optimizer.step()
            self.scheduler.step()
            losses.append(float(loss.detach()))
        return sum(losses) / len(losses)

    def check(self, numbers: Tensor) -> None:
        """Raise DataError where a loss, or whatever else came of training, is not finite."""
        if not bool(torch.isfinite(numbers.detach()).all()):
            raise DataError(
                f"{self.name}: training diverged (loss is not finite); lower learning_rate "
                f"(now {self.learning_rate:g})"
            )

    def check_parameters(self) -> None:
        """Raise DataError where parameters are so large that norms made of them are not finite."""
        self.check(torch.stack([one.detach().square().sum() for one in self.parameters]))


def rate_factor(steps: int, warmup: int, schedule: Schedule) -> Callable[[int], float]:
    """Give what the learning rate is multiplied by at each step: it rises, then falls to 0 or stays.

    >>> [rate_factor(4, 2, "linear")(step) for step in range(5)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    steps = max(steps, 1)
    rise = min(max(warmup, 1), steps)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 1.0 if schedule == "constant" else max(steps - step, 0) / max(steps - rise, 1)

    return factor
