"""Any table: CSV, TSV, JSON lines, a JSON array or Parquet, with a mapping of its columns in the recipe.

    [source]
    kind = "table"
    path = "events.csv"                   # interactions
    items = "catalog.jsonl"               # optional; without it, the rows of `path` describe items too
    columns = {user_id = "user", item_id = "sku", ts = "when", value = "qty", event_type = "action"}
    item_columns = {item_id = "sku", title = "name", description = ["long", "bullets"], price = "offer.price"}
    item_pairs = {also_bought = "related.also_bought"}

A column is a name of the header (CSV, TSV), or a path (JSON, Parquet) of keys and places from 0. What an
item or interaction may have stands in `INTERACTION` and `ITEM` below; ids and `ts` must be mapped. Times
are unix time in one unit, or ISO 8601 (a time without a zone is UTC). A blank value, JSON null and a text
among `nulls` are nothing. An event that is neither a type of ours nor in `events` is a reject.

Which file is of which format is told by its name, unless `format` says it. In JSON a key may be absent
from a record; one that stands nowhere in the beginning of a file (8 MiB) is refused as a mistake, unless
named in `optional`, as is a column that a CSV or Parquet file lacks.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal, get_args

import duckdb

from sid_pipelines.sources.archives import CutOffError, DamagedError, blocks
from sid_pipelines.sources.base import Candidate, Layout, RawFile, ReadOptions, Source
from sid_pipelines.sources.fields import (
    UNITS,
    Field,
    constant,
    joined,
    name_of,
    optional_text,
    price,
    value,
)
from sid_pipelines.sources.forms import Csv, Form, Json
from sid_pipelines.sources.lines import CHUNK
from sid_pipelines.sources.records import JsonRecords, ParquetRecords, json_path, parse_path
from sid_pipelines.sources.table_fields import entries, instant, number_or_nothing, place_or_nothing, unit_of
from sid_schemas import RecipeError, SourceError
from sid_schemas.tables import EVENT_TYPES
from sid_warehouse.db import literal, quote

Unit = Literal["auto", "s", "ms", "us", "iso"]
Format = Literal["auto", "csv", "tsv", "jsonl", "json", "parquet"]

INTERACTION = ("user_id", "item_id", "ts", "event_type", "value", "session_id", "query", "position")
ITEM = ("item_id", "title", "description", "brand", "price", "category_path", "image_ref", "domain")
REQUIRED = ("user_id", "item_id", "ts")
IDS = ("user_id", "item_id", "session_id", "item_pairs.")  # and any kind of pair
SEVERAL = ("description", "category_path")  # of what may be gathered from more than one column
ENDINGS = {
    "csv": (".csv",),
    "tsv": (".tsv", ".tab"),
    "jsonl": (".jsonl", ".ndjson"),
    "json": (".json",),
    "parquet": (".parquet", ".pq"),
}
LEFT_OUT = "skip"  # as an event: its lines are no records


@dataclass(frozen=True)
class AnyTable(Source):
    """A table of interactions, and maybe one of items, whose columns the recipe maps.

    columns, item_columns: what we call it -> column or path. item_pairs: kind of relation -> path of a
    list of item ids. optional: what a file may lack. time_unit: "auto" tells it by size, 1990 to 2100.
    event: of rows without an event_type column. events: name in the file -> event type of ours, or
    "skip". nulls: texts that mean nothing, such as "NA". domain: of items without a domain column.
    category_separator: of lists written as one text; "" for none. delimiter, quote, multiline, names,
    item_names: of CSV; quote "" where nothing is quoted; multiline where quoted values hold line ends; names,
    in order, where there is no header. files, item_files: which names of a folder or zip (`events*.csv`).

    format: of all files; "auto" tells it by each file's name.
    """

    kind: ClassVar[str] = "table"
    title: ClassVar[str] = "any CSV, TSV, JSON lines, JSON array or Parquet, by a mapping of columns"
    licence: ClassVar[str] = "the data's own"
    url: ClassVar[str] = "https://www.rfc-editor.org/rfc/rfc4180"
    tested_on: ClassVar[str] = "a real JSON array, hand-made files in the other formats"
    template: ClassVar[str] = "{title}. {brand}. {categories}. {description}"

    columns: dict[str, str] | None = None
    item_columns: dict[str, str | list[str]] | None = None
    item_pairs: dict[str, str] | None = None
    optional: Sequence[str] = ()
    time_unit: Unit = "auto"
    event: str = "rating"
    events: dict[str, str] | None = None
    nulls: Sequence[str] = ()
    domain: str = "items"
    category_separator: str = "|"
    format: Format = "auto"
    delimiter: str = ","
    quote: str = '"'
    multiline: bool = False
    names: Sequence[str] = ()
    item_names: Sequence[str] = ()
    files: str = ""
    item_files: str = ""
    # The unit of the first file read, and its label: the files after must agree. One run, one object.
    _told: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def yields(self) -> list[str]:
        """Give the roles that a table can fill."""
        return ["interactions", "items", "item_pairs"]

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """Give one layout per role and format; raises RecipeError for options that do not go together."""
        check(self)
        made = [self._layout("interactions", one) for one in self._formats]
        if self.item_columns:
            made += [self._layout("items", one) for one in self._formats]
        return tuple(made)

    @property
    def _formats(self) -> list[str]:
        return list(ENDINGS) if self.format == "auto" else [self.format]

    # -- files ---------------------------------------------------------------------------------------

    def find(self, files: Sequence[Candidate], items: Sequence[Candidate] = ()) -> list[RawFile]:
        """Give the files that the recipe names; without `items`, those of `path` describe items too."""
        events, described = self._divided(files, items)
        shared = {(file.path, file.member) for file in events}
        found = [self._raw(file, "interactions", "") for file in events]
        for file in described:
            found.append(self._raw(file, "items", "#items" if (file.path, file.member) in shared else ""))
        taken: dict[tuple[str, str, str], RawFile] = {}
        for raw in found:
            name = raw.label.removesuffix("#items").removesuffix(".gz")
            rival = taken.setdefault((raw.role, raw.folder, name), raw)
            if rival is not raw:
                raise SourceError(
                    f"{rival.label} and {raw.label} both hold the {raw.role} of {raw.folder}; name the one "
                    "you mean in [source] path"
                )
        self._check_keys(found)
        return sorted(found, key=lambda raw: (raw.layout, raw.label))

    def _divided(
        self, files: Sequence[Candidate], items: Sequence[Candidate]
    ) -> tuple[list[Candidate], list[Candidate]]:
        """Give the files with interactions and those with items."""
        if items and not self.item_columns:
            raise SourceError("[source] items: names files, but item_columns does not say what they hold")
        described: list[Candidate] = []
        if self.item_columns:
            pool = items or files
            called = self.item_files or ("" if items else self.files)
            described = [file for file in pool if _is_called(file, called)]
        events = [file for file in files if _is_called(file, self.files)]
        if self.item_files and not items and not self.files:
            events = [file for file in events if file not in described]
        events = [file for file in events if self._format_of(file)]
        described = [file for file in described if self._format_of(file)]
        if not events:
            raise SourceError(self._nothing("path", self.files, files))
        if self.item_columns and not described:
            raise SourceError(self._nothing("items", self.item_files, items or files))
        return events, described

    def _nothing(self, option: str, pattern: str, pool: Sequence[Candidate]) -> str:
        there = ", ".join(sorted(file.label for file in pool)[:8]) or "nothing"
        called = f" called like {pattern!r}" if pattern else ""
        endings = ", ".join(ending for group in ENDINGS.values() for ending in group)
        return (
            f"[source] {option}: no file{called} there whose format its name tells ({endings}, also .gz); "
            f'there is: {there}. Name the files, or say [source] format, such as "csv"'
        )

    def _format_of(self, file: Candidate) -> str:
        if self.format != "auto":
            return "" if file.name.startswith((".", "_")) else self.format
        name = file.name.removesuffix(".gz").lower()
        return next((one for one, endings in ENDINGS.items() if name.endswith(endings)), "")

    def _raw(self, file: Candidate, role: str, mark: str) -> RawFile:
        place = self._formats.index(self._format_of(file))
        layout = place if role == "interactions" else place + len(self._formats)
        return RawFile(file.path, file.label + mark, role, layout, "", file.member)

    def _check_keys(self, found: Sequence[RawFile]) -> None:
        """Raise SourceError where a key stands nowhere in the beginning of a JSON file: a mistake."""
        for raw in found:
            if self._formats[raw.layout % len(self._formats)] not in ("json", "jsonl"):
                continue
            start = _beginning(raw)
            if b"\0" in start:
                continue  # of an encoding in which keys look different
            mapped = self.mapped(raw.role)
            for ours, path in ((ours, path) for ours, paths in mapped.items() for path in paths):
                keys = [key for key in parse_path(path) if isinstance(key, str) and key.isascii()]
                lost = [key for key in keys if f'"{key}"'.encode() not in start]
                if lost and ours not in self.optional:
                    raise SourceError(_no_key(raw, ours, path, lost[0], start))

    # -- columns -------------------------------------------------------------------------------------

    def mapped(self, role: str) -> dict[str, list[str]]:
        """Give what is mapped for a role: ours -> columns or paths; of pairs, `item_pairs.<kind>`."""
        if role == "interactions":
            return {ours: [theirs] for ours, theirs in (self.columns or {}).items()}
        mapped = {
            ours: [theirs] if isinstance(theirs, str) else list(theirs)
            for ours, theirs in (self.item_columns or {}).items()
        }
        return mapped | {f"item_pairs.{kind}": [path] for kind, path in (self.item_pairs or {}).items()}

    def _layout(self, role: str, form: str) -> Layout:
        called = f"{form} with {role}"
        columns = self._interaction() if role == "interactions" else self._item()
        skip = self._skip() if role == "interactions" else ()
        return Layout(role, called, r".+", self._form(form, role), columns, skip)

    def _form(self, form: str, role: str) -> Form:
        mapped = self.mapped(role)
        fields = {_field(ours, n): one for ours, many in mapped.items() for n, one in enumerate(many)}
        optional = tuple(_field(ours, n) for ours in self.optional for n in range(len(mapped.get(ours, ()))))
        match form:
            case "parquet":
                ids = tuple(name for name in fields if name.rpartition(" ")[0].startswith(IDS))
                return ParquetRecords(fields, optional, ids)
            case "json":
                return JsonRecords({name: self._json_path(path) for name, path in fields.items()})
            case "jsonl":
                return Json({name: self._json_path(path) for name, path in fields.items()})
        delimiter = "\t" if form == "tsv" else self.delimiter
        names = tuple(self.names if role == "interactions" else self.item_names) or None
        return Csv(fields, optional, names, delimiter, self.quote, self.multiline)

    def _json_path(self, path: str) -> str:
        """Give a path for JSON; a name that is none is a CSV's, unless `find` sees that the file is JSON."""
        try:
            return json_path(parse_path(path))
        except RecipeError:
            if self.format in ("json", "jsonl"):
                raise
            return "$"

    def _sql(self, ours: str, n: int = 0) -> str:
        """Give the SQL of what was read, null for a text that means nothing."""
        name = quote(_field(ours, n))
        if not self.nulls:
            return name
        return f"(case when trim({name}) not in ({', '.join(map(literal, self.nulls))}) then {name} end)"

    def _interaction(self) -> dict[str, Field]:
        mapped = self.mapped("interactions")
        made = {
            "user_id": name_of(self._sql("user_id"), f"a user id ({mapped['user_id'][0]})"),
            "item_id": name_of(self._sql("item_id"), f"an item id ({mapped['item_id'][0]})"),
            "ts": instant(self._sql("ts"), "s" if self.time_unit == "auto" else self.time_unit),
            "event_type": self._event() if "event_type" in mapped else constant(self.event),
        }
        for ours in ("session_id", "query"):
            if ours in mapped:
                made[ours] = optional_text(self._sql(ours))
        if "value" in mapped:
            made["value"] = number_or_nothing(self._sql("value"), "value")
        if "position" in mapped:
            made["position"] = place_or_nothing(self._sql("position"))
        return made

    def _event(self) -> Field:
        known = {name: kind for name, kind in self._events().items() if kind != LEFT_OUT}
        said = f"trim({self._sql('event_type')})"
        cases = " ".join(f"when {literal(name)} then {literal(kind)}" for name, kind in known.items())
        expected = literal(f"expected an event among {', '.join(known)}, got ")
        return Field(
            "_event",
            (("_event is null", f"{expected} || coalesce(nullif(left({said}, 60), ''), 'nothing')"),),
            {"_event": f"case {said} {cases} end"},
        )

    def _events(self) -> dict[str, str]:
        return self.events or {kind: kind for kind in EVENT_TYPES}

    def _skip(self) -> tuple[tuple[str, str], ...]:
        said = f"trim({self._sql('event_type')})"
        return tuple(
            (f"{said} = {literal(name)}", f"the event {name!r}, left out by [source] events")
            for name, kind in (self.events or {}).items()
            if kind == LEFT_OUT
        )

    def _item(self) -> dict[str, Field]:
        mapped = self.mapped("items")
        separator = self.category_separator
        made = {
            "item_id": name_of(self._sql("item_id"), f"an item id ({mapped['item_id'][0]})"),
            "domain": constant(self.domain),
        }
        for ours in ("title", "brand"):
            if ours in mapped:
                made[ours] = optional_text(self._sql(ours))
        if "price" in mapped:
            made["price"] = price(self._sql("price"))
        if "domain" in mapped:
            given = optional_text(self._sql("domain")).sql
            made["domain"] = value(f"coalesce({given}, {literal(self.domain)})")
        if "image_ref" in mapped:
            made["image_ref"] = value(f"({entries(self._sql('image_ref'), '')})[1]")
        if several := self._several("description", ""):
            made["description"] = value(joined(*several))
        if several := self._several("category_path", separator):
            made["category_path"] = value(f"list_concat({', '.join([*several, '[]::varchar[]'])})")
        if self.item_pairs:
            pairs = [
                f"list_transform({entries(self._sql(f'item_pairs.{kind}'), separator)}, "
                f"lambda x: {{'other': x, 'kind': {literal(kind)}}})"
                for kind in self.item_pairs
            ]
            made["pairs"] = Field(f"list_concat({', '.join([*pairs, '[]'])})")
        return made

    def _several(self, ours: str, separator: str) -> list[str]:
        return [
            entries(self._sql(ours, n), separator) for n in range(len(self.mapped("items").get(ours, ())))
        ]

    # -- the unit of times ---------------------------------------------------------------------------

    def told(
        self, connection: duckdb.DuckDBPyConnection, file: RawFile, options: ReadOptions
    ) -> tuple[Mapping[str, Any], ReadOptions]:
        """Give the unit of times that the first readable time of the file shows."""
        if self.time_unit != "auto" or file.role != "interactions":
            return {}, options
        unit = self._unit(connection, file, options)
        first, label = self._told.setdefault("unit", unit), self._told.setdefault("label", file.label)
        if unit != first:
            raise SourceError(
                f"{file.label}: times are {_words(unit)}, but in {label} they are {_words(first)}; expected "
                "one unit in all files. Bring them to one, or make a recipe for each"
            )
        return {"time_unit": unit}, options

    def _unit(self, connection: duckdb.DuckDBPyConnection, file: RawFile, options: ReadOptions) -> Unit:
        """Tell the unit by the first time that shows it; raises SourceError where none does."""
        layout = self.layouts[file.layout]
        reader = layout.reader(file, options)
        shown: list[str] = []
        for relation in layout.form.relations(connection, reader):
            told = connection.sql(f"""
                select said, unit from (
                    select source_row, said, {unit_of("said")} as unit
                    from (select source_row, {self._sql("ts")} as said from ({relation.sql})))
                where said is not null and trim(said) <> ''
                order by unit is null, source_row limit 3""").fetchall()
            if told and told[0][1]:
                unit: Unit = told[0][1]
                return unit
            shown += [said[:40] for said, _ in told]
        raise SourceError(
            f"{file.label}: cannot tell the unit of times"
            + (f" such as {', '.join(map(repr, shown[:3]))}" if shown else ", there are none")
            + "; expected unix time from 1990 to 2100, or ISO 8601. Say it: [source] time_unit = "
            '"s", "ms", "us" or "iso"'
        )


