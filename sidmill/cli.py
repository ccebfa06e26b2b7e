"""The `sidmill` command: thin wiring from the command line to plans, runs and readers.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a quality gate refused.
"""

import shlex
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from sid_flows.plan import Plan, check_step, make_plan
from sid_flows.recipe import warehouse_path
from sid_pipelines.chain import PUBLISH
from sid_schemas import MissingExtraError, RecipeError, SidmillError, WarehouseError
from sid_warehouse import catalog as catalogs
from sid_warehouse.db import identifier
from sid_warehouse.reader import Release, Warehouse
from sidmill import __version__
from sidmill.console import (
    BarReporter,
    PlainReporter,
    SilentReporter,
    complain,
    print_json,
    print_table,
    say,
)

app = typer.Typer(
    help="Raw dumps in, versioned semantic IDs out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class StoppedError(SidmillError):
    """Ctrl-C."""

    exit_code = 130


RecipeArg = Annotated[Path, typer.Argument(help="the recipe, a TOML file")]
RefArg = Annotated[str, typer.Argument(help="a release: DATASET (the latest) or DATASET@vN")]
WarehouseOpt = Annotated[
    str | None,
    typer.Option("--warehouse", "-w", help="folder [default: $SIDMILL_WAREHOUSE or warehouse/data]"),
]
SetOpt = Annotated[
    list[str] | None,
    typer.Option("--set", help="override a key, as in tokenize.seed=2; repeatable"),
]
JsonOpt = Annotated[bool, typer.Option("--json", help="print JSON for a program to read")]


@app.command()
def run(
    recipe: RecipeArg,
    warehouse: WarehouseOpt = None,
    set_: SetOpt = None,
    until: Annotated[str | None, typer.Option(help="stop after this stage")] = None,
    json: JsonOpt = False,
) -> None:
    """Run the whole chain to a new release; what is done already is not run again."""
    place, overrides = warehouse_path(warehouse), tuple(set_ or ())
    until = None if until is None or check_step(until) == PUBLISH else until
    plan = make_plan(recipe, place, overrides, until)
    plan.check_limits()
    if plan.published or (until and plan.complete):
        _nothing_to_do(plan, until, json=json)
        return
    plan.check_needs()
    result = _build(recipe, place, overrides, until, json=json)
    if json:
        print_json({"status": "stopped" if until else "published", **result})
    elif "version" in result:
        _tell_release(place, f"{result['dataset']}@v{result['version']}")
    else:
        _tell_data(result)
        say(f"stopped after {result['stage']}, tables as Parquet in {result['folder']}")


def _nothing_to_do(plan: Plan, until: str | None, *, json: bool) -> None:
    release = plan.published
    if until or release is None:
        if json:
            print_json({"status": "unchanged", "stage": until})
        else:
            say(f"nothing to do: all stages through {until} are done")
        return
    if not catalogs.is_current(plan.warehouse):  # killed between the release and its catalog
        catalogs.refresh(plan.warehouse)
    ref = f"{release['dataset']}@v{release['version']}"
    names = ("dataset", "version", "fingerprint")
    if json:
        print_json({"status": "unchanged", **{name: release[name] for name in names}})
    else:
        say(f"nothing to do: all {len(plan.stages)} stages are done, published as {ref}")


def _build(
    recipe: Path, warehouse: Path, overrides: tuple[str, ...], until: str | None, *, json: bool
) -> dict[str, Any]:
    """Run the Prefect flow in this process, reporting to the terminal."""
    from sid_flows import prefect_settings
    from sid_flows.reporting import reporter
    from sid_warehouse import files

    with files.writing(warehouse):  # fails now, in one line, where the warehouse cannot be written
        pass
    prefect_settings.settle(warehouse, quiet=True)
    if not json:
        say(f"{recipe} -> {warehouse}  (Prefect starts: about 10 s)")
    try:
        from sid_flows.build import build
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"Running a recipe ({error.name})", "flows") from error
    terminal = sys.stdout.isatty() and not json
    report = SilentReporter() if json else BarReporter() if terminal else PlainReporter()
    token = reporter.set(report)
    try:
        return build(str(recipe), str(warehouse), list(overrides), until)
    except KeyboardInterrupt as error:
        _forget_frames(error)
        raise StoppedError("stopped; finished stages are kept, run the same command to go on") from None
    except SidmillError as error:
        _forget_frames(error)
        raise type(error).__new__(type(error), *error.args) from None
    finally:
        reporter.reset(token)
        if isinstance(report, BarReporter):
            report.close()


