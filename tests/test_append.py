"""Appends: no published ID, number, label or history moves; what is new comes in by the declared rules."""

import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Run, quickly, run_append, run_chain

from sid_flows.append import plan_append
from sid_pipelines import drift
from sid_pipelines.fusion import load_fusion
from sid_pipelines.kcore import k_core
from sid_schemas import DataError, GateRefusedError, RecipeError, WarehouseError
from sid_tokenizers import POLICIES
from sid_warehouse.reader import Release, Warehouse

BY_TIME = Path(__file__).parent.parent.parent / "shared" / "data" / "movietweetings" / "by-time"
DUMPS = ("base", "delta1", "delta2")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the module's releases, `by_time` among them, go to Great Expectations and the catalog."""
    quickly(monkeypatch)


def write_recipe(folder: Path, ratings: list[str], movies: list[str], more: str = "") -> Path:
    """Write a MovieTweetings dump of these lines, and a recipe beside it that embeds without torch."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ratings.dat").write_text("".join(f"{line}\n" for line in ratings), encoding="utf-8")
    (folder / "movies.dat").write_text("".join(f"{line}\n" for line in movies), encoding="utf-8")
    recipe = folder / "recipe.toml"
    source = '[source]\nkind = "movietweetings"\npath = "."\nempty = "keep"\n'
    recipe.write_text(f'dataset = "small"\n{source}{more}')
    return recipe


BUILD = '[clean]\nk_core = 2\n[[embed]]\nmodel = "hashing"\ndim = 32\n[tokenize]\nlevels = [4, 4, 4]\n'


def movies_of(numbers: Sequence[int]) -> list[str]:
    genres = ["Drama", "Comedy|Short", "Horror", "Documentary", ""]
    return [f"{m:07d}::Film {'ABCDEFGHIJ'[m % 10]}{m} ({1950 + m})::{genres[m % 5]}" for m in numbers]


def ratings_of(users: Sequence[int], movies: Sequence[int], day: int, each: int, seed: int = 0) -> list[str]:
    """Give ratings of these users on distinct movies of these, all of one day."""
    draw, second = np.random.default_rng([seed, day]), 1_300_000_000 + day * 86_400
    lines = []
    for user in users:
        for movie in draw.choice(movies, size=each, replace=False):
            lines.append(f"{user}::{movie:07d}::{draw.integers(0, 11)}::{second + draw.integers(0, 80_000)}")
    return lines


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A release of 16 users and 12 items. Tests copy its warehouse."""
    folder = tmp_path_factory.mktemp("base")
    ratings = ratings_of(range(1, 17), range(12), day=0, each=5)
    return run_chain(
        write_recipe(folder / "day0", ratings, movies_of(range(12)), BUILD), folder / "warehouse"
    )


@pytest.fixture
def warehouse(base: Run, tmp_path: Path) -> Path:
    return shutil.copytree(base.plan.warehouse, tmp_path / "warehouse")


def next_day(folder: Path, day: int, *, users: Sequence[int] = range(9, 21), new: int = 3) -> Path:
    """Write a delta: some users known, some new, and movies after those of the day before."""
    first = 12 + (day - 1) * 3
    ratings = ratings_of(users, range(first - 6, first + new), day=day, each=4)
    return write_recipe(folder / f"day{day}", ratings, movies_of(range(first, first + new)))


def sids_of(release: Release) -> dict[str, tuple[Any, ...]]:
    columns = ["item_id", "item_index", "codes", "sid", "sid_key", "slot", "token_ids", "tokens", "text"]
    return {row["item_id"]: tuple(row.values()) for row in release.table("sids").select(columns).to_pylist()}


def assert_stands(before: Release, after: Release, *, frozen: bool = True) -> None:
    """Compare everything that may not move, row by row."""
    old, new = sids_of(before), sids_of(after)
    assert {item: new[item] for item in old} == old
    assert len({tuple(row[3]) for row in new.values()}) == len(new)
    for table, key in (("users", "user_index"), ("items", "item_index")):
        rows = after.table(table, [key, key.replace("index", "id")]).to_pylist()
        assert rows[: before.record["rows"][table]] == before.table(table, list(rows[0])).to_pylist()
        assert [row[key] for row in rows] == list(range(len(rows)))
    sequences = after.table("sequences", ["items", "ts"]).to_pylist()
    for was, now in zip(before.table("sequences", ["items", "ts"]).to_pylist(), sequences, strict=False):
        assert now["items"][: len(was["items"])] == was["items"]
        assert now["ts"] == sorted(now["ts"])
    if frozen:
        for split in ("valid", "test"):
            assert after.table(split).to_pylist() == before.table(split).to_pylist()
        samples = [{tuple(row.values()) for row in r.table("train").to_pylist()} for r in (before, after)]
        assert samples[0] <= samples[1]