def _field(ours: str, n: int) -> str:
    return f"{ours} {n + 1}"  # with a blank, so that it is no column of ours, and no word of SQL


def _is_called(file: Candidate, pattern: str) -> bool:
    return not pattern or fnmatchcase(file.name.removesuffix(".gz"), pattern.removesuffix(".gz"))


def _words(unit: str) -> str:
    return "written as ISO 8601" if unit == "iso" else f"unix {UNITS[unit][0]}"


def _beginning(raw: RawFile) -> bytes:
    """Give the first bytes of a file's content, as far as they can be read."""
    start = b""
    try:
        for block in blocks(raw.path, raw.member):
            start += block
            if len(start) >= CHUNK:
                break
    except (CutOffError, DamagedError):  # told when the file is read
        pass
    return start


def _no_key(raw: RawFile, role: str, path: str, key: str, start: bytes) -> str:
    found = re.findall(rb'"([^"\\]{1,60})"\s*:', start[:65536])
    keys = dict.fromkeys(repr(one.decode("utf-8", "replace")) for one in found)
    return (
        f"{raw.label}: expected a key {key!r} for {role} = {path!r}, got {', '.join(keys)[:300] or 'none'}. "
        "Check [source] columns, or name what a file may lack in [source] optional"
    )


# -- options -------------------------------------------------------------------------------------------


