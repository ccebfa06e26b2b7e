"""model2vec models: a text's vector is the mean of its tokens' vectors. No transformer, no torch.

sentence-transformers' own StaticEmbedding is sentence.py's. Every text is summed on its own, so texts are
embedded many at a time. Source: https://github.com/MinishLab/model2vec.
"""

from collections.abc import Iterable, Iterator
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from sid_pipelines.encoders.base import Encoded, Mask
from sid_pipelines.encoders.options import SentenceOptions
from sid_schemas import DataError, MissingExtraError

TEXTS = 1024  # embedded at a time


class Model2VecEncoder:
    """A model2vec model from a folder; see `base.Encoder`."""

    cached = True

    def __init__(self, folder: Path, options: SentenceOptions, weights: str) -> None:
        """Note what to load; raises DataError for an option that static models have not."""
        if options.long == "chunks":
            raise DataError(
                "[[embed]] long = 'chunks' is for transformers; expected 'truncate' with model2vec"
            )
        self.normalize, self.dims = options.normalize, options.dims
        self._folder, self._options, self._weights = folder, options, weights

    def identity(self) -> dict[str, Any]:
        """Give everything that shapes a raw vector beside its text."""
        return {
            "encoder": "model2vec",
            "weights": self._weights,
            "prompt": self._options.prompt,
            "max_tokens": self._options.max_tokens,
            "precision": "fp32",
            "device": "cpu",
            "packages": {name: _installed(name) for name in ("model2vec", "tokenizers", "numpy")},
        }

    def encode(self, texts: Iterable[tuple[int, str]]) -> Iterator[Encoded]:
        """Give raw vectors for (row, text) pairs."""
        limit = self._options.max_tokens or self._model.max_length
        stream = iter(texts)
        while some := list(islice(stream, TEXTS)):
            strings = [self._options.prompt + text for _, text in some]
            vectors = self._model.encode(
                strings, max_length=limit, normalize=False, use_multiprocessing=False
            )
            rows = np.array([row for row, _ in some], dtype=np.int64)
            yield rows, vectors.astype(np.float32, copy=False), self._too_long(strings, limit)

    @cached_property
    def _model(self) -> Any:
        try:
            from model2vec import StaticModel
        except ImportError as error:
            raise MissingExtraError("Embedding text (model2vec)", "static") from error
        return StaticModel.from_pretrained(self._folder, normalize=False, force_download=False)

    def _too_long(self, strings: list[str], limit: int | None) -> Mask:
        """Say which texts have more tokens than fit; only those of more bytes than that are counted."""
        long = np.zeros(len(strings), dtype=bool)
        if limit and (some := [n for n, text in enumerate(strings) if len(text.encode()) > limit]):
            tokenizer = self._model.tokenizer
            tokenizer.no_truncation()
            found = tokenizer.encode_batch_fast([strings[n] for n in some], add_special_tokens=False)
            long[some] = [len(one.ids) > limit for one in found]
        return long


def _installed(name: str) -> str:
    try:
        return ".".join(version(name).split(".")[:2])
    except PackageNotFoundError:
        return ""
