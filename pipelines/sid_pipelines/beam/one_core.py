"""A worker process keeps to one core, as the runner starts as many of them as it has cores."""

import ctypes
import os
import socket
from dataclasses import dataclass

KEPT = {-1: 256 << 20, -3: 32 << 20}  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD: bytes


@dataclass(frozen=True)
class Process:
    """One process of a cluster."""

    host: str
    pid: int

    @classmethod
    def this(cls) -> "Process":
        """Give the one that asks."""
        return cls(socket.gethostname(), os.getpid())


_settled: list[object] = []  # what a worker has set, held while it lives


def on_one_core(driver: Process) -> None:
    """Set the thread pools of Arrow, BLAS, OpenMP and our own to one thread, once per process; keep memory.

    Where the driver itself is the worker, nothing changes: its other stages have all cores. torch keeps its
    threads, as they shape what it computes.
    """
    if _settled or Process.this() == driver:
        return
    import pyarrow as pa
    from threadpoolctl import threadpool_limits

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    os.environ["SIDMILL_CORES"] = "1"
    _settled.append(threadpool_limits(limits=1))
    _keep_memory()


def _keep_memory() -> None:
    """Let the C library keep what is freed, for the next block, where it is glibc.

    Dask's nanny has it give back every 64 KiB; each block of megabytes then has its pages made anew, which
    took a third of the time that parsing takes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        for option, size in KEPT.items():
            mallopt(option, size)
