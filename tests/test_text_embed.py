"""Text and embeddings: the template's rule for what is missing, and vectors that do not depend on order."""

from pathlib import Path

import numpy as np
import pytest
from helpers import run_chain, write_dump

from sid_pipelines.encoders import text_encoder
from sid_pipelines.text import fill, parse
from sid_schemas import DataError, RecipeError, SourceError

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
ITEM = {"title": "The Rink (1916)", "category_path": ["Comedy", "Short"], "brand": None, "price": 12.5}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{title}. {genres}", "The Rink (1916). Comedy, Short"),
        ("{title} by {brand}: {genres}", "The Rink (1916): Comedy, Short"),
        ("{brand}: {title}", "The Rink (1916)"),
        ("{title} [{brand}] ({genres})", "The Rink (1916) (Comedy, Short)"),
        ("{genres} ({brand})", "Comedy, Short"),
        ("Title: {title}; price: {price}", "Title: The Rink (1916); price: 12.5"),
        ("{title}\n  {categories}", "The Rink (1916) Comedy, Short"),
        ("{{{title}}}", "{The Rink (1916)}"),
        ("{description}", ""),
    ],
)
def test_the_template_is_filled(template: str, text: str) -> None:
    assert fill(parse(template), ITEM) == text


@pytest.mark.parametrize(
    "template", ["{titel}", "no field", "{title", "{}", "{title.__class__}", "{0}", "{title!r}", "{title:>9}"]
)
def test_a_template_that_is_none_is_refused(template: str) -> None:
    with pytest.raises(RecipeError, match="template = "):
        parse(template)


def test_an_encoder_is_found_in_its_package_or_folder() -> None:
    packaged = text_encoder(MINILM, Path("/nowhere"))
    local = text_encoder(str(packaged.folder), Path("/nowhere"))
    relative = text_encoder("model", packaged.folder.parent)
    assert packaged.fingerprint() == local.fingerprint() == relative.fingerprint()


def test_an_encoder_that_is_nowhere_says_where_we_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        SourceError, match=r"model = 'nobody/nothing': not a model folder, not in an installed package"
    ):
        text_encoder("nobody/nothing", Path("/nowhere"))


def test_vectors_do_not_depend_on_the_order_of_the_texts() -> None:
    encoder = text_encoder(MINILM, Path())
    texts = [f"{word} {'long ' * (n % 7)}" for n in range(40) for word in ("comedy", "war", "war")]
    seen: list[tuple[int, int]] = []
    vectors = encoder.encode(texts, lambda done, total: seen.append((done, total)))
    assert vectors.shape == (120, 384)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    order = np.random.default_rng(0).permutation(len(texts))
    again = encoder.encode([texts[n] for n in order], lambda done, total: None)
    assert np.array_equal(again, vectors[order])
    assert seen[-1][0] == seen[-1][1] == len(set(texts))  # each distinct text once


def test_an_item_without_text_is_refused_by_name(tmp_path: Path) -> None:
    ratings = [f"{user}::{movie:07d}::7::{1000 + user}" for user in range(5) for movie in range(5)]
    movies = [f"{movie:07d}::{'' if movie == 3 else 'Film'}::Drama" for movie in range(5)]
    recipe = write_dump(tmp_path, ratings, movies)
    with pytest.raises(DataError, match=r"embed: 1 item without any text, the first is item '0000003'"):
        run_chain(recipe, tmp_path / "w", "embed.template={title}", until="embed")


def test_more_codes_than_train_items_are_refused(tmp_path: Path) -> None:
    ratings = [f"{user}::{movie:07d}::7::{1000 + user}" for user in range(5) for movie in range(5)]
    recipe = write_dump(tmp_path, ratings, [f"{movie:07d}::Film {movie}::Drama" for movie in range(5)])
    with pytest.raises(
        DataError, match=r"levels\[1\] asks for 64 codes, but there are only 5 items to fit on"
    ):
        run_chain(recipe, tmp_path / "w", "tokenize.levels=[4, 64]", until="tokenize")
