"""Releases of a few rows, published without any stage, for tests of what warehouses do with releases."""

import ctypes
import itertools
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sid_warehouse import files, releases

NUMBERS = itertools.count()


def tiny_tables(mark: str) -> dict[str, pa.Table]:
    index = pa.array([0, 1], pa.int32())
    return {
        "items": pa.table({"item_index": index, "item_id": ["x", "y"], "text": [mark, f"{mark}'s"]}),
        "sids": pa.table(
            {"item_index": index, "sid_key": [f"{mark}-0", f"{mark}-1"], "text": ["<a>", "<b>"]}
        ),
        "sequences": pa.table({"user_index": index, "items": [[0, 1], [1, 0]], "ts": [[1, 2], [3, 4]]}),
        "train": pa.table({"user_index": index, "start": [0, 0], "end": [1, 1], "target": [1, 0]}),
        "embeddings_text": pa.table(
            {"item_index": index, "vector": pa.array([[1, 0], [0, 1]], pa.list_(pa.float32(), 2))}
        ),
    }


def tiny_release(
    warehouse: Path, dataset: str = "d", mark: str | None = None, *, base: int | None = None, **changed: Any
) -> dict[str, Any]:
    """Publish a release and give its record.

    mark: what its rows and its fingerprint are made of; a new one each time. base: makes it an append.
    changed: what its record says otherwise.
    """
    mark = mark or f"m{next(NUMBERS)}"
    tables = tiny_tables(mark)
    record: dict[str, Any] = {
        "fingerprint": mark,
        "rows": {name: len(table) for name, table in tables.items()},
        "embeddings": {"embeddings_text": {"dim": 2}},
        "stages": {
            "clean": {"key": f"clean-{mark}", "parents": {"ingest": "ingest-all"}, "params": {"k": 5}}
        },
    }
    if base:
        tables["delta_sids"] = tables["sids"].slice(1)
        record |= {"kind": "append", "base": {"version": base, "fingerprint": "?"}}
        record["rows"]["delta_sids"] = 1
    with files.writing(warehouse) as scratch:
        for name, table in tables.items():
            (scratch / name).mkdir()
            pq.write_table(table, scratch / name / "part-00000.parquet")
        files.write_json(scratch / "metrics.json", {"collisions": {"rate": 0.5}, "mark": mark})
        made = (path for path in scratch.rglob("*") if path.is_file())
        contents = {path.relative_to(scratch).as_posix(): path for path in made}
        return releases.publish(warehouse, dataset, contents, record | changed)


def give_up_root() -> None:
    """Make permission bits hold for root too: drop CAP_DAC_OVERRIDE before a command starts."""
    if os.geteuid() == 0:
        pr_capbset_drop, cap_dac_override = 24, 1
        assert ctypes.CDLL(None).prctl(pr_capbset_drop, cap_dac_override, 0, 0, 0) == 0


DEADLY = """
import os, signal, sys
from pathlib import Path
warehouse, calls, limit = Path(sys.argv[1]), 0, 0
def deadly(module, name):
    real = getattr(module, name)
    def wrapper(*args, **kwargs):
        global calls
        calls += 1
        if calls == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    setattr(module, name, wrapper)
"""
FORKING = """
for limit in map(int, sys.argv[2:]):
    if not (child := os.fork()):
        act()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(code, look())
"""


def killed_at(warehouse: Path, calls: Sequence[int], code: str) -> list[str]:
    """Run `act()` of some code once for each number, killed before the call of this number.

    Only calls of what the code has made `deadly` count. Gives exit code and `look()` after each.
    """
    command = [sys.executable, "-c", DEADLY + code + FORKING, str(warehouse), *map(str, calls)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
