"""What a source is: which files a dump has, how their lines become fields, and what the fields mean.

A source is data, not code: layouts with SQL expressions over fields. Every line becomes a record, a
line left out for a stated reason (`skip`: it carries nothing, such as a change of a filter), or a
reject with its reason. What a file says indirectly (clicks in a list of what was shown, properties of
an item on lines of their own) is staged under a role of the source's own and turned into interactions,
items, impressions or item pairs by the SQL in `derived`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from sid_pipelines.sources import archives
from sid_pipelines.sources.fields import Field
from sid_pipelines.sources.forms import Form
from sid_pipelines.sources.lines import LineReader
from sid_schemas import SourceError
from sid_warehouse.db import literal, quote

# What a record of each role has; a column that a layout does not give is this default.
ROLES: Mapping[str, Mapping[str, str]] = {
    "interactions": {
        "user_id": "null::varchar",
        "item_id": "null::varchar",
        "ts": "null::bigint",
        "event_type": "'rating'",
        "value": "null::double",
        "session_id": "null::varchar",
        "query": "null::varchar",
        "position": "null::integer",
    },
    "items": {
        "item_id": "null::varchar",
        "title": "null::varchar",
        "description": "null::varchar",
        "brand": "null::varchar",
        "price": "null::double",
        "category_path": "[]::varchar[]",
        "image_ref": "null::varchar",
        "domain": "'items'",
        "pairs": "[]::struct(other varchar, kind varchar)[]",
    },
    "impressions": {
        "user_id": "null::varchar",
        "ts": "null::bigint",
        "impression_id": "null::varchar",
        "session_id": "null::varchar",
        "query": "null::varchar",
        "items": "[]::varchar[]",
        "clicked": "[]::boolean[]",
        "positions": "[]::integer[]",
        "propensities": "null::double[]",
    },
}


@dataclass(frozen=True)
class Layout:
    """One kind of file.

    called: the file's name for people. name: regular expression of the whole name without `.gz`; a group
    `part` in it says which part of the dump the file holds (the column `part`), and two files of one
    role and part exclude each other. columns: of the role, each from fields; a role of the source's own
    has just these. skip: (condition, reason) of lines that are no records.
    """

    role: str
    called: str
    name: str
    form: Form
    columns: Mapping[str, Field]
    skip: tuple[tuple[str, str], ...] = ()
    required: bool = True
    encoding: str = "utf-8"

    def select(self, relation: str, label: str, part: str) -> str:
        """Give the SQL that turns a relation of fields into records, skipped lines and rejects."""
        defaults = ROLES.get(self.role, {})
        unknown = [name for name in self.columns if defaults and name not in defaults]
        assert not unknown, unknown
        columns = {**defaults, **{name: made.sql for name, made in self.columns.items()}}
        checks = [check for made in self.columns.values() for check in made.checks]
        lets = {name: sql for made in self.columns.values() for name, sql in made.lets.items()}
        whens = " ".join(f"when {condition} then {reason}" for condition, reason in checks)
        skips = " ".join(f"when {condition} then {literal(reason)}" for condition, reason in self.skip)
        skipped = f"case when problem is not null then null {skips} end" if skips else "null::varchar"
        named = ", ".join(f"{sql} as {quote(name)}" for name, sql in columns.items())
        computed = "".join(f", {sql} as {name}" for name, sql in lets.items())
        keep = "" if self.keeps_raw else "case when reason is not null then raw end as "
        return f"""
            select {named}, {literal(label)} as source_file, source_row, reason, skipped, {keep}raw
            from (select *, case when problem is not null then problem
                        when skipped is not null then null {whens} end as reason
                from (select *, {literal(part)} as part, {skipped} as skipped {computed}
                    from ({relation})))"""

    def reader(self, file: "RawFile", options: "ReadOptions") -> LineReader:
        """Give the reader of a file's lines."""
        return LineReader(
            file.path,
            file.member,
            encoding=options.encoding or self.encoding,
            truncated=options.truncated,
            quote=self.form.quote,
        )

    def nothing(self) -> str:
        """Give the SQL of the layout's records of a file without lines."""
        fields = "".join(f", null::varchar as {quote(name)}" for name in self.form.fields)
        empty = f"select null::bigint as source_row, null::varchar as raw, null::varchar as problem {fields}"
        return f"select * exclude (reason, skipped) from ({self.select(f'{empty} limit 0', '', '')})"

    @property
    def keeps_raw(self) -> bool:
        """Say whether records keep their line: of items, to show those that contradict each other."""
        return self.role == "items"


