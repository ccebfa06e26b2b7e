"""The tables of a release, column by column: type, unit, meaning, and what must hold.

A schema is written once, here. The Arrow schema, the DuckDB profile and the Great Expectations suite
are all derived from it, so a column cannot mean one thing to the writer and another to the gate.
"""

from dataclasses import dataclass, replace

import pyarrow as pa

I32, I64, STR, F64 = pa.int32(), pa.int64(), pa.string(), pa.float64()
FIRST_MS, LAST_MS = 0, 4_102_444_800_000  # 1970 to 2100: beyond lies a wrong unit, not a real event
EVENT_TYPES = (
    "rating", "review", "view", "click", "like", "share", "comment", "cart", "purchase", "play", "read",
    "shelve", "tag", "checkin", "search",
)  # fmt: skip
NUMBERS = {"float32": pa.float32(), "float16": pa.float16()}
SPLIT_NAMES = ("train", "valid", "test", "context")


@dataclass(frozen=True)
class Column:
    """One column: its Arrow type, what it means, and the facts that must hold for it."""

    name: str
    type: pa.DataType
    doc: str
    unit: str | None = None
    nullable: bool = False
    unique: bool = False
    minimum: float | None = None
    maximum: float | None = None
    among: tuple[str, ...] | None = None
    references: tuple[str, str] | None = None

    def arrow(self) -> pa.Field:
        """Give the Arrow field, with the description and the unit as metadata."""
        metadata = {"description": self.doc} | ({"unit": self.unit} if self.unit else {})
        return pa.field(self.name, self.type, nullable=self.nullable, metadata=metadata)


@dataclass(frozen=True)
class Table:
    """One table: columns, key, and the total order in which its rows are stored."""

    name: str
    doc: str
    columns: tuple[Column, ...]
    order: str
    key: tuple[str, ...] = ()
    dense: str | None = None  # the column that counts 0..N-1 without a gap
    may_be_empty: bool = False

    def arrow(self) -> pa.Schema:
        """Give the Arrow schema that every file of this table carries."""
        metadata = {"table": self.name, "description": self.doc, "order": self.order}
        return pa.schema([column.arrow() for column in self.columns], metadata=metadata)

    @property
    def names(self) -> list[str]:
        """Give the column names in order."""
        return [column.name for column in self.columns]


def _index(of: str, *, unique: bool = False) -> Column:
    """Give the dense number of an item or a user; where it is no key it stands in that table."""
    name = f"{of}_index"
    references = None if unique else (f"{of}s", name)
    return Column(name, I32, f"dense {of} number, 0..N-1", unique=unique, minimum=0, references=references)


def _time(name: str = "ts", doc: str = "when it happened") -> Column:
    return Column(name, I64, doc, unit="ms since 1970-01-01 UTC", minimum=FIRST_MS, maximum=LAST_MS)


ITEM_ID = Column("item_id", STR, "the source's own item id")
EVENT = Column("event_type", STR, "what the user did", among=EVENT_TYPES)
VALUE = Column("value", F64, "the event's value, such as stars", nullable=True)
DETAILS = (
    Column("session_id", STR, "the source's own session id", nullable=True),
    Column("query", STR, "what the user had searched for", nullable=True),
    Column("position", I32, "place on the page or in the session, from 1", nullable=True, minimum=0),
)
SOURCE = (
    Column("source_file", STR, "raw file, as folder/name"),
    Column("source_row", I64, "line in that file, from 1", minimum=1),
)
CONTENT = (
    Column("title", STR, "title as the source has it", nullable=True),
    Column("description", STR, "long text", nullable=True),
    Column("brand", STR, "brand, maker or author", nullable=True),
    Column("price", F64, "price", unit="the source's currency", nullable=True),
    Column("category_path", pa.list_(STR), "categories or genres, broad to narrow"),
    Column("image_ref", STR, "path or address of an image", nullable=True),
    Column("domain", STR, "which catalogue the item is from"),
)

