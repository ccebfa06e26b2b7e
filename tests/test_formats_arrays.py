"""Formats of arrays and records, TFRecords, tensors, matrices, bundles: what each trainer demands of them."""

import gzip
import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from helpers import Run, more_dump, quickly, run_append, run_chain, small_dump
from hypothesis import given
from hypothesis import strategies as st

from sid_pipelines.trainers import TRAINERS
from sid_pipelines.trainers.export import export
from sid_pipelines.trainers.reading.digits import grid_digit, popularity_digit
from sid_pipelines.trainers.writing import tfrecords
from sid_schemas import RecipeError
from sid_warehouse.reader import Release

Records = list[dict[str, list[Any]]]


def written(name: str, release: Release, to: Path, **given: str) -> Path:
    export(release, TRAINERS[name], to, given)
    return to


def made(folder: Path, *overrides: str) -> Release:
    """Run a small dump's chain with some keys of its recipe set."""
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        return run_chain(small_dump(folder), folder / "w", *overrides).release


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A small release in which items share SIDs."""
    folder = tmp_path_factory.mktemp("shared")
    return made(folder, "collisions.policy=none", "tokenize.levels=[4, 2]", "gates.max_collision_rate=1.0")


@pytest.fixture(scope="module")
def suffixed(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A small release whose SIDs have a digit of MMGRec's."""
    folder = tmp_path_factory.mktemp("suffixed")
    return made(folder, "collisions.policy=suffix-popularity", "tokenize.levels=[4, 2]")


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A small release whose SIDs differ in length."""
    folder = tmp_path_factory.mktemp("uneven")
    return made(folder, "collisions.policy=suffix-on-collision", "tokenize.levels=[4, 2]")


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A small release that is split by time, so that some users have one train event or none."""
    return made(
        tmp_path_factory.mktemp("timed"), "split.protocol=global-time", "split.ratios=[0.2, 0.1, 0.7]"
    )


def column(release: Release, table: str, name: str) -> list[Any]:
    values: list[Any] = release.table(table, [name])[name].to_pylist()
    return values


# A slow, obvious reader of TFRecords


def slow_crc32c(data: bytes) -> int:
    """Take the remainder bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def slow_mask(crc: int) -> int:
    return ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF


def slow_records(path: Path) -> Iterator[bytes]:
    """Read a file record by record, checksums checked."""
    data = gzip.decompress(path.read_bytes())
    place = 0
    while place < len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        (of_length,) = struct.unpack_from("<I", data, place + 8)
        record = data[place + 12 : place + 12 + length]
        (of_record,) = struct.unpack_from("<I", data, place + 12 + length)
        assert of_length == slow_mask(slow_crc32c(data[place : place + 8]))
        assert of_record == slow_mask(slow_crc32c(record))
        yield record
        place += 16 + length


def slow_varint(data: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[place]
        number, shift, place = number | (byte & 127) << shift, shift + 7, place + 1
        if byte < 128:
            return number, place


def slow_fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (number, payload) of a message whose fields all have a length."""
    place = 0
    while place < len(data):
        key, place = slow_varint(data, place)
        assert key & 7 == 2, "expected a field with a length"
        size, place = slow_varint(data, place)
        yield key >> 3, data[place : place + size]
        place += size


def slow_example(record: bytes) -> dict[str, list[Any]]:
    """Read a tf.train.Example of int64 and bytes lists."""
    [(_, features)] = slow_fields(record)
    out: dict[str, list[Any]] = {}
    for _, entry in slow_fields(features):
        (_, name), (_, feature) = slow_fields(entry)
        [(kind, values)] = slow_fields(feature)
        if kind == 1:
            out[name.decode()] = [value for _, value in slow_fields(values)]
        else:
            assert kind == 3
            [(_, packed)] = slow_fields(values)
            numbers, place = [], 0
            while place < len(packed):
                number, place = slow_varint(packed, place)
                numbers.append(number)
            out[name.decode()] = numbers
    return out


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_checksums_are_those_of_the_slow_twin(records: list[bytes]) -> None:
    assert tfrecords.crc32c(records).tolist() == [slow_crc32c(record) for record in records]


