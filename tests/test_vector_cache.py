"""The vector cache: what was added comes back, damage is seen and mended, processes do not clash."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sid_pipelines.vector_cache import Filled, Keys, Rows, VectorCache, as_keys, content_key, fill
from sid_schemas import DataError, WarehouseError
from sid_tokenizers.base import Vectors

IDENTITY = {"model": "test", "precision": "fp32"}
DIM = 5


def keys_of(numbers: Iterator[int] | range | list[int]) -> Keys:
    return as_keys(content_key(str(number).encode()) for number in numbers)


def vectors_of(numbers: range | list[int] | Rows, dim: int = DIM) -> Vectors:
    return (np.asarray(numbers, dtype=np.float32)[:, None] + np.arange(dim) / 10).astype(np.float32)


def encoder(seen: list[int], numbers: list[int], block: int = 3):  # type: ignore[no-untyped-def]
    def encode(missing: Rows) -> Iterator[tuple[Rows, Vectors]]:
        for start in range(0, len(missing), block):
            rows = missing[start : start + block][::-1]  # any order
            seen.extend(numbers[row] for row in rows)
            yield rows, vectors_of([numbers[row] for row in rows])

    return encode


def nothing(done: int, total: int) -> None:
    pass


def test_vectors_come_back_bit_for_bit_in_any_order(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path, IDENTITY)
    cache.add(keys_of(range(10)), vectors_of(range(10)))
    cache.add(keys_of(range(10, 14)), vectors_of(range(10, 14)))
    again = VectorCache(tmp_path, IDENTITY)
    wanted = [13, 0, 7, 7, 2]
    assert again.rows(keys_of(wanted)).tobytes() == vectors_of(wanted).tobytes()
    assert again.holds(keys_of([3, 99])).tolist() == [True, False]
    assert cache.rows(keys_of([])).shape == (0, DIM)
    with pytest.raises(KeyError, match="no vector for key"):
        again.rows(keys_of([1, 99]))


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(0, 60), max_size=12), max_size=6), st.lists(st.integers(0, 60)))
def test_a_cache_is_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, added: list[list[int]], asked: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    cache = VectorCache(folder, IDENTITY)
    for some in added:
        cache.add(keys_of(some), vectors_of(some))
    held = {number for some in added for number in some}
    for one in (cache, VectorCache(folder, IDENTITY)):
        assert one.holds(keys_of(asked)).tolist() == [number in held for number in asked]
        there = [number for number in asked if number in held]
        if there:
            assert one.rows(keys_of(there)).tobytes() == vectors_of(there).tobytes()


def test_keys_that_share_a_half_are_told_apart(tmp_path: Path) -> None:
    digests = [b"A" * 8 + bytes([n]) * 8 for n in range(9)] + [bytes([n]) * 8 + b"A" * 8 for n in range(9)]
    cache = VectorCache(tmp_path, IDENTITY)
    cache.add(as_keys(digests[::2]), vectors_of(range(0, 18, 2)))
    assert cache.holds(as_keys(digests)).tolist() == [n % 2 == 0 for n in range(18)]
    for n in range(0, 18, 2):
        assert np.array_equal(cache.rows(as_keys([digests[n]])), vectors_of([n]))


def test_slices_of_keys_are_read_from_their_offset(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path, IDENTITY)
    cache.add(keys_of(range(10)).slice(4, 3), vectors_of([4, 5, 6]))
    assert cache.holds(keys_of(range(10))).nonzero()[0].tolist() == [4, 5, 6]


def test_another_identity_is_another_cache(tmp_path: Path) -> None:
    VectorCache(tmp_path, IDENTITY).add(keys_of([1]), vectors_of([1]))
    other = VectorCache(tmp_path, {**IDENTITY, "precision": "bf16"})
    assert not other.holds(keys_of([1])).any()
    assert len(list(tmp_path.glob("*/identity.json"))) == 2


def shard_of(cache: VectorCache) -> Path:
    [path] = cache.folder.glob("*.safetensors")
    return path


@pytest.mark.parametrize("damage", ["cut", "empty", "vector", "key", "header", "checksum", "longer"])
def test_a_damaged_shard_is_set_aside_and_made_anew(tmp_path: Path, damage: str) -> None:
    cache = VectorCache(tmp_path, IDENTITY)
    cache.add(keys_of(range(20)), vectors_of(range(20)))
    path = shard_of(cache)
    whole = bytearray(path.read_bytes())
    at = {"vector": len(whole) - 9, "header": 20, "checksum": whole.index(b'"vectors":"') + 15}
    at["key"] = whole.index(keys_of([7])[0].as_py()) + 2
    if damage == "cut":
        del whole[-30:]
    elif damage == "empty":
        whole.clear()
    elif damage == "longer":
        whole += b"\0" * 16
    else:
        whole[at[damage]] ^= 1
    path.write_bytes(whole)
    with pytest.warns(UserWarning, match="damaged .*made anew"):
        held = VectorCache(tmp_path, IDENTITY).holds(keys_of(range(20)))
    assert not held.any()
    assert path.with_name(f"{path.name}.damaged").exists()
    seen: list[int] = []
    again = VectorCache(tmp_path, IDENTITY)
    assert fill(again, keys_of(range(20)), encoder(seen, list(range(20))), nothing) == Filled(20, 0, 20)
    assert np.array_equal(VectorCache(tmp_path, IDENTITY).rows(keys_of(range(20))), vectors_of(range(20)))


def test_what_a_damaged_shard_held_is_found_in_another(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path, IDENTITY)
    cache.add(keys_of([1, 2]), vectors_of([1, 2]))
    path = shard_of(cache)
    cache.add(keys_of([2, 3]), vectors_of([2, 3]))
    path.write_bytes(path.read_bytes()[:-1] + b"\x77")
    with pytest.warns(UserWarning, match="damaged"):
        held = VectorCache(tmp_path, IDENTITY).holds(keys_of([1, 2, 3]))
    assert held.tolist() == [False, True, True]


def test_each_key_is_embedded_once_and_nothing_twice(tmp_path: Path) -> None:
    numbers = [5, 3, 5, 8, 3, 3, 1]
    seen: list[int] = []
    steps: list[tuple[int, int]] = []
    cache = VectorCache(tmp_path, IDENTITY)
    filled = fill(cache, keys_of(numbers), encoder(seen, numbers), lambda *step: steps.append(step))
    assert filled == Filled(distinct=4, found=0, embedded=4)
    assert sorted(seen) == [1, 3, 5, 8]
    assert steps[0] == (0, 4)
    assert steps[-1] == (4, 4)
    assert np.array_equal(cache.rows(keys_of(numbers)), vectors_of(numbers))
    more = [*numbers, 2]
    again = VectorCache(tmp_path, IDENTITY)
    assert fill(again, keys_of(more), encoder(seen, more), nothing) == Filled(5, 4, 1)
    assert sorted(seen) == [1, 2, 3, 5, 8]


def test_shards_are_committed_as_vectors_come(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path, IDENTITY)
    numbers = list(range(20))

    def breaks(missing: Rows) -> Iterator[tuple[Rows, Vectors]]:
        for count, block in enumerate(encoder([], numbers, 2)(missing)):
            if count == 7:
                raise RuntimeError("the encoder broke")
            yield block

    with pytest.raises(RuntimeError, match="the encoder broke"):
        fill(cache, keys_of(numbers), breaks, nothing, shard=6)
    assert len(list(cache.folder.glob("*.safetensors"))) == 3  # two of 6, and what there was
    seen: list[int] = []
    again = VectorCache(tmp_path, IDENTITY)
    assert fill(again, keys_of(numbers), encoder(seen, numbers), nothing) == Filled(20, 14, 6)
    assert seen == [16, 15, 14, 19, 18, 17]
    assert np.array_equal(again.rows(keys_of(numbers)), vectors_of(numbers))


def test_no_vector_with_nan_is_kept(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path, IDENTITY)

    def encode(missing: Rows) -> Iterator[tuple[Rows, Vectors]]:
        yield missing[:2], vectors_of(missing[:2])
        bad = vectors_of(missing[2:])
        bad[1, 1] = np.nan
        yield missing[2:], bad

    with pytest.raises(DataError, match="gave NaN or infinity for item 3; expected numbers"):
        fill(cache, keys_of(range(6)), encode, nothing, named="item {}".format)
    assert cache.holds(keys_of(range(6))).tolist() == [True, True, False, False, False, False]


def test_what_an_encoder_leaves_out_is_counted_and_asked_for_again(tmp_path: Path) -> None:
    asked: list[list[int]] = []

    def encode(missing: Rows) -> Iterator[tuple[Rows, Vectors]]:
        asked.append(missing.tolist())
        yield missing[1:], vectors_of(missing[1:])

    cache = VectorCache(tmp_path, IDENTITY)
    filled = fill(cache, keys_of(range(3)), encode, nothing)
    assert (filled.embedded, filled.skipped) == (2, 1)
    assert cache.holds(keys_of(range(3))).tolist() == [False, True, True]
    assert fill(cache, keys_of(range(3)), encode, nothing).skipped == 1
    assert asked == [[0, 1, 2], [0]]


def adds(folder: Path, first: int) -> None:
    cache = VectorCache(folder, IDENTITY)
    for start in range(first, first + 30, 3):
        cache.add(keys_of(range(start, start + 3)), vectors_of(range(start, start + 3)))


def test_processes_add_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=adds, args=(tmp_path, first)) for first in (0, 15, 15)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert [one.exitcode for one in both] == [0, 0, 0]
    cache = VectorCache(tmp_path, IDENTITY)
    assert np.array_equal(cache.rows(keys_of(range(45))), vectors_of(range(45)))
    assert not list(cache.folder.glob(".tmp-*"))


KILLED = """
import sys, time
sys.path.insert(0, {tests!r})
from test_vector_cache import *
cache = VectorCache(Path({folder!r}), IDENTITY)
def slow(missing):
    for count, block in enumerate(encoder([], list(range(40)), 4)(missing)):
        if count == 5:
            print("now", flush=True)
            time.sleep(60)
        yield block