RAW_INTERACTIONS = Table(
    "raw_interactions",
    "What the dump holds, row by row, under the source's own ids.",
    (Column("user_id", STR, "the source's own user id"), ITEM_ID, _time(), EVENT, VALUE, *DETAILS, *SOURCE),
    order="source_file, source_row",
)
SHOWN = (
    Column("impression_id", STR, "the source's own id of the list", nullable=True),
    *DETAILS[:2],
)
RAW_IMPRESSIONS = Table(
    "raw_impressions",
    "Lists of items that were shown, under the source's own ids.",
    (
        Column("user_id", STR, "the source's own user id"),
        _time(),
        *SHOWN,
        Column("items", pa.list_(STR), "item ids in the order shown"),
        Column("clicked", pa.list_(pa.bool_()), "whether each was clicked"),
        Column("positions", pa.list_(I32), "where each stood, from 1"),
        Column("propensities", pa.list_(F64), "how likely each was to be shown there", nullable=True),
        *SOURCE,
    ),
    order="source_file, source_row",
    may_be_empty=True,
)
RAW_ITEM_PAIRS = Table(
    "raw_item_pairs",
    "Items that belong together: as the dump says, or as train events say.",
    (
        ITEM_ID,
        Column("other_id", STR, "the other item's id"),
        Column("kind", STR, "the source's name of the relation, or how it was derived: swing, ..."),
    ),
    order="item_id, kind, other_id",
    key=("item_id", "kind", "other_id"),
    may_be_empty=True,
)
RAW_ITEMS = Table(
    "raw_items",
    "What the dump says about each item.",
    (ITEM_ID, *CONTENT, *SOURCE),
    order="item_id",
    key=("item_id",),
    may_be_empty=True,
)
WAITING = Table(
    "waiting",
    "Events that no release has yet: too few of their user or item, or an item that is not described.",
    RAW_INTERACTIONS.columns,
    order="source_file, source_row",
    may_be_empty=True,
)
WAITING_ITEMS = Table(
    "waiting_items",
    "What dumps said about items that have no ID yet.",
    (ITEM_ID, *CONTENT, *SOURCE),
    order="item_id",
    key=("item_id",),
    may_be_empty=True,
)
REJECTS = Table(
    "rejects",
    "Raw rows that could not be read, each with its reason.",
    (
        *SOURCE,
        Column("reason", STR, "what was expected and what was found"),
        Column("raw", STR, "the row as it stands in the file"),
    ),
    order="source_file, source_row",
    may_be_empty=True,
)
EVENTS = Table(
    "events",
    "Cleaned interactions under dense indexes.",
    (_index("user"), _index("item"), _time(), EVENT, VALUE, *DETAILS, *SOURCE),
    order="user_index, ts, source_file, source_row",
)
ITEMS_CLEAN = Table(
    "items_clean",
    "The items that get an ID.",
    (_index("item", unique=True), ITEM_ID, *CONTENT),
    order="item_index (item_id in byte order)",
    dense="item_index",
)
INTERACTIONS = Table(
    "interactions",
    "Cleaned interactions with their split, each user's in the declared total order.",
    (
        *EVENTS.columns,
        Column("split", STR, "where the event belongs; context is history only", among=SPLIT_NAMES),
    ),
    order="user_index, then the declared total order of the user's events",
)
IMPRESSIONS = Table(
    "impressions",
    "Lists of items that were shown, with what was clicked; items that cleaning dropped are left out.",
    (
        _index("user"),
        _time(),
        *SHOWN,
        Column("items", pa.list_(I32), "item_index in the order shown"),
        Column("clicked", pa.list_(pa.bool_()), "whether each was clicked"),
        Column("positions", pa.list_(I32), "where each stood, from 1"),
        Column("propensities", pa.list_(F64), "how likely each was to be shown there", nullable=True),
        Column("n_shown", I32, "items in the list before any was left out", minimum=1),
        Column(
            "split", STR, "where what was clicked, or else the last event before, belongs", among=SPLIT_NAMES
        ),
        *SOURCE,
    ),
    order="user_index, ts, source_file, source_row",
    may_be_empty=True,
)
ITEM_PAIRS = Table(
    "item_pairs",
    "Items that belong together: as the dump says, or as train events say.",
    (
        _index("item"),
        Column("other_index", I32, "the other item", minimum=0, references=("items", "item_index")),
        Column("kind", STR, "the source's name of the relation, or how it was derived: swing, ..."),
        Column("score", F64, "how strong it is, where that is known", nullable=True),
    ),
    order="item_index, kind, other_index",
    key=("item_index", "kind", "other_index"),
    may_be_empty=True,
)
TEXTS = Table(
    "texts",
    "What is embedded for each item.",
    (_index("item", unique=True), ITEM_ID, Column("text", STR, "the filled template")),
    order="item_index",
    dense="item_index",
)
USERS = Table(
    "users",
    "The users, numbered in byte order of their id; those that an append added come after.",
    (_index("user", unique=True), Column("user_id", STR, "the source's own user id", unique=True)),
    order="user_index (user_id in byte order; what each append added comes after)",
    dense="user_index",
)
ITEMS = Table(
    "items",
    "The items, numbered in byte order of their id, with what was embedded and how popular they are.",
    (
        _index("item", unique=True),
        Column("item_id", STR, "the source's own item id", unique=True),
        CONTENT[0],
        Column("text", STR, "what was embedded"),
        *CONTENT[1:6],
        Column("popularity_train", I32, "events in the train split", minimum=0),
        Column(
            "first_ts",
            I64,
            "first event of the item in any split, null if it has none",
            unit="ms since 1970-01-01 UTC",
            nullable=True,
            minimum=FIRST_MS,
            maximum=LAST_MS,
        ),
        CONTENT[6],
    ),
    order="item_index (item_id in byte order; what each append added comes after)",
    dense="item_index",
)
SEQUENCES = Table(
    "sequences",
    "One row per user: all events in the declared total order.",
    (
        _index("user", unique=True),
        Column("items", pa.list_(I32), "item_index of each event"),
        Column("ts", pa.list_(I64), "time of each event", unit="ms since 1970-01-01 UTC"),
        Column("event_type", pa.list_(STR), "what the user did"),
        Column("value", pa.list_(F64), "the event's value"),
    ),
    order="user_index",
    dense="user_index",
)


