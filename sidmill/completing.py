"""What the shell completes: releases and tags of the warehouse, formats, stages, dumps, engines.

A function here takes the command's context and the beginning that was typed, and gives (value, help). It is
asked at every press of the tab key: it imports little, asks no network, and is silent where it fails.
"""

import os
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

Found = list[tuple[str, str]]
COMPLETE = "_SIDMILL_COMPLETE"  # set by the shell's script while it completes
BEFORE = "_SIDMILL_BEFORE"  # what bash holds to be a word of its own: `movietweetings@`


def mend_words(environment: MutableMapping[str, str]) -> None:
    """Join what bash divides at each @, so that `show movietweetings@v` completes one argument.

    Bash replaces only what follows the @; that beginning is kept in BEFORE for `refs` to leave out.
    """
    if environment.get(COMPLETE) != "complete_bash" or "@" not in environment.get("COMP_WORDS", ""):
        return
    words = environment["COMP_WORDS"].split("\n")
    words = words[: int(environment.get("COMP_CWORD") or len(words) - 1) + 1]
    joined = [words[0]]
    for word in words[1:]:
        if word == "@" or (joined[-1].endswith("@") and len(joined) > 1):
            joined[-1] += word
        else:
            joined.append(word)
    before, at, after = joined[-1].rpartition("@")
    if at:
        environment[BEFORE], joined[-1] = f"{before}@", after
    environment["COMP_WORDS"] = "\n".join(joined)
    environment["COMP_CWORD"] = str(len(joined) - 1)


def _silent(find: Callable[[Any], Iterator[tuple[str, str]]]) -> Callable[[Any, str], Found]:
    """Make a completion of what finds all values; nothing is completed where that fails."""

    def complete(ctx: Any, incomplete: str) -> Found:
        before = os.environ.get(BEFORE, "")
        try:
            found = [(value, said) for value, said in find(ctx) if value.startswith(before + incomplete)]
        except Exception:  # whatever is wrong, the shell's line is no place to say it
            return []
        return [(value.removeprefix(before), said) for value, said in found]

    complete.__name__ = find.__name__
    complete.__doc__ = find.__doc__
    return complete


def _warehouse(ctx: Any) -> Path:
    """Give the warehouse of the line as typed so far; makes no folder for one in an object store."""
    from sid_warehouse import origin

    named = ctx.params.get("warehouse") or os.environ.get("SIDMILL_WAREHOUSE") or "warehouse/data"
    if origin.is_url(named):
        root = Path(os.environ.get("SIDMILL_WORK") or "~/.cache/sidmill").expanduser()
        made = root.glob(f"*/{origin.NAME}")
        return next(path.parent for path in made if f'"{named.rstrip("/")}"' in path.read_text())
    return Path(named).expanduser()


@_silent
def refs(ctx: Any) -> Iterator[tuple[str, str]]:
    """Give data sets, their releases, and their tags."""
    from sid_warehouse import releases, tags

    place = _warehouse(ctx)
    for name in releases.datasets(place):
        versions = releases.versions(place, name)
        yield name, f"the latest, v{versions[-1]}"
        yield from ((f"{name}@{tag.name}", f"v{tag.now.version}") for tag in tags.of(place, name))
        yield from ((f"{name}@v{version}", "") for version in reversed(versions))


@_silent
def tagged(ctx: Any) -> Iterator[tuple[str, str]]:
    """Give tags alone, as DATASET@TAG."""
    from sid_warehouse import tags

    place = _warehouse(ctx)
    for name in tags.datasets(place):
        yield from ((tag.ref, f"v{tag.now.version}") for tag in tags.of(place, name))


@_silent
def tag_names(ctx: Any) -> Iterator[tuple[str, str]]:
    """Give the names of tags there are, and the one that most warehouses have."""
    from sid_warehouse import tags

    place = _warehouse(ctx)
    named = {tag.name for name in tags.datasets(place) for tag in tags.of(place, name)}
    yield from ((name, "") for name in sorted(named | {"production"}))


@_silent
def datasets(ctx: Any) -> Iterator[tuple[str, str]]:
    """Give the data sets of the warehouse."""
    from sid_warehouse import releases

    yield from ((name, "") for name in releases.datasets(_warehouse(ctx)))


@_silent
def formats(ctx: Any) -> Iterator[tuple[str, str]]:
    """Give the formats of `export`."""
    from sid_pipelines.exports import FORMATS
    from sid_pipelines.trainers import TRAINERS

    yield from ((name, "tables of a lake") for name in FORMATS)
    yield from ((name, form.trainer) for name, form in sorted(TRAINERS.items()))


@_silent
def stages(ctx: Any) -> Iterator[tuple[str, str]]:
    """Give the stages that `--until` may name."""
    from sid_pipelines.chain import STEPS

    yield from ((name, "") for name in STEPS)


@_silent
def dumps(ctx: Any) -> Iterator[tuple[str, str]]:
    """Give the dumps that `fetch` knows."""
    from sid_pipelines.public_dumps import menu

    yield from ((one["name"], one["licence"]) for one in menu())


@_silent
def engines(ctx: Any) -> Iterator[tuple[str, str]]:
    """Give the engines that `--engine` may name."""
    yield "local", "this process, all cores"
    yield "beam", "by shards on Apache Beam"
