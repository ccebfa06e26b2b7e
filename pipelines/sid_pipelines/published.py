"""What papers print of known data sets, and how a run compares: users, items, interactions after cleaning.

A data set is known by its kind and the names of its files, where needed by its raw rows too. Numbers are
compared only where the recipe cleans as the paper did; otherwise what differs is said. Numbers are from
TRAINER_FORMATS section 3; `checked` says whether we recomputed them ourselves from real files.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sid_warehouse.stages import StageOutput

FIRST_5 = {"dedupe": "first", "k_core_user": 5, "k_core_item": 5, "k_core": "iterative"}
AS_IT_IS = {"dedupe": "first", "k_core_user": 0, "k_core_item": 0}
NO_FILTER: Mapping[str, Any] = {
    "since": None,
    "until": None,
    "events": [],
    "min_value": None,
    "max_value": None,
}


@dataclass(frozen=True)
class Statistics:
    """Published numbers of one data set.

    files: regular expression of an interactions file's name, without `.gz`. clean: how the paper cleans,
    as CleanParams; what is not named is at its default. raw: rows of the dump, where names are not enough.
    """

    name: str
    source: str
    kind: str
    files: str
    clean: Mapping[str, Any]
    users: int | None
    items: int | None
    interactions: int | None
    raw: int | None = None
    checked: bool = False
    samples: Mapping[str, int] = field(default_factory=dict)  # of train, valid, test


def _amazon_2014(
    category: str, users: int, items: int, interactions: int, train: int | None = None
) -> Statistics:
    return Statistics(
        name=f"Amazon-2014 {category} 5-core",
        source="TIGER, P5, S3-Rec",
        kind="amazon-2014",
        files=rf"reviews_{category}_5\.json",
        clean=FIRST_5,
        users=users,
        items=items,
        interactions=interactions,
        samples={} if train is None else {"train": train},
    )


def _lc_rec(category: str, users: int, items: int, interactions: int) -> Statistics:
    return Statistics(
        name=f"Amazon-2018 {category}, LC-Rec",
        source="LC-Rec (its table has one user and one item more, RecBole's padding)",
        kind="amazon-2018",
        files=rf"{category}\.csv",
        clean=FIRST_5,
        users=users,
        items=items,
        interactions=interactions,
    )


def _small_2018(category: str, users: int, items: int, interactions: int) -> Statistics:
    return Statistics(
        name=f"Amazon-2018 {category}_5, first of repeated events, 5-core to the fixed point",
        source="recomputed from third-party copies of the file",
        kind="amazon-2018",
        files=rf"{category}_5\.json",
        clean=FIRST_5,
        users=users,
        items=items,
        interactions=interactions,
        checked=True,
    )


def _amazon_2023(category: str, users: int, items: int, interactions: int) -> Statistics:
    return Statistics(
        name=f"Amazon-2023 {category} 5-core",
        source="AmazonReviews2023, BLaIR",
        kind="amazon-2023",
        files=rf"{category}\.(jsonl|csv)",
        clean=FIRST_5,
        users=users,
        items=items,
        interactions=interactions,
    )


def _movielens(name: str, files: str, raw: int, users: int, items: int, checked: bool = False) -> Statistics:
    return Statistics(
        name=name,
        source="GroupLens",
        kind="movielens",
        files=files,
        clean=AS_IT_IS,
        users=users,
        items=items,
        interactions=raw,
        raw=raw,
        checked=checked,
    )


KNOWN: tuple[Statistics, ...] = (
    _amazon_2014("Beauty", 22_363, 12_101, 198_502, train=131_413),
    _amazon_2014("Sports_and_Outdoors", 35_598, 18_357, 296_337, train=189_543),
    _amazon_2014("Toys_and_Games", 19_412, 11_924, 167_597),
    _amazon_2014("CDs_and_Vinyl", 75_258, 64_443, 1_097_592),
    _amazon_2014("Clothing_Shoes_and_Jewelry", 39_387, 23_033, 278_677),
    _amazon_2014("Electronics", 192_403, 63_001, 1_689_188),
    _amazon_2014("Movies_and_TV", 123_960, 50_052, 1_697_533),
    _amazon_2014("Books", 603_668, 367_982, 8_898_041),
    _lc_rec("Musical_Instruments", 24_772, 9_922, 206_153),
    _lc_rec("Arts_Crafts_and_Sewing", 45_141, 20_956, 390_832),
    _lc_rec("Video_Games", 50_546, 16_859, 452_989),
    _small_2018("All_Beauty", 137, 24, 686),
    _small_2018("Gift_Cards", 453, 147, 2_941),
    _small_2018("Magazine_Subscriptions", 294, 132, 2_027),
    _amazon_2023("Video_Games", 94_762, 25_612, 814_586),
    _amazon_2023("Musical_Instruments", 57_439, 24_587, 511_836),
    _amazon_2023("Industrial_and_Scientific", 50_985, 25_848, 412_947),
    _amazon_2023("Office_Products", 223_308, 77_551, 1_800_878),
    _amazon_2023("Baby_Products", 150_777, 36_013, 1_241_083),
    _amazon_2023("Beauty_and_Personal_Care", 729_576, 207_649, 6_624_441),
    _amazon_2023("Health_and_Household", 796_054, 184_346, 7_176_552),
    _amazon_2023("Cell_Phones_and_Accessories", 380_999, 111_480, 2_752_785),
    _movielens("MovieLens 100K", r"u\.data", 100_000, 943, 1_682, checked=True),
    _movielens("MovieLens 1M", r"ratings\.dat", 1_000_209, 6_040, 3_706),
    _movielens("MovieLens 20M", r"ratings\.csv", 20_000_263, 138_493, 26_744),
    Statistics(
        name="MovieLens 1M 5-core",
        source="OpenP5",
        kind="movielens",
        files=r"ratings\.dat",
        clean=FIRST_5,
        users=6_040,
        items=3_416,
        interactions=999_611,
        raw=1_000_209,
    ),
    *(
        Statistics(
            name=f"Amazon-2018 {category} of MiniOneRec",
            source="MiniOneRec, its files",
            kind="amazon-2018",
            files=rf"{category}(_5)?\.json",
            clean={
                **FIRST_5,
                "exact_duplicates": "keep",
                "dedupe": "all",
                "since": 1_475_280_000_000,  # 2016-10
                "until": 1_541_030_400_000,  # 2018-11
                "require": ["title"],
            },
            users=None,
            items=items,
            interactions=None,
        )
        for category, items in (("Industrial_and_Scientific", 3_686), ("Office_Products", 3_459))
    ),
    Statistics(
        name="Amazon-2014 Books, single pass",
        source="HSTU (generative-recommenders)",
        kind="amazon-2014",
        files=r"ratings_Books\.csv",
        clean={"dedupe": "all", "k_core_user": 5, "k_core_item": 5, "k_core": "single-pass"},
        users=694_897,
        items=None,
        interactions=10_053_086,
    ),
)


def compare(outputs: Mapping[str, StageOutput]) -> list[dict[str, Any]]:
    """Give how a run compares with what is published of its data set: {name, verdict, says, ...}.

    verdict: "matches", "differs", or "not comparable" where the recipe cleans in another way and no
    other entry fits. Empty for a data set that is not known, and before it is cleaned.
    """
    if "clean" not in outputs or outputs["clean"].manifest["stage"] != "clean":  # an append has a part only
        return []
    read, cleaned = outputs["ingest"].manifest["params"], outputs["clean"].manifest["params"]
    ledger = outputs["clean"].facts["ledger"]
    names = [
        one["label"].rsplit("/", 1)[-1].removesuffix(".gz")
        for one in read["files"]
        if one["role"] == "interactions"
    ]
    known = [
        one
        for one in KNOWN
        if one.kind == read["kind"]
        and len(names) == 1
        and re.fullmatch(one.files, names[0])
        and one.raw in (None, ledger[0]["interactions"])
    ]
    fitting = [one for one in known if not _differences(one, cleaned)]
    samples = outputs["sequences"].facts["samples"] if "sequences" in outputs else {}
    if "split" not in outputs or outputs["split"].facts["protocol"] != "leave-one-out":
        samples = {}
    if samples and outputs["sequences"].manifest["params"]["expansion"] != "prefix":
        samples = {}
    if fitting:
        return [_verdict(one, ledger, samples) for one in fitting]
    return [_not_comparable(one, ledger, _differences(one, cleaned)) for one in known]


def _differences(one: Statistics, cleaned: Mapping[str, Any]) -> list[str]:
    """Say in what a recipe cleans otherwise than the paper did."""
    wanted = {**NO_FILTER, **one.clean}
    said = {"k_core_user": "k_core.user", "k_core_item": "k_core.item", "k_core": "k_core_method"}
    # A core of 0 and of 1 are the same: no filter.
    return [
        f"clean.{said.get(name, name)} = {cleaned[name]!r} instead of {value!r}"
        for name, value in wanted.items()
        if cleaned[name] != value and not (name.startswith("k_core_") and {cleaned[name], value} == {0, 1})
    ]


def _verdict(
    one: Statistics, ledger: Sequence[Mapping[str, Any]], samples: Mapping[str, int]
) -> dict[str, Any]:
    pairs = _pairs(one, ledger)
    pairs |= {
        f"{name} samples": (samples[name], number) for name, number in one.samples.items() if name in samples
    }
    off = [
        f"{name} {got:,} instead of {number:,} ({got - number:+,})"
        for name, (got, number) in pairs.items()
        if got != number
    ]
    undescribed = sum(row["removed"] for row in ledger if row["step"] == "no_metadata")
    if off and undescribed:
        off.append(f"here {undescribed:,} events on items without metadata were left out")
    numbers = ", ".join(f"{number:,} {name}" for name, (_, number) in pairs.items())
    says = (
        f"differs from the published statistics of {one.name} ({one.source}): {'; '.join(off)}"
        if off
        else f"matches the published statistics of {one.name} ({one.source}): {numbers}"
    )
    return {
        "name": one.name,
        "source": one.source,
        "verdict": "differs" if off else "matches",
        "says": says,
        "published": {name: number for name, (_, number) in pairs.items()},
        "found": {name: got for name, (got, _) in pairs.items()},
    }


def _pairs(one: Statistics, ledger: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    """Give what was found and what is published, under its name."""
    published = {"users": one.users, "items": one.items, "interactions": one.interactions}
    return {name: (ledger[-1][name], number) for name, number in published.items() if number is not None}


def _not_comparable(
    one: Statistics, ledger: Sequence[Mapping[str, Any]], differences: Sequence[str]
) -> dict[str, Any]:
    pairs = _pairs(one, ledger)
    numbers = ", ".join(f"{got:,} {name} here, {number:,} there" for name, (got, number) in pairs.items())
    says = (
        f"not comparable with the published statistics of {one.name} ({one.source}), because "
        f"{', '.join(differences)}: {numbers}"
    )
    return {"name": one.name, "source": one.source, "verdict": "not comparable", "says": says}