def _samples(split: str) -> Table:
    target = Column("target", I32, "item_index to predict", minimum=0, references=("items", "item_index"))
    return Table(
        split,
        f"The {split} samples: the history is items[start:end] of the user's sequence.",
        (
            _index("user"),
            Column("start", I32, "first position of the history", minimum=0),
            Column("end", I32, "position after the history, and the target's own", minimum=1),
            target,
            _time("target_ts", "when the target happened"),
            Column("n_targets", I32, "targets in all: items[end : end + n_targets]", minimum=1),
        ),
        order="user_index, end",
        key=("user_index", "end"),
        may_be_empty=True,  # a protocol may have no validation; the audit counts targets
    )


CODES = Table(
    "codes",
    "What the tokenizer gave each item, before collisions are resolved.",
    (
        _index("item", unique=True),
        ITEM_ID,
        Column("codes", pa.list_(I32), "one code per level"),
        Column("fitted", pa.bool_(), "whether the tokenizer was fitted on this item"),
    ),
    order="item_index",
    dense="item_index",
)
SIDS = Table(
    "sids",
    "The semantic ID of every item.",
    (
        _index("item", unique=True),
        Column("item_id", STR, "the source's own item id", unique=True),
        Column("codes", pa.list_(I32), "the tokenizer's codes, before resolution"),
        Column("sid", pa.list_(I32), "the final semantic ID: codes, and the suffix where there is one"),
        Column("sid_key", STR, "the final SID as one scalar, codes joined by '-'"),
        Column("suffix", I32, "the added last digit, where the policy adds one", nullable=True),
        Column("slot", I32, "place among the items that share this SID, from 0", minimum=0),
        Column("token_ids", pa.list_(I32), "the SID with every level shifted into one vocabulary"),
        Column("tokens", pa.list_(STR), "the SID as token strings"),
        Column("text", STR, "the token strings joined"),
    ),
    order="item_index",
    dense="item_index",
)
SID_TO_ITEMS = Table(
    "sid_to_items",
    "The way back: which items stand behind a SID.",
    (
        Column("sid_key", STR, "the SID as one scalar", unique=True),
        Column("sid", pa.list_(I32), "the SID"),
        Column("item_indexes", pa.list_(I32), "its items in slot order"),
        Column("n", I32, "how many", minimum=1),
    ),
    order="sid",
    key=("sid_key",),
)
DELTA_SIDS = Table(
    "delta_sids",
    "The semantic IDs that this release adds to its base.",
    SIDS.columns,
    order="item_index",
    may_be_empty=True,
)
DELTA_SID_TO_ITEMS = Table(
    "delta_sid_to_items",
    "The SIDs that this release touches, each with all of its items.",
    SID_TO_ITEMS.columns,
    order="sid",
    key=("sid_key",),
    may_be_empty=True,
)
SOFT_SIDS = Table(
    "soft_sids",
    "The likeliest codes of every item and level, as the scheme has them before collisions are resolved.",
    (
        _index("item"),
        Column("level", I32, "from 1, coarse to fine", minimum=1),
        Column("codes", pa.list_(I32), "the item's own code, then the likeliest others"),
        Column("probabilities", pa.list_(pa.float32()), "softmax(-distance / temperature) of each, over all"),
    ),
    order="item_index, level",
    key=("item_index", "level"),
)
DOCIDS = Table(
    "docids",
    "The text that names each item to a language model.",
    (
        _index("item", unique=True),
        ITEM_ID,
        Column("docid", STR, "text of the item's own", unique=True),
    ),
    order="item_index",
    dense="item_index",
)
ITEM_PATHS = Table(
    "item_paths",
    "Every path of categories that leads to an item, which may be several.",
    (
        _index("item"),
        Column("path_number", I32, "from 0, in the order of the item's categories", minimum=0),
        Column("path", pa.list_(STR), "categories, broad to narrow"),
        Column("text", STR, "[PATH] the path [DOC] the item's docid, as a trainer's target"),
    ),
    order="item_index, path_number",
    key=("item_index", "path_number"),
)
SID_PIECES = Table(
    "sid_pieces",
    "Each SID cut into pieces of several codes, which a trainer embeds in the place of single ones.",
    (
        _index("item"),
        ITEM_ID,
        Column("scheme", STR, "how pieces are made: ngram, prefix-ngram, unigram, bpe, ..."),
        Column("piece_ids", pa.list_(I32), "the pieces in order, rows of one table of embeddings"),
    ),
    order="scheme, item_index",
    key=("scheme", "item_index"),
)
USER_SIDS = Table(
    "user_sids",
    "The semantic ID of every user who has a vector, made of train events alone; several may share one.",
    (
        _index("user", unique=True),
        Column("user_id", STR, "the source's own user id", unique=True),
        Column("sid", pa.list_(I32), "the user's codes"),
        Column("sid_key", STR, "the codes as one scalar, joined by '-'"),
        Column("slot", I32, "place among the users that share it, from 0", minimum=0),
        Column("token_ids", pa.list_(I32), "the codes with every level shifted into a vocabulary of users"),
        Column("tokens", pa.list_(STR), "the codes as token strings, such as <ua_12>"),
        Column("text", STR, "the token strings joined"),
    ),
    order="user_index",
)
USER_MIXTURES = Table(
    "user_mixtures",
    "How each user's train events spread over the clusters of items, the first codes of their SIDs.",
    (
        _index("user", unique=True),
        Column("clusters", pa.list_(I32), "clusters that the user has events in, most events first"),
        Column("weights", pa.list_(F64), "share of the user's events in each; they add up to 1"),
    ),
    order="user_index",
)
TRAIN, VALID, TEST = _samples("train"), _samples("valid"), _samples("test")

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        RAW_INTERACTIONS, RAW_ITEMS, RAW_IMPRESSIONS, RAW_ITEM_PAIRS, REJECTS, EVENTS, ITEMS_CLEAN, TEXTS,
        ITEMS, USERS, INTERACTIONS, IMPRESSIONS, ITEM_PAIRS, SEQUENCES, TRAIN, VALID, TEST,
        CODES, SIDS, SID_TO_ITEMS, DELTA_SIDS, DELTA_SID_TO_ITEMS, WAITING, WAITING_ITEMS,
        SOFT_SIDS, DOCIDS, ITEM_PATHS, SID_PIECES, USER_SIDS, USER_MIXTURES,
    )
}  # fmt: skip


