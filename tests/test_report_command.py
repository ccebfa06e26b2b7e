"""`sidmill report`: where the page is, or the page made anew, of any release that can be opened."""

import dataclasses
import json
import re
import shutil
import webbrowser
from pathlib import Path
from typing import Any

import pytest
from attacks import answered
from helpers import Run, more_dump, quickly, run_append
from reported import Read, figures_of, page_of
from test_object_store import Store, server, store  # noqa: F401 (fixtures)

from sid_flows.execute import finish
from sid_warehouse import files
from sid_warehouse.reader import Release

OTHER = "is another release by now than the one that this one went on from."


@pytest.fixture
def place(small: Run, tmp_path: Path) -> Path:
    """A copy of the small release's warehouse."""
    return shutil.copytree(
        small.plan.warehouse, tmp_path / "w", ignore=shutil.ignore_patterns("stages", "cache")
    )


def test_a_release_has_a_page(place: Path) -> None:
    path = place / "releases" / "small" / "v1" / "report.html"
    assert answered("report", "small", "-w", str(place)).strip() == str(path)
    found = json.loads(answered("report", "small@v1", "--json", "-w", str(place)))
    assert found == {"ref": "small@v1", "path": str(path), "bytes": path.stat().st_size}


def test_it_can_be_made_anew(place: Path, tmp_path: Path) -> None:
    target = tmp_path / "pages" / "anew.html"
    found = json.loads(answered("report", "small", "--to", str(target), "--json", "-w", str(place)))
    assert found == {"ref": "small@v1", "path": str(target), "bytes": target.stat().st_size}
    own, anew = page_of(place / "releases" / "small" / "v1"), target.read_text(encoding="utf-8")
    assert figures_of(anew) == figures_of(own)
    assert "<h1>small@v1</h1>" in anew
    assert anew.replace("small@v1", "small") == own.replace("small@v1", "small")
    assert [one.name for one in target.parent.iterdir()] == ["anew.html"]


def test_it_opens_in_a_browser_where_there_is_one(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: not opened.append(url))
    path = answered("report", "small", "--open", "-w", str(place)).strip()
    assert opened == [Path(path).as_uri()]
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    assert "found no browser here; open /" in answered("report", "small", "--open", "-w", str(place))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("small@v7",), r"holds no release small@v7; there is: small@v1"),
        (("small", "--to", "{w}/releases/small/v1/new.html"), r"new\.html: is inside the warehouse /"),
        (("small", "--to", "{w}/catalog.duckdb"), r"catalog\.duckdb: is inside the warehouse /"),
        (("small", "--to", "{w}/../link/x.html"), r"link/x\.html: is inside the warehouse /"),
        (("small", "--to", "~nosuchuser/x.html"), r"--to ~nosuchuser/x\.html: Could not determine home"),
        (("small", "-w", "~nosuchuser/x"), r"--warehouse ~nosuchuser/x: Could not determine home"),
        (("small", "--to", "{w}/.."), r"is a folder; expected a file, such as .*/report\.html"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(place: Path, arguments: tuple[str, ...], says: str) -> None:
    (place.parent / "link").symlink_to(place / "tags")
    given = [one.format(w=place) for one in arguments]
    said = answered("report", "-w", str(place), *given)
    assert re.search(says, said)
    assert "\n" not in said.strip()


@pytest.mark.parametrize("spoilt", ["part", "metrics"])
def test_a_damaged_release_is_told_in_one_line(place: Path, tmp_path: Path, spoilt: str) -> None:
    folder = place / "releases" / "small" / "v1"
    if spoilt == "part":
        [path] = (folder / "sids").glob("*.parquet")
        path.write_bytes(path.read_bytes()[:200])
    else:
        metrics = json.loads((folder / "metrics.json").read_text())
        del metrics["rejects"]
        (folder / "metrics.json").write_text(json.dumps(metrics))
    for command in ("report", "suites"):
        said = answered(command, "small", "--to", str(tmp_path / "to"), "-w", str(place))
        assert f"{folder}: a release there holds something else than expected" in said
        assert "\n" not in said.strip()
        assert not (tmp_path / "to").exists()


def test_a_release_of_before_has_a_page_made_anew(place: Path, tmp_path: Path) -> None:
    """Without what releases did not keep at first."""
    folder = place / "releases" / "small" / "v1"
    metrics = json.loads((folder / "metrics.json").read_text())
    del metrics["files"], metrics["tokenizer"]["soft"], metrics["collisions"]["category_purity"]
    (folder / "metrics.json").unlink()
    files.write_json(folder / "metrics.json", metrics)
    (folder / "report.html").unlink()
    assert "expected the release's own page, got none" in answered("report", "small", "-w", str(place))
    answered("report", "small", "--to", str(tmp_path / "x.html"), "-w", str(place))
    page = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert set(figures_of(page)) == set(figures_of(page_of(small_folder(place, page))))


def small_folder(place: Path, page: str) -> Path:
    """Give a folder with the page, to read it as another release's own."""
    (place / "report.html").write_text(page, encoding="utf-8")
    return place


def test_an_append_tells_of_its_base_while_that_is_there(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quickly(monkeypatch)
    run_append(more_dump(tmp_path), place)
    target = str(tmp_path / "x.html")
    answered("report", "small@v2", "--to", target, "-w", str(place))
    assert "Changes since small@v1" in Path(target).read_text(encoding="utf-8")
    first = place / "releases" / "small" / "v1"
    record = json.loads((first / "release.json").read_text())
    (first / "release.json").unlink()
    files.write_json(first / "release.json", {**record, "fingerprint": "0" * len(record["fingerprint"])})
    answered("report", "small@v2", "--to", target, "-w", str(place))
    assert f"small@v1 {OTHER}" in Read(Path(target).read_text(encoding="utf-8")).text
    shutil.rmtree(first)
    answered("report", "small@v2", "--to", target, "-w", str(place))
    read = Read(Path(target).read_text(encoding="utf-8"))
    assert "small@v1 is not there any more, or cannot be read." in read.text
    assert "append of small@v1" in read.text
    assert "IDs kept" not in read.text


def test_a_store_has_pages_too(store: Store, small: Run, tmp_path: Path) -> None:  # noqa: F811
    plan = dataclasses.replace(small.plan, warehouse=store.machine("maker"))
    record: dict[str, Any] = finish(plan, small.outputs)
    store.machine("reader")
    found = json.loads(answered("report", "small", "--json", "-w", store.url))
    path = Path(found["path"])
    assert path.is_relative_to(store.tmp / "reader")
    assert files.sha256(path) == record["files"]["report.html"]["sha256"]
    answered("report", "small", "--to", str(tmp_path / "x.html"), "-w", store.url)
    assert figures_of((tmp_path / "x.html").read_text()) == figures_of(page_of(Release(path.parent).folder))
