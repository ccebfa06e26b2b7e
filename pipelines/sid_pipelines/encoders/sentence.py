"""sentence-transformers models: load one, choose its precision, and embed it the way its modules allow.

The one door to the package. A padded transformer goes to transformer.py, a StaticEmbedding embeds many texts
at once, and a module that we do not know embeds one text at a time, which is slow but cannot go wrong.
"""

import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from sid_pipelines.encoders.base import Encoded
from sid_pipelines.encoders.options import SentenceOptions
from sid_pipelines.hub import modules_of
from sid_schemas import DataError, MissingExtraError
from sid_tokenizers.base import Vectors

NO_LIMIT = 32_768  # tokens, where a model states none
FROM_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "data2vec-text", "xmod")
STATIC_TEXTS = 1024  # embedded at a time by a StaticEmbedding
BATCHING = 1  # raise when the shapes of batches change: they shape the last bits
PADDED, STATIC, ONE = "padded", "static", "one by one"
BUDGETS = {"cpu": 512, "cuda": 16_384}  # tokens per batch; the CPU's is measured by benchmarks/embed.py
PROBES = ["A probe: ONE, two & thrée (1999)", "x", "long words " * 600]


class SentenceEncoder:
    """A sentence-transformers model in a folder; see `base.Encoder`. It is loaded with the first text.

    budget: tokens per batch, 0 for the measured number; part of the identity, since it shapes the last bits.
    Raises MissingExtraError without the extra `text`, DataError for options that the model cannot follow.
    """

    cached = True

    def __init__(self, folder: Path, options: SentenceOptions, weights: str, *, budget: int = 0) -> None:
        """Note what to load, and choose device and precision."""
        self.normalize, self.dims = options.normalize, options.dims
        self._folder, self._options, self._weights = folder, options, weights
        self.kind = _kind(folder)
        if options.long == "chunks" and self.kind != PADDED:
            raise DataError(
                f"[[embed]] long = 'chunks' is for transformers; this model's text is {self.kind}"
            )
        if options.max_tokens and self.kind != PADDED:
            raise DataError(
                f"[[embed]] max_tokens = {options.max_tokens} is for transformers; this model's text is "
                f"{self.kind}. Leave it out"
            )
        self.device = _device(options.device)
        self.precision = _precision(options.precision, self.device) if self.kind == PADDED else "fp32"
        self.budget = budget or BUDGETS[self.device]

    def identity(self) -> dict[str, Any]:
        """Give everything that shapes a raw vector beside its text."""
        names = ("torch", "transformers", "sentence-transformers", "tokenizers")
        return {
            "encoder": f"sentence-transformers, {self.kind}",
            "weights": self._weights,
            "prompt": self._options.prompt,
            "max_tokens": self._options.max_tokens,
            "long": self._options.long,
            "precision": self.precision,
            "device": _machine(self.device, self.precision),
            "batches": {"revision": BATCHING, "tokens": self.budget},
            "packages": {name: ".".join(version(name).split("+")[0].split(".")[:2]) for name in names},
        }

    def encode(self, texts: Iterable[tuple[int, str]]) -> Iterator[Encoded]:
        """Give raw vectors for (row, text) pairs."""
        model, padded = self.loaded
        if padded is not None:
            yield from padded.encode(texts)
            return
        from sid_tokenizers.learned.one_thread import one_thread

        stream = iter(texts)
        with one_thread():
            while some := list(islice(stream, STATIC_TEXTS if self.kind == STATIC else 1)):
                rows = np.array([row for row, _ in some], dtype=np.int64)
                vectors: Vectors = model.encode(
                    [text for _, text in some],
                    prompt=self._options.prompt or None,
                    batch_size=len(some),
                    convert_to_numpy=True,
                    show_progress_bar=False,
                )
                yield rows, vectors.astype(np.float32, copy=False), np.zeros(len(rows), dtype=bool)

    @cached_property
    def loaded(self) -> tuple[Any, Any]:
        """Give the sentence-transformers model, and the PaddedTransformer around it where it is one."""
        model = _load(self._folder, self.device)
        if self.kind != PADDED:
            return model, None
        import torch

        from sid_pipelines.encoders.transformer import PaddedTransformer, marks_of

        limit = _limit(model, self._options.max_tokens)
        if self._options.max_tokens:
            model.max_seq_length = limit
        prompt = self._options.prompt or model.prompts.get(model.default_prompt_name or "", "") or ""
        marks = marks_of(model[0].tokenizer, prompt)
        if marks is None or not _as_sentence_transformers(model, marks, prompt, limit):
            if self._options.long == "chunks":
                raise DataError(
                    "[[embed]] long = 'chunks': this model's tokeniser is not one that we can cut"
                )
            return model, None
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        chunks = self._options.long == "chunks"
        return model, PaddedTransformer(
            model, marks, prompt=prompt, max_tokens=limit, chunks=chunks,
            device=self.device, dtype=dtype, budget=self.budget,
        )  # fmt: skip


