"""Open Bandit Dataset of ZOZOTOWN: single places on a page, with how likely each item was to fill them
(https://research.zozo.com/data.html, described at https://arxiv.org/abs/2008.07146).

    all.csv, men.csv, women.csv   (row number), timestamp, item_id, position 1..3, click 0 or 1,
                                  propensity_score, user_feature_0..3, user-item_affinity_0..
    item_context.csv              (row number), item_id, item_feature_0 (a number), item_feature_1..3

Each row is one item that was shown: an impression of one item, and a click where it was clicked. What
else stood on the page is not told. **There are no users**: a user is what four hashed features
have in common, joined by '-', so many people are one user, and sequences of it are no one's. Every
campaign (all, men, women) numbers its items anew, so two campaigns are two data sets; the same campaign
under both policies (bts, random) is one. The hashed item features are the category path; items have no
text. Not read: item_feature_0, the affinities.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from sid_pipelines.sources.base import Candidate, Layout, RawFile, Source
from sid_pipelines.sources.fields import Field, constant, moment, name_of, number, value
from sid_pipelines.sources.forms import Csv
from sid_schemas import SourceError
from sid_warehouse.db import literal

FEATURES = tuple(f"user_feature_{n}" for n in range(4))
USER = f"concat_ws('-', {', '.join(FEATURES)})"  # a feature that is missing is left out
CATEGORIES = tuple(f"item_feature_{n}" for n in range(1, 4))


def one_of(name: str, what: str, *digits: str) -> Field:
    """Give a digit that is one of a few, as an integer."""
    listed = ", ".join(map(literal, digits))
    wrong = f"not coalesce({name} in ({listed}), false)"
    return Field(f"try_cast({name} as integer)", ((wrong, literal(f"expected {what}: {', '.join(digits)}")),))


IMPRESSIONS = """
    select user_id, ts, null::varchar as impression_id, null::varchar as session_id, null::varchar as query,
        [item_id] as items, [click = 1] as clicked, [place] as positions, [propensity] as propensities,
        source_file, source_row
    from shown order by source_file, source_row"""

INTERACTIONS = """
    select user_id, item_id, ts, 'click' as event_type, null::double as value, null::varchar as session_id,
        null::varchar as query, place as position, source_file, source_row
    from shown where click = 1 order by source_file, source_row"""


@dataclass(frozen=True)
class OpenBandit(Source):
    """One campaign of the Open Bandit Dataset, under one policy or both."""

    kind: ClassVar[str] = "open-bandit"
    title: ClassVar[str] = "Open Bandit Dataset: <campaign>.csv (all, men or women), item_context.csv"
    licence: ClassVar[str] = "CC BY 4.0, ZOZO"
    url: ClassVar[str] = "https://research.zozo.com/data.html"
    tested_on: ClassVar[str] = "hand-made lines in the published format"
    template: ClassVar[str] = "{categories}"
    derived: ClassVar[Mapping[str, str]] = {"impressions": IMPRESSIONS, "interactions": INTERACTIONS}

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """Give what was shown, and the items."""
        shown = ("timestamp", "item_id", "position", "click", "propensity_score", *FEATURES)
        return (
            Layout(
                role="shown",
                called="all.csv, men.csv or women.csv",
                name=r"(?P<part>all|men|women)\.csv",
                form=Csv({name: name for name in shown}),
                columns={
                    "user_id": Field(
                        USER, ((f"trim({USER}, '- ') = ''", literal("expected user features, got nothing")),)
                    ),
                    "item_id": name_of("item_id", "an item id"),
                    "ts": moment(
                        '"timestamp"',
                        "%Y-%m-%d %H:%M:%S.%f%z",
                        "%Y-%m-%d %H:%M:%S%z",
                        example="2019-11-24 00:00:00.004101+00:00",
                    ),
                    "place": one_of('"position"', "a position", "1", "2", "3"),
                    "click": one_of("click", "a click", "0", "1"),
                    "propensity": number("propensity_score", "a propensity", low=0, high=1),
                },
            ),
            Layout(
                role="items",
                called="item_context.csv",
                name=r"item_context\.csv",
                form=Csv({name: name for name in ("item_id", *CATEGORIES)}),
                columns={
                    "item_id": name_of("item_id", "an item id"),
                    "category_path": value(
                        f"list_filter([{', '.join(CATEGORIES)}], lambda one: one is not null and one <> '')"
                    ),
                    "domain": constant("fashion"),
                },
            ),
        )

    def find(self, files: Sequence[Candidate], items: Sequence[Candidate] = ()) -> list[RawFile]:
        """Give the files of one campaign; raises SourceError for two."""
        found = super().find(files, items)
        shown = {file.part: file.label for file in found if file.role == "shown"}
        if len(shown) > 1:
            raise SourceError(
                f"[source] path: {' and '.join(shown.values())} are of different campaigns, which number "
                "their items anew; expected one campaign. Make a recipe for each"
            )
        return found
