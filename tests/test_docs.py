"""The guides name everything that there is: sources, protocols, schemes, formats, tables, keys, commands."""

import dataclasses
import inspect
import pkgutil
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from helpers import ROOT, judge_plainly, run_chain, small_dump

from sid_flows.embedding_sections import EmbedSection, FuseSection
from sid_flows.recipe import CleanSection, EngineSection, GatesSection, SplitSection, load_recipe
from sid_flows.tokenizing_sections import CollisionsSection, TokenizeSection, UsersSection
from sid_pipelines import gates, publish
from sid_pipelines.beam.runners import DOWNLOADING, KNOWN
from sid_pipelines.collaborative import MODELS
from sid_pipelines.encoders import HashingOptions, SentenceOptions
from sid_pipelines.fusion import FUSIONS
from sid_pipelines.instructions import templates
from sid_pipelines.instructions.audit import RULES
from sid_pipelines.instructions.tasks import TASKS
from sid_pipelines.pairs import PairsParams
from sid_pipelines.pieces import PiecesParams
from sid_pipelines.protocols import PROTOCOLS
from sid_pipelines.sharded import SHARDED
from sid_pipelines.sources import SOURCES
from sid_pipelines.trainers import TRAINERS
from sid_schemas import SourceError, Table
from sid_schemas.tables import (
    DOCIDS,
    ITEM_PATHS,
    SID_PIECES,
    SID_TO_ITEMS,
    SIDS,
    SOFT_SIDS,
    USER_MIXTURES,
    USER_SIDS,
    vectors_table,
)
from sid_tokenizers import TOKENIZERS
from sid_tokenizers.dialects import DIALECTS, NUMBERINGS
from sid_tokenizers.pieces import PIECES
from sid_tokenizers.vocabulary import Vocabulary
from sid_warehouse.loading.features import FEATURES
from sid_warehouse.reader import Release
from sidmill.cli import app

GUIDE = (ROOT / "docs" / "data.md").read_text()
EMBEDDINGS = (ROOT / "docs" / "embeddings.md").read_text()
TOKENIZING = (ROOT / "docs" / "tokenizers.md").read_text()
IDENTIFIERS = (ROOT / "docs" / "identifiers.md").read_text()
PAPERS = (ROOT / "docs" / "papers.md").read_text()
TRAINING = (ROOT / "docs" / "trainers.md").read_text()
FORMATS = [line for line in TRAINING.split("## All formats")[1].splitlines() if line.startswith("| `")]
LOADING = (ROOT / "docs" / "loading.md").read_text()
INSTRUCTING = (ROOT / "docs" / "instructions.md").read_text()
SCALE = (ROOT / "docs" / "scale.md").read_text()
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
def test_every_key_is_in_a_guide(section: type[CleanSection]) -> None:
    checking = (ROOT / "docs" / "quality.md").read_text()
    for key in section.model_fields:
        assert f"`{key}" in GUIDE or re.search(rf"\b{key}\b", checking), key


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


def test_every_paper_has_a_row_whose_recipes_and_tests_are_there() -> None:
    rows = [line.strip("| ").split(" | ") for line in PAPERS.splitlines() if re.match(r"\| \d", line)]
    assert [int(row[0]) for row in rows] == list(range(1, 58))
    assert Counter(row[2] for row in rows) == {"core": 23, "feeds": 23, "context": 11}
    for row in rows:
        for recipe in re.findall(r"`([a-z0-9-]+\.toml)`", row[4]):
            assert (ROOT / "examples" / "schemes" / recipe).is_file(), recipe
        for test in re.findall(r"`(test_[a-z_]+\.py)`", row[-1]):
            assert (ROOT / "tests" / test).is_file(), test
        assert row[2] == "context" or "done" in row[-1] or "not fed" in row[-1]


