"""What a release promises of SIDs: each item has one, as unique as declared, spelt the same way everywhere.

placed.py has what it promises of sequences and samples.
"""

from dataclasses import dataclass

from sid_schemas import Check
from sid_schemas.checks import none_of
from sid_tokenizers import Vocabulary
from sid_warehouse.stages import StageOutput


@dataclass(frozen=True)
class SidShape:
    """What SIDs look like, as the tokenizer and the collision policy declare it.

    base: codes the tokenizer gives. levels: sizes of the vocabulary's, an added one included. length:
    L, L+1 or "L or L+1", L being base. capacity: items one SID may stand for, None where the collision
    rate is what counts. max_collision_rate: the bound on it.
    """

    base: int
    levels: tuple[int, ...]
    length: str
    capacity: int | None
    max_collision_rate: float | None

    @classmethod
    def declared(cls, resolved: StageOutput, max_collision_rate: float | None) -> "SidShape":
        """Read it from a collisions output; without a bound in the recipe the policy's promise is one."""
        facts = resolved.facts
        levels = Vocabulary.load(resolved.folder / "vocabulary.json").levels
        if max_collision_rate is None and facts["capacity"] is None:
            max_collision_rate = 0.0
        base = len(levels) - (facts["length"] != "L")
        return cls(base, levels, facts["length"], facts["capacity"], max_collision_rate)


def sid_promises(shape: SidShape) -> list[Check]:
    """Give the checks of SIDs that span tables: what a release promises to a trainer."""
    vocabulary = Vocabulary(shape.levels)
    wrong_token = " or ".join(
        f"token_ids[{level + 1}] <> sid[{level + 1}] + {offset}"
        for level, offset in enumerate(vocabulary.offsets)
    )
    letters = [vocabulary.tokens([0] * (level + 1))[-1][1] for level in range(len(shape.levels))]
    wrong_string = " or ".join(
        f"tokens[{level + 1}] <> '<{letter}_' || sid[{level + 1}] || '>'"
        for level, letter in enumerate(letters)
    )
    beyond = " or ".join(
        f"{column}[{level + 1}] >= {k}"
        for level, k in enumerate(shape.levels)
        for column in ("sid", "codes")
        if column == "sid" or level < shape.base
    )
    return [
        *_shape_promises(shape),
        none_of(
            "items", "without_sid", "item_index not in (select item_index from sids)", "every item has a SID"
        ),
        none_of("sids", "wrong_key", "sid_key <> array_to_string(sid, '-')", "sid_key spells out sid"),
        none_of("sids", "wrong_tokens", wrong_token, "token_ids are sid in the one vocabulary"),
        none_of("sids", "beyond_level", beyond, "every code is one of its level's"),
        none_of("sids", "wrong_strings", wrong_string, "tokens spell out sid"),
        none_of("sids", "wrong_text", "text <> array_to_string(tokens, '')", "text is tokens joined"),
        none_of(
            "sids",
            "no_way_back",
            """item_index is distinct from (select item_indexes[sids.slot + 1] from sid_to_items
            where sid_to_items.sid_key = sids.sid_key and sid_to_items.sid = sids.sid)""",
            "sid_to_items leads back from the SID and slot to the item",
        ),
        none_of("sid_to_items", "wrong_n", "n <> len(item_indexes)", "n counts item_indexes"),
        Check(
            "sid_to_items",
            "items_too_many",
            "coalesce(sum(n), 0) - (select count(*) from sids)",
            "every item stands behind one SID",
            minimum=0,
            maximum=0,
        ),
    ]


def _shape_promises(shape: SidShape) -> list[Check]:
    """Give the checks of what tokenizer and policy declare: uniqueness, length, suffix."""
    base = shape.base
    length = {"L": f"{base}", "L+1": f"{base + 1}"}.get(shape.length, f"{base} + (suffix is not null)::int")
    digit = "suffix is not null" if shape.length == "L" else f"suffix is distinct from sid[{base + 1}]"
    checks = [
        none_of(
            "sids",
            "uneven_length",
            f"len(codes) <> {base} or len(sid) <> {length} or len(token_ids) <> {length} "
            f"or len(tokens) <> {length}",
            f"SIDs have the declared length, {shape.length}",
        ),
        none_of("sids", "wrong_suffix", digit, "suffix is the added digit, and null where none is added"),
    ]
    if shape.length != "L":
        moved = f"sid[1:{base}] <> codes"
        checks.append(none_of("sids", "moved", moved, "a policy that adds a digit moves no code"))
    if shape.length == "L or L+1":
        checks.append(
            none_of(
                "sids",
                "not_prefix_free",
                f"suffix is null and sid in (select sid[1:{base}] from sids where suffix is not null)",
                "no SID is the beginning of another",
            )
        )
    if shape.capacity is not None:
        why = f"at most {shape.capacity} items share an SID"
        checks.append(none_of("sid_to_items", "overfull", f"n > {shape.capacity}", why))
    if shape.max_collision_rate is not None:
        checks.append(
            Check(
                "sids",
                "collision_rate",
                "(count(*) - count(distinct sid)) / greatest(count(*), 1)",
                "share of items whose SID another item has, (N - U) / N",
                minimum=0,
                maximum=shape.max_collision_rate,
            )
        )
    return checks


def same_items(table: str) -> list[Check]:
    """Give the checks that a table per item has the very items, under their own ids."""
    other = f"(select item_id from items where items.item_index = {table}.item_index)"
    missing = f"(select count(*) from items) - count(distinct {table}.item_index)"
    return [
        none_of(
            table, "not_the_items", f"item_id is distinct from {other}", "item_index and item_id as in items"
        ),
        Check(table, "items_missing", missing, "every item has a row", minimum=0, maximum=0),
    ]
