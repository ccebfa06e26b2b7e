"""A page for each tokenizer: its paper, promises, needs, parameters, a recipe, how to choose."""

import inspect
import tomllib
from collections.abc import Iterator

from handbook.keys import key_table, parameter_rows
from handbook.places import EXAMPLES, papers_table, schemes_table
from handbook.words import MARKS, code, plain, prose, slug, table
from sid_tokenizers import POLICIES, TOKENIZERS, Scheme, Tokenizer
from sid_tokenizers.collisions import misfit
from sid_tokenizers.learned.rq_vae_settings import Settings

SAID = {
    "vectors": "a vector of each item: an `[[embed]]`",
    "cf": 'vectors of behaviour: a second `[[embed]]` with `modality = "collaborative"`',
    "popularity": "how often items are seen in train events",
    "categories": "categories of items, broad to narrow",
    "domains": "the catalogue that each item is of",
    "titles": "titles of items",
    "texts": "the filled text template",
    "events": "train events",
}
PATHS = """\
IDs are paths in one vocabulary, with no codebooks: nothing decodes to a vector, and length varies. Trainers
that want a fixed number of levels refuse it."""
ONE_TOKEN = "One token an item: the vocabulary grows with the catalogue, and unseen items need new tokens."


def pages() -> Iterator[tuple[str, str]]:
    """Give path and Markdown of each page."""
    yield "schemes/index.md", _menu()
    for name, scheme in sorted(TOKENIZERS.items()):
        yield f"schemes/{slug(name)}.md", _page(name, scheme)


def presets(name: str) -> list[str]:
    """Give the names of the recipes in examples/schemes that use a tokenizer."""
    found = []
    for path in sorted(EXAMPLES.glob("*.toml")):
        told = tomllib.loads(path.read_text(encoding="utf-8"))["tokenize"]
        if told.get("tokenizer", "rq-kmeans") == name:
            found.append(path.name)
    return found


def _menu() -> str:
    rows = []
    for name, scheme in sorted(TOKENIZERS.items()):
        traits = scheme.traits
        rows.append(
            [
                f"[{name}]({slug(name)}.md)",
                plain(scheme.paper),
                traits.gives,
                _length(scheme),
                "yes" if traits.ordered else "no",
                "yes" if traits.unique else "by the policy",
            ]
        )
    return f"""\
# Tokenizers, one by one

What `[tokenize] tokenizer` may be. [Tokenizers](../tokenizers.md) compares them, and says how collisions
are settled;
[Papers](../papers.md) goes by paper.

{MARKS}

{table(["tokenizer", "of", "gives", "length", "a shared prefix is likeness", "unique"], rows)}

```console
$ sidmill tokenizers
tokenizer ...
```
"""


def _length(scheme: type[Scheme]) -> str:
    made = scheme()
    if not scheme.traits.fixed_length:
        return "varies"
    return f"{len(made.levels)} by default" if isinstance(made, Tokenizer) else "1"


def _page(name: str, scheme: type[Scheme]) -> str:
    traits, found = scheme.traits, presets(name)
    return f"""\
# {name}

{plain(_first(scheme))}

From: {plain(scheme.paper)}. {MARKS}

## What it promises

{table(["what", "here"], _promises(scheme))}

It is fitted on:

{chr(10).join(f"- {SAID.get(need, need)}" for need in traits.inputs)}

{_policies(scheme)}

## A recipe

{_recipe(name, found)}

## Parameters

They stand beside `tokenizer` in `[tokenize]`. [The recipe](../reference/recipe.md#tokenize) has those
that every
tokenizer takes.

{key_table(parameter_rows(scheme, also=[Settings]))}

## How to choose

{_choosing(name, scheme, found)}

## What it does, in full

{prose(inspect.cleandoc(scheme.__doc__ or ""))}
"""


def _first(scheme: type[Scheme]) -> str:
    return " ".join(inspect.cleandoc(scheme.__doc__ or "").split("\n\n")[0].split())


