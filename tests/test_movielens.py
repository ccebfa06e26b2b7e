"""MovieLens: the real 100k release, and how the encoding of movies.dat is found out."""

import gzip
from pathlib import Path

import pytest
from helpers import ROOT, run_chain

REAL = ROOT.parent / "shared" / "data" / "ml-100k"
GENRES_OF_TOY_STORY = ["Animation", "Children's", "Comedy"]


def recipe_of(dump: Path, folder: Path, *, posters: bool = False) -> Path:
    recipe = folder / "recipe.toml"
    options = "posters = true\n" if posters else ""
    recipe.write_text(
        f'dataset = "movielens"\n[source]\nkind = "movielens"\npath = "{dump}"\n{options}', encoding="utf-8"
    )
    return recipe


@pytest.mark.realdata
@pytest.mark.skipif(not REAL.exists(), reason=f"the real MovieLens 100K is not at {REAL}")
def test_the_real_100k_is_read_whole(tmp_path: Path) -> None:
    done = run_chain(
        recipe_of(REAL, tmp_path, posters=True), tmp_path / "warehouse", "clean.k_core=0", until="split"
    )
    raw = done.outputs["ingest"]
    assert raw.manifest["rows"] == {"raw_interactions": 100_000, "raw_items": 1_682, "rejects": 0}
    assert done.outputs["split"].read("interactions").num_rows == 100_000  # no user rated a movie twice
    assert done.outputs["clean"].read("users").num_rows == 943
    assert done.outputs["clean"].read("items_clean").num_rows == 1_682
    ratings = raw.read("raw_interactions")
    assert set(ratings["value"].to_pylist()) == {1.0, 2.0, 3.0, 4.0, 5.0}
    movies = {row["item_id"]: row for row in raw.read("raw_items").to_pylist()}
    assert movies["1"]["title"] == "Toy Story (1995)"
    assert movies["1"]["category_path"] == GENRES_OF_TOY_STORY
    assert movies["1"]["image_ref"] == "posters/1.jpg"
    assert movies["267"]["category_path"] == []  # the one called "unknown"
    found = sum((REAL / row["image_ref"]).exists() for row in movies.values())
    assert found == 1_663


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_movies_dat_is_read_in_the_encoding_it_is_in(encoding: str, packed: bool, tmp_path: Path) -> None:
    dump = tmp_path / "dump"
    dump.mkdir()
    (dump / "ratings.dat").write_text("1::10::5::978300760\n")
    movies = "10::Señora Ångström (1988)::Drama\n".encode(encoding)
    (dump / ("movies.dat.gz" if packed else "movies.dat")).write_bytes(
        gzip.compress(movies) if packed else movies
    )
    raw = run_chain(recipe_of(dump, tmp_path), tmp_path / "warehouse", until="ingest").outputs["ingest"]
    assert raw.read("raw_items")["title"].to_pylist() == ["Señora Ångström (1988)"]


def test_a_named_encoding_overrules_what_the_bytes_say(tmp_path: Path) -> None:
    dump = tmp_path / "dump"
    dump.mkdir()
    (dump / "ratings.dat").write_text("1::10::5::978300760\n")
    (dump / "movies.dat").write_bytes("10::Ñandú (1988)::Drama\n".encode())
    recipe = recipe_of(dump, tmp_path)
    raw = run_chain(recipe, tmp_path / "w", "source.encoding=latin-1", until="ingest").outputs["ingest"]
    assert raw.read("raw_items")["title"].to_pylist() == ["Ñandú (1988)".encode().decode("latin-1")]
