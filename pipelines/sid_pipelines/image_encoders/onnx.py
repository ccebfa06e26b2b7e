"""Any vision model as an .onnx file, computed by ONNX Runtime: on a CPU several times faster than torch."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from sid_pipelines.image_encoders.base import Batch, ImageEncoder, ImageOptions, Preparation
from sid_pipelines.image_encoders.preprocessor import NAME, config_file, preparation_of
from sid_schemas import MissingExtraError, RecipeError, SourceError
from sid_tokenizers.base import Vectors
from sid_tokenizers.blocks import cores

TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
CUDA = "CUDAExecutionProvider"


@dataclass(frozen=True)
class OnnxOptions(ImageOptions):
    """Options of an .onnx file. output: the name of one, where the first of (batch, dim) is not meant.

    device: "auto" takes a GPU where there is one.
    """

    output: str = ""
    device: Literal["auto", "cpu", "cuda"] = "auto"


class OnnxEncoder(ImageEncoder):
    """Takes (batch, 3, height, width) or (batch, height, width, 3), and one output of (batch, dim).

    The bytes are the same for any number of threads and any batch (measured with EfficientNet-Lite0, ONNX
    Runtime 1.32). Graphs are fitted to the machine's vector width: another kind of CPU may differ in the last
    bits.
    """

    Options = OnnxOptions
    needs = (("PIL", "image"), ("onnxruntime", "image"))
    packages: ClassVar[tuple[str, ...]] = ("onnxruntime",)
    options: OnnxOptions

    @classmethod
    def find(cls, model: str, options: OnnxOptions, base: Path) -> Path:
        """Give the file's path; RecipeError where nothing can say how images are prepared."""
        path = (base / Path(model).expanduser()).resolve()
        if not path.is_file():
            raise SourceError(
                f"[[embed]] model = {model!r}: no file at {path}. Paths are relative to the recipe"
            )
        if not options.mean and config_file(path.parent) is None:
            raise RecipeError(
                f"[[embed]] model = {model!r}: nothing says how its images are prepared. Add mean and std "
                "per channel in 0..255 (such as mean = [127.0], std = [128.0] for (p - 127) / 128), or put "
                f"its {NAME} beside it"
            )
        return path

    def weight_files(self) -> dict[str, Path]:
        """Give the model, the files below its folder that it names, and how images are prepared."""
        found = {"model": self.folder}
        content = self.folder.read_bytes()
        if b"location" in content:  # the key of a file's name, where weights are kept outside
            for path in sorted(self.folder.parent.rglob("*")):
                name = path.relative_to(self.folder.parent).as_posix()
                if os.fsencode(name) in content and path.is_file() and path != self.folder:
                    found[f"data/{name}"] = path
        if config := config_file(self.folder.parent):
            found["preprocessor"] = config
        return found

    def identity(self) -> dict[str, Any]:
        """Add the output that is taken and what computes it."""
        return super().identity() | {"output": self._output, "providers": self._session.get_providers()}

    @cached_property
    def preparation(self) -> Preparation:
        """Give how images are prepared: by options, preprocessor_config.json, and the input's shape."""
        _, height, width = self._shape
        fixed = (height, width) if isinstance(height, int) and isinstance(width, int) else None
        return preparation_of(self.model, self.options, self.folder.parent, fixed)

    @property
    def batch(self) -> int:
        """Give the batch that the model was exported for, or else that of the options."""
        batch = self._shape[0]
        return batch if isinstance(batch, int) else super().batch

    @property
    def on_gpu(self) -> bool:
        """Say whether ONNX Runtime uses a GPU."""
        return CUDA in self._session.get_providers()

    @property
    def streams(self) -> int:
        """Give one stream per core: cores with a batch each do not wait for each other."""
        return 1 if self.on_gpu else cores()

    def forward(self, images: Batch) -> Vectors:
        """Run the model."""
        whole = images.transpose(0, 2, 3, 1) if self._channels_last else images
        given = np.ascontiguousarray(whole, dtype=TYPES[self._input.type])
        [vectors] = self._session.run([self._output], {self._input.name: given})
        return np.asarray(vectors).reshape(len(images), -1)

    @cached_property
    def _session(self) -> Any:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError("Embedding images by .onnx (ONNX Runtime)", "image") from error
        there = onnxruntime.get_available_providers()
        if self.options.device == "cuda" and CUDA not in there:
            raise RecipeError(
                f"[[embed]] device = 'cuda': ONNX Runtime has {', '.join(there)} here. Install "
                "onnxruntime-gpu, or set device = 'auto'"
            )
        wanted = [CUDA] if CUDA in there and self.options.device != "cpu" else []
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1  # of each stream
        settings.log_severity_level = 3  # errors alone
        try:
            return onnxruntime.InferenceSession(
                os.fspath(self.folder), settings, providers=[*wanted, "CPUExecutionProvider"]
            )
        except Exception as error:  # it has a dozen kinds of its own
            reason = str(error).splitlines()[0][:200]
            raise SourceError(f"{self.folder}: ONNX Runtime cannot load it ({reason})") from error

    @property
    def _input(self) -> Any:
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in TYPES or len(inputs[0].shape) != 4:
            raise SourceError(
                f"{self.folder}: its inputs are {_named(inputs)}; expected one of float numbers with 4 "
                "dimensions. Export the image part alone"
            )
        return inputs[0]

    @property
    def _channels_last(self) -> bool:
        shape = self._input.shape
        if 3 not in (shape[1], shape[3]):
            raise SourceError(
                f"{self.folder}: its input is {_named([self._input])}; expected 3 channels at the second or "
                "the last place"
            )
        return bool(shape[1] != 3)

    @property
    def _shape(self) -> tuple[Any, Any, Any]:
        """Give batch, height and width; a text or None is any number."""
        batch, *rest = self._input.shape
        height, width = rest[:2] if self._channels_last else rest[1:]
        return batch, height, width

    @cached_property
    def _output(self) -> str:
        outputs = self._session.get_outputs()
        for one in outputs:
            if one.name == self.options.output or (not self.options.output and len(one.shape) == 2):
                return str(one.name)
        raise RecipeError(
            f"[[embed]] output = {self.options.output!r}: {self.folder.name} gives {_named(outputs)}; "
            "expected one of (batch, dim). Name it with output, or export the pooled vectors"
        )


def _named(ends: Sequence[Any]) -> str:
    return ", ".join(f"{one.name} {one.type} {one.shape}" for one in ends)
