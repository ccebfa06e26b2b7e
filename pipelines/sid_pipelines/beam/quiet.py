"""Beam and Dask speak to their developers; what matters to the user is in the error that a job raises."""

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

NOISY = ("apache_beam", "distributed", "grpc", "tornado")


_lock = threading.Lock()
_undo = ExitStack()  # what the last to leave does
_inside = 0


@contextmanager
def quiet() -> Iterator[None]:
    """Keep logs and tracebacks of runners off the terminal while a job runs, or several at once.

    Their workers' logs stay where the cluster keeps them. A worker that dies ends the thread that started it
    by an error, which says no more than the runner's own.
    """
    global _inside
    with _lock:
        if not _inside:
            _hush()
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _undo.close()


def _hush() -> None:
    root, nothing = logging.getLogger(), logging.NullHandler()
    root.addHandler(nothing)  # else Beam calls logging.basicConfig
    _undo.callback(root.removeHandler, nothing)
    root.addFilter(_no_module)
    _undo.callback(root.removeFilter, _no_module)
    for logger in _noisy():
        _undo.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL + 1)
    _undo.callback(setattr, threading, "excepthook", threading.excepthook)
    threading.excepthook = _but_for_workers(threading.excepthook)


def _noisy() -> list[logging.Logger]:
    """Give the loggers of runners; many have levels of their own."""
    there = [name for name in logging.root.manager.loggerDict if name.startswith(NOISY)]
    return [logging.getLogger(name) for name in {*NOISY, *there}]


def _no_module(record: logging.LogRecord) -> bool:
    """Drop what is logged by no logger's name, as Beam does of packages that are not there."""
    return record.name != "root"


def _but_for_workers(hook: Any) -> Any:
    """Give a hook for errors of threads, but for those that wait for a worker process."""

    def excepthook(args: Any) -> None:
        name = args.thread.name if args.thread else ""
        if not (name.startswith("run_worker") or args.exc_type.__module__.startswith("grpc")):
            hook(args)

    return excepthook
