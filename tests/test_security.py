"""Attacks by names and by text in data: nothing is written elsewhere, nothing is run, one line answers.

test_hostile_releases.py has attacks by files of a release, test_archives.py more on archives, test_fetch.py
on mirrors and downloads.
"""

import ast
import gzip
import io
import json
import re
import stat
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from attacks import ESCAPES, INJECTION, MARKUP, QUOTED, TRAVERSALS, answered, refused, tree
from helpers import ROOT, Run, run_chain, small_dump

import sidmill
from sid_flows.recipe import load_recipe
from sid_pipelines import fetch, release_page
from sid_pipelines.public_dumps import Dump, DumpFile
from sid_pipelines.sources import archives, candidates
from sid_schemas import RecipeError, SourceError
from sid_warehouse import catalog
from sid_warehouse.names import Ref
from sid_warehouse.verify import verify
from sidmill import console

NAMES = ("../x", "a/b", INJECTION, QUOTED, MARKUP, "", "a\0b", "a\n", "x" * 99, ESCAPES, "é", "A")

# Names that users, recipes and archives give


@pytest.mark.parametrize("name", [*NAMES, "main", "temp"])
def test_a_data_set_is_not_called_so(name: str, tmp_path: Path) -> None:
    recipe = small_dump(tmp_path)
    recipe.write_text(recipe.read_text().replace('"small"', json.dumps(name)))
    before = tree(tmp_path)
    assert "dataset" in refused(lambda: load_recipe(recipe))
    assert "dataset" in refused(lambda: sidmill.open(tmp_path).release(name))
    answered("show", name, "-w", str(tmp_path))
    assert tree(tmp_path) == before


@pytest.mark.parametrize("at", [*NAMES[:-1], "v0", "v01", "v1/../../x", "v1\n", "V1", "v1;", "..", "latest"])
def test_a_version_or_tag_is_not_called_so(at: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError):
        Ref.parse(f"small@{at}")
    answered("tag", "small", at, "-w", str(tmp_path))
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("name", [*(name for name in NAMES if name), "text\n", "1"])
def test_an_embedding_is_not_called_so(name: str, tmp_path: Path) -> None:
    recipe = small_dump(tmp_path)
    recipe.write_text(f"{recipe.read_text()}\n[[embed]]\nname = {json.dumps(name)}\n")
    assert "embed.name" in refused(lambda: load_recipe(recipe))


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", "..", "", "x\n", "a b", "a\0b"])
def test_a_file_to_fetch_is_not_called_so(name: str, tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "x").write_text("x")
    file = DumpFile(name, ((tmp_path / "mirror" / "x").as_uri(),))
    dump = Dump("d", "table", "none", (file,))
    with pytest.raises(SourceError, match="expected a plain file name"):
        fetch.fetch_file(dump, file, tmp_path / "to", mirrors=[str(tmp_path / "mirror")])
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mirror", "x"]


def test_a_link_in_an_archive_is_its_text(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("ratings.dat")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "dump.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    [one] = candidates(tmp_path / "dump.zip")
    assert b"".join(archives.blocks(one.path, one.member)) == b"/etc/passwd"
    assert [path.name for path in tmp_path.iterdir()] == ["dump.zip"]


@pytest.mark.parametrize(
    "name", ["CON", "dev/stdin", "a\0.zip", "a" * 5000, "-rf", "$(touch x)", "~/x", MARKUP]
)
def test_a_member_of_an_odd_name_makes_no_file(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "dump.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), "1::2::3::4")
    [one] = candidates(tmp_path / "dump.zip")
    assert b"".join(archives.blocks(one.path, one.member)) == b"1::2::3::4"
    assert [path.name for path in tmp_path.iterdir()] == ["dump.zip"]


def test_a_member_that_lies_about_its_size_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "dump.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ratings.dat", b"0" * 5_000_000)
    lying = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = lying.index(mark) + place
        lying[at : at + 4] = struct.pack("<I", 10)
    path.write_bytes(lying)
    read = []
    with pytest.raises(archives.DamagedError):
        read.extend(archives.blocks(path, "ratings.dat"))
    assert sum(map(len, read)) <= 10


def test_a_bomb_in_a_gzip_in_a_zip_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "BOMB_BYTES", 1 << 20)
    inner = io.BytesIO()
    with gzip.GzipFile(fileobj=inner, mode="wb") as file:
        file.write(b"0" * (4 << 20))
    with zipfile.ZipFile(tmp_path / "dump.zip", "w") as archive:
        archive.writestr("ratings.dat.gz", inner.getvalue())
    [one] = candidates(tmp_path / "dump.zip")
    read: list[bytes] = []
    with pytest.raises(SourceError, match="as a zip bomb does"):
        read.extend(archives.blocks(one.path, one.member))
    assert sum(map(len, read)) < 4 << 20


