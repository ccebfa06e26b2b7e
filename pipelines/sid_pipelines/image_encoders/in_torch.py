"""What the encoders in torch have in common: device, precision, and a forward pass without gradients."""

from abc import abstractmethod
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

from sid_pipelines.image_encoders.base import Batch, ImageEncoder, ImageOptions
from sid_schemas import MissingExtraError, RecipeError
from sid_tokenizers.base import Vectors
from sid_tokenizers.blocks import cores


@dataclass(frozen=True)
class TorchOptions(ImageOptions):
    """Options of an encoder in torch. precision: "bf16" computes in bfloat16 where torch's autocast does.

    device: "auto" is a GPU where there is one.
    """

    precision: Literal["fp32", "bf16"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"


class TorchEncoder(ImageEncoder):
    """An encoder in torch; the vectors' last bits may differ between kinds of CPU or GPU."""

    Options: ClassVar[type[ImageOptions]] = TorchOptions
    packages: ClassVar[tuple[str, ...]] = ("torch",)
    options: TorchOptions

    @abstractmethod
    def load(self) -> Any:
        """Give a function from a (batch, 3, height, width) tensor on `device` to (batch, dim)."""

    def identity(self) -> dict[str, Any]:
        """Add what computes."""
        return super().identity() | {"precision": self.options.precision, "device": self.device}

    @cached_property
    def device(self) -> str:
        """Give "cpu" or "cuda"; RecipeError where a GPU is asked for and there is none."""
        torch = import_torch()
        if self.options.device == "cuda" and not torch.cuda.is_available():
            raise RecipeError(
                "[[embed]] device = 'cuda': torch finds no GPU on this machine. Set device = 'auto'"
            )
        there = torch.cuda.is_available() and self.options.device != "cpu"
        return "cuda" if there else "cpu"

    @property
    def on_gpu(self) -> bool:
        """Say whether torch uses a GPU."""
        return self.device == "cuda"

    @property
    def streams(self) -> int:
        """Give a batch to every core: torch's own threads would cut products, and so depend on the place."""
        return 1 if self.on_gpu else min(int(import_torch().get_num_threads()), cores())

    def threads(self) -> AbstractContextManager[ThreadPoolExecutor]:
        """Give threads that compute alone."""
        import_torch()
        from sid_tokenizers.learned.one_thread import one_thread_each

        return one_thread_each(self.streams)

    def forward(self, images: Batch) -> Vectors:
        """Compute one batch."""
        torch = import_torch()
        half = self.options.precision == "bf16"
        with torch.inference_mode(), torch.autocast(self.device, dtype=torch.bfloat16, enabled=half):
            vectors = self._model(torch.from_numpy(images).to(self.device))
        numbers: Vectors = vectors.float().cpu().numpy()
        return numbers

    @cached_property
    def _model(self) -> Any:
        return self.load()


def import_torch() -> Any:
    """Give torch, or raise MissingExtraError."""
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("Embedding images in torch", "torch") from error
    return torch