fill(cache, keys_of(range(40)), slow, nothing, shard=8)
"""


def test_a_run_that_is_killed_goes_on_where_it_stopped(tmp_path: Path) -> None:
    code = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        os.kill(process.pid, signal.SIGKILL)
    cache = VectorCache(tmp_path, IDENTITY)
    leftover = cache.folder / f".tmp-{os.uname().nodename}-{process.pid}-dead"
    leftover.mkdir()
    seen: list[int] = []
    numbers = list(range(40))
    again = VectorCache(tmp_path, IDENTITY)
    assert not leftover.exists()
    assert fill(again, keys_of(numbers), encoder(seen, numbers), nothing) == Filled(40, 16, 24)
    assert sorted(seen) == list(range(16, 40))
    assert np.array_equal(again.rows(keys_of(numbers)), vectors_of(numbers))


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the cache should be")
    with pytest.raises(WarehouseError, match="cannot be written"):
        VectorCache(tmp_path / "cache", IDENTITY)


def test_keys_of_another_kind_are_refused(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path, IDENTITY)
    for keys in (pa.array([b"123"], pa.binary(3)), pa.array([None], pa.binary(16))):
        with pytest.raises(ValueError, match="expected keys of 16 bytes"):
            cache.holds(keys)
    with pytest.raises(ValueError, match="one per key"):
        cache.add(keys_of([1]), vectors_of([1, 2]))


def test_time_commits_a_shard_where_an_encoder_is_slow(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path, IDENTITY)
    shards: list[int] = []

    def slow(missing: Rows) -> Iterator[tuple[Rows, Vectors]]:
        for block in encoder([], list(range(6)), 2)(missing):
            time.sleep(0.02)
            yield block
            shards.append(len(list(cache.folder.glob("*.safetensors"))))

    fill(cache, keys_of(range(6)), slow, nothing, seconds=0.01)
    assert shards == [1, 2, 3]


def test_a_shard_of_another_encoder_is_no_hit(tmp_path: Path) -> None:
    other, cache = VectorCache(tmp_path, {"model": "other"}), VectorCache(tmp_path, IDENTITY)
    other.add(keys_of(range(3)), vectors_of(np.arange(3)) + 9)
    cache.add(keys_of(range(3, 5)), vectors_of(np.arange(3, 5)))
    for shard in other.folder.glob("*.safetensors"):
        shutil.copy(shard, cache.folder)
    with pytest.warns(UserWarning, match="made by another encoder"):
        merged = VectorCache(tmp_path, IDENTITY)
    assert merged.holds(keys_of(range(5))).tolist() == [False, False, False, True, True]
