"""Text: fill the template for every item, by a stated rule for what is missing.

Shop data carries what web pages and scripts left in it: tags and entities, Python lists as text, control
characters. `cleaned` takes these out of every field before the template is filled, unless the recipe says
clean_text = false. Items stream through in blocks, so memory does not grow with what is written about them.
What a language model wrote about an item is a field like others, read from a file (enriched.py).
"""

import ast
import hashlib
import html
import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from sid_pipelines.enriched import FIELD as ENRICHED
from sid_pipelines.enriched import Enriched
from sid_pipelines.stage import Outcome, Stage, Work, count
from sid_pipelines.vector_cache import content_key
from sid_schemas import RecipeError
from sid_schemas.tables import TEXTS
from sid_warehouse.db import connect

FIELDS = ("title", "description", "brand", "price", "category_path", "domain")
ALIASES = {"genres": "category_path", "categories": "category_path"}
SEPARATORS = " .,;:|-\n\t"
ROWS = 65_536  # items per block
Template = list[tuple[str, str | None]]  # a literal and the field behind it

# What may need cleaning; most texts hold none of it.
SUSPECT = re.compile(r"""[<&\x00-\x1f\x7f-\x9f\xad\u200b-\u200f\u2060\ufeff]|^\s*\[""")
HIDDEN = re.compile(r"<!--.*?-->|<(script|style)\b[^<>]*>.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
# A tag has a name and, unless it has an attribute with a value, at most one word more: "a<b and 3 > 2" and
# "<300 V" are none. One that is cut off at the end must have an attribute.
TAG = re.compile(
    r"</?[A-Za-z][A-Za-z0-9:-]*(?:\s+[A-Za-z-]+)?\s*/?>"
    r"|<[A-Za-z][A-Za-z0-9:-]*\s[^<>=]*=[^<>]*(?:>|$)"
)
ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{0,31});")
INVISIBLE = re.compile(r"[\xad\u200b-\u200f\u2060\ufeff]")  # soft hyphens, joiners, byte order marks
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
LIST_START = re.compile(r"""\[+\s*(['"]|\]|None\b|nan\b)""")
NO_LIST = re.compile(r"\[[^\[\]]*\]\s*\S")  # as in the title '["Heroes"] (2004)'
ESCAPED = re.compile(r"""\\([nrt'"])""")
LIST_ENDS = re.compile(r"""^\[+\s*['"]|['"]?\s*\]*$""")
LIST_COMMA = re.compile(r"""['"],\s*['"]""")


@dataclass(frozen=True)
class TextParams:
    """What text depends on.

    clean_text: take tags, entities, list remains and control characters out. enriched: SHA-256 of the file
    that fills {enriched}, "" for none. enriched_path: where it lies.
    """

    template: str
    clean_text: bool = True
    enriched: str = ""
    enriched_path: str = field(default="", metadata={"keyed": False})


@dataclass
class Tally:
    """What is counted of texts while they stream through: empty ones, and 16 bytes of each."""

    empty: int = 0
    digests: list[bytes] = field(default_factory=list)

    def distinct(self) -> npt.NDArray[np.void]:
        """Give the digests of distinct texts."""
        return np.unique(np.frombuffer(b"".join(self.digests), dtype="V16"))


def run(work: Work) -> Outcome:
    """Write `texts`: the filled template of every item."""
    params: TextParams = work.params
    tally, template = Tally(), parse(params.template)
    with _items(work, params, columns_of(template)) as (batches, said):
        rows = work.out.write(TEXTS, filled(batches, template, params.clean_text, tally))
    return outcome(params, rows, tally.empty, len(tally.distinct()), said)


def outcome(params: TextParams, rows: int, empty: int, distinct: int, said: Mapping[str, Any]) -> Outcome:
    """Say what was written. said: of enriched texts, nothing where there are none."""
    facts = {
        "template": params.template,
        "template_sha256": hashlib.sha256(params.template.encode()).hexdigest(),
        "clean_text": params.clean_text,
        "empty": empty,
        "distinct": distinct,
        **({"enriched": said} if said else {}),
    }
    wrote = f", written by {', '.join(said['models'])}" if said else ""
    return Outcome(facts, f"{count(rows, 'text')}, {distinct:,} distinct, {empty:,} empty{wrote}")


def columns_of(template: Template) -> list[str]:
    """Give the columns of items_clean that a template needs, and the items' numbers and ids."""
    names = {ALIASES.get(name, name) for _, name in template if name is not None}
    return ["item_index", "item_id", *(name for name in FIELDS if name in names)]


@contextmanager
def _items(
    work: Work, params: TextParams, columns: Sequence[str]
) -> Iterator[tuple[Iterable[pa.RecordBatch], dict[str, Any]]]:
    """Give the columns of all items, block by block, and what there is to say of enriched texts."""
    parts = work.inputs["clean"].parts("items_clean")
    if not params.enriched:
        yield _stored(parts, columns), {}
        return
    with connect(spill=work.out.spill, memory=work.resources.duckdb) as connection:
        found = Enriched(connection, Path(params.enriched_path), params.enriched, parts)
        said = found.facts()
        yield found.batches(columns, ROWS), said


