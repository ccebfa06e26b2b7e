"""Train on one core: numbers then do not depend on how many there are, and a busy machine starves no one.

Torch's threads wait for each other after every small product, which takes far longer than the product
where other processes hold the cores. Training alone comes here.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one core, and on as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
