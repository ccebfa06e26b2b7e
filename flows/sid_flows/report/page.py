"""The whole page: sections in the order of what matters, in a document that lets nothing in or out.

Its Content-Security-Policy forbids all network, and every script but two, which it names by their SHA-256:
the library and the lines that draw with it. What stands in data cannot become a third.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from html import escape
from importlib import resources
from typing import Any

import duckdb

from sid_flows.report.beside import beside
from sid_flows.report.changes import changes as changes_section
from sid_flows.report.changes import churn
from sid_flows.report.codes import codes
from sid_flows.report.collisions import collisions
from sid_flows.report.drift import drift
from sid_flows.report.embeddings import embeddings, likeness
from sid_flows.report.gates import gates, summary
from sid_flows.report.ledger import ledger
from sid_flows.report.library import library, policy_hash
from sid_flows.report.lineage import lineage
from sid_flows.report.map import items_map
from sid_flows.report.markup import section
from sid_flows.report.neighbours import Example, chosen, neighbours
from sid_flows.report.split import split
from sid_flows.report.tables import Tables, opened
from sid_flows.report.tree import tree
from sid_flows.report.vectors import look
from sid_flows.report.verdict import verdict
from sid_warehouse.diff import Side

HEADLINE = re.compile(r'<section id="([a-z_]+)"><h2>(.*?)</h2>')


def render(side: Side, changes: Mapping[str, Any] | None = None, why: str = "") -> str:
    """Give the page of a release, published or about to be.

    changes: what `sid_warehouse.diff.compare` found of it and the release that it goes on from, if any. why:
    there are none, where it goes on from one. The same release gives the same page; only seconds differ from
    one build to the next.
    """
    with opened(side) as tables:
        record = side.record
        name = record["dataset"] + (f"@v{record['version']}" if "version" in record else "")
        kind, base = record.get("kind", "build"), record.get("base")
        went_on = f"{kind} of {record['dataset']}@v{base['version']}, " if base else ""
        head = (
            f'<header><h1>{escape(name)}</h1><p class="soft">{escape(went_on)}fingerprint '
            f"<code>{escape(record['fingerprint'])}</code>, {escape(summary(record['gates']))}</p></header>"
        )
        body = "\n".join([head, verdict(tables, changes), *_sections(tables, changes, why)])
    links = "".join(f'<li><a href="#{one}">{title}</a></li>' for one, title in HEADLINE.findall(body))
    return document(f"{name} - sidmill", f'<nav aria-label="Sections"><ul>{links}</ul></nav>', body)


def document(title: str, nav: str, body: str) -> str:
    """Give the document around a page's body."""
    style, script, plotly = _resource("page.css"), _resource("page.js"), library()
    policy = (
        f"default-src 'none'; script-src '{policy_hash(script.encode())}' '{plotly.sha256}'; "
        "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    undrawn = (
        "Figures need a browser with JavaScript and DecompressionStream (2023 or later). Every number of "
        "theirs that matters stands in a table."
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>"
        f'<a class="skip" href="#content">To the content</a><div class="frame">{nav}<main id="content">\n'
        f"{body}\n"
        f'<noscript><p class="note">{undrawn}</p></noscript><p class="note" id="undrawn" hidden>{undrawn}</p>'
        f"<footer>Made by sidmill; figures by plotly.js {escape(plotly.version)} (MIT licence), which stands "
        "in this page. Nothing is asked of any network.</footer></main></div>"
        f'<script type="text/plain" id="library">{plotly.packed}</script>'
        f"<script>{script}</script></body></html>\n"
    )


def _sections(tables: Tables, changes: Mapping[str, Any] | None, why: str) -> Iterator[str]:
    metrics, base = tables.metrics, tables.record.get("base")
    if changes:
        yield changes_section(changes)
    elif base:
        title = f"Changes since {tables.record['dataset']}@v{base['version']}"
        yield section("changes", title, why or "Not compared here; `sidmill diff` compares releases.", [])
    if "churn" in metrics:
        yield churn(metrics["churn"])
    if drifted := drift(tables):
        yield drifted
    yield ledger(tables)
    yield _bounded(tables, "codes", "Codes", codes)
    yield _bounded(tables, "collisions", "Collisions", collisions)
    yield _bounded(tables, "tree", "SID tree", tree)
    examples = _examples(tables)
    looked = look(tables, [one.item for one in examples])
    yield _bounded(tables, "map", "Map of items", lambda own: items_map(own, looked))
    yield _bounded(tables, "neighbours", "Neighbours", lambda own: neighbours(own, examples, looked))
    yield likeness(tables)
    yield _bounded(tables, "split", "Split", split)
    yield embeddings(tables)
    yield from beside(tables)
    yield lineage(tables)
    yield gates(tables)


def _bounded(tables: Tables, name: str, title: str, made: Callable[[Tables], str]) -> str:
    """Give a section, or one that says so where it needs more memory than the report may have.

    A release that took hours must not be lost for a figure.
    """
    try:
        return made(tables)
    except duckdb.OutOfMemoryException:
        return section(name, title, "Left out: it needs more memory than a report may have.", [])


def _examples(tables: Tables) -> list[Example]:
    """Give the items to look at, or none where sorting the items needs more memory than there is."""
    try:
        return chosen(tables)
    except duckdb.OutOfMemoryException:
        return []


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
