"""The probe's network: a causal transformer over the tokens of SIDs, and the cache that beams go on from.

A token is known by its code, by its place inside the item and by the item's place in the history; attention
adds a learned number for how many items it looks back, so that the newest item is the same to it after few
and after many. The same table of tokens writes and reads. Layers are pre-norm: attention, then a perceptron,
each with a shortcut.
"""

from dataclasses import dataclass
from math import sqrt

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sid_pipelines.evaluation.codes import END, START, Codes
from sid_pipelines.evaluation.settings import Settings

DEVIATION = 0.02  # of what tables and layers begin with
Pair = tuple[Tensor, Tensor]  # keys and values


class Block(nn.Module):
    """One layer."""

    def __init__(self, settings: Settings) -> None:
        """Make the weights; torch's generator draws them."""
        super().__init__()
        width = settings.width
        slopes = 0.5 ** torch.arange(1.0, settings.heads + 1)  # as in ALiBi; learned from there on
        self.nearness = nn.Parameter(-slopes[:, None] * torch.arange(settings.history + 2))
        self.heads, self.dropout = settings.heads, settings.dropout
        self.before_attention, self.before_layers = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed, self.joined = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.first, self.second = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, back: Tensor, later: Tensor) -> tuple[Tensor, Pair]:
        """Run over whole rows: (b, T, d) -> the same, with keys and values, each (b, heads, T, d / heads).

        back: (T, T) how many items token i looks back to token j. later: (T, T) where j comes after i.
        """
        q, k, v = self._heads(x)
        bias = self.nearness[:, back].masked_fill(later, -torch.inf)
        weights = (q @ k.transpose(2, 3) / sqrt(q.shape[-1]) + bias).softmax(-1)
        return self._finish(x, weights @ v), (k, v)

    def step(
        self, x: Tensor, before: Pair, back: Tensor, unseen: Tensor, own: Pair | None
    ) -> tuple[Tensor, Pair]:
        """Run over one new token of each beam: (b, B, d) -> the same, with the beams' own keys and values.

        before: of the history, which all beams of a row share. back: (b, T) how many items that is back.
        unseen: (b, T) where nothing stands. own: of the beams' tokens so far, each (b, heads, B, t,
        d / heads); given back with one more.
        """
        q, k, v = self._heads(x)
        keys, values = k[:, :, :, None], v[:, :, :, None]
        if own is not None:
            keys, values = torch.cat([own[0], keys], 3), torch.cat([own[1], values], 3)
        scale = sqrt(q.shape[-1])
        far = q @ before[0].transpose(2, 3) / scale + self.nearness[:, back].transpose(0, 1)[:, :, None]
        near = (q[:, :, :, None] * keys).sum(-1) / scale + self.nearness[:, 0][:, None, None]
        weights = torch.cat([far.masked_fill(unseen[:, None, None], -torch.inf), near], -1).softmax(-1)
        length = before[0].shape[2]
        seen = weights[..., :length] @ before[1] + (weights[..., length:, None] * values).sum(3)
        return self._finish(x, seen), (keys, values)

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, length, width = x.shape
        mixed = self.mixed(self.before_attention(x)).view(rows, length, 3, self.heads, width // self.heads)
        q, k, v = (part.transpose(1, 2) for part in mixed.unbind(2))
        return q, k, v

    def _finish(self, x: Tensor, seen: Tensor) -> Tensor:
        joined = self.joined(seen.transpose(1, 2).flatten(2))
        x = x + F.dropout(joined, self.dropout, self.training)
        hidden = self.second(F.gelu(self.first(self.before_layers(x))))
        return x + F.dropout(hidden, self.dropout, self.training)


@dataclass
class Read:
    """What was read of some histories: a state (b, d) after the last token, and each block's cache."""

    state: Tensor
    caches: list[Pair]
    unseen: Tensor  # (b, T) where a row has no token
    lengths: Tensor  # (b,) items of each history


class Network(nn.Module):
    """Tables of tokens, of places in the item and of items in the history; blocks; a norm."""

    def __init__(self, codes: Codes, settings: Settings) -> None:
        """Make the weights; torch's generator draws them."""
        super().__init__()
        self.codes_of_place = list(zip(codes.offsets, codes.sizes, strict=True))
        self.width_of_item, self.ends, self.dropout = codes.width, codes.ends, settings.dropout
        self.tokens = nn.Parameter(torch.empty(codes.n_tokens, settings.width))
        self.places = nn.Parameter(torch.empty(codes.width + 1, settings.width))  # the last: of the start
        self.counts = nn.Parameter(
            torch.empty(settings.history + 2, settings.width)
        )  # the first: of the start
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.layers))
        self.last = nn.LayerNorm(settings.width)
        for name, weights in self.named_parameters():
            if weights.dim() > 1 and not name.endswith("nearness"):
                nn.init.normal_(weights, std=DEVIATION)

    def forward(self, tokens: Tensor) -> tuple[Tensor, list[Pair]]:
        """Give the states from which each token of each item is told, and each block's cache.

        tokens: (b, n, W) of n items. The states are (b, n * W + 1, d): the first is of the start, so state
        i * W + p is what token p of item i is told from.
        """
        rows, items, width = tokens.shape
        x = self.tokens[tokens] + self.places[:width] + self.counts[1 : items + 1, None]
        start = (self.tokens[START] + self.places[width] + self.counts[0]).expand(rows, 1, -1)
        x = torch.cat([start, x.flatten(1, 2)], 1) * sqrt(x.shape[-1])
        x, caches = F.dropout(x, self.dropout, self.training), []
        item, token = self._item_of(x.shape[1]), torch.arange(x.shape[1])
        back, later = (item[:, None] - item).clamp(min=0), token > token[:, None]
        for block in self.blocks:
            x, cache = block(x, back, later)
            caches.append(cache)
        return self.last(x), caches

    def read(self, tokens: Tensor, lengths: Tensor) -> Read:
        """Read histories: (b, n, W) tokens, of which `lengths` (b,) items are there, from the left."""
        states, caches = self(tokens)
        ends = lengths * self.width_of_item
        unseen = torch.arange(states.shape[1]) > ends[:, None]
        return Read(states[torch.arange(len(ends)), ends], caches, unseen, lengths)

    def go_on(
        self, read: Read, written: Tensor, place: int, owns: list[Pair] | None
    ) -> tuple[Tensor, list[Pair]]:
        """Give the states after one more token of each beam: (b, B) at a place -> (b, B, d), and caches."""
        x = self.tokens[written] + self.places[place] + self.counts[read.lengths + 1][:, None]
        x, grown = x * sqrt(x.shape[-1]), []
        back = (read.lengths[:, None] + 1 - self._item_of(read.unseen.shape[1])).clamp(min=0)
        for number, (block, cache) in enumerate(zip(self.blocks, read.caches, strict=True)):
            x, own = block.step(x, cache, back, read.unseen, owns[number] if owns else None)  # type: ignore[operator]
            grown.append(own)
        return self.last(x), grown

    def _item_of(self, tokens: int) -> Tensor:
        """Give which item each token of a row is of: 0 for the start, then 1, 2, ..."""
        return (torch.arange(tokens) + self.width_of_item - 1) // self.width_of_item

    def logits(self, states: Tensor, place: int) -> Tensor:
        """Give the logits of a place: (..., d) -> (..., sizes[place]), and one more where there are ends."""
        offset, size = self.codes_of_place[place]
        table = self.tokens[offset : offset + size]
        if self.ends:
            table = torch.cat([table, self.tokens[END : END + 1]])
        return states @ table.T
