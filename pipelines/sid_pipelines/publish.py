"""Publish: gather what the stages made into one release, with its metrics, lineage and report."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sid_pipelines import published
from sid_pipelines.embedded import embeddings_of
from sid_pipelines.gates import published_tables, summary_of
from sid_warehouse import catalog, files, parquet, releases
from sid_warehouse.stages import StageOutput

REVISION = 4
Render = Callable[[Mapping[str, Any], Mapping[str, Any], Mapping[str, StageOutput]], str]
EXTRA_FILES: Mapping[str, tuple[str, ...]] = {
    "sequences": ("sequences.arrow", "train.arrow", "valid.arrow", "test.arrow"),
    "collisions": (
        "trie.safetensors",
        "vocabulary.json",
        "collisions/policy.json",
        "collisions/state.safetensors",
    ),
    "tokenize": ("tokenizer/tokenizer.json", "tokenizer/tokenizer.safetensors", "tokenizer/fit.json"),
    "gates": ("gates.json",),
}


def fingerprint(keys: Mapping[str, str]) -> str:
    """Give the fingerprint of the release that stage outputs with these keys make."""
    return files.digest({"publish": REVISION, "stages": dict(keys)})[:16]


def publish(
    warehouse: Path,
    dataset: str,
    outputs: Mapping[str, StageOutput],
    recipe: Mapping[str, Any],
    raw_files: Sequence[Mapping[str, Any]],
    render: Render,
) -> dict[str, Any]:
    """Publish the outputs of all stages as one release and refresh the catalog.

    render makes `report.html` from (record, metrics, outputs). Publishing the same outputs again
    publishes nothing; the release that has them is given.
    """
    tables = published_tables(outputs)
    contents = {
        part.relative_to(folder).as_posix(): part
        for name, folder in tables.items()
        for part in parquet.parts(folder, name)
    }
    for stage, names in EXTRA_FILES.items():
        contents |= {name: outputs[stage].folder / name for name in names}
    embedded = embeddings_of(outputs)
    for output in embedded.values():  # fitted transforms and the like
        kept = (name for name in output.manifest["files"] if not name.endswith(".parquet"))
        contents |= {name: output.folder / name for name in kept}
    hashes = {
        output.folder / name: entry["sha256"]
        for output in outputs.values()
        for name, entry in output.manifest["files"].items()
    }
    expected = {name: hashes[path] for name, path in contents.items()}
    record = {
        "dataset": dataset,
        "fingerprint": fingerprint({name: output.manifest["key"] for name, output in outputs.items()}),
        "recipe": recipe,
        "raw_files": raw_files,
        "rows": {name: parquet.rows(folder, name) for name, folder in tables.items()},
        "embeddings": described_embeddings(embedded),
        "fit_scopes": {
            **{output.facts["name"]: output.facts["fit_scope"] for output in embedded.values()},
            "tokenizer": outputs["tokenize"].facts["fit_scope"],
        },
        "stages": {name: _lineage(output) for name, output in outputs.items()},
        "gates": summary_of(outputs["gates"]),
    }
    with files.writing(warehouse) as scratch:
        metrics = gather_metrics(outputs)
        files.write_json(scratch / "metrics.json", metrics)
        (scratch / "report.html").write_text(render(record, metrics, outputs), encoding="utf-8")
        contents |= {name: scratch / name for name in ("metrics.json", "report.html")}
        release = releases.publish(warehouse, dataset, contents, record, expected=expected)
    catalog.refresh(warehouse)
    return release


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
        "split": outputs["split"].facts,
        "samples": outputs["sequences"].facts["samples"],
        "item_pairs": outputs["pairs"].facts,
        "embeddings": described_embeddings(embeddings_of(outputs)),
        "tokenizer": tokenized,
        "collisions": resolved,
        "audit": outputs["gates"].facts["findings"],
        "published_statistics": published.compare(outputs),
    }


def _lineage(output: StageOutput) -> dict[str, Any]:
    manifest = output.manifest
    names = ("key", "revision", "params", "parents", "summary", "seconds", "created", "packages")
    return {name: manifest[name] for name in names}
