"""Amazon Reviews 2023 (https://amazon-reviews-2023.github.io/): one JSON object a line, or CSV with a header.

    X.jsonl       rating (1 to 5), user_id, parent_asin, timestamp (ms), ...
    X.csv         user_id, parent_asin, rating, timestamp (ms): the benchmark's 0-core and 5-core files
    X.train.csv, X.valid.csv, X.test.csv
                  the same rows divided (last_out, timestamp), in some with a column `history`. The three
                  are read as one dump, which sidmill divides itself
    meta_X.jsonl  parent_asin, title, main_category, categories (list), store, price, features (list),
                  description (list), images (list of hi_res, large, thumb), bought_together

An item is a `parent_asin`: `asin` is its colour or size, and the metadata has only the parent. `store` is
taken as the brand; categories fall back to main_category where the list is empty, as in all of All_Beauty.
A price is a number, null or text such as `from 14.99`. bought_together is null in all of the release
(https://github.com/hyp1231/AmazonReviews2023/issues/48); a list in it gives pairs.

Not read: the reviews' text, votes and images, `history` (the rows before say the same), ratings' averages,
details, videos. X.csv and X.train.csv in one folder would give every event twice: name the one you mean.
"""

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from sid_pipelines.sources.base import Layout, Source
from sid_pipelines.sources.fields import (
    Field,
    constant,
    joined,
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

DESCRIBED = (
    "parent_asin", "title", "main_category", "categories", "store", "price", "features", "description",
    "bought_together",
)  # fmt: skip
IMAGES = ("hi_res", "large", "thumb")  # the best first
NAMES = {"reviewer": "user_id", "item": "parent_asin", "rating": "rating", "milliseconds": "timestamp"}
EVENT = {
    "user_id": name_of("reviewer", "a user id (user_id)"),
    "item_id": name_of("item", "an item id (parent_asin)"),
    "value": number("rating", "a rating", low=1, high=5),
    "ts": unix("milliseconds", "ms"),
}


@dataclass(frozen=True)
class Amazon2023(Source):
    """Amazon reviews of 1996 to 2023 with their metadata."""

    kind: ClassVar[str] = "amazon-2023"
    title: ClassVar[str] = "Amazon 2023: <Category>.jsonl or <Category>.csv, meta_<Category>.jsonl"
    licence: ClassVar[str] = "research use; cite Hou et al. 2024"
    url: ClassVar[str] = "https://amazon-reviews-2023.github.io/"
    tested_on: ClassVar[str] = "hand-made lines in the published format"
    template: ClassVar[str] = "{title}. {brand}. {categories}. {description}"

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """Give reviews, the benchmark's CSV files, and metadata."""
        return (
            Layout(
                role="interactions",
                called="<Category>.jsonl",
                name=r"(?!meta_)(?P<part>.+)\.jsonl",
                form=Json(
                    {ours: f"$.{theirs}" for ours, theirs in NAMES.items()},
                    types={"rating": pa.float64(), "milliseconds": pa.int64()},
                ),
                columns={**EVENT, "event_type": constant("review")},
            ),
            Layout(
                role="interactions",
                called="<Category>.csv or <Category>.train.csv, .valid.csv and .test.csv",
                name=r"(?P<part>.+)\.csv",
                form=Csv(NAMES),
                columns=EVENT,
            ),
            Layout(
                role="items",
                called="meta_<Category>.jsonl",
                name=r"meta_(?P<part>.+)\.jsonl",
                required=False,
                form=Json(
                    {name: f"$.{name}" for name in DESCRIBED}
                    | {name: f"$.images[0].{name}" for name in IMAGES}
                ),
                columns={
                    "item_id": name_of("parent_asin", "an item id (parent_asin)"),
                    "title": optional_text("title"),
                    "description": value(joined(json_list("description"), json_list("features"))),
                    "brand": optional_text("store"),
                    "price": price("price"),
                    "category_path": Field(
                        f"case when len(path) > 0 then path else {json_list('main_category')} end",
                        lets={"path": json_list("categories")},
                    ),
                    "image_ref": optional_text(f"coalesce({', '.join(IMAGES)})"),
                    "domain": value("part"),
                    "pairs": pairs("bought_together"),
                },
            ),
        )
