"""What was embedded, and whether items that are alike have IDs that are alike."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sid_flows.report.markup import Right, bar, paragraph, section, table
from sid_flows.report.tables import Tables


def embeddings(tables: Tables) -> str:
    """Give the section on the vectors."""
    columns = [
        "embedding",
        "model",
        "numbers",
        "has it",
        "coverage",
        "without it",
        "zero",
        "duplicates",
        "fit",
    ]
    return section(
        "embeddings",
        "Embeddings",
        "The vectors that there are of items, and those that were tokenized.",
        [table(columns, _rows(tables.metrics["embeddings"])), paragraph(_tokenized(tables.metrics))],
        good="full coverage, no vectors of zeros, few duplicates: no codebook tells equal vectors apart.",
    )


def likeness(tables: Tables) -> str:
    """Give the section on likeness: overlap of neighbours, purity of categories, reconstruction."""
    resolved, held = tables.metrics["collisions"], tables.metrics["tokenizer"]["reconstruction"]
    rows = [[*row, Right(f"{min(10 / max(tables.items - 1, 1), 1):.4f}")] for row in _overlaps(resolved)]
    parts = [table(["", "all items", "items fitted on", "by chance"], rows)]
    parts += _purity(resolved.get("category_purity", []))
    if held:  # None where codes do not decode to the vectors
        told = [["fitted items", _error(held["fit"])], ["held-out items", _error(held.get("held_out"))]]
        told.append(["all items, after collisions", _error(resolved.get("reconstruction"))])
        parts.append(table(["reconstruction", "relative error"], told))
    return section(
        "likeness",
        "Do like items have like IDs?",
        "IDs help a model as far as a shared prefix means something. A relative error is the squared error "
        "of the vectors that codes decode to, as a share of the vectors' own; 0 is exact.",
        parts,
        good="overlap many times that of chance, purity well above shuffled, and an error on held-out items "
        "near that of fitted ones.",
    )


def _error(one: Mapping[str, float] | None) -> Right:
    return Right("none" if not one else f"{one['relative_error']:.3f}")


def _rows(embeddings: Mapping[str, Mapping[str, Any]]) -> Iterable[Sequence[Any]]:
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


def _overlaps(resolved: Mapping[str, Any]) -> Iterator[list[Any]]:
    for name, said in (
        ("neighbour_overlap_at_10", "of ten nearest by cosine, also nearest by SID"),
        ("cf_neighbour_overlap_at_10", "of ten nearest by shared train users, also nearest by SID"),
    ):
        yield [said, _share(resolved.get(name)), _share(resolved.get(f"{name}_fit"))]


def _purity(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    if not rows:  # no categories, or codes without order
        return
    yield paragraph(
        "Purity: share of items that have the commonest first category of their prefix; beside it the "
        "same after a shuffle, since short lists are pure by chance."
    )
    columns = ["length", "purity", "shuffled"]
    yield table(
        ["prefix length", *columns[1:]],
        [[row["length"], *(Right(f"{row[name]:.3f}") for name in columns[1:])] for row in rows],
    )


def _share(value: float | None) -> Right:
    return Right("none" if value is None else f"{value:.3f}")
