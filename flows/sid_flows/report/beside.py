"""What some releases have beside SIDs of items: SIDs by embedding, soft codes, text IDs, pieces, users."""

from collections.abc import Iterator, Mapping
from typing import Any

from sid_flows.report.markup import Right, clipped, code, percent, section, table
from sid_flows.report.tables import Tables

SHOWN = 8  # examples of text IDs


def beside(tables: Tables) -> Iterator[str]:
    """Give a section for each thing that the release has."""
    metrics = tables.metrics
    if metrics.get("sids"):
        yield _named(metrics["sids"])
    if metrics["tokenizer"].get("soft") and tables.has("soft_sids"):
        yield _soft(tables, metrics["tokenizer"]["soft"])
    for name in ("docids", "item_paths"):
        if tables.has(name):
            yield _texts(tables, name)
    if metrics.get("pieces"):
        yield _pieces(metrics["pieces"]["schemes"], tables.items)
    if metrics.get("users"):
        yield _users(metrics["users"])


def _named(found: Mapping[str, Any]) -> str:
    rows = []
    for name, one in found.items():
        resolved, tokenizer = one["collisions"], one["tokenizer"]
        used, codes = (sum(level[key] for level in resolved["levels"]) for key in ("used", "codes"))
        rows.append(
            [
                name,
                tokenizer["tokenizer"],
                len(resolved["levels"]),
                Right(f"{used:,} of {codes:,}"),
                Right(percent(resolved["before"]["collision_rate"])),
                Right(percent(resolved["after"]["collision_rate"])),
                resolved["moved"],
                Right(_share(resolved.get("neighbour_overlap_at_10"))),
            ]
        )
    columns = [
        "embedding",
        "scheme",
        "levels",
        "codes used",
        "collide before",
        "after",
        "moved",
        "overlap at 10",
    ]
    return section(
        "each",
        "SIDs of each embedding",
        "Several embeddings were tokenized, each on its own; they are in tables of their own. What stands "
        "above is of the first.",
        [table(columns, rows)],
        good="each is as good as it would be alone; which helps a recommender, `sidmill evaluate` tells.",
    )


def _soft(tables: Tables, soft: Mapping[str, Any]) -> str:
    rows = tables.ask("""
        select level, avg(probabilities[1]), avg(list_sum(probabilities)),
            avg((probabilities[1] >= 0.5)::int) from soft_sids group by level order by level""")
    columns = ["level", "mean of an item's own code", "of all that are kept", "items surer than 0.5"]
    return section(
        "soft",
        "Soft codes",
        f"The {soft['top']} likeliest codes of every item and level, at temperature {soft['temperature']:g}.",
        [table(columns, [[row[0], *(Right(f"{value:.3f}") for value in row[1:])] for row in rows])],
        good="neither 1 everywhere, where nothing is soft, nor even, where codes say nothing.",
    )


def _texts(tables: Tables, name: str) -> str:
    column = "docid" if name == "docids" else "text"
    rows = tables.ask(
        f"""select coalesce(title, items.item_id), {name}.{column} from {name} join items using (item_index)
        order by popularity_train desc, item_index, {name}.{column} limit $1""",
        SHOWN,
    )
    title, says = {
        "docids": ("Text IDs", "The text that names each item to a language model; the most popular items'."),
        "item_paths": (
            "Paths of items",
            "The paths of categories that lead to items; the most popular items'.",
        ),
    }[name]
    shown = [[clipped(item), code(text)] for item, text in rows]
    good = "you would find the item by its text."
    return section(name, title, says, [table(["item", column], shown)], good=good)


def _pieces(schemes: Mapping[str, Mapping[str, Any]], items: int) -> str:
    rows = [
        [
            name,
            one["table_size"],
            one["used"],
            Right(f"{one['mean_pieces']:.2f}"),
            Right("none" if one["spearman"] is None else f"{one['spearman']:.3f}"),
            Right(percent(one["distinct"] / max(items, 1))),
        ]
        for name, one in schemes.items()
    ]
    columns = ["scheme", "embeddings", "used", "pieces an SID", "length by popularity", "told apart"]
    return section(
        "pieces",
        "Pieces",
        "SIDs cut into pieces of several codes, which a trainer embeds in the place of single ones.",
        [table(columns, rows)],
        good="all items told apart, and fewer pieces for what is popular (a correlation below 0).",
    )


def _users(users: Mapping[str, Any]) -> str:
    rows: list[list[Any]] = [
        ["users with a train event", users["users"]],
        ["without one, and so without a row", users["without_train_event"]],
    ]
    parts = []
    if "groups" in users:
        groups = users["groups"]
        rows += [
            ["distinct SIDs", users["distinct"]],
            ["largest group that shares one", groups["max_group"]],
            ["users with a SID of their own", Right(percent(groups["uniquely_identified"]))],
        ]
        columns = ["level", "codes", "used", "dead", "perplexity share", "largest"]
        levels = [
            [
                one["level"],
                one["codes"],
                one["used"],
                one["dead"],
                Right(f"{one['perplexity_share']:.3f}"),
                one["max_count"],
            ]
            for one in users["levels"]
        ]
        parts.append(table(columns, levels, label="use of codes of users"))
    if mixtures := users.get("mixtures"):
        rows += [
            ["clusters", mixtures["clusters"]],
            ["clusters a user, mean", Right(f"{mixtures['clusters_per_user']:.2f}")],
            ["users of one cluster", mixtures["users_of_one"]],
        ]
    made = (
        f"{users['tokenizer']} of {users['vectors']}" if "tokenizer" in users else "mixtures of first codes"
    )
    return section(
        "users",
        "Users",
        f"Users are described too, by their train events alone: {made}.",
        [table(["", "value"], rows, label="users"), *parts],
        good="few users without a row; users may share a SID.",
    )


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
