"""`release.md`: what a release is, for people; `release.json` says the same for programs.

Unlike `report.html`, which shows how good the IDs are, this shows where they come from and how to open them.
Whatever stands in a record may come from a dump, so that nothing of it reaches the page unescaped.
"""

import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sid_pipelines.sources import SOURCES
from sid_schemas.tables import TABLES

Facts = Mapping[str, Any]
PLAIN = re.compile(r"[\w@:+=,-][\w./@:+=,-]*")  # safe between backticks


def page(record: Facts, metrics: Facts) -> str:
    """Give the page of a release, published or about to be: without its number where it has none yet."""
    name = record["dataset"] + (f"@v{record['version']}" if "version" in record else "")
    parts = [
        f"# {text(name)}",
        _what(record, metrics),
        _opening(record),
        "## Where it comes from",
        *_licence(record),
        _table(
            ["raw file", "holds", "bytes", "SHA-256"],
            [[one["label"], one["role"], one["bytes"], one["sha256"]] for one in record["raw_files"]],
        ),
        "## What cleaning removed",
        _table(
            ["step", "interactions", "users", "items", "removed", "why"],
            [
                [row[key] for key in ("step", "interactions", "users", "items", "removed", "reason")]
                for row in metrics["ledger"]
            ],
        ),
        "## Tables",
        _table(
            ["table", "rows", "what it holds"],
            [[table, rows, meaning_of(table)] for table, rows in record["rows"].items()],
        ),
        "## Splits",
        _splits(metrics),
        "## Recipe, with every default",
        _table(["key", "value"], _settings(record["recipe"])),
        "## Encoders",
        _table(
            ["embedding", "made by", "numbers", "items with it", "weights", "template SHA-256"],
            [
                [
                    name,
                    one.get("model") or one.get("method"),
                    f"{one['dim']} {one['dtype']}",
                    f"{one['present']} of {one['items']}",
                    one.get("weights"),
                    one.get("template_sha256"),
                ]
                for name, one in record["embeddings"].items()
            ],
        ),
        "## What was fitted, and on what",
        _table(["part", "fitted on"], record["fit_scopes"].items()),
        "The SHA-256 of what the tokenizer was fitted on: " + text(metrics["tokenizer"].get("fit_sha256")),
        "## Seeds",
        _table(["key", "seed"], _seeds(record["recipe"])),
        "## How good the IDs are",
        _table(["measure", "value"], _headline(metrics)),
        _gates(record["gates"]),
        "## Stages",
        _table(
            ["stage", "key", "revision", "what it did"],
            [[label, one["key"], one["revision"], one["summary"]] for label, one in record["stages"].items()],
        ),
        "## Package versions",
        _table(["package", "version", "in"], _packages(record)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def text(value: Any) -> str:
    """Give a value as Markdown that shows it and does nothing else: one line, no HTML, no links.

    >>> text("a|b <script>"), text("f_1/x.dat"), text(None)
    ('a\\\\|b &lt;script&gt;', '`f_1/x.dat`', '')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    line = "".join(one if one.isprintable() else " " for one in str(value))
    line = " ".join(line.split())
    if PLAIN.fullmatch(line) and not line.isalpha():
        return f"`{line}`"
    line = re.sub(r"([\\`*\[\]|~#_!])", r"\\\1", html.escape(line, quote=False))
    # A space of no width keeps what looks like an address from becoming a link.
    return line.replace("://", ":&#8203;//").replace("www.", "www&#8203;.")


def meaning_of(table: str) -> str:
    """Give what a table holds, by its name."""
    if table in TABLES:
        return TABLES[table].doc
    kind, _, name = table.partition("_")
    return f"One {name} vector per item." if kind == "embeddings" else ""


def _what(record: Facts, metrics: Facts) -> str:
    rows, base = record["rows"], record.get("base")
    numbers = [f"{rows.get(name, 0):,} {name}" for name in ("items", "users", "interactions")]
    said = f"Semantic IDs of {numbers[0]}, with {numbers[1]} and {numbers[2]}. Fingerprint "
    said += text(record["fingerprint"])
    if "created" in record:
        said += f", created {text(record['created'])}"
    kind = record.get("kind", "build")
    if base and kind == "append":
        said += f".\nIt adds to {_release(record, base)}: no ID published there has moved"
    elif base:
        said += f".\nIt is a {text(kind)} of {_release(record, base)}: its IDs are new ones"
    added = metrics["split"].get("added")
    if added:
        said += ". Added: " + ", ".join(f"{text(number)} {text(name)}" for name, number in added.items())
    return f"{said}."


def _release(record: Facts, base: Facts) -> str:
    ref = f"{record['dataset']}@v{base['version']}"
    return f"{text(ref)} (fingerprint {text(base['fingerprint'])})"


def _opening(record: Facts) -> str:
    """Say how to open the folder, wherever it was copied to; no name of a dump's stands in this code."""
    return """## Open it

In Python, from this folder:

```python
import sidmill

release = sidmill.Release(".")
release.table("sids")           # pyarrow.Table; pandas and polars read the folder sids/ as well
release.sequences("train")      # a map-style torch Dataset of token ids
release.tokenizer()             # encodes the vectors of new items
```

In DuckDB, from this folder:

```sql
select item_id, text from 'sids/*.parquet' limit 5;
```

`release.json` says what stands here, and more, for programs; `report.html` shows it in pictures;
`sidmill verify` tells whether every file is still what was published."""


def _licence(record: Facts) -> Iterator[str]:
    kind = record["recipe"]["source"]["kind"]
    source = SOURCES.get(kind) if isinstance(kind, str) else None
    if source:
        yield f"A dump of the kind {text(kind)} ({text(source.url)}). Its licence: {text(source.licence)}."


def _settings(recipe: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Give every key of the recipe that says something, under its dotted name."""
    for name, value in _entries(recipe):
        listed = value if isinstance(value, list) else [value]
        if any(isinstance(one, Mapping) for one in listed):
            yield from _settings(value, f"{prefix}{name}.")
        elif value not in (None, "", []):
            yield prefix + name, ", ".join(map(str, value)) if isinstance(value, list) else value


def _seeds(recipe: Any) -> list[tuple[str, Any]]:
    return [(key, str(value)) for key, value in _settings(recipe) if key.rpartition(".")[2].endswith("seed")]


def _entries(value: Any) -> Iterable[tuple[str, Any]]:
    """Give what is inside a section; of a list of sections each under its own name."""
    if isinstance(value, Mapping):
        return [(str(name), inner) for name, inner in value.items()]
    return [(str(one.get("name", n) if isinstance(one, Mapping) else n), one) for n, one in enumerate(value)]


def _headline(metrics: Facts) -> Iterator[tuple[str, Any]]:
    resolved = metrics["collisions"]
    yield "items with a SID of their own", f"{resolved['after']['uniquely_identified']:.2%}"
    yield "collision rate before resolution", resolved["before"]["collision_rate"]
    yield "collision rate after", resolved["after"]["collision_rate"]
    yield "largest group of items with one SID", resolved["after"]["max_group"]
    for level in resolved["levels"]:
        used = f"{level['used']} of {level['codes']}, perplexity {level['perplexity_share']:.3f}"
        yield f"codes used on level {level['level']}", used
    held = metrics["tokenizer"].get("reconstruction") or {}
    for name, said in (("fit", "fitted items"), ("held_out", "held-out items")):
        if held.get(name):
            yield f"relative error of reconstruction, {said}", held[name]["relative_error"]
    yield "of ten nearest by cosine, also nearest by SID", resolved["neighbour_overlap_at_10"]
    yield "of ten nearest by users, also nearest by SID", resolved["cf_neighbour_overlap_at_10"]
    yield "raw rows rejected", metrics["rejects"]


def _splits(metrics: Facts) -> str:
    split, audit = metrics["split"], metrics["split"]["audit"]
    samples = ", ".join(f"{number:,} {text(name)}" for name, number in metrics["samples"].items())
    return (
        f"Protocol {text(split['protocol'])}: {samples} samples. Equal times are ordered by "
        f"{text(split['ties'])}; {audit['test_tie_rate']:.2%} of test targets share their time with the "
        f"event before. Known leak: {text(audit['leaks'])}."
    )


def _gates(gates: Sequence[Facts]) -> str:
    warned = [one for one in gates if one["verdict"] != "ok"]
    said = f"{len(gates) - len(warned)} of {len(gates)} gate checks hold"
    if not warned:
        return f"{said}."
    columns = ["table", "check", "measured", "expected", "why"]
    rows = [[one[name] for name in columns] for one in warned]
    return f"{said}. These were warned of:\n\n{_table(columns, rows)}"


def _packages(record: Facts) -> list[list[str]]:
    """Give every package version that a stage ran with; stages are named where they differ."""
    found: dict[tuple[str, str], list[str]] = {}
    for label, one in record["stages"].items():
        for name, version in one["packages"].items():
            found.setdefault((name, version), []).append(label)
    everywhere = len(record["stages"])
    return [
        [name, version, "all stages" if len(labels) == everywhere else ", ".join(labels)]
        for (name, version), labels in sorted(found.items())
    ]


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Give a Markdown table, or a word where it has no rows."""
    lines = [f"| {' | '.join(text(value) for value in row)} |" for row in rows]
    if not lines:
        return "None."
    head = f"| {' | '.join(columns)} |\n| {' | '.join('---' for _ in columns)} |"
    return "\n".join([head, *lines])
