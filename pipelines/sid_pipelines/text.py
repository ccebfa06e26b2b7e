"""Text: fill the template for every item, by a stated rule for what is missing."""

import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from sid_pipelines.stage import Outcome, Stage, Work, count
from sid_schemas import RecipeError
from sid_schemas.tables import TEXTS

FIELDS = ("title", "description", "brand", "price", "category_path", "domain")
ALIASES = {"genres": "category_path", "categories": "category_path"}
SEPARATORS = " .,;:|-\n\t"


@dataclass(frozen=True)
class TextParams:
    """What text depends on."""

    template: str


def run(work: Work) -> Outcome:
    """Write `texts`: the filled template of every item."""
    params: TextParams = work.params
    template = parse(params.template)
    items = work.inputs["clean"].read("items_clean")
    texts = [fill(template, row) for row in items.select(FIELDS).to_pylist()]
    table = items.select(["item_index", "item_id"]).append_column("text", pa.array(texts, pa.string()))
    work.out.write(TEXTS, table)
    empty = sum(not text for text in texts)
    facts = {"template": params.template, "empty": empty, "distinct": len(set(texts))}
    summary = f"{count(len(texts), 'text')}, {facts['distinct']:,} distinct, {empty:,} empty"
    return Outcome(facts, summary)


def parse(template: str) -> list[tuple[str, str | None]]:
    """Give a template as (literal, field) pairs, or raise RecipeError naming the unknown field."""
    try:
        split = list(string.Formatter().parse(template))
    except ValueError as error:
        raise RecipeError(f"[[embed]] template = {template!r}: {error}") from error
    if any(spec or conversion for _, _, spec, conversion in split):
        raise RecipeError(f"[[embed]] template = {template!r}: expected plain fields such as {{title}}")
    parsed = [(literal, name) for literal, name, _, _ in split]
    known = (*FIELDS, *ALIASES)
    for _, name in parsed:
        if name is not None and name not in known:
            raise RecipeError(
                f"[[embed]] template = {template!r}: no field {name!r}; there are: {', '.join(known)}"
            )
    if not any(name for _, name in parsed):
        raise RecipeError(f"[[embed]] template = {template!r}: expected a field such as {{title}}")
    return parsed


def fill(template: list[tuple[str, str | None]], item: Mapping[str, Any]) -> str:
    """Fill one item's template. Runs of white space become one blank.

    A field without a value is left out together with the literal before it and a bracket that closes
    right behind it; separators that then stand at the beginning are cut.

    >>> template = parse("{title}. {genres}")
    >>> fill(template, {"title": "Rink (1916)", "category_path": ["Comedy", "Short"]})
    'Rink (1916). Comedy, Short'
    >>> fill(template, {"title": "Guna (1992)", "category_path": []})
    'Guna (1992)'
    >>> fill(template, {"title": None, "category_path": ["Drama"]})
    'Drama'
    """
    text, skipped, just_skipped = "", False, False
    for literal, name in template:
        if just_skipped:
            literal = literal.lstrip(")]}>")
        just_skipped = False
        if name is None:
            text += literal
            continue
        value = _as_text(item.get(ALIASES.get(name, name)))
        if value:
            text += literal + value
        else:
            skipped = just_skipped = True
    return " ".join((text.lstrip(SEPARATORS) if skipped else text).split())


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value).strip()


STAGE = Stage("text", revision=3, parents=("clean",), run=run)
