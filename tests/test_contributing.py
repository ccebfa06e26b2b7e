"""CONTRIBUTING tells the truth: a source, scheme, policy or format is a file and its lines in a registry.

The files are taken from the page and registered by its lines; then the contract suites run on them.
"""

import importlib
import inspect
import json
import re
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import fabricated
import pytest
import test_collisions
import test_sources
import test_tokenizers
import test_trainers
from helpers import ROOT, Run, run_chain, small_dump

from sid_pipelines.sources import SOURCES
from sid_pipelines.trainers import TRAINERS
from sid_tokenizers import POLICIES, TOKENIZERS
from sid_tokenizers.base import Vectors

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
REGISTERED = {
    path: lines.splitlines()
    for path, lines in re.findall(r"```text\n([\w/]+\.py)\n(.*?)```", PAGE, re.DOTALL)
}
FILES = dict(re.findall(r"```python\n# ([\w/]+\.py)\n(.*?)```", PAGE, re.DOTALL))
LEFT_OUT = {
    # of sources that derive what a file says indirectly
    "test_whatever_the_files_hold_what_is_derived_stands",
    "test_what_is_derived_stands_where_a_file_has_no_good_line",
}
Add = Callable[..., Any]


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Add:
    """Give what puts a file of the page where it belongs, and its name into a registry, by the page."""

    def added(file: str, registry: str, menu: str, there: dict[str, Any]) -> Any:
        path = next(one for one in FILES if one.endswith(file))
        name = dotted(path)
        package = importlib.import_module(name.rpartition(".")[0])
        (tmp_path / "added").mkdir()
        (tmp_path / "added" / file).write_text(FILES[path], encoding="utf-8")
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / "added")])
        assert name not in sys.modules
        made = importlib.import_module(name)
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, name, made)  # and gone again after the test
        monkeypatch.delattr(package, file.removesuffix(".py"))
        monkeypatch.setattr(package, file.removesuffix(".py"), made, raising=False)
        [found] = {name: one for name, one in edited(registry)[menu].items() if name not in there}.items()
        monkeypatch.setitem(there, *found)
        return found[1]

    return added


def dotted(path: str) -> str:
    return path.partition("/")[2].removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def edited(path: str) -> dict[str, Any]:
    """Give the names of a registry's module with the page's lines in it."""
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    place = -1
    for told in REGISTERED[path]:
        if told.startswith("+ "):
            lines.insert(place + 1, told[2:])
            place += 1
        else:
            place = lines.index(told[2:], place + 1)
    module = types.ModuleType(dotted(path))
    package = path.endswith("__init__.py")
    module.__package__ = module.__name__ if package else module.__name__.rpartition(".")[0]
    was = sys.modules[module.__name__]
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile("\n".join(lines), path, "exec"), vars(module))
    finally:
        sys.modules[module.__name__] = was
    return vars(module)


def keeps_the_contract(module: types.ModuleType, *kinds: str, given: Mapping[str, Callable[[], Any]]) -> int:
    """Run every test of a suite that asks for one of `kinds` and nothing that is not given; say how many."""
    count = 0
    for name, test in vars(module).items():
        asked = inspect.signature(test).parameters if name.startswith("test_") else {}
        if not set(kinds) & {*asked} or name in LEFT_OUT:
            continue
        for marked in cases(test, asked, given):
            test(**marked)
            count += 1
    return count


def cases(test: Any, asked: Iterable[str], given: Mapping[str, Callable[[], Any]]) -> list[dict[str, Any]]:
    """Give the arguments of each run of a test: what is given, and its own parameters beside."""
    rows: list[dict[str, Any]] = [{}]
    for mark in getattr(test, "pytestmark", []):
        if mark.name != "parametrize":
            continue
        names = mark.args[0].split(", ") if isinstance(mark.args[0], str) else list(mark.args[0])
        if set(names) & {*given}:
            continue
        values = [one if len(names) > 1 else (one,) for one in mark.args[1]]
        rows = [{**row, **dict(zip(names, value, strict=True))} for row in rows for value in values]
    return [{**row, **{name: given[name]() for name in asked if name not in row}} for row in rows]


def folders(tmp_path: Path) -> Callable[[], Path]:
    """Give what makes a new folder each time."""

    def folder() -> Path:
        made = tmp_path / f"run{sum(1 for _ in tmp_path.glob('run*'))}"
        made.mkdir()
        return made

    return folder


