"""Run rectokens' own CSR trie on a release's SIDs, and compare with ours what it allows after every prefix.

python benchmarks/readers/rectokens.py CHECKOUT WAREHOUSE REF

CHECKOUT: where rectokens lies unpacked (`pip download rectokens==0.2.2 --no-deps`, then unzip). What runs is
its `CompactCSRTrie`, `Trie` and `vtnk_pytorch`, unpatched. Its `decode_one_step` imports Triton kernels that
want CUDA: what it does with dense layers is restated here.

`vtnk_pytorch` reads as many edges from each node as the widest node of the place has, and past the end of the
array for the last nodes, which raises IndexError; where that happens it is said, and the array lengthened.
"""

import sys
from importlib.metadata import PathDistribution
from pathlib import Path

import numpy as np
import torch

import sidmill
from sid_tokenizers.trie import Trie
from sid_tokenizers.trie_mask import TrieMask


def main(checkout: str, warehouse: str, ref: str) -> None:
    sys.path.insert(0, checkout)
    from rectokens.decoding.trie import Trie as TheirTrie
    from rectokens.decoding.vntk import vtnk_pytorch
    from rectokens.schemas.compact_csr_trie import CompactCSRTrie

    info = next(Path(checkout).glob("rectokens-*.dist-info"))
    release = sidmill.open(warehouse).release(ref)
    trie, mask, sizes = release.trie(), release.trie_mask(), release.vocabulary.sizes
    sids = np.array(release.table("sid_to_items", ["sid"])["sid"].to_pylist())
    width, count = max(sizes), sids.shape[1]
    print(f"rectokens {PathDistribution(info).version}; {release.ref}: {len(sids):,} SIDs of {sizes}")

    # sid_to_items is sorted by SID, as from_sorted_batch demands.
    assert (np.lexsort(sids.T[::-1]) == np.arange(len(sids))).all()
    inserted = TheirTrie()
    for sid in sids.tolist():
        inserted.insert(sid)
    for layers in (1, 2):
        made = {
            "from_sorted_batch": CompactCSRTrie.from_sorted_batch(torch.from_numpy(sids), width, layers),
            "from_trie": CompactCSRTrie.from_trie(inserted, width, layers),
        }
        for how, theirs in made.items():
            if how == "from_sorted_batch":
                same_arrays(theirs, trie)
                print("from_sorted_batch: row pointers, codes and next nodes equal ours")
            last = int(np.flatnonzero(np.diff(trie.offsets))[-1])
            theirs = long_enough(theirs, how, vtnk_pytorch, last, count - 1)
            for place in range(count):
                prefixes = np.unique(sids[:, :place], axis=0)
                logits = torch.randn(len(prefixes), width)
                if place < layers:
                    codes = torch.from_numpy(prefixes).unbind(-1)
                    allowed = (
                        theirs.dense_mask_by_layer[place][codes]
                        if place
                        else theirs.dense_mask_by_layer[0][None]
                    )
                    masked = torch.where(allowed, logits, -torch.inf)
                else:
                    nodes = walked(theirs, prefixes, layers, vtnk_pytorch)
                    _, _, masked = vtnk_pytorch(logits, nodes, theirs, place)
                compare(masked, logits, prefixes, trie, mask, place)
                print(f"{how}, {layers} dense layers, place {place}: {len(prefixes):,} prefixes, masks equal")


def walked(theirs, prefixes, layers, transition) -> torch.Tensor:
    """Follow prefixes as decode_one_step does: dense states first, then the branch whose code was chosen."""
    codes = torch.from_numpy(prefixes)
    nodes = theirs.dense_states[codes[:, :layers].unbind(-1)]
    for place in range(layers, codes.shape[1]):
        following, valid, _ = transition(torch.zeros(len(codes), theirs.vocab_size), nodes, theirs, place)
        nodes = following[valid == codes[:, place : place + 1]]
    return nodes


def long_enough(theirs, how: str, transition, last: int, place: int):
    """Lengthen the edges, so that as many as the widest node has can be read from the last node too."""
    try:
        transition(torch.zeros(1, theirs.vocab_size), torch.tensor([last]), theirs, place)
    except IndexError as error:
        print(f"{how}: vtnk_pytorch at the last node raises IndexError ({error}); edges lengthened")
    padding = max(theirs.layer_max_branches)
    edges = torch.nn.functional.pad(theirs.stacked_cols_vals, (0, padding), value=-1)
    return theirs._replace(stacked_cols_vals=edges)


def same_arrays(theirs, trie: Trie) -> None:
    """Their rows, columns and values are our offsets, codes, and the node that each edge leads to."""
    edges = len(trie.codes)
    inner = len(theirs.row_ptrs)
    assert (theirs.row_ptrs.numpy() == trie.offsets[:inner]).all()
    assert (theirs.stacked_cols_vals[0, :edges].numpy() == trie.codes).all()
    assert (theirs.stacked_cols_vals[1, :edges].numpy() == np.arange(1, edges + 1)).all()


def compare(masked, logits, prefixes, trie: Trie, mask: TrieMask, place: int) -> None:
    nodes = mask.walk(prefixes)
    size = mask.sizes[place]
    assert (mask.mask(logits[:, :size].numpy(), nodes, place=place) == masked[:, :size].numpy()).all()
    assert not masked[:, size:].isfinite().any()
    for row, prefix in enumerate(prefixes.tolist()):
        assert masked[row].isfinite().nonzero()[:, 0].tolist() == trie.allowed(prefix).tolist()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
