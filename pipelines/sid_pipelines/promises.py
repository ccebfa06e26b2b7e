"""What a release promises of SIDs: each item has one, as unique as declared, spelt the same way everywhere.

placed.py has what it promises of sequences and samples.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sid_pipelines.contents import apart
from sid_pipelines.failing import Sought, among, repeats
from sid_schemas import Check
from sid_schemas.checks import none_of
from sid_schemas.tables import named_sids
from sid_tokenizers import Trie, Vocabulary
from sid_warehouse.arrays import padded_matrix
from sid_warehouse.stages import StageOutput

KEPT = 20  # failing rows that are named of what Python counts
VARIES = "varies"  # the length of IDs that are paths in one vocabulary for all places


@dataclass(frozen=True)
class SidShape:
    """What SIDs look like, as the tokenizer and the collision policy declare it.

    base: codes the tokenizer gives. vocabulary: what the tokens are in. length: L, L+1 or "L or L+1", L being
    base, or VARIES. capacity: items one SID may stand for, None where the collision rate is what counts.
    max_collision_rate: the bound on it. name: of the embedding, where several are tokenized.
    """

    base: int
    vocabulary: Vocabulary
    length: str
    capacity: int | None
    max_collision_rate: float | None
    name: str = ""

    @classmethod
    def declared(cls, resolved: StageOutput, max_collision_rate: float | None, name: str = "") -> "SidShape":
        """Read it from a collisions output; without a bound in the recipe the policy's promise is one.

        Of a release, `name` says which of its tables of SIDs is meant.
        """
        facts = resolved.facts
        vocabulary = Vocabulary.load(apart(resolved.folder, name) / "vocabulary.json")
        if max_collision_rate is None and facts["capacity"] is None:
            max_collision_rate = 0.0
        base = vocabulary.length - (facts["length"] not in ("L", VARIES))
        return cls(base, vocabulary, facts["length"], facts["capacity"], max_collision_rate, name)

    @property
    def table(self) -> str:
        """Give the name of the table of SIDs."""
        return named_sids(self.name)[0].name

    @property
    def back(self) -> str:
        """Give the name of the table that leads back from SIDs to items."""
        return named_sids(self.name)[1].name


def sid_promises(shape: SidShape) -> list[Check]:
    """Give the checks of SIDs that span tables: what a release promises to a trainer."""
    table, back = shape.table, shape.back
    return [
        *_shape_promises(shape),
        none_of(
            "items",
            "without_sid" if table == "sids" else f"without_{table}",
            f"item_index not in (select item_index from {table})",
            "every item has a SID",
        ),
        none_of(table, "wrong_key", "sid_key <> array_to_string(sid, '-')", "sid_key spells out sid"),
        *_token_promises(shape),
        none_of(table, "wrong_text", "text <> array_to_string(tokens, '')", "text is tokens joined"),
        none_of(
            table,
            "no_way_back",
            f"""item_index is distinct from (select item_indexes[{table}.slot + 1] from {back}
            where {back}.sid_key = {table}.sid_key and {back}.sid = {table}.sid)""",
            "sid_to_items leads back from the SID and slot to the item",
        ),
        none_of(back, "wrong_n", "n <> len(item_indexes)", "n counts item_indexes"),
        Sought(
            back,
            "items_too_many",
            f"coalesce(sum(n), 0) - (select count(*) from {table})",
            "every item stands behind one SID",
            minimum=0,
            maximum=0,
            rows=f"""select item_index, count(slot) as in_sids, count(sid_key) as behind_sids from (
                    select item_index, slot, null as sid_key from {table} union all
                    select unnest(item_indexes), null, sid_key from {back})
                group by item_index having count(slot) <> 1 or count(sid_key) <> 1""",
        ),
    ]


def _token_promises(shape: SidShape) -> list[Check]:
    """Give the checks that tokens spell out the SID in its vocabulary."""
    table, vocabulary = shape.table, shape.vocabulary
    tokens = "token_ids are sid in the one vocabulary"
    if vocabulary.places:  # which string each code has, is looked at in Python: there may be as many as items
        [first, *_], [size] = vocabulary.offsets, vocabulary.levels
        shifted = f"list_transform(sid, lambda code: code + {first})"
        beyond = f"list_max(sid) >= {size} or sid <> codes"
        return [
            none_of(table, "wrong_tokens", f"token_ids <> {shifted}", tokens),
            none_of(table, "beyond_level", beyond, "every code is one of its level's"),
        ]
    wrong_token = " or ".join(
        f"token_ids[{level + 1}] <> sid[{level + 1}] + {offset}"
        for level, offset in enumerate(vocabulary.offsets)
    )
    letters = [vocabulary.tokens([0] * (level + 1))[-1][1] for level in range(vocabulary.length)]
    wrong_string = " or ".join(
        f"tokens[{level + 1}] <> '<{letter}_' || sid[{level + 1}] || '>'"
        for level, letter in enumerate(letters)
    )
    beyond = " or ".join(
        f"{column}[{level + 1}] >= {k}"
        for level, k in enumerate(vocabulary.levels)
        for column in ("sid", "codes")
        if column == "sid" or level < shape.base
    )
    return [
        none_of(table, "wrong_tokens", wrong_token, tokens),
        none_of(table, "beyond_level", beyond, "every code is one of its level's"),
        none_of(table, "wrong_strings", wrong_string, "tokens spell out sid"),
    ]


def _shape_promises(shape: SidShape) -> list[Check]:
    """Give the checks of what tokenizer and policy declare: uniqueness, length, suffix."""
    base, table = shape.base, shape.table
    if shape.length == VARIES:
        uneven = "len(sid) <> len(codes) or len(sid) <> len(token_ids) or len(sid) <> len(tokens)"
        bounds = f"len(sid) < 1 or len(sid) > {shape.vocabulary.length}"
        digit = "suffix is not null"
        said = f"SIDs have 1 to {shape.vocabulary.length} codes"
        length_check = none_of(table, "uneven_length", f"{uneven} or {bounds}", said)
    else:
        length = {"L": f"{base}", "L+1": f"{base + 1}"}.get(
            shape.length, f"{base} + (suffix is not null)::int"
        )
        digit = "suffix is not null" if shape.length == "L" else f"suffix is distinct from sid[{base + 1}]"
        length_check = none_of(
            table,
            "uneven_length",
            f"len(codes) <> {base} or len(sid) <> {length} or len(token_ids) <> {length} "
            f"or len(tokens) <> {length}",
            f"SIDs have the declared length, {shape.length}",
        )
    checks = [
        length_check,
        none_of(table, "wrong_suffix", digit, "suffix is the added digit, and null where none is added"),
    ]
    if shape.length not in ("L", VARIES):
        moved = f"sid[1:{base}] <> codes"
        checks.append(none_of(table, "moved", moved, "a policy that adds a digit moves no code"))
    if shape.length == "L or L+1":
        checks.append(
            none_of(
                table,
                "not_prefix_free",
                f"suffix is null and sid in (select sid[1:{base}] from {table} where suffix is not null)",
                "no SID is the beginning of another",
            )
        )
    if shape.capacity is not None:
        why = f"at most {shape.capacity} items share an SID"
        checks.append(none_of(shape.back, "overfull", f"n > {shape.capacity}", why))
    if shape.max_collision_rate is not None:
        checks.append(
            Sought(
                table,
                "collision_rate",
                "(count(*) - count(distinct sid)) / greatest(count(*), 1)",
                "share of items whose SID another item has, (N - U) / N",
                minimum=0,
                maximum=shape.max_collision_rate,
                rows=repeats(table, "sid"),
            )
        )
    return checks


def counted_promises(shape: SidShape, resolved: StageOutput) -> list[tuple[Check, float]]:
    """Give the checks of SIDs that Python computes, each with its number: the trie, and paths in it."""
    vocabulary, folder = shape.vocabulary, apart(resolved.folder, shape.name)
    table = resolved.read(shape.table, ["item_index", "sid", "tokens"])
    made = Trie.build(padded_matrix(table["sid"], vocabulary.length, -1))
    kept = Trie.load(folder / "trie.safetensors")
    arrays = ("offsets", "codes", "items")
    differs = not all(np.array_equal(getattr(made, name), getattr(kept, name)) for name in arrays)
    found = [(nothing(shape.table, "trie_differs", "the trie holds the SIDs"), float(differs))]
    if vocabulary.places:
        within = made.items[(made.items >= 0) & (np.diff(made.offsets) > 0)]
        spelt = pa.array(vocabulary.names).take(pc.list_flatten(table["sid"]).combine_chunks())
        wrong = pc.not_equal(spelt, pc.list_flatten(table["tokens"]).combine_chunks()).fill_null(False)
        rows = pc.list_parent_indices(table["sid"].combine_chunks()).filter(wrong)
        items = table["item_index"].combine_chunks()
        prefixes = nothing(shape.table, "not_prefix_free", "no SID is the beginning of another")
        spelling = nothing(shape.table, "wrong_strings", "tokens spell out sid")
        found += [
            (among(prefixes, "item_index", items.take(within[:KEPT]).to_pylist()), float(len(within))),
            (among(spelling, "item_index", items.take(rows[:KEPT]).to_pylist()), float(len(rows))),
        ]
    return found


def nothing(table: str, name: str, why: str) -> Check:
    """Give a check of a number that Python counts, and that must be 0."""
    return Check(table, name, "", why, minimum=0, maximum=0)


def same_items(table: str) -> list[Check]:
    """Give the checks that a table per item has the very items, under their own ids."""
    other = f"(select item_id from items where items.item_index = {table}.item_index)"
    missing = f"(select count(*) from items) - count(distinct {table}.item_index)"
    return [
        none_of(
            table, "not_the_items", f"item_id is distinct from {other}", "item_index and item_id as in items"
        ),
        Sought(
            table,
            "items_missing",
            missing,
            "every item has a row",
            minimum=0,
            maximum=0,
            rows=f"from items where item_index not in (select item_index from {table})",
        ),
    ]
