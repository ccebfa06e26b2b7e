"""The Yelp Open Dataset (https://business.yelp.com/data/resources/open-dataset/): JSON lines, UTF-8.

    yelp_academic_dataset_review.json     user_id, business_id, stars 1..5, date such as 2016-03-09 20:56:38
    yelp_academic_dataset_business.json   business_id, name, city, state, categories (one text with commas)

The format is documented at https://www.yelp.com/dataset/documentation/main. The rounds differ: some call
the files review.json and business.json, older ones write the date without a time (taken as midnight UTC;
the dump names no zone) and the categories as a list. Yelp hands the files out in a .tar, which is not
read: unpack it. Not read: users, tips, check-ins, photos, the reviews' texts and votes, the attributes,
hours, coordinates and mean stars of businesses.
"""

from dataclasses import dataclass
from typing import ClassVar

from sid_pipelines.sources.base import Layout, Source
from sid_pipelines.sources.fields import constant, json_list, moment, name_of, number, optional_text, value
from sid_pipelines.sources.forms import Json

CATEGORIES = f"""
    case when ltrim(categories)[1] = '[' then {json_list("categories")}
    else list_filter(list_transform(string_split(coalesce(categories, ''), ','), lambda c: trim(c)),
        lambda c: c <> '') end"""


@dataclass(frozen=True)
class Yelp(Source):
    """Yelp reviews of businesses."""

    kind: ClassVar[str] = "yelp"
    title: ClassVar[str] = (
        "Yelp Open Dataset: yelp_academic_dataset_review.json, yelp_academic_dataset_business.json"
    )
    licence: ClassVar[str] = "Yelp's terms: academic use"
    url: ClassVar[str] = "https://business.yelp.com/data/resources/open-dataset/"
    tested_on: ClassVar[str] = "hand-made lines"
    template: ClassVar[str] = "{title}. {categories}. {description}"

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """Give reviews and businesses."""
        return (
            Layout(
                role="interactions",
                called="yelp_academic_dataset_review.json",
                name=r"(yelp_academic_dataset_)?review\.json",
                form=Json(
                    {
                        "user_name": "$.user_id",
                        "business": "$.business_id",
                        "stars": "$.stars",
                        "written": "$.date",
                    }
                ),
                columns={
                    "user_id": name_of("user_name", "a user id (user_id)"),
                    "item_id": name_of("business", "a business id (business_id)"),
                    "value": number("stars", "a rating", low=1, high=5),
                    "ts": moment("written", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d", example="2016-03-09 20:56:38"),
                    "event_type": constant("review"),
                },
            ),
            Layout(
                role="items",
                called="yelp_academic_dataset_business.json",
                name=r"(yelp_academic_dataset_)?business\.json",
                form=Json(
                    {
                        "business": "$.business_id",
                        "name": "$.name",
                        "city": "$.city",
                        "state": "$.state",
                        "categories": "$.categories",
                    }
                ),
                columns={
                    "item_id": name_of("business", "a business id (business_id)"),
                    "title": optional_text("name"),
                    "description": value(
                        "nullif(concat_ws(', ', nullif(trim(city), ''), nullif(trim(state), '')), '')"
                    ),
                    "category_path": value(CATEGORIES),
                    "domain": constant("businesses"),
                },
            ),
        )
