"""Learn which two tokens to merge next, over items that are unordered sets and stand in sequences.

Counts are kept while merging, never made anew: a merge changes those around the items it touches. They are
whole numbers of a unit that all weights are multiples of, so that nothing is rounded and equals stay equal.
"""

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from sid_tokenizers.base import Codes

Pair = tuple[int, int]  # two tokens, the lower first
Counts = npt.NDArray[np.int64]
NONE = -1


@dataclass(frozen=True)
class Weights:
    """What a pair of tokens weighs in items of at most `most` tokens, in units of 1 / lcm(1..most)^2.

    It is how likely the two stand side by side when the tokens of each item are shuffled: 2/M within an item
    of M tokens, 1/(M1 M2) between neighbours of M1 and M2.
    """

    most: int

    @property
    def unit(self) -> int:
        """Give what a weight of 1 is counted as."""
        return math.lcm(*range(1, self.most + 1)) ** 2

    def inside(self) -> list[int]:
        """Give the weight within items of 0, 1, 2, ... tokens."""
        return [0, *(2 * self.unit // m for m in range(1, self.most + 1))]

    def across(self) -> list[list[int]]:
        """Give the weight between items of m1 and m2 tokens, as [m1][m2]."""
        sizes = range(1, self.most + 1)
        return [[0] * (self.most + 1), *([0, *(self.unit // (m1 * m2) for m2 in sizes)] for m1 in sizes)]


class Corpus:
    """Items in sequences, between them places for tokens that two neighbours were merged into.

    tokens: (e, M), those of each event's item; users: (e,), events of one user are neighbours; times: (e,),
    how often each event counts.
    """

    def __init__(self, tokens: Codes, users: npt.NDArray[np.int64], times: Counts) -> None:
        """Count all pairs once."""
        self.items: list[list[int]] = tokens.tolist()
        self.between = [NONE] * len(tokens)  # the token between an event and the next one
        follows = (users[1:] == users[:-1]).tolist()
        self.after = [*(e + 1 if yes else NONE for e, yes in enumerate(follows)), NONE][: len(tokens)]
        self.before = [NONE, *(e if yes else NONE for e, yes in enumerate(follows))][: len(tokens)]
        self.times: list[int] = times.tolist()
        weights = Weights(tokens.shape[1])
        self.inside, self.across = weights.inside(), weights.across()
        # Events that have a token, or have it behind them; those that had are not taken out.
        self.where: dict[int, set[int]] = defaultdict(set)
        for event, own in enumerate(self.items):
            for token in own:
                self.where[token].add(event)
        self.counts: dict[Pair, int] = defaultdict(int)
        self.heap: list[tuple[int, Pair]] = []
        self._differences: dict[Pair, int] = defaultdict(int)
        self._count(range(len(tokens)), range(len(tokens)), 1)
        self._apply()

    def heaviest(self) -> Pair | None:
        """Give the pair of the greatest weight, of equals the lowest; None where no two tokens meet."""
        while self.heap:
            count, pair = self.heap[0]
            if self.counts.get(pair) == -count:
                return pair
            heapq.heappop(self.heap)  # it has changed since
        return None

    def merge(self, pair: Pair, new: int) -> None:
        """Make one token of two wherever they meet, from first to last."""
        rarer = min(pair, key=lambda token: len(self.where[token]))
        events = self.where[rarer]
        for event in sorted(events | {self.before[event] for event in events} - {NONE}):
            while (taken := self._meeting(event, *pair)) is not None:
                self._merge_at(event, taken, new)
        self._apply()

    def _meeting(self, event: int, one: int, other: int) -> list[tuple[int, int]] | None:
        """Say which tokens of which events are to go, as (event, token); None where the pair does not meet.

        Two of the item, one of it or the next that meets what is between, or one of each item.
        """
        after, context, own = self.after[event], self.between[event], self.items[event]
        if one != other and one in own and other in own:
            return [(event, one), (event, other)]
        following = self.items[after] if after != NONE else []
        for first, second in ((one, other), (other, one)):
            if context == NONE and first in own and second in following:
                return [(event, first), (after, second)]
            if context == first and second in own:
                return [(event, second)]
        for first, second in ((one, other), (other, one)):
            if context == first and second in following:
                return [(after, second)]
        return None

    def _merge_at(self, event: int, taken: list[tuple[int, int]], new: int) -> None:
        """Take tokens away and put the new one into the item, where both were of it, or behind it."""
        changed = sorted({at for at, _ in taken})
        links = sorted({*changed, *(self.before[at] for at in changed)} - {NONE})
        self._count(changed, links, -1)
        for at, token in taken:
            self.items[at].remove(token)
        if len(taken) > len(changed):
            self.items[event].append(new)
        else:
            self.between[event] = new
        self.where[new].add(event)
        for at in changed:
            if not self.items[at]:
                self._fill(at)
        self._count(changed, links, 1)

    def _fill(self, event: int) -> None:
        """Give an item without tokens the one before or behind it; where there is none, the item goes."""
        before, after = self.before[event], self.after[event]
        for place in (before, event):
            if place != NONE and self.between[place] != NONE:
                self.items[event] = [self.between[place]]
                self.where[self.between[place]].add(event)
                self.between[place] = NONE
                return
        if before != NONE:
            self.after[before] = after
        if after != NONE:
            self.before[after] = before

    def _count(self, events: Iterable[int], links: Iterable[int], sign: int) -> None:
        """Count pairs within events, and between events and the next, or take them away again."""
        for event in events:
            own = self.items[event]
            weight = sign * self.times[event] * self.inside[len(own)]
            for one, other in combinations(own, 2):
                self._differences[(one, other) if one < other else (other, one)] += weight
        for event in links:
            own, context, after = self.items[event], self.between[event], self.after[event]
            following = self.items[after] if after != NONE else []
            met = [(own, following)] if context == NONE else [(own, [context]), ([context], following)]
            for left, right in met:
                weight = sign * self.times[event] * self.across[len(left)][len(right)]
                for one in left:
                    for other in right:
                        self._differences[(one, other) if one < other else (other, one)] += weight

    def _apply(self) -> None:
        """Add the differences to the counts, and say so in the heap."""
        for pair, difference in self._differences.items():
            if difference:
                self.counts[pair] += difference
                if self.counts[pair]:
                    heapq.heappush(self.heap, (-self.counts[pair], pair))
                else:
                    del self.counts[pair]
        self._differences.clear()


def learn(corpus: Corpus, first: int, count: int) -> list[Pair]:
    """Give at most `count` merges, the heaviest pair each time; they make tokens `first`, `first` + 1, ..."""
    rules: list[Pair] = []
    while len(rules) < count and (pair := corpus.heaviest()) is not None:
        corpus.merge(pair, first + len(rules))
        rules.append(pair)
    return rules
