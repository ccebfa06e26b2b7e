"""`release.md` says what `release.json` says, for people, and nothing in it does anything."""

import copy
import re

import pytest
from attacks import ESCAPES, INJECTION, MARKUP
from helpers import Run

from sid_pipelines.release_page import page, text


def rows_under(heading: str, markdown: str) -> list[list[str]]:
    """Give the cells of the table under a heading, its head and dashes left out."""
    section = markdown.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_page_has_the_lineage(small: Run) -> None:
    record, metrics = small.release.record, small.release.metrics
    made = page(record, metrics)
    assert made == page(copy.deepcopy(record), copy.deepcopy(metrics))
    assert made.startswith("# `small@v1`\n")
    for file in record["raw_files"]:
        assert f"`{file['sha256']}`" in made
    for entry in record["stages"].values():
        assert f"| `{entry['key']}` | {entry['revision']} |" in made
    [embedding] = record["embeddings"].values()
    assert f"`{embedding['weights']}` | `{embedding['template_sha256']}` |" in made
    assert f"`{metrics['tokenizer']['fit_sha256']}`" in made
    assert "Its licence: MIT, Simon Dooms." in made
    first = metrics["ledger"][0]
    counts = [str(first[name]) for name in ("interactions", "users", "items", "removed")]
    assert rows_under("What cleaning removed", made)[0] == ["raw", *counts, first["reason"]]
    tables = rows_under("Tables", made)
    assert {cells[0].strip("`"): int(cells[1]) for cells in tables} == record["rows"]
    assert all(cells[2] for cells in tables)
    assert rows_under("What was fitted, and on what", made)[-1] == ["tokenizer", "items with a train event"]
    packages = {cells[0].strip("`"): cells[1].strip("`") for cells in rows_under("Package versions", made)}
    assert packages == record["stages"]["ingest"]["packages"]
    assert f"{len(record['gates'])} of {len(record['gates'])} gate checks hold." in made


def test_the_page_has_every_seed(small: Run) -> None:
    record = copy.deepcopy(small.release.record)
    record["recipe"]["embed"].append({"name": "cf", "seed": 7, "draw": {"item_seed": 8}})
    found = rows_under("Seeds", page(record, small.release.metrics))
    assert [[name.strip("`"), int(seed.strip("`"))] for name, seed in found] == [
        ["split.seed", 0],
        ["pairs.seed", 0],
        ["embed.cf.seed", 7],
        ["embed.cf.draw.item_seed", 8],
        ["tokenize.seed", 0],
    ]


def test_the_lines_that_open_a_release_do(small: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import duckdb

    made = page(small.release.record, small.release.metrics)
    monkeypatch.chdir(small.release.folder)
    [python] = re.findall(r"```python\n(.*?)```", made, re.DOTALL)
    exec(python, {})
    [query] = re.findall(r"```sql\n(.*?)```", made, re.DOTALL)
    with duckdb.connect() as connection:
        assert len(connection.sql(query).fetchall()) == 5


def test_a_release_about_to_be_published_has_a_page(small: Run) -> None:
    """Its number, time and files are not known yet, and the page must not depend on them."""
    later = ("version", "created", "packages", "files", "format")
    record = {name: value for name, value in small.release.record.items() if name not in later}
    made = page(record, small.release.metrics)
    assert made.startswith("# small\n")
    assert record["fingerprint"] in made


@pytest.mark.parametrize("kind", ["append", "retokenize"])
def test_what_it_goes_on_from_is_told(small: Run, kind: str) -> None:
    base = {"version": 3, "fingerprint": "0123abcd"}
    metrics = copy.deepcopy(small.release.metrics)
    metrics["split"]["added"] = {"interactions": 5, "users": 1, "items": 2}
    made = page({**small.release.record, "kind": kind, "base": base}, metrics)
    said = {"append": "It adds to", "retokenize": "It is a retokenize of"}[kind]
    assert f"{said} `small@v3` (fingerprint `0123abcd`)" in made
    assert "Added: 5 interactions, 1 users, 2 items." in made


def test_what_was_warned_of_is_told(small: Run) -> None:
    record = copy.deepcopy(small.release.record)
    record["gates"][0] |= {"verdict": "warning", "why": "because | of\nit"}
    made = page(record, small.release.metrics)
    total = len(record["gates"])
    assert f"{total - 1} of {total} gate checks hold. These were warned of:" in made
    assert "| because \\| of it |" in made


HOSTILE = (
    MARKUP,
    INJECTION,
    ESCAPES,
    "a|b",
    "a\\|b",
    "a\n| b |\n# c",
    "[x](javascript:alert(1))",
    "```\n<b>",
    "![](x)",
)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_values_stay_in_their_cells(small: Run, hostile: str) -> None:
    record, metrics = copy.deepcopy(small.release.record), copy.deepcopy(small.release.metrics)
    plain = page(record, metrics)
    record["raw_files"][0] |= {"label": hostile, "role": hostile, "sha256": hostile}
    record["recipe"]["source"]["kind"] = record["recipe"]["embed"][0]["template"] = hostile
    record["recipe"][hostile] = {hostile: hostile}
    record["embeddings"]["embeddings_text"]["model"] = record["fingerprint"] = hostile
    record["fit_scopes"][hostile] = record["stages"]["clean"]["summary"] = hostile
    record["stages"]["clean"]["packages"] = {hostile: hostile}
    metrics["ledger"][0]["reason"] = metrics["split"]["audit"]["leaks"] = hostile
    made = page(record, metrics)
    assert made != plain
    assert not [active for active in ("<script", "<img", "<b>", "\x1b", "\x07") if active in made]
    assert not re.search(r"(?<!\\)\]\(", made)
    assert made.count("```") == plain.count("```")
    headings = [line for line in made.splitlines() if line.startswith("#")]
    assert headings == [line for line in plain.splitlines() if line.startswith("#")]
    lines = made.splitlines()
    for number, line in enumerate(lines):  # a row has as many cells as the dashes over it, none is lost
        if line.startswith("| ---"):
            cells = line.count("|")
            for row in lines[number + 1 :]:
                if not row.startswith("|"):
                    break
                assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == cells, row


def test_text_is_shown_as_it_is_where_it_is_plain() -> None:
    assert text("leave-one-out") == "`leave-one-out`"
    assert text("what ingest could read") == "what ingest could read"
    assert text(True) == "yes"
    assert text(1_000_000) == "1,000,000"
    assert text(0.123456) == "0.1235"
    assert text("http://x y") == "http:&#8203;//x y"
