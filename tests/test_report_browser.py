"""The report in a real browser: it draws in light and dark, on a phone and on paper, and asks nobody."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import Run, quickly, run_chain, small_dump
from reported import figures_of, page_of

CHROMIUM = "/usr/bin/chromium"
DRAWN = "html[data-ready]"
HOSTILE = "</script><img src=x onerror=alert(1)><a href='https//x.example'>&lt;b&gt; %{y} \u2028{{z}}"
BOXES = """[...document.querySelectorAll('#plot-tree .slice path')]
    .filter(e => e.getBoundingClientRect().height > 1).length"""
WIDE = """[...document.querySelectorAll('body *')]
    .filter(e => getComputedStyle(e).position !== 'absolute' && !e.closest('.wide, svg, .skip'))
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 90))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api")
    path = CHROMIUM if Path(CHROMIUM).exists() else shutil.which("chromium")
    if not path:
        pytest.skip("no chromium here: apt-get install chromium")
    with sync.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


class Opened:
    """A report in a page of its own, which may ask for nothing but itself; keeps what it said and asked."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.route("**/*", self._asked)
        self.own = path.as_uri()
        self.page.goto(self.own)

    def _asked(self, route: Any) -> None:
        self.asked.append(route.request.url)
        if route.request.url == self.own:
            route.continue_()
        else:
            route.abort()

    def drawn(self) -> "Opened":
        self.page.wait_for_selector(DRAWN, state="attached", timeout=120_000)
        return self

    def until(self, expression: str) -> None:
        """Wait for what will be; playwright's own way evaluates text in the page, which forbids it."""
        for _ in range(200):
            if self.page.evaluate(expression):
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"never came: {expression}")

    def assert_alone(self) -> None:
        assert self.said == []
        assert self.asked == [self.own]

    def colour(self) -> str:
        fill: str = self.page.evaluate(
            "getComputedStyle(document.querySelector('#plot-usage-1 .point path')).fill"
        )
        return fill


def test_the_example_draws_in_light_dark_and_on_a_phone(example: Run, browser: Any) -> None:
    path = example.release.folder / "report.html"
    opened = Opened(browser, path, color_scheme="light").drawn()
    page, figures = opened.page, figures_of(page_of(example.release.folder))
    heights = page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('.plot')].map(e => "
        "[e.id, e.querySelector('svg').getBoundingClientRect().height]))"
    )
    assert {f"plot-{name}" for name in figures} == set(heights)
    assert all(height > 100 for height in heights.values())
    assert page.locator("#plot-ledger .point").count() == 6
    assert page.locator("#plot-usage-1 .point").count() == 64
    assert page.locator("#plot-map .point").count() == 1342
    assert page.evaluate(BOXES) == 26  # all items, 24 first codes, other
    # Into a box, where its own children stand.
    page.locator("#plot-tree .slice").nth(1).click()
    opened.until(f"{BOXES} === 10")  # it, 8 of its children, other
    light = opened.colour()
    page.emulate_media(color_scheme="dark")
    opened.until(
        "getComputedStyle(document.querySelector('#plot-usage-1 .point path')).fill !== 'rgb(0, 114, 178)'"
    )
    assert (light, opened.colour()) == ("rgb(0, 114, 178)", "rgb(74, 168, 224)")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 28)"
    page.set_viewport_size({"width": 390, "height": 800})
    opened.until("document.querySelector('#plot-map .main-svg').getBoundingClientRect().width < 390")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate(WIDE) == []
    opened.assert_alone()
    opened.context.close()


def test_it_prints_in_light(example: Run, browser: Any) -> None:
    opened = Opened(browser, example.release.folder / "report.html", color_scheme="dark").drawn()
    dark = opened.colour()
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert (dark, opened.colour()) == ("rgb(74, 168, 224)", "rgb(0, 114, 178)")
    opened.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert opened.colour() == dark
    opened.assert_alone()
    opened.context.close()


def test_without_scripts_it_can_be_read(example: Run, browser: Any) -> None:
    opened = Opened(browser, example.release.folder / "report.html", java_script_enabled=False)
    page = opened.page
    assert page.locator("noscript p").is_visible()
    assert not page.locator(".plot").first.is_visible()
    assert page.get_by_role("cell", name="27,329").first.is_visible()
    assert page.get_by_role("heading", name="Collisions", exact=True).is_visible()
    assert page.get_by_role("navigation").get_by_role("link").count() == 11
    opened.assert_alone()
    opened.context.close()


def test_titles_of_data_are_shown_and_do_nothing(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quickly(monkeypatch)
    recipe = small_dump(tmp_path)
    movies = tmp_path / "dump" / "movies.dat"
    movies.write_text(movies.read_text().replace("Film", HOSTILE), encoding="utf-8")
    release = run_chain(recipe, tmp_path / "w").release
    opened = Opened(browser, release.folder / "report.html").drawn()
    page = opened.page
    box = page.locator("#plot-tree .slice").nth(1).text_content()
    assert "</script><img src=x onerror=alert(1)>" in box
    assert page.locator("img, a[href^='http']").count() == 0
    # What is let in by the page's own policy: not even a script that the page itself would add.
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.x = 1'}))"
    )
    assert page.evaluate("window.x") is None
    assert len(opened.said) == 1
    assert "Content Security Policy" in opened.said[0]
    assert opened.asked == [opened.own]
    opened.context.close()


def test_a_browser_that_cannot_unpack_says_so(example: Run, browser: Any) -> None:
    opened = Opened(browser, example.release.folder / "report.html", java_script_enabled=True)
    opened.context.close()
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script("delete window.DecompressionStream")
    page.goto(opened.own)
    page.wait_for_selector("#undrawn", state="visible", timeout=60_000)
    assert page.evaluate("document.querySelector('.plot').checkVisibility()") is False
    assert (
        json.loads(page.evaluate("JSON.stringify(document.documentElement.classList.contains('drawn'))"))
        is False
    )
    context.close()
