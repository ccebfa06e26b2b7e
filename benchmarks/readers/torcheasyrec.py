"""TorchEasyRec's own manifest reader, bundle layout and SID arithmetic on `--format torcheasyrec`.

    python benchmarks/readers/torcheasyrec.py CHECKOUT EXPORT WAREHOUSE REF

From outside: the package `tzrec` without its `__init__`, which wants torchrec, and without its door to ODPS.
What its tool checks of a generation before it appends to it is done here with its own functions; the tool
itself, which wants fbgemm, does not run.
"""

import glob
import sys
from types import ModuleType

import numpy as np
import pyarrow.parquet as pq

from sid_warehouse.reader import open_warehouse

checkout, export, warehouse, ref = sys.argv[1:]
for name in ("tzrec", "tzrec.utils"):
    sys.modules[name] = ModuleType(name)
    sys.modules[name].__path__ = [f"{checkout}/{name.replace('.', '/')}"]
for name in ("tzrec.datasets", "tzrec.datasets.odps_dataset", "odps", "odps.types"):
    sys.modules[name] = ModuleType(name)
sys.modules["tzrec.datasets.odps_dataset"]._parse_table_path = None
sys.modules["odps.types"].PartitionSpec = None
from tzrec.utils.sid import bundle, collision  # noqa: E402

release = open_warehouse(warehouse).release(ref)
stored = release.table("sids").to_pylist()
generation = f"v{release.record['version']}"
layout = bundle.BundleLayout(export, export, "next", generation)
manifest = bundle.read_manifest(layout.prior_manifest_path())
bundle.Bundle(layout).check_prior_compatible(manifest.codebook, manifest.capacity)
print(f"manifest: {manifest.bundle_uuid}, codebook {manifest.codebook}")


def read(artifact: str) -> list[dict]:
    """Read an artifact where the tool looks for it, with the rows that the manifest says."""
    files = sorted(glob.glob(layout.read_path(artifact, "parquet")))  # noqa: PTH207
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    assert len(rows) == manifest.artifacts[artifact].rows
    return rows


items, buckets = read("item_to_sid"), read("sid_to_items")
for rows in (items, buckets):
    codes = np.array([row["codebook"] for row in rows])
    offsets = collision.sid_offset_codes(codes, manifest.codebook)
    assert offsets.tolist() == [row["offset_codebook"] for row in rows]
keys = collision.sid_bucket_keys(codes, manifest.codebook)
assert (np.diff(keys) > 0).all()
assert sum(len(row["itemids"]) for row in buckets) == len(items)
for row, sid in zip(items, stored, strict=True):
    assert (row["item_id"], row["origin_codebook"], row["codebook"], row["index"]) == (
        sid["item_id"], sid["codes"], sid["sid"], sid["slot"] + 1,
    )  # fmt: skip
print(
    f"item_to_sid: {len(items):,} rows, those of the release; sid_to_items: {len(buckets):,} keys, ascending"
)