def test_what_the_papers_come_to_in_short_is_counted() -> None:
    rows = [line.strip("| ").split(" | ") for line in PAPERS.splitlines() if re.match(r"\| \d", line)]
    core, feeds = ([row for row in rows if row[2] == kind] for kind in ("core", "feeds"))
    short = " ".join(PAPERS[PAPERS.index("**In short.**") :].split("\n\n")[0].split())
    assert all(".toml" in row[4] for row in core)
    assert f"Of {sum('on and off' in row[-1] for row in core)} of them a test has both sides" in short
    read = [sum(bool(re.search(r"\bread\b", row[-1])) for row in kind) for kind in (core, feeds)]
    assert f"Of {read[0]} of them the trainer's own code read our files" in short
    assert f"of {read[1]} of them the trainer's own code read it" in short
    *first, last = (row[0] for row in core if "[S]" in row[3])
    assert f"secondary text in what makes them what they are: rows {', '.join(first)} and {last}." in short


@pytest.mark.parametrize("name", TRAINERS)
def test_papers_and_trainers_agree_on_what_was_read(name: str) -> None:
    [form] = [line for line in FORMATS if line.startswith(f"| `{name}` |")]
    said = {"read"} if "(verified/" in form else {"ours", "not run"}
    for row in (line.strip("| ").split(" | ") for line in PAPERS.splitlines() if re.match(r"\| \d", line)):
        for word in re.findall(rf"`{name}`, (read|not run|ours)\b", row[-1]):
            assert word in said, f"row {row[0]}: {name}, {word}"


@pytest.mark.parametrize(
    "recipe", sorted((ROOT / "examples" / "schemes").glob("*.toml")), ids=lambda one: one.stem
)
def test_every_preset_is_some_papers(recipe: Path) -> None:
    assert f"`{recipe.name}`" in PAPERS


@pytest.mark.parametrize("name", TRAINERS)
def test_a_format_is_told_with_the_commit_and_the_papers_that_it_feeds(name: str) -> None:
    form = TRAINERS[name]
    [row] = [line for line in FORMATS if line.startswith(f"| `{name}` |")]
    assert all(commit in row for commit in re.findall(r"\b[0-9a-f]{7}\b", form.trainer))
    assert re.search(r"\(verified/|not run: |in our tests", row.split(" | ")[-1])
    assert ("not public" in form.trainer) <= ("secondary" in row)
    for paper in form.papers:
        [told] = [line for line in PAPERS.splitlines() if line.startswith(f"| {paper} |")]
        assert f"`{name}`" in told.split(" | ")[-1], paper


def test_what_was_verified_is_told_with_its_log_and_counted() -> None:
    ran = sum("(verified/" in row for row in FORMATS)
    assert f"{ran} of the {len(TRAINERS)} formats are verified" in TRAINING
    assert f"Of {ran} formats" in README
    assert f"files of {len(TRAINERS)} trainers and formats" in README
    assert len(FORMATS) == len(TRAINERS)
    logs = {f"verified/{log.name}" for log in (ROOT / "docs" / "verified").iterdir()}
    linked = set(re.findall(r"\((verified/[^)]+)\)", TRAINING + LOADING + INSTRUCTING))
    assert linked == logs


@pytest.mark.parametrize("name", sorted(SHARDED))
def test_a_stage_by_shards_is_told_with_what_is_one_task(name: str) -> None:
    divided, shuffled = (
        [
            line
            for line in SCALE.split(f"## {part}")[1].split("## ")[0].splitlines()
            if line.startswith(f"| `{name}` |")
        ]
        for part in ("How a stage is divided", "Bytes and memory")
    )
    assert len(divided) == 1
    assert len(shuffled) == (name != "embed_image")  # as embed_text


@pytest.mark.parametrize("runner", [*KNOWN, *DOWNLOADING])
def test_a_runner_is_told(runner: str) -> None:
    assert f"`{runner}`" in SCALE or runner == "SwitchingDirectRunner"


def test_the_engine_of_the_guide_is_one(tmp_path: Path) -> None:
    [text] = re.findall(r"```toml\n(.*?)```", SCALE, re.DOTALL)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'dataset = "x"\n[source]\nkind = "movietweetings"\npath = "."\n{text}')
    told = load_recipe(recipe).engine.model_dump(exclude_unset=True)
    assert told.keys() == EngineSection.model_fields.keys()