# On real data


@pytest.fixture(scope="module")
def by_time(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """The real MovieTweetings, cut by time: 80,000 ratings, then 10,000 twice."""
    if not BY_TIME.is_dir():
        pytest.skip(f"{BY_TIME} is not there")
    folder = tmp_path_factory.mktemp("by-time")
    runs = []
    for name in DUMPS:
        recipe = folder / f"{name}.toml"
        build = '[[embed]]\nmodel = "hashing"\n[tokenize]\nlevels = [64, 64, 64]\n' if name == "base" else ""
        recipe.write_text(
            f'dataset = "mt"\n[source]\nkind = "movietweetings"\npath = "{BY_TIME / name}"\n{build}'
        )
        runs.append((run_append if runs else run_chain)(recipe, folder / "warehouse"))
    return runs


@pytest.mark.realdata
def test_two_real_deltas_move_nothing(by_time: list[Run]) -> None:
    one, two, three = (run.release for run in by_time)
    assert [release.ref for release in (one, two, three)] == ["mt@v1", "mt@v2", "mt@v3"]
    for before, after in ((one, two), (two, three), (one, three)):
        assert_stands(before, after)
    assert two.record["rows"]["items"] > one.record["rows"]["items"]
    assert three.record["base"] == {"version": 2, "fingerprint": two.record["fingerprint"]}
    assert [file.get("append", 0) for file in three.record["raw_files"]] == [0, 0, 1, 1, 2, 2]


@pytest.mark.realdata
def test_what_is_published_is_stored_once(by_time: list[Run]) -> None:
    """Tables that only grow begin with the files of the base: the same bytes, and the same place on disk."""
    one, three = by_time[0].release, by_time[2].release
    for table in ("sids", "users", "embeddings_text"):
        part = f"{table}/part-00000.parquet"
        assert three.record["files"][part]["sha256"] == one.record["files"][part]["sha256"]
        assert (three.folder / part).samefile(one.folder / part)
        assert len(list((three.folder / table).iterdir())) == 3


@pytest.mark.realdata
def test_what_comes_in_is_what_a_slow_reader_admits(by_time: list[Run]) -> None:
    """The same rules over plain lists: one of a pair, not late, and the core of what waits and what came."""

    def ratings(name: str) -> list[tuple[str, str, int]]:
        rows = [line.split("::") for line in (BY_TIME / name / "ratings.dat").read_text().splitlines()]
        return [(user, movie, int(second) * 1000) for user, movie, _, second in rows]

    def events_of(release: Release) -> set[tuple[str, str, int]]:
        users, items = (
            release.table(t)[c].to_pylist() for t, c in (("users", "user_id"), ("items", "item_id"))
        )
        rows = release.table("interactions", ["user_index", "item_index", "ts"]).to_pylist()
        return {(users[row["user_index"]], items[row["item_index"]], row["ts"]) for row in rows}

    published = events_of(by_time[0].release)
    left = [event for event in ratings("base") if event not in published]
    described = {
        line.split("::")[0]
        for name in DUMPS
        for line in (BY_TIME / name / "movies.dat").read_text().splitlines()
    }
    assert {movie for _, movie, _ in ratings("delta1")} <= described
    for run, name in zip(by_time[1:], DUMPS[1:], strict=True):
        pairs = {(user, movie) for user, movie, _ in published}
        last = defaultdict(lambda: -1)
        for user, _, ts in published:
            last[user] = max(last[user], ts)
        waiting = [e for e in left + ratings(name) if e[:2] not in pairs and e[2] >= last[e[0]]]
        known_users, known_items = {user for user, _ in pairs}, {movie for _, movie in pairs}
        while True:
            users, items = Counter(e[0] for e in waiting), Counter(e[1] for e in waiting)
            kept = [
                e for e in waiting
                if (e[0] in known_users or users[e[0]] >= 5) and (e[1] in known_items or items[e[1]] >= 5)
            ]  # fmt: skip
            if len(kept) == len(waiting):
                break
            waiting = kept
        assert events_of(run.release) == published | set(waiting)
        admitted = set(waiting)
        left = [event for event in left + ratings(name) if event not in admitted]
        published |= admitted


@pytest.mark.realdata
def test_a_snapshot_that_numbers_users_anew_is_refused(by_time: list[Run], tmp_path: Path) -> None:
    recipe = tmp_path / "snapshot.toml"
    recipe.write_text(
        f'dataset = "mt"\n[source]\nkind = "movietweetings"\npath = "{BY_TIME.parent / "50K"}"\n'
        '[append]\ndump = "snapshot"\n'
    )
    warehouse = by_time[0].plan.warehouse
    with pytest.raises(
        DataError, match=r"this snapshot has \d+ of the 65,\d+ published events .*numbers users"
    ):
        run_append(recipe, warehouse)


# What comes in


def test_items_and_users_are_numbered_on(base: Run, warehouse: Path, tmp_path: Path) -> None:
    first = run_append(next_day(tmp_path, 1), warehouse).release
    second = run_append(next_day(tmp_path, 2, users=range(15, 25)), warehouse).release
    assert_stands(base.release, first)
    assert_stands(first, second)
    ids = second.table("items")["item_id"].to_pylist()
    added = first.record["rows"]["items"]
    assert ids[:12] == sorted(ids[:12])
    assert ids[12:added] == sorted(ids[12:added])
    assert ids[added:] == sorted(ids[added:])


def test_the_delta_tables_are_what_is_new(base: Run, warehouse: Path, tmp_path: Path) -> None:
    release = run_append(next_day(tmp_path, 1), warehouse, "collisions.policy='next-nearest'").release
    published = base.release.record["rows"]["sids"]
    assert release.table("delta_sids").to_pylist() == release.table("sids").to_pylist()[published:]
    touched = set(release.table("delta_sids")["sid_key"].to_pylist())
    back = {row["sid_key"]: row for row in release.table("sid_to_items").to_pylist()}
    assert release.table("delta_sid_to_items").to_pylist() == [back[key] for key in back if key in touched]


def test_the_same_dump_again_is_no_new_release(warehouse: Path, tmp_path: Path) -> None:
    recipe = next_day(tmp_path, 1)
    assert run_append(recipe, warehouse).release.ref == "small@v2"
    assert plan_append(recipe, warehouse).published["version"] == 2  # type: ignore[index]
    assert run_append(recipe, warehouse, base="small@v1").release.ref == "small@v2"
    run_append(next_day(tmp_path, 2), warehouse)
    assert plan_append(recipe, warehouse).published["version"] == 3  # type: ignore[index]


def test_a_base_is_appended_to_once(warehouse: Path, tmp_path: Path) -> None:
    """Items that two appends give IDs to without knowing of each other could get the same one."""
    run_append(next_day(tmp_path, 1), warehouse)
    with pytest.raises(WarehouseError, match=r"small@v2"):
        run_append(next_day(tmp_path, 2), warehouse, base="small@v1")
    assert run_append(next_day(tmp_path, 2), warehouse).release.ref == "small@v3"


def test_what_waited_comes_in_with_what_was_said_of_it(warehouse: Path, tmp_path: Path, base: Run) -> None:
    """A user and a movie with one event each before, and one more now, are in a core of 2."""
    folder = tmp_path / "again"
    ratings = [
        *ratings_of(range(1, 17), range(12), day=0, each=5),
        "77::0000001::5::1300000000",
        "1::0000099::5::1300000000",
    ]
    build = write_recipe(
        folder / "day0", ratings, [*movies_of(range(12)), "0000099::Late (1999)::War"], BUILD
    )
    run_chain(build, folder / "warehouse")
    more = ["77::0000002::5::1400000000", "2::0000099::9::1400000001", "3::0000099::9::1400000001"]
    release = run_append(write_recipe(folder / "day1", more, []), folder / "warehouse").release
    assert release.table("users")["user_id"].to_pylist()[-1] == "77"
    assert release.table("items").to_pylist()[-1]["title"] == "Late (1999)"
    sequences = release.table("sequences", ["items"])["items"].to_pylist()
    assert sequences[-1] == [1, 2]
    # User 1's event on the movie was before others of theirs that are published: it stays out.
    assert release.metrics["ledger"][0]["interactions"] == 5
    assert [(row["step"], row["removed"]) for row in release.metrics["ledger"] if row["removed"]] == [
        ("late", 1)
    ]


def test_without_the_stages_what_waited_is_told_to_be_lost(warehouse: Path, tmp_path: Path) -> None:
    shutil.rmtree(warehouse / "stages")
    release = run_append(next_day(tmp_path, 1), warehouse).release
    assert release.record["stages"]["extend"]["parents"].keys() == {"base", "ingest"}


def test_new_items_below_the_core_get_ids_where_the_universe_is_the_catalog(tmp_path: Path) -> None:
    ratings = ratings_of(range(1, 17), range(12), day=0, each=5)
    build = write_recipe(
        tmp_path / "day0", ratings, movies_of(range(14)), f'{BUILD}[items]\nuniverse = "catalog"'
    )
    before = run_chain(build, tmp_path / "warehouse").release
    after = run_append(
        write_recipe(tmp_path / "day1", [], movies_of(range(20, 26))), tmp_path / "warehouse"
    ).release
    assert_stands(before, after)
    assert (before.record["rows"]["sids"], after.record["rows"]["sids"]) == (14, 20)
    for table in ("interactions", "sequences", "train"):
        part = f"{table}/part-00000.parquet"
        assert after.record["files"][part]["sha256"] == before.record["files"][part]["sha256"]


def test_an_append_without_new_items_only_extends_sequences(
    base: Run, warehouse: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "day1", ["1::0000003::5::1400000000", "30::0000003::5::1400000000"], [])
    release = run_append(recipe, warehouse, "clean.max_reject_rate=0.1").release
    assert release.table("sids").equals(base.release.table("sids"))
    assert release.record["rows"]["delta_sids"] == 0
    assert release.trie().item(release.table("sids")["sid"][3].as_py()) == 3
    gained = release.record["rows"]["interactions"] - base.release.record["rows"]["interactions"]
    assert gained in (0, 1)  # user 1 may have rated the film before


def test_a_snapshot_is_a_delta_with_everything_else(base: Run, warehouse: Path, tmp_path: Path) -> None:
    delta = next_day(tmp_path / "a", 1)
    by_delta = run_append(delta, shutil.copytree(warehouse, tmp_path / "other")).release
    day0 = base.plan.recipe
    assert day0.dataset == "small"
    old = ratings_of(range(1, 17), range(12), day=0, each=5)
    ratings = old + (tmp_path / "a" / "day1" / "ratings.dat").read_text().splitlines()
    snapshot = write_recipe(tmp_path / "b", ratings, movies_of(range(15)), '[append]\ndump = "snapshot"\n')
    by_snapshot = run_append(snapshot, warehouse).release
    assert sids_of(by_snapshot) == sids_of(by_delta)
    columns = ["user_index", "item_index", "ts", "value", "split"]
    assert by_snapshot.table("interactions", columns).equals(by_delta.table("interactions", columns))


def test_a_delta_that_is_a_snapshot_is_refused(warehouse: Path, tmp_path: Path) -> None:
    ratings = [*ratings_of(range(1, 17), range(12), day=0, each=5), "1::0000011::5::1400000000"]
    with pytest.raises(DataError, match=r"80 of the 81 events in this delta are published already.*snapshot"):
        run_append(write_recipe(tmp_path, ratings, movies_of(range(12))), warehouse)


# In what order, and in how many pieces


def test_batches_in_any_order_keep_the_promise(tmp_path: Path) -> None:
    """Items one at a time, in two orders, and all at once: codes are the same, SIDs distinct, none moves."""
    ratings = ratings_of(range(1, 17), range(12), day=0, each=5)
    catalog = f'{BUILD}[items]\nuniverse = "catalog"'
    build = write_recipe(tmp_path / "day0", ratings, movies_of(range(12)), catalog)
    before = run_chain(build, tmp_path / "base")
    new = list(range(20, 26))
    finals = {}
    for name, batches in {
        "whole": [new],
        "halves": [new[:3], new[3:]],
        "swapped": [new[3:], new[:3]],
        "singly": [[m] for m in new[::-1]],
    }.items():
        warehouse = shutil.copytree(before.plan.warehouse, tmp_path / name)
        releases = [before.release]
        for batch in batches:
            recipe = write_recipe(tmp_path / f"{name}-{batch[0]}", [], movies_of(batch))
            releases.append(run_append(recipe, warehouse).release)
            assert_stands(releases[-2], releases[-1])
        finals[name] = sids_of(releases[-1])
    codes = {name: {item: row[2] for item, row in final.items()} for name, final in finals.items()}
    assert codes["halves"] == codes["swapped"] == codes["singly"] == codes["whole"]
    assert len(finals["whole"]) == 18


def test_the_rows_of_a_dump_may_stand_in_any_order(warehouse: Path, tmp_path: Path) -> None:
    recipe = next_day(tmp_path, 1)
    other = shutil.copytree(warehouse, tmp_path / "other")
    straight = run_append(recipe, warehouse).release
    for name in ("ratings.dat", "movies.dat"):
        path = recipe.parent / name
        path.write_text("".join(f"{line}\n" for line in path.read_text().splitlines()[::-1]))
    turned = run_append(recipe, other).release
    assert sids_of(turned) == sids_of(straight)
    columns = ["user_index", "item_index", "ts", "value", "split"]
    assert turned.table("interactions", columns).equals(straight.table("interactions", columns))


# How splits grow


PROTOCOLS = [
    "{protocol='leave-one-out'}",
    "{protocol='leave-k-out', k=1}",
    "{protocol='global-time', ratios=[0.6, 0.2, 0.2]}",
    "{protocol='global-time', cut='samples', expansion='window', window=2}",
    "{protocol='per-user-ratio', draw='random', ratios=[0.6, 0.2, 0.2]}",
    "{protocol='user-holdout', ratios=[0.6, 0.2, 0.2]}",
    "{protocol='cold-items', ratios=[0.6, 0.2, 0.2]}",
    "{protocol='sessions', next=2}",
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_frozen_test_set_stays_frozen_and_nothing_leaks(base: Run, tmp_path: Path, protocol: str) -> None:
    ratings = ratings_of(range(1, 17), range(12), day=0, each=5)
    build = write_recipe(tmp_path / "day0", ratings, movies_of(range(12)), BUILD)
    before = run_chain(build, tmp_path / "w", f"split={protocol}")
    frozen = shutil.copytree(tmp_path / "w", tmp_path / "frozen")
    after = run_append(next_day(tmp_path, 1), frozen).release
    assert_stands(before.release, after)
    assert [one for one in after.metrics["audit"] if one["verdict"] == "breach"] == []
    anew = run_append(next_day(tmp_path, 1), tmp_path / "w", "append.split='protocol'").release
    assert_stands(before.release, anew, frozen=False)
    assert [one for one in anew.metrics["audit"] if one["verdict"] == "breach"] == []


def test_all_new_events_may_train_where_leaks_are_declared(
    base: Run, warehouse: Path, tmp_path: Path
) -> None:
    frozen = run_append(next_day(tmp_path, 1), shutil.copytree(warehouse, tmp_path / "frozen")).release
    train = run_append(next_day(tmp_path, 1), warehouse, "append.split='train'").release
    assert_stands(base.release, train)
    splits = [Counter(r.table("interactions", ["split"])["split"].to_pylist()) for r in (frozen, train)]
    assert splits[0]["context"] > 0
    assert splits[1] == splits[0] - Counter(context=splits[0]["context"]) + Counter(
        train=splits[0]["context"]
    )
    [leak] = [one for one in train.metrics["audit"] if one["rule"] == "train_after_own_held_out"]
    assert (leak["verdict"], leak["count"]) == ("allowed", splits[0]["context"])


# Drift


def test_drift_calls_for_retraining_or_refuses(warehouse: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(warehouse, tmp_path / "copy")
    limit = "append.max_error_ratio=0.01"
    release = run_append(next_day(tmp_path, 1), warehouse, limit).release
    found = release.metrics["collisions"]["drift"]
    assert found["error_ratio"] > 0.01
    assert "the codebooks fit new items worse" in found["retrain"][0]
    with pytest.raises(GateRefusedError, match=r"the codebooks fit new items worse.*nothing was published"):
        run_append(next_day(tmp_path, 1), copy, limit, "append.drift='fail'")
    assert len(Warehouse(copy).releases()) == 1


def test_psi_tells_a_shift_from_chance() -> None:
    draw = np.random.default_rng(0)
    fitted = np.bincount(draw.integers(0, 64, 5000), minlength=64)
    same = draw.choice(64, size=(60, 1), p=fitted / fitted.sum())
    shifted = draw.integers(0, 4, size=(60, 1))
    limits = drift.Limits()
    told = {"pressure": 0.0, "error_ratio": None, "cold_user_rate": 0.0}
    alike = drift.occupancy_drift(same, [fitted.tolist()])
    other = drift.occupancy_drift(shifted, [fitted.tolist()])
    assert alike[0]["psi"] > 0.25  # though nothing has shifted: sixty items on as many codes
    assert drift.reasons(told | {"levels": alike}, limits) == []
    assert "PSI" in drift.reasons(told | {"levels": other}, limits)[0]


def test_psi_is_the_sum_that_its_definition_says() -> None:
    counts, reference = np.array([3, 0, 7]), np.array([10, 5, 5])
    p = [(c + 0.5) / 11.5 for c in counts]
    q = [(c + 0.5) / 21.5 for c in reference]
    slow = sum((a - b) * np.log(a / b) for a, b in zip(p, q, strict=True))
    assert drift.psi(counts, reference) == pytest.approx(slow)


# What is frozen


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tokenize.seed=5", r"tokenize\.seed = 5 differs from 0, by which small@v1 was made"),
        ("clean.k_core=3", r"clean\.k_core\.user = 3 differs from 2"),
        ("split.seed=1", r"split\.seed = 1 differs"),
        ("embed.dim=64", r"embed\.text\.dim = 64 differs from 32"),
        ("dataset=other", r"dataset = 'other', but the base is small@v1"),
        ("append.dump=weekly", r"append\.dump: .*'delta' or 'snapshot'"),
    ],
)
def test_what_the_base_was_made_by_may_not_change(
    warehouse: Path, tmp_path: Path, override: str, message: str
) -> None:
    recipe = next_day(tmp_path, 1)
    if override.startswith("embed"):
        recipe.write_text(recipe.read_text() + '[[embed]]\nmodel = "hashing"\n')
    with pytest.raises(RecipeError, match=message):
        plan_append(recipe, warehouse, "small", [override])


def test_every_policy_takes_new_items_or_says_why_not(tmp_path: Path) -> None:
    ratings = ratings_of(range(1, 17), range(12), day=0, each=5)
    build = write_recipe(tmp_path / "day0", ratings, movies_of(range(12)), f"{BUILD}")
    catalog = ["items.universe='catalog'", "tokenize.levels=[4, 4]"]
    refused = []
    for policy in POLICIES:  # one warehouse, so that all policies settle the same codes
        rate = ["gates.max_collision_rate=1.0"] if policy in ("none", "hash-digit") else []
        chosen = f"collisions.policy='{policy}'"
        before = run_chain(build, tmp_path / "w", *catalog, chosen, *rate).release
        delta = write_recipe(tmp_path / f"{policy}-1", [], movies_of(range(20, 23)))
        try:
            after = run_append(delta, tmp_path / "w", *rate, base=before.ref).release
        except DataError as error:
            refused.append((policy, str(error)))
            continue
        old, new = sids_of(before), sids_of(after)
        assert {item: new[item] for item in old} == old, policy
    assert [policy for policy, _ in refused] in ([], ["suffix-on-collision"])


def test_a_suffix_only_on_collision_is_refused_where_it_would_begin_another(tmp_path: Path) -> None:
    """Two films with one text have one vector: the second joins the codes of the first, alone before."""
    ratings = ratings_of(range(1, 17), range(12), day=0, each=5)
    build = write_recipe(tmp_path / "day0", ratings, movies_of(range(12)), BUILD)
    options = [
        "items.universe='catalog'",
        "tokenize.levels=[8, 8]",
        "collisions.policy='suffix-on-collision'",
    ]
    before = run_chain(build, tmp_path / "w", *options).release
    alone = next(row for row in before.table("sids").to_pylist() if row["suffix"] is None)
    title = before.table("items")["title"][alone["item_index"]].as_py()
    genres = "|".join(before.table("items")["category_path"][alone["item_index"]].as_py())
    twin = write_recipe(tmp_path / "day1", [], [f"0000500::{title}::{genres}"])
    with pytest.raises(DataError, match=r"1 published SID without a suffix would begin"):
        run_append(twin, tmp_path / "w")


def test_a_core_counts_what_is_held() -> None:
    users, items = np.array([0, 1, 1, 2], np.int32), np.array([0, 0, 1, 1], np.int32)
    none = k_core(users, items, 2, 2)
    assert none.tolist() == [False, False, False, False]
    held = np.array([2, 0, 0], np.int32), np.array([2, 0], np.int32)
    assert k_core(users, items, 2, 2, held=held).tolist() == [True, False, False, False]


MODALITIES = """
[clean]
k_core = 2
[pairs]
kinds = ["swing"]
[[embed]]
model = "hashing"
dim = 32
missing = "mean"
[[embed]]
name = "cf"
modality = "collaborative"
model = "ppmi-svd"
dim = 4
missing = "map"
map_from = "text"
dtype = "float16"
[fuse]
whiten = "pca"
[tokenize]
levels = [4, 4, 4]
"""


def test_every_modality_grows_by_what_was_fitted(tmp_path: Path) -> None:
    """New items get fused vectors from the frozen fusion; none that is published changes by a bit."""
    ratings = ratings_of(range(1, 41), range(24), day=0, each=6)
    build = write_recipe(tmp_path / "day0", ratings, movies_of(range(24)), MODALITIES)
    before = run_chain(build, tmp_path / "w").release
    more = ratings_of(range(30, 60), range(18, 28), day=1, each=4)
    run = run_append(write_recipe(tmp_path / "day1", more, movies_of(range(24, 28))), tmp_path / "w")
    after, n = run.release, before.record["rows"]["items"]
    assert_stands(before, after)
    assert after.record["rows"]["items"] == n + 4
    tables = {name: after.table(f"embeddings_{name}") for name in ("text", "cf", "fused")}
    for name, table in tables.items():
        assert table.slice(0, n).equals(before.table(f"embeddings_{name}"))
    vectors = {name: np.stack(table["vector"].to_numpy()) for name, table in tables.items()}
    assert not tables["cf"]["present"].to_numpy()[n:].any()
    assert np.abs(vectors["cf"][n:]).max() > 0  # a guess from text, not zeros
    fusion = load_fusion(before.folder / "fusion")
    blocks = {name: vectors[name].astype(np.float32) for name in ("text", "cf")}
    there = {name: block.any(axis=1) for name, block in blocks.items()}
    np.testing.assert_array_equal(fusion.transform(blocks, there)[n:], vectors["fused"][n:])
    # What was fitted is in both releases, and the same.
    fitted = ["fusion/fusion.safetensors", "tokenizer/tokenizer.safetensors", "tokenizer/fit.json"]
    for name in fitted:
        assert after.record["files"][name]["sha256"] == before.record["files"][name]["sha256"]
    encoded = after.tokenizer().encode(vectors["fused"][n:])
    assert encoded.tolist() == after.table("delta_sids")["codes"].to_pylist()
    assert after.record["embeddings"]["embeddings_cf"]["items"] == n + 4


def test_lists_that_were_shown_grow_too(tmp_path: Path) -> None:
    """The published lists stay, and new ones join them; a list keeps its split."""
    behaviors = [
        f"{n}\tU{n % 7}\t11/1{day}/2019 {n % 12 + 1}:{n:02d}:00 AM\tN{n % 5} N{(n + 1) % 5}"
        f"\tN{(n + 2) % 6}-1 N{(n + 3) % 6}-0 N{(n + 4) % 6}-0"
        for day in (1, 2)
        for n in range(30)
    ]
    news = [f"N{n}\tnews\tkind\tTitle of {n}\tabstract {n}\thttps://x\t[]\t[]" for n in range(6)]
    for name, lines in (("day1", behaviors[:30]), ("day2", behaviors[30:])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "behaviors.tsv").write_text("".join(f"{line}\n" for line in lines))
        (tmp_path / name / "news.tsv").write_text("".join(f"{line}\n" for line in news))
        source = 'dataset = "mind"\n[source]\nkind = "mind"\npath = "."\n'
        more = '[clean]\nk_core = 0\n[[embed]]\nmodel = "hashing"\ndim = 8\n[tokenize]\nlevels = [2, 2, 2]\n'
        (tmp_path / name / "recipe.toml").write_text(source + (more if name == "day1" else ""))
    before = run_chain(tmp_path / "day1" / "recipe.toml", tmp_path / "w").release
    after = run_append(tmp_path / "day2" / "recipe.toml", tmp_path / "w").release
    rows = [[str(row) for row in r.table("impressions").to_pylist()] for r in (before, after)]
    assert not Counter(rows[0]) - Counter(rows[1])
    assert len(rows[1]) > len(rows[0]) > 0
