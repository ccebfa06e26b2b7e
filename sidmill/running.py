"""Runs a flow for run, append and retokenize: what they report, and how Ctrl-C and SIGTERM end them."""

import os
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

import typer

from sid_flows import json_lines
from sid_flows.reporting import Reporter, reporter
from sid_schemas import MissingExtraError, SidmillError
from sidmill.app import StoppedError
from sidmill.console import BarReporter, PlainReporter, SilentReporter, say

LogOpt = Annotated[
    Literal["text", "json"] | None,
    typer.Option(
        "--log",
        help="text, or json: a JSON object per line on standard error [default: $SIDMILL_LOG or text]",
    ),
]


class TerminatedError(KeyboardInterrupt):
    """SIGTERM, as of a supervisor or `timeout`."""


@contextmanager
def resumable() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end a command with what is done kept, and one line that says how to go on.

    Exit codes are those of shells: 130, 143.
    """
    before = _on_terminate(_terminate)
    try:
        yield
    except KeyboardInterrupt as error:
        _forget_frames(error)
        again = shlex.join([*program(), *sys.argv[1:]])
        stopped = StoppedError(f"stopped; finished stages are kept, go on with: {again}")
        if isinstance(error, TerminatedError):
            stopped.exit_code = 128 + signal.SIGTERM
        raise stopped from None
    finally:
        _on_terminate(before)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise TerminatedError


def _on_terminate(handler: Any) -> Any:
    """Set what SIGTERM does and give what it did; nothing in a thread, where Python cannot."""
    if threading.current_thread() is threading.main_thread():
        return signal.signal(signal.SIGTERM, handler or signal.SIG_DFL)
    return None


def settle_log(log: str | None) -> None:
    """Take --log, which is short for $SIDMILL_LOG."""
    if log:
        os.environ[json_lines.WANTED] = log


def run_flow(name: str, arguments: tuple[Any, ...], warehouse: Path, *, json: bool) -> dict[str, Any]:
    """Run a Prefect flow in this process, reporting to the terminal; its first argument is a recipe."""
    from sid_flows import prefect_settings
    from sid_warehouse import files

    with files.writing(warehouse):  # fails now, in one line, where the warehouse cannot be written
        pass
    prefect_settings.settle(warehouse, quiet=True)
    if not json:
        say(f"{arguments[0]} -> {warehouse}  (Prefect starts: about 10 s)")
    try:
        from sid_flows import build
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"Running a recipe ({error.name})", "flows") from error
    report = _reporter(json=json)
    token = reporter.set(report)
    try:
        result: dict[str, Any] = getattr(build, name)(*arguments)
        return result
    except SidmillError as error:
        _forget_frames(error)
        raise type(error).__new__(type(error), *error.args) from None
    finally:
        reporter.reset(token)
        if isinstance(report, BarReporter):
            report.close()


def _reporter(*, json: bool) -> Reporter:
    if json_lines.wanted():
        return json_lines.JsonReporter()
    if json:
        return SilentReporter()
    return BarReporter() if sys.stdout.isatty() else PlainReporter()


def _forget_frames(error: BaseException) -> None:
    """Empty an error's traceback.

    Prefect keeps the error beyond exit, and with its frames DuckDB, which then prints leak warnings.
    """
    held: BaseException | None = error
    while held is not None:
        held.__traceback__ = None
        held = held.__cause__ or held.__context__


def program() -> list[str]:
    """Give the words that start this command again, from where the user is."""
    if shutil.which("sidmill"):
        return ["sidmill"]
    return [sys.argv[0]] if Path(sys.argv[0]).name == "sidmill" else [sys.executable, "-m", "sidmill"]
