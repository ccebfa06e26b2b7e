"""What a release promises of the tables that lie beside SIDs: soft codes, docids, paths, pieces.

promises.py has the SIDs themselves, user_promises.py those of users.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from sid_pipelines.contents import holder, published_tables
from sid_pipelines.failing import Sought, among
from sid_pipelines.promises import KEPT, nothing, same_items
from sid_schemas import Check, DataError
from sid_schemas.checks import none_of
from sid_schemas.tables import DOCIDS, ITEM_PATHS, SID_PIECES, SOFT_SIDS
from sid_tokenizers import Vocabulary
from sid_tokenizers.indexers.hype import parse
from sid_tokenizers.pieces import load
from sid_warehouse.arrays import padded_matrix
from sid_warehouse.stages import StageOutput


def beside_promises(outputs: Mapping[str, StageOutput]) -> list[Check]:
    """Give the checks of those of the tables that there are; outputs: by role."""
    tables, tokenized, checks = published_tables(outputs), outputs["tokenize"].facts, list[Check]()
    if SOFT_SIDS.name in tables:
        checks += _soft(tokenized["soft"]["top"], [level["codes"] for level in tokenized["levels"]])
    if DOCIDS.name in tables:
        checks += same_items(DOCIDS.name)
    if SID_PIECES.name in tables:
        schemes = outputs["pieces"].facts["schemes"]
        checks += _pieces({name: one["table_size"] for name, one in schemes.items()})
    return checks


def counted_beside(outputs: Mapping[str, StageOutput]) -> Iterator[tuple[Check, float]]:
    """Give the checks of these tables that Python computes, each with its number."""
    tables = published_tables(outputs)
    if ITEM_PATHS.name in tables:
        wrong = _wrong_paths(outputs, with_docids=DOCIDS.name in tables)
        check = nothing(ITEM_PATHS.name, "wrong_text", "text spells out path and docid")
        yield among(check, "item_index", wrong[:KEPT]), float(len(wrong))
    if SID_PIECES.name in tables:
        wrong = _wrong_pieces(outputs)
        check = nothing(SID_PIECES.name, "not_the_sids", "pieces are those of the SIDs")
        yield among(check, "item_index", wrong[:KEPT]), float(len(wrong))


def _wrong_paths(outputs: Mapping[str, StageOutput], *, with_docids: bool) -> list[int]:
    """Give the item of every text that does not read back as its path and its item's docid, or tokens."""
    if with_docids:
        names = holder(outputs, DOCIDS.name).read(DOCIDS.name, ["docid"])["docid"].to_pylist()
    else:
        names = outputs["collisions"].read("sids", ["text"])["text"].to_pylist()
    paths = holder(outputs, ITEM_PATHS.name).read(ITEM_PATHS.name)
    return [
        row["item_index"]
        for batch in paths.to_batches()
        for row in batch.to_pylist()
        if _read_back(row["text"]) != (row["path"], names[row["item_index"]])
    ]


def _read_back(text: str) -> tuple[list[str], str] | None:
    try:
        return parse(text)
    except DataError:
        return None


def _wrong_pieces(outputs: Mapping[str, StageOutput]) -> list[int]:
    """Give the item of every row that is not what the fitted pieces make of its SID."""
    resolved, output = outputs["collisions"], outputs["pieces"]
    length = Vocabulary.load(resolved.folder / "vocabulary.json").length
    sids = padded_matrix(resolved.read("sids", ["sid"])["sid"], length, -1)
    table, wrong = output.read(SID_PIECES.name, ["scheme", "piece_ids"]), list[int]()
    for place, name in enumerate(sorted(output.facts["schemes"])):
        made = load(output.folder / "pieces" / name).pieces(sids)
        kept = table.slice(place * len(sids), len(sids))["piece_ids"]
        wide = max(made.shape[1], *(len(row) for row in kept.to_pylist()), 1)
        wide_made = np.pad(made, ((0, 0), (0, wide - made.shape[1])), constant_values=-1)
        differs = (padded_matrix(kept, wide, -1) != wide_made).any(axis=1)
        wrong += np.flatnonzero(differs).tolist()
    return wrong


def _soft(top: int, sizes: list[int]) -> list[Check]:
    table, levels = SOFT_SIDS.name, len(sizes)
    size = " ".join(f"when {level + 1} then {k}" for level, k in enumerate(sizes))
    uneven = f"len(codes) <> {top} or len(probabilities) <> {top}"
    share = "list_min(probabilities) < 0 or list_sum(probabilities) > 1 + 1e-5"
    order = "probabilities[2:] <> list_reverse_sort(probabilities[2:])"
    missing = f"(select count(*) from items) * {levels} - count(*)"
    other = f"(select sids.codes[{table}.level] from sids where sids.item_index = {table}.item_index)"
    return [
        none_of(table, "not_the_code", f"codes[1] is distinct from {other}", "the item's own code is first"),
        none_of(table, "uneven_lists", uneven, f"{top} codes and their probabilities"),
        none_of(table, "wrong_shares", share, "probabilities are 0 or more and add up to 1 at most"),
        none_of(table, "out_of_order", order, "after the hard code the likeliest comes first"),
        none_of(table, "beyond_level", f"list_max(codes) >= case level {size} end", "codes are the level's"),
        _missing(table, missing, "a row for each item and level", levels),
    ]


def _pieces(sizes: Mapping[str, int]) -> list[Check]:
    table = SID_PIECES.name
    size = " ".join(f"when '{name}' then {rows}" for name, rows in sizes.items())
    missing = f"(select count(*) from items) * {len(sizes)} - count(*)"
    return [
        none_of(table, "empty", "len(piece_ids) = 0", "every SID has a piece"),
        none_of(
            table, "beyond_table", f"list_max(piece_ids) >= case scheme {size} end", "pieces are in the table"
        ),
        _missing(table, missing, "a row for each item and scheme", len(sizes)),
    ]


def _missing(table: str, sql: str, why: str, each: int) -> Check:
    rows = f"""select item_index, count(kept.item_index) as rows
        from items left join {table} as kept using (item_index)
        group by item_index having count(kept.item_index) <> {each}"""
    return Sought(table, "rows_missing", sql, why, minimum=0, maximum=0, rows=rows)
