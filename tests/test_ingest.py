"""Ingest: every line of the dump is a record or a reject with its reason."""

import gzip
import shutil
from pathlib import Path

import pytest
from helpers import ROOT, Run, run_chain, write_dump
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sid_flows.execute import execute
from sid_flows.plan import make_plan
from sid_schemas import DataError, SourceError

GOOD = ["1::0000001::7::1365029107", "1::0000002::8::1366576639"]
MOVIES = ["0000001::One (1901)::Drama", "0000002::Two (1902)::Drama|Short"]


def ingest(tmp_path: Path, ratings: list[str], movies: list[str], rate: float = 1.0) -> Run:
    recipe = write_dump(tmp_path, ratings, movies)
    return run_chain(recipe, tmp_path / "warehouse", f"clean.max_reject_rate={rate}", until="ingest")


def test_the_real_dump_is_read_whole(example: Run) -> None:
    raw = example.outputs["ingest"]
    assert raw.manifest["rows"] == {"raw_interactions": 50_000, "raw_items": 7_505, "rejects": 0}
    first = raw.read("raw_interactions").slice(0, 1).to_pylist()[0]
    assert first == {
        "user_id": "1",
        "item_id": "1074638",
        "ts": 1365029107000,
        "event_type": "rating",
        "value": 7.0,
        "session_id": None,
        "query": None,
        "position": None,
        "source_file": "movietweetings-50k/ratings.dat.gz",
        "source_row": 1,
    }
    item = raw.read("raw_items").slice(0, 1).to_pylist()[0]
    assert item["title"] == "Fantômas - À l'ombre de la guillotine (1913)"
    assert item["category_path"] == ["Crime", "Drama"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1,0000001,7,1365029107", "expected 4 fields separated by '::', got 1"),
        ("1::0000001::7", "expected 4 fields separated by '::', got 3"),
        ("1::0000001::7::1365029107::x", "expected 4 fields separated by '::', got 5"),
        ("", "expected 4 fields separated by '::', got 1"),
        ("::0000001::7::1365029107", "expected a user id, got nothing"),
        ("1::::7::1365029107", "expected a movie id, got nothing"),
        ("1::0000001::good::1365029107", "expected a number as rating"),
        ("1::0000001::nan::1365029107", "expected a number as rating"),
        ("1::0000001::11::1365029107", "expected a rating from 0 to 10"),
        ("1::0000001::7::April", "expected whole unix seconds as time"),
        ("1::0000001::7::1365029107.6", "expected whole unix seconds as time"),
        ("1::0000001::7::1e9", "expected whole unix seconds as time"),
        ("1::0000001::7::99999999999999999", "expected unix seconds from 1970 to 2100"),
        ("1::0000001::7::-5", "expected unix seconds from 1970 to 2100"),
        ("1::0000001::7::253402300799", "expected unix seconds from 1970 to 2100"),  # the year 9999
    ],
)
def test_a_bad_row_goes_to_the_rejects_with_its_reason(tmp_path: Path, line: str, reason: str) -> None:
    done = ingest(tmp_path, [GOOD[0], line, GOOD[1]], MOVIES)
    [reject] = done.outputs["ingest"].read("rejects").to_pylist()
    assert reject == {"source_file": "dump/ratings.dat", "source_row": 2, "reason": reason, "raw": line}
    kept = done.outputs["ingest"].read("raw_interactions")
    assert kept["source_row"].to_pylist() == [1, 3]


def test_times_in_two_units_are_refused_with_the_rows(tmp_path: Path) -> None:
    with pytest.raises(
        SourceError,
        match=r"times in two units. Row 1 is as declared .*1 row is not, first row 3: .*1365029107000'",
    ):
        ingest(tmp_path, [*GOOD, "1::0000001::7::1365029107000"], MOVIES)
    with pytest.raises(SourceError, match="another unit, and so in all 1 rows"):
        ingest(tmp_path, ["1::0000001::7::1365029107000"], MOVIES)


