"""Prefect's settings, made before its import: home in the warehouse, no telemetry, a quiet terminal."""

import logging
import os
import subprocess
from pathlib import Path

from sid_flows.reporting import LOGGER

_WATCHERS: list["subprocess.Popen[bytes]"] = []  # held open until this process ends


def settle(warehouse: Path, *, quiet: bool) -> None:
    """Set what the environment does not set already. quiet: errors reach the user as one line of ours.

    DO_NOT_TRACK alone does not stop the server's telemetry; both are needed (PLATFORM.md 1).
    """
    settings = {
        "PREFECT_HOME": str(warehouse / "_prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        # The first start makes a database: 16 s on an idle machine, over the default 20 s on a busy one.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
    }
    if quiet:
        settings["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def has_server() -> bool:
    """Say whether flows tell a server that goes on running, and not an ephemeral one."""
    from prefect.settings import PREFECT_API_URL

    return PREFECT_API_URL.value() is not None


def log_to_prefect() -> None:
    """Let what we log stand in the log of the run.

    PREFECT_LOGGING_EXTRA_LOGGERS alone does not: it leaves our logger at the root's level, warnings.
    """
    from prefect.logging.handlers import APILogHandler

    if LOGGER.level == logging.NOTSET:
        LOGGER.setLevel(logging.INFO)
    if not any(isinstance(one, APILogHandler) for one in LOGGER.handlers):
        LOGGER.addHandler(APILogHandler())


def bind_server_to_us() -> None:
    """Let the ephemeral server die with this process, however it dies.

    Prefect stops its server at a normal exit only; after a SIGKILL it would stay for ever. A shell waits
    on a pipe that only we hold open, and ends the server when the pipe closes.
    """
    from prefect.server.api.server import SubprocessASGIServer

    for server in SubprocessASGIServer._instances.values():
        process = server.server_process
        if process is not None and process.poll() is None:
            command = ["sh", "-c", 'read -r _; kill "$0"', str(process.pid)]
            nowhere = subprocess.DEVNULL
            _WATCHERS.append(
                subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=nowhere, stderr=nowhere, start_new_session=True
                )
            )
