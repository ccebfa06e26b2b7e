"""The tables of a release, column by column, from their schemas."""

from handbook.words import code, plain, table
from sid_schemas.tables import TABLES, Column, Table, embeddings_table, vectors_table

INSIDE = (
    "raw_interactions",
    "raw_items",
    "raw_impressions",
    "raw_item_pairs",
    "events",
    "items_clean",
    "texts",
    "codes",
)


def page() -> str:
    """Give the page."""
    made = [*TABLES.values(), embeddings_table("NAME", 384), vectors_table("NAME", 5, 64)]
    published = [one for one in made if one.name not in INSIDE]
    inside = [one for one in made if one.name in INSIDE]
    return f"""\
# Tables of a release

Every table is Parquet in a folder of its name, and a table in the catalogue, in the schema of
its data set: `movietweetings.sids`. The column `text` of `items` is `item_text` there. Widths of vectors
are a
release's own. Tables that a recipe does not ask for, or a dump does not give, are not there.

```sql
select table_name, count(*) from information_schema.columns
where table_schema = 'movietweetings' group by all order by all
```

{chr(10).join(_section(one) for one in published)}

# Tables between stages

`sidmill run --until STAGE` says where they lie. No release has them.

{chr(10).join(_section(one) for one in inside)}
""".replace("\n# Tables between", "\n## Tables between")


def _section(one: Table) -> str:
    facts = [f"Order of rows: {plain(one.order)}."]
    if one.key:
        facts.append("Key: " + ", ".join(map(code, one.key)) + ".")
    if one.dense:
        facts.append(f"{code(one.dense)} counts 0 to N - 1 without a gap.")
    if one.may_be_empty:
        facts.append("It may be empty.")
    rows = [
        [
            code(column.name),
            plain(str(column.type)).replace("not null", ""),
            plain(column.doc),
            column.unit or "",
            _facts(column),
        ]
        for column in one.columns
    ]
    return f"""\
### {one.name}

{plain(one.doc)} {" ".join(facts)}

{table(["column", "type", "what it is", "unit", "holds"], rows)}
"""


def _facts(column: Column) -> str:
    facts = ["may be null"] if column.nullable else []
    facts += ["unique"] if column.unique else []
    if column.minimum is not None and column.unit is None:
        facts.append(
            f"{column.minimum:g} or more"
            if column.maximum is None
            else f"{column.minimum:g} to {column.maximum:g}"
        )
    if column.among:
        facts.append("one of " + ", ".join(map(code, column.among)))
    if column.references:
        facts.append("stands in " + code(".".join(column.references)))
    return "; ".join(facts)