def check(table: AnyTable) -> None:
    """Raise RecipeError, naming the option, where the options of a table do not go together."""
    _check_roles("columns", table.columns or {}, INTERACTION, REQUIRED)
    if table.item_columns:
        _check_roles("item_columns", table.item_columns, ITEM, ("item_id",))
    if table.item_pairs and not table.item_columns:
        raise RecipeError("[source] item_pairs: expected item_columns beside it, which says where item_id is")
    mapped = [*table.mapped("interactions"), *table.mapped("items")]
    optional = [ours for ours in mapped if ours not in REQUIRED]
    for one in table.optional:
        if one not in optional:
            raise RecipeError(f"[source] optional: {one!r} is {_unlike(one, optional)}")
    _check_events(table)
    _check_csv(table)


def _check_roles(
    option: str, mapping: Mapping[str, str | list[str]], known: Sequence[str], required: Sequence[str]
) -> None:
    for ours, theirs in mapping.items():
        if ours not in known:
            raise RecipeError(f"[source] {option}: {ours!r} is {_unlike(ours, known)}")
        if isinstance(theirs, list) and ours not in SEVERAL:
            raise RecipeError(
                f"[source] {option}: {ours} = {theirs!r}: expected one column; only {' and '.join(SEVERAL)} "
                "may have several"
            )
        if not theirs or not all(theirs):
            raise RecipeError(f"[source] {option}: {ours} = {theirs!r}: expected the name of a column")
    if missing := [one for one in required if one not in mapping]:
        raise RecipeError(
            f"[source] {option}: {' and '.join(missing)} missing; expected which column of the file holds "
            f'it, such as {{{missing[0]} = "..."}}'
        )


