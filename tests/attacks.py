"""What attacks are made of, and how a test looks whether one was refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sid_schemas import SidmillError
from sidmill.cli import app

INJECTION = "x'; drop table releases; --"
QUOTED = 'x"; drop table releases; --'
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)>"
ESCAPES = "\x1b[2J\x1b]0;owned\x07"  # clear the screen, name the window, ring
TRAVERSALS = ("../x", "../../x", "/etc/x", "a/../../x", "a//x", "..", ".", "", "a\0b", "a\\..\\b", "a\nb")
NO_OBJECT = ("", "[]", "null", "5", "{", "\xff", "[" * 100_000)  # as JSON


class Evil:
    """What unpickling it does: leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def refused(action: Callable[[], object]) -> str:
    """Give the line in which an attack is refused."""
    with pytest.raises(SidmillError) as caught:
        action()
    line = str(caught.value)
    assert 10 < len(line) < 1000
    return line


def answered(*arguments: str) -> str:
    """Run a command; give what it printed, or the line in which it refused. A traceback fails."""
    done = CliRunner().invoke(app, arguments)
    if done.exception and not isinstance(done.exception, SystemExit):
        assert isinstance(done.exception, SidmillError), (arguments, done.exception)
        return str(done.exception)
    return done.output


def tree(root: Path, *but: Path) -> dict[str, bytes]:
    """Give every folder and file below `root`, except below some folders."""
    paths = (path for path in root.rglob("*") if not any(path.is_relative_to(one) for one in but))
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in paths}
