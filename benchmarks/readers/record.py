"""Run a reader's commands as readers.toml has them, and write what they print to docs/verified/NAME.txt.

    python benchmarks/readers/record.py NAME --warehouse DIR [--checkout DIR] [--python EXE]

Exports are made afresh. Of the output only this machine's paths are changed, back to the names that stand in
the commands. A log is written where every command ended well. What a script stubs is in its docstring, which
becomes the log's head.
"""

import argparse
import ast
import datetime
import os
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
VERSIONS = (
    "import sys; from importlib.metadata import version; print('Python ' + sys.version.split()[0],"
    "*(f'{name} {version(name)}' for name in sys.argv[1:]), sep=', ')"
)


def record(name: str, python: str, places: dict[str, str]) -> str:
    """Run all commands of a reader and give the log. Raises CalledProcessError where one fails."""
    reader = tomllib.loads((HERE / "readers.toml").read_text())[name]
    shown = [python, "-c", VERSIONS, *reader["packages"]]
    versions = subprocess.run(shown, check=True, capture_output=True, text=True).stdout.strip()
    today = datetime.datetime.now(datetime.UTC).date()
    script = next(one for one in reader["commands"] if one.startswith("python ")).split()[1]
    lines = [
        told(HERE.parents[1] / script),
        "",
        f"CHECKOUT: {reader['checkout']}",
        f"WAREHOUSE: {reader['release']}",
        f"{today}: {versions}",
    ]
    for command in reader["commands"]:
        lines += ["", f"$ {command}", *output(command, python, places).splitlines()]
    return "\n".join(lines) + "\n"


def told(script: Path) -> str:
    """Give a script's docstring without its line of usage."""
    text = ast.get_docstring(ast.parse(script.read_text())) or ""
    return "\n\n".join(part for part in text.split("\n\n") if "benchmarks/readers/" not in part)


def output(command: str, python: str, places: dict[str, str]) -> str:
    """Run a command with folders in the places of its names; give what it prints, with the names again."""

    def place(found: re.Match[str]) -> str:
        return places.setdefault(found[0], f"{places['TMP']}/{found[0].lower()}")

    words = [re.sub(r"\b(CHECKOUT|WAREHOUSE|EXPORT\w*)\b", place, word) for word in shlex.split(command)]
    run = {"sidmill": [str(Path(sys.executable).with_name("sidmill"))], "python": [python, "-W", "ignore"]}
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": places["TMP"], "TF_CPP_MIN_LOG_LEVEL": "3"}
    words[:1] = run[words[0]]
    ran = subprocess.run(words, cwd=HERE.parents[1], env=env, stdout=subprocess.PIPE, text=True, check=True)
    text = "" if command.startswith("sidmill") else ran.stdout
    for name, folder in sorted(places.items(), key=lambda one: -len(one[1])):
        text = text.replace(folder, name)
    return re.sub(r"TMP/tmp\w+", "TMP", text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("--warehouse", required=True, type=Path)
    parser.add_argument("--checkout", type=Path, default=Path())
    parser.add_argument("--python", default=sys.executable)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folders = {"CHECKOUT": given.checkout, "WAREHOUSE": given.warehouse, "TMP": Path(scratch)}
        log = record(given.name, given.python, {name: str(path.resolve()) for name, path in folders.items()})
    (HERE.parents[1] / "docs" / "verified" / f"{given.name}.txt").write_text(log)
