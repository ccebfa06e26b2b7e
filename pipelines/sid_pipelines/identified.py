"""IDs that a scheme gives items without codes to resolve: unique paths, numbers, and what goes with them.

tokenize.py does the same for schemes that code vectors, whose codes may collide.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from sid_pipelines.based import write_grown
from sid_pipelines.catalogue import whole_catalogue
from sid_pipelines.stage import Work
from sid_pipelines.vectors import coded_vectors
from sid_schemas import DataError
from sid_schemas.tables import DOCIDS, ITEM_PATHS, vectors_table
from sid_tokenizers import Catalogue, Continuous, Indexer, Vocabulary
from sid_tokenizers.base import Codes, Vectors, content_hashes
from sid_tokenizers.indexers.hype import path_text
from sid_tokenizers.indexers.paths import stacked
from sid_warehouse.arrays import padded_matrix, tokens_column
from sid_warehouse.stages import StageOutput


@dataclass(frozen=True)
class Identified:
    """IDs of items, (n, W) with -1 after the last code, W being the longest of the vocabulary they are in.

    duplicates: items whose vector repeats another's.
    """

    codes: Codes
    vocabulary: Vocabulary
    duplicates: int


def identify(
    scheme: Indexer | Continuous, X: Vectors, about: Catalogue, taken: Codes | None = None
) -> Identified:
    """Give IDs to items, around those taken; the vocabulary has the codes of both."""
    if isinstance(scheme, Continuous):
        first = 0 if taken is None else len(taken)
        codes = np.arange(first, first + len(X), dtype=np.int32)[:, None]
    else:
        codes = scheme.index(X, about=about, taken=taken)
    duplicates = len(X) - len(np.unique(content_hashes(X)))
    vocabulary = vocabulary_of(scheme, codes, taken)
    codes = np.pad(codes, ((0, 0), (0, vocabulary.places - codes.shape[1])), constant_values=-1)
    return Identified(codes, vocabulary, duplicates)


def vocabulary_of(scheme: Indexer | Continuous, codes: Codes, taken: Codes | None = None) -> Vocabulary:
    """Give the vocabulary of IDs: a name for every code up to the largest there is."""
    both = [codes] if taken is None else [codes, taken]
    size = 1 + max(int(one.max(initial=0)) for one in both)
    places = max(one.shape[1] for one in both)
    names = [scheme.token(code) if isinstance(scheme, Indexer) else f"<{code}>" for code in range(size)]
    return Vocabulary((size,), places, tuple(names))


def write_beside(
    work: Work, scheme: Indexer | Continuous, items: pa.Table, found: Identified, about: Catalogue
) -> dict[str, Any]:
    """Write what names items beside their IDs, and give the facts of it; items: (item_index, item_id).

    Items are those that have no ID in role `base` yet, where there is one.
    """
    if isinstance(scheme, Continuous):
        return _write_vectors(work, scheme, items)
    docids = _docids(work.inputs.get("base"), scheme, found.codes, about)
    if docids is not None:
        write_grown(work, DOCIDS, items.append_column("docid", pa.array(docids, pa.string())))
    paths, written = scheme.paths(about), 0
    if paths is not None:
        names = docids or ["".join(found.vocabulary.tokens(row[row >= 0])) for row in found.codes]
        written = write_grown(work, ITEM_PATHS, _path_rows(items, paths, names))
    return {"docids": docids is not None, "paths": written}


def _docids(base: StageOutput | None, scheme: Indexer, codes: Codes, about: Catalogue) -> list[str] | None:
    """Give the docids of items; texts are unique among all items, those of a base first."""
    if base is None or scheme.traits.gives != "text":
        return scheme.docids(codes, about)
    taken = padded_matrix(base.read("sids", ["sid"])["sid"], codes.shape[1], -1)
    named = scheme.docids(stacked(taken, codes), whole_catalogue(base, about))
    published = base.read("docids", ["docid"])["docid"].to_pylist()
    assert named is not None
    assert named[: len(published)] == published, f"{scheme.name}: published docids moved"
    return named[len(published) :]


def _write_vectors(work: Work, scheme: Continuous, items: pa.Table) -> dict[str, Any]:
    stored = coded_vectors(work.inputs, stacked=scheme.traits.stacked)
    tokens = scheme.vectors(stored.rows(items["item_index"].to_numpy()))
    if not np.isfinite(tokens).all():
        raise DataError(f"{scheme.name}: gives numbers that are not finite; lower its learning_rate")
    table = vectors_table(scheme.name, tokens.shape[1], tokens.shape[2])
    write_grown(work, table, items.append_column("tokens", tokens_column(tokens)))
    return {"table": table.name, "tokens": tokens.shape[1], "dim": tokens.shape[2]}


def _path_rows(items: pa.Table, paths: Sequence[Sequence[Sequence[str]]], names: Sequence[str]) -> pa.Table:
    rows = [
        (index, number, list(path), path_text(path, name))
        for index, own, name in zip(items["item_index"].to_pylist(), paths, names, strict=True)
        for number, path in enumerate(own)
    ]
    columns = zip(*rows, strict=True) if rows else ([], [], [], [])
    return pa.Table.from_arrays(
        [
            pa.array(list(column), field.type)
            for column, field in zip(columns, ITEM_PATHS.arrow(), strict=True)
        ],
        schema=ITEM_PATHS.arrow(),
    )
