"""Other people's tools open a release's tables as they are; Delta and Iceberg take them and keep versions."""

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from helpers import Run
from typer.testing import CliRunner

from sid_pipelines import exports
from sid_pipelines.exports import delta, iceberg, tables
from sid_schemas import MissingExtraError, RecipeError, WarehouseError
from sid_schemas.tables import embeddings_table, table_named
from sid_warehouse import parquet, releases
from sid_warehouse.reader import Release
from sidmill.cli import app

TABLES = ["sids", "items", "train", "valid", "test", "sequences", "embeddings_text", "embeddings_half"]


@pytest.fixture(scope="module")
def two(small: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Release, Release]:
    """Two releases of a data set: tables of several parts, with nulls, lists, float32 and float16.

    The second has a row less of everything.
    """
    folder = tmp_path_factory.mktemp("interop")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "ROWS_PER_GROUP", 4)
        patch.setattr(parquet, "ROWS_PER_PART", 4)
        first, second = (republished(small.release, folder, version) for version in (1, 2))
    return first, second


def republished(release: Release, folder: Path, version: int) -> Release:
    scratch, rows = folder / f"scratch{version}", {}
    data = {name: release.table(name) for name in release.tables}
    half = data["embeddings_text"]["vector"].cast(pa.list_(pa.float16(), 384))
    data["embeddings_half"] = data["embeddings_text"].set_column(2, "vector", half)
    for name, table in data.items():
        whole = table.slice(0, max(0, len(table) - version + 1))
        rows[name] = parquet.write(scratch, table_named(name, table.schema), whole)
    contents = {path.relative_to(scratch).as_posix(): path for path in scratch.rglob("*.parquet")}
    record = {"fingerprint": f"fingerprint-{version}", "rows": rows}
    releases.publish(folder / "warehouse", "small", contents, record)
    return Release(folder / "warehouse" / "releases" / "small" / f"v{version}")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


def plain(value: Any) -> Any:
    """Give a value as Python's own: arrays as lists, NaN as None, float16 as float."""
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float | np.floating):
        return None if np.isnan(value) else float(value)
    return value.item() if isinstance(value, np.generic) else value


def rows(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: plain(value) for name, value in row.items()} for row in found]


def in_pandas(parts: Path, _: Path) -> list[dict[str, Any]]:
    import pandas

    return pandas.read_parquet(parts).to_dict("records")


def in_polars(parts: Path, _: Path) -> list[dict[str, Any]]:
    import polars

    read = polars.read_parquet(parts)
    assert polars.scan_parquet(parts / "*.parquet").collect().equals(read)
    return read.to_dicts()


def in_pyarrow(parts: Path, _: Path) -> list[dict[str, Any]]:
    return pyarrow.dataset.dataset(parts).to_table().to_pylist()


def in_duckdb(parts: Path, _: Path) -> list[dict[str, Any]]:
    with duckdb.connect() as connection:
        found = connection.sql(f"from '{parts}/*.parquet'")
        return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


def in_datasets(parts: Path, cache: Path) -> list[dict[str, Any]]:
    import datasets

    datasets.disable_progress_bars()
    loaded = datasets.load_dataset(
        "parquet", data_files=str(parts / "*.parquet"), split="train", cache_dir=str(cache)
    )
    return list(loaded)


READERS = [in_pandas, in_polars, in_pyarrow, in_duckdb, in_datasets]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("read", READERS)
def test_others_read_the_same_rows(
    two: tuple[Release, Release], tmp_path: Path, offline: None, read: Any, table: str
) -> None:
    pytest.importorskip(read.__name__.removeprefix("in_"))
    release = two[0]
    folder = release.folder / table
    expected = rows(release.table(table).to_pylist())
    assert expected
    assert rows(read(folder, tmp_path)) == expected  # in stored order too