def test_no_page_speaks_of_how_it_was_planned() -> None:
    for page in [*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")]:
        assert not re.search(r"\bissue \d", page.read_text()), page.name


def test_every_option_of_the_loader_is_told() -> None:
    for options in (Release.samples, Release.sequences):
        for option in inspect.signature(options).parameters:
            assert option == "self" or f"`{option}`" in LOADING, option
    for feature in FEATURES:
        assert f"| `{feature}` |" in LOADING, feature


@pytest.mark.parametrize("name", [*DIALECTS, *NUMBERINGS])
def test_a_dialect_is_told_with_what_it_writes(name: str) -> None:
    written = LOADING[LOADING.index("## Dialects") :].splitlines()
    [row] = [line for line in written if line.startswith(f"| `{name}` |")]
    vocabulary, sid = Vocabulary((8192, 8192, 8192)), [1989, 6393, 6164]
    if name in DIALECTS:
        assert f"`{DIALECTS[name].text(sid, vocabulary)}`" in row.replace("\\|", "|")
    else:
        numbers = NUMBERINGS[name].numbers([sid], vocabulary).ravel()
        assert " ".join(map(str, numbers)) in row


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_told_with_the_styles_that_have_it(name: str) -> None:
    lines = [line for line in INSTRUCTING.splitlines() if re.match(rf"\| (task|`{name}`) \|", line)]
    head, row = ([cell.strip() for cell in line.split("|")] for line in lines)
    cells = dict(zip(head, row, strict=True))
    for style in map(templates.style_named, templates.NAMES):
        own, words = name in {*style.tasks, *style.rl_tasks}, name in style.templates
        assert cells[style.name][:1] == ("x" if own else "o" if words else ""), style.name


@pytest.mark.parametrize("name", RULES)
def test_a_rule_of_the_audit_is_told(name: str) -> None:
    [row] = [line for line in INSTRUCTING.splitlines() if line.startswith("| `") and f"`{name}`" in line]
    assert row.split(" | ")[1] == ("yes" if RULES[name].strict else "no")


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_scheme_is_told_with_its_class_and_what_it_needs(name: str) -> None:
    scheme = TOKENIZERS[name]
    schemes, _, _ = TOKENIZING.partition("## Collisions")
    [row] = [line for line in schemes.splitlines() if line.startswith(f"| `{name}` |")]
    assert f"| `{scheme.__name__}` |" in row
    needs = [need for need in scheme.traits.inputs if need != "vectors"]
    assert all(need in row for need in needs)
    if needs:
        assert row in schemes[schemes.index("## Schemes that read more") :]
    for mark in "SD":  # known from secondary text alone, or a choice of ours
        assert f"[{mark}]" in row or not re.search(rf"\[[^]]*{mark}\]", scheme.paper)


@pytest.mark.parametrize("name", PIECES)
def test_a_way_to_cut_sids_is_told(name: str) -> None:
    assert f"| `{name}` |" in IDENTIFIERS


@pytest.mark.parametrize(
    ("section", "guide"),
    [
        (TokenizeSection, TOKENIZING),
        (CollisionsSection, TOKENIZING),
        (PiecesParams, IDENTIFIERS),
        (UsersSection, IDENTIFIERS),
    ],
    ids=["tokenize", "collisions", "pieces", "users"],
)
def test_every_key_that_makes_ids_is_told(section: type, guide: str) -> None:
    for key in getattr(section, "model_fields", None) or section.__dataclass_fields__:
        assert re.search(rf"^{key} = |`(\[\w+\] )?{key}\b", guide, re.MULTILINE), key


@pytest.mark.parametrize(
    "table",
    [
        SIDS,
        SID_TO_ITEMS,
        SOFT_SIDS,
        DOCIDS,
        ITEM_PATHS,
        SID_PIECES,
        USER_SIDS,
        USER_MIXTURES,
        vectors_table("<name>", 5, 8),
    ],
    ids=lambda one: one.name,
)
def test_a_table_of_ids_is_told_with_its_columns(table: Table) -> None:
    [row] = [line for line in IDENTIFIERS.splitlines() if line.startswith(f"| `{table.name}` |")]
    for column in table.arrow().names:
        assert column == "item_index" or f"`{column}`" in row, column


def test_the_recipes_of_ids_are_recipes(tmp_path: Path) -> None:
    texts = [*re.findall(r"```toml\n(.*?)```", TOKENIZING + IDENTIFIERS, re.DOTALL)]
    assert len(texts) == 3
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'dataset = "x"\n[source]\nkind = "movietweetings"\npath = "."\n{"".join(texts)}')
    given = load_recipe(recipe)
    default = dict(TokenizeSection())
    assert {name: value for name, value in given.tokenize if name != "levels"} == {
        **default,
        "vectors": "text",
    }
    assert given.pieces
    assert given.pieces.made == PiecesParams()
    assert given.users


