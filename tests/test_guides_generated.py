"""Every block of code in the pages that are made from code runs; a file of its own, for the other process."""

from pathlib import Path

import pytest
from guided import page_folder, prepared, run_page
from helpers import Run

from handbook.pages import generated

FAMILIES = sorted({path.partition("/")[0] for path in generated()})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, example: Run) -> Path:
    """One folder for all: these pages only ask."""
    return page_folder(tmp_path_factory.mktemp("generated") / "page", example.plan.warehouse)


@pytest.mark.parametrize("name", generated())
def test_the_blocks_of_a_page_do_what_it_says(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(monkeypatch, folder)
    assert run_page(name, generated()[name], folder) or name.endswith("index.md")