def _stored(parts: Sequence[Path], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    for part in parts:
        with pq.ParquetFile(part, pre_buffer=False) as file:
            yield from file.iter_batches(ROWS, columns=columns)


def filled(
    batches: Iterable[pa.RecordBatch], template: Template, clean: bool, tally: Tally
) -> Iterator[pa.RecordBatch]:
    """Yield the filled template of each item, telling the tally of each block."""
    for batch in batches:
        texts = [fill(template, row, clean=clean) for row in batch.to_pylist()]
        tally.empty += sum(not text for text in texts)
        tally.digests.append(b"".join(content_key(text.encode()) for text in texts))
        # In the order of TEXTS; items_clean may hold its columns in another.
        kept = [batch.column("item_index"), batch.column("item_id"), pa.array(texts, pa.string())]
        yield pa.RecordBatch.from_arrays(kept, names=["item_index", "item_id", "text"])


def parse(template: str) -> Template:
    """Give a template as (literal, field) pairs, or raise RecipeError naming the unknown field."""
    try:
        split = list(string.Formatter().parse(template))
    except ValueError as error:
        raise RecipeError(f"[[embed]] template = {template!r}: {error}") from error
    if any(spec or conversion for _, _, spec, conversion in split):
        raise RecipeError(f"[[embed]] template = {template!r}: expected plain fields such as {{title}}")
    parsed = [(literal, name) for literal, name, _, _ in split]
    known = (*FIELDS, *ALIASES, ENRICHED)
    for _, name in parsed:
        if name is not None and name not in known:
            raise RecipeError(
                f"[[embed]] template = {template!r}: no field {name!r}; there are: {', '.join(known)}"
            )
    if not any(name for _, name in parsed):
        raise RecipeError(f"[[embed]] template = {template!r}: expected a field such as {{title}}")
    return parsed


def fields_of(template: str) -> set[str]:
    """Give the fields that a template names, or raise RecipeError as `parse` does."""
    return {name for _, name in parse(template) if name is not None}


def fill(template: Template, item: Mapping[str, Any], *, clean: bool = True) -> str:
    """Fill one item's template. Runs of white space become one blank. clean: see `cleaned`.

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
        value = _as_text(item.get(ALIASES.get(name, name)), clean=clean)
        if value:
            text += literal + value
        else:
            skipped = just_skipped = True
    return " ".join((text.lstrip(SEPARATORS) if skipped else text).split())


def _as_text(value: Any, *, clean: bool) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(filter(None, (_as_text(one, clean=clean) for one in value)))
    if isinstance(value, float):
        return f"{value:g}"
    return cleaned(str(value)) if clean else str(value).strip()


def cleaned(text: str) -> str:
    """Give a text without tags, entities, the marks of a Python list, control and invisible characters.

    Scripts, styles and comments go with what they hold. A "<" before a number or a blank is no tag. Runs of
    white space become one blank.

    >>> cleaned("['Fits 3/8&quot; bolts,<br />\\\\n torque &lt; 5 Nm', 'Pack of 2']")
    'Fits 3/8" bolts, torque < 5 Nm Pack of 2'
    """
    if not SUSPECT.search(text):
        return " ".join(text.split())
    if LIST_START.match(text.lstrip()):
        text = " ".join(_listed(text.strip()))
    for _ in range(2):  # once more for what was escaped twice
        text = TAG.sub(" ", _without_hidden(text))
        if (plain := ENTITY.sub(_unescaped, text)) == text:
            break
        text = plain
    return " ".join(CONTROL.sub(" ", INVISIBLE.sub("", text)).split())


def _without_hidden(text: str) -> str:
    """Take out comments, scripts and styles; where none is closed, looking for each end is quadratic."""
    return HIDDEN.sub(" ", text) if "-->" in text or "</" in text else text


def _unescaped(found: re.Match[str]) -> str:
    """Give what an entity stands for; "&B;", which is none, was "R&B" before someone's script."""
    plain = html.unescape(found[0])
    return found[0][:-1] if plain == found[0] else plain


def _listed(text: str) -> list[str]:
    """Give the strings of a Python list written as text; of one with a fault, what stands between quotes."""
    try:
        return _strings(ast.literal_eval(text))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return [text] if NO_LIST.match(text) else _strings(LIST_COMMA.split(LIST_ENDS.sub("", text)))


def _strings(value: Any) -> list[str]:
    if isinstance(value, list | tuple):
        return [text for one in value for text in _strings(one)]
    if value is None:
        return []
    # JSON writes what lies beyond U+FFFF as two halves, which a Python literal leaves apart.
    joined = str(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return [ESCAPED.sub(_escaped, joined)]  # some were escaped twice


def _escaped(found: re.Match[str]) -> str:
    return found[1] if found[1] in "'\"" else " "


STAGE = Stage("text", revision=8, parents=("clean",), run=run)
