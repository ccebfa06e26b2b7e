"""What every image encoder has: options, a frame, a fingerprint, and batches of one shape."""

import importlib.metadata
import math
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from sid_pipelines.encoders.base import finished
from sid_pipelines.image_decoding import Frame, Limits, Pixels
from sid_schemas import DataError
from sid_tokenizers.base import Vectors
from sid_warehouse import files

Filter = Literal["auto", "nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
KEPT = 0.875  # of the shorter side, where nobody says otherwise: 224 of 256 pixels
CPU_BATCH, GPU_BATCH = 8, 64  # 8 stay in a core's cache: as fast as 32, at a quarter of the memory
Batch = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ImageOptions:
    """Options of every image encoder. What is empty, 0 or "auto" is what the model's own files say.

    size: pixels of each side of the square that the model sees. mean, std: of each channel, in 0..255: a
    pixel p becomes (p - mean) / std. resize: "crop" makes the shorter side size / crop pixels long and cuts
    the middle out, "stretch" squeezes the whole image. normalize: vectors of length 1. batch: images that are
    computed together, 8 on a CPU and 64 on a GPU where it is 0; a smaller rest is filled up. max_pixels,
    max_bytes: of an image and of its file, before it is decoded. seconds: after which one image is given up.

    crop: share of the shorter side that is cut out. filter: how pixels are resized.
    """

    size: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resize: Literal["auto", "crop", "stretch"] = "auto"
    crop: float = 0.0
    filter: Filter = "auto"
    normalize: bool = False
    batch: int = 0
    max_pixels: int = 64_000_000
    max_bytes: int = 64 << 20
    seconds: float = 60.0

    def check_params(self) -> None:
        """Raise DataError for an option that is out of range."""
        for name, least in (("size", 0), ("batch", 0), ("max_pixels", 1), ("max_bytes", 1)):
            if getattr(self, name) < least:
                raise DataError(f"{name} = {getattr(self, name)}: expected {least} or more")
        if len(self.mean) != len(self.std) or len(self.mean) not in (0, 1, 3):
            raise DataError(
                f"mean = {list(self.mean)}, std = {list(self.std)}: expected both, with 1 or 3 numbers each"
            )
        if any(not value > 0 for value in self.std):
            raise DataError(f"std = {list(self.std)}: expected numbers above 0, in units of 0..255")
        if not 0 <= self.crop <= 1:
            raise DataError(f"crop = {self.crop}: expected a share of the shorter side, above 0 and up to 1")
        if not 0 < self.seconds < math.inf:
            raise DataError(f"seconds = {self.seconds}: expected a number above 0, and no infinity")


@dataclass(frozen=True)
class Preparation:
    """How an image becomes an input: its frame, then (p - mean) / std of each channel, p in 0..255."""

    frame: Frame
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class ImageEncoder(ABC):
    """A model that gives one vector per image; see the package for the kinds there are.

    folder: the file or folder with its weights. Nothing is loaded before the first image.
    """

    Options: ClassVar[type[ImageOptions]] = ImageOptions
    needs: ClassVar[tuple[tuple[str, str], ...]] = ()  # packages, and the extra that brings each
    packages: ClassVar[tuple[str, ...]] = ()  # distributions whose version may move a vector

    def __init__(self, model: str, folder: Path, options: ImageOptions) -> None:
        """Only keep what is given."""
        self.model, self.folder, self.options = model, folder, options

    @classmethod
    @abstractmethod
    def find(cls, model: str, options: Any, base: Path) -> Path:
        """Give the file or folder of a model; SourceError where there is none."""

    @abstractmethod
    def weight_files(self) -> dict[str, Path]:
        """Give every file that shapes the vectors, by name."""

    @property
    @abstractmethod
    def preparation(self) -> Preparation:
        """Give how images are prepared; RecipeError where nothing says it."""

    @abstractmethod
    def forward(self, images: Batch) -> Vectors:
        """Give the vectors of one whole batch: (batch, 3, height, width) -> (batch, dim)."""

    def fingerprint(self) -> str:
        """Give the SHA-256 over the model's files, so that other weights mean other embeddings."""
        return files.digest({name: files.sha256_once(path) for name, path in self.weight_files().items()})

    def identity(self) -> dict[str, Any]:
        """Give everything that shapes a vector beside the image file's bytes.

        The versions of the packages that compute are part of it: two of them may differ in the last bits. So
        is max_pixels: a cache that was filled under a higher limit must not hand out what is over this one.
        """
        return {
            "encoder": type(self).__name__,
            "weights": self.fingerprint(),
            "preparation": asdict(self.preparation),
            "batch": self.batch,
            "max_pixels": self.options.max_pixels,
            "packages": {name: importlib.metadata.version(name) for name in (*self.packages, "pillow")},
        }

    @property
    @abstractmethod
    def on_gpu(self) -> bool:
        """Say whether a GPU computes."""

    @property
    def batch(self) -> int:
        """Give the number of images that are computed together."""
        return self.options.batch or (GPU_BATCH if self.on_gpu else CPU_BATCH)

    @property
    def size(self) -> tuple[int, int]:
        """Give height and width of the images it takes."""
        return self.preparation.frame.height, self.preparation.frame.width

    @property
    def streams(self) -> int:
        """Give the number of batches that are computed at the same time."""
        return 1

    def threads(self) -> AbstractContextManager[ThreadPoolExecutor]:
        """Give as many threads as there are streams."""
        return ThreadPoolExecutor(self.streams)

    @cached_property
    def dim(self) -> int:
        """Give the length of the vectors; this loads the model.

        Raises DataError for a model whose vectors depend on their place or company in a batch here: products
        of matrices may be cut so that rows differ in their last bits, and then no cache could be trusted.
        """
        pictures = np.random.default_rng(0).integers(0, 256, (self.batch, *self.size, 3), dtype=np.uint8)
        places = [0, self.batch // 2, self.batch - 1]
        pictures[places] = pictures[0]
        with self.threads() as threads:
            alone = threads.submit(self._encode, pictures[:1]).result()
            among = threads.submit(self._encode, pictures).result()
        if (among[places] != alone).any():
            raise DataError(
                f"[[embed]] model = {self.model!r}: an image's vector depends on its place in a batch of "
                f"{self.batch} on this machine. Set batch = 1, or precision = 'fp32' where it is not"
            )
        return int(alone.shape[1])

    @property
    def limits(self) -> Limits:
        """Give what is too much for one image."""
        return Limits(self.options.max_pixels, self.options.max_bytes, self.options.seconds)

    def encode(self, images: Pixels) -> Vectors:
        """Give the vectors of images, (m, height, width, 3) uint8 -> (m, dim) float32.

        The model is only ever given whole batches, the last one filled up with black images: so a vector
        depends on its own image, not on how many others there are. The first call makes sure (`dim`).
        """
        vectors = np.empty((len(images), self.dim), dtype=np.float32)
        parts = [images[start : start + self.batch] for start in range(0, len(images), self.batch)]
        with self.threads() as threads:
            for number, made in enumerate(threads.map(self._encode, parts)):
                vectors[number * self.batch : number * self.batch + len(made)] = made
        return vectors

    def _encode(self, part: Pixels) -> Vectors:
        mean = np.array(self.preparation.mean, dtype=np.float32)
        factor = 1 / np.array(self.preparation.std, dtype=np.float32)
        whole = np.zeros((self.batch, 3, *self.size), dtype=np.float32)
        whole[: len(part)] = ((part - mean) * factor).transpose(0, 3, 1, 2)
        return np.asarray(self.forward(whole), dtype=np.float32)[: len(part)]

    def finished(self, vectors: Vectors) -> Vectors:
        """Give vectors as the options want them: of length 1 where `normalize` is set."""
        return finished(vectors, normalize=self.options.normalize, dims=0)


def three(values: tuple[float, ...]) -> tuple[float, float, float]:
    """Give one number per channel."""
    first, *rest = values
    return (first, rest[0], rest[1]) if rest else (first, first, first)