def _unlike(one: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(one, known, n=1, cutoff=0.0)
    return f"nothing known there; the nearest known one is {near[0]!r}" if near else "nothing known there"


def _check_events(table: AnyTable) -> None:
    if table.events and "event_type" not in (table.columns or {}):
        raise RecipeError("[source] events: expected columns to say where event_type is")
    given = [("event", table.event), *(("events", kind) for kind in (table.events or {}).values())]
    for option, kind in given:
        if kind not in EVENT_TYPES and (option, kind) != ("events", LEFT_OUT):
            raise RecipeError(
                f"[source] {option}: {kind!r} is no event type; the nearest known one is "
                f"{difflib.get_close_matches(kind, EVENT_TYPES, n=1, cutoff=0.0)[0]!r}"
            )


def _check_csv(table: AnyTable) -> None:
    if not _is_sign(table.delimiter) and table.delimiter != "\t":
        raise RecipeError(
            f"[source] delimiter: expected one printable ASCII character or a tab, got {table.delimiter!r}"
        )
    if table.quote and not _is_sign(table.quote):
        raise RecipeError(
            f"[source] quote: expected one printable ASCII character or nothing, got {table.quote!r}"
        )
    if table.quote == table.delimiter:
        raise RecipeError(f"[source] quote: expected another character than the delimiter {table.quote!r}")
    if table.multiline and not table.quote:
        raise RecipeError("[source] multiline: expected a quote, as only quoted values hold line ends")
    for role, names in (("interactions", table.names), ("items", table.item_names)):
        for ours, paths in table.mapped(role).items() if names else ():
            if lost := [path for path in paths if path not in names]:
                raise RecipeError(
                    f"[source] {'names' if role == 'interactions' else 'item_names'}: expected {lost[0]!r}, "
                    f"which is mapped as {ours}, among them, got {', '.join(names)}"
                )


def _is_sign(text: str) -> bool:
    return len(text) == 1 and text.isascii() and text.isprintable()


assert set(get_args(Format)) == {"auto", *ENDINGS}
