"""The command's app, and the arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from sid_schemas import SidmillError
from sidmill import __version__
from sidmill.console import say

app = typer.Typer(
    help="Raw dumps in, versioned semantic IDs out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class StoppedError(SidmillError):
    """Ctrl-C."""

    exit_code = 130


RecipeArg = Annotated[Path, typer.Argument(help="the recipe, a TOML file")]
RefArg = Annotated[str, typer.Argument(help="a release: DATASET (the latest), DATASET@vN or DATASET@TAG")]
WarehouseOpt = Annotated[
    str | None,
    typer.Option(
        "--warehouse",
        "-w",
        help="folder or s3://BUCKET/PREFIX [default: $SIDMILL_WAREHOUSE or warehouse/data]",
    ),
]
SetOpt = Annotated[
    list[str] | None,
    typer.Option("--set", help="override a key, as in tokenize.seed=2; repeatable"),
]
JsonOpt = Annotated[bool, typer.Option("--json", help="print JSON for a program to read")]


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="print the version and stop")] = False,
) -> None:
    """Raw dumps in, versioned semantic IDs out."""
    if version:
        say(f"sidmill {__version__}")
        raise typer.Exit