def embeddings_table(name: str, dim: int, dtype: str = "float32") -> Table:
    """Give the schema of `embeddings_<name>`: one vector of `dim` numbers per item, float32 or float16."""
    return Table(
        f"embeddings_{name}",
        f"One {name} vector per item.",
        (
            _index("item", unique=True),
            ITEM_ID,
            Column("vector", pa.list_(NUMBERS[dtype], dim), f"{dim} numbers, {dtype}"),
            Column("present", pa.bool_(), "false where the item lacks this modality"),
        ),
        order="item_index",
        dense="item_index",
    )


def vectors_table(name: str, tokens: int, dim: int) -> Table:
    """Give the schema of `vectors_<name>`: what a continuous scheme gives each item."""
    return Table(
        f"vectors_{name}",
        "The continuous tokens of every item, which a trainer reads in the place of codes.",
        (
            _index("item", unique=True),
            ITEM_ID,
            Column("tokens", pa.list_(pa.list_(pa.float32(), dim), tokens), f"{tokens} tokens, {dim} each"),
        ),
        order="item_index",
        dense="item_index",
    )


def named_sids(name: str) -> tuple[Table, Table]:
    """Give the schemas of the SIDs of one embedding among several: `sids_<name>`, `sid_to_items_<name>`.

    Without a name they are SIDS and SID_TO_ITEMS.
    """
    if not name:
        return SIDS, SID_TO_ITEMS
    return replace(SIDS, name=f"sids_{name}"), replace(SID_TO_ITEMS, name=f"sid_to_items_{name}")


def table_named(name: str, schema: pa.Schema | None = None) -> Table:
    """Give the table of this name; widths and types of vectors are taken from `schema`."""
    if name in TABLES:
        return TABLES[name]
    for start, place in (("sids_", 0), ("sid_to_items_", 1)):
        if name.startswith(start):
            return named_sids(name.removeprefix(start))[place]
    if name.startswith("vectors_") and schema is not None:
        tokens = schema.field("tokens").type
        return vectors_table(name.removeprefix("vectors_"), tokens.list_size, tokens.value_type.list_size)
    if name.startswith("embeddings_") and schema is not None:
        vector = schema.field("vector").type
        dtype = "float16" if vector.value_type == NUMBERS["float16"] else "float32"
        return embeddings_table(name.removeprefix("embeddings_"), vector.list_size, dtype)
    raise KeyError(name)
