"""The command-line reference, from the app itself."""

from typing import Any

import typer

from handbook.words import code, plain, table
from sidmill import commands as registered
from sidmill.app import app

assert registered.__all__  # importing it registers the commands

EXITS = (
    ("0", "done"),
    ("1", "failed: one line says what, where, expected against got, what to do"),
    ("2", "wrong usage"),
    ("3", "a quality gate refused"),
    ("130", "stopped by Ctrl-C; finished stages are kept"),
)


def page() -> str:
    """Give the page."""
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    names = sorted(name for name, one in commands.items() if not one.hidden)
    listing = table(
        ["command", ""], [[f"[`{name}`](#{name})", plain(_first(commands[name]))] for name in names]
    )
    return f"""\
# Command line

```console
$ sidmill --help
...
```

{listing}

Every command has `--help`, and those that show something have `--json`. A warehouse is a folder or
`s3://BUCKET/PREFIX`: `--warehouse`, else `$SIDMILL_WAREHOUSE`, else `warehouse/data`.
`sidmill --install-completion` gives the shell completion.

{table(["exit code", ""], EXITS)}

{chr(10).join(_section(name, commands[name]) for name in names)}
"""


def _first(command: Any) -> str:
    return " ".join((command.help or "").split("\n\n")[0].split())


def _section(name: str, command: Any) -> str:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name != "argument" and one.name != "help"]
    usage = " ".join(["sidmill", name, *map(_argument, arguments), *(["[OPTIONS]"] if options else [])])
    parts = [f"## {name}", plain(_first(command))]
    parts += [plain(" ".join(one.split())) for one in (command.help or "").split("\n\n")[1:]]
    parts.append(f"```text\n{usage}\n```")
    if arguments:
        rows = [
            [code(_metavar(one)), plain(one.help or ""), "" if one.required else "may be left out"]
            for one in arguments
        ]
        parts.append(table(["argument", "", ""], rows))
    if options:
        rows = [
            [
                ", ".join(code(text) for text in (*one.opts, *one.secondary_opts)),
                plain(one.help or ""),
                _default(one),
            ]
            for one in options
        ]
        parts.append(table(["option", "", "default"], rows))
    return "\n\n".join(parts) + "\n"


def _metavar(one: Any) -> str:
    return str(one.metavar or one.name).upper()


def _argument(one: Any) -> str:
    text = _metavar(one) + ("..." if one.nargs == -1 else "")
    return text if one.required else f"[{text}]"


def _default(one: Any) -> str:
    value = one.default
    if callable(value):
        value = None
    if value is None or value is False or value == () or value == []:
        return "must be given" if one.required else ""
    return code(value)
