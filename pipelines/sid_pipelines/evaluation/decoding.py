"""Beam search that cannot leave the tree of SIDs: beams are SIDs, and become a ranked list of items.

A history is read once; beams then go on from its cache, token by token. With as many beams as there are SIDs
nothing is cut off, and the ranking is that of all SIDs by likelihood; tests hold it to that.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sid_pipelines.evaluation.codes import END, Codes
from sid_pipelines.evaluation.network import Network
from sid_pipelines.evaluation.questions import Items, Questions
from sid_pipelines.evaluation.ranking import K

BATCH = 64  # questions at once, fewer where codes are many
CELLS = 2**24  # numbers of one block of scores


@dataclass
class Beams:
    """Beams of a batch, (b, B) each but sids (b, B, W).

    nodes: where each is in the tree; of one that has ended, -1. A beam whose score is -inf is none.
    """

    scores: Tensor
    nodes: npt.NDArray[np.int64]
    sids: npt.NDArray[np.int32]
    over: npt.NDArray[np.bool_]


def answers(
    network: Network,
    codes: Codes,
    asked: Questions,
    beams: int,
    history: int,
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[tuple[int, Items]]:
    """Yield (number of the question, its items best first), questions of like length together."""
    sizes = np.array([min(len(one), history) for one in asked.histories])
    order = np.argsort(sizes, kind="stable")
    batch = max(1, min(BATCH, CELLS // (beams * (max(codes.sizes) + 1))))
    for start in range(0, len(order), batch):
        numbers = order[start : start + batch]
        whole = [asked.histories[number] for number in numbers]
        sids = search(network, codes, [one[-history:] for one in whole], beams)
        left_out = None if asked.come_back else _filled([asked.had[number] for number in numbers], -1)
        found = codes.items.ranked(sids, top=K, exclude=left_out)
        yield from zip(numbers.tolist(), found.astype(np.int64), strict=True)
        progress(start + len(numbers))


@torch.no_grad()
def search(network: Network, codes: Codes, histories: list[Items], most: int) -> npt.NDArray[np.int32]:
    """Give the likeliest SIDs after each history, best first: (b, B, W), -1 where there are fewer than B."""
    items = _filled(histories, 0)
    lengths = torch.tensor([len(one) for one in histories])
    read = network.read(torch.from_numpy(codes.tokens[items]), lengths)
    rows, width = len(histories), codes.width
    beams = Beams(
        torch.zeros(rows, 1),
        np.zeros((rows, 1), np.int64),
        np.full((rows, 1, width), -1, np.int32),
        np.zeros((rows, 1), bool),
    )
    states, caches = read.state[:, None], None
    for place in range(width):
        parents = _extend(beams, network.logits(states, place).log_softmax(-1), codes, place, most)
        if place + 1 == width:
            break
        written = np.where(beams.over, END, beams.sids[:, :, place] + codes.offsets[place])
        if caches is not None:
            index = parents[:, None, :, None, None]
            caches = [
                (k.gather(2, index.expand(-1, k.shape[1], -1, *k.shape[3:])),
                 v.gather(2, index.expand(-1, v.shape[1], -1, *v.shape[3:])))
                for k, v in caches
            ]  # fmt: skip
        states, caches = network.go_on(read, torch.from_numpy(np.maximum(written, 0)), place, caches)
    beams.sids[np.isneginf(beams.scores.numpy())] = -1
    return beams.sids


def _extend(beams: Beams, chances: Tensor, codes: Codes, place: int, most: int) -> Tensor:
    """Let every beam go on by one code or end, and keep the best; gives whose child each is: (b, B).

    chances: (b, B, sizes[place]) log-likelihoods, with one more for the end where SIDs differ in length. A
    beam that has ended goes on as it is and pays nothing.
    """
    rows, count, choices = chances.shape
    nodes = beams.nodes.reshape(-1)
    allowed = codes.tree.allowed(np.where(beams.over.reshape(-1), -1, nodes), place=place)
    if codes.ends:
        over = beams.over.reshape(-1)
        stays = (codes.tree.ends(nodes) | over)[:, None]
        allowed = np.concatenate([allowed, stays], axis=1)
        free = torch.from_numpy(beams.over)[:, :, None] & (torch.arange(choices) == choices - 1)
        chances = chances.masked_fill(free, 0.0)
    may = torch.from_numpy(np.array(allowed)).view(rows, count, choices)
    scores = (beams.scores[:, :, None] + chances).masked_fill(~may, -torch.inf).flatten(1)
    beams.scores, best = scores.topk(min(most, scores.shape[1]), dim=1)
    parents, chosen = best // choices, (best % choices).numpy()
    at = parents.numpy()
    beams.over = np.take_along_axis(beams.over, at, 1)
    beams.nodes = np.take_along_axis(beams.nodes, at, 1)
    beams.sids = np.take_along_axis(beams.sids, at[:, :, None], 1)
    lost = np.isneginf(beams.scores.numpy())
    beams.over |= chosen == codes.sizes[place]
    goes_on = ~beams.over & ~lost
    beams.sids[:, :, place] = np.where(goes_on, chosen, -1)
    beams.nodes[goes_on] = codes.tree.step(beams.nodes[goes_on], chosen[goes_on])
    beams.nodes[lost] = -1
    return parents


def _filled(lists: list[Items], filling: int) -> Items:
    """Put lists into rows, filled up on the right."""
    out = np.full((len(lists), max(map(len, lists), default=0)), filling, dtype=np.int64)
    for row, one in zip(out, lists, strict=True):
        row[: len(one)] = one
    return out
