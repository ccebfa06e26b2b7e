"""Running the pages of the guides: a folder for each, its commands in this process and without Prefect."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from guides import Block, blocks
from helpers import ROOT, judge_plainly

import sidmill.commands
from sid_flows.append import plan_append
from sid_flows.execute import execute, finish, stopped_at
from sid_flows.exporting import exports
from sid_flows.plan import Plan, make_plan
from sid_flows.recipe import load_recipe, validated
from sid_flows.reporting import reporter
from sid_flows.retokenize import plan_retokenize
from sid_pipelines import gates
from sidmill import cli
from sidmill.console import PlainReporter, SilentReporter, say

EXAMPLE_SOURCE = {"kind": "movietweetings", "path": "examples/data/movietweetings-50k"}


class Session:
    """A page that is run: its folder, its names. patch: what undoes its `export` and `cd`."""

    def __init__(self, page: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.page, self.folder, self.patch = page, folder, patch
        self.names: dict[str, Any] = {"__name__": "__guide__"}

    def run(self, block: Block) -> None:
        """Run a block, or raise AssertionError saying where it does not do what the page says."""
        match block.language:
            case "console":
                for number, command, expected in _commands(block):
                    self._told(f"{block.page}:{number}", command, expected)
            case "sh":
                for number, line in enumerate(_joined(block.text), block.line + 1):
                    if line.strip() and not line.lstrip().startswith("#"):
                        self._told(f"{block.page}:{number}", line, None)
            case "first":
                self._told(block.place, block.text, None)
            case "fresh":
                shutil.rmtree(self.folder / "warehouse")
                shutil.copytree(self.folder / ".warehouse", self.folder / "warehouse", copy_function=_linked)
            case "python":
                with redirect_stdout(StringIO()):
                    exec(compile("\n" * block.line + block.text, block.page, "exec"), self.names)
            case "sql":
                self._asked(block)
            case "toml":
                self._laid(block)
            case "json":
                json.loads(block.text)
            case "yaml":
                list(yaml.safe_load_all(block.text))

    def _told(self, place: str, command: str, expected: str | None) -> None:
        status, output = self.command(command)
        refused = expected is not None and any(one.startswith("sidmill: ") for one in expected.splitlines())
        assert bool(status) == refused, f"{place}: `{command}` gave {status}:\n{output}"
        if expected:
            assert alike(expected, output), f"{place}: `{command}` gave\n{output}\nand not\n{expected}"

    def command(self, line: str) -> tuple[int, str]:
        """Run one command line; sidmill alone in this process, anything else by the shell."""
        line = line.replace(".venv/bin/", "")
        words = shlex.split(line, comments=True)
        if (
            words[:1] == ["sidmill"]
            and not re.search(r"(?<!\S)(\||>|>>|&&|;|<)(?!\S)", line)
            and "$" not in line
        ):
            return in_process(words[1:])
        if words[:1] == ["export"]:
            for one in words[1:]:
                self.patch.setenv(*one.split("=", 1))
            return 0, ""
        if words[:1] == ["cd"]:
            self.patch.chdir(words[1])
            return 0, ""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", line],
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": path},
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def _asked(self, block: Block) -> None:
        with duckdb.connect(
            self.folder / "warehouse" / "data" / "catalog.duckdb", read_only=True
        ) as connection:
            for statement in block.text.split(";"):
                if re.sub(r"--[^\n]*", "", statement).strip():
                    connection.execute(statement).fetchall()

    def _laid(self, block: Block) -> None:
        named = re.match(r"# ([\w./-]+\.toml)$", block.text.split("\n", 1)[0])
        if named:
            path = Path(named[1])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text + "\n", encoding="utf-8")
            load_recipe(path)
            return
        given = tomllib.loads(block.text)
        validated(block.place, {"dataset": "movietweetings", "source": EXAMPLE_SOURCE, **given})


def _commands(block: Block) -> Iterator[tuple[int, str, str | None]]:
    """Give line, command and expected output of each command of a session."""
    found: list[tuple[int, str, list[str]]] = []
    for number, line in enumerate(block.text.splitlines(), block.line + 1):
        if line.startswith("$ "):
            found.append((number, line[2:], []))
        elif found and not found[-1][2] and found[-1][1].endswith("\\"):
            found[-1] = (found[-1][0], found[-1][1][:-1] + line.strip().removeprefix("> "), [])
        elif found:
            found[-1][2].append(line)
        else:
            raise AssertionError(f"{block.place}: a session begins with `$ command`, not with {line!r}")
    for number, command, output in found:
        yield number, command, "\n".join(output).strip() or None


def _joined(text: str) -> list[str]:
    """Give lines, those that end in a backslash with the one below."""
    return text.replace("\\\n", " ").splitlines()


def alike(expected: str, output: str) -> bool:
    """Say whether output is as expected; `...` is any text; blanks, line ends, seconds and moments may
    differ.

    >>> alike("done ... rows  (0.9 s)", "done 12 rows (1.2 s)"), alike("done", "done twice")
    (True, False)
    """
    parts = [re.escape(_usual(one)) for one in expected.split("...")]
    return re.fullmatch(r"\s*" + r"[\s\S]*".join(parts) + r"\s*", _usual(output)) is not None


def _usual(text: str) -> str:
    text = re.sub(r"^.*\d of [\d,]+, .* left$\n?", "", text, flags=re.MULTILINE)  # progress, by the clock
    text = re.sub(r"\(\d[\d,.]* s\)", "(0.0 s)", text)
    text = re.sub(r"\b20\d\d-\d\d-\d\dT[\d:.]+(\+00:00|Z)?", "2026-01-01T00:00:00", text)
    return " ".join(text.split())


def in_process(arguments: list[str]) -> tuple[int, str]:
    """Run `sidmill ARGUMENTS` here; give its exit code and what it printed."""
    printed, status = StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed), redirect_stderr(printed):
        patch.setattr(sys, "argv", ["sidmill", *arguments])
        try:
            cli.main()
        except SystemExit as stopped:
            status = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    return status, printed.getvalue()


def run_without_prefect(
    name: str, arguments: tuple[Any, ...], warehouse: Path, *, json: bool, **_: Any
) -> dict[str, Any]:
    """Carry out the plan that a flow would, in this process: as sid_flows.tasks, but for Prefect."""
    report = SilentReporter() if json else PlainReporter()
    token = reporter.set(report)
    try:
        if not json:
            say(f"{arguments[0]} -> {warehouse}  (Prefect starts: about 10 s)")
        return carried_out(*planned(name, arguments))
    finally:
        reporter.reset(token)


def planned(name: str, arguments: tuple[Any, ...]) -> tuple[Plan, str | None]:
    """Give the plan of a flow's arguments, and where it is to stop."""
    if name == "retokenize":
        recipe, ref, warehouse, overrides, match = arguments
        return plan_retokenize(ref, recipe, Path(warehouse), overrides, match=match), None
    make = {"build": make_plan, "append": plan_append}[name]
    recipe, warehouse, *more = arguments
    return make(recipe, Path(warehouse), *more), arguments[-1]


