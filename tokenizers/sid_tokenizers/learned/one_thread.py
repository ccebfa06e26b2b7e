"""Torch on one core: numbers then do not depend on how many there are, and a busy machine starves no one.

Torch's threads wait for each other after every small product, which takes far longer than the product
where other processes hold the cores. Training comes here, and encoding of batches side by side.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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


@contextmanager
def one_thread_each(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Give a pool of threads that compute alone; torch has as many threads as before afterwards."""
    with one_thread():
        pool = ThreadPoolExecutor(workers, "torch", initializer=torch.set_num_threads, initargs=(1,))
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)
