"""Amazon review data 2018 (https://nijianmo.github.io/amazon/): one JSON object a line.

    X_5.json, X.json, All_Amazon_Review_5.json, All_Amazon_Review.json
                    overall (1 to 5), reviewerID, asin, unixReviewTime (seconds, whole days)
    X.csv, all_csv_files.csv
                    ratings only, no header: item, user, rating, seconds. In 2014 the user came first
    meta_X.json, All_Amazon_Meta.json
                    asin, title, description (list), feature (list), brand, category (list), price,
                    image or imageURL and imageURLHighRes (lists), also_buy, also_view (lists of asins)

What a scraped page left in the metadata: a title with `getTime` in it is a script, and null here (the
dataset's own page drops such rows); `category` ends before its first entry that begins with `<`, after
which the page's bullet points follow; a price that is a style sheet is null, and of a range such as
`$10.00 - $50.00` the lower end counts. HTML entities stay as they are: in texts they are as often meant
as not. The metadata files repeat items; lines that say the same are one item.

Not read: the reviews' text, votes, style and images, rank, details, tech1, tech2, similar_item.
"""

from dataclasses import dataclass
from typing import ClassVar

from sid_pipelines.sources.amazon_2014 import EVENT, REVIEWS  # reviews are written as they were in 2014
from sid_pipelines.sources.base import Layout, Source
from sid_pipelines.sources.fields import (
    Field,
    constant,
    joined,
    json_list,
    name_of,
    optional_text,
    pairs,
    price,
    value,
)
from sid_pipelines.sources.forms import Csv, Json

IMAGES = ("imageURLHighRes", "imageURL", "image")  # the best first
DESCRIBED = ("asin", "title", "description", "feature", "brand", "price", "category")
ALSO = ("also_buy", "also_view")
HTML = "list_position(list_transform(path, lambda x: starts_with(x, '<')), true)"
RATINGS = ("item", "reviewer", "rating", "seconds")


@dataclass(frozen=True)
class Amazon2018(Source):
    """Amazon reviews of 1996 to 2018 with their metadata."""

    kind: ClassVar[str] = "amazon-2018"
    title: ClassVar[str] = "Amazon 2018: <Category>_5.json or <Category>.csv, meta_<Category>.json"
    licence: ClassVar[str] = "research use; cite Ni et al. 2019"
    url: ClassVar[str] = "https://nijianmo.github.io/amazon/"
    tested_on: ClassVar[str] = "real files (reviews, metadata), hand-made lines (ratings)"
    template: ClassVar[str] = "{title}. {brand}. {categories}. {description}"

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """Give reviews, ratings only, and metadata."""
        return (
            Layout(
                role="interactions",
                called="<Category>_5.json or <Category>.json",
                name=r"(?!meta_|All_Amazon_Meta)(?P<part>.+?)(_5)?\.json",
                form=REVIEWS,
                columns={**EVENT, "event_type": constant("review")},
            ),
            Layout(
                role="interactions",
                called="<Category>.csv",
                name=r"(?P<part>.+)\.csv",
                form=Csv({name: name for name in RATINGS}, names=RATINGS),
                columns=EVENT,
            ),
            Layout(
                role="items",
                called="meta_<Category>.json",
                name=r"(meta_(?P<part>.+)|All_Amazon_Meta)\.json",
                required=False,
                form=Json({name: f"$.{name}" for name in (*DESCRIBED, *IMAGES, *ALSO)}),
                columns={
                    "item_id": name_of("asin", "an item id (asin)"),
                    "title": optional_text("case when not contains(title, 'getTime') then title end"),
                    "description": value(joined(json_list("description"), json_list("feature"))),
                    "brand": optional_text("brand"),
                    "price": price("price"),
                    "category_path": Field(
                        f"list_slice(path, 1, coalesce({HTML} - 1, -1))", lets={"path": json_list("category")}
                    ),
                    "image_ref": value(f"coalesce({', '.join(f'{json_list(name)}[1]' for name in IMAGES)})"),
                    "domain": value("coalesce(nullif(part, ''), 'amazon')"),
                    "pairs": pairs(*ALSO),
                },
            ),
        )
