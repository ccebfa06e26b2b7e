"""`catalog.duckdb`: every release under a name that plain DuckDB can query, from anywhere.

Each release has a schema (`"movietweetings@v2"`): the latest of a data set and the tagged ones as copies,
so that the file answers after a move, read-only and from any working directory; older ones as views on
their Parquet files. Views on these are the schemas of a data set (`movietweetings`, its latest release) and
of a tag (`"movietweetings@production"`). The file is derived: what differs is changed in a copy aside, which
is renamed over the old one, so that open readers go on undisturbed. catalog_release.py makes one schema.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa

from sid_schemas import WarehouseError
from sid_warehouse import catalog_release, db, files, locks, releases, tags
from sid_warehouse.tags import Tag

NAME = "catalog.duckdb"
LOCK = ".catalog-lock"
FORMAT = 2
NOT_OURS = (
    duckdb.Error,
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
)  # what reading anything else raises
SLACK = 64  # blocks of 256 KiB: below that, a file that is half empty is no matter

MAIN = (
    *catalog_release.TABLES,
    "create table tags (dataset varchar, tag varchar, ref varchar, version integer, fingerprint varchar, "
    "set timestamptz)",
    "create table settings (name varchar, value varchar)",
)


@dataclass(frozen=True)
class Source:
    """A release on disk. stamp: changes when another one takes its place."""

    dataset: str
    version: int
    path: str
    stamp: str
    copied: bool

    @property
    def ref(self) -> str:
        """Give its name, which is that of its schema."""
        return f"{self.dataset}@v{self.version}"


@dataclass(frozen=True)
class State:
    """What a catalog is made from; two catalogs of one state are equal.

    releases: by ref. aliases: the schemas of data sets and tags, with the ref that each shows and the
    fingerprint that this must have, "" for any. tags: rows of the table.
    """

    copies: bool
    releases: Mapping[str, Source]
    aliases: Mapping[str, tuple[str, str]]
    tags: tuple[tuple[str, str, str, int, str, str], ...]


NOTHING = State(copies=True, releases={}, aliases={}, tags=())


def refresh(warehouse: Path, *, copies: bool | None = None) -> Path:
    """Bring the catalog up to what is on disk and swap it in; give its path.

    copies: whether the latest and the tagged releases are copied (True at first) or views like the others;
    None leaves that as it is. Repeats where a release appeared meanwhile, so that the last one to swap
    knows all. A release that cannot be read has a `problem` in the table `releases` and no schema.
    """
    path = warehouse / NAME
    with files.explained(warehouse), locks.alone(warehouse / LOCK):
        while True:
            old, problems = _read(path)
            kept = (old or NOTHING).copies
            goal = _on_disk(warehouse, copies=kept if copies is None else copies)
            if old != goal or problems:
                try:
                    _write(path, goal)
                except duckdb.Error as error:
                    raise WarehouseError(
                        f"{path}: cannot be written ({str(error).splitlines()[0]})"
                    ) from error
            if _on_disk(warehouse, copies=goal.copies) == goal:
                return path


def is_current(warehouse: Path) -> bool:
    """Say whether the catalog knows exactly the releases and tags on disk, and where they are now."""
    old, _ = _read(warehouse / NAME)
    return old is not None and old == _on_disk(warehouse, copies=old.copies)


def problems(warehouse: Path) -> dict[str, str]:
    """Give the releases that the catalog has no schema for, and why."""
    return _read(warehouse / NAME)[1]


def _on_disk(warehouse: Path, *, copies: bool) -> State:
    found: dict[str, Source] = {}
    aliases: dict[str, tuple[str, str]] = {}
    rows: list[tuple[str, str, str, int, str, str]] = []
    for dataset in releases.datasets(warehouse):
        for source in _sources(warehouse, dataset):
            found[source.ref] = source
            aliases[dataset] = (source.ref, "")  # the last one
        for tag in _tags(warehouse, dataset):
            rows.append((dataset, tag.name, tag.ref, tag.now.version, tag.now.fingerprint, tag.now.set))
            if (target := f"{dataset}@v{tag.now.version}") in found:
                aliases[tag.ref] = (target, tag.now.fingerprint)
    if copies:
        found |= {ref: replace(found[ref], copied=True) for ref, _ in aliases.values()}
    return State(copies, found, aliases, tuple(rows))


def _sources(warehouse: Path, dataset: str) -> Iterator[Source]:
    for version in releases.versions(warehouse, dataset):
        folder = (warehouse / "releases" / dataset / f"v{version}").resolve()
        try:
            status = (folder / "release.json").stat()
        except FileNotFoundError:
            continue  # removed meanwhile
        stamp = f"{status.st_size}-{status.st_mtime_ns}"
        yield Source(dataset, version, str(folder), stamp, copied=False)


def _tags(warehouse: Path, dataset: str) -> Iterator[Tag]:
    for name in tags.names(warehouse, dataset):
        try:
            tag = tags.read(warehouse, dataset, name)
        except WarehouseError:
            continue  # whoever uses the tag is told; the others are none the worse
        if tag:
            yield tag


def _read(path: Path) -> tuple[State | None, dict[str, str]]:
    """Give the state that a catalog was made from, None where it is not one of ours, and its problems."""
    if not path.is_file():
        return None, {}
    try:
        with duckdb.connect(str(path), read_only=True) as connection:
            return _state_of(connection), _problems(connection)
    except NOT_OURS:
        return None, {}


def _state_of(connection: duckdb.DuckDBPyConnection) -> State:
    settings = dict(connection.sql("select name, value from settings").fetchall())
    if settings["format"] != str(FORMAT):
        raise ValueError(settings["format"])
    state = json.loads(settings["state"])
    return State(
        copies=state["copies"],
        releases={ref: Source(**source) for ref, source in state["releases"].items()},
        aliases={name: (ref, fingerprint) for name, (ref, fingerprint) in state["aliases"].items()},
        tags=tuple(tuple(row) for row in state["tags"]),
    )


def _problems(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    return dict(connection.sql("select ref, problem from releases where problem is not null").fetchall())


def _write(path: Path, goal: State) -> None:
    """Change what differs in a copy of the catalog, or build it from nothing; rename it over the old one."""
    with files.writing(path.parent) as folder:
        fresh = folder / NAME
        if not _changed(path, fresh, goal):
            fresh.unlink(missing_ok=True)
            with db.connect(database=fresh, spill=folder / ".spill") as connection:
                for statement in MAIN:
                    connection.execute(statement)
                _change(connection, NOTHING, {}, goal)
        files.sync(fresh)
        # What somebody wrote into the old catalog and never closed belongs to no other file.
        path.with_name(f"{NAME}.wal").unlink(missing_ok=True)
        fresh.replace(path)
        files.sync(path.parent)


def _changed(path: Path, fresh: Path, goal: State) -> bool:
    """Make a changed copy of the catalog; False where it cannot be used, or is mostly empty by now."""
    if not path.is_file():
        return False
    shutil.copyfile(path, fresh)
    try:
        with db.connect(database=fresh, spill=fresh.parent / ".spill") as connection:
            _change(connection, _state_of(connection), _problems(connection), goal)
            [(blocks, used)] = connection.sql(
                "select total_blocks, used_blocks from pragma_database_size()"
            ).fetchall()
    except NOT_OURS:
        return False  # whatever else it was, building from nothing meets it again
    return bool(blocks <= 2 * used + SLACK)


def _change(connection: duckdb.DuckDBPyConnection, old: State, problems: Iterable[str], goal: State) -> None:
    """Make a catalog of one state one of another."""
    kept = {
        ref
        for ref, source in old.releases.items()
        if ref in goal.releases and ref not in problems and _same(source, goal.releases[ref])
    }
    shown = {name for name, of in old.aliases.items() if of[0] in kept and goal.aliases.get(name) == of}
    with catalog_release.at_once(connection):
        for schema in [*(old.releases.keys() - kept), *(old.aliases.keys() - shown)]:
            connection.execute(f"drop schema if exists {db.quote(schema)} cascade")
        for ref in old.releases.keys() - kept:
            catalog_release.forget(connection, old.releases[ref].dataset, old.releases[ref].version)
    connection.execute("checkpoint")  # what was dropped makes room for what is added
    for ref, source in goal.releases.items():
        if ref not in kept:
            catalog_release.add(
                connection, source.dataset, source.version, Path(source.path), copied=source.copied
            )
    with catalog_release.at_once(connection):
        _say_where(connection, goal)
        for name, (ref, fingerprint) in goal.aliases.items():
            if name not in shown:
                _show(connection, name, ref, fingerprint)
    connection.execute("checkpoint")


def _same(old: Source, new: Source) -> bool:
    """Say whether a release's schema can stay: a copy does not care where the release has moved."""
    return old == new or (new.copied and replace(old, path=new.path) == new)


