"""How fusions are trained: one loop and one contrastive loss. The only file here that needs torch.

All randomness comes from one generator of our own, and all is computed on one core, so that the same call
gives the same bytes. What is learned goes back as numpy, and the transforms need no torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, layer_norm, normalize

from sid_pipelines.fusion.inputs import Arrays, Rows
from sid_schemas import DataError
from sid_tokenizers.base import Vectors
from sid_tokenizers.learned.one_thread import one_thread
from sid_tokenizers.learned.perceptron import Perceptron

EPSILON = 1e-5  # added to variances, as torch's LayerNorm does
PROBED = 2000  # items among which top-1 is looked for
Layers = list[tuple[Tensor, Tensor]]  # weight and bias of each


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: see the options of the same names of `Trained`."""

    epochs: int
    max_steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    seed: int


def descend(
    parameters: Sequence[Tensor],
    n: int,
    loss_of: Callable[[Tensor], Tensor],
    schedule: Schedule,
    *,
    name: str,
) -> list[float]:
    """Lower a loss over batches of n examples with AdamW, and give the mean loss of each epoch.

    loss_of: takes the numbers of a batch's examples. The rate falls linearly to zero. Each epoch leaves out
    the examples that fill no batch, other ones each time, because a loss within a batch depends on its size.
    Raises DataError where a loss is not finite.
    """
    generator = torch.Generator().manual_seed(schedule.seed)
    size = min(schedule.batch_size, n)
    per_epoch = n // size
    steps = min(schedule.epochs * per_epoch, schedule.max_steps or schedule.epochs * per_epoch)
    optimizer = torch.optim.AdamW(
        parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay, foreach=True
    )
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    means: list[float] = []
    for epoch in range(ceil(steps / per_epoch)):
        order = torch.randperm(n, generator=generator)
        losses = []
        for place in range(min(per_epoch, steps - epoch * per_epoch)):
            optimizer.zero_grad()
            loss = loss_of(order[place * size : (place + 1) * size])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            falling.step()
            losses.append(loss.detach())
        means.append(float(torch.stack(losses).mean()))
        if not np.isfinite(means[-1]):
            raise DataError(
                f"fusion {name!r}: training diverged (loss is not finite); lower learning_rate "
                f"(now {schedule.learning_rate:g})"
            )
    return means


def info_nce(A: Tensor, B: Tensor, temperature: float, taken: Tensor | None = None) -> Tensor:
    """Give the symmetric InfoNCE of (b, d) rows that belong together, by cosine, negatives from the batch.

    taken: (b, b) bool, pairs of rows that are no negatives (never the diagonal).
    """
    logits = normalize(A, dim=1) @ normalize(B, dim=1).T / temperature
    if taken is not None:
        logits = logits.masked_fill(taken, -torch.inf)
    labels = torch.arange(len(A))
    both: Tensor = cross_entropy(logits, labels) + cross_entropy(logits.T, labels)
    return both / 2


def train_adaln(
    content: Vectors, target: Vectors, schedule: Schedule, *, temperature: float
) -> tuple[Arrays, dict[str, Any]]:
    """Learn E_T = (1 + s(E_S)) * LN(W E_S + b) + t(E_S) so that items find themselves among E_C.

    content: (n, d), target: (n, e), row by row the same items. s and t are linear and start at zero. Gives
    weight_w, weight_s, weight_t (e, d) and bias_* (e,).
    """
    with one_thread():
        generator = torch.Generator().manual_seed(schedule.seed)
        x, y = torch.from_numpy(content), torch.from_numpy(target)
        d, e = content.shape[1], target.shape[1]
        learned = {"weight_w": torch.randn(e, d, generator=generator) / d**0.5, "bias_w": torch.zeros(e)}
        for part in "st":
            learned |= {f"weight_{part}": torch.zeros(e, d), f"bias_{part}": torch.zeros(e)}
        for tensor in learned.values():
            tensor.requires_grad_()

        def adapted(rows: Tensor) -> Tensor:
            hidden, shift, scale = (rows @ learned[f"weight_{p}"].T + learned[f"bias_{p}"] for p in "wts")
            found: Tensor = (1 + scale) * layer_norm(hidden, (e,), eps=EPSILON) + shift
            return found

        def top_1() -> float:
            some = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:PROBED]
            with torch.no_grad():
                found = (normalize(y[some], dim=1) @ normalize(adapted(x[some]), dim=1).T).argmax(dim=1)
            return float((found == torch.arange(len(some))).float().mean())

        before = top_1()
        losses = descend(
            list(learned.values()),
            len(x),
            lambda rows: info_nce(y[rows], adapted(x[rows]), temperature),
            schedule,
            name="adaln-infonce",
        )
        facts = {"losses": _shown(losses), "top_1": {"untrained": before, "trained": top_1()}}
        return {part: tensor.detach().numpy() for part, tensor in learned.items()}, facts


