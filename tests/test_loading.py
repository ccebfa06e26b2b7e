"""Our loader against a plain reader of the Parquet tables, its shuffle, its shards, and where it goes on."""

import copy
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from helpers import Run
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Subset, default_collate, get_worker_info

from sid_schemas import DataError, RecipeError, WarehouseError
from sid_schemas.tables import EVENT_TYPES, SEQUENCES, TRAIN
from sid_warehouse import parquet
from sid_warehouse.loading.batch import Batch
from sid_warehouse.loading.collator import Collator
from sid_warehouse.loading.features import FEATURES, Categories, log2_buckets
from sid_warehouse.loading.permutation import Permutation
from sid_warehouse.loading.stream import Stream
from sid_warehouse.mapped import Mapped
from sid_warehouse.samples import Samples
from sid_warehouse.torch_samples import TorchSamples, TorchStream, stacked

ITEMS, PAD = 20, 0
CATEGORIES = Categories(np.arange(ITEMS, dtype=np.int64) % 4, ("a", "b", "c"))


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of sequences of 1 to 12 events and samples of them, some without history, in batches of 7."""
    draw, folder = np.random.default_rng(0), tmp_path_factory.mktemp("odd")
    sequences, samples = [], []
    for user in range(40):
        n = int(draw.integers(1, 13))
        sequences.append(
            {
                "user_index": user,
                "items": draw.integers(0, ITEMS, n).tolist(),
                "ts": np.sort(draw.integers(0, 10**12, n)).tolist(),
                "event_type": [EVENT_TYPES[place] for place in draw.integers(0, len(EVENT_TYPES), n)],
                "value": [None if draw.random() < 0.3 else round(draw.random(), 3) for _ in range(n)],
            }
        )
        for end in sorted(draw.choice(range(n), size=n // 2, replace=False).tolist()):
            samples.append(
                {
                    "user_index": user,
                    "start": int(draw.integers(0, end + 1)),
                    "end": end,
                    "target": sequences[-1]["items"][end],
                    "target_ts": sequences[-1]["ts"][end],
                    "n_targets": int(draw.integers(1, min(3, n - end) + 1)),
                }
            )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "IPC_BATCH", 7)
        for table, rows in ((SEQUENCES, sequences), (TRAIN, samples)):
            parquet.write(folder, table, pa.Table.from_pylist(rows, table.arrow()))
            parquet.write_ipc(folder, table)
    return folder


def odd_tokens() -> np.ndarray:
    """SIDs of one to three tokens, filled up at their end."""
    tokens = 1 + np.arange(3 * ITEMS, dtype=np.int32).reshape(ITEMS, 3)
    return np.where(np.arange(3) < 1 + np.arange(ITEMS)[:, None] % 3, tokens, PAD).astype(np.int32)


def odd_samples(folder: Path, **options: Any) -> Samples:
    options = {"pad": PAD, "max_history": 4, "categories": CATEGORIES} | options
    return Samples(folder, "train", odd_tokens(), **options)


# The plain reader


def plain(folder: Path, samples: Samples) -> list[dict[str, Any]]:
    """Give what `samples` should: Parquet rows as Python lists, one sample after the other."""
    users = {row["user_index"]: row for row in parquet.read(folder, "sequences").to_pylist()}
    rows = parquet.read(folder, samples.split).to_pylist()
    if samples.expansion == "last":
        rows = list({row["user_index"]: row for row in rows}.values())
    most = max(row["n_targets"] for row in rows)
    return [_plain_one(row, users[row["user_index"]], samples, most) for row in rows]


def _plain_one(row: dict[str, Any], of_user: dict[str, Any], samples: Samples, most: int) -> dict[str, Any]:
    tokens, wide = samples.tokens.tolist(), samples.max_history
    L = len(tokens[0])
    first, end = row["start"], row["end"]
    kept = range(max(first, end - wide), end)

    def padded(values: list[Any], fill: Any, unit: int = 1) -> list[Any]:
        filling = [fill] * (unit * wide - len(values))
        return filling + values if samples.padding == "left" else values + filling

    def codes(items: list[int]) -> list[int]:
        return [token for item in items for token in tokens[item]]

    times = of_user["ts"]
    features = {
        "event_type": [EVENT_TYPES.index(of_user["event_type"][place]) + 1 for place in kept],
        "value": [of_user["value"][place] for place in kept],
        "time": [times[place] for place in kept],
        "time_gap": [times[place] - times[place - 1] if place > first else 0 for place in kept],
        "category": [int(samples.categories.of[of_user["items"][place]]) if samples.categories.names else 0
                     for place in kept],
    }  # fmt: skip
    fills = {"value": float("nan")}
    features["value"] = [float("nan") if value is None else value for value in features["value"]]
    asked = of_user["items"][end : end + (row["n_targets"] if samples.targets == "all" else 1)]
    found = {
        "user_index": row["user_index"],
        "history": padded(codes(of_user["items"][kept.start : end]), samples.pad, L),
        "history_length": len(kept),
        "target": codes(asked),
        "target_item": row["target"],
    }
    if samples.targets == "all":
        found["target"] += [samples.pad] * L * (most - len(asked))
        found |= {"target_items": asked + [-1] * (most - len(asked)), "n_targets": len(asked)}
    if samples.positions:
        count = most if samples.targets == "all" else 1
        found["history_positions"] = padded([1 + n % L for n in range(len(kept) * L)], 0, L)
        found["target_positions"] = [1 + n % L for n in range(len(asked) * L)] + [0] * L * (
            count - len(asked)
        )
    for name in samples.features:
        found[f"history_{name}"] = padded(features[name], fills.get(name, 0))
    if "time" in samples.features:
        found["target_time"] = row["target_ts"]
    if "time_gap" in samples.features:
        found["target_time_gap"] = row["target_ts"] - times[end - 1] if len(kept) else 0
    return found


def same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        got = found[name]
        assert isinstance(got, np.ndarray) == isinstance(value, list), name
        np.testing.assert_array_equal(got, np.asarray(value, dtype=np.asarray(got).dtype), err_msg=name)


MODES: list[dict[str, Any]] = [
    {},
    {"padding": "right"},
    {"max_history": 50, "positions": True},
    {"expansion": "last", "max_history": 1},
    {"targets": "all", "positions": True, "padding": "right"},
    {"features": FEATURES},
    {"features": FEATURES, "padding": "right", "max_history": 3, "expansion": "last", "targets": "all"},
    {"features": ("time_gap",), "max_history": 2},
]


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_every_mode_is_the_plain_readers(mode: dict[str, Any], odd: Path) -> None:
    samples = odd_samples(odd, **mode)
    expected = plain(odd, samples)
    assert len(samples) == len(expected)
    assert any(row["history_length"] == 0 for row in expected) or mode.get("expansion") == "last"
    order = np.random.default_rng(1).integers(-len(samples), len(samples), 300)
    batch = samples.batch(order)
    for place, number in enumerate(order.tolist()):
        same(batch[place], expected[number])
    for values in batch.arrays.values():
        assert values.dtype in (np.int64, np.float32)
        assert values.flags.writeable
    same(samples[3], expected[3])
    assert len(samples.batch([])) == 0


@pytest.mark.parametrize("level", ["sid", "item"])
def test_a_release_gives_the_plain_readers_samples(level: str, small: Run) -> None:
    release = small.release
    for split in ("train", "valid", "test"):
        options: dict[str, Any] = {"level": level, "max_history": 3, "features": FEATURES}
        samples = release.samples(split, **options)
        tokens = release.table("sids")["token_ids"].to_pylist()
        if level == "item":
            tokens = [[number + 1] for number in range(len(tokens))]
        assert samples.tokens.tolist() == tokens
        expected = plain(release.folder, samples)
        tensors = release.sequences(split, **options)
        for number, row in enumerate(expected):
            same(samples[number], row)
            same({k: v.numpy() if torch.is_tensor(v) else v for k, v in tensors[number].items()}, row)
    first = [row[0] if row else None for row in release.table("items")["category_path"].to_pylist()]
    names = samples.category_names
    assert tensors.category_names == names == tuple(sorted({name for name in first if name}))
    assert [names[number - 1] if number else None for number in samples.categories.of.tolist()] == first


def test_categories_are_the_first_of_each_item() -> None:
    column = pa.chunked_array([[["b", "x"], [], None], [["a"], ["b"]]], pa.list_(pa.string()))
    found = Categories.read(column)
    assert (found.of.tolist(), found.names) == ([2, 0, 0, 1, 2], ("a", "b"))
    assert Categories.read(pa.chunked_array([[[]]], pa.list_(pa.string()))).of.tolist() == [0]


def test_pauses_go_into_buckets_that_double() -> None:
    gaps = [0, 999, 1_000, 1_999, 2_000, 60_000, 86_400_000, 2**62]
    assert log2_buckets(gaps).tolist() == [0, 0, 1, 1, 2, 6, 17, 31]
    assert log2_buckets([3_600_000], unit=60_000, buckets=5).tolist() == [4]


def test_a_batch_may_be_as_wide_as_its_longest_history(odd: Path) -> None:
    for padding in ("left", "right"):
        fixed = odd_samples(odd, max_history=9, padding=padding, features=FEATURES)
        tight = odd_samples(odd, max_history=9, padding=padding, features=FEATURES, fixed=False)
        rows = np.flatnonzero(fixed.batch(np.arange(len(fixed))).arrays["history_length"] < 5)[:20]
        wide, narrow = fixed.batch(rows).arrays, tight.batch(rows).arrays
        width = int(wide["history_length"].max())
        assert narrow["history"].shape == (20, 3 * width)
        for name, values in wide.items():
            if values.ndim == 2 and name.startswith("history"):
                kept = values.shape[1] // 9 * width
                values = values[:, -kept:] if padding == "left" else values[:, :kept]
            np.testing.assert_array_equal(narrow[name], values)


def test_histories_of_tens_of_thousands_of_events(tmp_path: Path) -> None:
    n = 60_000
    items = np.arange(n) % ITEMS
    row = {"user_index": 0, "items": items, "ts": np.arange(n) * 10, "event_type": ["view"] * n,
           "value": np.ones(n)}  # fmt: skip
    sample = {"user_index": 0, "start": 0, "end": n - 1, "target": int(items[-1]), "target_ts": n * 10,
              "n_targets": 1}  # fmt: skip
    for table, one in ((SEQUENCES, row), (TRAIN, sample)):
        parquet.write(tmp_path, table, pa.Table.from_pylist([one], table.arrow()))
        parquet.write_ipc(tmp_path, table)
    tokens = np.arange(3 * ITEMS, dtype=np.int32).reshape(ITEMS, 3)
    samples = Samples(
        tmp_path, "train", tokens, pad=0, max_history=50_000, features=("time_gap",), positions=True
    )
    found = samples[0]
    assert np.array_equal(found["history"], tokens[items[n - 50_001 : n - 1]].reshape(-1))
    assert np.array_equal(found["history_positions"], np.arange(150_000) % 3 + 1)
    assert set(found["history_time_gap"].tolist()) == {10}  # the first of those kept has one before it
    assert np.array_equal(samples.blocks(), np.arange(150_000) // 3)


# Files


def test_files_that_are_not_ours_are_refused(odd: Path, tmp_path: Path) -> None:
    table = parquet.read(odd, "train")

    def mapped(
        name: str, batches: list[pa.RecordBatch], options: pa.ipc.IpcWriteOptions | None = None
    ) -> Mapped:
        with pa.ipc.new_file(tmp_path / name, table.schema, options=options) as writer:
            for batch in batches:
                writer.write_batch(batch)
        return Mapped(tmp_path / name)

    whole = table.combine_chunks().to_batches()[0]
    packed = mapped("packed", [whole], pa.ipc.IpcWriteOptions(compression="zstd"))
    with pytest.raises(WarehouseError, match="packed: expected no compression"):
        packed.take("start", np.arange(3))
    uneven = mapped("uneven", [whole.slice(0, 5), whole.slice(5, 4), whole.slice(9, 5)])
    with pytest.raises(WarehouseError, match="uneven, batch 1: expected 5 rows, got 4"):
        uneven.take("start", np.arange(9))
    assert len(mapped("empty", [])) == 0


def test_an_event_type_that_there_is_not_is_refused(tmp_path: Path) -> None:
    row = {
        "user_index": 0,
        "items": [0, 1],
        "ts": [1, 2],
        "event_type": ["wave", "view"],
        "value": [None] * 2,
    }
    sample = {"user_index": 0, "start": 0, "end": 1, "target": 1, "target_ts": 2, "n_targets": 1}
    for table, one in ((SEQUENCES, row), (TRAIN, sample)):
        parquet.write(tmp_path, table, pa.Table.from_pylist([one], table.arrow()))
        parquet.write_ipc(tmp_path, table)
    with pytest.raises(WarehouseError, match=r"sequences.arrow, column event_type: expected .* got 'wave'"):
        odd_samples(tmp_path, features=("event_type",))[0]


# Torch


def test_default_collation_works_and_ready_arrays_are_the_same(odd: Path) -> None:
    data = TorchSamples(odd_samples(odd, features=FEATURES))
    rows = [list(range(first, min(first + 16, len(data)))) for first in range(0, len(data), 16)]
    plainly = [default_collate([data[n] for n in some]) for some in rows]
    for one, other in zip(plainly, DataLoader(data, batch_size=16), strict=True):
        assert list(one) == list(other)
        for name in one:
            assert one[name].dtype == other[name].dtype
            torch.testing.assert_close(one[name], other[name], equal_nan=True)
    samples = list(data.__getitems__(rows[0]))  # a list of such, as a wrapper around the data set may give
    for batch in (stacked(samples), default_collate(samples)):
        torch.testing.assert_close(batch, plainly[0], equal_nan=True)
    part = Subset(data, [5, 3])
    [batch] = DataLoader(part, batch_size=2, collate_fn=stacked)
    assert torch.equal(batch["history"][1], data[3]["history"])
    batch = data.__getitems__([1, 2])
    assert isinstance(batch, Batch)
    assert len(list(batch)) == 2
    with pytest.raises(IndexError, match="sample 2 of 2"):
        batch[2]


def test_tensors_are_the_arrays(odd: Path) -> None:
    samples = odd_samples(odd)
    arrays = samples.batch([1, 2]).arrays
    samples.batch = lambda indices: Batch(arrays)  # type: ignore[method-assign]
    tensors = stacked(TorchSamples(samples).__getitems__([1, 2]))
    tensors["history"][0, 0] = 99
    assert arrays["history"][0, 0] == 99


# The shuffle


@given(st.integers(0, 5_000), st.integers(0, 2**40), st.integers(0, 1_000))
def test_a_permutation_gives_every_number_once(n: int, seed: int, epoch: int) -> None:
    order = Permutation(n, seed=seed, epoch=epoch)
    numbers = order(np.arange(n))
    assert np.array_equal(np.sort(numbers), np.arange(n))
    assert np.array_equal(order(np.arange(n)[::-3]), numbers[::-3])
    again = Permutation(n, seed=seed, epoch=epoch)(np.arange(n))
    assert np.array_equal(again, numbers)
    if n > 30:
        for other in (Permutation(n, seed=seed + 1, epoch=epoch), Permutation(n, seed=seed, epoch=epoch + 1)):
            assert (other(np.arange(n)) == numbers).mean() < 0.5


def test_permutations_never_change() -> None:
    """Whoever resumes with a later version goes on in the same order."""
    assert Permutation(10, seed=0)(np.arange(10)).tolist() == [6, 1, 7, 3, 9, 4, 5, 8, 2, 0]
    assert Permutation(10**12, seed=1, epoch=2)([0, 1, 10**12 - 1]).tolist() == [
        266360634135,
        112083628807,
        68567734227,
    ]


def test_all_orders_are_about_as_likely() -> None:
    for n, orders in ((3, 6), (4, 24)):
        seen = Counter(
            tuple(Permutation(n, seed=seed)(np.arange(n)).tolist()) for seed in range(200 * orders)
        )
        assert len(seen) == orders
        assert sum((count - 200) ** 2 / 200 for count in seen.values()) < 2.5 * orders  # chi-square
    n, times = 50, 2_000
    numbers = np.stack([Permutation(n, seed=7, epoch=epoch)(np.arange(n)) for epoch in range(times)])
    stood = np.stack([np.bincount(column, minlength=n) for column in numbers.T])
    chi = ((stood - times / n) ** 2 / (times / n)).sum()
    assert abs(chi - n * (n - 1)) < 5 * np.sqrt(2 * n * (n - 1))
    after = np.bincount(numbers[:, :-1].ravel() * n + numbers[:, 1:].ravel(), minlength=n * n)
    pairs = after.reshape(n, n)[~np.eye(n, dtype=bool)]  # who follows whom
    expected = times * (n - 1) / (n * (n - 1))
    assert abs(((pairs - expected) ** 2 / expected).sum() - len(pairs)) < 6 * np.sqrt(2 * len(pairs))


# Streams


class Numbers:
    """Stands for samples: each is its own number."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    @property
    def settings(self) -> dict[str, Any]:
        return {"samples": self.n}

    def batch(self, indices: np.ndarray) -> Batch:
        return Batch({"number": np.asarray(indices)})


