"""Every tokenizer by the name that recipes use. A new scheme is one file and one line here."""

import json
from pathlib import Path

from sid_schemas import RecipeError
from sid_tokenizers.base import Tokenizer
from sid_tokenizers.rq_kmeans import RQKMeans

TOKENIZERS: dict[str, type[Tokenizer]] = {scheme.name: scheme for scheme in (RQKMeans,)}


def tokenizer_named(name: str) -> type[Tokenizer]:
    """Give the class of a scheme, or raise RecipeError listing those there are."""
    if name not in TOKENIZERS:
        known = ", ".join(sorted(TOKENIZERS))
        raise RecipeError(f"no tokenizer is called {name!r}; there are: {known}")
    return TOKENIZERS[name]


def load(folder: str | Path) -> Tokenizer:
    """Load whatever tokenizer a folder holds."""
    config = json.loads((Path(folder) / "tokenizer.json").read_text(encoding="utf-8"))
    return tokenizer_named(config["tokenizer"]).load(folder)
