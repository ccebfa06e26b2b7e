"""One image file's bytes as the numbers that an encoder sees, or the reason why not.

The only place that knows Pillow. What comes in is not trusted: only the formats below are tried, by their
plug-ins inside this process (no Ghostscript, no other program), and the size that the header states is
looked at before anything is decoded. `image_workers` runs it in processes of their own, which may die.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from sid_schemas import MissingExtraError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
FILTERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
LONGEST = 8  # sides: of a longer strip the middle is taken, else it would be enlarged without bound
DRAFT = 2  # a JPEG is decoded at no less than so many times the size it is then made to have
WHITE = (255, 255, 255, 255)
ALPHA = {"RGBA", "LA", "PA", "RGBa", "La"}
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Frame:
    """How an image becomes (height, width, 3).

    shorter: its shorter side gets so many pixels and the other as many as its shape asks for, then the middle
    is cut out; 0: it is stretched to height and width, whatever its shape. square: it is stretched to a
    square of `shorter` pixels, out of which the middle is cut. filter: one of FILTERS, as Pillow computes
    them (antialiased when it shrinks).
    """

    height: int
    width: int
    shorter: int
    filter: str
    square: bool = False


@dataclass(frozen=True)
class Limits:
    """What is too much for one image: pixels as its header states them, bytes of its file, seconds."""

    pixels: int
    bytes: int
    seconds: float


class UnreadableError(Exception):
    """An image that gives no vector. status: one of images.STATUSES."""

    def __init__(self, status: str, reason: str) -> None:
        """Keep why, in one line."""
        super().__init__(reason)
        self.status, self.reason = status, " ".join(reason.split())[:200]


def content_key(content: bytes) -> bytes:
    """Give the key of a file's content: blake2b, 16 bytes."""
    return hashlib.blake2b(content, digest_size=16).digest()


def decode(content: bytes, frame: Frame, limits: Limits) -> Pixels:
    """Give an image as (height, width, 3) uint8, sRGB as stored.

    The first frame of an animation; turned as its EXIF says; transparent places white; 16-bit greys by their
    upper 8 bits; CMYK by Pillow's plain formula, without colour profiles. Raises UnreadableError.
    """
    if len(content) > limits.bytes:
        raise UnreadableError("too_large", f"{len(content):,} bytes; the limit is {limits.bytes:,}")
    with _explained(), _opened(content) as image:
        width, height = image.size
        if width * height > limits.pixels:
            raise UnreadableError(
                "too_large", f"{width:,} x {height:,} pixels; the limit is {limits.pixels:,}"
            )
        side = DRAFT * max(frame.height, frame.width, frame.shorter)
        image.draft(None, (side, side))
        image.load()
        return np.asarray(_framed(_rgb(_upright(image)), frame))


@contextmanager
def _explained() -> Iterator[None]:
    """Turn whatever goes wrong into UnreadableError: broken files make Pillow raise a dozen kinds."""
    try:
        yield
    except (UnreadableError, MissingExtraError):
        raise
    except MemoryError:
        raise UnreadableError("too_large", "it needs more memory than a worker may use") from None
    except Exception as error:
        raise UnreadableError("broken", f"{type(error).__name__}: {error}") from error


def _opened(content: bytes) -> Any:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise MissingExtraError("Reading images (Pillow)", "image") from error
    Image.MAX_IMAGE_PIXELS = None  # `decode` has a limit of its own
    if not content:
        raise UnreadableError("broken", "the file is empty")
    try:
        return Image.open(BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        raise UnreadableError("broken", f"it is none of {', '.join(FORMATS)}") from None


def _upright(image: Any) -> Any:
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # an EXIF block that cannot be read does not spoil the image
        return image


def _rgb(image: Any) -> Any:
    """Give an image in 8-bit RGB."""
    from PIL import Image

    if kind := {"F": "floating-point numbers", "I": "32-bit integers"}.get(image.mode):
        raise UnreadableError("broken", f"its pixels are {kind} without a stated range")
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.int64) >> 8
        return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ALPHA or "transparency" in image.info:
        seen = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, WHITE), seen).convert("RGB")
    return image.convert("RGB")


def _framed(image: Any, frame: Frame) -> Any:
    """Resize and cut; the middle of an odd rest lies half a pixel to the upper left."""
    from PIL import Image

    resample = Image.Resampling[frame.filter.upper()]
    if not frame.shorter:
        return image.resize((frame.width, frame.height), resample)
    if frame.square:
        return _cut(image.resize((frame.shorter, frame.shorter), resample), frame.width, frame.height)
    image = _cut(image, LONGEST * image.height, LONGEST * image.width)
    short, long = sorted(image.size)
    longer = frame.shorter * long // short
    upright = image.width <= image.height
    image = image.resize((frame.shorter, longer) if upright else (longer, frame.shorter), resample)
    return _cut(image, frame.width, frame.height)


def _cut(image: Any, width: int, height: int) -> Any:
    """Cut out the middle; a side that is shorter anyway is left."""
    width, height = min(width, image.width), min(height, image.height)
    if (width, height) == image.size:
        return image
    left, upper = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, upper, left + width, upper + height))