@dataclass(frozen=True)
class Candidate:
    """A file that may belong to a dump: on disk, or a member of a zip."""

    path: Path
    member: str | None
    folder: str  # of the file, for its label

    @property
    def name(self) -> str:
        """Give the file's own name."""
        return Path(self.member or self.path).name

    @property
    def label(self) -> str:
        """Give the name that `source_file` columns hold."""
        return f"{self.folder}/{self.name}"


@dataclass(frozen=True)
class RawFile:
    """One file of a dump. label: `folder/name`, which `source_file` columns hold."""

    path: Path
    label: str
    role: str
    layout: int  # its place among the source's layouts
    part: str
    member: str | None = None

    @property
    def folder(self) -> str:
        """Give the folder or archive that the file stands in."""
        return str(self.path if self.member else self.path.parent)


@dataclass(frozen=True)
class Parsed:
    """What one batch of lines gave: lines = records + skipped + rejects + headers, always."""

    records: pa.Table
    rejects: pa.Table
    skipped: Mapping[str, int]
    lines: int
    headers: int


@dataclass(frozen=True)
class ReadOptions:
    """How files are read, beside their layout. encoding: "" takes the layout's own."""

    encoding: str = ""
    truncated: Literal["error", "keep"] = "error"


@dataclass(frozen=True)
class Source:
    """A kind of dump. Fields of a subclass are options that stand beside `kind` in the recipe."""

    kind: ClassVar[str]
    title: ClassVar[str]
    licence: ClassVar[str]
    url: ClassVar[str]
    tested_on: ClassVar[str]  # "real files" or what else
    template: ClassVar[str] = "{title}"
    derived: ClassVar[Mapping[str, str]] = {}

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """Give the kinds of files, in the order in which they are read."""
        raise NotImplementedError

    @property
    def yields(self) -> list[str]:
        """Give the roles that a dump of this kind can fill."""
        direct = [layout.role for layout in self.layouts if layout.role in ROLES]
        pairs = ["item_pairs"] if any("pairs" in layout.columns for layout in self.layouts) else []
        return list(dict.fromkeys([*direct, *self.derived, *pairs]))

    def find(self, files: Sequence[Candidate], items: Sequence[Candidate] = ()) -> list[RawFile]:
        """Give the files that belong to the dump, in order; `items` were named as holding the items.

        Raises SourceError naming what is missing, or which two files hold the same.
        """
        found = [*self._matches(files, self.layouts), *self._matches(items, self._item_layouts())]
        taken: dict[tuple[str, str, str], RawFile] = {}
        for file in found:
            rival = taken.setdefault((file.role, file.folder, file.part), file)
            if rival is not file:
                raise SourceError(
                    f"{rival.label} and {file.label} both hold the {file.role} of "
                    f"{file.part or file.folder}; name the one you mean in [source] path"
                )
        there = {file.layout for file in found}
        filled = {file.role for file in found}
        for place, layout in enumerate(self.layouts):
            if layout.required and place not in there and layout.role not in filled:
                raise SourceError(self._missing(layout, [*files, *items]))
        roles = [layout.role for layout in self.layouts]
        return sorted(found, key=lambda file: (roles.index(file.role), file.label))

    def _item_layouts(self) -> tuple[Layout | None, ...]:
        return tuple(layout if layout.role == "items" else None for layout in self.layouts)

    def _matches(self, files: Sequence[Candidate], layouts: Sequence[Layout | None]) -> Iterator[RawFile]:
        for file in files:
            for place, layout in enumerate(layouts):
                match = layout and re.fullmatch(layout.name, file.name.removesuffix(".gz"))
                if layout and match:
                    part = match.groupdict().get("part") or ""
                    yield RawFile(file.path, file.label, layout.role, place, part, file.member)
                    break

    def _missing(self, layout: Layout, files: Sequence[Candidate]) -> str:
        names = sorted(file.label for file in files)
        holds = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing"
        alike = [other for other in self.layouts if other.role == layout.role and other.required]
        called = " or ".join(dict.fromkeys(other.called for other in alike))
        return (
            f"[source] path: no {called} there (plain, .gz or in a .zip), which a {self.kind} "
            f"dump has; there is: {holds}. Check [source] path and kind"
        )

    def parse(
        self, connection: duckdb.DuckDBPyConnection, file: RawFile, options: ReadOptions
    ) -> Iterator[Parsed]:
        """Read a file in bounded batches; a line becomes a record, is skipped, or becomes a reject."""
        source, reader = self.opened(file, *self.told(connection, file, options))
        yield from source.read(connection, file, reader)

    def told(
        self, connection: duckdb.DuckDBPyConnection, file: RawFile, options: ReadOptions
    ) -> tuple[Mapping[str, Any], ReadOptions]:
        """Give what the file itself tells before it is read: options of the source, and how to read it."""
        return {}, options

    def opened(
        self, file: RawFile, told: Mapping[str, Any], options: ReadOptions
    ) -> tuple["Source", LineReader]:
        """Give the source that a file told of, and a reader of the file's lines."""
        source = replace(self, **told) if told else self
        return source, source.layouts[file.layout].reader(file, options)

    def read(
        self, connection: duckdb.DuckDBPyConnection, file: RawFile, reader: LineReader
    ) -> Iterator[Parsed]:
        """Parse what a reader gives of a file, all of it or a piece, where nothing is left to be told."""
        layout = self.layouts[file.layout]
        for relation in layout.form.relations(connection, reader):
            sql = layout.select(relation.sql, file.label, file.part)
            yield _divided(connection.sql(sql).to_arrow_table(), relation.lines, relation.headers)
        if reader.cut:
            row, text = reader.cut
            reason = "the gzip stream ends here; expected it to go on to its end marker"
            cut = {"source_file": [file.label], "source_row": [row], "reason": [reason], "raw": [text]}
            ended = len(text) > 0  # or the stream ends between two lines
            yield Parsed(pa.table({}), pa.table(cut).slice(0, ended), {}, int(ended), 0)