def numbers(n: int, **options: Any) -> Stream:
    return Stream(Numbers(n), **options)  # type: ignore[arg-type]


def given_by(parts: Iterator[dict[str, Any]]) -> list[Any]:
    return [np.asarray(one["number"]).tolist() for one in parts]


def in_turn(parts: list[list[Any]]) -> list[Any]:
    """Give what a DataLoader does of its workers' parts: one of each, in turn."""
    rounds = itertools.zip_longest(*parts)
    return [one for turn in rounds for one in turn if one is not None]


def flat(batches: list[Any]) -> list[int]:
    return [number for batch in batches for number in (batch if isinstance(batch, list) else [batch])]


STREAMS = {
    "n": st.integers(0, 60),
    "batch_size": st.none() | st.integers(1, 9),
    "world_size": st.integers(1, 4),
    "shuffle": st.booleans(),
    "remainder": st.sampled_from(["keep", "drop_last", "even"]),
    "seed": st.integers(0, 3),
    "epoch": st.integers(0, 3),
}


def ranks(
    n: int, batch_size: int | None, world_size: int, shuffle: bool, remainder: str, seed: int, epoch: int
) -> list[Stream]:
    flags = {remainder: True} if remainder != "keep" else {}
    found = [
        numbers(
            n, batch_size=batch_size, shuffle=shuffle, seed=seed, rank=rank, world_size=world_size, **flags
        )
        for rank in range(world_size)
    ]
    for one in found:
        one.set_epoch(epoch)
    return found


