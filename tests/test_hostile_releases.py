"""Releases whose files somebody else wrote: nothing is written elsewhere, nothing is run, one line answers.

test_security.py has attacks by names and by text in data, test_verify.py what `verify` says of damage.
"""

import json
import pickle
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from attacks import ESCAPES, INJECTION, MARKUP, NO_OBJECT, QUOTED, TRAVERSALS, Evil, answered, refused, tree
from helpers import Run
from safetensors.numpy import save_file

import sidmill
from sid_pipelines import release_page
from sid_pipelines.fusion import load_fusion
from sid_tokenizers.registry import load as load_tokenizer
from sid_tokenizers.trie import Trie
from sid_tokenizers.vocabulary import Vocabulary
from sid_warehouse import catalog, parquet
from sid_warehouse.reader import Release
from sid_warehouse.verify import verify

Record = dict[str, Any]
Commands = tuple[tuple[str, ...], ...]
FEW: Commands = (("show", "small@v1"), ("catalog",))
SHOW: Commands = (("show", "small@v1"), ("releases",), ("diff", "small@v1", "small@v1"))
ALL: Commands = (
    *SHOW,
    ("verify", "small@v1"),
    ("tag", "small@v1", "production"),
    ("catalog",),
    ("export", "small@v1", "--format", "delta"),
)


@pytest.fixture
def warehouse(small: Run, tmp_path: Path) -> Iterator[Path]:
    """A warehouse with the small release; what lies around it must stay as it is."""
    place = tmp_path / "place" / "warehouse"
    shutil.copytree(small.plan.warehouse / "releases", place / "releases")
    (tmp_path / "canary").mkdir()
    (tmp_path / "canary" / "file").write_text("untouched")
    before = tree(tmp_path, place, exported(place))
    yield place
    assert tree(tmp_path, place, exported(place)) == before


@pytest.fixture
def release(warehouse: Path) -> Path:
    return warehouse / "releases" / "small" / "v1"


def exported(warehouse: Path) -> Path:
    return warehouse.parent / "exported"


def looked_at(warehouse: Path, commands: Commands = ALL) -> list[str]:
    """Let commands that read a release look at it; each answers or refuses in a line."""
    to = ("--to", str(exported(warehouse)))
    return [answered(*one, *(to if one[0] == "export" else ()), "-w", str(warehouse)) for one in commands]


def changed(release: Path, change: Callable[[Record], object]) -> None:
    record = json.loads((release / "release.json").read_text())
    change(record)
    (release / "release.json").write_text(json.dumps(record))


# release.json and metrics.json

ENTRY = {"bytes": 0, "sha256": "0" * 64}
SPOILT: dict[str, Callable[[Record], object]] = {
    **{f"file {n!r}": lambda one, n=n: one["files"].update({n: ENTRY}) for n in TRAVERSALS[1::2]},
    "files a list": lambda one: one.update(files=[]),
    "file without hash": lambda one: one["files"].update(x={"bytes": 1}),
    "file of release.json": lambda one: one["files"].update({"release.json": ENTRY}),
    "negative size": lambda one: one["files"].update(x={**ENTRY, "bytes": -1}),
    "data set elsewhere": lambda one: one.update(dataset="../../canary"),
    "data set SQL": lambda one: one.update(dataset=QUOTED),
    "data set a number": lambda one: one.update(dataset=5),
    "version text": lambda one: one.update(version="1; drop table releases"),
    "version a fraction": lambda one: one.update(version=1.5),
    "version true": lambda one: one.update(version=True),
    "version huge": lambda one: one.update(version=10**30),
    "fingerprint a list": lambda one: one.update(fingerprint=[]),
    "dim SQL": lambda one: one["embeddings"]["embeddings_text"].update(dim="1]); drop table releases; --"),
    "dim huge": lambda one: one["embeddings"]["embeddings_text"].update(dim=10**40),
    "embeddings a list": lambda one: one.update(embeddings=[1]),
    "table elsewhere": lambda one: one["rows"].update({"../../canary": 1}),
    "table SQL": lambda one: one["rows"].update({QUOTED: 1}),
    "rows text": lambda one: one["rows"].update(sids="many"),
    "format later": lambda one: one.update(format=10**6),
    "base of itself": lambda one: one.update(kind="append", base={"version": 1}),
}


@pytest.mark.parametrize("attack", SPOILT)
def test_a_spoilt_record_is_refused(attack: str, warehouse: Path, release: Path) -> None:
    changed(release, SPOILT[attack])
    assert "release.json" in refused(lambda: Release(release))
    looked_at(warehouse, FEW)


@pytest.mark.parametrize("text", [*NO_OBJECT, '{"format": 1}'])
def test_a_record_that_is_none_is_refused(text: str, warehouse: Path, release: Path) -> None:
    (release / "release.json").write_bytes(text.encode("latin-1"))
    assert "release.json" in refused(lambda: Release(release))
    looked_at(warehouse, FEW)