def test_the_source_of_the_page_keeps_the_contract(
    add: Add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = add("farm_stand.py", "pipelines/sid_pipelines/sources/__init__.py", "SOURCES", SOURCES)
    assert source.kind == "farm-stand"
    [told] = re.findall(r"```text\nsales\.tsv +(.*?)expected\.json +(.*?)\n```", PAGE, re.DOTALL)
    folder = tmp_path / "farm-stand"
    folder.mkdir()
    lines = [line.strip().replace("<TAB>", "\t") for line in told[0].splitlines() if line.strip()]
    (folder / "sales.tsv").write_text("".join(f"{line}\n" for line in lines))
    (folder / "expected.json").write_text(told[1])
    assert json.loads(told[1])["counts"] == {"raw_interactions": 1, "rejects": 1}
    sample = test_sources.Sample(folder)
    monkeypatch.setattr(test_sources, "SAMPLES", [sample])
    with test_sources.connect() as connection:
        given = {
            "kind": lambda: "farm-stand",
            "sample": lambda: sample,
            "file": lambda: Path("sales.tsv"),
            "database": lambda: connection,
            "tmp_path": folders(tmp_path),
        }
        assert keeps_the_contract(test_sources, "kind", "sample", given=given) == 9


def test_the_tokenizer_of_the_page_keeps_the_contract(
    add: Add, real: Vectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheme = add("rq_drawn.py", "tokenizers/sid_tokenizers/registry.py", "TOKENIZERS", TOKENIZERS)
    monkeypatch.setitem(fabricated.CODERS, "rq-drawn", scheme)
    given = {"scheme": lambda: scheme, "real": lambda: real, "tmp_path": folders(tmp_path)}
    assert keeps_the_contract(test_tokenizers, "scheme", given=given) > 20
    known, made = (fabricated.CODERS[name](levels=[64]).fit(real) for name in ("rq-kmeans", "rq-drawn"))
    errors = [((real - one.decode(one.encode(real))) ** 2).sum() for one in (known, made)]
    assert errors[0] < 0.9 * errors[1]  # a floor, as it says


def test_the_policy_of_the_page_keeps_the_contract(add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = add("from_one.py", "tokenizers/sid_tokenizers/collisions/menu.py", "POLICIES", POLICIES)
    monkeypatch.setitem(test_collisions.NOT_DEFAULT, policy.name, {"size": 40})
    test_collisions.test_every_policy_keeps_the_contract(name=policy.name)
    test_collisions.test_every_parameter_is_heeded_and_written_down(policy.name)
    codes = test_collisions.np.array([[1, 1], [0, 2], [1, 1]], dtype="int32")
    done = test_collisions.resolve(
        codes, test_collisions.numbered(3), test_collisions.Table([3, 3], 0), policy=policy()
    )
    assert done.sids.tolist() == [[1, 1, 1], [0, 2, 1], [1, 1, 2]]


def test_the_format_of_the_page_keeps_the_contract(
    add: Add, small: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = add("sid_list.py", "pipelines/sid_pipelines/trainers/__init__.py", "TRAINERS", TRAINERS)
    odd = run_chain(
        small_dump(tmp_path / "shared"),
        tmp_path / "w",
        "collisions.policy=none",
        "gates.max_collision_rate=1.0",
    )
    (tmp_path / "readmes").mkdir()
    monkeypatch.setattr(test_trainers, "READMES", tmp_path / "readmes")
    monkeypatch.setenv("SIDMILL_WRITE_READMES", "1")  # as `make readmes` does
    given = {
        "form": lambda: form,
        "fitting": lambda: {"sid-list": small.release},
        "odd": lambda: {"plain": small.release, "shared": odd.release},
        "monkeypatch": lambda: monkeypatch,
        "tmp_path": folders(tmp_path),
    }
    assert keeps_the_contract(test_trainers, "form", given=given) == 6
    assert "`sids.csv` has 9 items of small@v1" in (tmp_path / "readmes" / "sid-list.md").read_text()
    test_trainers.export(small.release, form, tmp_path / "to", {"header": "false"})
    rows = (tmp_path / "to" / "sids.csv").read_text().splitlines()
    table = small.release.table("sids")
    assert rows == [f"{one['item_id']},{one['text']}" for one in table.to_pylist()]


def test_what_the_page_names_is_there() -> None:
    assert len(FILES) == len(REGISTERED) == 4
    for name in re.findall(r"`(?:tests/)?(test_\w+\.py)`", PAGE):
        assert name == "test_guides.py" or (ROOT / "tests" / name).is_file(), name
    for folder in re.findall(r"`(sid_\w+/[\w/]+/)`", PAGE):
        assert list(ROOT.glob(f"*/{folder}")), folder
    makefile = (ROOT / "Makefile").read_text()
    for goal in re.findall(r"(?:^    |`)make (\w+)", PAGE, re.MULTILINE):
        assert goal == "docs" or re.search(rf"^{goal}:", makefile, re.MULTILINE), goal