@given(st.fixed_dictionaries(STREAMS), st.integers(1, 4))
def test_ranks_and_workers_share_all_samples(how: dict[str, Any], workers: int) -> None:
    everything = []
    for stream in ranks(**how):
        whole = given_by(iter(stream))
        assert len(whole) == len(stream)
        copies = [copy.deepcopy(stream) for _ in range(workers)]
        assert in_turn([given_by(one.shard(n, workers)) for n, one in enumerate(copies)]) == whole
        everything.append(whole)
    n, size, world = how["n"], how["batch_size"], how["world_size"]
    seen = sorted(flat([one for whole in everything for one in whole]))
    if how["remainder"] == "keep":
        assert seen == list(range(n))
    elif how["remainder"] == "drop_last":
        assert len(seen) == len(set(seen)) > n - world * (size or 1)
        assert {len(batch) for whole in everything for batch in whole} <= {size} if size else True
    else:
        assert set(seen) == set(range(n))
        assert len(seen) - n < world
    if how["remainder"] != "keep":
        assert len({len(whole) for whole in everything}) == 1


@given(st.fixed_dictionaries(STREAMS), st.integers(1, 3), st.data())
def test_a_stream_goes_on_where_it_was_left(how: dict[str, Any], workers: int, data: st.DataObject) -> None:
    how["epoch"] += 1
    for rank, stream in enumerate(ranks(**how)):
        for worker in range(workers):
            whole = given_by(copy.deepcopy(stream).shard(worker, workers))
            used = data.draw(st.integers(0, len(whole)))
            running, first = copy.deepcopy(stream), []
            for one in itertools.islice(running.shard(worker, workers), used):
                first.append(np.asarray(one["number"]).tolist())
            state = json.loads(json.dumps(running.state_dict()))
            later = ranks(**how | {"epoch": 0})[rank]
            later.load_state_dict(state)
            assert later.state_dict() == state
            later.set_epoch(how["epoch"])  # a loop over epochs says so again; the place is kept
            assert first + given_by(later.shard(worker, workers)) == whole
            assert given_by(later.shard(worker, workers)) == whole  # the next time, from the start
            later.set_epoch(0)
            assert given_by(later.shard(worker, workers)) == given_by(
                ranks(**how | {"epoch": 0})[rank].shard(worker, workers)
            )


