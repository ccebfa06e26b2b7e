"""Clusters for tests of the Beam engine: each fixture gives the options that send a job to one.

All are real processes of this machine: two Dask workers; Beam's job service with an external worker pool, the
protocol that Flink and Spark speak. They start once per session, and are gone after it.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

HERE = Path(__file__).parent
IN_MEMORY = "--runner=FnApiRunner"  # in this process
PROCESSES = "--direct_num_workers=2"  # two processes of this machine, new ones for every job


@pytest.fixture(scope="session")
def worker_processes() -> Iterator[str]:
    """`PROCESSES`, which find the tests' kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(HERE))
        yield PROCESSES


@pytest.fixture(scope="session")
def dask_cluster() -> Iterator[str]:
    """A Dask cluster of two worker processes, some of which tests may have killed and Dask begun anew."""
    with dask_workers() as options:
        yield options


@contextmanager
def dask_workers() -> Iterator[str]:
    """Start a Dask cluster of two worker processes."""
    import dask
    from distributed import LocalCluster

    # A LocalCluster gives a worker up that is away for 15 s, as one is that is killed again meanwhile.
    dask.config.set({"distributed.deploy.lost-worker-timeout": "1 hour"})
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster:
        yield f"--runner=DaskRunner --dask_client_address={cluster.scheduler_address}"


@pytest.fixture(scope="session")
def worker_pool() -> Iterator[str]:
    """Beam's job service (see job_service.py), and a pool that starts two worker processes for every job."""
    jobs, workers = _free_port(), _free_port()
    with ExitStack() as stack:
        for module, option, port in (
            ("job_service", "--port", jobs),
            ("apache_beam.runners.worker.worker_pool_main", "--service_port", workers),
        ):
            stack.enter_context(_serving(port, "-m", module, option, str(port)))
        yield (
            f"--runner=PortableRunner --job_endpoint=localhost:{jobs} --environment_type=EXTERNAL "
            f"--environment_config=localhost:{workers} --direct_num_workers=2"
        )


@pytest.fixture(scope="session", params=["memory", "processes", "dask", "pool"])
def beam_options(request: pytest.FixtureRequest) -> str:
    """Every runner that is tested here, one after the other."""
    if request.param == "memory":
        return IN_MEMORY
    names = {"processes": "worker_processes", "dask": "dask_cluster", "pool": "worker_pool"}
    options: str = request.getfixturevalue(names[request.param])
    return options


@contextmanager
def _serving(port: int, *arguments: str) -> Iterator[None]:
    """Run Python until it listens on a port; it and all that it started are gone at the end."""
    # The pool starts workers by the name "python", and they import the tests' kernels.
    found = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": found, "PYTHONPATH": str(HERE)}
    silent = subprocess.DEVNULL
    server = subprocess.Popen(
        [sys.executable, *arguments], env=environment, stdout=silent, stderr=silent, start_new_session=True
    )
    try:
        _wait_for(port, server)
        yield
    finally:
        with suppress(ProcessLookupError):  # it and all that it started
            os.killpg(server.pid, 9)
        server.wait()


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("localhost", 0))
        port: int = bound.getsockname()[1]
        return port


def _wait_for(port: int, server: "subprocess.Popen[bytes]", seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert server.poll() is None, f"{server.args} ended with {server.returncode}"
        with socket.socket() as probe:
            if probe.connect_ex(("localhost", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"{server.args} does not listen on port {port} after {seconds} s")