Make = Callable[..., Release]
BOTH = """[[embed]]
model = "hashing"
dim = 16
[[embed]]
modality = "collaborative"
model = "ppmi-svd"
dim = 8
[tokenize]
"""
EVERYTHING = (
    "tokenize.tokenizer=pq", "tokenize.levels=[4, 4]", "tokenize.vocab_size=32128", "tokenize.soft=3",
    "tokenize.vectors=collaborative", 'tokenize.each=["text"]', 'pieces.schemes=["ngram"]',
    "users.levels=[3, 2]", "users.mixtures=true",
)  # fmt: skip


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Give what makes releases of one small dump, by overrides."""
    folder = tmp_path_factory.mktemp("guides")
    recipe = small_dump(folder, movies=14, users=20)
    recipe.write_text(recipe.read_text().replace("[tokenize]\nlevels = [4, 4]\n", BOTH))

    def made(*given: str) -> Release:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(publish.catalog, "refresh", lambda warehouse, copies: None)
            patch.setattr(gates, "judge", judge_plainly)
            return run_chain(recipe, folder / "w", *given).release

    return made


@pytest.fixture(scope="module")
def everything(make: Make) -> Release:
    return make(*EVERYTHING)


@pytest.fixture(scope="module")
def continuous(make: Make) -> Release:
    pytest.importorskip("torch")
    return make("tokenize.tokenizer=setrec", "tokenize.vectors=text", "tokenize.width=4", "tokenize.epochs=1")


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(sid_tokenizers(?:\.\w+)+)", IDENTIFIERS))))
def test_what_the_guide_names_in_python_is_there(name: str) -> None:
    assert pkgutil.resolve_name(name)


def test_the_queries_of_the_guide_have_answers(make: Make, everything: Release, continuous: Release) -> None:
    paths = make("tokenize.tokenizer=category-path", "tokenize.vectors=text", "tokenize.flat=true")
    blocks = re.findall(r"```sql\n(.*?)```", IDENTIFIERS, re.DOTALL)
    for release, block in zip((everything, paths, continuous), blocks, strict=True):
        with duckdb.connect() as connection:
            connection.execute("create schema movietweetings")
            for table in release.tables:
                parts = f"{release.folder}/{table}/*.parquet"
                connection.execute(f"create view movietweetings.{table} as from '{parts}'")
            for query in block.replace("'unigram'", "'ngram'").strip().split(";"):
                assert not query or connection.execute(query).fetchall() or "where" in query, query


@pytest.fixture(scope="module")
def t5(everything: Release) -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.T5Config(
        vocab_size=len(everything.vocabulary), d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2,
        pad_token_id=0, decoder_start_token_id=0, eos_token_id=everything.vocabulary.eos,
    )  # fmt: skip
    return transformers.T5ForConditionalGeneration(config).eval()


def test_the_python_of_training_runs(everything: Release, t5: Any) -> None:
    opened, in_readme = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert "release = " in opened  # test_cli.py runs it
    names = {"release": everything, "model": t5}
    exec(in_readme, names)
    assert t5(**{key: names["batch"][key] for key in ("input_ids", "attention_mask", "labels")}).loss > 0
    blocks = re.findall(r"```python\n(.*?)```", LOADING, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(block, names)
    assert names["items"].shape == (4, 3)
    assert names["items"].min() >= 0


def test_the_export_of_the_guide_is_one(tmp_path: Path) -> None:
    [text] = re.findall(r"```toml\n(.*?)```", TRAINING, re.DOTALL)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'dataset = "x"\n[source]\nkind = "movietweetings"\npath = "."\n{text}')
    assert load_recipe(recipe).export.settings == {"recbole": {"layout": "split"}}


def test_the_python_of_the_guide_runs(everything: Release, continuous: Release) -> None:
    X = np.eye(3, dtype=np.float32)
    blocks = re.findall(r"```python\n(.*?)```", IDENTIFIERS, re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        release = continuous if "vectors_setrec" in block else everything
        exec(block, {"release": release, "X": X})
