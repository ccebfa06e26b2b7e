"""What a release is made of: which output gives which table, and which files lie beside the tables.

Outputs come by the part that they play: `collisions`, `embed text`. Where several embeddings are tokenized
each on its own, there is a `tokenize NAME` and a `collisions NAME` for each, whose files lie with its table,
in the folder `sids_NAME`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from sid_pipelines.embedded import embeddings_of, tables_of
from sid_schemas.tables import named_sids
from sid_warehouse import parquet
from sid_warehouse.stages import StageOutput

TABLES: Mapping[str, tuple[str, ...]] = {  # in the order of checks; those that a stage wrote
    "ingest": ("rejects",),
    "clean": ("users",),
    "split": ("interactions",),
    "sequences": ("items", "sequences", "train", "valid", "test", "impressions"),
    "pairs": ("item_pairs",),
    "tokenize": ("soft_sids", "docids", "item_paths"),
    "collisions": ("sids", "sid_to_items", "docids", "delta_sids", "delta_sid_to_items"),
    "pieces": ("sid_pieces",),
    "users": ("user_sids", "user_mixtures"),
}
VECTORS = "vectors_"  # how the table begins that a continuous scheme writes in `tokenize`
FILES: Mapping[str, tuple[str, ...]] = {
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
WHOLE = ("pieces", "users")  # every file of theirs that is no table goes along


def published_tables(outputs: Mapping[str, StageOutput]) -> dict[str, Path]:
    """Give every table that a release publishes, and the folder that holds it."""
    return {name: output.folder for name, output in _holders(outputs)}


def holder(outputs: Mapping[str, StageOutput], table: str) -> StageOutput:
    """Give the output that holds a table to be published."""
    return next(output for name, output in _holders(outputs) if name == table)


def named_codes(outputs: Mapping[str, StageOutput]) -> list[str]:
    """Give the names of the embeddings that are tokenized each on its own."""
    return [role.partition(" ")[2] for role in outputs if role.startswith("collisions ")]


def _holders(outputs: Mapping[str, StageOutput]) -> Iterator[tuple[str, StageOutput]]:
    for role, names in TABLES.items():
        if role in outputs:
            rows = outputs[role].manifest["rows"]
            yield from ((name, outputs[role]) for name in names if name in rows)
            if role == "tokenize":
                yield from ((name, outputs[role]) for name in rows if name.startswith(VECTORS))
    for name in named_codes(outputs):
        yield from ((table.name, outputs[f"collisions {name}"]) for table in named_sids(name))
    for output in embeddings_of(outputs).values():
        yield from ((name, output) for name in tables_of(output))


def contents_of(outputs: Mapping[str, StageOutput]) -> dict[str, Path]:
    """Give where every file of a release is taken from, by its place in the release."""
    contents = {
        part.relative_to(folder).as_posix(): part
        for name, folder in published_tables(outputs).items()
        for part in parquet.parts(folder, name)
    }
    for role, names in FILES.items():
        contents |= {name: outputs[role].folder / name for name in names}
    for name in named_codes(outputs):
        table = named_sids(name)[0].name
        for role in ("collisions", "tokenize"):
            folder = apart(outputs[f"{role} {name}"].folder, name)
            contents |= {f"{table}/{file}": folder / file for file in FILES[role]}
    further = [outputs[role] for role in WHOLE if role in outputs]
    for output in [*embeddings_of(outputs).values(), *further]:  # fitted transforms and the like
        kept = (name for name in output.manifest["files"] if not name.endswith(".parquet"))
        contents |= {name: output.folder / name for name in kept}
    return contents


def apart(folder: Path, name: str) -> Path:
    """Give where the trie, the vocabulary and the tokenizer of SIDs lie.

    They lie at the top of a stage's own folder, and of a release; in a release those of an embedding that is
    tokenized on its own lie with its table.
    """
    inside = folder / named_sids(name)[0].name
    return inside if name and (inside / "vocabulary.json").exists() else folder
