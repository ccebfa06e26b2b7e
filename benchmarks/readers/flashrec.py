"""FlashRec's catalogue, layout and trie modules on `sidmill export --format flashrec`.

    python benchmarks/readers/flashrec.py CHECKOUT EXPORT WAREHOUSE REF

CHECKOUT is the unpacked wheel. Its tokenizer folder is made here, of SID tokens alone, as it would be in a
model's folder. Needs torch for the trie.
"""

import importlib.util
import json
import sys
import tempfile
from pathlib import Path

from sid_tokenizers.dialects import DIALECTS
from sid_warehouse.reader import open_warehouse

checkout, export, warehouse, ref = sys.argv[1:]
sys.path[0] = checkout  # this script's folder has a module of the same name
assert Path(importlib.util.find_spec("flashrec").origin).is_relative_to(checkout)
from flashrec.catalog import convert_file, infer_levels, load_unique_sids  # noqa: E402
from flashrec.search.trie import build_beam_valid_path  # noqa: E402
from flashrec.sid_layout import catalog_code_width, infer_sid_layout  # noqa: E402

release = open_warehouse(warehouse).release(ref)
sids = [tuple(sid) for sid in release.table("sids", ["sid"])["sid"].to_pylist()]
catalog = Path(export, "catalog.json")

found, n_keys, bad, packed = load_unique_sids(catalog)
assert (found, bad, packed) == (sorted(set(sids)), 0, False)
levels = infer_levels(found, packed_only=packed)
print(
    f"catalog.load_unique_sids: {n_keys} keys, {bad} bad, {levels} levels; all SIDs of the release, no other"
)

with tempfile.TemporaryDirectory() as model:
    tokens = DIALECTS["onerec"].strings(release.vocabulary)
    Path(model, "added_tokens.json").write_text(json.dumps({one: 1000 + at for at, one in enumerate(tokens)}))
    layout = infer_sid_layout(model, str(catalog))
    converted = Path(model, "converted.json")
    assert convert_file(catalog, converted)[1] == len(set(sids))
    assert sorted(json.loads(converted.read_text())) == sorted(json.loads(catalog.read_text()))
print(f"sid_layout.infer_sid_layout: width {catalog_code_width(str(catalog))}, {layout}")
print("catalog.convert_file: gives the same keys back")

first, last = map(int, layout.token_range.split(":"))
sizes = [int(one) for one in layout.codebook_sizes.split(",")]
ids = list(range(first, last + 1))
trie = build_beam_valid_path(sid_file=str(catalog), codebook_sizes=sizes, special_token_ids=ids)
ours, shifts = release.trie(), [first + sum(sizes[:level]) for level in range(len(sizes))]
for sid in sids:
    for depth in range(len(sid)):
        prefix = [code + shift for code, shift in zip(sid[:depth], shifts, strict=False)]
        allowed = {code - shifts[depth] for code in trie.allowed_next(prefix)}
        assert allowed == set(ours.allowed(sid[:depth]).tolist())
print(f"search.trie: mode {trie.mode}, depth {trie.max_depth}; at all prefixes it allows what our trie does")