def _load(folder: Path, device: str) -> Any:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as hub_logging
    except ImportError as error:
        raise MissingExtraError("Embedding text (sentence-transformers)", "text") from error
    hub_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    return SentenceTransformer(
        str(folder), device=device, local_files_only=True, trust_remote_code=False
    ).eval()


def _device(wanted: str) -> str:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("Embedding text (torch)", "text") from error
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise DataError(
            "[[embed]] device = 'cuda': torch finds no GPU here; expected one, or device = 'auto'"
        )
    return "cuda" if there and wanted != "cpu" else "cpu"


def _precision(wanted: str, device: str) -> str:
    if wanted != "auto":
        return wanted
    import torch

    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    can = cpu_flags()
    return "bf16" if can["avx512_bf16"] or can["amx_bf16"] else "fp32"


def cpu_flags() -> dict[str, bool]:
    """Give the CPU's flags that decide how fast which precision is."""
    import torch

    can = torch.cpu.get_capabilities()
    return {name: bool(can.get(name)) for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16")}


def _machine(device: str, precision: str) -> str:
    """Name what decides the last bits: the instruction set, or the GPU's generation."""
    import torch

    if device == "cuda":
        return f"cuda {'.'.join(map(str, torch.cuda.get_device_capability()))}"
    flags = [name for name, there in cpu_flags().items() if there] if precision == "bf16" else []
    return " ".join(["cpu", torch.backends.cpu.get_cpu_capability(), *flags])


def _kind(folder: Path) -> str:
    """Say from a model's modules how it is embedded: many padded texts at once, many as they are, or one."""
    modules = modules_of(folder)
    if not modules:
        return PADDED  # a transformer's own folder: sentence-transformers puts a mean behind it
    first, *others = [module["type"].rpartition(".")[2] for module in modules]
    if first == "Transformer":
        return PADDED
    return STATIC if first == "StaticEmbedding" and set(others) <= {"Normalize"} else ONE


def _limit(model: Any, wanted: int) -> int:
    """Give the most tokens a text may have: the model's own, or those asked for if it has the positions."""
    own = getattr(model, "max_seq_length", None)
    own = int(own) if own is not None and 0 < own < NO_LIMIT else NO_LIMIT
    if not wanted:
        return own
    config = getattr(model[0], "config", None)
    places = getattr(config, "max_position_embeddings", None)
    if places and getattr(config, "model_type", "") in FROM_PADDING:
        # They number positions from behind the padding's id.
        places -= (getattr(config, "pad_token_id", None) or 0) + 1
    if places and wanted > (max(own, places) if own < NO_LIMIT else places):
        raise DataError(
            f"[[embed]] max_tokens = {wanted}: the model has {places} positions; expected no more"
        )
    return wanted


def _as_sentence_transformers(model: Any, marks: Any, prompt: str, longest: int) -> bool:
    """Say whether our tokens are those that sentence-transformers itself would feed the model."""
    from sid_pipelines.encoders.transformer import ids_of

    window = longest - marks.taken
    if window < 1:
        return True  # PaddedTransformer says what is wrong
    for text in PROBES:
        theirs = model[0].preprocess([text], prompt=prompt or None)
        known = {"input_ids", "attention_mask", "token_type_ids", "modality", "prompt_length"}
        if set(theirs) - known or theirs.get("modality", "text") != "text":
            return False
        ours = marks.windows(ids_of(model[0].tokenizer, [prompt + text])[0], window, chunks=False)
        length = len(marks.before) + marks.prompt if prompt else None
        if theirs["input_ids"].tolist() != ours or theirs.get("prompt_length") != length:
            return False
        if "token_type_ids" in theirs and theirs["token_type_ids"].any():
            return False
    return True
