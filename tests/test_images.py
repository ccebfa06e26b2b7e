"""Images: what is refused and why, vectors that depend on their own image alone, and what is remembered."""

import errno
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers import ROOT
from PIL import Image

from sid_pipelines import embed_image, image_workers, images
from sid_pipelines.embed_image import ImageEmbedParams
from sid_pipelines.image_decoding import Frame, Limits, UnreadableError, content_key, decode
from sid_pipelines.image_encoders import ImageEncoder, image_encoder, options_of
from sid_pipelines.image_encoders.preprocessor import preparation_of
from sid_pipelines.image_workers import decoded
from sid_pipelines.images import find, image_folder_digest, locate
from sid_pipelines.probes import label_agreement
from sid_pipelines.stage import Outcome, Resources, Work
from sid_pipelines.vector_cache import content_key as cache_key
from sid_pipelines.vectors import StoredVectors
from sid_schemas import DataError, MissingExtraError, RecipeError, SourceError, WarehouseError
from sid_schemas.tables import ITEMS_CLEAN, embeddings_table
from sid_tokenizers.base import Vectors
from sid_warehouse.stages import StageOutput, StageStore

DATA = ROOT.parent / "shared" / "data"
POSTERS, LITE0_ONNX = DATA / "ml-100k", DATA / "encoders" / "efficientnet_lite0_features_1280.onnx"
REAL = pytest.mark.skipif(not LITE0_ONNX.exists(), reason=f"no encoder and posters at {DATA}")
LIMITS = Limits(pixels=1_000_000, bytes=1 << 20, seconds=20)
SQUARE = Frame(32, 32, 0, "bilinear")
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
PLAIN = {"mean": [0.0], "std": [255.0]}  # of a model that gives the mean colour


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def plain(colour: Any, mode: str = "RGB", size: tuple[int, int] = (40, 40)) -> Image.Image:
    return Image.new(mode, size, colour)


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# --- decoding


def half_red() -> Image.Image:
    """Red above, blue below."""
    image = plain(BLUE)
    image.paste(RED, (0, 0, 40, 20))
    return image


def turned() -> bytes:
    """A picture that lies on its side, and says so."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees to the right
    return saved(half_red().transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=95)


def palette() -> bytes:
    image = plain(0, "P")
    image.putpalette([*GREEN, *RED])
    image.paste(1, (0, 20, 40, 40))
    return saved(image, "PNG", transparency=0)


def grey_16() -> bytes:
    return saved(Image.fromarray(np.full((40, 40), 0x8000, dtype=np.uint16)), "PNG")


TOP_AND_BOTTOM = {
    "a JPEG": (lambda: saved(half_red(), "JPEG", quality=95), RED, BLUE),
    "a PNG": (lambda: saved(half_red(), "PNG"), RED, BLUE),
    "a WebP": (lambda: saved(half_red(), "WEBP", lossless=True), RED, BLUE),
    "a BMP": (lambda: saved(half_red(), "BMP"), RED, BLUE),
    "a TIFF": (lambda: saved(half_red(), "TIFF"), RED, BLUE),
    "EXIF that turns it": (turned, RED, BLUE),
    "CMYK": (lambda: saved(plain((0, 255, 255, 0), "CMYK"), "JPEG", quality=95), RED, RED),
    "grey": (lambda: saved(plain(128, "L"), "JPEG"), (128,) * 3, (128,) * 3),
    "16-bit grey": (grey_16, (128,) * 3, (128,) * 3),
    "black and white": (lambda: saved(plain(1, "1"), "PNG"), WHITE, WHITE),
    "half transparent red": (
        lambda: saved(plain((*RED, 128), "RGBA"), "PNG"),
        (255, 127, 127),
        (255, 127, 127),
    ),
    "transparent black": (lambda: saved(plain((0, 0), "LA"), "PNG"), WHITE, WHITE),
    "a palette with a transparent colour": (palette, WHITE, RED),
    "an animated GIF": (
        lambda: saved(half_red(), "GIF", save_all=True, append_images=[plain(GREEN)]),
        RED,
        BLUE,
    ),
    "an animated WebP": (
        lambda: saved(half_red(), "WEBP", save_all=True, append_images=[plain(GREEN)], lossless=True),
        RED,
        BLUE,
    ),
    "a TIFF of two pages": (
        lambda: saved(half_red(), "TIFF", save_all=True, append_images=[plain(GREEN)]),
        RED,
        BLUE,
    ),
}


@pytest.mark.parametrize("kind", TOP_AND_BOTTOM)
def test_every_kind_of_image_comes_out_upright_in_rgb(kind: str) -> None:
    make, top, bottom = TOP_AND_BOTTOM[kind]
    pixels = decode(make(), SQUARE, LIMITS)
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels[4, 16].astype(int) - top).max() <= 4
    assert np.abs(pixels[-5, 16].astype(int) - bottom).max() <= 4


def bomb() -> bytes:
    """A PNG of 200 bytes that says it has 3.6 billion pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    made = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(made)


