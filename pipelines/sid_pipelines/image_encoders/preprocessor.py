"""`preprocessor_config.json`: how a model of transformers wants its images, read without transformers.

So the processes that prepare images need no torch (transformers' own processors import it, and torchvision
by default). Followed are those of ViT, DINOv2, CLIP, SigLIP, DeiT, BEiT, ConvNeXt and their like: resize to a
shorter side or to a shape, cut the middle out, rescale, subtract and divide. Anything else is refused.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from sid_pipelines.image_decoding import Frame
from sid_pipelines.image_encoders.base import KEPT, ImageOptions, Preparation, three
from sid_schemas import RecipeError
from sid_warehouse import files

NAME = "preprocessor_config.json"
COMBINED = "processor_config.json"  # of models that read text too, since transformers 5
SQUARE = ("DeiT", "Beit")  # whose old files mean both sides by one number although they cut
RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by Pillow's numbers
STANDARD = (0.5, 0.5, 0.5)  # transformers' mean and std where a file does not have them
UNKNOWN = {"do_pad": True, "do_split_image": True, "do_image_splitting": True}


def preparation_of(
    model: str, options: ImageOptions, folder: Path, own: tuple[int, int] | None
) -> Preparation:
    """Give the preparation: the options first, then the file in `folder`, then the model's own size.

    Raises RecipeError that says which options to add where neither has them.
    """
    file = config_file(folder)
    said = _from_options(model, options, own) if file is None else _from_file(file)
    frame = said.frame
    if options.size:
        shorter = round(frame.shorter * options.size / min(frame.height, frame.width))
        frame = replace(frame, height=options.size, width=options.size, shorter=shorter)
    if own and (frame.height, frame.width) != own:
        raise RecipeError(
            f"[[embed]] model = {model!r}: its images are {frame.height} x {frame.width}, but the model "
            f"takes {own[0]} x {own[1]} alone. Set size, or leave it out"
        )
    if options.resize == "stretch":
        frame = replace(frame, shorter=0, square=False)
    elif options.crop or (options.resize == "crop" and not frame.shorter):
        shorter = round(max(frame.height, frame.width) / (options.crop or KEPT))
        frame = replace(frame, shorter=shorter, square=False)
    if options.filter != "auto":
        frame = replace(frame, filter=options.filter)
    if options.mean:
        return Preparation(frame, three(options.mean), three(options.std))
    return replace(said, frame=frame)


def config_file(folder: Path) -> Path | None:
    """Give the file in a folder that says how images are prepared, or None."""
    if (folder / NAME).is_file():
        return folder / NAME
    if (folder / COMBINED).is_file() and "image_processor" in files.read_json(folder / COMBINED):
        return folder / COMBINED
    return None


def _from_options(model: str, options: ImageOptions, own: tuple[int, int] | None) -> Preparation:
    missing = ["size"] if not (options.size or own) else []
    missing += [] if options.mean else ["mean", "std"]
    if missing:
        raise RecipeError(
            f"[[embed]] model = {model!r}: nothing says how its images are prepared. Add "
            f"{', '.join(missing)} (mean and std per channel in 0..255, such as mean = [127.0], std = "
            f"[128.0] for (p - 127) / 128), or put its {NAME} beside it"
        )
    height, width = own or (options.size, options.size)
    frame = Frame(height, width, round(max(height, width) / KEPT), "bicubic")
    return Preparation(frame, three(options.mean), three(options.std))


def _from_file(path: Path) -> Preparation:
    config = files.read_json(path)
    config = config.get("image_processor", config)  # processor_config.json of transformers 5
    odd = [name for name, value in UNKNOWN.items() if config.get(name) == value]
    if odd or not config.get("do_resize", True):
        raise RecipeError(
            f"{path}: {', '.join(odd) or 'do_resize = false'} is not followed here; expected one size for "
            "all images. Export the model to ONNX and give size, mean and std"
        )
    cuts = bool(config.get("do_center_crop", False))
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type"))
    size = _size(config.get("size", 224), path, of_shorter=cuts and not kind.startswith(SQUARE))
    shorter, square = size.get("shortest_edge", 0), "height" in size
    filter_ = RESAMPLE[int(config.get("resample", 2))]
    if share := config.get("crop_pct"):  # ConvNeXt: below 384 pixels made larger, then cut
        edge = shorter or min(size["height"], size["width"])
        frame = Frame(edge, edge, 0 if edge >= 384 else int(edge / share), filter_)
    elif cuts:
        cut = _size(config.get("crop_size", 224), path, of_shorter=False)
        height, width = (cut.get(side, cut.get("shortest_edge", 0)) for side in ("height", "width"))
        frame = Frame(height, width, shorter or min(size["height"], size["width"]), filter_, square)
    elif shorter:
        frame = Frame(shorter, shorter, shorter, filter_)
    else:
        frame = Frame(size["height"], size["width"], 0, filter_)
    if frame.shorter and frame.shorter < max(frame.height, frame.width):
        raise RecipeError(f"{path}: cuts {frame.height} x {frame.width} pixels out of {frame.shorter}")
    factor = float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if config.get("do_normalize", True):
        mean = three(tuple(config.get("image_mean") or STANDARD))
        std = three(tuple(config.get("image_std") or STANDARD))
    # (p * factor - mean) / std = (p - mean / factor) / (std / factor)
    return Preparation(frame, three(_over(mean, factor)), three(_over(std, factor)))


def _over(values: tuple[float, ...], factor: float) -> tuple[float, ...]:
    return tuple(round(value / factor, 9) for value in values)


def _size(given: Any, path: Path, *, of_shorter: bool) -> dict[str, int]:
    """Give a size in today's form; in older files it is one number, of the shorter side or of both."""
    if isinstance(given, int):
        return {"shortest_edge": given} if of_shorter else {"height": given, "width": given}
    if isinstance(given, dict) and (given.get("shortest_edge") or {"height", "width"} <= set(given)):
        return {name: int(value) for name, value in given.items() if value}
    raise RecipeError(
        f"{path}: size {given!r} is not followed here; expected height and width, or shortest_edge"
    )