@pytest.mark.parametrize("value", [7, {"a": "b"}, ...])
@pytest.mark.parametrize("key", ["created", "recipe", "raw_files", "rows", "embeddings", "stages", "gates"])
def test_a_record_of_other_shapes_is_answered(key: str, value: Any, warehouse: Path, release: Path) -> None:
    changed(release, lambda one: one.pop(key) if value is ... else one.update({key: value}))
    looked_at(warehouse, SHOW)


@pytest.mark.parametrize("text", [*NO_OBJECT[1::2], '{"split": 1}', '{"collisions": {"after": []}}'])
def test_hostile_metrics_are_answered(text: str, warehouse: Path, release: Path) -> None:
    (release / "metrics.json").write_bytes(text.encode("latin-1"))
    looked_at(warehouse, (*SHOW, ("catalog",)))
    assert "metrics.json" in {finding.file for finding in verify(release)}


def test_hostile_values_are_shown_and_no_more(warehouse: Path, release: Path) -> None:
    def hostile(one: Record) -> None:
        one["recipe"]["tokenize"]["tokenizer"] = one["created"] = f"{MARKUP}{ESCAPES}[/red]{INJECTION}"
        one["raw_files"][0]["label"] = f"../../{ESCAPES}"
        one["stages"][INJECTION] = {**one["stages"]["ingest"], "summary": f"[bold]{ESCAPES}"}
        one["recipe"]["source"] = {"kind": QUOTED, "path": f"|\n# {MARKUP}"}

    changed(release, hostile)
    for said in looked_at(warehouse, SHOW[:2]):
        assert not {"\x1b", "\x07"} & set(said)
        assert "\\x1b[2J\\x1b]0;owned\\x07[/red]" in said
    looked_at(warehouse)
    assert "<" not in release_page.page(Release(release).record, Release(release).metrics)


# Parquet


def poison(part: Path, ran: Path) -> None:
    """Write a part again with metadata that once made readers unpickle or evaluate it."""
    payload = pickle.dumps(Evil(ran))
    table = pq.read_table(part)
    trap = {b"ARROW:extension:metadata": payload, b"arrow_py_extension_type": payload}
    names = [b"arrow.py_extension_type", b"arrow_py_extension_type"] * 5
    fields = [
        field.with_metadata({**trap, b"ARROW:extension:name": name})
        for field, name in zip(table.schema, names, strict=True)
    ]
    pandas = {"columns": [], "index_columns": [f"__import__('pathlib').Path({str(ran)!r}).touch()"]}
    schema = pa.schema(fields, metadata={b"pandas": json.dumps(pandas).encode(), **trap})
    pq.write_table(pa.table(table.columns, schema=schema), part)


def test_metadata_of_a_parquet_file_is_not_run(warehouse: Path, release: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    poison(release / "sids" / "part-00000.parquet", ran)
    assert Release(release).table("sids").num_rows == 9
    assert len(Release(release).samples("train")) == 24
    looked_at(warehouse)
    assert {finding.file for finding in verify(release)} == {"sids/part-00000.parquet"}
    assert not ran.exists()
    pickle.loads(pickle.dumps(Evil(ran)))  # noqa: S301 (it would have)
    ran.unlink()


def link(part: Path) -> None:
    part.unlink()
    part.symlink_to("/etc/passwd")


def dangling_link(part: Path) -> None:
    part.unlink()
    part.symlink_to(part.parents[6] / "canary" / "new")


def folder(part: Path) -> None:
    part.rename(part.with_name("kept"))
    part.mkdir()
    part.with_name("kept").rename(part / "part-00000.parquet")


def junk(part: Path) -> None:
    part.write_bytes(b"PAR1" + b"\xff" * 100 + struct.pack("<I", 2**31 - 1) + b"PAR1")


def cut(part: Path) -> None:
    part.write_bytes(part.read_bytes()[:-9])


def other_columns(part: Path) -> None:
    pq.write_table(pa.table({"a": [1], QUOTED: [INJECTION]}), part)


@pytest.mark.parametrize("spoil", [link, dangling_link, folder, junk, cut, other_columns])
def test_a_spoilt_part_is_told(spoil: Callable[[Path], None], warehouse: Path, release: Path) -> None:
    spoil(release / "sids" / "part-00000.parquet")
    assert any(finding.file.startswith("sids/part-00000.parquet") for finding in verify(release))
    if spoil is not other_columns:
        for action in (
            lambda: Release(release).table("sids"),
            lambda: Release(release).samples("train"),
            lambda: parquet.rows(release, "sids"),
        ):
            assert str(release) in refused(action)
    looked_at(warehouse)
    assert not (exported(warehouse) / "sids").exists()


# The other files of a release


@pytest.mark.parametrize(
    "config",
    [
        {"tokenizer": "os.system"},
        {"tokenizer": "__import__"},
        {"tokenizer": ["rq-kmeans"]},
        {"params": {"levels": "__import__('os').getcwd()"}},
        {"params": {"levels": [4, 4], "__class__": "os"}},
        {"params": {"levels": [4, 4], "seed": {"__reduce__": "os.system"}}, "fit": []},
        {"params": ["levels"]},
        {"params": {"levels": [-1, 4]}},
        {"format": "2"},
        *NO_OBJECT,
    ],
)
def test_a_hostile_tokenizer_is_refused(config: Any, release: Path) -> None:
    path = release / "tokenizer" / "tokenizer.json"
    text = config if isinstance(config, str) else json.dumps({**json.loads(path.read_text()), **config})
    path.write_bytes(text.encode("latin-1"))
    refused(lambda: load_tokenizer(path.parent).levels)


def huge_header(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 2**63) + b"{}")


