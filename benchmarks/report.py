"""What report.html costs: seconds, peak memory and bytes, of the example's release and of a fabricated one.

    .venv/bin/python benchmarks/report.py warehouse/data/releases/movietweetings/v1
    .venv/bin/python benchmarks/report.py --items 1000000 --events 20000000 --dim 384
    .venv/bin/python benchmarks/report.py RELEASE --shots docs/assets      # the screenshots of docs/report.md

A fabricated release has tables of that size, and the record and metrics of the example where they are wanted.
Each page is made in a process of its own. About a minute for a million items, half of it for fabricating.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

LEVELS = (256, 256, 256, 64)
GROUP = 131_072


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("release", nargs="?", type=Path, help="folder of a release")
    parser.add_argument("--items", type=int, default=0, help="fabricate a release of so many items")
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--like", type=Path, default=Path("warehouse/data/releases/movietweetings/v1"))
    parser.add_argument("--shots", type=Path, help="take screenshots of the release's page into this folder")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.once:
        print(json.dumps(measured(given.release)))
    elif given.items:
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            fabricate(Path(folder), given.like, given.items, given.events, given.dim)
            made = time.monotonic() - began
            print(f"{given.items:,} items, {given.events:,} events, fabricated in {made:.0f} s")
            print(json.dumps(apart(Path(folder))))
    elif given.shots:
        shots(given.release, given.shots)
    else:
        print(json.dumps(apart(given.release)))


def apart(release: Path) -> Any:
    command = [sys.executable, __file__, str(release), "--once"]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def measured(release: Path) -> dict[str, Any]:
    from sid_flows.report import render
    from sid_flows.report.library import library
    from sid_warehouse.diff import Side

    record = json.loads((release / "release.json").read_text())
    metrics = json.loads((release / "metrics.json").read_text())
    there = [name for name in record["rows"] if (release / name).is_dir()]
    side = Side(record, metrics, dict.fromkeys(there, release), {})
    before = peak()
    began = time.monotonic()
    packed = len(library().packed)
    packing = time.monotonic() - began
    page = render(side)
    return {
        "seconds": round(time.monotonic() - began, 2),
        "of which packing plotly.js": round(packing, 2),
        "bytes": len(page.encode()),
        "of which plotly.js": packed,
        "peak MB": peak(),
        "MB before": before,
    }


def peak() -> int:
    """Give the most memory that this process has held."""
    [line] = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM")]
    return int(line.split()[1]) // 1024


def fabricate(folder: Path, like: Path, items: int, events: int, dim: int) -> None:
    """Write tables of these sizes, with the record and the metrics of another release."""
    record, metrics = (json.loads((like / name).read_text()) for name in ("release.json", "metrics.json"))
    codes = ", ".join(f"(hash(i * 31 + {n}) % {k})::int" for n, k in enumerate(LEVELS))
    with duckdb.connect() as connection:
        tables = {
            "items": f"""select i::int as item_index, 'id' || i as item_id, 'Title of item ' || i as title,
                (1e6 / (1 + hash(i) % {items}))::int as popularity_train from range({items}) t(i)""",
            "sids": f"""select i::int as item_index, 'id' || i as item_id, sid as codes, sid,
                array_to_string(sid, '-') as sid_key,
                list_transform(sid, lambda c, k: '<' || chr(96 + k::int) || '_' || c || '>') as tokens
                from (select i, [{codes}] as sid from range({items}) t(i))""",
            "interactions": f"""select (hash(i) % {items})::int as item_index,
                1300000000000 + (hash(i * 7) % 100000000000)::bigint as ts,
                case when hash(i * 3) % 10 < 8 then 'train' when hash(i * 3) % 10 = 8 then 'valid'
                else 'test' end as split from range({events}) t(i)""",
        }
        for name, query in tables.items():
            (folder / name).mkdir()
            target = folder / name / "part-00000.parquet"
            connection.execute(f"copy ({query}) to '{target}' (compression zstd, row_group_size {GROUP})")
        (folder / "sid_to_items").mkdir()
        connection.execute(
            f"copy (select sid_key, count(*)::int as n from '{folder}/sids/*.parquet' group by sid_key) "
            f"to '{folder}/sid_to_items/part-00000.parquet'"
        )
    vectors(folder / "embeddings_text", items, dim)
    metrics["collisions"]["levels"] = [
        {**metrics["collisions"]["levels"][0], "level": n, "codes": k, "used": k, "dead": 0}
        for n, k in enumerate(LEVELS, start=1)
    ]
    record["rows"] |= {"items": items, "interactions": events}
    for name, value in (("release.json", record), ("metrics.json", metrics)):
        (folder / name).write_text(json.dumps(value))


def vectors(folder: Path, items: int, dim: int) -> None:
    folder.mkdir()
    draw = np.random.default_rng(0)
    kind = pa.list_(pa.float32(), dim)
    schema = pa.schema([("item_index", pa.int32()), ("vector", kind), ("present", pa.bool_())])
    options = {
        "compression": "zstd",
        "use_byte_stream_split": ["vector.list.element"],
        "use_dictionary": False,
    }
    with pq.ParquetWriter(folder / "part-00000.parquet", schema, **options) as writer:
        for start in range(0, items, GROUP):
            n = min(GROUP, items - start)
            block = draw.standard_normal((n, dim), dtype=np.float32)
            column = pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), dim)
            index = pa.array(np.arange(start, start + n, dtype=np.int32))
            writer.write_table(
                pa.table([index, column, pa.array([True] * n)], schema=schema), row_group_size=GROUP
            )


def shots(release: Path, folder: Path) -> None:
    """Take the screenshots of docs/report.md: the top in light, the tree and the map in dark; few colours."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    from sid_flows.report import render
    from sid_warehouse.diff import Side
    from sid_warehouse.reader import Release

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        page_file = Path(scratch) / "report.html"
        page_file.write_text(render(Side.of(Release(release))), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for name, scheme, anchor in (("light", "light", None), ("dark", "dark", "#tree")):
            context = browser.new_context(viewport={"width": 1200, "height": 1180}, color_scheme=scheme)
            page = context.new_page()
            page.goto(page_file.as_uri())
            page.wait_for_selector("html[data-ready]", state="attached")
            if anchor:
                page.locator(anchor).evaluate("one => one.scrollIntoView({behavior: 'instant'})")
            page.wait_for_timeout(500)
            target = folder / f"report-{name}.png"
            page.screenshot(path=str(target))
            Image.open(target).convert("RGB").quantize(128).save(target, optimize=True)
            print(f"{target}: {target.stat().st_size:,} bytes")
        browser.close()


if __name__ == "__main__":
    main()
