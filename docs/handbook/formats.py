"""A page for each trainer's format: whose it is, its settings, which file goes where, whether it was read."""

import re
import sys
from collections.abc import Iterator

from handbook.keys import key_table, model_rows
from handbook.places import READMES, cells, rows_of
from handbook.refused import REFUSED
from handbook.words import plain, prose, slug, table, toml
from sid_pipelines.trainers import TRAINERS, Format

SMALLER = {"gream": " --set epochs=1"}  # so that running the page's command takes seconds


def pages() -> Iterator[tuple[str, str]]:
    """Give path and Markdown of each page."""
    yield "formats/index.md", _menu()
    for name, form in sorted(TRAINERS.items()):
        yield f"formats/{slug(name)}.md", _page(name, form)


def _menu() -> str:
    rows = [
        [
            f"[{name}]({slug(name)}.md)",
            plain(form.trainer),
            plain(form.says),
            ", ".join(form.protocols) or "any",
        ]
        for name, form in sorted(TRAINERS.items())
    ]
    return f"""\
# Trainers' formats, one by one

What `sidmill export --format` and `[export] formats` take. [Trainers](../trainers.md) says what verified
means, and what an export costs.

{table(["format", "trainer", "writes", "split protocols"], rows)}

```console
$ sidmill formats
format ...
```
"""


def _page(name: str, form: Format) -> str:
    told = told_of(name)
    rows = model_rows(form.settings)
    example = SMALLER.get(name) or next(
        (
            f" --set {key}={value if isinstance(value, str) else toml(value)}"
            for key, value in form.settings().model_dump(mode="json").items()
            if value not in ("", None)
        ),
        "",
    )
    settings = "".join(
        f"{key} = {toml(value)}\n"
        for key, value in form.settings().model_dump(mode="json").items()
        if value is not None
    )
    section = f"[export.settings.{name}]\n{settings}" if settings else ""
    own = form.protocols and "leave-one-out" not in form.protocols
    split = f'[split]\nprotocol = "{form.protocols[0]}"\n' if own else ""
    papers = ", ".join(map(str, form.papers))
    line, what = REFUSED.get(name, ("", ""))
    said = f"sidmill: movietweetings@v1: {line}\n" if line else ""
    fits = f"\nThe example's release is refused. It wants {what}.\n" if what else ""
    return f"""\
# {name}

{plain(form.trainer)}: {plain(form.says)}.

- Split protocols whose releases it can hold: {", ".join(f"`{one}`" for one in form.protocols) or "any"}
- Releases that it refuses: {told["refuses"] or "none"}
- Read by the trainer's own code: {told["verified"]}
{f"- [Papers](../papers.md) that it feeds: rows {papers}" if papers else ""}

## The command

```console
$ sidmill export movietweetings --format {name}{example} --to exports/{name}
{said}```
{fits}
Or in a recipe, written after every publishing:

```toml
{split}[export]
formats = ["{name}"]
{section}```

## Settings

{key_table(rows)}

## Which file goes where

{told["where"]}

The README that the folder gets, as it was written for a small made-up release:

{quoted(name)}

## How its files are made

{prose(sys.modules[form.write.__module__].__doc__ or "")}
"""


def told_of(name: str) -> dict[str, str]:
    """Give what docs/trainers.md says of a format, its links made to work from a page in a folder."""
    [row] = rows_of("trainers.md", f"| `{name}` |", after="## All formats")
    parts = [cell.replace("](", "](../").replace("](../https:", "](https:") for cell in cells(row)]
    refuses = re.sub(r"\bLOO\b", "what is not leave-one-out", parts[-2])
    refuses = re.sub(r"\bpaths\b", "IDs that are paths (trees, categories, titles)", refuses)
    return {"where": f"{parts[2]}: {parts[3]}.", "refuses": refuses, "verified": parts[-1]}


def quoted(name: str) -> str:
    """Give the body of the README that a format writes, as a quotation."""
    path = READMES / f"{name}.md"
    text = path.read_text(encoding="utf-8").strip() if path.exists() else "(not recorded yet: make readmes)"
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())