@given(st.fixed_dictionaries(STREAMS), st.integers(1, 4), st.data())
def test_what_was_used_may_be_resumed_with_any_workers(
    how: dict[str, Any], workers: int, data: st.DataObject
) -> None:
    for stream in ranks(**how):
        whole = given_by(iter(stream))
        used = data.draw(st.integers(0, len(whole)))
        stream.load_state_dict(json.loads(json.dumps(stream.state_after(used))))
        copies = [copy.deepcopy(stream) for _ in range(workers)]
        assert in_turn([given_by(one.shard(n, workers)) for n, one in enumerate(copies)]) == whole[used:]


def test_states_of_something_else_are_refused(small: Run) -> None:
    release = small.release

    def stream(split: str = "train", **options: Any) -> TorchStream:
        found = release.sequences(split, iterable=True, batch_size=options.pop("batch_size", 4), **options)
        assert isinstance(found, TorchStream)
        return found

    state = stream().state_dict()
    stream().load_state_dict(state)
    for name, other in {
        "split": stream("test"), "seed": stream(seed=1), "batch_size": stream(batch_size=5),
        "max_history": stream(max_history=9), "level": stream(level="item"), "shuffle": stream(shuffle=True),
        "world_size": stream(world_size=2), "features": stream(features=("time",)),
    }.items():  # fmt: skip
        with pytest.raises(RecipeError, match=rf"^state of a stream: {name} is .* there and .* here\. Open"):
            other.load_state_dict(state)
    with pytest.raises(RecipeError, match="fingerprint is 'x' there"):
        stream().load_state_dict(state | {"fingerprint": "x"})
    with pytest.raises(RecipeError, match="format is None there"):
        stream().load_state_dict({})
    with pytest.raises(RecipeError, match=r"expected numbers from 0, .*damaged"):
        stream().load_state_dict(state | {"step": "3"})
    of_worker = stream()
    of_worker.load_state_dict(state | {"worker": 1, "workers": 2})
    with pytest.raises(
        RecipeError, match=r"worker 1 of 2 saved it, worker 0 of 1 loads it. Use as many workers"
    ):
        next(iter(of_worker))


