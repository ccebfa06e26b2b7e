"""TorchEasyRec: one generation of a SID bundle, items to SIDs and back, with a manifest.

Its own tool (`tzrec/tools/sid/resolve_sid_collisions.py`) writes such generations and appends to them, to
ours too. A slot counts from 1 there; items may share an SID, but no digit is added to one.
"""

import hashlib
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sid_pipelines.trainers.base import Format, Name, Settings
from sid_pipelines.trainers.feed import Feed
from sid_pipelines.trainers.writing.folder import Folder
from sid_tokenizers.dialects import shifted_ids
from sid_warehouse.arrays import padded_matrix

READER = "TorchEasyRec"
CODES = pa.list_(pa.int64())
PART = "part-0.parquet"


class TorchEasyRecSettings(Settings):
    """What may be chosen for TorchEasyRec.

    generation: of the bundle, its folder; empty for the release's version, such as `v1`. ids: what items are
    called, `source` by their ids as text, `number` by their numbers as int64.
    """

    generation: Name = ""
    ids: Literal["source", "number"] = "source"


def write(feed: Feed, out: Folder, settings: TorchEasyRecSettings) -> str:
    """Write one generation."""
    feed.require_levels(READER)
    length = feed.require_length(READER)
    if length != feed.codes.shape[1]:
        raise feed.refuse(
            READER,
            "SIDs of as many codes as the tokenizer gives, items that share one having slots",
            f"an added digit, {length} codes for {feed.codes.shape[1]}",
            "Choose a collision policy that adds none: none, capacity or next-nearest",
        )
    generation = settings.generation or f"v{feed.release.record['version']}"
    kind = pa.int64() if settings.ids == "number" else pa.string()
    delta = "delta_sids" in feed.release.record["rows"]
    rows = {
        f"{start}{table}": write(feed, out, f"{generation}/{start}{table}/{PART}", f"{start}{source}", kind)
        for start in (("", "delta_") if delta else ("",))
        for table, source, write in (
            ("item_to_sid", "sids", _write_items),
            ("sid_to_items", "sid_to_items", _write_sids),
        )
    }
    manifest = _manifest(feed, generation, kind, rows, delta=delta)
    out.json(f"{generation}/manifest.json", "what the generation is and holds", manifest, indent=2)
    return _readme(feed, generation, manifest)


def _ids(feed: Feed, kind: pa.DataType) -> pa.Array:
    """Give what every item is called, row i being item i."""
    return pa.array(range(feed.n_items) if pa.types.is_integer(kind) else feed.item_ids, kind)


def _codes(feed: Feed, column: pa.ChunkedArray) -> tuple[pa.Array, pa.Array]:
    """Give SIDs as they are, and with every level shifted past the one before."""
    sids = padded_matrix(column, feed.vocabulary.length, -1)
    offsets = pa.array(np.arange(0, sids.size + 1, sids.shape[1], dtype=np.int32))
    return tuple(
        pa.ListArray.from_arrays(offsets, pa.array(codes.reshape(-1).astype(np.int64)))
        for codes in (sids, shifted_ids(sids, feed.vocabulary, first=0))
    )


def _write_items(feed: Feed, out: Folder, name: str, table: str, kind: pa.DataType) -> int:
    schema = pa.schema({
        "item_id": kind, "origin_codebook": CODES, "codebook": CODES, "offset_codebook": CODES,
        "index": pa.int64(),
    })  # fmt: skip
    ids = _ids(feed, kind)

    def batches() -> Iterator[pa.Table]:
        for batch in feed.tables(table, ["item_index", "codes", "sid", "slot"]):
            plain, shifted = _codes(feed, batch["sid"])
            yield pa.table({
                "item_id": ids.take(batch["item_index"].combine_chunks()),
                "origin_codebook": batch["codes"].cast(CODES),
                "codebook": plain,
                "offset_codebook": shifted,
                "index": pc.add(batch["slot"], 1).cast(pa.int64()),
            })  # fmt: skip

    return out.parquet(name, "items: first and final SID, its codes shifted, slot from 1", schema, batches())


def _write_sids(feed: Feed, out: Folder, name: str, table: str, kind: pa.DataType) -> int:
    schema = pa.schema({"codebook": CODES, "offset_codebook": CODES, "itemids": pa.list_(kind)})
    ids = _ids(feed, kind)

    def batches() -> Iterator[pa.Table]:
        for batch in feed.tables(table, ["sid", "item_indexes"]):
            plain, shifted = _codes(feed, batch["sid"])
            items = batch["item_indexes"].combine_chunks()
            offsets = pa.array(np.append(0, np.cumsum(items.value_lengths())).astype(np.int32))
            named = pa.ListArray.from_arrays(offsets, ids.take(items.flatten()))
            yield pa.table({"codebook": plain, "offset_codebook": shifted, "itemids": named})

    return out.parquet(name, "SIDs, ascending, with their items in slot order", schema, batches())


def _manifest(
    feed: Feed, generation: str, kind: pa.DataType, rows: dict[str, int], *, delta: bool
) -> dict[str, Any]:
    record = feed.release.record
    most = int(pc.max(feed.release.table("sid_to_items", ["n"])["n"]).as_py())
    since = {"since_bundle_uuid": bundle_uuid(record["base"]["fingerprint"])} if delta else {}
    return {
        "bundle_uuid": bundle_uuid(record["fingerprint"]),
        "codebook": list(feed.vocabulary.levels),
        "capacity": max(most, int(record["recipe"]["collisions"].get("capacity") or 0)),
        "max_observed_items_per_sid": most,
        "artifacts": {
            name: {"save_type": "parquet", "rows": n, "location": f"{generation}/{name}"}
            for name, n in rows.items()
        },
        **since,
        "item_id_type": str(kind),
    }


def bundle_uuid(fingerprint: str) -> str:
    """Give the name of a release's bundle: 32 hexadecimal digits, the same for the same release."""
    return hashlib.sha256(f"sidmill/torcheasyrec/{fingerprint}".encode()).hexdigest()[:32]


def _readme(feed: Feed, generation: str, manifest: dict[str, Any]) -> str:
    sizes = ",".join(map(str, feed.vocabulary.levels))
    return f"""
This folder is a bundle's root (`--output_path`), `{generation}` one generation of it. New items go onto it
with the trainer's own tool, which moves no SID that is there:

    python -m tzrec.tools.sid.resolve_sid_collisions --input_path 'new/*.parquet' --codebook {sizes} \\
        --max_items_per_codebook {manifest["capacity"]} --output_path <this folder> --from_generation
{generation} \\
        --generation <next>

- `origin_codebook` is what the tokenizer gave, `codebook` the SID after collisions were resolved, and
  `offset_codebook` that with level i shifted by the sizes of the levels before it. `index` is the slot,
  from 1.
- The tool only ever changes the last code of an item; releases may change others.
- `bundle_uuid` is made of the release's fingerprint, so the same release has the same name; of an appended
  release `since_bundle_uuid` is that of its base, and `delta_*` hold what it adds.
- The manifest's locations are relative to this folder; readers make theirs of root and generation.
"""


FORMAT = Format(
    "torcheasyrec",
    "TorchEasyRec (alibaba/TorchEasyRec at 54cac31)",
    "one generation of a SID bundle with its manifest",
    write,
    TorchEasyRecSettings,
)
