"""A release seen as the outputs of the stages that made it, so that stages can go on from it.

An append, a retokenize and a check of a release read `split`, `sequences` or `embed text` as a build does;
where a build gives them a stage's folder, these give them the release's. Only what is published is there:
`items` for `items_clean`, no `texts`, no `codes`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sid_warehouse import files, releases
from sid_warehouse.stages import StageOutput

# Under which labels a role was filled: by a build, by an append.
FILLED_BY = {
    "ingest": ("ingest",),
    "clean": ("clean", "extend"),
    "split": ("split", "extend"),
    "sequences": ("sequences",),
    "pairs": ("pairs",),
    "tokenize": ("tokenize", "assign"),
    "collisions": ("collisions", "assign"),
    "gates": ("gates",),
}


def as_role(output: StageOutput, role: str) -> StageOutput:
    """Give an output as one of the parts that it plays, with that part's facts."""
    facts = output.facts.get("roles", {}).get(role)
    return output if facts is None else StageOutput(output.folder, {**output.manifest, "facts": facts})


def outputs_of(folder: Path) -> dict[str, StageOutput]:
    """Give the outputs by role: FILLED_BY, what only some releases have, the embeddings, and `fuse`."""
    record = releases.read(folder)
    metrics = files.read_json(folder / "metrics.json")
    facts = {
        "ingest": {"rejects": metrics["rejects"], "files": metrics.get("files", [])},
        "clean": {"ledger": metrics["ledger"]},
        "split": metrics["split"],
        "sequences": {"samples": metrics["samples"], "findings": []},
        "pairs": metrics["item_pairs"],
        "tokenize": metrics["tokenizer"],
        "collisions": metrics["collisions"],
        "gates": {"findings": metrics["audit"]},
    }
    outputs = {}
    for role, labels in FILLED_BY.items():
        label = next(label for label in labels if label in record["stages"])
        outputs[role] = _output(folder, record, label, facts[role])
    for role in ("pieces", "users"):
        if role in record["stages"]:
            outputs[role] = _output(folder, record, role, metrics[role])
    for name, own in metrics.get("sids", {}).items():
        for role, told in (("tokenize", "tokenizer"), ("collisions", "collisions")):
            label = next(f"{one} {name}" for one in FILLED_BY[role] if f"{one} {name}" in record["stages"])
            outputs[f"{role} {name}"] = _output(folder, record, label, own[told])
    for label in record["stages"]:
        if label.startswith("embed ") or label == "fuse":
            name = "fused" if label == "fuse" else label.removeprefix("embed ")
            outputs[label] = _output(folder, record, label, record["embeddings"][f"embeddings_{name}"])
    return outputs


def base_of(folder: Path) -> StageOutput:
    """Give the release as one output, whose key is its fingerprint and whose facts are its metrics."""
    record = releases.read(folder)
    manifest = {
        "stage": "release",
        "key": record["fingerprint"],
        "rows": record["rows"],
        "files": record["files"],
        "facts": files.read_json(folder / "metrics.json"),
        "params": {},
        "summary": f"{record['dataset']}@v{record['version']}",
        "record": record,
    }
    return StageOutput(folder, manifest)


def _output(folder: Path, record: Mapping[str, Any], label: str, facts: Mapping[str, Any]) -> StageOutput:
    # A release of before 0.2 does not say which stage a label was; of embeddings any will do.
    stage = {"stage": "embed_text" if label.startswith("embed ") else label} | record["stages"][label]
    manifest = {**stage, "facts": facts, "rows": record["rows"], "files": record["files"]}
    return StageOutput(folder, manifest)