def carried_out(plan: Plan, until: str | None) -> dict[str, Any]:
    """Run a plan's stages, publish and export."""
    outputs: dict[str, Any] = {}
    for one in plan.stages:
        outputs[one.label] = execute(plan, one, outputs)
    if until is not None:
        return stopped_at(plan, outputs)
    release = finish(plan, outputs)
    told = {name: release[name] for name in ("dataset", "version", "fingerprint")}
    return told | ({"exports": exports(plan, release)} if plan.recipe.export.formats else {})


def page_folder(to: Path, warehouse: Path) -> Path:
    """Make a folder for a page: the examples, and a warehouse that has the example's first release."""
    to.mkdir(parents=True, exist_ok=True)
    shutil.copytree(ROOT / "examples", to / "examples")
    shutil.copytree(warehouse, to / ".warehouse" / "data", copy_function=_linked)
    shutil.copytree(warehouse, to / "warehouse" / "data", copy_function=_linked)
    return to


def _linked(source: str, target: str) -> None:
    """Link a large file of a release or stage, which nobody writes again; copy any other."""
    if (
        Path(source).suffix in (".parquet", ".arrow", ".safetensors", ".npy")
        and Path(source).stat().st_size > 1 << 16
    ):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def prepared(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let commands run here: without Prefect, without Great Expectations, without the caller's warehouse."""
    for command in ("build", "append", "compare"):
        patch.setattr(getattr(sidmill.commands, command), "run_flow", run_without_prefect)
    patch.setattr(gates, "judge", judge_plainly)
    for name in [name for name in os.environ if name.startswith(("SIDMILL_", "PREFECT_"))]:
        patch.delenv(name)
    patch.setenv("PYTHONPATH", str(ROOT))
    patch.chdir(folder)


def run_page(page: str, text: str, folder: Path) -> int:
    """Run the blocks of a page one after another; give how many ran."""
    ran = 0
    with pytest.MonkeyPatch.context() as patch:
        session = Session(page, folder, patch)
        for block in blocks(page, text):
            if not block.how:
                session.run(block)
                ran += block.language not in ("text", "first", "fresh")
    return ran