def _promises(scheme: type[Scheme]) -> list[list[str]]:
    traits = scheme.traits
    return [
        ["gives", {"codes": "codes", "vectors": "continuous vectors", "text": "text"}[traits.gives]],
        ["length of an ID", _length(scheme)],
        [
            "order",
            "coarse to fine: a shared prefix is likeness"
            if traits.ordered
            else "none: likeness is the number of equal codes",
        ],
        ["unique by itself", "yes" if traits.unique else "no: `[collisions]` sees to it"],
        ["soft codes (`soft`)", "yes" if traits.soft else "no"],
        [
            "package to fit",
            f"{traits.package}, by `pip install 'sidmill[{traits.extra}]'`; coding needs none"
            if traits.package
            else "none beyond the core",
        ],
    ]


def _policies(scheme: type[Scheme]) -> str:
    if scheme.traits.unique or not issubclass(scheme, Tokenizer):
        return "IDs are unique already, so `[collisions] policy` is `none` unless another is named."
    fit = {policy: misfit(one(), scheme()) for policy, one in POLICIES.items()}
    links = ", ".join(f"[{one}](../policies/{slug(one)}.md)" for one, problem in fit.items() if not problem)
    lines = [f"Collision policies that fit: {links}."]
    lines += [f"`{one}` does not: {plain(problem)}." for one, problem in fit.items() if problem]
    return " ".join(lines)


def _recipe(name: str, found: list[str]) -> str:
    if not found:
        needs = TOKENIZERS[name].traits.inputs
        cf = '[[embed]]\nmodality = "collaborative"\nmodel = "als"\n' if "cf" in needs else ""
        return f"""\
No preset uses it; this recipe loads.

```toml
# {slug(name)}.toml
dataset = "movietweetings"
[source]
kind = "movietweetings"
path = "examples/data/movietweetings-50k"
[[embed]]
template = "{{title}}. {{genres}}"
{cf}[tokenize]
tokenizer = "{name}"
```

```console
$ sidmill plan {slug(name)}.toml
stage ...
```"""
    first = found[0] if f"{slug(name)}.toml" not in found else f"{slug(name)}.toml"
    others = ", ".join(code(f"examples/schemes/{one}") for one in found if one != first)
    more = f"\n\nOther presets that use it: {others}." if others else ""
    text = (EXAMPLES / first).read_text(encoding="utf-8").rstrip()
    return f"""\
The preset `examples/schemes/{first}`:

```toml
# {first}
{text}
```

```console
$ sidmill plan examples/schemes/{first}
stage ...
```

`sidmill run examples/schemes/{first}` makes the release.{more}"""


def _choosing(name: str, scheme: type[Scheme], found: list[str]) -> str:
    traits = scheme.traits
    says = []
    if traits.gives == "vectors":
        says.append(
            "For trainers that read continuous tokens in the place of codes; there is no beam over codes."
        )
    elif not issubclass(scheme, Tokenizer):
        says.append(ONE_TOKEN if traits.fixed_length else PATHS)
    elif traits.ordered:
        says.append(
            "For recommenders that write an ID token by token: the first code narrows, the next refine, "
            "and beams "
            "are cut to SIDs that exist."
        )
    else:
        says.append(
            "For models that read or write the codes side by side. A shared prefix says nothing here, so "
            "do not take "
            "it where prefixes shall mean likeness."
        )
    if traits.package == "torch":
        says.append("Fitting trains a network, seconds to minutes on a CPU; k-means schemes take seconds.")
    if "cf" in traits.inputs:
        says.append(
            "It needs events enough that behaviour vectors tell something; on sparse data they are noise."
        )
    rows, numbers = schemes_table(found), papers_table(found)
    text = " ".join(says)
    if rows:
        text += (
            "\n\nMeasured on MovieTweetings, by preset, from [Papers](../papers.md#presets-side-by-side), "
            "which says what "
            "the columns are:\n\n" + rows
        )
    if numbers:
        text += f"\n\nIn [Papers](../papers.md): row{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}."
    return text
