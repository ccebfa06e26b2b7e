"""The guide to data names everything that there is: sources, protocols, keys, commands."""

import dataclasses
import re
from pathlib import Path

import pytest
from helpers import ROOT, run_chain

from sid_flows.embedding_sections import EmbedSection, FuseSection
from sid_flows.recipe import CleanSection, GatesSection, SplitSection, load_recipe
from sid_pipelines.collaborative import MODELS
from sid_pipelines.encoders import HashingOptions, SentenceOptions
from sid_pipelines.fusion import FUSIONS
from sid_pipelines.pairs import PairsParams
from sid_pipelines.protocols import PROTOCOLS
from sid_pipelines.sources import SOURCES
from sid_schemas import SourceError
from sidmill.cli import app

GUIDE = (ROOT / "docs" / "data.md").read_text()
EMBEDDINGS = (ROOT / "docs" / "embeddings.md").read_text()
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("kind", sorted(SOURCES))
def test_the_guide_tells_what_a_source_reads_and_what_it_was_tested_on(kind: str) -> None:
    source = SOURCES[kind]
    files = source.title.replace("<", "&lt;").replace(">", "&gt;")
    assert f"| `{kind}` | {files} | {', '.join(source().yields)} | {source.tested_on} |" in GUIDE


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_the_guide_tells_what_a_protocol_leaks(name: str) -> None:
    protocol = PROTOCOLS[name]
    [row] = [line for line in GUIDE.splitlines() if line.startswith(f"| `{name}` |")]
    assert protocol.leaks in row
    for field in dataclasses.fields(protocol):
        assert f"`{field.name} = " in row


@pytest.mark.parametrize("section", [CleanSection, SplitSection, GatesSection])
def test_every_key_is_in_the_guide_or_the_readme(section: type[CleanSection]) -> None:
    for key in section.model_fields:
        assert f"`{key}" in GUIDE or re.search(rf"^(# )?{key}\b", README, re.MULTILINE) or key in README, key


@pytest.mark.parametrize("name", [*MODELS, *FUSIONS, "hashing", "tfidf-svd", "efficientnet-lite0"])
def test_what_makes_vectors_is_told(name: str) -> None:
    assert f"| `{name}` |" in EMBEDDINGS


@pytest.mark.parametrize("section", [EmbedSection, FuseSection, PairsParams, SentenceOptions, HashingOptions])
def test_every_key_of_an_embedding_is_told(section: type) -> None:
    for key in getattr(section, "model_fields", None) or section.__dataclass_fields__:
        assert re.search(rf"\b{key}\b", EMBEDDINGS), key


def test_every_command_is_in_the_readme() -> None:
    commands = [one.name or one.callback.__name__ for one in app.registered_commands if one.callback]
    assert len(commands) > 10
    for command in commands:
        assert re.search(rf"^    sidmill {command}\b", README, re.MULTILINE), command


def test_the_recipe_of_embeddings_is_one(tmp_path: Path) -> None:
    text = re.findall(r"```toml\n(.*?)```", EMBEDDINGS, re.DOTALL)[0]
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'dataset = "x"\n[source]\nkind = "movietweetings"\npath = "."\n{text}')
    assert load_recipe(recipe).vectors_there == ["text", "image", "behaviour", "fused"]


def test_the_recipes_of_the_guide_are_recipes(tmp_path: Path) -> None:
    first, table = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
    recipe = tmp_path / "recipe.toml"
    for text in (first, f'dataset = "t"\n{table}'):
        recipe.write_text(text)
        assert load_recipe(recipe).dataset
    recipe.write_text(first)
    with pytest.raises(SourceError, match=r"Gift_Cards_5\.json\.gz"):
        run_chain(recipe, tmp_path / "w", until="ingest")