def test_options_that_cannot_be_are_one_line(small: Run) -> None:
    release = small.release
    for options, said in [
        ({"level": "code"}, "level: expected sid, item; got 'code'"),
        ({"padding": "both"}, "padding: expected left, right; got 'both'"),
        ({"expansion": "all"}, "expansion: expected prefix, last; got 'all'"),
        ({"targets": "two"}, "targets: expected one, all; got 'two'"),
        ({"features": ["time", "price"]}, "features: expected event_type, value, time, .*; got 'price'"),
        ({"max_history": 0}, "max_history: expected 1 or more, got 0"),
        ({"iterable": True, "batch_size": 0}, "batch_size: expected 1 or more, or None .*; got 0"),
        ({"iterable": True, "rank": 2, "world_size": 2}, "rank: expected 0 to world_size - 1 = 1, got 2"),
        ({"iterable": True, "seed": -1}, "seed: expected 0 or more, got -1"),
        ({"iterable": True, "drop_last": True, "even": True}, "drop_last, even: expected one of them"),
        ({"shuffle": True}, "sequences: batch_size, shuffle, .* are for iterable=True"),
    ]:
        with pytest.raises(RecipeError, match=f"^{said}"):
            release.sequences("train", **options)
    with pytest.raises(RecipeError, match=r"features: expected .*; got 't'"):
        release.samples("train", features="time")
    stream = release.samples("train").stream()
    with pytest.raises(RecipeError, match="epoch: expected 0 or more, got -1"):
        stream.set_epoch(-1)
    with pytest.raises(RecipeError, match="batches: expected 0 to"):
        stream.state_after(len(stream) + 1)