def test_checksums_known_from_the_standard() -> None:
    """RFC 3720, B.4."""
    known = {bytes(32): 0x8A9136AA, b"\xff" * 32: 0x62A8AB43, bytes(range(32)): 0x46DD794E}
    assert tfrecords.crc32c(list(known)).tolist() == list(known.values())


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1), st.text())
def test_examples_read_back(numbers: list[int], text: str) -> None:
    record = tfrecords.example(
        n=tfrecords.int64_list(b"".join(map(tfrecords.varint, numbers))),
        t=tfrecords.bytes_list(text.encode()),
    )
    assert slow_example(record) == {"n": numbers, "t": [text.encode()]}


@given(st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=2), min_size=1), st.data())
def test_digits_tell_apart(codes: list[list[int]], data: st.DataObject) -> None:
    keys = [tuple(row) for row in codes]
    digits = grid_digit(codes).tolist()
    assert len(set(zip(keys, digits, strict=True))) == len(keys)
    for key, digit in zip(keys, digits, strict=True):
        assert (digit == 0) == (keys.count(key) == 1)
    popularity = data.draw(st.lists(st.integers(0, 3), min_size=len(keys), max_size=len(keys)))
    places = popularity_digit(codes, popularity).tolist()
    for key in set(keys):
        mine = sorted((place, i) for i, place in enumerate(places) if keys[i] == key)
        assert [place for place, _ in mine] == list(range(1, len(mine) + 1))
        assert mine == sorted(mine, key=lambda one: (-popularity[one[1]], one[1]))


# GRID


def grid_rows(folder: Path) -> Records:
    """Read a folder as the trainer does: fields are those of a file's first record, none of them empty."""
    files = sorted(folder.glob("*tfrecord.gz"))
    rows = []
    for path in files:
        records = [slow_example(record) for record in slow_records(path)]
        assert all(records[0].values()), f"{path}: a field of the first record is empty"
        assert all(record.keys() == records[0].keys() for record in records)
        rows += records
    return rows


def test_grid_rows_are_the_splits(small: Run, tmp_path: Path) -> None:
    to = written("grid", small.release, tmp_path / "to", files="3")
    users = column(small.release, "sequences", "items")
    for folder, last in (("training", -2), ("evaluation", -1), ("testing", None)):
        assert len(list((to / folder).iterdir())) == 3
        rows = {row["user_id"][0]: row["sequence_data"] for row in grid_rows(to / folder)}
        assert rows == {user: items[:last] for user, items in enumerate(users) if len(items[:last]) > 1}


def test_grid_items_are_all_there_once(small: Run, tmp_path: Path) -> None:
    to = written("grid", small.release, tmp_path / "to", text="utf-8")
    rows = grid_rows(to / "items")
    texts = {row["id"][0]: row["text"][0].decode() for row in rows}
    assert len(rows) == len(texts)
    assert texts == dict(enumerate(column(small.release, "items", "text")))


def test_grid_tensors_are_the_releases(small: Run, tmp_path: Path) -> None:
    to = written("grid", small.release, tmp_path / "to")
    sids = torch.load(to / "sids.pt", weights_only=True)
    assert sids.dtype == torch.int64
    assert sids.T.tolist() == column(small.release, "sids", "sid")
    vectors = torch.load(to / "embeddings_text.pt", weights_only=True)
    assert vectors.dtype == torch.float32
    assert vectors.tolist() == column(small.release, "embeddings_text", "vector")


def test_grid_digit_is_zero_only_where_unique(shared: Release, uneven: Release, tmp_path: Path) -> None:
    for release, chosen in ((shared, {}), (shared, {"digit": "grid"}), (uneven, {"digit": "grid"})):
        to = written("grid", release, tmp_path / f"{release.ref}-{len(list(tmp_path.iterdir()))}", **chosen)
        sids = torch.load(to / "sids.pt", weights_only=True).T.tolist()
        codes = [tuple(row) for row in column(release, "sids", "codes")]
        assert [tuple(row[:-1]) for row in sids] == codes
        assert len({tuple(row) for row in sids}) == len(sids)
        for code in set(codes):
            digits = [row[-1] for row in sids if tuple(row[:-1]) == code]  # in item order
            assert digits == ([0] if len(digits) == 1 else list(range(1, len(digits) + 1)))