def test_the_tables_have_what_is_hard_to_read(two: tuple[Release, Release]) -> None:
    release = two[0]
    assert all(len(parquet.parts(release.folder, table)) > 1 for table in TABLES)
    assert release.table("sids")["suffix"].null_count
    assert release.table("items")["brand"].null_count
    assert release.table("embeddings_half")["vector"].type.value_type == pa.float16()


# Exports


def widened(release: Release, table: str) -> list[dict[str, Any]]:
    return sorted(rows(release.table(table).to_pylist()), key=repr)


def in_delta(folder: Path, version: int | None = None) -> list[dict[str, Any]]:
    from deltalake import DeltaTable

    return sorted(rows(DeltaTable(folder, version=version).to_pyarrow_table().to_pylist()), key=repr)


def in_iceberg(folder: Path, version: int | None = None) -> list[dict[str, Any]]:
    loaded = iceberg.open_catalog(folder.parent).load_table(("small", folder.name))
    return sorted(rows(loaded.scan(snapshot_id=version).to_arrow().to_pylist()), key=repr)


BACK = {"delta": in_delta, "iceberg": in_iceberg}


@pytest.fixture(params=sorted(exports.FORMATS))
def form(request: pytest.FixtureRequest) -> str:
    pytest.importorskip({"delta": "deltalake", "iceberg": "pyiceberg.catalog.sql"}[request.param])
    return request.param


def test_an_export_has_every_row_and_its_versions_travel(
    two: tuple[Release, Release], tmp_path: Path, form: str, offline: None
) -> None:
    first, second = two
    assert first.table("interactions").num_rows != second.table("interactions").num_rows
    done = exports.export(first, form, tmp_path / "to")
    assert [one.table for one in done] == first.tables
    assert all(one.written for one in done)
    for one in done:
        assert one.rows == first.record["rows"][one.table]
        assert BACK[form](tmp_path / "to" / one.table) == widened(first, one.table), one.table
    again = exports.export(first, form, tmp_path / "to")
    assert [(one.version, one.written) for one in again] == [(one.version, False) for one in done]
    after = exports.export(second, form, tmp_path / "to")
    for old, new in zip(done, after, strict=True):
        assert new.version != old.version
        folder = tmp_path / "to" / new.table
        assert BACK[form](folder) == widened(second, new.table)
        assert BACK[form](folder, old.version) == widened(first, new.table)
    back = exports.export(first, form, tmp_path / "to", ["sids"])  # an older release is a newer version
    assert back[0].written
    assert BACK[form](tmp_path / "to" / "sids") == widened(first, "sids")


def test_pandas_and_polars_read_a_delta_table(two: tuple[Release, Release], tmp_path: Path) -> None:
    deltalake, polars = pytest.importorskip("deltalake"), pytest.importorskip("polars")
    release = two[0]
    exports.export(release, "delta", tmp_path / "to", ["sids", "embeddings_half"])
    for name in ("sids", "embeddings_half"):
        table = deltalake.DeltaTable(tmp_path / "to" / name)
        assert sorted(rows(table.to_pandas().to_dict("records")), key=repr) == widened(release, name)
        assert sorted(rows(polars.read_delta(str(tmp_path / "to" / name)).to_dicts()), key=repr) == widened(
            release, name
        )
    vectors = deltalake.DeltaTable(tmp_path / "to" / "embeddings_half").to_pyarrow_table()["vector"]
    assert vectors.type.value_type == pa.float32()


def test_a_delta_table_says_what_it_is_and_of_which_release(
    two: tuple[Release, Release], tmp_path: Path
) -> None:
    deltalake = pytest.importorskip("deltalake")
    exports.export(two[0], "delta", tmp_path / "to", ["items"])
    table = deltalake.DeltaTable(tmp_path / "to" / "items")
    [commit] = table.history()
    assert (commit["sidmill.ref"], commit["sidmill.fingerprint"]) == (
        "small@v1",
        two[0].record["fingerprint"],
    )
    assert (
        table.metadata().description
        == parquet.read(two[0].folder, "items").schema.metadata[b"description"].decode()
    )
    [first_ts] = [field for field in table.schema().fields if field.name == "first_ts"]
    assert first_ts.metadata["comment"].endswith("; ms since 1970-01-01 UTC")
    assert next(field for field in table.schema().fields if field.name == "item_id").nullable is False


