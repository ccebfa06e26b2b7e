"""Text by ranges of items: each is filled on its own, one task counts the distinct texts of all.

    enrich (ALL; only where a language model wrote texts) -> fill (a range of items) -> distinct (ALL)

Ranges have as many items each, about 32 MiB of text on average, as text is what takes time. What makes one
range is no work for a cluster and runs here. Of each text 16 bytes go to the task that counts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sid_pipelines import text
from sid_pipelines.enriched import Enriched
from sid_pipelines.packed import pack, unpack
from sid_pipelines.sharded.job import ALL, Ref, Step, Task
from sid_pipelines.sharded.shards import Shards, numbered
from sid_pipelines.sharded.slices import Slice, cut, read
from sid_pipelines.sharded.tables import check_count, parts_of, pass_parts, send_parts
from sid_pipelines.stage import Outcome, Work
from sid_pipelines.vector_shards import WIDTH
from sid_schemas.tables import TEXTS
from sid_warehouse import parquet

BYTES = 1 << 25  # of ids and text in a range, about
DIGESTS = "digests.safetensors"


@dataclass(frozen=True)
class Divided:
    """What the tasks know: the parameters, the parts of items_clean, and the items of each."""

    params: text.TextParams
    items: tuple[Path, ...]
    ranges: tuple[tuple[Slice, ...], ...]


def run(work: Work, shards: Shards) -> Outcome:
    """Write what the local stage writes."""
    params: text.TextParams = work.params
    clean = work.inputs["clean"]
    parts = [part.absolute() for part in clean.parts("items_clean")]
    count = shards.number(_size(params, parts), BYTES)
    if count == 1 or not clean.manifest["rows"]["items_clean"]:
        return text.run(work)
    if params.enriched:
        params = replace(params, enriched_path=str(Path(params.enriched_path).absolute()))
    ranges = tuple(cut(parts, count))
    known = Divided(params, tuple(parts), ranges)
    steps = [Step("fill", fill, known), Step("distinct", distinct, known)]
    refs = [Ref(numbered(number), "items") for number in range(len(ranges))]
    if params.enriched:
        steps, refs = [Step("enrich", enrich, known), *steps], [Ref(ALL, ALL)]
    made = shards.run("text", refs, *steps)
    rows = work.out.extend(TEXTS, parts_of(made, TEXTS))
    check_count("text", "texts", clean.manifest["rows"]["items_clean"], rows)
    check_count("text", "texts counted", rows, sum(told["counted"] for told in made.of("fill")))
    [found], said = made.of("distinct"), made.facts.get("enrich", {ALL: {}})[ALL]
    check_count("text", "digests", sum(told["sent"] for told in made.of("fill")), found["digests"])
    empty = sum(told["empty"] for told in made.of("fill"))
    return text.outcome(params, rows, empty, found["distinct"], said)


def _size(params: text.TextParams, parts: Sequence[Path]) -> int:
    """Give how many bytes there are to read, about: uncompressed, by the footers."""
    columns, size = text.columns_of(text.parse(params.template)), 0
    for part in parts:
        metadata = pq.read_metadata(part)
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            held = (group.column(place) for place in range(group.num_columns))
            size += sum(
                one.total_uncompressed_size for one in held if one.path_in_schema.split(".")[0] in columns
            )
    written = Path(params.enriched_path)
    return size + (written.stat().st_size if params.enriched and written.is_file() else 0)


def enrich(task: Task) -> Mapping[str, Any]:
    """Check the file that a language model wrote, and send each range its items with their texts."""
    divided: Divided = task.params
    params = divided.params
    columns = text.columns_of(text.parse(params.template))
    with task.connect() as connection:
        found = Enriched(connection, Path(params.enriched_path), params.enriched, divided.items)
        said = found.facts()
        batches = iter(found.batches(columns, text.ROWS))
        held = next(batches)
        for number, own in enumerate(divided.ranges):
            path, left = task.out / f"{numbered(number)}.arrow", sum(one.rows for one in own)
            with pa.ipc.new_file(path, held.schema) as writer:
                while left:
                    held = held if len(held) else next(batches)
                    writer.write_batch(held.slice(0, left))
                    held, left = held.slice(min(left, len(held))), max(left - len(held), 0)
            task.emit(numbered(number), path)
    return said


def fill(task: Task) -> Mapping[str, Any]:
    """Fill the template for a range of items."""
    divided: Divided = task.params
    params, template, tally = divided.params, text.parse(divided.params.template), text.Tally()
    own = divided.ranges[int(task.key)]
    stored = _sent(task.paths) if task.paths else read(own, text.columns_of(template))
    batches = (one for batch in stored for one in pa.Table.from_batches([batch]).to_batches(text.ROWS))
    parquet.write(task.out, TEXTS, text.filled(batches, template, params.clean_text, tally))
    send_parts(task, TEXTS, ALL)
    digests = tally.distinct().view(np.uint8).reshape(-1, WIDTH)
    pack(task.out / DIGESTS, {}, {"digests": digests})
    task.emit(ALL, task.out / DIGESTS, name=f"{DIGESTS} {task.key}")
    return {"empty": tally.empty, "counted": _count(tally), "sent": len(digests)}


def _sent(paths: Sequence[Path]) -> Iterator[pa.RecordBatch]:
    for path in paths:
        with pa.memory_map(str(path)) as file:
            reader = pa.ipc.open_file(file)
            yield from (reader.get_batch(number) for number in range(reader.num_record_batches))


def distinct(task: Task) -> Mapping[str, Any]:
    """Count the distinct texts of all ranges, and send the parts on."""
    all_texts = text.Tally()
    for ref in task.refs:
        if ref.name.startswith(DIGESTS):
            all_texts.digests.append(unpack(Path(ref.path))[1]["digests"].tobytes())
    pass_parts(task, TEXTS)
    return {"distinct": len(all_texts.distinct()), "digests": _count(all_texts)}


def _count(tally: text.Tally) -> int:
    return sum(map(len, tally.digests)) // WIDTH
