"""MMGRec's own `make_data` and data loader on `sidmill export --format mmgrec`.

    python benchmarks/readers/mmgrec.py CHECKOUT EXPORT WAREHOUSE REF

Makes `load.para` as the export's README says and runs `model_train.py` up to its data loader, where its
network begins. From outside: `representation.npy` of zeros, which its graph network would make. Needs torch
and scipy.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from sid_warehouse.reader import open_warehouse

checkout, export, warehouse, ref = sys.argv[1:]
release = open_warehouse(warehouse).release(ref)
source = Path(checkout, "model_train.py").read_text().partition("class PositionalEncoding")[0]
lines = Path(export, "README.md").read_text().splitlines()
snippet = "\n".join(line[4:] for line in lines if line.startswith("    "))
sids = release.table("sids", ["codes", "sid"]).to_pylist()
users = release.table("sequences", ["items"])["items"].to_pylist()

with tempfile.TemporaryDirectory() as folder:
    for path in Path(export).glob("*.npy"):
        shutil.copy(path, folder)
    np.save(Path(folder, "representation.npy"), np.zeros((len(users) + len(sids), 64)))
    os.chdir(folder)
    exec(compile(snippet, "README.md", "exec"), {})
    trainer: dict = {}
    exec(compile(source, "model_train.py", "exec"), trainer)
    os.chdir("/")

S, E = trainer["S"], trainer["E"]
tokens = trainer["tgt_mtx"]
data = [column.tolist() for column in (trainer[f"{one}_inputs"] for one in ("enc", "dec", "u"))]
outputs = trainer["dec_outputs"].tolist()
pairs = [(u, item) for u, items in enumerate(users) for item in sorted(set(items[:-2]))]
assert len(outputs) == len(pairs) == len(trainer["loader"].dataset)
for (user, item), enc, dec, of_user, out in zip(pairs, *data, outputs, strict=True):
    whole = [code + 1 for code in sids[item]["sid"]] + [1]  # SIDs of the release are unique: the digit is 1
    assert (of_user, dec, out) == ([user], [S, *whole], [*whole, E])
    newest = sorted(one + 1 for one in users[user][:-2][-32:])  # no item twice in this release
    assert [one for one in enc if one] == newest
print(f"make_data: {len(pairs):,} train pairs; IDs {tokens.shape}, S = {S}, E = {E}")
print("IDs, histories and users are those of the release")