def beyond_the_file(path: Path) -> None:
    header = json.dumps({"codes": {"dtype": "I32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def a_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Evil(path.with_name("ran"))))


def other_arrays(path: Path) -> None:
    save_file({"x": np.zeros(3)}, path)


def no_tree(path: Path) -> None:
    save_file({name: np.zeros(3, np.int32) for name in ("offsets", "codes", "items")}, path)


@pytest.mark.parametrize(
    "spoil", [huge_header, beyond_the_file, a_pickle, other_arrays, no_tree, Path.unlink]
)
def test_hostile_arrays_are_refused(spoil: Callable[[Path], None], release: Path) -> None:
    spoil(release / "trie.safetensors")
    assert "trie.safetensors" in refused(lambda: Trie.load(release / "trie.safetensors"))
    spoil(release / "tokenizer" / "tokenizer.safetensors")
    refused(lambda: load_tokenizer(release / "tokenizer"))
    assert not list(release.rglob("ran"))


@pytest.mark.parametrize(
    "levels", [["__import__('os')"], [0], [True], [2.5], "aa", [], [1] * 27, {"4": 4}, None]
)
def test_a_hostile_vocabulary_is_refused(levels: Any, release: Path) -> None:
    (release / "vocabulary.json").write_text(json.dumps({"format": 1, "levels": levels}))
    assert "vocabulary.json" in refused(lambda: Release(release).vocabulary)


@pytest.mark.parametrize("text", NO_OBJECT)
def test_a_vocabulary_that_is_none_is_refused(text: str, release: Path) -> None:
    (release / "vocabulary.json").write_bytes(text.encode("latin-1"))
    assert "vocabulary.json" in refused(lambda: Vocabulary.load(release / "vocabulary.json"))


@pytest.mark.parametrize(
    "config",
    [
        {"format": 1, "fusion": "os.system", "params": {}, "inputs": {}, "facts": {}},
        {"format": 1, "fusion": "concat", "params": {"__class__": "os"}, "inputs": {}, "facts": {}},
        {"format": 1, "fusion": "concat", "params": {}, "inputs": {"a": "b"}, "facts": {}},
        {"format": 1, "fusion": "concat", "params": {}, "inputs": {}, "facts": {}},  # without its arrays
        *NO_OBJECT,
    ],
)
def test_a_hostile_fusion_is_refused(config: Any, tmp_path: Path) -> None:
    text = config if isinstance(config, str) else json.dumps(config)
    (tmp_path / "fusion.json").write_bytes(text.encode("latin-1"))
    refused(lambda: load_fusion(tmp_path))


@pytest.mark.parametrize("content", [b"", b"junk", b"ARROW1\0\0" + b"\xff" * 64 + b"ARROW1"])
def test_a_hostile_mapped_file_is_refused(content: bytes, release: Path) -> None:
    (release / "sequences.arrow").write_bytes(content)
    assert "sequences.arrow" in refused(lambda: Release(release).samples("train"))


# Tags, the catalog, the origin


@pytest.mark.parametrize("text", [*NO_OBJECT[::2], '{"version": "../x"}', '{"version": 1, "fingerprint": 1}'])
def test_a_hostile_tag_is_told(text: str, warehouse: Path) -> None:
    answered("tag", "small", "production", "-w", str(warehouse))
    [path] = (warehouse / "tags").rglob("production.json")
    path.write_bytes(text.encode("latin-1"))
    assert "production" in refused(lambda: sidmill.open(warehouse).release("small@production"))
    looked_at(warehouse, (("tags",), ("rollback", "small@production"), ("gc",)))


def test_a_catalog_of_junk_is_told_and_built_anew(warehouse: Path) -> None:
    (warehouse / catalog.NAME).write_bytes(b"junk" * 5000)
    assert "sql:" in answered("sql", "select 1", "-w", str(warehouse))
    catalog.refresh(warehouse)
    assert "small@v1" in answered("sql", "select ref from releases", "-w", str(warehouse))


def test_a_catalog_that_is_a_link_is_not_written_through(warehouse: Path) -> None:
    target = warehouse.parents[1] / "canary" / "file"
    (warehouse / catalog.NAME).symlink_to(target)
    catalog.refresh(warehouse)
    assert target.read_text() == "untouched"
    assert "small@v1" in answered("sql", "select ref from releases", "-w", str(warehouse))


@pytest.mark.parametrize("url", ["file:///etc", "s3://../x", "s3://a/../b", "http://a/b", ["s3://a"], None])
def test_a_hostile_origin_is_told(url: Any, warehouse: Path) -> None:
    (warehouse / "origin.json").write_text(json.dumps({"url": url}))
    assert "origin.json" in refused(lambda: sidmill.open(warehouse).release("small"))