def _forget_frames(error: BaseException) -> None:
    """Empty an error's traceback.

    Prefect keeps the error beyond exit, and with its frames DuckDB, which then prints leak warnings.
    """
    held: BaseException | None = error
    while held is not None:
        held.__traceback__ = None
        held = held.__cause__ or held.__context__


def _tell_release(warehouse: Path, ref: str) -> None:
    release = Warehouse(warehouse).release(ref)
    rows, unique = release.record["rows"], release.metrics["collisions"]["after"]["uniquely_identified"]
    say()
    say(
        f"published {ref}: {rows['items']:,} items, {unique:.0%} with a SID of their own, "
        f"{rows['users']:,} users, {rows['train']:,} train samples"
    )
    say(f"  {release.folder}")
    _tell_statistics(release.metrics["published_statistics"])
    dataset = identifier(release.record["dataset"])
    query = f"select text, title from {dataset}.sids join {dataset}.items using (item_index) limit 5"
    command = [*_program(), "sql", query]
    if warehouse != warehouse_path(None):
        command += ["--warehouse", str(warehouse)]
    say("query it:")
    say(f"  {shlex.join(command)}")


def _tell_data(result: dict[str, Any]) -> None:
    """Say what cleaning took, what the split leaks, and how the counts compare with published ones."""
    taken = [row for row in result["ledger"] if row["removed"]]
    if taken:
        say("\nleft out by [clean]")
        print_table(
            ["step", "events", "why"], [[row["step"], row["removed"], row["reason"]] for row in taken]
        )
    found = [one for one in result["findings"] if one["verdict"] != "ok" and one["count"]]
    if found:
        say("\nleaks and ties of [split]")
        columns = ["verdict", "count", "of", "says"]
        print_table(columns, [[one[name] for name in columns] for one in found])
    say()
    _tell_statistics(result["published_statistics"])


def _tell_statistics(compared: list[dict[str, Any]]) -> None:
    for one in compared:
        say(one["says"])


def _program() -> list[str]:
    """Give the words that start this command again, from where the user is."""
    if shutil.which("sidmill"):
        return ["sidmill"]
    return [sys.argv[0]] if Path(sys.argv[0]).name == "sidmill" else [sys.executable, "-m", "sidmill"]


@app.command()
def plan(
    recipe: RecipeArg, warehouse: WarehouseOpt = None, set_: SetOpt = None, json: JsonOpt = False
) -> None:
    """Show which stages are done, which would run, and why."""
    made = make_plan(recipe, warehouse_path(warehouse), tuple(set_ or ()))
    rows = [
        {
            "stage": one.label,
            "key": one.key,
            "status": "done" if one.done else "run",
            "why": one.done.manifest["summary"] if one.done else one.why,
        }
        for one in made.stages
    ]
    release = made.published
    why = f"{release['dataset']}@v{release['version']}" if release else "a new release"
    status = "done" if release else "run"
    rows.append({"stage": "publish", "key": made.fingerprint, "status": status, "why": why})
    if json:
        print_json(rows)
    else:
        print_table(list(rows[0]), [list(row.values()) for row in rows])


@app.command()
def releases(warehouse: WarehouseOpt = None, json: JsonOpt = False) -> None:
    """List all releases."""
    rows = [
        {
            "ref": release.ref,
            "created": release.record["created"],
            "items": release.record["rows"]["items"],
            "users": release.record["rows"]["users"],
            "interactions": release.record["rows"]["interactions"],
            "tokenizer": _tokenizer(release),
            "collisions": release.metrics["collisions"]["after"]["collided_items"],
            "fingerprint": release.record["fingerprint"],
        }
        for release in Warehouse(warehouse_path(warehouse)).releases()
    ]
    if json:
        print_json(rows)
    elif not rows:
        say("no release yet: run `sidmill run RECIPE`")
    else:
        print_table(list(rows[0]), [list(row.values()) for row in rows])


def _tokenizer(release: Release) -> str:
    made = release.record["recipe"]["tokenize"]
    levels = "x".join(str(one["codes"]) for one in release.metrics["collisions"]["levels"])
    return f"{made['tokenizer']} {levels} seed {made['seed']}"


