"""Split by ranges of users: one task finds what the protocol must know of all events, the others label.

    prepare (ALL; only where the protocol looks ahead) -> label (a range of users) -> merge (ALL)

What is prepared goes to every range as one file. The audits of the ranges, 16 bytes per item that a range
has and 8 per late test event, are added up by one task.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sid_pipelines import split
from sid_pipelines.audit import Audit
from sid_pipelines.chunks import Chunk
from sid_pipelines.order import Events
from sid_pipelines.packed import pack, unpack
from sid_pipelines.protocols import Labelling, protocol_named
from sid_pipelines.sharded.given import Given
from sid_pipelines.sharded.job import ALL, Ref, Step, Task
from sid_pipelines.sharded.ranges import Divided, UserRange, user_ranges
from sid_pipelines.sharded.shards import Shards, numbered
from sid_pipelines.sharded.slices import rows_between
from sid_pipelines.sharded.tables import check_count, parts_of, pass_parts, send_parts
from sid_pipelines.stage import Outcome, Work
from sid_schemas.tables import EVENTS, INTERACTIONS

LABELLING, AUDIT = "labelling.safetensors", "audit.safetensors"


@dataclass(frozen=True, kw_only=True)
class OwnEvents(Events):
    """The events of some users only; user_ids are theirs."""

    own: UserRange

    def stored(self, columns: list[str] | None = None) -> Iterator[Chunk]:
        """Yield whole users' events as clean wrote them."""
        return self.own.chunks(columns or EVENTS.names)


def run(work: Work, shards: Shards) -> Outcome:
    """Write what the local stage writes."""
    params: split.SplitParams = work.params
    protocol = protocol_named(params.protocol, params.params)
    clean = work.inputs["clean"]
    users, events = (clean.manifest["rows"][table] for table in ("users", "events"))
    ranges = tuple(user_ranges(clean.parts("events"), users, shards.number(events)))
    known = Divided(Given.of(work), ranges)
    steps = [Step("label", label, known), Step("merge", merge, known)]
    refs = [Ref(numbered(number), "users") for number in range(len(ranges))]
    if protocol.looks_ahead:
        steps, refs = [Step("prepare", prepare, known), *steps], [Ref(ALL, ALL)]
    made = shards.run("split", refs, *steps)
    [found], prepared = made.of("merge"), made.facts.get("prepare", {ALL: {}})[ALL]
    check_count("split", "interactions", events, work.out.extend(INTERACTIONS, parts_of(made, INTERACTIONS)))
    check_count("split", "audited events", events, sum(found["audit"]["events"].values()))
    return split.outcome(params, protocol, prepared, found["audit"], found["times"])


def prepare(task: Task) -> Mapping[str, Any]:
    """Let the protocol look at all events, and send what it found to all ranges."""
    divided: Divided = task.params
    work = divided.given.work(task)
    params: split.SplitParams = work.params
    with task.connect() as connection:
        events = split.all_events(connection, work.inputs["clean"], params)
        labelling = protocol_named(params.protocol, params.params).prepare(events)
    path = task.out / LABELLING
    pack(path, {"facts": labelling.facts, "known": labelling.known}, labelling.arrays)
    for number in range(len(divided.ranges)):
        task.emit(numbered(number), path, name=LABELLING)
    return labelling.facts


def label(task: Task) -> Mapping[str, Any]:
    """Order and label the events of a range of users, and audit them."""
    work, own = task.params.given.work(task), task.params.ranges[int(task.key)]
    params, clean = work.params, work.inputs["clean"]
    protocol, labelling = protocol_named(params.protocol, params.params), Labelling()
    for path in task.paths:
        known, arrays = unpack(path)
        labelling = Labelling(known["facts"], known["known"], arrays)
    with task.connect() as connection:
        user_ids = rows_between(clean.parts("users"), ["user_id"], own.first, own.stop)["user_id"]
        events = OwnEvents(
            connection=connection,
            parts=[],
            user_ids=split.one_array(user_ids),
            item_ids=split.one_array(clean.read("items_clean", ["item_id"])["item_id"]),
            ties=params.ties,
            seed=params.seed,
            first_user=own.first,
            own=own,
        )
        audit = Audit(protocol, labelling.facts, len(events.item_ids))
        work.out.write(INTERACTIONS, split.labelled(events, protocol, labelling, audit))
    send_parts(task, INTERACTIONS, ALL)
    pack(task.out / AUDIT, *audit.counted())
    task.emit(ALL, task.out / AUDIT, name=f"{AUDIT} {task.key}")
    return {}


def merge(task: Task) -> Mapping[str, Any]:
    """Add up what the ranges counted, and send their parts on."""
    work = task.params.given.work(task)
    protocol = protocol_named(work.params.protocol, work.params.params)
    audit = Audit(protocol, {}, work.inputs["clean"].manifest["rows"]["items_clean"])
    for ref in task.refs:
        if ref.name.startswith(AUDIT):
            audit.merge(*unpack(Path(ref.path)))
    pass_parts(task, INTERACTIONS)
    return {"audit": audit.result(), "times": audit.times}
