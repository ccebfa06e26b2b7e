"""The recipe reference: every section and key, from the typed model alone."""

import inspect
import re
import tomllib
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel

from handbook.keys import key_table, model_rows, parameter_rows
from handbook.words import plain, prose, table
from sid_flows.recipe import Recipe
from sid_pipelines.clean import CleanParams
from sid_pipelines.collaborative import MODELS
from sid_pipelines.encoders import HashingOptions, SentenceOptions, TfidfOptions
from sid_pipelines.fusion import FUSIONS
from sid_pipelines.image_encoders import options_of
from sid_pipelines.pairs import PairsParams
from sid_pipelines.pieces import PiecesParams
from sid_pipelines.protocols import PROTOCOLS

# One fragment for each section that says every key; tests load them, and see that none is missing.
EXAMPLES: Mapping[str, str] = {
    "dataset": 'dataset = "movietweetings"',
    "source": """\
dataset = "movietweetings"
[source]
kind = "movietweetings"
path = "examples/data/movietweetings-50k"
items = "examples/data/movietweetings-50k/movies.dat.gz"
encoding = "utf-8"
truncated = "error"
empty = "error\"""",
    "items": '[items]\nuniverse = "catalog"',
    "clean": """\
[clean]
exact_duplicates = "drop"
dedupe = "last"
events = ["rating", "purchase"]
min_value = 1.0
max_value = 10.0
since = 2013-03-01
until = 2013-12-31T12:00:00Z
max_events_per_user = 500
without_metadata = "drop"
require = ["title"]
k_core = {user = 5, item = 5}      # or k_core = 5
k_core_method = "iterative"
max_reject_rate = 0.01""",
    "split": """\
[split]
protocol = "leave-one-out"
ties = "hash"
seed = 0
expansion = "window"
window = 50""",
    "pairs": '[pairs]\nkinds = ["swing"]\n',
    "embed": """\
[[embed]]
name = "text"
modality = "text"
model = "sentence-transformers/all-MiniLM-L6-v2"
template = "{title}. {genres}. {enriched}"
clean_text = true
enriched = "descriptions.jsonl"
missing = "refuse"
dtype = "float32"
[[embed]]
name = "pictures"
modality = "image"
model = "efficientnet-lite0"
images = "posters"
missing = "map"
map_from = "text"
[tokenize]
vectors = "text\"""",
    "fuse": """\
[[embed]]
name = "text"
[[embed]]
name = "behaviour"
modality = "collaborative"
[fuse]
method = "concat"
inputs = ["text", "behaviour"]""",
    "tokenize": """\
[[embed]]
name = "text"
[[embed]]
name = "cf"
modality = "collaborative"
[tokenize]
tokenizer = "rq-kmeans"
levels = [64, 64, 64]
vectors = "text"
each = ["cf"]
fit_scope = "train"
fit_items = 1_000_000
soft = 4
soft_temperature = 0.1""",
    "collisions": '[collisions]\npolicy = "next-nearest"',
    "pieces": '[pieces]\nschemes = ["ngram"]\n',
    "users": """\
[users]
sids = true
mixtures = true
vectors = "text"
last = 50
tokenizer = "rq-kmeans"
levels = [16, 16]""",
    "gates": """\
[gates]
max_collision_rate = 0.01
leakage = "fail"
max_zero_vectors = 0.0
max_duplicate_vectors = 0.01
min_coverage = 0.95
max_tie_rate = 0.5""",
    "append": """\
[append]
dump = "snapshot"
min_snapshot_overlap = 0.9
split = "frozen"
drift = "warn"
max_psi = 0.25
max_error_ratio = 1.5
max_pressure = 0.5
max_cold_users = 0.5""",
    "publish": '[publish]\ncatalog = "views"',
    "export": """\
[export]
formats = ["lc-rec"]
[export.settings.lc-rec]
name = "Movies\"""",
    "engine": """\
[engine]
kind = "beam"
memory = "4GiB"
options = "--direct_num_workers=2"
shards = 0
attempts = 3""",
}
LATER = {  # keys that the section's own example cannot say beside the others, and one that says them
    "tokenize": '[[embed]]\nname = "text"\n[[embed]]\nname = "behaviour"\nmodality = "collaborative"\n'
    '[tokenize]\ntokenizer = "letter"\ncf = "behaviour"',
}
ALSO: Mapping[str, list[type]] = {"clean": [CleanParams]}
TITLES = {
    "source": "../sources/index.md",
    "tokenize": "../schemes/index.md",
    "collisions": "../policies/index.md",
}