def _say_where(connection: duckdb.DuckDBPyConnection, goal: State) -> None:
    """Write what is not the releases' own: where they lie, which are latest and tagged; tags; settings."""
    latest = {ref for name, (ref, _) in goal.aliases.items() if "@" not in name}
    tagged: dict[str, list[str]] = {ref: [] for ref in goal.releases}
    for dataset, name, _, version, *_ in goal.tags:
        tagged.setdefault(f"{dataset}@v{version}", []).append(name)
    columns = {
        "ref": pa.array(list(goal.releases), pa.string()),
        "path": pa.array([source.path for source in goal.releases.values()], pa.string()),
        "latest": pa.array([ref in latest for ref in goal.releases], pa.bool_()),
        "copied": pa.array([source.copied for source in goal.releases.values()], pa.bool_()),
        "tags": pa.array([tagged[ref] for ref in goal.releases], pa.list_(pa.string())),
    }
    connection.register("now", pa.table(columns))
    connection.execute(
        """create or replace table releases as
           select releases.* replace (now.path as path, now.latest as latest, now.tags as tags,
                                      now.copied and problem is null as copied)
           from releases join now using (ref) order by dataset, version"""
    )
    connection.unregister("now")
    connection.execute("delete from tags")
    for *row, since in goal.tags:
        values = [*row, datetime.fromisoformat(since)]
        connection.execute("insert into tags values (?, ?, ?, ?, ?, ?)", values)
    settings = {"format": str(FORMAT), "state": json.dumps(asdict(goal))}
    connection.execute("delete from settings")
    for pair in settings.items():
        connection.execute("insert into settings values (?, ?)", list(pair))


def _show(connection: duckdb.DuckDBPyConnection, name: str, ref: str, fingerprint: str) -> None:
    """Show a release under a further name, unless it has no schema or is not the one that was tagged."""
    relations = connection.execute(
        """select name from (select schema_name, view_name as name from duckdb_views()
                             union all select schema_name, table_name from duckdb_tables())
           where schema_name = $ref
             and exists (from releases where ref = $ref and $mark in ('', fingerprint)) order by name""",
        {"ref": ref, "mark": fingerprint},
    ).fetchall()
    if not relations:
        return
    connection.execute(f"create schema {db.quote(name)}")
    for (relation,) in relations:
        view, source = (f"{db.quote(schema)}.{db.quote(relation)}" for schema in (name, ref))
        connection.execute(f"create view {view} as from {source}")
