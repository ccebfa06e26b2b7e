"""The pages that are made from code: nothing is left out, nothing is without words, nothing comes from
elsewhere."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
import yaml
from helpers import ROOT

from handbook import commands, formats, policies, python, recipe, refused, sources, tables, tokenizers
from handbook.keys import MOMENT, type_of
from handbook.meanings import in_docstring, meanings
from handbook.outside import loads, of_site
from handbook.pages import COPIED, FAMILIES, family, generated, without_outside, written
from handbook.words import plain, prose, slug
from sid_flows.recipe import Moment, Recipe, validated
from sid_flows.sections import Rate
from sid_pipelines.sources import SOURCES
from sid_pipelines.trainers import TRAINERS
from sid_schemas.tables import TABLES
from sid_tokenizers import POLICIES, TOKENIZERS
from sidmill.cli import app

KEY_HEAD = "| key | type | default | meaning |"


@pytest.mark.parametrize(
    ("name", "there"),
    [("sources", SOURCES), ("schemes", TOKENIZERS), ("policies", POLICIES), ("formats", TRAINERS)],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_everything_that_a_recipe_may_name_has_a_page(name: str, there: dict[str, object]) -> None:
    assert family(name) == [f"{name}/index.md", *(f"{name}/{slug(one)}.md" for one in sorted(there))]
    index = generated()[f"{name}/index.md"]
    assert all(f"| [{one}]({slug(one)}.md) |" in index for one in there)


@pytest.mark.parametrize("path", generated())
def test_every_key_has_a_type_and_a_meaning(path: str) -> None:
    lines = generated()[path].splitlines()
    for place in (n for n, line in enumerate(lines) if line == KEY_HEAD):
        for row in lines[place + 2 :]:
            if not row.startswith("|"):
                break
            key, kind, _, meaning = (one.strip() for one in re.split(r"(?<!\\)\|", row)[1:-1])
            assert meaning, f"{path}: {key} has no meaning: say it in the docstring, as `{key}: what it is.`"
            assert "any value" not in kind, f"{path}: {key} has no type that a user knows"
            assert not re.match(r"as (for|in)\b", meaning, re.IGNORECASE), f"{path}: {key}: {meaning}"
            assert "Learns `" not in meaning, f"{path}: {key} swallows what is said of the class"


def test_what_the_keys_of_clean_and_of_some_others_mean() -> None:
    pages = generated()
    recipe_page = "reference/recipe.md"
    for path, key, kind, default, meaning in (
        (recipe_page, "k_core", "whole number, or table", "`{user = 5, item = 5}`",
         "events that every user and every item must have; 0 or 1 is no filter"),
        (recipe_page, "since", MOMENT, "", "the first moment that stays"),
        (recipe_page, "until", MOMENT, "", "the first moment that does not stay"),
        ("schemes/opq.md", "n_init", "whole number", "`4`",
         "seedings tried per piece, the best by squared error is kept"),
        ("schemes/sequential.md", "seed", "whole number", "`0`", "of the random order"),
        ("schemes/rvq-ema.md", "restart", "`true` or `false`", "`true`",
         "put a dead code on a random residual of the batch"),
        ("formats/gream.md", "seed", "whole number", "`0`", "of the choice among templates"),
    ):  # fmt: skip
        assert f"| `{key}` | {kind} | {default} | {meaning} |" in pages[path].splitlines(), key


def test_every_key_of_a_recipe_stands_in_an_example_that_loads() -> None:
    for name, model in recipe.section_models().items():
        assert recipe.keys_said(name) >= set(model.model_fields), name
        given = tomllib.loads(recipe.EXAMPLES[name])
        source = {"kind": "movietweetings", "path": "."}
        made = validated(name, {"dataset": "x", "source": source, **given})
        dumped = made.model_dump(mode="json")[name]
        for one, made_of in zip(
            given[name] if isinstance(given[name], list) else [given[name]],
            dumped if isinstance(dumped, list) else [dumped],
            strict=True,
        ):
            kept = {
                key: value for key, value in one.items() if key in made_of and key not in ("since", "until")
            }
            assert kept == {key: made_of[key] for key in kept}, name
    assert set(recipe.section_models()) | {"dataset"} == set(Recipe.model_fields) == set(recipe.EXAMPLES)


def test_every_command_argument_and_option_is_told() -> None:
    page = commands.page()
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert section, name
        for one in command.params:
            assert (
                one.name == "help"
                or all(f"`{text}`" in section for text in one.opts)
                or one.param_type_name == "argument"
            )
            assert one.name == "help" or one.help, f"{name}: {one.name} has no help"
            assert one.name == "help" or plain(" ".join(one.help.split())).replace("|", "\\|") in section
    assert "| 3 | a quality gate refused |" in page


def test_every_column_of_every_table_is_told() -> None:
    page = tables.page()
    for name, table in TABLES.items():
        section = page.partition(f"\n### {name}\n")[2].partition("\n### ")[0]
        for column in table.columns:
            [row] = [line for line in section.splitlines() if line.startswith(f"| `{column.name}` |")]
            assert plain(column.doc) in row


def test_what_users_open_in_python_is_told() -> None:
    page = python.page()
    for name in (
        "Release.table",
        "Release.samples",
        "Release.trie",
        "Warehouse.release",
        "Tokenizer.encode",
        "Trie.item",
    ):
        assert f"\n### {name}\n" in page, name
    assert "max_history: int=50" in page.partition("### Release.samples")[2].partition("###")[0]


def test_a_source_says_its_files_and_how_they_come() -> None:
    page = dict(sources.pages())["sources/movielens.md"]
    assert "$ sidmill fetch ml-" in page
    assert "| `ml-1m` |" in page
    assert 'kind = "movielens"' in page
    told = dict(sources.pages())["sources/amazon-2018.md"]
    assert "| meta\\_&lt;Category&gt;.json | items | no | utf-8 |" in told
    assert "`item_pairs` (items that belong together)" in told


def test_a_tokenizer_says_what_it_promises_and_by_which_paper() -> None:
    made = dict(tokenizers.pages())
    letter, tree = made["schemes/letter.md"], made["schemes/kmeans-tree.md"]
    assert "| order | coarse to fine: a shared prefix is likeness |" in letter
    assert "$ sidmill plan examples/schemes/letter.toml" in letter
    assert "row" in letter.partition("In [Papers](../papers.md)")[2]
    assert "| length of an ID | varies |" in tree
    assert "[sinkhorn](../policies/sinkhorn.md)" in letter
    assert tokenizers.presets("letter") == ["letter.toml"]


def test_a_policy_says_which_tokenizers_it_refuses() -> None:
    page = dict(policies.pages())["policies/fsq-level.md"]
    assert "- `prism`: it codes what the tokenizer left over" in page
    assert "None: it fits every tokenizer" in dict(policies.pages())["policies/suffix.md"]


def test_a_format_says_where_its_files_go() -> None:
    assert refused.REFUSED.keys() < TRAINERS.keys()
    page = dict(formats.pages())["formats/lc-rec.md"]
    assert "[log](../verified/lc_rec.txt)" in page
    assert "> Put this folder at `<data_path>/small`" in page
    assert "> | `small.index.json` | the SID of every item, as its tokens |" in page


def test_docstrings_are_read_key_by_key() -> None:
    text = "One. levels, depth: sizes of it, e.g. as: this. seed (a number): of draws\nas they come; beta: b."
    assert in_docstring(text, ["levels", "depth", "seed", "beta"]) == {
        "levels": "sizes of it, e.g. as: this",
        "depth": "sizes of it, e.g. as: this",
        "seed": "(a number) of draws as they come",
        "beta": "b",
    }
    assert meanings(TOKENIZERS["rq-vae"], ["levels"]) == {"levels": "codes per level, coarse to fine"}


def test_types_are_said_as_users_write_them() -> None:
    assert type_of(Rate) == "number from 0 to 1"
    assert type_of(Moment).startswith("time such as `2016-10-01`")
    assert type_of(dict[str, list[int]] | None) == "table of list of whole numbers"
    assert prose("One <b>.\n\n    code *x*\n\nTwo_a [C].") == (
        "One &lt;b&gt;.\n\n```text\ncode *x*\n```\n\nTwo\\_a \\[C\\]."
    )


def test_what_a_page_would_load_from_elsewhere_is_found(tmp_path: Path) -> None:
    assert loads('<link rel="stylesheet" href="https://fonts.example/x.css"><a href="https://a.b">a</a>') == [
        "https://fonts.example/x.css"
    ]
    assert loads('<img srcset="a.png 1x, //h.i/b.png 2x" style="background:url(http://c.d/e.png)">') == [
        "//h.i/b.png",
        "http://c.d/e.png",
    ]
    (tmp_path / "x.css").write_text("@import 'https://a.b/c.css'; b {color: red}")
    (tmp_path / "y.html").write_text("<script src='z.js'></script>")
    assert list(of_site(tmp_path)) == ["x.css loads https://a.b/c.css"]


def test_every_written_page_is_in_the_menu() -> None:
    told = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    named: list[str] = []

    def walk(entry: object) -> None:
        if isinstance(entry, str):
            named.append(entry)
        for one in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
            walk(one)

    walk(told["nav"])
    families = {f"FAMILY {name}" for name in FAMILIES}
    references = {path for path in generated() if path.startswith("reference/")}
    assert sorted(named) == sorted({*written(), *COPIED, *families, *references})
    assert told["strict"] is True
    assert told["theme"]["font"] is False
    assert without_outside("[a](../../tests/x.py)", "sources/a.md") == "a"


def test_the_documentation_builds_with_every_link_and_loads_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # an advertisement of another tool
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    assert (tmp_path / "site" / "formats" / "lc-rec.html").is_file()
    assert list(of_site(tmp_path / "site")) == []
