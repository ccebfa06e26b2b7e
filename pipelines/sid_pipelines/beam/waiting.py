"""Wait for a pipeline, but not for ever: Beam's runner of processes may miss that its workers have died.

It waits then for what nobody will send. So a pipeline runs in a thread of its own, which is left behind where
its worker processes are gone and it does not end by itself. Workers that are left are stopped, as they are
after Ctrl-C; what they have done is kept.
"""

import threading
import time
from collections.abc import Callable

GONE, FEWER = 15.0, 120.0  # seconds without any worker process, and with fewer than there were
PAUSE = 0.1


def until_done(run: Callable[[], None]) -> None:
    """Call `run` in a thread, and raise what it raises, or RuntimeError where its workers are gone."""
    raised: list[BaseException] = []

    def work() -> None:
        try:
            run()
        except BaseException as error:  # told to the caller, whatever it is
            raised.append(error)

    thread = threading.Thread(target=work, name="sidmill-pipeline", daemon=True)
    thread.start()
    try:
        _wait(thread)
    except BaseException:
        _stop_workers()
        raise
    if raised:
        raise raised[0]


def _wait(thread: threading.Thread) -> None:
    most, since = 0, time.monotonic()
    while thread.is_alive():
        thread.join(PAUSE)
        there = _workers()
        if there >= most:
            most, since = there, time.monotonic()
        elif time.monotonic() - since > (FEWER if there else GONE):
            raise RuntimeError(f"{most - there} of {most} worker processes died, and the runner waits on")


def _workers() -> int:
    """Give how many worker processes this one has; Beam has a thread for each, which ends with it."""
    return sum(thread.name.startswith("run_worker") for thread in threading.enumerate())


def _stop_workers() -> None:
    import psutil  # type: ignore[import-untyped]  # Dask brings it

    for child in psutil.Process().children(recursive=True):
        try:
            if "sid_pipelines.beam.worker" in child.cmdline():
                child.kill()
        except psutil.Error:
            continue  # it has just ended