def _divided(parsed: pa.Table, lines: int, headers: int) -> Parsed:
    """Divide parsed lines into records, skipped and rejects."""
    bad, passed_over = parsed["reason"], parsed["skipped"]
    if bad.null_count == len(bad) and passed_over.null_count == len(parsed):
        return Parsed(parsed.drop_columns(["reason", "skipped"]), parsed.slice(0, 0), {}, lines, headers)
    rejects = parsed.filter(pc.is_valid(bad))
    counts = pc.value_counts(passed_over.drop_null()).to_pylist()
    records = parsed.filter(pc.and_(pc.is_null(bad), pc.is_null(passed_over)))
    return Parsed(
        records.drop_columns(["reason", "skipped"]),
        rejects.select(["source_file", "source_row", "reason", "raw"]),
        {entry["values"]: entry["counts"] for entry in counts},
        lines,
        headers,
    )


def candidates(path: Path) -> list[Candidate]:
    """Give the files behind a path: a file, the members of a zip, or all those in a folder."""
    if path.is_dir():
        inside = sorted(child for child in path.iterdir() if child.is_file())
        return [one for child in inside for one in candidates(child)]
    if archives.is_zip(path):
        return [Candidate(path, member, path.name) for member in archives.members(path)]
    return [Candidate(path, None, path.parent.name)]
