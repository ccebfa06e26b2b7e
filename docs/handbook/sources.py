"""A page for each kind of dump: its files, how to get them, a recipe, what it yields, its traps."""

import sys
from collections.abc import Iterator, Mapping

from rich.filesize import decimal

from handbook.keys import key_table, parameter_rows
from handbook.words import code, plain, prose, slug, table
from sid_pipelines.public_dumps import DUMPS, Dump
from sid_pipelines.sources import SOURCES, Source
from sid_pipelines.sources.base import Layout

MANY = 12  # dumps of a kind beyond which they are listed by name alone
SAID: Mapping[str, str] = {
    "interactions": "events of users on items",
    "items": "what is known of items",
    "impressions": "lists of items as they were shown",
    "item_pairs": "items that belong together",
}
EXAMPLE = "examples/data/movietweetings-50k"  # the one dump that a checkout has
MAPPED = """\
columns = {user_id = "visitor", item_id = "sku", ts = "when", event_type = "action"}
events = {view = "view", addtocart = "cart", order = "purchase"}
item_columns = {item_id = "sku", title = "name", description = ["long", "bullets"], brand = "maker.name"}
"""


def pages() -> Iterator[tuple[str, str]]:
    """Give path and Markdown of each page."""
    yield "sources/index.md", _menu()
    for kind, source in sorted(SOURCES.items()):
        yield f"sources/{slug(kind)}.md", _page(kind, source)


def _menu() -> str:
    rows = [
        [
            f"[{kind}]({slug(kind)}.md)",
            plain(source.title),
            ", ".join(source().yields),
            plain(source.tested_on),
        ]
        for kind, source in sorted(SOURCES.items())
    ]
    return f"""\
# Sources

What `[source] kind` may be. Files are read as downloaded: plain, `.gz`, or in a `.zip`. How rows are
cleaned and
split is in [Data](../data.md).

{table(["kind", "files", "yields", "tested on"], rows)}

```console
$ sidmill sources
kind ...
```
"""


def _page(kind: str, source: type[Source]) -> str:
    made = source()
    files = [
        [
            plain(layout.called),
            layout.role if layout.role in SAID else f"{layout.role} (goes into others)",
            "yes" if layout.required else "no",
            layout.encoding,
        ]
        for layout in _layouts(made)
    ]
    there = table(["file", "gives", "must be there", "encoding"], files) if files else plain(source.title)
    here = EXAMPLE if kind == "movietweetings" else ""
    run = f"$ sidmill run {slug(kind)}.toml"
    whole = "" if here else f"{run}\n"
    why = "" if here else "<!-- not run: needs the dump itself -->\n"
    title, _, told = (sys.modules[source.__module__].__doc__ or "").partition("\n")
    return f"""\
# {kind}

{plain(source.title)}. {plain(" ".join((source.__doc__ or "").split(chr(10) * 2)[0].split()))}

- Where it is from: <{source.url}>
- Licence: {plain(source.licence)}
- The parser was tested on: {plain(source.tested_on)}
- It yields: {", ".join(f"`{role}` ({SAID[role]})" for role in made.yields)}
- Text that is embedded where a recipe names none: {code(source.template)}

## Files

{there}

{_fetching(kind)}
## A recipe

```toml
# {slug(kind)}.toml
dataset = "{slug(kind)}"
[source]
kind = "{kind}"
{_path(kind)}
[clean]
k_core = 5
```

{why}```console
{run} --until split
{whole}```
{"" if whole else chr(10) + f"Without `--until` it runs to the end: `{run[2:]}`." + chr(10)}
## Options

They stand beside `kind` in `[source]`. [The recipe](../reference/recipe.md#source) has those that every
source takes.

{key_table(parameter_rows(source))}

## Formats and traps

{prose(title + chr(10) + told)}
"""


def _layouts(made: Source) -> list[Layout]:
    return [] if made.kind == "table" else list(made.layouts)


def _path(kind: str) -> str:
    if kind == "table":
        return f'path = "events.csv"\nitems = "catalog.jsonl"\n{MAPPED}'.rstrip()
    if kind == "movietweetings":
        return f'path = "{EXAMPLE}"   # a folder, file, .zip or glob, relative to this file'
    return f'path = "data/{slug(kind)}"   # a folder, file, .zip or glob, relative to this file'


def _fetching(kind: str) -> str:
    dumps = [dump for dump in DUMPS.values() if dump.kind == kind]
    if not dumps:
        return "## Getting them\n\nNo public dump of this kind is known to `sidmill fetch`.\n"
    open_, closed = [one for one in dumps if one.files], [one for one in dumps if not one.files]
    parts = ["## Getting them"]
    if open_:
        parts.append(
            f"<!-- not run: needs the network -->\n```console\n$ sidmill fetch {open_[0].name} --to "
            f"data/{slug(kind)}\n```"
        )
        parts.append(_known(open_))
    parts += [f"`{one.name}` has no public address: {plain(one.get_it)}." for one in closed]
    return "\n\n".join(parts) + "\n"


def _known(dumps: list[Dump]) -> str:
    if len(dumps) > MANY:
        return (
            f"{len(dumps)} dumps of this kind are known: " + ", ".join(code(one.name) for one in dumps) + "."
        )
    rows = [
        [
            code(one.name),
            str(len(one.files)),
            decimal(one.bytes) if one.bytes else "",
            one.pinned,
            plain(one.licence),
        ]
        for one in dumps
    ]
    return table(["dump", "files", "size", "SHA-256 known", "licence"], rows)
