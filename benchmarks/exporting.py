"""What an export costs in seconds and memory, and that memory does not grow with events.

python benchmarks/exporting.py [--formats lc-rec,grid] [--users 20000] [--events 20,80] [--json FILE]

The same made-up users and items with few and with many events a user, each a release of its own below
benchmarks/.cache (made once). Every export is a process of its own; its memory is the peak beyond what the
process has once the release is open. Folders are removed again.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from warehouse import CACHE, RECIPE, timed, write_dump

ITEMS = 20_000
FORMATS = "lc-rec,grid,minionerec,openonerec,recbole,hstu,openp5,unigrec,hf,merlin,events,ngcf"
SETTINGS = {"hstu": {"ratings": "none"}}
BUILD = """
[clean]
k_core = 5
dedupe = "all"
[[embed]]
model = "hashing"
template = "{title}"
dim = 64
[tokenize]
levels = [256, 256, 256]
[publish]
catalog = "views"
"""


def built(users: int, events: int) -> Path:
    """Give the warehouse with a release of so many users with about so many events each."""
    folder = CACHE / f"exporting-{users}-{events}"
    if not (folder / "warehouse" / "releases").is_dir():
        from sid_flows.plan import make_plan

        write_dump(folder / "base", range(ITEMS), users, users * events, known=ITEMS, day=0, seed=0)
        (folder / "recipe.toml").write_text(RECIPE.format(folder=folder / "base") + BUILD)
        timed(make_plan(folder / "recipe.toml", folder / "warehouse"))
    return folder / "warehouse"


def exported(warehouse: Path, name: str) -> dict[str, float]:
    """Export in this process; give seconds, peak MB beyond the open release, and MB written."""
    import sidmill
    from sid_pipelines.trainers import TRAINERS
    from sid_pipelines.trainers.export import export

    to = warehouse.parent / "to"
    shutil.rmtree(to, ignore_errors=True)
    release = sidmill.open(warehouse).release("bench")
    before, started = _peak_mb(), time.monotonic()
    made = export(release, TRAINERS[name], to, SETTINGS.get(name, {}))
    seconds = time.monotonic() - started
    shutil.rmtree(to)
    return {
        "events": release.record["rows"]["interactions"],
        "seconds": seconds,
        "mb": _peak_mb() - before,
        "written_mb": sum(one.bytes for one in made) / 2**20,
    }


def _peak_mb() -> float:
    """Give the peak of this process alone; getrusage begins with that of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--formats", default=FORMATS)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--events", default="20,80", help="events a user, of each release")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(exported(Path(given.child[0]), given.child[1])))
        return
    sizes = [int(one) for one in given.events.split(",")]
    places = [built(given.users, size) for size in sizes]
    found: dict[str, list[dict[str, Any]]] = {}
    print("| format |" + "".join(f" s, {n} events a user | MB | written MB |" for n in sizes))
    print("|---|" + "---|" * 3 * len(sizes))
    for name in given.formats.split(","):
        found[name] = [_child(place, name) for place in places]
        cells = [f"{one['seconds']:.1f} | {one['mb']:.0f} | {one['written_mb']:.0f}" for one in found[name]]
        print(f"| `{name}` | {' | '.join(cells)} |", flush=True)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


def _child(warehouse: Path, name: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", str(warehouse), name]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, Any] = json.loads(out.splitlines()[-1])
    return result


if __name__ == "__main__":
    main()
