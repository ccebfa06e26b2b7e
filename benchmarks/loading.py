"""What our own loader costs: samples/s beside a plain torch Dataset, and opening a release of 10M sequences.

python benchmarks/loading.py [--warehouse warehouse/data] [--ref movietweetings] [--rounds 7]
                             [--users 10000000] [--json FILE]

epoch  one epoch of train, batches of 256, shuffled, no workers: ours, and a Dataset over pandas rows of
       Python lists as research code has it. Both end in the same tensors, which is checked. Rounds alternate,
       so that what else the machine does meets all alike; figures are medians over rounds.
open   a release is made below benchmarks/.cache (5.7 GB, once): 10M sequences of 6 to 16 events, about 80M
       train samples, 1M items of four tokens. A process of its own opens it and takes the first shuffled
       batch; once with the files in the page cache, once after they were put out of it. Imports are timed
       apart. Memory is the peak of the whole process, torch and the mapped pages included.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
CACHE = HERE / ".cache"
BATCH, HISTORY, CHUNK = 256, 50, 65_536
ITEMS, LEVELS = 1_000_000, (256, 256, 256, 256)

# One epoch


def plain_dataset(release: Any) -> Any:
    """Give the Dataset that research repositories have: a pandas row, its Python lists, tensors of them."""
    import torch
    from torch.utils.data import Dataset

    tokens = release.table("sids")["token_ids"].to_pylist()
    sequences = release.table("sequences", ["items"])["items"].to_pylist()
    frame = release.table("train").to_pandas()
    frame["history"] = [
        sequences[user][start:end]
        for user, start, end in zip(frame["user_index"], frame["start"], frame["end"], strict=True)
    ]
    length = len(tokens[0])

    class Plain(Dataset[dict[str, Any]]):
        def __len__(self) -> int:
            return len(frame)

        def __getitem__(self, index: int) -> dict[str, Any]:
            row = frame.iloc[index]
            items = row["history"][-HISTORY:]
            history = [0] * length * (HISTORY - len(items))
            for item in items:
                history.extend(tokens[item])
            return {
                "user_index": int(row["user_index"]),
                "history": torch.tensor(history),
                "history_length": len(items),
                "target": torch.tensor(tokens[row["target"]]),
                "target_item": int(row["target"]),
            }

    return Plain()


def epoch(warehouse: str, ref: str, rounds: int) -> dict[str, Any]:
    import torch
    from torch.utils.data import DataLoader

    import sidmill
    from sid_warehouse.loading.collator import Collator

    torch.set_num_threads(1)
    release = sidmill.open(warehouse).release(ref)
    plain, ours = plain_dataset(release), release.sequences("train", max_history=HISTORY)
    stream = release.sequences("train", max_history=HISTORY, iterable=True, batch_size=BATCH, shuffle=True)
    collate = Collator(eos=release.vocabulary.eos)
    check(DataLoader(plain, BATCH), DataLoader(ours, BATCH))
    check(DataLoader(plain, BATCH, collate_fn=collate), DataLoader(ours, BATCH, collate_fn=collate))
    ways: dict[str, Callable[[], Any]] = {
        "plain, torch's collation": lambda: DataLoader(plain, BATCH, shuffle=True),
        "map-style, torch's collation": lambda: DataLoader(ours, BATCH, shuffle=True),
        "iterable": lambda: DataLoader(stream, None),
        "plain, Collator": lambda: DataLoader(plain, BATCH, shuffle=True, collate_fn=collate),
        "map-style, Collator": lambda: DataLoader(ours, BATCH, shuffle=True, collate_fn=collate),
        "iterable, Collator": lambda: DataLoader(stream, None, collate_fn=collate),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        stream.set_epoch(number)
        for name, way in ways.items():
            rates[name].append(rate(way()))
    found = {}
    for name, measured in rates.items():
        base = rates["plain, Collator" if "Collator" in name else "plain, torch's collation"]
        ratios = [mine / other for mine, other in zip(measured, base, strict=True)]
        found[name] = {
            "samples_per_s": round(statistics.median(measured)),
            "times_plain": round(statistics.median(ratios), 1),
            "least_times": round(min(ratios), 1),
        }
    return {"samples": len(ours), "rounds": rounds, **found}


def check(expected: Any, found: Any) -> None:
    """Compare all batches of two loaders."""
    for one, other in zip(expected, found, strict=True):
        assert {name: values.tolist() for name, values in one.items()} == {
            name: values.tolist() for name, values in other.items()
        }


def rate(loader: Any) -> float:
    start = time.perf_counter()
    samples = sum(len(batch["user_index"]) for batch in loader)
    return float(samples / (time.perf_counter() - start))


# Opening what is big


def make_release(folder: Path, users: int) -> None:
    """Write what the loader reads of a release, without the chain that makes such."""
    from sid_schemas.tables import SEQUENCES, TRAIN
    from sid_tokenizers import Vocabulary

    draw = np.random.default_rng(0)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "sids").mkdir(parents=True)
    lengths = [draw.integers(6, 17, size) for size in _sizes(users)]
    _write(partial, SEQUENCES, _sequences(draw, lengths))
    samples = _write(partial, TRAIN, _even(_train(draw, lengths)))
    vocabulary = Vocabulary(LEVELS)
    vocabulary.save(partial / "vocabulary.json")
    tokens = vocabulary.token_ids(draw.integers(0, 256, (ITEMS, len(LEVELS)))).astype(np.int32)
    column = pa.ListArray.from_arrays(
        pa.array(np.arange(ITEMS + 1, dtype=np.int32) * len(LEVELS)), pa.array(tokens.reshape(-1))
    )
    path = partial / "sids" / "part-00000.parquet"
    pq.write_table(pa.table({"token_ids": column}), path, row_group_size=131_072)
    rows = {"sequences": users, "train": samples, "sids": ITEMS, "items": ITEMS}
    record = {"format": 1, "dataset": "big", "version": 1, "fingerprint": f"made-{users}", "rows": rows}
    (partial / "release.json").write_text(json.dumps(record | {"files": {}, "recipe": {}, "stages": {}}))
    partial.rename(folder)


def _sizes(rows: int) -> list[int]:
    return [min(CHUNK, rows - first) for first in range(0, rows, CHUNK)]


def _write(folder: Path, table: Any, batches: Iterator[pa.RecordBatch]) -> int:
    rows = 0
    with pa.ipc.new_file(folder / f"{table.name}.arrow", table.arrow()) as writer:
        for batch in batches:
            writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=table.arrow()))
            rows += batch.num_rows
    return rows


def _sequences(draw: np.random.Generator, lengths: list[Any]) -> Iterator[pa.RecordBatch]:
    first = 0
    for own in lengths:
        edges = pa.array(np.concatenate([[0], np.cumsum(own)]).astype(np.int32))
        n = int(own.sum())
        types = pa.StringArray.from_buffers(
            n, pa.py_buffer(np.arange(n + 1, dtype=np.int32) * 6), pa.py_buffer(b"rating" * n)
        )
        times = 1_500_000_000_000 + np.arange(n) * 1_000
        columns = (draw.integers(0, ITEMS, n, dtype=np.int32), times, types, draw.random(n))
        users = np.arange(first, first + len(own), dtype=np.int32)
        lists = [pa.ListArray.from_arrays(edges, pa.array(values)) for values in columns]
        yield pa.RecordBatch.from_arrays([pa.array(users), *lists], list("abcde"))
        first += len(own)


def _train(draw: np.random.Generator, lengths: list[Any]) -> Iterator[pa.RecordBatch]:
    """Yield every prefix before the last two events of a user, as leave-one-out has them."""
    first = 0
    for own in lengths:
        counts = own - 3
        n = int(counts.sum())
        ends = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts) + 1
        users = np.repeat(np.arange(first, first + len(own), dtype=np.int32), counts)
        target = draw.integers(0, ITEMS, n, dtype=np.int32)
        yield pa.record_batch(
            {
                "user_index": users,
                "start": np.zeros(n, dtype=np.int32),
                "end": ends.astype(np.int32),
                "target": target,
                "target_ts": np.full(n, 1_600_000_000_000),
                "n_targets": np.ones(n, dtype=np.int32),
            }
        )
        first += len(own)


def _even(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Cut batches anew, into such of CHUNK rows, as write_ipc does."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        table = pa.Table.from_batches(held)
        whole = len(table) // CHUNK * CHUNK
        for first in range(0, whole, CHUNK):
            yield table.slice(first, CHUNK).combine_chunks().to_batches()[0]
        held = table.slice(whole).to_batches()
    if held:
        yield pa.Table.from_batches(held).combine_chunks().to_batches()[0]


def opened(folder: str) -> dict[str, float]:
    """Open the big release and take a batch; in a process of its own."""
    start = time.perf_counter()
    import torch
    from torch.utils.data import DataLoader

    import sid_warehouse.torch_samples  # noqa: F401
    from sid_warehouse import Release

    torch.set_num_threads(1)
    found = {"imports_s": time.perf_counter() - start, "imports_mb": memory("VmHWM")}
    start = time.perf_counter()
    release = Release(folder)
    stream = release.sequences("train", max_history=HISTORY, iterable=True, batch_size=BATCH, shuffle=True)
    found["open_s"] = time.perf_counter() - start
    batches = iter(DataLoader(stream, batch_size=None))
    assert next(batches)["history"].shape == (BATCH, HISTORY * len(LEVELS))
    found["first_batch_s"] = time.perf_counter() - start
    found["peak_mb"] = memory("VmHWM")
    start = time.perf_counter()
    for _ in range(500):
        next(batches)
    found["samples_per_s"] = 500 * BATCH / (time.perf_counter() - start)
    found["own_mb_after"] = memory("RssAnon")
    return found


def memory(name: str) -> float:
    """Give a line of /proc/self/status in MB; VmHWM is the peak, mapped files included."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def forget(folder: Path) -> None:
    """Put the files of a folder out of the page cache."""
    for path in (path for path in folder.rglob("*") if path.is_file()):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def opening(users: int, rounds: int) -> dict[str, Any]:
    folder = CACHE / f"loading-{users}"
    if not folder.exists():
        make_release(folder, users)
    record = json.loads((folder / "release.json").read_text())
    found: dict[str, Any] = {"rows": record["rows"]}
    for state in ("warm", "cold"):
        runs = []
        for _ in range(rounds):
            if state == "cold":
                forget(folder)
            command = [sys.executable, __file__, "--opened", str(folder)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
        found[state] = {name: round(statistics.median(run[name] for run in runs), 3) for name in runs[0]}
        found[state]["worst_first_batch_s"] = round(max(run["first_batch_s"] for run in runs), 3)
        found[state]["worst_peak_mb"] = round(max(run["peak_mb"] for run in runs), 1)
    return found


def show(found: dict[str, Any]) -> None:
    """Print what was found as the tables of docs/loading.md."""
    if "epoch" in found:
        print(f"{found['epoch'].pop('samples'):,} samples, {found['epoch'].pop('rounds')} rounds\n")
        print("| one epoch, batch 256 | samples/s | times the plain Dataset | least |\n|---|---|---|---|")
        for name, row in found["epoch"].items():
            print(f"| {name} | {row['samples_per_s']:,} | {row['times_plain']} | {row['least_times']} |")
    if "open" in found:
        rows = found["open"]["rows"]
        print(
            f"\n{rows['sequences']:,} sequences, {rows['train']:,} train samples, {rows['items']:,} items\n"
        )
        print("| | warm | cold |\n|---|---|---|")
        for name, value in found["open"]["warm"].items():
            print(f"| {name} | {value:,} | {found['open']['cold'][name]:,} |")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--warehouse", default=str(HERE.parent / "warehouse" / "data"))
    parser.add_argument("--ref", default="movietweetings")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--users", type=int, default=10_000_000)
    parser.add_argument("--only", choices=["epoch", "open"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--opened", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.opened:
        print(json.dumps(opened(given.opened)))
        return
    found: dict[str, Any] = {}
    if given.only != "open":
        found["epoch"] = epoch(given.warehouse, given.ref, given.rounds)
    if given.only != "epoch":
        found["open"] = opening(given.users, given.rounds)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    show(found)


if __name__ == "__main__":
    main()
