"""Matrix products of which a row's numbers do not depend on the rows beside it, nor on where it stands.

BLAS has other kernels for small matrices and for odd numbers of rows, and some kernels round rows by where
they stand; then an item coded alone could get another code than in its batch.
"""

import math
from functools import cache

import numpy as np
import numpy.typing as npt

from sid_tokenizers.blocks import BLOCK, one_core_products

TILE = 64  # rows: a multiple of what a kernel takes at once, but for those of GROUPS
GROUPS = (4, 6, 8, 12, 16, 24)  # rows that a kernel may take at once
LARGE = 2**21  # multiplications, beyond which BLAS takes its large kernels
Floats = npt.NDArray[np.float32]


def product(left: Floats, right: Floats) -> Floats:
    """Give left @ right: (n, d), (d, k) -> (n, k), a row's numbers not depending on the rows beside it.

    Rows are put where all are rounded alike, and zeros between and behind them.
    """
    n = len(left)
    full, place = padded(n, right.size), places(n)
    if full == n:
        return left @ right
    filled = np.zeros((full, left.shape[1]), dtype=left.dtype)
    filled[place] = left
    whole: Floats = filled @ right
    return whole[place]


def padded(n: int, work: int) -> int:
    """Give how many rows to multiply for n: whole tiles, and enough for the large kernels.

    work: multiplications per row.
    """
    group, alike = _lanes()
    enough, tile = min(-(-LARGE // max(work, 1)), BLOCK), math.lcm(TILE, group)
    return -(-max(-(-n // alike) * group, enough) // tile) * tile


def places(n: int) -> slice | npt.NDArray[np.int64]:
    """Give where n rows stand among the `padded` ones: the first n, but for a BLAS that rounds by place."""
    group, alike = _lanes()
    rows = np.arange(n)
    return slice(0, n) if group == alike else rows // alike * group + rows % alike


@cache
def _lanes() -> tuple[int, int]:
    """Give (group, alike): of every `group` rows this machine's BLAS rounds the first `alike` as the others'.

    Found by equal rows. OpenBLAS rounds all alike with AVX-512, and with AVX2 the first six of every twelve.
    """
    draw = np.random.default_rng(0)
    right = draw.standard_normal((65, 64), dtype=np.float32)
    rows = np.repeat(draw.standard_normal((1, 65), dtype=np.float32), 768, axis=0)
    with one_core_products():
        found = rows @ right
    like_first = (found == found[0]).all(axis=1)
    for group in (1, *GROUPS):
        pattern = like_first.reshape(-1, group)
        if (pattern == pattern[0]).all():
            return group, int(np.append(pattern[0], False).argmin())
    return 1, 1  # no pattern to hold on to