@pytest.mark.parametrize("name", TRAVERSALS)
def test_a_manifest_does_not_name_files_elsewhere(name: str, tmp_path: Path) -> None:
    from sid_warehouse.stages import StageStore

    store, folder = StageStore(tmp_path, "d"), tmp_path / "stages" / "d" / "text" / "key"
    folder.mkdir(parents=True)
    manifest = {"key": "key", "summary": "", "facts": {}, "rows": {}}
    manifest["files"] = {name: {"bytes": 0, "sha256": ""}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert "is no name of a file" in refused(lambda: store.find("text", "key"))
    assert "is no name of a file" in refused(lambda: store.newest("text"))


@pytest.mark.parametrize(
    "text", ["{}", '{"files": []}', '{"files": {"a": 1}}', '{"files": {}}', "[]", "null", "\xff"]
)
def test_a_manifest_that_is_none_is_told(text: str, tmp_path: Path) -> None:
    from sid_warehouse.stages import StageStore

    folder = tmp_path / "stages" / "d" / "text" / "key"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_bytes(text.encode("latin-1"))
    assert "manifest.json" in refused(lambda: StageStore(tmp_path, "d").find("text", "key"))


# Names and texts in data


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A release of files whose folder, name, header and content are attacks, in such a warehouse."""
    root = tmp_path_factory.mktemp("hostile")
    dump = root / QUOTED
    dump.mkdir()
    header = ["user'; --", 'sku"; drop', "when)--"]
    sku = [INJECTION, *(f"i{number}" for number in range(1, 6))]
    rows = [f"u{u};--,{item},{1_300_000_000 + u * 99 + i}" for u in range(6) for i, item in enumerate(sku)]
    names = ",".join('"' + name.replace('"', '""') + '"' for name in header)
    events, items = f"{INJECTION}.csv", f"{MARKUP.replace('/', '')}.jsonl"
    (dump / events).write_text("\n".join([names, *rows, MARKUP]) + "\n")
    titles = [MARKUP, INJECTION, QUOTED, "a|b\\|`c`\n", "[x](javascript:alert(1))", ESCAPES]
    lines = [json.dumps({"id": item, MARKUP: title}) for item, title in zip(sku, titles, strict=True)]
    (dump / items).write_text("\n".join(lines) + "\n")
    mapped = ", ".join(
        f"{ours} = {json.dumps(theirs)}"
        for ours, theirs in zip(("user_id", "item_id", "ts"), header, strict=True)
    )
    recipe = root / "recipe.toml"
    recipe.write_text(f"""
        dataset = "hostile"
        [source]
        kind = "table"
        path = {json.dumps(f"{QUOTED}/{events}")}
        items = {json.dumps(f"{QUOTED}/{items}")}
        columns = {{{mapped}}}
        item_columns = {{item_id = "id", title = {json.dumps(MARKUP)}}}
        [clean]
        k_core = 2
        max_reject_rate = 0.1
        [[embed]]
        model = "hashing"
        template = "{{title}} {MARKUP}"
        clean_text = false
        [tokenize]
        levels = [3, 3]
        """)
    return run_chain(recipe, root / INJECTION)


def test_hostile_text_is_kept_as_it_is(hostile: Run) -> None:
    with duckdb.connect(str(hostile.plan.warehouse / catalog.NAME), read_only=True) as connection:
        titles = {title for (title,) in connection.sql("select title from hostile.items").fetchall()}
        files = connection.sql("select distinct source_file from hostile.interactions").fetchall()
        rejected = connection.sql("select raw from hostile.rejects").fetchall()
        named = 'select title from "hostile@v1".items where item_id = $1'
        assert connection.sql(named, params=[INJECTION]).fetchall() == [(MARKUP,)]
        assert connection.sql("select ref from releases").fetchall() == [("hostile@v1",)]
    assert {MARKUP, INJECTION, QUOTED, ESCAPES} <= titles
    assert (files, rejected) == ([(f"{QUOTED}/{INJECTION}.csv",)], [(MARKUP,)])
    assert verify(hostile.release.folder) == []


def test_hostile_text_does_nothing_in_the_pages(hostile: Run) -> None:
    report = (hostile.release.folder / "report.html").read_text()
    page = release_page.page(hostile.release.record, hostile.release.metrics)
    for text in (report, page):
        assert "alert(1)" in text
        assert not [active for active in ("<script>alert", "<img") if active in text]
    assert report.count("<script") == report.count("data-plot=") + 2  # figures, the library, what draws
    assert "<script" not in page
    assert "\x1b" not in page
    assert "](javascript" not in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    cells = [len(re.sub(r"\\.", "", line).split("|")) for line in rows]
    for number, line in enumerate(rows):  # as many cells as the head of its table, which stands over dashes
        head = max(one for one in range(number + 1) if set(rows[min(one + 1, len(rows) - 1)]) <= set("|- "))
        assert cells[number] == cells[head], line


def test_hostile_text_does_not_command_the_terminal(hostile: Run, capsys: pytest.CaptureFixture[str]) -> None:
    query = f'select title as "[/a]{ESCAPES}" from hostile.items'
    for arguments in (("show", "hostile"), ("releases",), ("sql", query)):
        said = answered(*arguments, "-w", str(hostile.plan.warehouse))
        assert "hostile" in said or "[/a]\\x1b[2J\\x1b]0;owned\\x07" in said
        assert not {"\x1b", "\x07"} & set(said)
    console.complain(f"a{ESCAPES}\nb")
    assert capsys.readouterr().err == "sidmill: a\\x1b[2J\\x1b]0;owned\\x07 b\n"


# Our own code: no door through which data becomes code

MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "shelve"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
UNPACKERS = {"extract", "extractall", "unpack_archive"}  # to disk, under names of the archive's
SHELLS = {"system", "popen", "getoutput", "getstatusoutput", "create_subprocess_shell"}
READERS = {"read_pickle", "unsafe_load", "full_load", "import_module"}
SQL = re.compile(r"\b(select|from|where|insert|create)\b")
CONSTANTS = {"split", "key", "MARK"}  # of ours, that stand between hand-written quotes


def dangers(code: str) -> list[str]:
    """Give what in a module could run code that stands in data, or let it into SQL, with its line."""
    return [f"line {node.lineno}: {told}" for node in ast.walk(ast.parse(code)) for told in _dangers(node)]


def _dangers(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (f"import {one.name}" for one in node.names if one.name.partition(".")[0] in MODULES)
    if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
        yield f"from {node.module} import"
    if isinstance(node, ast.Call):
        yield from _dangerous_call(node)
    if isinstance(node, ast.JoinedStr):
        yield from _hand_quoted(node)


def _dangerous_call(call: ast.Call) -> Iterator[str]:
    name, words = ast.unparse(call.func), {one.arg: one.value for one in call.keywords}
    own, _, last = name.rpartition(".")
    if (not own and name in BUILTINS) or (own and last == "eval" and (call.args or words)):
        yield f"{name}(...)"
    if own and last in UNPACKERS | SHELLS | READERS:
        yield f"{name}(...)"
    if name == "yaml.load" and "Safe" not in ast.unparse(words.get("Loader", ast.Constant(""))):
        yield "yaml.load without a safe loader"
    if name == "torch.load" and ast.unparse(words.get("weights_only", ast.Constant(None))) != "True":
        yield "torch.load without weights_only"
    for word in ("shell", "allow_pickle", "trust_remote_code"):
        if word in words and ast.unparse(words[word]) != "False":
            yield f"{name}({word}=...)"


def _hand_quoted(text: ast.JoinedStr) -> Iterator[str]:
    """Find values put between quotes by hand in what reads like SQL; db.literal and db.quote do that."""
    before = ""
    plain = " ".join(str(part.value) for part in text.values if isinstance(part, ast.Constant))
    for part in text.values:
        if isinstance(part, ast.FormattedValue) and before.endswith(("'", '"')) and SQL.search(plain):
            value = ast.unparse(part.value)
            if value not in CONSTANTS:
                yield f"{value} between quotes in SQL"
        before = str(part.value) if isinstance(part, ast.Constant) else ""


@pytest.mark.parametrize("package", ["sidmill", "schemas", "tokenizers", "warehouse", "pipelines", "flows"])
def test_no_code_of_ours_runs_what_stands_in_data(package: str) -> None:
    modules = sorted((ROOT / package).rglob("*.py"))
    assert modules
    found = {str(path.relative_to(ROOT)): dangers(path.read_text()) for path in modules}
    assert not {path: told for path, told in found.items() if told}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "import os, marshal",
        "from joblib.numpy_pickle import load",
        "from dill import loads",
        "eval(text)",
        "exec(text, {})",
        "frame.eval(text)",
        "__import__(name)",
        "importlib.import_module(name)",
        "os.system(text)",
        "subprocess.run(text, shell=True)",
        "subprocess.run(text, shell=flag)",
        "np.load(path, allow_pickle=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.UnsafeLoader)",
        "pandas.read_pickle(path)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "zipfile.ZipFile(path).extractall(folder)",
        "shutil.unpack_archive(path)",
        "connection.sql(f\"select * from t where name = '{name}'\")",
        "connection.execute(f'create view \"{name}\" as from x')",
    ],
)
def test_the_scan_finds(code: str) -> None:
    assert dangers(code)


@pytest.mark.parametrize(
    "code",
    [
        "network.eval()",
        "re.compile(pattern)",
        "np.load(path, allow_pickle=False)",
        "torch.load(path, weights_only=True)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "subprocess.Popen([sys.executable, path])",
        "connection.sql(f'select * from {quote(name)} where x = {literal(text)}')",
        "f\"{path}: no column '{name}'\"",
    ],
)
def test_the_scan_lets_pass(code: str) -> None:
    assert not dangers(code)
