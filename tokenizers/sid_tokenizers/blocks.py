"""Run a kernel over blocks of rows on all cores, so that the cores and not the sums decide how fast.

Each block is one thread's and its matrix products run on one core: a block's numbers then do not depend
on how many cores there are, and the temporaries of a block stay in the cache.
"""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

from sid_schemas import DataError

BLOCK = 2048  # rows: with 256 codes, distances of 2 MB


def over_blocks(n: int, work: Callable[[slice], None], *, size: int = BLOCK) -> None:
    """Call work(rows) for slices that cut n rows into blocks, on all cores; work may not call this again."""
    slices = [slice(start, min(start + size, n)) for start in range(0, n, size)]
    with one_core_products():
        if len(slices) < 2:
            for rows in slices:
                work(rows)
            return
        for _ in _pool().map(work, slices):
            pass


@contextmanager
def one_core_products() -> Iterator[None]:
    """Let matrix products of this process run on one core each; the last to leave restores the number."""
    with _lock:
        if not _inside:
            _limits.append(_controller().limit(limits=1, user_api="blas"))
        _inside.append(None)
    try:
        yield
    finally:
        with _lock:
            _inside.pop()
            if not _inside:
                _limits.pop().restore_original_limits()


_lock = threading.Lock()
_inside: list[None] = []  # one for each caller inside
_limits: list[Any] = []  # what to restore, while anyone is inside


def cores() -> int:
    """Give the number of cores this process may use: as many as SIDMILL_CORES says, or all there are.

    Raises DataError where SIDMILL_CORES is no whole number.
    """
    if told := os.environ.get("SIDMILL_CORES"):
        try:
            return max(int(told), 1)
        except ValueError:
            raise DataError(
                f"SIDMILL_CORES, an environment variable, is {told!r}; expected a whole number such as 4. "
                "Set it so, or unset it for all cores"
            ) from None
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), thread_name_prefix="sid-blocks")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads stay behind in a fork


@cache
def _controller() -> Any:
    import scipy.linalg  # noqa: F401  (a BLAS of its own; a controller knows only those that are loaded)
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