def test_grid_takes_other_splits_and_leaves_out_single_items(timed: Release, tmp_path: Path) -> None:
    to = written("grid", timed, tmp_path / "to", files="1")
    users = column(timed, "sequences", "items")
    for folder, split in (("evaluation", "valid"), ("testing", "test")):
        samples = [
            (row["user_index"], users[row["user_index"]][row["start"] : row["end"] + 1])
            for row in timed.table(split).to_pylist()
        ]
        assert [(row["user_id"][0], row["sequence_data"]) for row in grid_rows(to / folder)] == samples
    trained: dict[int, list[int]] = {}
    for event in timed.table("interactions").to_pylist():
        if event["split"] == "train":
            trained.setdefault(event["user_index"], []).append(event["item_index"])
    rows = {row["user_id"][0]: row["sequence_data"] for row in grid_rows(to / "training")}
    assert rows == {user: items for user, items in trained.items() if len(items) > 1}
    assert len(rows) < len(users)
    assert f"{len(users) - len(rows):,} of `training`" in (to / "README.md").read_text()


def test_grid_texts_are_ascii(tmp_path: Path) -> None:
    recipe = small_dump(tmp_path)
    dump = tmp_path / "dump" / "movies.dat"
    dump.write_text(dump.read_text().replace("Film A0", "Amélie 愛\u2028"), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        release = run_chain(recipe, tmp_path / "w").release
    to = written("grid", release, tmp_path / "to")
    texts = [row["text"][0].decode("ascii") for row in grid_rows(to / "items")]
    assert any("Amelie ?" in text for text in texts)
    assert "1 texts were changed" in (to / "README.md").read_text()


def test_grid_refuses(uneven: Release, small: Run, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="GRID expects SIDs of one length"):
        written("grid", uneven, tmp_path / "to")
    with pytest.raises(RecipeError, match="has no embedding 'image'; there are: text"):
        written("grid", small.release, tmp_path / "to", embedding="image")
    assert not (tmp_path / "to").exists()


# MMGRec


@pytest.mark.parametrize("fixture", ["small", "shared", "suffixed", "uneven"])
def test_mmgrec_ids(fixture: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    run = request.getfixturevalue(fixture)
    release = run.release if isinstance(run, Run) else run
    to = written("mmgrec", release, tmp_path / "to")
    tokens = np.load(to / "tgt_mtx.npy").tolist()
    sids = column(release, "sids", "sid")
    codes = column(release, "sids", "codes")
    if fixture in ("suffixed", "uneven"):
        assert [row[:-1] for row in tokens] == [[code + 1 for code in row] for row in codes]
    else:
        assert [row[:-1] for row in tokens] == [[code + 1 for code in row] for row in sids]
    if fixture == "suffixed":
        assert [row[-1] for row in tokens] == [row[-1] for row in sids]
    assert len({tuple(row) for row in tokens}) == len(tokens)
    assert min(min(row) for row in tokens) == 1
    popularity = column(release, "items", "popularity_train")
    for prefix in {tuple(row[:-1]) for row in tokens}:
        mine = sorted((row[-1], -popularity[i]) for i, row in enumerate(tokens) if tuple(row[:-1]) == prefix)
        assert [digit for digit, _ in mine] == list(range(1, len(mine) + 1))
        assert [pop for _, pop in mine] == sorted(pop for _, pop in mine)


def test_mmgrec_histories_and_splits(small: Run, tmp_path: Path) -> None:
    to = written("mmgrec", small.release, tmp_path / "to")
    users = column(small.release, "sequences", "items")
    histories = np.load(to / "src_mtx.npy")
    assert histories.shape == (len(users), 32)
    for row, items in zip(histories.tolist(), users, strict=True):
        assert [item for item in row if item] == sorted({item + 1 for item in items[:-2]})
    for name, part in (("train", slice(0, -2)), ("val", slice(-2, -1)), ("test", slice(-1, None))):
        pairs = np.load(to / f"{name}_ui.npy")
        assert pairs.tolist() == [[u, i] for u, items in enumerate(users) for i in sorted(set(items[part]))]
    assert np.load(to / "features.npy").tolist() == column(small.release, "embeddings_text", "vector")


def test_mmgrec_readme_makes_what_it_says(
    small: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = written("mmgrec", small.release, tmp_path / "to")
    lines = (to / "README.md").read_text().splitlines()
    code = "\n".join(line[4:] for line in lines if line.startswith("    "))
    monkeypatch.chdir(to)
    compile(code, "README.md", "exec")
    assert 'para["train_ui"]' in code
    assert str(int(np.load("tgt_mtx.npy").max()) + 1) in (to / "README.md").read_text()


# TorchEasyRec


def check_bundle(release: Release, root: Path, generation: str) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((root / generation / "manifest.json").read_text())
    sizes = manifest["codebook"]
    assert re.fullmatch("[0-9a-f]{32}", manifest["bundle_uuid"])
    for name, entry in manifest["artifacts"].items():
        table = pq.read_table(root / generation / name)
        assert entry == {"save_type": "parquet", "rows": len(table), "location": f"{generation}/{name}"}
    items = pq.read_table(root / generation / "item_to_sid").to_pylist()
    stored = release.table("sids").to_pylist()
    for row, sid in zip(items, stored, strict=True):
        assert row["item_id"] == sid["item_id"]
        assert row["origin_codebook"] == sid["codes"]
        assert row["codebook"] == sid["sid"]
        assert row["offset_codebook"] == [c + sum(sizes[:level]) for level, c in enumerate(sid["sid"])]
        assert row["index"] == sid["slot"] + 1
    buckets = pq.read_table(root / generation / "sid_to_items").to_pylist()
    keys = [bucket["codebook"] for bucket in buckets]
    assert keys == sorted(keys)
    assert {tuple(b["codebook"]): b["itemids"] for b in buckets} == {
        tuple(sid): [
            row["item_id"] for row in sorted(items, key=lambda r: r["index"]) if row["codebook"] == sid
        ]
        for sid in keys
    }
    assert manifest["max_observed_items_per_sid"] == max(len(bucket["itemids"]) for bucket in buckets)
    assert manifest["item_id_type"] == "string"
    return manifest


def test_torcheasyrec_bundle(small: Run, shared: Release, tmp_path: Path) -> None:
    manifest = check_bundle(small.release, written("torcheasyrec", small.release, tmp_path / "a"), "v1")
    assert "since_bundle_uuid" not in manifest
    check_bundle(shared, written("torcheasyrec", shared, tmp_path / "b", generation="first"), "first")
    numbers = pq.read_table(
        written("torcheasyrec", shared, tmp_path / "c", ids="number") / "v1" / "item_to_sid"
    )
    assert numbers["item_id"].to_pylist() == list(range(len(numbers)))


def test_torcheasyrec_append_names_its_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quickly(monkeypatch)
    first = run_chain(small_dump(tmp_path / "one"), tmp_path / "w")
    base = written("torcheasyrec", first.release, tmp_path / "base")
    then = run_append(more_dump(tmp_path / "two"), tmp_path / "w")
    to = written("torcheasyrec", then.release, tmp_path / "to")
    manifest = check_bundle(then.release, to, "v2")
    assert manifest["since_bundle_uuid"] == json.loads((base / "v1/manifest.json").read_text())["bundle_uuid"]
    added = pq.read_table(to / "v2" / "delta_item_to_sid")["item_id"].to_pylist()
    assert added == column(then.release, "delta_sids", "item_id")
    assert added
    touched = pq.read_table(to / "v2" / "delta_sid_to_items")["itemids"].to_pylist()
    assert set(added) <= {item for bucket in touched for item in bucket}


def test_torcheasyrec_refuses_a_digit(suffixed: Release, uneven: Release, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="an added digit, 3 codes for 2"):
        written("torcheasyrec", suffixed, tmp_path / "to")
    with pytest.raises(RecipeError, match="SIDs of one length"):
        written("torcheasyrec", uneven, tmp_path / "to")
