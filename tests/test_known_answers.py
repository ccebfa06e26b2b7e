"""Published sequences and SIDs, read with our own means, give the numbers that papers print."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, run_chain

from sid_tokenizers.metrics import collision_metrics

PUBLISHED = ROOT.parent / "shared" / "data" / "published"
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"the published files are not there: {PUBLISHED}"),
]


def test_beauty_has_the_statistics_of_the_papers(tmp_path: Path) -> None:
    """LETTER's sequences equal P5's and TIGER's: 22,363 users, 12,101 items, 198,502 events."""
    sequences = json.loads((PUBLISHED / "letter_Beauty.inter.json").read_text())
    lines = [
        f"{user},{item},{1_400_000_000 + place}"
        for user, items in sequences.items()
        for place, item in enumerate(items)
    ]
    (tmp_path / "beauty.csv").write_text("user,item,seconds\n" + "\n".join(lines))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'dataset = "beauty"\n[source]\nkind = "table"\npath = "beauty.csv"\ntime_unit = "s"\n'
        'columns = {user_id = "user", item_id = "item", ts = "seconds"}\n[clean]\nk_core = 5\n'
    )
    done = run_chain(recipe, tmp_path / "w", until="sequences").outputs
    rows = done["clean"].manifest["rows"]
    assert (rows["users"], rows["items_clean"], rows["events"]) == (22_363, 12_101, 198_502)
    assert done["sequences"].facts["samples"] == {"train": 131_413, "valid": 22_363, "test": 22_363}
    audit = done["split"].facts["audit"]
    assert audit["test_ties"] == 0
    assert round(audit["unseen_items"]["test"] / 22_363, 4) == 0.0062
    trained = done["sequences"].read("items", ["popularity_train"])["popularity_train"].to_numpy()
    assert np.count_nonzero(trained == 0) == 33
    ours = done["sequences"].read("sequences", ["user_index", "items"])["items"].to_pylist()
    users = done["clean"].read("users")["user_id"].to_pylist()
    items = done["clean"].read("items_clean")["item_id"].to_pylist()
    assert {u: [int(items[i]) for i in own] for u, own in zip(users, ours, strict=True)} == sequences


@pytest.mark.parametrize(
    ("name", "items", "unique"),
    [("minionerec_Industrial_and_Scientific", 3_686, 3_670), ("letter_Beauty", 12_101, 12_088)],
)
def test_published_sids_have_the_items_they_say(name: str, items: int, unique: int) -> None:
    index = json.loads((PUBLISHED / f"{name}.index.json").read_text())
    assert sorted(map(int, index)) == list(range(items))
    codes = np.array([[int(token[3:-1]) for token in index[str(n)]] for n in range(items)], dtype=np.int32)
    found = collision_metrics(codes)
    assert len(np.unique(codes, axis=0)) == unique
    assert found["collision_rate"] == pytest.approx((items - unique) / items)
