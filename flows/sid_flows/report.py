"""`report.html`: one self-contained page that says whether the new IDs are good. No script, no network."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from sid_flows.markup import bar, code, table
from sid_flows.report_changes import changes as changes_section
from sid_flows.report_changes import churn
from sid_warehouse.stages import StageOutput

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --bar: #4a7dbd; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem } h2 { font-size: 1.1rem; margin-top: 2.2rem }
.wide { overflow-x: auto } .soft { opacity: .7 }
table { border-collapse: collapse; min-width: 100% }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top }
td:last-child:not(.number) { min-width: 12rem }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
code { font-size: .9em } .bar { background: var(--soft); min-width: 6rem; height: .8rem }
.bar span { display: block; background: var(--bar); height: 100% }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .8rem }
dt { opacity: .7; font-size: .85em } dd { margin: 0; font-size: 1.3rem }
"""
GROUPS, TITLES = 6, 8  # first codes shown as examples, titles of each


def render(
    record: Mapping[str, Any],
    metrics: Mapping[str, Any],
    outputs: Mapping[str, StageOutput],
    changes: Mapping[str, Any] | None = None,
) -> str:
    """Give the page for a release about to be published.

    changes: what `sid_warehouse.diff.compare` found of it and the release that it goes on from, if any.
    """
    resolved, split = metrics["collisions"], metrics["split"]
    audit = split["audit"]
    page = [
        f"<h1>{escape(record['dataset'])}</h1>",
        f'<p class="soft">fingerprint <code>{record["fingerprint"]}</code>, {_gates(record["gates"])}</p>',
        _headline(record, metrics),
        *(f"<p>{escape(_sentence(one['says']))}</p>" for one in metrics["published_statistics"]),
        *(changes_section(changes) if changes else []),
        *(churn(metrics["churn"]) if "churn" in metrics else []),
        "<h2>What was read</h2>",
        table(
            ["file", "rows", "records", "left out", "rejected", "why"],
            _files_read(outputs["ingest"].facts["files"] or {}),  # a release of before 0.2 has not kept it
        ),
        "<h2>What cleaning removed</h2>",
        table(
            ["step", "interactions", "users", "items", "removed", "kept", "reason"],
            _waterfall(metrics["ledger"]),
        ),
        "<h2>Embeddings</h2>",
        table(
            [
                "embedding",
                "model",
                "numbers",
                "has it",
                "coverage",
                "without it",
                "zero",
                "duplicates",
                "fit",
            ],
            _embeddings(metrics["embeddings"]),
        ),
        f"<p>{escape(_tokenized(metrics))}</p>",
        "<h2>Codes</h2>",
        f"<p>{escape(metrics['tokenizer']['tokenizer'])}, fitted on "
        f"{metrics['tokenizer']['fit_items']:,} {escape(metrics['tokenizer']['fit_scope'])}. Use of each "
        "level, after resolution; perplexity as a share of the codes, 1 being even use.</p>",
        table(
            ["level", "codes", "used", "dead", "perplexity", "entropy / ln K", "Gini", "largest", "prefixes"],
            [
                [
                    one["level"],
                    one["codes"],
                    one["used"],
                    one["dead"],
                    bar(one["perplexity_share"]),
                    round(one["entropy_ratio"], 3),
                    round(one["gini"], 3),
                    one["max_count"],
                    one["prefixes"],
                ]
                for one in resolved["levels"]
            ],
        ),
        f"<h2>Collisions</h2><p>Policy {escape(resolved['policy'])} moved {resolved['moved']:,} items.</p>",
        table(
            ["", "before", "after"],
            [
                [name.replace("_", " "), value, resolved["after"][name]]
                for name, value in resolved["before"].items()
            ],
        ),
        "<h2>Do like items have like IDs?</h2>",
        table(["", "all items", "items fitted on"], _overlaps(resolved)),
        *_purity(resolved["category_purity"]),
        "<h2>Items under the same first code</h2>",
        table(["code", "items", "examples, most popular first"], _examples(outputs)),
        f"<h2>Split: {escape(split['protocol'])}</h2><p>Equal times are ordered by {escape(split['ties'])}. "
        f"{audit['test_ties']:,} test targets ({audit['test_tie_rate']:.2%}) share their time with the event "
        f"before: which of the two is the target is arbitrary. Known leak: {escape(audit['leaks'])}.</p>",
        table(
            ["finding", "rule", "events", "of", "what it says"], _findings(outputs["gates"].facts["findings"])
        ),
        "<h2>Lineage</h2>",
        table(
            ["raw file", "bytes", "SHA-256"],
            [[one["label"], one["bytes"], code(one["sha256"])] for one in record["raw_files"]],
        ),
        table(
            ["stage", "key", "what it did", "seconds"],
            [
                [name, code(one["key"]), one["summary"], f"{one['seconds']:.1f}"]
                for name, one in record["stages"].items()
            ],
        ),
        f"<details><summary>All {len(record['gates'])} gate checks</summary>",
        table(
            ["table", "check", "measured", "expected", "verdict", "why"],
            [
                [one[name] for name in ("table", "check", "measured", "expected", "verdict", "why")]
                for one in record["gates"]
            ],
        ),
        "</details>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(record['dataset'])} - sidmill</title><style>{STYLE}</style></head><body>"
        + "\n".join(page)
        + "</body></html>\n"
    )


def _gates(results: Sequence[Mapping[str, Any]]) -> str:
    warned = sum(one["verdict"] == "warning" for one in results)
    held = f"{len(results) - warned} gate checks hold"
    return f"{held}, {warned} of [gates] leakage warn" if warned else held


