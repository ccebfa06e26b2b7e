"""Publish: gather what the stages made into one release, with its metrics, lineage and report."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from sid_pipelines import published
from sid_pipelines.contents import contents_of, named_codes, published_tables
from sid_pipelines.embedded import embeddings_of
from sid_pipelines.gates import summary_of
from sid_pipelines.release_page import page
from sid_warehouse import catalog, files, parquet, releases
from sid_warehouse.diff import Side, compare
from sid_warehouse.reader import Release
from sid_warehouse.stages import StageOutput

REVISION = 8
FURTHER = ("churn", "pieces", "users")  # what not every release has
COMPARED = 2_000_000  # events, up to which the report has what changed since the base
Changes = Mapping[str, Any] | None
Render = Callable[[Side, Changes], str]


def fingerprint(keys: Mapping[str, str]) -> str:
    """Give the fingerprint of the release that stage outputs with these keys make."""
    return files.digest({"publish": REVISION, "stages": dict(keys)})[:16]


def publish(
    warehouse: Path,
    dataset: str,
    stages: Mapping[str, StageOutput],
    outputs: Mapping[str, StageOutput],
    recipe: Mapping[str, Any],
    raw_files: Sequence[Mapping[str, Any]],
    render: Render,
    *,
    kind: str = "build",
    base: StageOutput | None = None,
    copies: bool | None = None,
) -> dict[str, Any]:
    """Publish the outputs of all stages as one release and refresh the catalog.

    stages: the outputs by label, for the lineage. outputs: the same by the part that each plays. render
    makes `report.html` of the release as it will be, and of what changed since the base. kind: "build", or
    what went on from release `base`: "append" or "retokenize". copies: what the catalog is to be, see
    `catalog.refresh`. Publishing the same outputs again publishes nothing; the release that has them is
    given.
    """
    tables, contents = published_tables(outputs), contents_of(outputs)
    embedded = embeddings_of(outputs)
    hashes = {
        output.folder / name: entry["sha256"]
        for output in outputs.values()
        for name, entry in output.manifest["files"].items()
    }
    expected = {name: hashes[path] for name, path in contents.items()}
    record = {
        "dataset": dataset,
        "fingerprint": fingerprint({label: output.manifest["key"] for label, output in stages.items()}),
        "kind": kind,
        "base": None if base is None else _named(base),
        "recipe": recipe,
        "raw_files": raw_files,
        "ledger": outputs["clean"].facts["ledger"],
        "rows": {name: parquet.rows(folder, name) for name, folder in tables.items()},
        "embeddings": described_embeddings(embedded),
        "fit_scopes": {
            **{output.facts["name"]: output.facts["fit_scope"] for output in embedded.values()},
            "tokenizer": outputs["tokenize"].facts["fit_scope"],
        },
        "stages": {label: _lineage(output) for label, output in stages.items() if _is_stage(output)},
        "gates": summary_of(outputs["gates"]),
    }
    record["metrics"] = headline(outputs)
    with files.writing(warehouse) as scratch:
        metrics = gather_metrics(outputs)
        files.write_json(scratch / "metrics.json", metrics)
        draft = Side(record, metrics, tables, expected)
        changes = _changes(base, draft) if base else None
        pages = {
            "report.html": render(draft, changes),
            "release.md": page(record, metrics),
        }
        for name, text in pages.items():
            (scratch / name).write_text(text, encoding="utf-8")
        contents |= {name: scratch / name for name in ("metrics.json", *pages)}
        linked = base.folder if base else None  # what did not change is stored once
        release = releases.publish(
            warehouse, dataset, contents, record, expected=expected, linked_from=linked
        )
    catalog.refresh(warehouse, copies=copies)
    return release


def headline(outputs: Mapping[str, StageOutput]) -> dict[str, Any]:
    """Give the few numbers of metrics.json that a release is judged by first."""
    resolved = outputs["collisions"].facts
    names = ("collision_rate", "uniquely_identified", "max_group")
    overlaps = ("neighbour_overlap_at_10", "cf_neighbour_overlap_at_10")
    return {
        **{name: resolved["after"][name] for name in names},
        **{name: resolved[name] for name in overlaps},
        "reconstruction": outputs["tokenize"].facts["reconstruction"],
        "retrain": resolved.get("drift", {}).get("retrain", []),
    }


def described_embeddings(embedded: Mapping[str, StageOutput]) -> dict[str, Any]:
    """Give what each embedding table is, by its name; one written beside another has what is its own."""
    described = {}
    for output in embedded.values():
        described[output.facts["name"]] = output.facts
        for further in output.facts.get("further", []):
            described[further["name"]] = {**output.facts, "further": [], **further}
    return described


def gather_metrics(outputs: Mapping[str, StageOutput]) -> dict[str, Any]:
    """Give what `metrics.json` holds: the stages' facts under the names of the field."""
    tokenized, resolved = outputs["tokenize"].facts, outputs["collisions"].facts
    return {
        "ledger": outputs["clean"].facts["ledger"],
        "rejects": outputs["ingest"].facts["rejects"],
        "files": outputs["ingest"].facts["files"],
        "split": outputs["split"].facts,
        "samples": outputs["sequences"].facts["samples"],
        "item_pairs": outputs["pairs"].facts,
        "embeddings": described_embeddings(embeddings_of(outputs)),
        "tokenizer": tokenized,
        "collisions": resolved,
        "audit": outputs["gates"].facts["findings"],
        "published_statistics": published.compare(outputs),
        **{role: outputs[role].facts for role in FURTHER if role in outputs},
        **({"sids": _by_name(outputs)} if named_codes(outputs) else {}),
    }


def _by_name(outputs: Mapping[str, StageOutput]) -> dict[str, Any]:
    """Give the facts of embeddings that are tokenized each on its own, by their names."""
    return {
        name: {
            "tokenizer": outputs[f"tokenize {name}"].facts,
            "collisions": outputs[f"collisions {name}"].facts,
        }
        for name in named_codes(outputs)
    }


def _changes(base: StageOutput, draft: Side) -> dict[str, Any] | None:
    """Compare with the base; of a large one it would take longer than all the rest, and gates have judged."""
    if draft.record["rows"]["interactions"] > COMPARED:
        return None
    with closing(Release(base.folder)) as published:
        return compare(Side.of(published), draft)


def _is_stage(output: StageOutput) -> bool:
    return bool(output.manifest["stage"] != "release")


def _named(base: StageOutput) -> dict[str, Any]:
    record = base.manifest["record"]
    return {name: record[name] for name in ("version", "fingerprint")}


def _lineage(output: StageOutput) -> dict[str, Any]:
    manifest = output.manifest
    names = ("stage", "key", "revision", "params", "parents", "summary", "seconds", "created", "packages")
    return {name: manifest[name] for name in names}