def test_too_many_rejects_stop_the_run_and_show_the_first(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        ingest(tmp_path, [*GOOD, "1::0000001::good::1365029107"], MOVIES, rate=0.01)
    assert str(caught.value) == (
        "dump/ratings.dat: 1 of 3 rows rejected (33.3%, allowed 1.0%). First: row 3: expected a number as "
        "rating, got '1::0000001::good::1365029107'. Mend the file or [source], or raise "
        "[clean] max_reject_rate"
    )


def test_the_limit_judges_a_reused_ingest_too(tmp_path: Path) -> None:
    ratings = [*GOOD, "1::0000001::good::1365029107"]
    assert ingest(tmp_path, ratings, MOVIES, rate=0.5).outputs["ingest"]
    with pytest.raises(DataError, match="1 of 3 rows rejected"):
        ingest(tmp_path, ratings, MOVIES, rate=0.01)


def test_a_wrong_separator_says_what_was_expected(tmp_path: Path) -> None:
    commas = [line.replace("::", ",") for line in GOOD]
    with pytest.raises(DataError, match=r"2 of 2 rows rejected .*expected 4 fields separated by '::', got 1"):
        ingest(tmp_path, commas, MOVIES, rate=0.01)


def test_a_missing_file_names_what_the_folder_holds(tmp_path: Path) -> None:
    recipe = write_dump(tmp_path, GOOD, MOVIES)
    (tmp_path / "dump" / "movies.dat").unlink()
    with pytest.raises(SourceError, match=r"no movies\.dat there .*there is: dump/ratings\.dat"):
        run_chain(recipe, tmp_path / "warehouse", until="ingest")
    with pytest.raises(SourceError, match=r"path = 'nowhere': expected a file, or a folder"):
        run_chain(recipe, tmp_path / "warehouse", "source.path=nowhere", until="ingest")
    with pytest.raises(SourceError, match=r"path = 'no\*': expected a file, or a folder"):
        run_chain(recipe, tmp_path / "warehouse", "source.path=no*", until="ingest")


def test_broken_files_stop_the_chain_with_their_row(plain_dump: Path) -> None:
    folder, recipe = plain_dump / "data/movietweetings-50k", plain_dump / "recipe.toml"
    movies = folder / "movies.dat"
    content = movies.read_text()
    movies.write_text(content, encoding="latin-1", errors="replace")
    with pytest.raises(SourceError, match=r"movies\.dat, row 1: byte b'\\xf4'.*expected utf-8 text"):
        run_chain(recipe, plain_dump / "w", until="ingest")
    assert run_chain(recipe, plain_dump / "w", "source.encoding=latin-1", until="ingest").outputs["ingest"]
    movies.write_text(content)
    packed = gzip.compress((folder / "ratings.dat").read_bytes())
    (folder / "ratings.dat.gz").write_bytes(packed[:-10_000])
    (folder / "ratings.dat").unlink()
    with pytest.raises(SourceError, match=r"ratings\.dat\.gz, row \d+: the gzip stream ends here"):
        run_chain(recipe, plain_dump / "w", until="ingest")


@pytest.mark.parametrize("swap", [False, True])
def test_of_two_descriptions_one_stays_whatever_the_order(tmp_path: Path, swap: bool) -> None:
    twice = ["0000001::One (1901)::Drama", "0000001::Uno (1901)::Drama"]
    movies = [*(reversed(twice) if swap else twice), MOVIES[1]]
    done = ingest(tmp_path, GOOD, movies)
    assert done.outputs["ingest"].read("raw_items")["title"].to_pylist() == ["One (1901)", "Two (1902)"]
    [reject] = done.outputs["ingest"].read("rejects").to_pylist()
    assert reject["raw"] == twice[1]
    assert reject["reason"] == f"item 0000001 is described in another way too, which was kept: {twice[0]}"


def test_a_file_that_changes_under_our_hands_is_refused(tmp_path: Path) -> None:
    recipe = write_dump(tmp_path, GOOD, MOVIES)
    plan = make_plan(recipe, tmp_path / "w", until="ingest")
    (tmp_path / "dump" / "ratings.dat").write_text("9::0000001::7::1365029107\n")
    with pytest.raises(SourceError, match=r"ratings\.dat: changed while it was read"):
        execute(plan, plan.stages[0], {})
    assert not list((tmp_path / "w" / "stages").rglob("manifest.json"))


def test_several_folders_are_one_dump(tmp_path: Path) -> None:
    for name, line in (("jan", GOOD[0]), ("feb", GOOD[1])):
        write_dump(tmp_path / name, [line], MOVIES)
        (tmp_path / name / "dump").rename(tmp_path / f"dump-{name}")
    recipe = tmp_path / "jan" / "recipe.toml"
    done = run_chain(
        recipe, tmp_path / "w", 'source.path="../dump-*"', "clean.max_reject_rate=1.0", until="ingest"
    )
    assert done.outputs["ingest"].read("raw_interactions")["source_file"].to_pylist() == [
        "dump-feb/ratings.dat",
        "dump-jan/ratings.dat",
    ]


LINE = st.one_of(
    st.sampled_from(GOOD),
    st.lists(
        st.sampled_from(
            ["1", "x", "", "::", "7", "1365029107", "9" * 17, "9" * 30, "1e999", "1.5", "-1", "\0", "é"]
        ),
        max_size=6,
    ).map("::".join),
    st.text(st.characters(exclude_characters="\r\n\ufeff", exclude_categories=("Cs",)), max_size=20),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(LINE, min_size=1, max_size=30))
def test_no_line_is_ever_lost(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    done = ingest(tmp_path_factory.mktemp("fuzz"), lines, MOVIES)
    raw = done.outputs["ingest"]
    rows = (
        raw.read("raw_interactions")["source_row"].to_pylist() + raw.read("rejects")["source_row"].to_pylist()
    )
    assert sorted(rows) == list(range(1, len(lines) + 1))
    by_row = {row["source_row"]: row for row in raw.read("rejects").to_pylist()}
    assert all(row["raw"] == lines[number - 1] and row["reason"] for number, row in by_row.items())


def test_a_role_without_a_whole_line_is_empty(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tests" / "data" / "sources" / "retailrocket", tmp_path / "dump")
    tree = tmp_path / "dump" / "category_tree.csv"
    (tmp_path / "dump" / "category_tree.csv.gz").write_bytes(gzip.compress(tree.read_bytes())[:12])
    tree.unlink()
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('dataset = "r"\n[source]\nkind = "retailrocket"\npath = "dump"\ntruncated = "keep"\n')
    done = run_chain(recipe, tmp_path / "w", "clean.max_reject_rate=1.0", until="ingest").outputs["ingest"]
    assert done.facts["interactions"] > 0
    assert done.facts["files"]["dump/category_tree.csv.gz"]["cut_off"]
