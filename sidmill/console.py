"""What people see: progress bars on a terminal, plain lines elsewhere, tables, and errors in one line."""

import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from sid_flows import json_lines
from sid_flows.reporting import LineReporter

# Wide enough in a log that lines are never cut; a terminal has its own width.
OUT = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 240)


CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tabs and line ends


def say(line: str = "") -> None:
    """Print one line, as it is."""
    OUT.print(Text(_harmless(line)))


def complain(message: str) -> None:
    """Print an error to standard error, in one line."""
    line = " ".join(message.split())
    if json_lines.wanted():
        json_lines.write("error", line, level="ERROR")
    else:
        print("sidmill: " + _harmless(line), file=sys.stderr)


def _harmless(text: str) -> str:
    """Show control characters as escapes: titles and file names must not command the terminal."""
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def print_json(value: Any) -> None:
    """Print JSON for a program to read, and nothing else."""
    print(json.dumps(_finite(value), indent=2, ensure_ascii=False, default=str))


def _finite(value: Any) -> Any:
    """Put null for NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table, numbers to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    body = [list(row) for row in rows]
    for number, column in enumerate(columns):
        numeric = bool(body) and all(_is_number(row[number]) for row in body)
        table.add_column(Text(_harmless(column)), justify="right" if numeric else "left", overflow="fold")
    for row in body:
        table.add_row(*(Text(_harmless(_show(value))) for value in row))
    OUT.print(table, soft_wrap=False)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _show(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


@contextmanager
def working(what: str, *, json: bool) -> Iterator[None]:
    """Show on a terminal that something is under way, and for how long; elsewhere nothing."""
    if json or not sys.stdout.isatty():
        yield
        return
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=OUT, transient=True
    ) as shown:
        shown.add_task(what, total=None)
        yield


class PlainReporter(LineReporter):
    """Lines on standard output."""

    def line(self, text: str) -> None:
        """Print one line, now."""
        say(text)
        sys.stdout.flush()


class BarReporter(PlainReporter):
    """The same lines on a terminal, with a bar for what is under way."""

    def __init__(self) -> None:
        """Make the bar; it shows once something is under way."""
        super().__init__()
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}"),  # rich's own knows no time left where steps take long
            console=OUT,
            transient=True,
        )
        self._task: TaskID | None = None
        self._bars.start()

    def started(self, stage: str) -> None:
        """Show the stage."""
        super().started(stage)
        self._task = self._bars.add_task(stage, total=None, pace="")

    def progress(self, stage: str, done: int, total: int) -> None:
        """Move the bar."""
        if self._task is not None:
            pace = self.pace(done, total)
            self._bars.update(self._task, completed=done, total=total or None, pace=pace)

    def finished(self, stage: str, summary: str, seconds: float, *, rows: int = 0, key: str = "") -> None:
        """Take the bar away and leave the line."""
        self._clear()
        super().finished(stage, summary, seconds, rows=rows, key=key)

    def retrying(self, stage: str, attempt: int, seconds: float, why: str) -> None:
        """Take the bar away, which the next attempt shows anew, and leave the line."""
        self._clear()
        super().retrying(stage, attempt, seconds, why)

    def close(self) -> None:
        """Give the terminal back."""
        self._clear()
        self._bars.stop()

    def _clear(self) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None


class SilentReporter(LineReporter):
    """Nothing, where standard output belongs to JSON."""

    def line(self, text: str) -> None:
        """Print nothing."""
