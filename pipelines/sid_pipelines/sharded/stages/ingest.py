"""Ingest by shards: each raw file is cut into pieces, pieces are parsed apart, items settled by ranges.

    read    cut (a file) -> parse (a piece) -> close (a file: is it unchanged? | few descriptions; rejects)
    items   divide (some descriptions) -> settle (a range of item ids) -> close

reading.py has the tasks of the first job, described.py those of the second, which runs where descriptions
make more than one shard. Not divided, one task each: the cutting of one file; a file whose records are no
lines (a JSON array, Parquet); a dump of which a source's SQL makes interactions, items or impressions as a
whole (MIND, trivago, Retailrocket, Last.fm, Open Bandit). Where a dump has several mistakes, another one may
be told first than by the local stage.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sid_pipelines.ingest import has_pairs, own_roles, told
from sid_pipelines.sharded.job import ALL, Ref, Results, Step
from sid_pipelines.sharded.shards import Shards, numbered
from sid_pipelines.sharded.stages.described import DESCRIBED, REJECTED, divide, gather, settle
from sid_pipelines.sharded.stages.reading import TABLES, Plan, close, cut_file, parse, read_whole
from sid_pipelines.sharded.tables import check_count, parts_of
from sid_pipelines.stage import Outcome, Work
from sid_pipelines.tallies import FileTally

PIECE = 64 << 20  # bytes of text in a piece, about
WHOLE = 256 << 20  # bytes of a packed file that is not cut: writing its text would take half as long again
ROLES = ("interactions", "impressions", "items")  # as the local stage reads them


def run(work: Work, shards: Shards) -> Outcome:
    """Do what sid_pipelines.ingest.run does."""
    plan = Plan(work.params, PIECE, WHOLE, shards.count)
    source = plan.ingest.source()
    if own_roles(source):
        return _run_undivided(work, shards, plan)
    refs = [Ref(numbered(n), "file") for n in range(len(plan.ingest.files))]
    steps = Step("cut", cut_file, plan), Step("parse", parse, plan), Step("close", close, plan)
    done = [shards.run("read", refs, *steps)]
    tally = _tally(plan, done[0])
    if waiting := [ref for ref in done[0].refs if ref.key.startswith((DESCRIBED, REJECTED))]:
        steps = Step("divide", divide), Step("settle", settle, has_pairs(source)), Step("close", gather)
        done.append(shards.run("items", waiting, *steps))
    described = sum(tally[file.label].records for file in plan.ingest.raw_files() if file.role == "items")
    settled = _settled(done)
    counts = _published(work, plan, done, described) | {"conflicts": settled["conflicts"]}
    _reconcile(tally, counts, settled, described)
    return told(tally, counts, described)


def _run_undivided(work: Work, shards: Shards, plan: Plan) -> Outcome:
    done = shards.run("read", [Ref(ALL, "dump")], Step("whole", read_whole, plan))
    for table in TABLES.values():
        if parts := parts_of(done, table):
            work.out.extend(table, parts)
    [outcome] = done.of("whole")
    return Outcome(outcome["facts"], outcome["summary"])


def _tally(plan: Plan, read: Results) -> dict[str, FileTally]:
    """Give what came out of each file, in the order in which the local stage reads.

    Raises SourceError for times of two units, WarehouseError where lines of a file were not parsed.
    """
    pieces: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for key, facts in sorted(read.facts["parse"].items()):
        pieces[int(key.split("-")[0])].append(facts)
    tally: dict[str, FileTally] = {}
    numbers = range(len(plan.ingest.files))
    raw = plan.ingest.raw_files()
    for number in sorted(numbers, key=lambda n: ROLES.index(raw[n].role)):
        label, lines = raw[number].label, read.facts["cut"][numbered(number)]["lines"]
        seen = tally[label] = FileTally()
        for facts in pieces[number]:
            seen.add(_tally_of(facts["tally"]))
        check_count("ingest", f"lines of {label}", lines, sum(facts["lines"] for facts in pieces[number]))
        seen.check(label)
    return tally


def _tally_of(known: Mapping[str, Any]) -> FileTally:
    """Give a tally that was JSON."""
    counted = {name: Counter(known[name]) for name in ("skipped", "reasons")}
    return FileTally(**{**known, **counted})


def _settled(done: Sequence[Results]) -> Counter[str]:
    """Give what tasks settled: descriptions that they read, items and pairs that they made, conflicts."""
    settled: Counter[str] = Counter()
    for results in done:
        for step in ("settle", "close"):
            for facts in results.facts.get(step, {}).values():
                settled.update(facts)
    return settled


def _published(work: Work, plan: Plan, done: Sequence[Results], described: int) -> dict[str, int]:
    """Link the parts of all tables into the output; give rows by table."""
    wanted = {"interactions", "items", "rejects"} | {file.role for file in plan.ingest.raw_files()}
    if described and has_pairs(plan.ingest.source()):
        wanted.add("item_pairs")
    counts = {}
    for name, table in TABLES.items():
        if name in wanted:
            parts = [part for results in done for part in parts_of(results, table)]  # one job's
            empty = table.arrow().empty_table()
            counts[name] = work.out.extend(table, parts) if parts else work.out.write(table, empty)
    return counts


def _reconcile(
    tally: Mapping[str, FileTally], counts: Mapping[str, int], settled: Mapping[str, int], described: int
) -> None:
    """Raise WarehouseError unless every record, description, item, pair and reject arrived."""
    records = sum(one.records for one in tally.values()) - described
    check_count("ingest", "records", records, counts["interactions"] + counts.get("impressions", 0))
    check_count("ingest", "descriptions", described, settled["descriptions"])
    check_count("ingest", "items", settled["items"], counts["items"])
    check_count("ingest", "item pairs", settled["item_pairs"], counts.get("item_pairs", 0))
    rejects = sum(one.rejects for one in tally.values()) + counts["conflicts"]
    check_count("ingest", "rejects", rejects, counts["rejects"])
