"""The command's app, and the arguments and options that several commands share."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sid_schemas import RecipeError
from sidmill import __version__, completing
from sidmill.console import say
from sidmill.grouping import Commands, StoppedError

__all__ = ["StoppedError", "app"]  # further names here are the arguments and options

app = typer.Typer(
    cls=Commands,
    help="Raw dumps in, versioned semantic IDs out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


RecipeArg = Annotated[Path, typer.Argument(help="the recipe, a TOML file")]
RefArg = Annotated[
    str,
    typer.Argument(
        help="a release: DATASET (the latest), DATASET@vN or DATASET@TAG", autocompletion=completing.refs
    ),
]
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
EngineOpt = Annotated[
    str | None,
    typer.Option(
        "--engine",
        help="local or beam: what runs the stages, as engine.kind",
        autocompletion=completing.engines,
    ),
]
UntilOpt = Annotated[str | None, typer.Option(help="stop after this stage", autocompletion=completing.stages)]
BeamOpt = Annotated[
    str | None,
    typer.Option(
        "--beam-options",
        help="Apache Beam's own, in one word, as engine.options; without a runner, processes of this machine",
    ),
]
JsonOpt = Annotated[bool, typer.Option("--json", help="print JSON for a program to read")]


def overrides_of(set_: Sequence[str] | None, engine: str | None, beam_options: str | None) -> tuple[str, ...]:
    """Give the overrides of a recipe; --engine and --beam-options are short for two of them.

    >>> overrides_of(["clean.k_core=2"], None, "--direct_num_workers=4")
    ('clean.k_core=2', 'engine.kind=beam', 'engine.options="--direct_num_workers=4"')
    """
    if beam_options is not None and (engine or "beam") != "beam":
        raise RecipeError(f"--beam-options: expected with --engine beam, got --engine {engine}")
    kind = engine or (None if beam_options is None else "beam")
    made = [f"engine.kind={kind}"] if kind else []
    if beam_options is not None:
        made.append(f"engine.options={json.dumps(beam_options, ensure_ascii=False)}")
    return (*(set_ or ()), *made)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="print the version and stop")] = False,
) -> None:
    """Raw dumps in, versioned semantic IDs out."""
    if version:
        say(f"sidmill {__version__}")
        raise typer.Exit