# Streams in a DataLoader


def loader(stream: TorchStream, workers: int, **options: Any) -> DataLoader:
    how = {"multiprocessing_context": "fork"} if workers else {}
    return DataLoader(stream, batch_size=None, num_workers=workers, **how, **options)


def shown(batches: Any) -> list[list[int]]:
    return [batch["history"].tolist() for batch in batches]


def test_two_workers_give_what_none_do_and_go_on(odd: Path) -> None:
    def stream() -> TorchStream:
        return TorchStream(odd_samples(odd).stream(batch_size=8, shuffle=True, seed=3))

    whole = shown(loader(stream(), 0))
    assert len(whole) == len(stream()) == len(loader(stream(), 0)) > 5
    kept = stream()
    stays = loader(kept, 2, persistent_workers=True)
    assert shown(stays) == whole
    kept.set_epoch(1)
    second = shown(stays)
    fresh = stream()
    fresh.set_epoch(1)
    assert second == shown(loader(fresh, 0)) != whole
    resumed = stream()
    resumed.load_state_dict(fresh.state_after(3))
    assert shown(loader(resumed, 2)) == second[3:]
    assert shown(loader(resumed, 2)) == second  # new workers, but a state is for one iteration
    resumed.load_state_dict(fresh.state_after(4))
    assert shown(loader(resumed, 2)) == second[4:]