@app.command()
def show(ref: RefArg, warehouse: WarehouseOpt = None, json: JsonOpt = False) -> None:
    """Show a release: lineage, ledger, collisions, tables."""
    release = Warehouse(warehouse_path(warehouse)).release(ref)
    record, metrics = release.record, release.metrics
    if json:
        print_json({**record, "metrics": metrics})
        return
    say(f"{release.ref}, created {record['created']}, fingerprint {record['fingerprint']}")
    say(str(release.folder))
    say("\nfrom")
    columns = ["label", "bytes", "sha256"]
    print_table(columns, [[file[name] for name in columns] for file in record["raw_files"]])
    say("\nledger")
    columns = ["step", "interactions", "users", "items", "removed", "reason"]
    print_table(columns, [[row[name] for name in columns] for row in metrics["ledger"]])
    say("\nstages")
    stages = record["stages"].items()
    print_table(["stage", "key", "what"], [[name, one["key"], one["summary"]] for name, one in stages])
    say("\nsemantic IDs")
    before, after = (metrics["collisions"][name] for name in ("before", "after"))
    print_table(
        ["", "before resolution", "after"],
        [[name, before[name], after[name]] for name in before],
    )
    columns = ["level", "codes", "used", "dead", "perplexity_share", "gini"]
    levels = metrics["collisions"]["levels"]
    print_table(columns, [[level[name] for name in columns] for level in levels])
    for name, said in (("neighbour", "cosine"), ("cf_neighbour", "shared train users")):
        overlap = metrics["collisions"][f"{name}_overlap_at_10"]
        shown = "none" if overlap is None else f"{overlap:.3f}"
        say(f"neighbour overlap at 10 ({said} against SID): {shown}")
    say("\ntables")
    print_table(["table", "rows"], record["rows"].items())
    warned = [f"{one['table']}.{one['check']}" for one in record["gates"] if one["verdict"] == "warning"]
    say(f"\n{len(record['gates']) - len(warned)} gate checks hold")
    if warned:
        say(f"warned of, because [gates] leakage = 'warn': {', '.join(warned)}")


@app.command()
def sql(query: str, warehouse: WarehouseOpt = None, json: JsonOpt = False) -> None:
    """Ask the catalog, opened read-only: `select ... from DATASET.sids`."""
    import duckdb

    path = warehouse_path(warehouse) / catalogs.NAME
    if not path.is_file():
        raise WarehouseError(
            f"{path}: no catalog there. Name another warehouse with --warehouse or "
            "$SIDMILL_WAREHOUSE, or make one with `sidmill run RECIPE`"
        )
    try:
        with duckdb.connect(str(path), read_only=True) as connection:
            relation = connection.sql(query)
            columns, rows = (relation.columns, relation.fetchall()) if relation else ([], [])
    except duckdb.Error as error:
        raise SidmillError(f"sql: {error}") from error
    columns = _distinct(columns)
    if json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table(columns, rows)


@app.command()
def sources(json: JsonOpt = False) -> None:
    """List the dumps a recipe may name: files, what they yield, licence, what the parser was tested on."""
    from sid_pipelines.sources import SOURCES

    rows = []
    for kind, source in sorted(SOURCES.items()):
        made = source()
        rows.append(
            {
                "kind": kind,
                "files": source.title,
                "yields": made.yields,
                "licence": source.licence,
                "tested on": source.tested_on,
                "from": source.url,
                "template": source.template,
                "parameters": {name: one for name, one in asdict(made).items() if name[0] != "_"},
            }
        )
    _print_menu(
        rows, "files are read as downloaded: plain, .gz or in a .zip. Options and templates: --json", json
    )


@app.command()
def protocols(json: JsonOpt = False) -> None:
    """List the split protocols a recipe may name: what each holds out, what it leaks, parameters."""
    from sid_pipelines.protocols import PROTOCOLS

    rows = [
        {
            "protocol": name,
            "holds out": (protocol.__doc__ or "").split("\n")[0].rstrip("."),
            "leaks": protocol.leaks,
            "parameters": asdict(protocol()),
        }
        for name, protocol in PROTOCOLS.items()
    ]
    _print_menu(rows, "parameters stand beside the protocol in [split]. Parameters: --json", json)