JPEG = saved(half_red(), "JPEG")
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"
REFUSED = {
    "empty": (b"", "broken", "empty"),
    "text": (b"not an image", "broken", "none of JPEG"),
    "cut short": (JPEG[: len(JPEG) // 2], "broken", "runcated"),
    "a header alone": (saved(half_red(), "PNG")[:40], "broken", ""),
    "PostScript, which would run Ghostscript": (POSTSCRIPT, "broken", "none of JPEG"),
    "a format off the list": (saved(half_red(), "PPM"), "broken", "none of JPEG"),
    "floating-point pixels": (saved(plain(0.5, "F"), "TIFF"), "broken", "floating-point"),
    "32-bit pixels": (saved(plain(70_000, "I"), "TIFF"), "broken", "integers without a stated range"),
    "a bomb": (bomb(), "too_large", "60,000 x 60,000 pixels; the limit is 1,000,000"),
    "a large file": (bytes(LIMITS.bytes + 1), "too_large", "bytes; the limit"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_used_is_refused_with_its_reason(kind: str) -> None:
    content, status, reason = REFUSED[kind]
    with pytest.raises(UnreadableError) as caught:
        decode(content, SQUARE, LIMITS)
    assert caught.value.status == status
    assert reason in caught.value.reason


def test_a_bomb_is_refused_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    with pytest.raises(UnreadableError, match="the limit is"):
        decode(bomb(), SQUARE, LIMITS)


def test_a_strip_is_not_enlarged_without_bound() -> None:
    strip = saved(plain(RED, size=(1, 50_000)), "PNG")  # 256 pixels wide it would have 3 billion
    assert (decode(strip, Frame(224, 224, 256, "bicubic"), LIMITS) == RED).all()


@pytest.mark.parametrize("shape", [(92, 138), (138, 92), (300, 200), (64, 64), (41, 33), (800, 150)])
@pytest.mark.parametrize("kind", ["ViT", "CLIP"])
def test_images_are_prepared_as_transformers_does_it(
    kind: str, shape: tuple[int, int], tmp_path: Path
) -> None:
    processor: Any
    if kind == "ViT":
        from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

        processor = ViTImageProcessorPil(size={"height": 30, "width": 36})
    else:
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        processor = CLIPImageProcessorPil(size={"shortest_edge": 36}, crop_size={"height": 30, "width": 30})
    processor.save_pretrained(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (shape[1], shape[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    expected = np.asarray(processor(image, return_tensors="np")["pixel_values"][0])
    prepared = preparation_of("x", options_of("x")(), tmp_path, None)
    ours = decode(saved(image, "PNG"), prepared.frame, LIMITS)
    found = ((ours - np.array(prepared.mean)) / np.array(prepared.std)).transpose(2, 0, 1)
    assert np.abs(found - expected).max() < 1e-5


@pytest.mark.parametrize(
    ("config", "frame"),
    [
        ({"size": 224, "crop_size": 224, "do_center_crop": True}, Frame(224, 224, 224, "bilinear")),
        ({"size": 224, "resample": 3}, Frame(224, 224, 0, "bicubic")),
        (
            {"size": {"height": 256, "width": 256}, "crop_size": 224, "do_center_crop": True, "resample": 1},
            Frame(224, 224, 256, "lanczos", square=True),
        ),
        (
            {"size": 256, "crop_size": 224, "do_center_crop": True, "feature_extractor_type": "DeiTX"},
            Frame(224, 224, 256, "bilinear", square=True),
        ),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, Frame(224, 224, 256, "bilinear")),
        ({"size": {"shortest_edge": 384}, "crop_pct": 1.0}, Frame(384, 384, 0, "bilinear")),
    ],
)
def test_older_preprocessor_files_are_read_as_meant(
    config: dict[str, Any], frame: Frame, tmp_path: Path
) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    assert preparation_of("x", options_of("x")(), tmp_path, None).frame == frame


# --- other processes


def test_a_hanging_or_crashing_image_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "from sid_pipelines import image_workers as w\nimport os\nusual = w.decode\n"
    module += "def decode(content, *rest):\n    if content == b'kill': os.abort()\n"
    module += "    if content == b'leave': os._exit(7)\n    return usual(content, *rest)\n"
    module += "w.decode = decode\nw._main()\n"
    (tmp_path / "worker_that_dies.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(image_workers, "MODULE", "worker_that_dies")
    good = write(tmp_path / "good.png", saved(half_red(), "PNG"))
    kill, leave = write(tmp_path / "a.png", b"kill"), write(tmp_path / "b.png", b"leave")
    os.mkfifo(tmp_path / "pipe.png")  # nobody writes into it
    paths = [good, kill, kill, good, tmp_path / "pipe.png", good, leave, tmp_path / "none.png", good, kill]
    outcomes = list(decoded(paths, SQUARE, Limits(LIMITS.pixels, LIMITS.bytes, 1.5), workers=1))
    assert [one.status for one in outcomes] == [
        "ok", "crashed", "crashed", "ok", "hung", "ok", "crashed", "missing_file", "ok", "crashed",
    ]  # fmt: skip
    assert "SIGABRT" in outcomes[1].reason
    assert "exit code 7" in outcomes[6].reason
    expected = decode(good.read_bytes(), SQUARE, LIMITS)
    for one in outcomes:
        assert (one.status == "ok") == (one.pixels is not None)
        if one.pixels is not None:
            assert np.array_equal(one.pixels, expected)


def test_workers_give_what_one_process_gives_in_the_order_asked(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    paths = []
    for number in range(150):  # more than the slots of two workers
        noise = Image.fromarray(draw.integers(0, 256, (20, 30, 3), dtype=np.uint8))
        paths.append(write(tmp_path / f"{number}.png", b"" if number % 7 == 3 else saved(noise, "PNG")))
    for path, one in zip(paths, decoded(paths, SQUARE, LIMITS, workers=2), strict=True):
        assert one.key == content_key(path.read_bytes())
        if one.pixels is None:
            assert one.status == "broken"
        else:
            assert np.array_equal(one.pixels, decode(path.read_bytes(), SQUARE, LIMITS))


def test_a_reader_that_stops_early_leaves_no_process(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", saved(half_red(), "PNG"))
    reader = decoded([path] * 100, SQUARE, LIMITS, workers=1)
    next(reader)
    assert worker_ids()
    reader.close()
    assert not worker_ids()


def worker_ids() -> list[bytes]:
    found = subprocess.run(["pgrep", "-P", str(os.getpid()), "-f", "image_workers"], capture_output=True)
    return found.stdout.split()


def test_no_worker_outlives_one_that_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.png", saved(half_red(), "PNG"))
    usual, started = subprocess.Popen, []

    def popen(command: Any, **options: Any) -> Any:
        if started:
            raise OSError("no more processes")
        started.append(usual(command, **options))
        return started[0]

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", popen)
        with pytest.raises(OSError, match="no more processes") as held:
            list(decoded([path] * 100, SQUARE, LIMITS, workers=2))
    assert held.value.__traceback__
    assert started[0].poll() is not None


def test_a_worker_imports_nothing_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json.py", "PIL/__init__.py"):
        write(tmp_path / name, b"raise SystemExit(3)")
    path = write(tmp_path / "a.png", saved(half_red(), "PNG"))
    monkeypatch.chdir(tmp_path)
    assert [one.status for one in decoded([path], SQUARE, LIMITS)] == ["ok"]


def test_a_full_folder_for_temporary_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = write(tmp_path / "a.png", saved(half_red(), "PNG"))
    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(WarehouseError, match=rf"{tmp_path}: no room for .*No space left"):
        list(decoded([path], SQUARE, LIMITS))


def test_a_worker_hears_its_alarm_though_its_parent_does_not(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    late = threading.Timer(3, lambda: os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)))
    usual = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    try:
        late.start()
        found = [one.status for one in decoded([pipe], SQUARE, Limits(LIMITS.pixels, LIMITS.bytes, 0.2))]
    finally:
        signal.signal(signal.SIGALRM, usual)
        late.cancel()
    assert found == ["hung"]


def test_a_worker_loads_no_torch() -> None:
    code = "import sid_pipelines.image_workers, sys; print({'torch', 'onnxruntime'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_worker_that_cannot_start_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_workers, "MODULE", "no_such_module")
    with pytest.raises(RuntimeError, match="did not start"):
        list(decoded([tmp_path / "a.png"], SQUARE, LIMITS))


# --- finding


@pytest.mark.parametrize(
    ("reference", "status"),
    [
        (None, "no_reference"),
        ("  ", "no_reference"),
        ("https://example.org/a.jpg", "remote"),
        ("//example.org/a.jpg", "remote"),
        ("data:image/png;base64,AAAA", "remote"),
        ("../secret.png", "outside"),
        ("in/../../secret.png", "outside"),
        ("/etc/passwd", "outside"),
        (".hidden/a.png", "outside"),
        ("in/a\0.png", "outside"),
        ("in/none.png", "missing_file"),
        ("in", "missing_file"),
        ("x" * 5000, "missing_file"),
        ("in/a.eps", "broken"),
    ],
)
def test_a_reference_that_names_no_image_says_why(reference: str | None, status: str, tmp_path: Path) -> None:
    write(tmp_path / "secret.png", saved(half_red(), "PNG"))
    for name in ("in/a.eps", "in/a.png", ".hidden/a.png"):
        write(tmp_path / "root" / name, saved(half_red(), "PNG"))
    with pytest.raises(UnreadableError) as caught:
        locate(reference, [tmp_path / "root"])
    assert caught.value.status == status


def test_an_image_is_found_in_the_first_root_that_has_it(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    inner = write(two / "in" / "a: b.png", b"x")
    write(one / "b.png", b"x")
    write(two / "b.png", b"x")
    assert locate("in/a: b.png", [one, two]) == inner
    assert locate("./in//a: b.png", [one, two]) == inner
    assert locate(str(inner), [one, two]) == inner
    assert locate("b.png", [one, two]) == one / "b.png"


def test_the_folder_digest_follows_names_and_contents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, cache = tmp_path / "root", tmp_path / "cache"
    first = write(root / "a.png", b"1")
    write(root / "in" / "b.jpg", b"2")
    write(root / "ratings.dat", b"3")
    for path in root.rglob("*"):
        os.utime(path, ns=(10**18, 10**18))
    (root / "in" / "circle").symlink_to(root)
    monkeypatch.setattr(images, "RACY", -(10**18))  # files of today count as settled
    digest = image_folder_digest([root], cache)
    assert digest == image_folder_digest([root], tmp_path / "another cache")
    write(root / "ratings.dat", b"4")  # no image
    with monkeypatch.context() as patch:
        patch.setattr("sid_warehouse.files.sha256", lambda path: pytest.fail(f"{path} was read again"))
        assert image_folder_digest([root], cache) == digest
    seen = {digest}
    write(first, b"5")
    os.utime(first, ns=(10**18, 10**18))  # of the same size and time as before
    seen.add(image_folder_digest([root], cache))
    first.rename(root / "c.png")
    seen.add(image_folder_digest([root], cache))
    seen.add(image_folder_digest([root / "in", root], cache))
    assert len(seen) == 4


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"format": 1, "files": {}, "sha256": "0"}', b"\xff\x00"]
)
def test_a_damaged_memo_is_made_anew(damage: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "RACY", -(10**18))
    write(tmp_path / "root" / "a.png", b"1")
    digest = image_folder_digest([tmp_path / "root"], tmp_path)
    memo = tmp_path / images.MEMO
    whole = memo.read_bytes()
    memo.write_bytes(damage)
    assert image_folder_digest([tmp_path / "root"], tmp_path) == digest
    assert memo.read_bytes() == whole
    memo.write_bytes(whole.replace(b'"sha256": "', b'"sha256": "0', 1))
    assert image_folder_digest([tmp_path / "root"], tmp_path) == digest


def test_a_file_changed_just_now_is_not_remembered(tmp_path: Path) -> None:
    path = write(tmp_path / "root" / "a.png", b"1")
    before = image_folder_digest([tmp_path / "root"], tmp_path)
    assert not (tmp_path / images.MEMO).exists()
    path.write_bytes(b"2")
    assert image_folder_digest([tmp_path / "root"], tmp_path) != before


def test_the_digest_follows_a_link_to_a_folder_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "root" / "a" / "x.png", b"1")
    before = image_folder_digest([tmp_path / "root"], tmp_path)
    (tmp_path / "root" / "b").symlink_to(tmp_path / "root" / "a")
    assert locate("b/x.png", [tmp_path / "root"]).is_file()
    assert image_folder_digest([tmp_path / "root"], tmp_path) != before


def test_what_cannot_be_read_counts_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "RACY", -(10**18))
    root = tmp_path / "root"
    write(root / "in" / "a.png", b"1")
    whole, scandir = image_folder_digest([root], tmp_path / "one"), os.scandir

    def refused(path: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))

    digests = {whole}
    for name, refuse in (
        ("sid_warehouse.files.sha256", refused),
        ("os.scandir", lambda path: refused(path) if Path(path).name == "in" else scandir(path)),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(name, refuse)
            digests.add(image_folder_digest([root], tmp_path / "two"))
    assert len(digests) == 3
    assert image_folder_digest([root], tmp_path / "two") == whole  # not remembered


def test_keys_are_those_of_the_vector_cache(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", b"content")
    found = find(["a.png"], [tmp_path], LIMITS)
    assert found.keys == [cache_key(b"content")] == [content_key(b"content")]
    assert found.paths == [str(path)]


# --- encoders


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number: int, value: bytes | str | int) -> bytes:
    """One field of a protocol buffer."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def end(name: str, shape: Sequence[int | str]) -> bytes:
    dims = b"".join(field(1, field(1 if isinstance(side, int) else 2, side)) for side in shape)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, dims)))


def mean_colour_model(path: Path, shape: Sequence[int | str] = ("n", 3, 16, 16)) -> Path:
    """Write an ONNX model that gives the mean of each channel, so that the answer is known."""
    last = shape[-1] == 3
    perm = field(5, field(1, "perm") + b"".join(field(8, side) for side in (0, 3, 1, 2)) + field(20, 7))
    nodes = [field(1, "image") + field(2, "first") + field(4, "Transpose") + perm] if last else []
    pooled = field(1, "first" if last else "image") + field(2, "pooled") + field(4, "GlobalAveragePool")
    nodes += [pooled, field(1, "pooled") + field(2, "embedding") + field(4, "Flatten")]
    graph = b"".join(field(1, node) for node in nodes) + field(2, "g")
    graph += field(11, end("image", shape)) + field(12, end("embedding", [shape[0], 3]))
    path.write_bytes(field(1, 8) + field(8, field(1, "") + field(2, 13)) + field(7, graph))
    return path


def noise(count: int, encoder: ImageEncoder, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (count, *encoder.size, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models with random weights: a ViT with and without pooler, and CLIP as two packages keep it."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import (
        CLIPConfig,
        CLIPModel,
        CLIPProcessor,
        PreTrainedTokenizerFast,
        ViTConfig,
        ViTModel,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    tiny = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 37}
    seeing = {**tiny, "image_size": 30, "patch_size": 6}
    for name, pooler in (("vit", True), ("vit-without-pooler", False)):
        vit: Any = ViTModel(ViTConfig(**seeing), add_pooling_layer=pooler)
        vit.save_pretrained(folder / name)
        ViTImageProcessorPil(size={"height": 30, "width": 30}).save_pretrained(folder / name)
    reading = {**tiny, "vocab_size": 9, "max_position_embeddings": 16}
    reading |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    clip: Any = CLIPModel(CLIPConfig(text_config=reading, vision_config=seeing, projection_dim=24))
    words = Tokenizer(WordLevel({"[PAD]": 0, "[BOS]": 1, "[EOS]": 2, "[UNK]": 3}, unk_token="[UNK]"))
    special = {name: f"[{name[:3].upper()}]" for name in ("pad_token", "bos_token", "eos_token", "unk_token")}
    tokens = PreTrainedTokenizerFast(tokenizer_object=words, **special)
    picture = CLIPImageProcessorPil(size={"shortest_edge": 30}, crop_size={"height": 30, "width": 30})
    processor: Any = CLIPProcessor(image_processor=picture, tokenizer=tokens)
    for inner in (folder / "clip", folder / "st-clip" / "0_CLIPModel"):
        clip.save_pretrained(inner)
        processor.save_pretrained(inner)
    module = {"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}
    (folder / "st-clip" / "modules.json").write_text(json.dumps([module]))
    return folder


@pytest.mark.parametrize("shape", [("n", 3, 16, 16), ("n", 16, 16, 3), (4, 3, 16, 16), ("n", 3, "h", "w")])
def test_an_onnx_model_gives_the_known_answer(shape: tuple[int | str, ...], tmp_path: Path) -> None:
    path = mean_colour_model(tmp_path / "mean.onnx", shape)
    size = {"size": 16} if "h" in shape else {}
    encoder = image_encoder(
        "mean.onnx", {"mean": [0.0, 10.0, 20.0], "std": [1.0, 2.0, 4.0], **size}, tmp_path
    )
    assert encoder.size == (16, 16)
    assert encoder.batch == (4 if shape[0] == 4 else 8)
    assert encoder.dim == 3
    pictures = noise(11, encoder)
    expected = (pictures.astype(np.float64).mean(axis=(1, 2)) - [0, 10, 20]) / [1, 2, 4]
    assert np.allclose(encoder.encode(pictures), expected, atol=1e-3)
    assert encoder.folder == path


MODELS = {
    "mean.onnx": {"mean": [127.0], "std": [128.0]},
    "vit": {},
    "vit-without-pooler": {"precision": "bf16"},
    "clip": {},
    "st-clip": {"batch": 5},
    "efficientnet-lite0": {"size": 64},
    str(LITE0_ONNX): {"mean": [127.0], "std": [128.0]},
}


def opened(model: str, models: Path) -> ImageEncoder:
    mean_colour_model(models / "mean.onnx")
    if model.startswith("/") and not LITE0_ONNX.exists():
        pytest.skip(f"no encoder at {LITE0_ONNX}")
    return image_encoder(model, MODELS[model], models)


@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=[pytest.mark.realdata] * (name[0] == "/")) for name in MODELS]
)
def test_a_vector_depends_on_its_own_image_alone(model: str, models: Path) -> None:
    encoder = opened(model, models)
    pictures = noise(encoder.batch * encoder.streams + 3, encoder)
    together = encoder.encode(pictures)
    assert together.dtype == np.float32
    assert together.shape == (len(pictures), encoder.dim)
    assert len(np.unique(together, axis=0)) == len(pictures)
    for place in (0, 1, encoder.batch - 1, encoder.batch, len(pictures) - 1):
        alone = encoder.encode(pictures[place : place + 1])
        assert np.array_equal(alone[0], together[place])
    order = np.random.default_rng(1).permutation(len(pictures))
    assert np.array_equal(encoder.encode(pictures[order]), together[order])
    others = np.concatenate([noise(2, encoder, seed=2), pictures[:1], noise(3, encoder, seed=3)])
    assert np.array_equal(encoder.encode(others)[2], together[0])


def test_a_model_that_mixes_its_batch_is_refused(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = opened("mean.onnx", models)
    kind, forward = type(encoder), type(encoder).forward
    for mix in (lambda X: X + np.float32(1e-6) * np.arange(len(X))[:, None], lambda X: X - X.mean(axis=0)):
        with monkeypatch.context() as patch:
            patch.setattr(kind, "forward", lambda self, X, mix=mix: mix(forward(self, X)))
            with pytest.raises(DataError, match="depends on its place in a batch of 8"):
                encoder.encode(noise(1, encoder))
    assert encoder.encode(noise(1, encoder)).shape == (1, 3)


@pytest.mark.parametrize("model", ["mean.onnx", "vit", "st-clip", "efficientnet-lite0"])
def test_the_same_model_is_known_again_and_another_is_not(model: str, models: Path, tmp_path: Path) -> None:
    encoder = opened(model, models)
    again = opened(model, models)
    assert (encoder.fingerprint(), encoder.identity()) == (again.fingerprint(), again.identity())
    assert json.loads(json.dumps(encoder.identity())) == json.loads(json.dumps(again.identity()))
    other = image_encoder(model, {**MODELS[model], "resize": "stretch", "filter": "box"}, models)
    assert other.fingerprint() == encoder.fingerprint()
    assert other.identity() != encoder.identity()
    if model != "efficientnet-lite0":
        copy = tmp_path / model
        shutil.copytree(models / model, copy) if encoder.folder.is_dir() else shutil.copy(
            models / model, copy
        )
        moved = image_encoder(model, MODELS[model], tmp_path)
        assert moved.fingerprint() == encoder.fingerprint()
        weights = next(copy.rglob("model.safetensors")) if copy.is_dir() else copy
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        assert image_encoder(model, MODELS[model], tmp_path).fingerprint() != encoder.fingerprint()


def test_a_fingerprint_needs_no_torch(models: Path) -> None:
    code = (
        "from pathlib import Path; import sys; from sid_pipelines.image_encoders import image_encoder; "
        f"base = Path({str(models)!r}); models = ('vit', 'efficientnet-lite0'); "
        "[image_encoder(model, {}, base).fingerprint() for model in models]; "
        "print({'torch', 'transformers', 'onnxruntime', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_sentence_transformers_clip_gives_what_its_own_encode_gives(models: Path) -> None:
    from sentence_transformers import SentenceTransformer

    encoder = image_encoder("st-clip", {"normalize": True}, models)
    noisy = np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), dtype=np.uint8)
    chain = SentenceTransformer(str(models / "st-clip"), device="cpu")
    expected = chain.encode([Image.fromarray(one) for one in noisy], normalize_embeddings=True)
    frame = encoder.preparation.frame
    ours = np.stack([decode(saved(Image.fromarray(one), "PNG"), frame, LIMITS) for one in noisy])
    found = encoder.finished(encoder.encode(ours))
    assert np.allclose(found, expected, atol=1e-5)
    whole = image_encoder("clip", {}, models)
    assert np.array_equal(encoder.finished(whole.encode(ours)), found)  # the features, not the pooled state


def test_pooling_is_what_it_is_called(models: Path) -> None:
    from transformers import AutoModel

    def vectors(model: str, pooling: str) -> Vectors:
        encoder = image_encoder(model, {"pooling": pooling}, models)
        return encoder.encode(noise(2, encoder))

    encoder = image_encoder("vit", {}, models)
    import torch

    given = torch.from_numpy((noise(2, encoder).astype(np.float32) / 127.5 - 1).transpose(0, 3, 1, 2))
    with torch.inference_mode():
        output = AutoModel.from_pretrained(models / "vit")(pixel_values=given)
    expected = {
        "auto": output.pooler_output,
        "pooler": output.pooler_output,
        "cls": output.last_hidden_state[:, 0],
        "mean": output.last_hidden_state.mean(1),
    }
    for pooling, tensor in expected.items():
        assert np.allclose(vectors("vit", pooling), tensor.numpy(), atol=1e-5)
    assert np.array_equal(vectors("vit-without-pooler", "auto"), vectors("vit-without-pooler", "cls"))
    for model, pooling in (("vit", "features"), ("vit-without-pooler", "pooler")):
        with pytest.raises(RecipeError, match="has no weights for it"):
            vectors(model, pooling)
    assert vectors("clip", "mean").shape == (2, 32)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"mean": [1.0], "std": []}, "expected both"),
        ({"mean": [1.0], "std": [0.0]}, "above 0"),
        ({"mean": [1.0, 2.0], "std": [1.0, 2.0]}, "1 or 3 numbers"),
        ({"crop": 1.5}, "crop = 1.5"),
        ({"max_pixels": 0}, "max_pixels = 0: expected 1 or more"),
        ({"seconds": 0.0}, "seconds"),
        ({"seconds": float("inf")}, "seconds"),
        ({"batch": -1}, "batch"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=problem):
        image_encoder("efficientnet-lite0", options, tmp_path)


def test_a_model_that_cannot_be_used_says_what_to_do(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    mean_colour_model(tmp_path / "mean.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"none")
    with pytest.raises(RecipeError, match=r"Add mean and std per channel in 0..255"):
        image_encoder("mean.onnx", {}, tmp_path)
    with pytest.raises(SourceError, match="no file at"):
        image_encoder("none.onnx", PLAIN, tmp_path)
    with pytest.raises(SourceError, match="not to be had from the hub"):
        image_encoder("nobody/nothing", {}, tmp_path)
    with pytest.raises(SourceError, match="ONNX Runtime cannot load it"):
        _ = image_encoder("bad.onnx", PLAIN, tmp_path).dim
    with pytest.raises(RecipeError, match=r"but the model takes 16 x 16 alone"):
        _ = image_encoder("mean.onnx", {**PLAIN, "size": 32}, tmp_path).size
    with pytest.raises(RecipeError, match="gives embedding"):
        image_encoder("mean.onnx", {**PLAIN, "output": "logits"}, tmp_path).identity()
    mean_colour_model(tmp_path / "any.onnx", ("n", 3, "h", "w"))
    with pytest.raises(RecipeError, match="Add size"):
        _ = image_encoder("any.onnx", PLAIN, tmp_path).size
    shutil.copytree(models / "vit", tmp_path / "no-preparation")
    (tmp_path / "no-preparation" / "preprocessor_config.json").unlink()
    with pytest.raises(RecipeError, match="Add size, mean, std"):
        _ = image_encoder("no-preparation", {}, tmp_path).size


@pytest.mark.parametrize("kind", ["transformers", "sentence-transformers"])
def test_code_of_a_models_own_is_not_run(
    kind: str, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda prompt="": "y")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / "own"
    shutil.copytree(models / "vit", folder)
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass A: pass\n")
    if kind == "transformers":
        (folder / "config.json").write_text(
            json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "own.A", "AutoModel": "own.A"}})
        )
    else:
        (folder / "modules.json").write_text(
            json.dumps([{"idx": 0, "name": "0", "path": "", "type": "own.A"}])
        )
    with pytest.raises(SourceError):
        image_encoder("own", {}, tmp_path).load()  # type: ignore[attr-defined]
    assert not (tmp_path / "ran").exists()


def test_weights_outside_an_onnx_file_are_in_its_fingerprint(tmp_path: Path) -> None:
    path = mean_colour_model(tmp_path / "mean.onnx")
    outside = field(13, field(1, "location") + field(2, "in/weights.bin"))
    path.write_bytes(path.read_bytes() + field(7, field(5, outside)))
    write(tmp_path / "in" / "weights.bin", b"1")
    write(tmp_path / "other.bin", b"1")

    def fingerprint() -> str:
        return image_encoder("mean.onnx", PLAIN, tmp_path).fingerprint()

    before = fingerprint()
    write(tmp_path / "other.bin", b"22")
    assert fingerprint() == before
    write(tmp_path / "in" / "weights.bin", b"22")
    assert fingerprint() != before


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"sidmill\[lite0\]"):
        image_encoder("efficientnet-lite0", {}, tmp_path)
    with pytest.raises(MissingExtraError, match=r"sidmill\[image\]"):
        list(decoded([tmp_path / "a.png"], SQUARE, LIMITS))
    assert embed_image.needs_of(params_of("x.onnx", {})) == ("PIL", "image")


# --- the stage


def params_of(model: str, options: dict[str, Any], **others: Any) -> ImageEmbedParams:
    usual = {"weights": "", "missing": "mask", "dtype": "float32", "images": "", "map_from": "", "roots": ()}
    return ImageEmbedParams(
        **{"name": "image", "model": model, "options": options, "folder": model, **usual, **others}
    )


def items_clean(warehouse: Path, items: dict[str, str | None]) -> StageOutput:
    n = len(items)
    known: dict[str, Any] = {
        "item_index": pa.array(range(n), pa.int32()),
        "item_id": pa.array(items, pa.string()),
        "image_ref": pa.array(items.values(), pa.string()),
        "category_path": pa.array([[]] * n, pa.list_(pa.string())),
        "domain": pa.array(["x"] * n),
    }
    columns = {
        column.name: known.get(column.name, pa.nulls(n, column.type)) for column in ITEMS_CLEAN.columns
    }
    with StageStore(warehouse, "x").write("clean", "0" * 16, {}) as draft:
        draft.write(ITEMS_CLEAN, pa.table(columns).cast(ITEMS_CLEAN.arrow()))
        return draft.commit({}, "")


def embed(
    warehouse: Path, params: ImageEmbedParams, progress: Any = None, **inputs: StageOutput
) -> tuple[StageOutput, Outcome]:
    stage = embed_image.STAGE
    key = stage.key(params, {})
    with StageStore(warehouse, "x").write(stage.name, key, stage.identity(params, {})) as draft:
        resources = Resources(cache=warehouse / "cache")
        outcome = stage.run(Work(params, inputs, draft, resources, progress or (lambda done, total: None)))
        return draft.commit(outcome.facts, outcome.summary), outcome


@pytest.fixture
def shop(tmp_path: Path) -> tuple[Path, StageOutput, ImageEmbedParams]:
    """A shop whose items have good, equal, broken, huge and missing images."""
    root = tmp_path / "root"
    for name, colour in (("red", RED), ("green", GREEN), ("blue", BLUE)):
        write(root / f"{name}.png", saved(plain(colour), "PNG"))
    write(root / "in" / "red again.png", (root / "red.png").read_bytes())
    write(root / "broken.jpg", JPEG[:300])
    write(root / "also broken.jpg", JPEG[:300])
    write(root / "bomb.png", bomb())
    items = {
        "a": "red.png", "b": "in/red again.png", "c": None, "d": "green.png", "e": "broken.jpg",
        "f": "also broken.jpg", "g": "bomb.png", "h": "http://x/y.jpg", "i": "../red.png", "j": "none.png",
        "k": "blue.png", "l": "red.png",
    }  # fmt: skip
    mean_colour_model(tmp_path / "mean.onnx")
    params = params_of("mean.onnx", PLAIN, folder=str(tmp_path / "mean.onnx"), roots=(str(root),))
    return tmp_path, items_clean(tmp_path, items), params


def test_the_stage_gives_vectors_and_counts_what_has_none(shop: Any) -> None:
    warehouse, clean, params = shop
    output, outcome = embed(warehouse, params, clean=clean)
    table = output.read("embeddings_image")
    assert table.schema.equals(embeddings_table("image", 3).arrow())
    vectors = np.stack(table["vector"].to_numpy())
    expected = np.zeros((12, 3), dtype=np.float32)
    for rows, colour in (([0, 1, 11], RED), ([3], GREEN), ([10], BLUE)):
        expected[rows] = np.array(colour) / 255
    assert np.allclose(vectors, expected, atol=1e-6)
    assert table["present"].to_pylist() == [bool(row.any()) for row in expected]
    facts = outcome.facts
    assert facts["images"] == {
        "ok": 5, "no_reference": 1, "remote": 1, "outside": 1, "missing_file": 1, "broken": 2, "too_large": 1,
        "crashed": 0, "hung": 0,
    }  # fmt: skip
    assert (facts["present"], facts["missing"], facts["duplicate_vectors"], facts["distinct_images"]) == (
        5,
        7,
        2,
        5,
    )
    assert [one["item_id"] for one in facts["image_examples"]["broken"]] == ["e", "f"]
    assert facts["image_examples"]["too_large"][0]["reason"].startswith("60,000 x 60,000 pixels")
    assert outcome.summary == (
        "5 vectors of 3 numbers, 3 embedded and 0 from the cache; 7 items without a readable image"
    )


def test_warm_and_cold_caches_give_the_same_bytes(shop: Any, tmp_path: Path) -> None:
    warehouse, clean, params = shop
    cold, _ = embed(warehouse, params, clean=clean)
    shutil.rmtree(cold.folder)
    warm, outcome = embed(warehouse, params, clean=clean)
    assert "0 embedded and 3 from the cache" in outcome.summary
    assert cold.manifest["files"] == warm.manifest["files"]
    assert cold.facts == warm.facts
    shutil.rmtree(warm.folder)
    shutil.rmtree(warehouse / "cache")
    again, outcome = embed(warehouse, params, clean=clean)
    assert "3 embedded" in outcome.summary
    assert again.manifest["files"] == cold.manifest["files"]


def test_a_warm_cache_keeps_to_the_limit_of_pixels(shop: Any) -> None:
    warehouse, clean, params = shop
    embed(warehouse, params, clean=clean)
    write(Path(params.roots[0]) / "blue.png", saved(plain(BLUE, size=(9, 9)), "PNG"))
    strict = params_of("mean.onnx", {**PLAIN, "max_pixels": 100}, folder=params.folder, roots=params.roots)
    _, outcome = embed(warehouse, strict, clean=clean)
    assert (outcome.facts["images"]["ok"], outcome.facts["images"]["too_large"]) == (1, 5)


@pytest.mark.parametrize("where", ["encoder", "progress"])
def test_no_worker_outlives_an_error_that_is_held(
    where: str, shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse, clean, params = shop
    one_by_one = params_of("mean.onnx", {**PLAIN, "batch": 1}, folder=params.folder, roots=params.roots)
    monkeypatch.setattr("sid_pipelines.image_encoders.onnx.cores", lambda: 1)
    monkeypatch.setattr(embed_image.fill, "__kwdefaults__", {**embed_image.fill.__kwdefaults__, "shard": 1})
    if where == "encoder":
        monkeypatch.setattr(ImageEncoder, "encode", lambda self, pixels: 1 // 0)
    with pytest.raises(ZeroDivisionError) as held:
        embed(warehouse, one_by_one, lambda done, total: 1 // (done == 0), clean=clean)
    assert held.value.__traceback__
    assert not worker_ids()


def test_a_killed_run_goes_on_where_it_stopped(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    warehouse, clean, params = shop
    one_by_one = params_of("mean.onnx", {**PLAIN, "batch": 1}, folder=params.folder, roots=params.roots)
    monkeypatch.setattr("sid_pipelines.image_encoders.onnx.cores", lambda: 1)
    monkeypatch.setattr(embed_image.fill, "__kwdefaults__", {**embed_image.fill.__kwdefaults__, "shard": 1})

    def killed(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(warehouse, one_by_one, killed, clean=clean)
    _, outcome = embed(warehouse, one_by_one, clean=clean)
    assert "1 embedded and 2 from the cache" in outcome.summary


@pytest.mark.parametrize("missing", ["mask", "mean"])
def test_an_item_without_an_image_gets_what_the_rule_says(missing: str, shop: Any) -> None:
    warehouse, clean, params = shop
    output, outcome = embed(
        warehouse,
        params_of(
            "mean.onnx", PLAIN, folder=params.folder, roots=params.roots, missing=missing, dtype="float16"
        ),
        clean=clean,
    )
    table = output.read("embeddings_image")
    absent = np.stack(table["vector"].to_numpy())[[2, 4, 5, 6, 7, 8, 9]]
    expected = {"mask": [0, 0, 0], "mean": [0.6, 0.2, 0.2]}[missing]
    assert np.allclose(absent.astype(np.float32), expected, atol=1e-3)
    assert sum(table["present"].to_pylist()) == 5
    scope = {"mask": "", "mean": "; what fills gaps: all items with an image"}[missing]
    assert outcome.facts["fit_scope"] == f"none: the encoder is frozen{scope}"


def test_an_item_without_an_image_may_be_refused(shop: Any) -> None:
    warehouse, clean, params = shop
    strict = params_of("mean.onnx", PLAIN, folder=params.folder, roots=params.roots, missing="refuse")
    with pytest.raises(DataError, match=r"1 no reference, 1 remote.*of 12; item 'c' has None"):
        embed(warehouse, strict, clean=clean)


def test_images_can_be_guessed_from_another_embedding(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    content = draw.random((40, 3)).astype(np.float32)
    items: dict[str, str | None] = {}
    for number, row in enumerate(content):
        items[f"{number:02}"] = f"{number}.png"
        if number % 5:
            colour = tuple(int(255 * value) for value in row)
            write(tmp_path / "root" / f"{number}.png", saved(plain(colour), "PNG"))
    mean_colour_model(tmp_path / "mean.onnx")
    clean = items_clean(tmp_path, items)
    columns = {
        "item_index": pa.array(range(40), pa.int32()),
        "item_id": pa.array(items),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(content.reshape(-1)), 3),
        "present": pa.array([True] * 40),
    }
    with StageStore(tmp_path, "x").write("embed_text", "1" * 16, {}) as draft:
        draft.write(embeddings_table("text", 3), pa.table(columns))
        text = draft.commit({"name": "embeddings_text"}, "")
    params = params_of(
        "mean.onnx", PLAIN, folder=str(tmp_path / "mean.onnx"), roots=(str(tmp_path / "root"),), missing="map"
    )
    output, outcome = embed(tmp_path, params, clean=clean, content=text)
    vectors = StoredVectors.of(output)
    absent = ~vectors.present
    assert absent.sum() == 8
    assert np.abs(vectors.rows(np.flatnonzero(absent)) - content[absent]).max() < 0.05
    assert outcome.facts["map"]["r2_held_out"] > 0.95
    assert outcome.facts["fit_scope"].endswith("; what fills gaps: all items with an image")


def test_no_image_at_all_is_an_error(shop: Any, tmp_path: Path) -> None:
    warehouse, clean, params = shop
    elsewhere = params_of("mean.onnx", PLAIN, folder=params.folder, roots=(str(tmp_path / "empty"),))
    with pytest.raises(DataError, match=r"9 missing file of 12.*Set images to the folder"):
        embed(warehouse, elsewhere, clean=clean)


# --- real posters


@pytest.fixture(
    scope="module",
    # Of the first movies so many, how many have a poster, and how many posters are the same file as another.
    params=[(500, 498, 5), pytest.param((1_682, 1_663, 29), marks=pytest.mark.proof)],
    ids=["some", "all"],
)
def posters(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Vectors, Any, list[str]]:
    """Posters' vectors by EfficientNet-Lite0 (ONNX), each movie's genres, and the poster's path or ''."""
    warehouse = tmp_path_factory.mktemp("posters")
    first, there_are, duplicates = request.param
    lines = (POSTERS / "u.item").read_text(encoding="latin-1").splitlines()[:first]
    movies = [line.split("|") for line in lines]
    clean = items_clean(warehouse, {movie[0]: f"posters/{movie[0]}.jpg" for movie in movies})
    options = {"mean": [127.0], "std": [128.0]}
    output, outcome = embed(
        warehouse, params_of(str(LITE0_ONNX), options, roots=(str(POSTERS),)), clean=clean
    )
    assert outcome.facts["images"]["ok"] == there_are
    assert outcome.facts["duplicate_vectors"] == duplicates
    genres = np.array([[flag == "1" for flag in movie[-18:]] for movie in movies])
    paths = [POSTERS / "posters" / f"{movie[0]}.jpg" for movie in movies]
    there = [str(path) if path.exists() else "" for path in paths]
    return StoredVectors.of(output).rows(np.arange(len(movies))), genres, there


@REAL
@pytest.mark.realdata
def test_poster_vectors_know_genres_better_than_raw_pixels(posters: Any) -> None:
    vectors, genres, paths = posters
    there = [row for row, path in enumerate(paths) if path]
    raw = np.zeros((len(paths), 16 * 16 * 3), dtype=np.float32)
    for row in there:
        with Image.open(paths[row]) as image:
            raw[row] = np.asarray(image.convert("RGB").resize((16, 16), Image.Resampling.BOX)).reshape(-1)
    for X in (raw, centred := vectors.copy()):
        X[there] -= X[there].mean(axis=0)
    of_raw, chance = label_agreement(raw, genres)
    of_ours, _ = label_agreement(vectors, genres)
    of_centred, _ = label_agreement(centred, genres)
    print(
        f"genre agreement@10: chance {chance:.4f}, pixels {of_raw:.4f}, "
        f"ours {of_ours:.4f}, centred {of_centred:.4f}"
    )
    assert of_raw > chance + 0.01
    assert of_ours > of_raw + 0.01


@REAL
@pytest.mark.realdata
def test_the_package_in_torch_agrees_with_the_onnx_file(posters: Any) -> None:
    vectors, _, paths = posters
    rows = [row for row, path in enumerate(paths) if path][:12]
    encoder = image_encoder("efficientnet-lite0", {}, Path())
    pixels = [
        one.pixels for one in decoded([Path(paths[row]) for row in rows], encoder.preparation.frame, LIMITS)
    ]
    found = encoder.encode(np.stack(pixels))
    cosines = np.sum(found * vectors[rows], axis=1)
    cosines /= np.linalg.norm(found, axis=1) * np.linalg.norm(vectors[rows], axis=1)
    assert cosines.min() > 0.99999