class Kept(TorchStream):
    """What a stateful loader does: each batch comes with the state of its worker, and workers load theirs."""

    def __init__(self, stream: Stream, states: dict[int, dict[str, Any]]) -> None:
        super().__init__(stream)
        self.states = states

    def __iter__(self) -> Iterator[dict[str, Any]]:
        number = get_worker_info().id
        if number in self.states:
            self.load_state_dict(self.states[number])
        return ({**batch, "state": (number, self.state_dict())} for batch in super().__iter__())


def test_workers_go_on_from_their_own_states(odd: Path) -> None:
    def stream() -> Stream:
        return odd_samples(odd).stream(batch_size=8, shuffle=True, seed=3)

    whole = list(loader(Kept(stream(), {}), 2))
    for used in (2, 5):
        states = dict(batch["state"] for batch in whole[:used])
        rest = loader(Kept(stream(), states), 2)
        following = [whole[n] for n in range(used, len(whole))]
        # A DataLoader begins with worker 0 again; a stateful one remembers whose turn it was.
        assert sorted(shown(rest)) == sorted(shown(following))


def test_single_samples_are_batched_by_the_data_loader(odd: Path) -> None:
    stream = TorchStream(odd_samples(odd).stream(shuffle=True))
    batches = list(DataLoader(stream, batch_size=7))
    samples = odd_samples(odd)
    order = Permutation(len(samples), seed=0)(np.arange(len(samples)))
    assert torch.cat([batch["history"] for batch in batches]).tolist() == [
        samples[n]["history"].tolist() for n in order
    ]


