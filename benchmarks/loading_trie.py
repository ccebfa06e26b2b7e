"""What a step of constrained decoding costs on the CPU: ours, a trie of Python dicts, rectokens' CSR trie.

python benchmarks/loading_trie.py [--items 1000000] [--batch 256] [--beams 50] [--repeat 15] [--slow]
                                  [--rectokens FOLDER]

A step is: from the codes that each beam has written so far, the logits of the place's codes with -inf where
none may stand. Beams are true prefixes, drawn anew for every place. Figures are medians, one thread: CPU
milliseconds, which others on the machine disturb least, and wall milliseconds in brackets. Before anything is
timed, all that is compared gives the same logits.

ours          TrieMask.walk from the root, then TrieMask.mask: what the LogitsProcessor does
incremental   TrieMask.step from the nodes of the step before, then TrieMask.mask
dicts         nested dicts, walked row by row; the row's allowed logits are copied, as generate's own does
dicts at once the same, but all rows are gathered in lists before one scatter
rectokens     dense layers for two places, then vtnk_pytorch; FOLDER as in readers/rectokens.py
processor     SidLogitsProcessor on scores of the whole vocabulary, as generate calls it, and in_place
generate's    transformers' PrefixConstrainedLogitsProcessor over the same dicts, whole vocabulary (--slow)
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from sid_tokenizers.dialects import code_ids
from sid_tokenizers.trie import Trie
from sid_tokenizers.trie_mask import TrieMask
from sid_tokenizers.vocabulary import Vocabulary

torch.set_num_threads(1)
Times = tuple[float, float]


def with_last_digit(codes: np.ndarray) -> np.ndarray:
    """Give colliding rows a last digit, counted in row order: (n, L) -> (n, L + 1)."""
    order = np.lexsort(codes.T[::-1])
    ordered = codes[order]
    fresh = np.r_[True, (ordered[1:] != ordered[:-1]).any(axis=1)]
    first = np.maximum.accumulate(np.where(fresh, np.arange(len(codes)), 0))
    digit = np.empty(len(codes), dtype=codes.dtype)
    digit[order] = np.arange(len(codes)) - first
    return np.column_stack([codes, digit])


def nested(sids: np.ndarray) -> dict[int, Any]:
    root: dict[int, Any] = {}
    for sid in sids.tolist():
        node = root
        for code in sid:
            node = node.setdefault(code, {})
    return root


def of_dicts(root: dict[int, Any], prefixes: list[list[int]], logits: torch.Tensor) -> torch.Tensor:
    out = torch.full_like(logits, -torch.inf)
    for row, prefix in enumerate(prefixes):
        node = root
        for code in prefix:
            node = node[code]
        allowed = list(node)
        out[row, allowed] = logits[row, allowed]
    return out


def of_dicts_at_once(root: dict[int, Any], prefixes: list[list[int]], logits: np.ndarray) -> np.ndarray:
    codes: list[int] = []
    counts = []
    for prefix in prefixes:
        node = root
        for code in prefix:
            node = node[code]
        counts.append(len(node))
        codes.extend(node)
    rows = np.repeat(np.arange(len(prefixes)), counts)
    out = np.full_like(logits, -np.inf)
    out[rows, codes] = logits[rows, codes]
    return out


class Rectokens:
    """Its trie at work, as `decode_one_step` puts it; see readers/rectokens.py for what is restated."""

    def __init__(self, sids: np.ndarray, width: int) -> None:
        from rectokens.decoding.vntk import vtnk_pytorch
        from rectokens.schemas.compact_csr_trie import CompactCSRTrie

        rows = torch.from_numpy(np.unique(sids, axis=0).astype(np.int64))
        trie = CompactCSRTrie.from_sorted_batch(rows, width, 2)
        edges = torch.nn.functional.pad(trie.stacked_cols_vals, (0, max(trie.layer_max_branches)), value=-1)
        self.trie, self.transition = trie._replace(stacked_cols_vals=edges), vtnk_pytorch

    def nodes(self, prefixes: torch.Tensor) -> torch.Tensor | None:
        """Give the node of each beam, which it carries from step to step: not timed."""
        if prefixes.shape[1] < 2:
            return None
        nodes = self.trie.dense_states[prefixes[:, :2].unbind(-1)]
        for place in range(2, prefixes.shape[1]):
            nothing = torch.zeros(len(nodes), self.trie.vocab_size)
            following, valid, _ = self.transition(nothing, nodes, self.trie, place)
            nodes = following[valid == prefixes[:, place : place + 1]]
        return nodes

    def step(self, prefixes: torch.Tensor, nodes: torch.Tensor | None, logits: torch.Tensor) -> torch.Tensor:
        place = prefixes.shape[1]
        if nodes is not None:
            return self.transition(logits, nodes, self.trie, place)[2]
        mask = self.trie.dense_mask_by_layer[place]
        mask = mask[prefixes.unbind(-1)] if place else mask[None].expand(len(logits), -1)
        masked = logits.clone()
        masked[~mask] = -torch.inf
        return masked


def timed(work: Callable[[], object], repeat: int, before: Callable[[], object] = int) -> Times:
    """Give the medians of CPU and wall milliseconds; the first call is not counted, nor is `before`."""
    took = []
    for _ in range(repeat + 1):
        before()
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        took.append((1000 * (time.process_time() - cpu), 1000 * (time.perf_counter() - wall)))
    return tuple(statistics.median(one) for one in zip(*took[1:], strict=True))


def measured(
    name: str, sids: np.ndarray, sizes: tuple[int, ...], options: argparse.Namespace
) -> Iterator[tuple[str, int, Times]]:
    from sid_warehouse.constrained import SidLogitsProcessor

    draw = np.random.default_rng(1)
    rows, vocabulary = options.batch * options.beams, Vocabulary(sizes)
    start = time.perf_counter()
    trie = Trie.build(sids)
    built = time.perf_counter()
    mask = TrieMask(trie, sizes)
    print(
        f"{name}: {len(sids):,} items, {len(trie.items):,} nodes; tree built in {built - start:.2f} s, "
        f"masks laid out in {time.perf_counter() - built:.2f} s",
        flush=True,
    )
    root = nested(sids)
    theirs = Rectokens(sids, max(sizes)) if options.rectokens else None
    processors = {
        kind: SidLogitsProcessor(mask, code_ids(vocabulary), end=vocabulary.eos, in_place=kind == "in_place")
        for kind in ("processor", "in_place")
    }
    for place, size in enumerate(sizes):
        prefixes = sids[draw.integers(0, len(sids), rows), :place].astype(np.int64)
        lists = prefixes.tolist()
        # rectokens has one vocabulary for all places, so its logits are as wide as the widest.
        wide = torch.randn(rows, max(sizes), generator=torch.Generator().manual_seed(place))
        logits = wide[:, :size].contiguous()
        whole = torch.randn(rows, len(vocabulary))
        whole[:, vocabulary.offsets[place] : vocabulary.offsets[place] + size] = logits
        tokens = vocabulary.token_ids(np.pad(prefixes, ((0, 0), (0, len(sizes) - place)), constant_values=-1))
        written = torch.from_numpy(np.pad(tokens[:, :place], ((0, 0), (1, 0))).astype(np.int64))
        before = mask.walk(prefixes[:, :-1])

        block = logits.numpy()

        def ours(prefixes=prefixes, block=block, place=place):
            return mask.mask(block, mask.walk(prefixes), place=place)

        def incremental(before=before, prefixes=prefixes, block=block, place=place):
            nodes = mask.step(before, prefixes[:, -1]) if place else before
            return mask.mask(block, nodes, place=place)

        def dicts(lists=lists, logits=logits):
            return of_dicts(root, lists, logits)

        ways: dict[str, tuple[Callable[[], object], int]] = {
            "ours": (ours, options.repeat),
            "incremental": (incremental, options.repeat),
            "dicts": (dicts, 3),
            "dicts at once": (lambda lists=lists, block=block: of_dicts_at_once(root, lists, block), 3),
        }
        expected = torch.from_numpy(ours())
        assert torch.equal(dicts(), expected)
        assert (of_dicts_at_once(root, lists, block) == ours()).all()
        if theirs:
            given = torch.from_numpy(prefixes)
            nodes = theirs.nodes(given)
            assert torch.equal(theirs.step(given, nodes, wide)[:, :size], expected)
            ways["rectokens"] = lambda g=given, n=nodes, w=wide: theirs.step(g, n, w), options.repeat
        for kind, processor in processors.items():
            there = slice(vocabulary.offsets[place], vocabulary.offsets[place] + size)
            assert torch.equal(processor(written, whole.clone())[:, there], expected)
            if kind == "processor":
                ways[kind] = lambda p=processor, i=written, w=whole: p(i, w), options.repeat
        if options.slow:
            ways["generate's"] = of_generate(root, vocabulary, written, whole), 1
        for way, (work, repeat) in ways.items():
            yield way, place, timed(work, repeat)
        yield "in_place", place, in_place(processors["in_place"], written, whole, options.repeat)


def in_place(processor: Any, written: torch.Tensor, whole: torch.Tensor, repeat: int) -> Times:
    """Time it on scores that are made before, as generate makes new ones for every step."""
    scores = whole.clone()
    return timed(lambda: processor(written, scores), repeat, lambda: scores.copy_(whole))


def of_generate(
    root: dict[int, Any], vocabulary: Vocabulary, written: torch.Tensor, scores: torch.Tensor
) -> Callable[[], object]:
    from transformers import PrefixConstrainedLogitsProcessor

    offsets = vocabulary.offsets

    def allowed(_: int, tokens: torch.Tensor) -> list[int]:
        node, place = root, len(tokens) - 1
        for token, offset in zip(tokens[1:].tolist(), offsets, strict=False):
            node = node[token - offset]
        return [code + offsets[place] for code in node]

    processor = PrefixConstrainedLogitsProcessor(allowed, 1)
    return lambda: processor(written, scores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--beams", type=int, default=50)
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--rectokens", default="")
    parser.add_argument("--slow", action="store_true")
    options = parser.parse_args()
    if options.rectokens:
        sys.path.insert(0, options.rectokens)
    draw = np.random.default_rng(0)
    digits = with_last_digit(draw.integers(0, 256, (options.items, 3), dtype=np.int32))
    four = np.unique(draw.integers(0, 256, (options.items, 4), dtype=np.int32), axis=0)
    print(f"{options.batch} x {options.beams} = {options.batch * options.beams:,} rows; milliseconds a step")
    for name, sids, sizes in (
        ("3 x 256 and a last digit", digits, (256, 256, 256, int(digits[:, 3].max()) + 1)),
        ("4 x 256", four, (256,) * 4),
    ):
        show(list(measured(name, sids, sizes, options)))


def show(found: list[tuple[str, int, Times]]) -> None:
    """Print a table: a row for each way, a column for each place, and dicts against it, in CPU time."""
    medians: dict[str, dict[int, Times]] = {}
    for way, place, times in found:
        medians.setdefault(way, {})[place] = times
    places = sorted(medians["ours"])
    print("| |" + "".join(f" place {place} |" for place in places) + " dicts take |")
    print("|---|" + "---|" * (len(places) + 1))
    for way, row in medians.items():
        times = [medians["dicts"][place][0] / row[place][0] for place in places]
        more = f"{min(times):,.0f} to {max(times):,.0f} times" if way != "dicts" else ""
        cells = "".join(f" {row[place][0]:,.1f} ({row[place][1]:,.1f}) |" for place in places)
        print(f"| {way} |{cells} {more} |", flush=True)
    print()


if __name__ == "__main__":
    main()
