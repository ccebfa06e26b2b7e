"""Image encoders: ONNX files, EfficientNet-Lite0 as its PyPI package has it, and models of transformers.

Each takes whole batches of one shape, so that a vector depends on its image alone. What brings an image to
that shape is said by `Frame` (image_decoding.py) and done by other processes. torch, transformers and ONNX
Runtime are imported where they are used, never here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sid_pipelines.image_encoders.base import ImageEncoder, ImageOptions
from sid_pipelines.image_encoders.lite0 import NAME as LITE0
from sid_pipelines.image_encoders.lite0 import Lite0Encoder
from sid_pipelines.image_encoders.onnx import OnnxEncoder
from sid_pipelines.image_encoders.vision import VisionEncoder

__all__ = ["ImageEncoder", "ImageOptions", "encoder_at", "encoder_of", "image_encoder", "options_of"]


def encoder_of(model: str) -> type[ImageEncoder]:
    """Give the kind of encoder that a recipe's `model` asks for.

    >>> encoder_of("models/clip.onnx").__name__, encoder_of("facebook/dinov2-small").__name__
    ('OnnxEncoder', 'VisionEncoder')
    """
    if model == LITE0:
        return Lite0Encoder
    return OnnxEncoder if model.endswith(".onnx") else VisionEncoder


def options_of(model: str) -> type[ImageOptions]:
    """Give the dataclass whose fields are the options of this model."""
    return encoder_of(model).Options


def image_encoder(model: str, options: Mapping[str, Any], base: Path) -> ImageEncoder:
    """Find a model: a file or folder (relative to `base`), an installed package, or the hub.

    options: fields of `options_of(model)`. Raises SourceError where there is none, RecipeError where it is
    not said how its images are prepared, MissingExtraError where a package is not installed.
    """
    kind = encoder_of(model)
    given = _options(kind, options)
    return kind(model, kind.find(model, given, base), given)


def encoder_at(model: str, options: Mapping[str, Any], folder: Path) -> ImageEncoder:
    """Open a model where `image_encoder` found it: `folder` is that encoder's."""
    kind = encoder_of(model)
    return kind(model, folder, _options(kind, options))


def _options(kind: type[ImageEncoder], given: Mapping[str, Any]) -> ImageOptions:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items()
    }
    options = kind.Options(**values)
    options.check_params()
    return options
