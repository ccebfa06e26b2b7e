"""What built pages load from other hosts, which has to be nothing: they work without a network."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

LOADING = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "embed": "src",
    "object": "data",
}
LINKED = ("stylesheet", "preload", "preconnect", "dns-prefetch", "icon", "modulepreload", "manifest")
ELSEWHERE = re.compile(r"(?:https?:)?//", re.IGNORECASE)
IN_STYLE = re.compile(r"""(?:url\(|@import\s)\s*["']?((?:https?:)?//[^"')\s]+)""", re.IGNORECASE)


class _Loads(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        address = given.get(LOADING.get(tag, ""), "")
        if tag == "link" and set(given.get("rel", "").split()) & set(LINKED):
            address = given.get("href", "")
        told = [address, *(one.strip().split(" ")[0] for one in given.get("srcset", "").split(","))]
        self.found += [one for one in told if ELSEWHERE.match(one)]
        self.found += IN_STYLE.findall(given.get("style", ""))


def loads(html: str) -> list[str]:
    """Give the addresses on other hosts that a page loads; what it links to is no load.

    >>> loads(
    ...     '<a href="https://a.b">x</a><script src="//c.d/e.js"></script><style>@import "https://f.g";</style>'
    ... )
    ['//c.d/e.js', 'https://f.g']
    """
    parser = _Loads()
    parser.feed(html)
    return [
        *parser.found,
        *(
            one
            for css in re.findall(r"<style[^>]*>(.*?)</style>", html, re.DOTALL)
            for one in IN_STYLE.findall(css)
        ),
    ]


def of_site(site: Path) -> Iterator[str]:
    """Yield a line for each load from another host in a built site: of its pages and style sheets."""
    for path in sorted(site.rglob("*")):
        if path.suffix == ".html":
            found = loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".css":
            found = IN_STYLE.findall(path.read_text(encoding="utf-8"))
        else:
            continue
        yield from (f"{path.relative_to(site)} loads {address}" for address in dict.fromkeys(found))
