"""Vision models of transformers (ViT, DINOv2, SigLIP, ConvNeXt, ...) and sentence-transformers' CLIP models.

A folder or hub id with `modules.json` is sentence-transformers', one with `config.json` alone transformers'.
No code of a model's own is run (trust_remote_code is off).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from sid_pipelines.hub import modules_of, snapshot
from sid_pipelines.image_encoders.base import Preparation
from sid_pipelines.image_encoders.in_torch import TorchEncoder, TorchOptions, import_torch
from sid_pipelines.image_encoders.preprocessor import config_file, preparation_of
from sid_schemas import MissingExtraError, RecipeError, SourceError

IDENTITY = {".json", ".safetensors", ".txt", ".model", ".bin"}  # files that shape the vectors


@dataclass(frozen=True)
class VisionOptions(TorchOptions):
    """Options of a model of transformers.

    pooling: "features" is what a model for text and images puts into their common space, "pooler" the model's
    own pooled output, "cls" its first token, "mean" the mean over all places. "auto" takes the first of
    features, pooler and cls that the model has weights for (mean for a network without tokens).
    revision: commit, tag or branch of a hub id.
    """

    pooling: Literal["auto", "features", "pooler", "cls", "mean"] = "auto"
    revision: str = ""


class VisionEncoder(TorchEncoder):
    """A model in a local folder, or a hub id's copy of it."""

    Options = VisionOptions
    needs: ClassVar[tuple[tuple[str, str], ...]] = (("PIL", "image"), ("sentence_transformers", "text"))
    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    options: VisionOptions

    @classmethod
    def find(cls, model: str, options: VisionOptions, base: Path) -> Path:
        """Give a folder relative to `base`, or the hub's copy."""
        folder = (base / Path(model).expanduser()).resolve()
        if any((folder / name).is_file() for name in ("modules.json", "config.json")):
            return folder
        return snapshot(
            model,
            options.revision,
            looked="no .onnx file, no model folder",
            advice="Give the path of a model, or 'efficientnet-lite0', which is a package",
        )

    def weight_files(self) -> dict[str, Path]:
        """Give the files that shape the vectors."""
        return {
            path.relative_to(self.folder).as_posix(): path
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.suffix in IDENTITY
        }

    def identity(self) -> dict[str, Any]:
        """Add how a vector is taken from what the model gives."""
        return super().identity() | {"pooling": self.options.pooling}

    @cached_property
    def preparation(self) -> Preparation:
        """Give what the model's preprocessor_config.json says, and the options on top."""
        return preparation_of(self.model, self.options, self._inner, None)

    def load(self) -> Any:
        """Load the weights; SourceError where some that are needed are missing."""
        import_torch()
        try:
            from transformers.utils import logging as hub_logging
        except ImportError as error:
            raise MissingExtraError("Embedding images (transformers)", "text") from error
        hub_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        return self._whole_chain() if modules_of(self.folder) else self._one_model()

    @property
    def _inner(self) -> Path:
        """Give the folder in which preprocessor_config.json is: the first module's, or the model's."""
        for module in modules_of(self.folder)[:1]:
            if config_file(self.folder / module["path"]):
                return self.folder / str(module["path"])
        return self.folder

    def _whole_chain(self) -> Callable[[Any], Any]:
        from sentence_transformers import SentenceTransformer

        try:
            chain = SentenceTransformer(
                str(self.folder), device=self.device, local_files_only=True, trust_remote_code=False
            ).eval()
        except (OSError, ValueError, KeyError) as error:
            raise self._not_loaded(error) from error
        reads = [str(one) for one in chain.modalities]
        if "image" not in reads:
            raise RecipeError(
                f"[[embed]] model = {self.model!r}: it reads {', '.join(reads)}, no images. Choose a "
                "vision model, or modality = 'text'"
            )
        return lambda images: chain({"pixel_values": images, "modality": "image"})["sentence_embedding"]

    def _not_loaded(self, error: Exception) -> SourceError:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        return SourceError(f"[[embed]] model = {self.model!r}: cannot be loaded ({reason})")

    def _one_model(self) -> Callable[[Any], Any]:
        import torch
        from transformers import AutoModel

        try:
            model, loading = AutoModel.from_pretrained(
                self.folder,
                output_loading_info=True,
                local_files_only=True,
                trust_remote_code=False,  # None would ask at the terminal
                dtype=torch.float32,
            )
        except (OSError, ValueError, KeyError) as error:
            raise self._not_loaded(error) from error
        missing = set(loading["missing_keys"])
        unpooled = any("pooler" in name for name in missing)
        if others := sorted(name for name in missing if "pooler" not in name):
            raise SourceError(
                f"{self.folder}: {len(others)} weights are missing, such as {others[0]}; expected all of "
                f"{type(model).__name__}. Copy the whole model"
            )
        model.eval().to(self.device)
        pooling = self.options.pooling
        if pooling in ("auto", "features") and hasattr(model, "get_image_features"):
            return lambda images: _pooled(model.get_image_features(pixel_values=images))
        if pooling == "features" or (pooling == "pooler" and unpooled):
            raise RecipeError(
                f"[[embed]] pooling = {pooling!r}: {self.model} has no weights for it. Set "
                "pooling = 'cls' or 'mean'"
            )
        if (
            not hasattr(model, "get_image_features")
            and getattr(model, "main_input_name", "") != "pixel_values"
        ):
            raise RecipeError(f"[[embed]] model = {self.model!r}: a {type(model).__name__} takes no images")
        seeing = getattr(model, "vision_model", model)
        return lambda images: _vector(seeing(pixel_values=images), pooling, unpooled)


def _pooled(output: Any) -> Any:
    return getattr(output, "pooler_output", output)  # before transformers 5 it was the vectors themselves


def _vector(output: Any, pooling: str, unpooled: bool) -> Any:
    """Give (batch, dim) of a model's output: tokens (batch, tokens, d), or places (batch, d, h, w)."""
    states, pooled = output.last_hidden_state, getattr(output, "pooler_output", None)
    if pooled is not None and not unpooled and pooling in ("auto", "pooler"):
        return pooled.flatten(1)
    if states.ndim == 4:
        return states.mean(dim=(2, 3))
    return states.mean(dim=1) if pooling == "mean" else states[:, 0]