def test_upkeep_of_a_delta_table_is_no_new_content(two: tuple[Release, Release], tmp_path: Path) -> None:
    deltalake = pytest.importorskip("deltalake")
    exports.export(two[0], "delta", tmp_path / "to", ["sids"])
    table = deltalake.DeltaTable(tmp_path / "to" / "sids")
    table.optimize.compact()
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    assert not exports.export(two[0], "delta", tmp_path / "to", ["sids"])[0].written
    deltalake.write_deltalake(table, table.to_pyarrow_table().slice(0, 1), mode="overwrite")
    [one] = exports.export(two[0], "delta", tmp_path / "to", ["sids"])
    assert one.written
    assert in_delta(tmp_path / "to" / "sids") == widened(two[0], "sids")


def test_a_failed_export_leaves_the_version_before(
    two: tuple[Release, Release], tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two
    real = tables.batches

    def failing(part: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        yield from real(part, schema)
        raise OSError(28, "No space left on device")

    def fail(release: Release) -> None:
        with monkeypatch.context() as patch:
            for module in (delta, iceberg):
                patch.setattr(module, "batches", failing)
            with pytest.raises(WarehouseError, match="No space left on device"):
                exports.export(release, form, tmp_path / "to", ["sids"])

    fail(first)
    found = sorted(path.name for path in (tmp_path / "to").rglob("*") if path.suffix in (".json", ".avro"))
    assert found == [tables.MARK]  # no commit: no reader sees a table
    [one] = exports.export(first, form, tmp_path / "to", ["sids"])
    fail(second)
    assert BACK[form](tmp_path / "to" / "sids") == widened(first, "sids")
    assert exports.export(first, form, tmp_path / "to", ["sids"])[0].version == one.version


def test_two_exports_into_one_folder_come_one_after_the_other(
    two: tuple[Release, Release], tmp_path: Path, form: str
) -> None:
    with ThreadPoolExecutor() as pool:
        running = [pool.submit(exports.export, one, form, tmp_path / "to", ["sids", "users"]) for one in two]
        done = [future.result() for future in running]
    for release, tables_ in zip(two, done, strict=True):
        for one in tables_:
            assert one.written
            assert BACK[form](tmp_path / "to" / one.table, one.version) == widened(release, one.table)


def test_a_folder_of_something_else_is_left_alone(
    two: tuple[Release, Release], tmp_path: Path, form: str
) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "thesis.tex").write_text("x")
    with pytest.raises(RecipeError, match=r"to: holds 'thesis\.tex'; expected a new or empty folder"):
        exports.export(two[0], form, tmp_path / "to")
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["thesis.tex"]
    with pytest.raises(RecipeError, match=r"thesis\.tex: is no folder"):
        exports.export(two[0], form, tmp_path / "to" / "thesis.tex")
    with pytest.raises(WarehouseError, match=r"below: cannot be written \(Not a directory\)"):
        exports.export(two[0], form, tmp_path / "to" / "thesis.tex" / "below")
    other = next(name for name in exports.FORMATS if name != form)
    (tmp_path / "to" / "thesis.tex").unlink()
    exports.export(two[0], form, tmp_path / "to", ["sids"])
    with pytest.raises(RecipeError, match=f"is an export of .*{form}.*; expected .*{other}"):
        exports.export(two[0], other, tmp_path / "to", ["sids"])


def test_a_damaged_table_is_not_exported(two: tuple[Release, Release], tmp_path: Path, form: str) -> None:
    shutil.copytree(two[0].folder, tmp_path / "copy")
    part = tmp_path / "copy" / "sids" / "part-00000.parquet"
    pq.write_table(pq.read_table(part).slice(0, 1), part)
    with pytest.raises(WarehouseError, match=r"part-00000\.parquet: is not what was published"):
        exports.export(Release(tmp_path / "copy"), form, tmp_path / "to", ["sids"])
    with pytest.raises(RecipeError, match="no table 'user_sids' to export; there are: embeddings_half"):
        exports.export(two[0], form, tmp_path / "to", ["user_sids"])
    empty = Release(two[0].folder)
    del empty.record["rows"]
    with pytest.raises(RecipeError, match="no table '' to export; there are: none"):
        exports.export(empty, form, tmp_path / "to")


def test_without_the_package_the_pip_line_is_told(
    two: tuple[Release, Release], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, package, extra in (("delta", "deltalake", "delta"), ("iceberg", "pyiceberg", "iceberg")):
        for loaded in [one for one in sys.modules if one.partition(".")[0] == package]:
            monkeypatch.delitem(sys.modules, loaded)
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingExtraError, match=rf"pip install 'sidmill\[{extra}\]'"):
            exports.export(two[0], name, tmp_path / name)


def test_the_command(two: tuple[Release, Release], tmp_path: Path) -> None:
    pytest.importorskip("deltalake")
    warehouse = str(two[0].folder.parents[2])
    arguments = ["export", "small@v1", "-w", warehouse, "--format", "delta", "--to", str(tmp_path / "to")]
    done = CliRunner().invoke(app, [*arguments, "--tables", "sids, train", "--json"])
    assert done.exit_code == 0, done.output
    assert '"status": "written"' in done.stdout
    assert {path.name for path in (tmp_path / "to").glob("[!.]*")} == {tables.MARK, "sids", "train"}
    inside = CliRunner().invoke(app, [*arguments[:-1], f"{warehouse}/releases/small/v1/x"])
    assert isinstance(inside.exception, RecipeError)
    assert not (two[0].folder / "x").exists()
    unknown = CliRunner().invoke(app, [*arguments[:5], "parchment", "--to", str(tmp_path / "p")])
    assert str(unknown.exception).startswith(
        "no export format is called 'parchment'; there are: delta, iceberg, "
    )


PEAK = """
import sys
from pathlib import Path
from sid_pipelines import exports
from sid_warehouse.reader import Release
release = Release(sys.argv[1])
peak = lambda: int(next(line for line in open("/proc/self/status") if "VmHWM" in line).split()[1]) // 1024
before = peak()
exports.export(release, sys.argv[2], Path(sys.argv[3]))
print(peak() - before)
"""


@pytest.mark.proof
def test_a_table_is_never_in_memory_as_a_whole(tmp_path: Path, form: str) -> None:
    rows, dim = 900_000, 384  # 1.4 GB as float32
    table = embeddings_table("text", dim, "float16")

    def drawn() -> Iterator[pa.RecordBatch]:
        for start in range(0, rows, 10_000):
            index = np.arange(start, start + 10_000, dtype=np.int32)
            vectors = np.random.default_rng(start).random(10_000 * dim, dtype=np.float32).astype(np.float16)
            matrix = pa.FixedSizeListArray.from_arrays(pa.array(vectors), dim)
            columns = [pa.array(index), pa.array(index.astype(str)), matrix, pa.array(np.ones(10_000, bool))]
            yield pa.RecordBatch.from_arrays(columns, schema=table.arrow())

    parquet.write(tmp_path / "scratch", table, drawn())
    [part] = parquet.parts(tmp_path / "scratch", table.name)
    record = {"fingerprint": "x", "rows": {table.name: rows}}
    releases.publish(tmp_path / "w", "d", {f"{table.name}/{part.name}": part}, record)
    command = [sys.executable, "-c", PEAK, str(tmp_path / "w/releases/d/v1"), form, str(tmp_path / "to")]
    grown = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    shutil.rmtree(tmp_path)
    assert grown < 900  # MB; 640 for Delta and 420 for Iceberg, and no more for twice the rows