# The collator


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("bos", [None, 1])
@pytest.mark.parametrize("eos", [None, 2])
@pytest.mark.parametrize("source", ["left", "right"])
def test_a_collator_joins_and_pads(
    padding: str, bos: int | None, eos: int | None, source: str, odd: Path
) -> None:
    samples = odd_samples(odd, padding=source, targets="all")
    rows = range(0, len(samples), 3)
    data = TorchSamples(samples)
    begin, end = [token for token in (bos,) if token], [token for token in (eos,) if token]
    histories = [[t for t in samples[n]["history"].tolist() if t] for n in rows]
    targets = [[t for t in samples[n]["target"].tolist() if t] for n in rows]

    def check(
        model: str, labels: str, inputs: list[list[int]], learned: list[list[int]], apart: bool
    ) -> None:
        collator = Collator(model, bos=bos, eos=eos, padding=padding, labels=labels)
        found = collator(data.__getitems__(list(rows)))
        width = max(map(len, inputs))
        for n, ids in enumerate(inputs):
            fill = [0] * (width - len(ids))
            there = [1] * len(ids)
            sides = (fill + ids, fill + there) if padding == "left" else (ids + fill, there + fill)
            assert (found["input_ids"][n].tolist(), found["attention_mask"][n].tolist()) == sides
            if labels == "none":
                assert "labels" not in found
                continue
            blank = [-100] * ((max(map(len, learned)) if apart else width) - len(learned[n]))
            expected = blank + learned[n] if padding == "left" and not apart else learned[n] + blank
            assert found["labels"][n].tolist() == expected
        assert found["target_item"].tolist() == [samples[n]["target_item"] for n in rows]
        assert "history" not in found
        listed = collator([data[n] for n in rows])
        assert all(torch.equal(found[name], listed[name]) for name in found)
        mapping = collator(stacked(data.__getitems__(list(rows))))
        assert all(torch.equal(found[name], mapping[name]) for name in found)

    prompts = [begin + h for h in histories]
    rows_ = [p + t + end for p, t in zip(prompts, targets, strict=True)]
    asked = [t + end for t in targets]
    check("encoder-decoder", "target", [p + end for p in prompts], asked, True)
    check("encoder-decoder", "none", [p + end for p in prompts], [], True)
    check("decoder-only", "all", rows_, rows_, False)
    check("decoder-only", "none", prompts, [], False)
    learned = [[-100] * len(p) + t for p, t in zip(prompts, asked, strict=True)]
    check("decoder-only", "target", rows_, learned, False)


def test_a_collator_of_one_length_refuses_what_is_longer(odd: Path) -> None:
    data = TorchSamples(odd_samples(odd))
    batch = data.__getitems__(range(len(data)))
    found = Collator(length=30, padding="left")(batch)
    assert found["input_ids"].shape == (len(data), 30)
    with pytest.raises(DataError, match=r"length: a sample has \d+ tokens, expected at most 5"):
        Collator(length=5)(batch)
    for options in (
        {"model": "gpt"}, {"padding": "up"}, {"labels": "some"}, {"labels": "all"},
        {"pad": 2, "eos": 2}, {"pad": 0, "bos": 0},
    ):  # fmt: skip
        with pytest.raises(RecipeError, match=rf"^{next(iter(options))}: "):
            Collator(**options)


def test_samples_that_a_trainer_took_columns_from_are_refused(odd: Path) -> None:
    """transformers' Trainer takes out what is no argument of the model's forward."""
    data = TorchSamples(odd_samples(odd))
    for kept in ((), ("history",)):
        samples = [{name: data[n][name] for name in kept} for n in range(3)]
        got = kept[0] if kept else "none"
        with pytest.raises(DataError, match=rf"^collator: .* got {got}\. .*remove_unused_columns=False"):
            Collator()(samples)
