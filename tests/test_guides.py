"""Every block of code in the written guides runs, and every link leads somewhere; guides.py and guided.py
have how."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from guided import page_folder, prepared, run_page
from guides import LANGUAGES, bare_commands, blocks, named_test_is_there, pages
from helpers import ROOT, Run

from handbook.pages import generated

PAGES = pages()
WRITTEN = [name for name in PAGES if name not in generated()]
BLOCKS = [block for name, text in PAGES.items() for block in blocks(name, text)]
REASONS = 18  # why blocks are not run here; more would be a habit
NOT_RUN, RUN_BY = 45, 26  # blocks at most: a new one that does not run here is to be argued for


@pytest.fixture
def folder(tmp_path: Path, example: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page's own folder, with the example's release in it."""
    made = page_folder(tmp_path / "page", example.plan.warehouse)
    prepared(monkeypatch, made)
    return made


@pytest.mark.parametrize("name", WRITTEN)
def test_the_blocks_of_a_guide_do_what_it_says(name: str, folder: Path) -> None:
    run_page(name, PAGES[name], folder)


@pytest.mark.parametrize("name", PAGES)
def test_no_command_stands_where_no_test_runs_it(name: str) -> None:
    assert bare_commands(name, PAGES[name]) == []
    for block in blocks(name, PAGES[name]):
        assert block.language in LANGUAGES, f"{block.place}: a block of {block.language or 'no language'!r}"


def test_why_blocks_do_not_run_is_said_and_rare(record_property: Callable[[str, object], None]) -> None:
    reasons = Counter(block.why for block in BLOCKS if block.how == "not run")
    tests = Counter(block.why for block in BLOCKS if block.how == "run by")
    for how, told in (("not run", reasons), ("run by", tests)):
        print(f"{how}: {told.total()} of {len(BLOCKS)} blocks")
        for why, times in sorted(told.items()):
            print(f"{how}, {times} times: {why}")
        record_property(how, dict(told))
    assert len(reasons) <= REASONS
    assert reasons.total() <= NOT_RUN
    assert tests.total() <= RUN_BY
    assert max(tests.values()) <= 4  # one test does not stand for a family of pages
    assert all(len(why) > 8 for why in reasons)
    assert [name for name in tests if not named_test_is_there(name)] == []


def test_a_page_that_says_what_is_not_so_fails(folder: Path) -> None:
    with pytest.raises(AssertionError, match=r"x\.md:3: `sidmill releases` gave"):
        run_page("x.md", "# x\n```console\n$ sidmill releases\nref\n```\n", folder)
    with pytest.raises(AssertionError, match="gave 2"):
        run_page("x.md", "```sh\nsidmill no-such-command\n```\n", folder)
    with pytest.raises(AssertionError, match="gave 0"):
        run_page("x.md", "```console\n$ sidmill releases\nsidmill: no\n```\n", folder)
    with pytest.raises(Exception, match="levles"):
        run_page("x.md", "```toml\n[tokenize]\nlevles = [4]\n```\n", folder)
    with pytest.raises(NameError):
        run_page("x.md", "```python\nmissing\n```\n", folder)
    with pytest.raises(AssertionError, match="does not end"):
        run_page("x.md", "```python\nx = 1\n", folder)
    assert bare_commands("x.md", "Say:\n\n    $ sidmill run\n")
    assert bare_commands("x.md", "```\n$ sidmill run\n```\n")


def test_a_page_keeps_its_names_files_and_folder(folder: Path) -> None:
    page = (
        '# x\n```toml\n# one.toml\ndataset = "one"\n[source]\nkind = "movietweetings"\npath = "examples/data/'
    )
    page += 'movietweetings-50k"\n```\n```console\n$ sidmill plan one.toml\nstage ... status ...\n```\n'
    page += "```python\nx = 1\n```\n```python\nassert x == 1\n```\n"
    page += "```sql\nselect count(*) from movietweetings.sids; from releases\n```\n"
    page += "<!-- not run: needs a cluster -->\n```sh\nfalse\n```\n"
    assert run_page("x.md", page, folder) == 5
    assert (folder / "one.toml").is_file()


MADE = {ROOT / "docs" / path: text for path, text in generated().items()}
LINK = re.compile(r"(?<!!)\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)")


def anchors(text: str) -> set[str]:
    """Give what a heading may be called by in a link, as GitHub and mkdocs both have it."""
    found: Counter[str] = Counter()
    names = set(re.findall(r'<a (?:id|name)="([^"]+)"', text))
    outside = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^#{1,6} (.+)$", outside, re.MULTILINE):
        bare = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        name = re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", bare))
        names.add(f"{name}-{found[name]}" if found[name] else name)
        found[name] += 1
    return names


@pytest.mark.parametrize("name", [*WRITTEN, "CHANGELOG.md"])
def test_every_link_leads_somewhere(name: str) -> None:
    path = ROOT / name
    text = re.sub(r"^ *```.*?^ *```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in LINK.findall(text):
        if re.match(r"https?:", link):
            assert re.fullmatch(r"https?://[a-z0-9.-]+\.[a-z]{2,}(:\d+)?(/[^\s]*)?", link), link
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file) if file else path
        made = MADE.get(target.resolve())
        assert made or target.exists(), f"{name}: {link}"
        if anchor:
            assert anchor in anchors(made or target.read_text(encoding="utf-8")), f"{name}: {link}"
