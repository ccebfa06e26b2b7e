"""What people see of a run: bars on a terminal, plain lines in a log, nothing where JSON is asked for."""

import io
import re

import pytest
from rich.console import Console

from sid_flows import reporting
from sidmill import console


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    written = io.StringIO()
    monkeypatch.setattr(console, "OUT", Console(file=written, force_terminal=True, width=100, soft_wrap=True))
    return written


def run_a_stage(reporter: reporting.LineReporter) -> None:
    reporter.reused("clean", "20 interactions")
    reporter.started("embed")
    reporter.progress("embed", 64, 1342)
    reporter.finished("embed", "1,342 vectors", 12.34)


def test_a_terminal_shows_a_bar_and_keeps_the_lines(screen: io.StringIO) -> None:
    reporter = console.BarReporter()
    reporter.reused("clean", "20 interactions")
    reporter.started("embed")
    reporter.progress("embed", 64, 1342)
    reporter._bars.refresh()
    assert "embed" in screen.getvalue()
    assert "64/1342" in screen.getvalue()
    reporter.finished("embed", "1,342 vectors", 12.34)
    reporter.close()
    assert "clean       20 interactions  (reused)" in screen.getvalue()
    assert "embed       1,342 vectors  (12.3 s)" in screen.getvalue()
    assert screen.getvalue().rstrip().endswith("\x1b[?25h")  # the cursor is back


def test_a_log_gets_lines_and_no_more(screen: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    run_a_stage(console.PlainReporter())
    assert screen.getvalue() == "clean       20 interactions  (reused)\nembed       1,342 vectors  (12.3 s)\n"
    monkeypatch.setattr(reporting, "EVERY", 0.0)
    run_a_stage(console.PlainReporter())
    assert re.search(r"embed       64 of 1,342, [\d,]+/s, \d+ s left\n", screen.getvalue())


def test_json_is_alone_on_standard_output(screen: io.StringIO) -> None:
    run_a_stage(console.SilentReporter())
    assert screen.getvalue() == ""


def test_an_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    console.complain("one\n  two\n")
    assert capsys.readouterr().err == "sidmill: one two\n"


def test_tables_show_what_is_there_as_it_is(screen: io.StringIO) -> None:
    console.print_table(["text", "n"], [["<a_1>[bold]", 1], [None, 0.25]])
    lines = [line.rstrip() for line in screen.getvalue().splitlines()]
    assert lines[1:] == ["<a_1>[bold]     1", "             0.25"]