def _headline(record: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    rows, after = record["rows"], metrics["collisions"]["after"]
    held = metrics["tokenizer"]["reconstruction"]
    numbers = {
        "items": f"{rows['items']:,}",
        "users": f"{rows['users']:,}",
        "interactions": f"{rows['interactions']:,}",
        "rejected rows": f"{metrics['rejects']:,}",
        "uniquely identified": f"{after['uniquely_identified']:.1%}",
        "neighbour overlap at 10": _share(metrics["collisions"]["neighbour_overlap_at_10"]),
    }
    if held:  # None where codes do not decode to the vectors
        numbers["relative error, fitted"] = f"{held['fit']['relative_error']:.3f}"
        if held["held_out"]:
            numbers["relative error, held out"] = f"{held['held_out']['relative_error']:.3f}"
    return "<dl>" + "".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for k, v in numbers.items()) + "</dl>"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _files_read(seen: Mapping[str, Mapping[str, Any]]) -> Iterable[Sequence[Any]]:
    for label, one in seen.items():
        why = [f"{number:,} x {reason}" for reason, number in {**one["reasons"], **one["skipped"]}.items()]
        why += ["the file is cut off"] if one["cut_off"] else []
        yield [
            label,
            one["rows"],
            one["records"],
            sum(one["skipped"].values()),
            one["rejects"],
            "; ".join(why),
        ]


def _embeddings(embeddings: Mapping[str, Mapping[str, Any]]) -> Iterable[Sequence[Any]]:
    for name, one in embeddings.items():
        yield [
            name.removeprefix("embeddings_"),
            _model(one),
            f"{one['dim']} {one['dtype']}",
            one["present"],
            bar(one["present"] / max(one["items"], 1)),
            _without(one),
            one["zero_vectors"],
            one["duplicate_vectors"],
            one["fit_scope"],
        ]


def _model(one: Mapping[str, Any]) -> str:
    """Give what made the vectors; of a file its name, since folders are of one machine."""
    named: str = one.get("model") or one["method"]
    return Path(named).name if Path(named).is_absolute() else named


def _without(one: Mapping[str, Any]) -> str:
    """Give how many items lack the modality, what they get, and of images why."""
    if not one["missing"]:
        return "none"
    why = [f"{number:,} {name}" for name, number in one.get("images", {}).items() if number and name != "ok"]
    said = f"{one['missing']:,}: {one['missing_rule']}"
    return f"{said} ({', '.join(why).replace('_', ' ')})" if why else said


def _tokenized(metrics: Mapping[str, Any]) -> str:
    """Say which vectors were tokenized, and how many no quantizer can tell apart."""
    repeated = metrics["tokenizer"]["duplicate_vectors"]
    name = metrics["tokenizer"]["vectors"].removeprefix("embeddings_")
    said = f"Tokenized: {name}."
    if repeated:
        said += f" {repeated:,} items repeat another's vector exactly; no quantizer can tell them apart."
    return said


def _findings(findings: Sequence[Mapping[str, Any]]) -> Iterable[Sequence[Any]]:
    """Give the audit's findings, breaches first."""
    worst = {"breach": 0, "allowed": 1, "ok": 2}
    for one in sorted(findings, key=lambda one: worst[one["verdict"]]):
        rule = one["rule"].replace("_", " ") + (f", {one['split']}" if one.get("split") else "")
        yield [one["verdict"], rule, one["count"], one["of"], one["says"]]


def _overlaps(resolved: Mapping[str, Any]) -> Iterable[Sequence[Any]]:
    for name, said in (
        ("neighbour_overlap_at_10", "of ten nearest by cosine, also nearest by SID"),
        ("cf_neighbour_overlap_at_10", "of ten nearest by shared train users, also nearest by SID"),
    ):
        yield [said, _share(resolved[name]), _share(resolved[f"{name}_fit"])]


def _purity(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    if not rows:  # no categories, or codes without order
        return
    yield (
        "<p>Purity: share of items that have the commonest first category of their prefix; beside it the "
        "same after a shuffle, since short lists are pure by chance.</p>"
    )
    columns = ["length", "purity", "shuffled"]
    yield table(["prefix length", *columns[1:]], [[row[name] for name in columns] for row in rows])


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _waterfall(ledger: Sequence[Mapping[str, Any]]) -> Iterable[Sequence[Any]]:
    first = ledger[0]["interactions"]
    for row in ledger:
        numbers = [row[name] for name in ("step", "interactions", "users", "items", "removed")]
        yield [*numbers, bar(row["interactions"] / max(first, 1)), row["reason"]]


def _examples(outputs: Mapping[str, StageOutput]) -> Iterable[Sequence[Any]]:
    """Give the largest groups of items with one first code, and their most popular titles."""
    items = outputs["sequences"].read("items", ["title", "item_id", "popularity_train"]).to_pylist()
    tokens = outputs["collisions"].read("sids", ["tokens"])["tokens"].to_pylist()
    groups: dict[str, list[dict[str, Any]]] = {}
    for item, own in zip(items, tokens, strict=True):
        groups.setdefault(own[0], []).append(item)
    largest = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))[:GROUPS]
    for first, members in largest:
        members.sort(key=lambda item: (-item["popularity_train"], item["item_id"]))
        titles = (item["title"] or item["item_id"] for item in members[:TITLES])
        yield [code(first), len(members), "; ".join(titles)]
