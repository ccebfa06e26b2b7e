"""fetch: known public dumps."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from sid_schemas import RecipeError
from sidmill import completing
from sidmill.app import JsonOpt, StoppedError, app
from sidmill.console import BarReporter, PlainReporter, SilentReporter, print_json, print_table, say


@app.command()
def fetch(
    source: Annotated[
        str | None,
        typer.Argument(help="a known dump, as ml-1m; without it, the list", autocompletion=completing.dumps),
    ] = None,
    to: Annotated[Path | None, typer.Option(help="folder that the files go to")] = None,
    mirror: Annotated[
        list[str] | None,
        typer.Option(help="base URL, folder or file to try first, before $SIDMILL_MIRROR; repeatable"),
    ] = None,
    sha256: Annotated[str | None, typer.Option(help="pins a dump of one file that is not pinned yet")] = None,
    list_: Annotated[bool, typer.Option("--list", help="list the dumps, or those of a family")] = False,
    json: JsonOpt = False,
) -> None:
    """Download a known public dump.

    It is resumed where it stopped, and checked against its SHA-256.
    """
    from sid_pipelines import fetch as fetching
    from sid_pipelines import public_dumps

    if source is None or list_:
        if json:
            print_json(public_dumps.menu(source))
        else:
            print_table(*public_dumps.menu_table(source))
            say("to fetch one: sidmill fetch NAME --to DIR; what a family has: sidmill fetch FAMILY --list")
        return
    dump, mirrors = public_dumps.dump_named(source), fetching.mirrors_of(mirror)
    fetching.ready(dump, sha256)
    if to is None:
        raise RecipeError(f"fetch {source}: expected a folder to put it in, as in --to data/{source}")
    report = SilentReporter() if json else BarReporter() if sys.stdout.isatty() else PlainReporter()
    fetched = []
    try:
        for file in dump.files:
            label, start = f"{file.name} ", time.monotonic()
            report.started(label)
            told = fetching.progress_to(report, label)
            one = fetching.fetch_file(dump, file, to, mirrors=mirrors, sha256=sha256, progress=told)
            report.finished(label, one.summary, time.monotonic() - start)
            fetched.append(one)
    except KeyboardInterrupt:
        raise StoppedError("stopped; what has come is kept, run the same command to go on") from None
    finally:
        if isinstance(report, BarReporter):
            report.close()
    section = fetching.recipe_source(dump, to)
    if json:
        print_json({"dump": source, "files": [one.record for one in fetched], "source": section})
    else:
        say(fetching.recipe_lines(dump, section))