def section_models() -> dict[str, type[BaseModel]]:
    """Give the model of each section, by its name in a recipe."""
    found = {}
    for name, field in Recipe.model_fields.items():
        kinds = [field.annotation, *get_args(field.annotation)]
        models = [one for one in kinds if inspect.isclass(one) and issubclass(one, BaseModel)]
        if models:
            found[name] = models[0]
    return found


def keys_said(name: str) -> set[str]:
    """Give the keys of a section that its examples say."""
    said: set[str] = set()
    for text in (EXAMPLES.get(name, ""), LATER.get(name, "")):
        given: Any = tomllib.loads(text).get(name, {})
        for one in given if isinstance(given, list) else [given]:
            said |= set(one)
    return said


def page() -> str:
    """Give the page."""
    models = section_models()
    sections = [
        [f"[`[[{name}]]`](#{name})" if name == "embed" else f"[`[{name}]`](#{name})", _summary(one)]
        for name, one in models.items()
    ]
    return f"""\
# Recipe

A recipe is one TOML file. Every key but `dataset` and those of `[source]` has a default; a key that is
none is
refused with the nearest that is. `--set section.key=value` lays one over a recipe; `sidmill plan` says
what a recipe would run.

```toml
# recipe.toml
dataset = "movietweetings"
[source]
kind = "movietweetings"
path = "examples/data/movietweetings-50k"
```

```console
$ sidmill plan recipe.toml
stage ...
$ sidmill plan recipe.toml --set tokenize.seed=2
stage ...
```

{table(["section", ""], sections)}

{key_table([row for row in model_rows(Recipe) if row[0] == "`dataset`"])}

{chr(10).join(_section(name, one) for name, one in models.items())}
"""


def _summary(model: type[BaseModel]) -> str:
    said = plain(" ".join(inspect.cleandoc(model.__doc__ or "").split("\n\n")[0].split()))
    return re.sub(r"\bdocs/(\w+)\.md", r"[\1.md](../\1.md)", said)


def _section(name: str, model: type[BaseModel]) -> str:
    parts = [f"## {name}", _summary(model)]
    if model.model_fields:
        parts.append(key_table(model_rows(model, also=ALSO.get(name, []))))
    for key, field in model.model_fields.items():
        if inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel):
            parts += [f"`{key}`, as a table or one number for both:", key_table(model_rows(field.annotation))]
    parts += _beside(name)
    parts.append(f"```toml\n{EXAMPLES[name].rstrip()}\n```")
    if name in LATER:
        parts.append(f"```toml\n{LATER[name]}\n```")
    return "\n\n".join(parts) + "\n"


def _beside(name: str) -> list[str]:
    """Give what stands beside a section's own keys: options of a source, a protocol, a model, a method."""
    match name:
        case "source":
            return ["Options of a source stand beside its kind: [Sources](../sources/index.md)."]
        case "split":
            made = ["A protocol's own parameters stand beside its name."]
            for kind, protocol in PROTOCOLS.items():
                made += [
                    f"### {kind}",
                    prose(protocol.__doc__ or ""),
                    f"Leaks: {plain(protocol.leaks)}.",
                    key_table(parameter_rows(protocol)),
                ]
            return made
        case "pairs":
            return [key_table(parameter_rows(PairsParams))]
        case "pieces":
            return [key_table(parameter_rows(PiecesParams))]
        case "tokenize" | "users":
            return ["A tokenizer's own parameters stand beside its name: [Tokenizers](../schemes/index.md)."]
        case "collisions":
            return [
                "A policy's own parameters stand beside its name: [Collision policies](../policies/index.md)."
            ]
        case "export":
            return ["Settings are by format: [Formats](../formats/index.md)."]
        case "embed":
            return _models()
        case "fuse":
            made = [
                "A method's own options stand beside its name; [Embeddings](../embeddings.md) compares them."
            ]
            for kind, fusion in FUSIONS.items():
                made += [f"### {kind}", prose(fusion.__doc__ or ""), key_table(parameter_rows(fusion))]
            return made
    return []


def _models() -> list[str]:
    made = ["Options of the model stand beside its name; [Embeddings](../embeddings.md) compares models."]
    owners: list[tuple[str, str, type]] = [
        ("Sentence models", "text", SentenceOptions),
        ("hashing", "text", HashingOptions),
        ("tfidf-svd", "text", TfidfOptions),
        ("ONNX files", "image", options_of("x.onnx")),
        ("efficientnet-lite0", "image", options_of("efficientnet-lite0")),
        ("Vision models", "image", options_of("folder")),
        *((name, "collaborative", model) for name, model in MODELS.items()),
    ]
    for title, modality, owner in owners:
        made += [
            f"### {title}",
            f'For `modality = "{modality}"`.',
            prose(owner.__doc__ or ""),
            key_table(parameter_rows(owner)),
        ]
    return made