def train_projection(
    content: Vectors,
    target: Vectors,
    schedule: Schedule,
    *,
    hidden: int,
    temperature: float,
    unit: bool,
) -> tuple[Perceptron, dict[str, Any]]:
    """Learn P so that P(content) . target is largest for the item's own target: CE over the batch's items."""
    with one_thread():
        generator = torch.Generator().manual_seed(schedule.seed)
        sizes = [content.shape[1], *([hidden] if hidden else []), target.shape[1]]
        # From zero the descent of a linear P is convex; but what is zero has no direction to scale.
        layers = _layers(sizes, generator, zero_last=not unit)
        x, y = torch.from_numpy(content), torch.from_numpy(target)

        def loss(rows: Tensor) -> Tensor:
            left, right = _through(layers, x[rows]), y[rows]
            if unit:
                left, right = normalize(left, dim=1), normalize(right, dim=1)
            return cross_entropy(left @ right.T / temperature, torch.arange(len(rows)))

        losses = descend(
            [part for layer in layers for part in layer], len(x), loss, schedule, name="cf-align"
        )
        return _perceptron(layers, shortcut=False), {"losses": _shown(losses)}


def train_pairs(
    start: Vectors, pairs: Rows, schedule: Schedule, *, hidden: int, temperature: float
) -> tuple[Perceptron, dict[str, Any]]:
    """Learn x + f(x), f zero at the start, so that items of a pair find each other among the batch's pairs.

    start: (n, d); pairs: (p, 2) rows of it. An item that stands in several of a batch's pairs is no
    negative of itself or of its partners there.
    """
    with one_thread():
        generator = torch.Generator().manual_seed(schedule.seed)
        d = start.shape[1]
        layers = _layers([d, *([hidden] if hidden else []), d], generator, zero_last=True)
        x, both = torch.from_numpy(start), torch.from_numpy(pairs)

        def loss(rows: Tensor) -> Tensor:
            left, right = both[rows].T
            L, R = (x[side] + _through(layers, x[side]) for side in (left, right))
            # Row i's negatives are the right ends of the other pairs, and column j's the left ends.
            taken = (left[:, None] == left) | (right[:, None] == right)
            taken |= (left[:, None] == right) | (right[:, None] == left)
            return info_nce(L, R, temperature, taken.fill_diagonal_(False))

        losses = descend(
            [part for layer in layers for part in layer], len(both), loss, schedule, name="pairs-contrastive"
        )
        return _perceptron(layers, shortcut=True), {"losses": _shown(losses)}


def _layers(sizes: Sequence[int], generator: torch.Generator, *, zero_last: bool) -> Layers:
    layers = []
    for before, after in pairwise(sizes):
        weight = torch.randn(after, before, generator=generator) * (2 / (before + after)) ** 0.5
        layers.append((weight, torch.zeros(after)))
    if zero_last:
        layers[-1][0].zero_()
    for layer in layers:
        for part in layer:
            part.requires_grad_()
    return layers


def _through(layers: Layers, x: Tensor) -> Tensor:
    for place, (weight, bias) in enumerate(layers):
        x = torch.addmm(bias, torch.relu(x) if place else x, weight.T)
    return x


def _perceptron(layers: Layers, *, shortcut: bool) -> Perceptron:
    weights = tuple(weight.detach().numpy() for weight, _ in layers)
    return Perceptron(weights, tuple(bias.detach().numpy() for _, bias in layers), shortcut)


def _shown(losses: Sequence[float]) -> dict[str, Any]:
    return {"first": losses[0], "last": losses[-1], "epochs": len(losses)}