@app.command()
def tokenizers(json: JsonOpt = False) -> None:
    """List the tokenizers a recipe may name: paper, length, order, needs, parameters."""
    from sid_tokenizers import TOKENIZERS

    rows = []
    for name, scheme in sorted(TOKENIZERS.items()):
        made, traits = scheme(), scheme.traits
        rows.append(
            {
                "tokenizer": name,
                "paper": scheme.paper,
                "gives": traits.gives,
                "length": f"{len(made.levels)}, fixed" if traits.fixed_length else "varies",
                "ordered": traits.ordered,
                "unique": traits.unique,
                "soft": traits.soft,
                "needs": [*traits.inputs, *([traits.package] if traits.package else [])],
                "parameters": made.get_params(),
            }
        )
    _print_menu(rows, "length is the default's; give your own in [tokenize]. Parameters: --json", json)


@app.command()
def embeddings(json: JsonOpt = False) -> None:
    """List what makes vectors: encoders of text and images, collaborative models, fusions."""
    from sid_pipelines.embedders import menu

    _print_menu(menu(), "name a model in [[embed]], a fusion as [fuse] method. Options: --json", json)


@app.command()
def policies(json: JsonOpt = False) -> None:
    """List the collision policies a recipe may name: source, promise, length, needs, parameters."""
    from sid_tokenizers import POLICIES

    rows = [
        {
            "policy": name,
            "source": policy.source,
            "unique": policy.unique,
            "length": policy.length,
            "needs": [*policy.inputs, *(["a tokenizer that decodes"] if policy.needs_reconstruction else [])],
            "parameters": asdict(policy()),
        }
        for name, policy in sorted(POLICIES.items())
    ]
    _print_menu(rows, "L is the tokenizer's length. Parameters: --json", json)


def _print_menu(rows: list[dict[str, Any]], note: str, json: bool) -> None:
    if json:
        print_json(rows)
        return
    columns = [name for name in rows[0] if name not in ("parameters", "options", "template")]
    print_table(columns, [[_shown(row[name]) for name in columns] for row in rows])
    say(note)


def _shown(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, list) else value


def _distinct(names: list[str]) -> list[str]:
    """Number repeated column names, as DuckDB does, so that none hides another in JSON."""
    return [f"{name}_{count}" if (count := names[:n].count(name)) else name for n, name in enumerate(names)]


@app.command()
def verify(ref: RefArg, warehouse: WarehouseOpt = None, json: JsonOpt = False) -> None:
    """Re-hash every file of a release and check its schemas."""
    from sid_warehouse.verify import verify as check

    release = Warehouse(warehouse_path(warehouse)).release(ref)
    findings = check(release.folder)
    if json:
        files = [{"file": finding.file, "problem": finding.problem} for finding in findings]
        print_json({"ref": release.ref, "intact": not findings, "findings": files})
    elif not findings:
        say(f"{release.ref} is intact: {len(release.record['files'])} files match their SHA-256")
    if findings:
        first = findings[0]
        more = f" ({len(findings) - 1} more)" if len(findings) > 1 else ""
        raise WarehouseError(
            f"{release.folder / first.file}: {first.problem}{more}. "
            "Restore the release from a copy, or publish it anew"
        )


@app.command()
def fetch(
    source: Annotated[str | None, typer.Argument(help="a known dump, as ml-1m; without it, the list")] = None,
    to: Annotated[Path | None, typer.Option(help="folder that the files go to")] = None,
    mirror: Annotated[
        list[str] | None,
        typer.Option(help="base URL, folder or file to try first, before $SIDMILL_MIRROR; repeatable"),
    ] = None,
    sha256: Annotated[str | None, typer.Option(help="pins a dump of one file that is not pinned yet")] = None,
    list_: Annotated[bool, typer.Option("--list", help="list the dumps, or those of a family")] = False,
    json: JsonOpt = False,
) -> None:
    """Download a known public dump: resumed where it stopped, checked against its SHA-256."""
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


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="print the version and stop")] = False,
) -> None:
    """Raw dumps in, versioned semantic IDs out."""
    if version:
        say(f"sidmill {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command; a SidmillError becomes one line and its exit code."""
    try:
        app()
    except SidmillError as error:
        complain(str(error))
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
