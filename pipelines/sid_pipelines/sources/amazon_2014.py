"""Amazon product data 2014 (https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html), by category.

    reviews_X_5.json, reviews_X.json    one JSON object a line: reviewerID, asin, overall (1 to 5),
                                        unixReviewTime (seconds, whole days)
    kcore_5.json, user_dedup.json, item_dedup.json, aggressive_dedup.json
                                        the same of all categories; each holds what another holds too
    ratings_X.csv, item_dedup.csv       ratings only, no header: user, item, rating, seconds
    meta_X.json, metadata.json          one Python dict a line: asin, title, description, price, imUrl, brand,
                                        categories (several paths), related (also_bought, also_viewed,
                                        bought_together, buy_after_viewing: lists of asins), salesRank

Of an item's several category paths the first is taken, whatever category the file is of. Not read: the
reviews' text and votes, salesRank, visual features and questions.
"""

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from sid_pipelines.sources.base import Layout, Source
from sid_pipelines.sources.fields import (
    constant,
    json_list,
    name_of,
    number,
    optional_text,
    pairs,
    price,
    unix,
    value,
)
from sid_pipelines.sources.forms import Csv, Json
from sid_pipelines.sources.literals import Literal

DESCRIBED = ("asin", "title", "description", "price", "imUrl", "brand")
RELATED = ("also_bought", "also_viewed", "bought_together", "buy_after_viewing")
RATINGS = ("reviewer", "item", "rating", "seconds")
EVENT = {
    "user_id": name_of("reviewer", "a user id (reviewerID)"),
    "item_id": name_of("item", "an item id (asin)"),
    "value": number("rating", "a rating", low=1, high=5),
    "ts": unix("seconds", "s"),
}
REVIEWS = Json(
    {"reviewer": "$.reviewerID", "item": "$.asin", "rating": "$.overall", "seconds": "$.unixReviewTime"},
    types={"rating": pa.float64(), "seconds": pa.int64()},
)


@dataclass(frozen=True)
class Amazon2014(Source):
    """Amazon reviews of 1996 to 2014 with their metadata."""

    kind: ClassVar[str] = "amazon-2014"
    title: ClassVar[str] = (
        "Amazon 2014: reviews_<Category>_5.json or ratings_<Category>.csv, meta_<Category>.json"
    )
    licence: ClassVar[str] = "research use; cite He and McAuley 2016, McAuley et al. 2015"
    url: ClassVar[str] = "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html"
    tested_on: ClassVar[str] = "real files (reviews, metadata), hand-made lines (ratings)"
    template: ClassVar[str] = "{title}. {brand}. {categories}. {description}"

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """Give reviews, ratings only, and metadata."""
        return (
            Layout(
                role="interactions",
                called="reviews_<Category>_5.json or reviews_<Category>.json",
                name=r"(reviews_(?P<part>.+?)(_5)?|kcore_5|(user|item|aggressive)_dedup)\.json",
                form=REVIEWS,
                columns={**EVENT, "event_type": constant("review")},
            ),
            Layout(
                role="interactions",
                called="ratings_<Category>.csv",
                name=r"(ratings_(?P<part>.+)|item_dedup)\.csv",
                form=Csv({name: name for name in RATINGS}, names=RATINGS),
                columns=EVENT,
            ),
            Layout(
                role="items",
                called="meta_<Category>.json",
                name=r"(meta_(?P<part>.+)|metadata)\.json",
                required=False,
                form=Literal(
                    {name: f"$.{name}" for name in DESCRIBED}
                    | {name: f"$.related.{name}" for name in RELATED}
                    | {"categories": "$.categories[0]"}
                ),
                columns={
                    "item_id": name_of("asin", "an item id (asin)"),
                    "title": optional_text("title"),
                    "description": optional_text("description"),
                    "brand": optional_text("brand"),
                    "price": price("price"),
                    "category_path": value(json_list("categories")),
                    "image_ref": optional_text("imUrl"),
                    "domain": value("coalesce(nullif(part, ''), 'amazon')"),
                    "pairs": pairs(*RELATED),
                },
            ),
        )
