"""What differs between two releases: on tables whose differences are known, and on real ones."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import Run
from hypothesis import given, settings
from hypothesis import strategies as st

from sid_flows.report.changes import changes as section
from sid_flows.report.changes import churn_rows, headlines, verdicts
from sid_warehouse import diff_events
from sid_warehouse.diff import CODEBOOK, Side, changes, compare
from sid_warehouse.diff_events import slice_hashes

Event = tuple[str, str, int, str]  # user, item, ts, split


def side(
    folder: Path,
    items: Mapping[str, Sequence[int]],
    events: Sequence[Event] = (),
    *,
    users: Sequence[str] = (),
    samples: Mapping[str, Sequence[tuple[str, int, int]]] | None = None,
    offset: int = 10,
    **record: Any,
) -> Side:
    """Write the tables that are compared: items with their SIDs, each user's events in order, and samples.

    samples: by split (user, start, end); offset: how far levels lie apart in token ids.
    """
    users = list(users) or sorted({user for user, *_ in events})
    item_at, user_at = ({name: n for n, name in enumerate(names)} for names in (list(items), users))
    levels = max((len(sid) for sid in items.values()), default=0)

    def write(name: str, columns: Mapping[str, Any], schema: Mapping[str, pa.DataType]) -> None:
        (folder / name).mkdir(parents=True)
        table = pa.table({key: pa.array(columns[key], kind) for key, kind in schema.items()})
        pq.write_table(table, folder / name / "part-00000.parquet")

    int32, text, ints = pa.int32(), pa.string(), pa.list_(pa.int32())
    index = list(range(len(items)))
    write(
        "items",
        {"item_index": index, "item_id": list(items), "title": [f"Title of {name}" for name in items]},
        {"item_index": int32, "item_id": text, "title": text},
    )
    tokens = [[level * offset + code for level, code in enumerate(sid)] for sid in items.values()]
    write(
        "sids",
        {
            "item_index": index,
            "item_id": list(items),
            "sid": list(items.values()),
            "sid_key": ["-".join(map(str, sid)) for sid in items.values()],
            "token_ids": tokens,
        },
        {"item_index": int32, "item_id": text, "sid": ints, "sid_key": text, "token_ids": ints},
    )
    write(
        "users", {"user_index": range(len(users)), "user_id": users}, {"user_index": int32, "user_id": text}
    )
    sequences = {user: [one for one in events if one[0] == user] for user in users}
    ordered = [one for user in users for one in sequences[user]]
    write(
        "interactions",
        {
            "user_index": [user_at[one[0]] for one in ordered],
            "item_index": [item_at[one[1]] for one in ordered],
            "ts": [one[2] for one in ordered],
            "event_type": ["rating"] * len(ordered),
            "value": [None] * len(ordered),
            "split": [one[3] for one in ordered],
        },
        {
            "user_index": int32,
            "item_index": int32,
            "ts": pa.int64(),
            "event_type": text,
            "value": pa.float64(),
        }
        | {"split": text},
    )
    write(
        "sequences",
        {
            "user_index": range(len(users)),
            "items": [[item_at[one[1]] for one in sequences[user]] for user in users],
            "ts": [[one[2] for one in sequences[user]] for user in users],
        },
        {"user_index": int32, "items": ints, "ts": pa.list_(pa.int64())},
    )
    for split in diff_events.SPLITS:
        rows = (samples or {}).get(split, [])
        write(
            split,
            {
                "user_index": [user_at[user] for user, _, _ in rows],
                "start": [start for _, start, _ in rows],
                "end": [end for _, _, end in rows],
                "target": [item_at[sequences[user][end][1]] for user, _, end in rows],
                "target_ts": [sequences[user][end][2] for user, _, end in rows],
                "n_targets": [1] * len(rows),
            },
            dict.fromkeys(("user_index", "start", "end", "target"), int32)
            | {"target_ts": pa.int64(), "n_targets": int32},
        )
    described = {"dataset": "known", "version": 1, "fingerprint": "f", "recipe": {}, "raw_files": []}
    return Side(
        {**described, "stages": {}, **record},
        {"collisions": {"levels": [{"codes": 10}] * levels}},
        dict.fromkeys(["items", "users", "interactions", "sids", "sequences", *diff_events.SPLITS], folder),
        {CODEBOOK: "same"},
    )


def test_ids_are_compared_by_item_and_counted_by_level_and_prefix(tmp_path: Path) -> None:
    a = side(tmp_path / "a", {"gone": [9, 9], "x": [1, 2], "y": [1, 3], "z": [4, 5]})
    b = side(tmp_path / "b", {"x": [1, 2], "y": [2, 3], "z": [4, 6], "new": [7, 7], "newer": [7, 8]})
    found = compare(a, b, shown=1)
    assert found["items"] | {"added_examples": 0, "removed_examples": 0} == {
        "a": 4, "b": 5, "kept": 3, "added": 2, "removed": 1, "index_moved": 3,
        "added_examples": 0, "removed_examples": 0,
    }  # fmt: skip
    assert found["items"]["added_examples"] == [{"item_id": "new", "title": "Title of new", "sid": "7-7"}]
    assert found["items"]["removed_examples"] == [{"item_id": "gone", "title": "Title of gone", "sid": "9-9"}]
    sids = found["sids"]
    assert (sids["kept"], sids["moved"], sids["share"]) == (3, 2, 2 / 3)
    assert [one["changed"] for one in sids["levels"]] == [1, 1]
    assert [one["changed"] for one in sids["prefixes"]] == [1, 2]
    assert sids["examples"] == [{"item_id": "y", "title": "Title of y", "a": "1-3", "b": "2-3"}]
    assert [one["item_id"] for one in compare(a, b, shown=None)["sids"]["examples"]] == ["y", "z"]
    assert found["token_ids_moved"] == 0


def test_token_ids_that_move_under_a_sid_come_first(tmp_path: Path) -> None:
    a = side(tmp_path / "a", {"x": [1, 2], "y": [1, 3]}, offset=10)
    b = side(tmp_path / "b", {"x": [1, 2], "y": [1, 4]}, offset=20)
    found = compare(a, b)
    assert found["token_ids_moved"] == 1  # y has another SID, which says so itself
    assert next(verdicts(found)).startswith("1 items keep their SID but have other token ids")


def test_other_lengths_and_other_data_sets_are_said(tmp_path: Path) -> None:
    a = side(tmp_path / "a", {"x": [1, 2, 3], "y": [1, 3, 3]})
    b = side(tmp_path / "b", {"x": [1, 2], "y": [2, 3]}, dataset="other")
    found = compare(a, b)
    assert found["notes"] == [
        "two data sets, known and other, compared by item id",
        "SIDs have up to 3 codes in a and 2 in b; levels are compared up to 2",
    ]
    assert [one["changed"] for one in found["sids"]["levels"]] == [1, 0]
    assert found["sids"]["moved"] == 2
    nothing = compare(a, side(tmp_path / "c", {"other": [1, 2, 3]}))
    assert nothing["notes"] == ["no item is in both"]
    assert nothing["sids"]["share"] is None
    assert ["none" for _, _, share in churn_rows(nothing["sids"]) if share is None] == ["none"] * 6


def test_a_suffix_that_one_lacks_is_a_code_that_changed(tmp_path: Path) -> None:
    a = side(tmp_path / "a", {"x": [1, 2], "y": [1, 2, 0], "z": [5, 5]})
    b = side(tmp_path / "b", {"x": [1, 2, 1], "y": [1, 2, 0], "z": [5, 5]})
    sids = compare(a, b)["sids"]
    assert (sids["moved"], [one["changed"] for one in sids["levels"]]) == (1, [0, 0, 1])


def test_users_are_compared_by_id(tmp_path: Path) -> None:
    items = {"x": [1]}
    a = side(tmp_path / "a", items, [("u", "x", 1, "train"), ("w", "x", 1, "train")])
    b = side(tmp_path / "b", items, [("v", "x", 1, "train"), ("w", "x", 1, "train"), ("z", "x", 1, "train")])
    users = compare(a, b)["users"]
    assert users == {"a": 2, "b": 3, "kept": 1, "added": 2, "removed": 1, "index_moved": 0}
    assert compare(a, side(tmp_path / "c", items, users=["w", "u"]))["users"]["index_moved"] == 2


ITEMS = {"x": [1], "y": [2], "z": [3]}
EVENTS = st.lists(
    st.tuples(
        st.sampled_from("uvw"), st.sampled_from("xyz"), st.integers(1, 2), st.sampled_from(diff_events.SPLITS)
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=25)
@given(EVENTS, EVENTS, st.integers(0, 2), st.integers(1, 3))
def test_events_and_samples_match_a_slow_count(
    tmp_path_factory: pytest.TempPathFactory, a: Any, b: Any, window: int, chunk: int
) -> None:
    folder = tmp_path_factory.mktemp("slow")
    rows = [_all_samples(events, window) for events in (a, b)]
    sides = [
        side(folder / name, ITEMS, events, samples={"test": own})
        for name, events, own in zip("ab", (a, b), rows, strict=True)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diff_events, "USERS", chunk)
        found = compare(*sides)
    assert found["splits"] == _slow_events(a, b)
    known = [Counter(_sample(events, *row) for row in own) for events, own in zip((a, b), rows, strict=True)]
    same = (known[0] & known[1]).total()
    left = [Counter(key for key, _ in (one - other).elements()) for one, other in (known, known[::-1])]
    changed = (left[0] & left[1]).total()
    before, after = known[0].total(), known[1].total()
    assert found["samples"]["test"] == {
        "a": before,
        "b": after,
        "same": same,
        "changed": changed,
        "added": after - same - changed,
        "removed": before - same - changed,
    }
    assert found["test_frozen"] == (same == before)


def _slow_events(a: Sequence[Event], b: Sequence[Event]) -> dict[str, dict[str, int]]:
    """Pair equal events one by one, those of one split first."""
    names = ("a", "b", "added", "removed", "left", "joined")
    rows = {split: dict.fromkeys(names, 0) for split in diff_events.SPLITS}
    for name, events in (("a", a), ("b", b)):
        for event in events:
            rows[event[3]][name] += 1
    for known in {event[:3] for event in [*a, *b]}:
        before, after = (Counter(one[3] for one in of if one[:3] == known) for of in (a, b))
        gone, come = sorted((before - after).elements()), sorted((after - before).elements())
        pairs = min(len(gone), len(come))
        for name, splits in (
            ("left", gone[:pairs]),
            ("joined", come[:pairs]),
            ("removed", gone[pairs:]),
            ("added", come[pairs:]),
        ):
            for split in splits:
                rows[split][name] += 1
    return {split: row for split, row in rows.items() if row["a"] or row["b"]}


def _all_samples(events: Sequence[Event], window: int) -> list[tuple[str, int, int]]:
    lengths = Counter(one[0] for one in events)
    return [
        (user, max(end - window, 0) if window else 0, end)
        for user in sorted(lengths)
        for end in range(1, lengths[user])
    ]


def _sample(events: Sequence[Event], user: str, start: int, end: int) -> tuple[Any, Any]:
    """Give what a sample is known by, and its history."""
    own = [one[1:3] for one in events if one[0] == user]
    return (user, *own[end]), tuple(own[start:end])


def test_a_test_set_is_frozen_until_a_history_changes(tmp_path: Path) -> None:
    events = [("u", "x", 1, "train"), ("u", "y", 2, "train"), ("u", "z", 3, "test")]
    a = side(tmp_path / "a", ITEMS, events, samples={"test": [("u", 0, 2)]})
    more = [("a", "x", 1, "train"), *events, ("u", "x", 4, "train")]  # u is another index, and goes on
    b = side(tmp_path / "b", dict(reversed(ITEMS.items())), more, samples={"test": [("u", 0, 2)]})
    assert compare(a, b)["test_frozen"]
    late = [("u", "x", 0, "train"), *events]  # the same target, after one event more
    c = side(tmp_path / "c", ITEMS, late, samples={"test": [("u", 0, 3)]})
    found = compare(a, c)
    assert not found["test_frozen"]
    assert found["samples"]["test"]["changed"] == 1
    windowed = compare(a, side(tmp_path / "d", ITEMS, late, samples={"test": [("u", 1, 3)]}))
    assert windowed["test_frozen"]  # what it sees is the same, two places further on


def test_slices_hash_alike_where_they_are_alike() -> None:
    draw = np.random.default_rng(0)
    items, ts = draw.integers(0, 2, 12), draw.integers(0, 2, 12)
    pairs = np.array([(start, end) for start in range(13) for end in range(start, 13)])
    hashes = slice_hashes(items, ts, pairs[:, 0], pairs[:, 1])
    known = [(tuple(items[start:end]), tuple(ts[start:end])) for start, end in pairs]
    for (one, left), (other, right) in itertools.combinations(zip(known, hashes, strict=True), 2):
        assert (one == other) == (left == right) or len(one[0]) != len(other[0])  # lengths are kept beside


def test_changes_have_dotted_names() -> None:
    before = {
        "tokenize": {"seed": 0, "levels": [64, 64]},
        "embed": [{"name": "text", "model": "m"}],
        "x": None,
    }
    after = {
        "tokenize": {"seed": 1, "levels": [64, 32]},
        "embed": [{"name": "text", "model": "n"}],
        "y": "<b>",
    }
    assert changes(before, after) == [
        {"name": "tokenize.seed", "a": 0, "b": 1},
        {"name": "tokenize.levels", "a": [64, 64], "b": [64, 32]},
        {"name": "embed.text.model", "a": "m", "b": "n"},
        {"name": "x", "a": None, "b": None},
        {"name": "y", "a": None, "b": "<b>"},
    ]
    twice = [{"level": 1, "codes": 4}, {"level": 2, "codes": 4}]
    assert changes({"l": twice}, {"l": [twice[0], {"level": 2, "codes": 8}]})[0]["name"] == "l.2.codes"
    rules = [{"rule": "tied", "split": "valid", "n": 1}, {"rule": "tied", "split": "test", "n": 1}]
    assert changes({"l": rules}, {"l": [rules[0], rules[1] | {"n": 2}]})[0]["name"] == "l.tied test.n"


class Texts(HTMLParser):
    """Collects tags and the text between them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_reports_section_escapes_all_that_comes_from_data(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script><img src=x>"
    a = side(tmp_path / "a", {evil: [1], "x": [2]}, recipe={"embed": [{"name": "text", "template": evil}]})
    b = side(
        tmp_path / "b", {evil: [2], "x": [2]}, dataset="other", raw_files=[{"label": evil, "sha256": evil}]
    )
    page = Texts()
    page.feed("".join(section(compare(a, b))))
    ours = {"section", "b", "h2", "p", "div", "span", "table", "thead", "tbody", "tr", "th", "td"}
    assert page.tags <= {*ours, "details", "summary", "code"}
    assert page.text.count("<script>alert(1)</script>") >= 4  # its id, title, template and file
    assert "Changes since known@v1" in page.text


def test_a_release_does_not_differ_from_itself(small: Run) -> None:
    found = compare(small.release, small.release)
    assert (found["sids"]["moved"], found["token_ids_moved"], found["test_frozen"]) == (0, 0, True)
    assert found["metrics"] == found["recipe"] == found["hashes"] == found["notes"] == []
    for row in found["splits"].values():
        assert [row[name] for name in ("added", "removed", "left", "joined")] == [0, 0, 0, 0]
    same = {split: row["same"] for split, row in found["samples"].items()}
    assert same == small.release.metrics["samples"]
    assert headlines(found) == ([], 0)
