"""A padded transformer, batch by batch on one thread each: tokenise, cut into shapes, compute, put together.

sentence.py finds and loads the model; this file turns a stream of texts into a stream of raw vectors. Each
batch is computed on one thread, several batches at a time: a vector then does not depend on the number of
cores, and small batches use all of them better than threads that wait for each other within each product.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from sid_pipelines.encoders.base import Encoded
from sid_pipelines.encoders.batches import Batch, Buckets
from sid_schemas import DataError
from sid_tokenizers.base import Vectors
from sid_tokenizers.blocks import cores
from sid_tokenizers.learned.one_thread import one_thread_each

AHEAD = 3  # batches that wait per worker, so that none idles while texts are tokenised
TEXTS = 256  # tokenised at a time


@dataclass(frozen=True)
class Marks:
    """What stands around the tokens of a text: special tokens before and after, and the prompt's tokens."""

    before: list[int]
    after: list[int]
    prompt: int  # tokens; they are taken from prompt + text, since the two may grow together
    pad: int
    left: bool  # whether padding stands before the text

    @property
    def taken(self) -> int:
        """Give how many tokens are no text."""
        return len(self.before) + self.prompt + len(self.after)

    def windows(self, ids: Sequence[int], size: int, *, chunks: bool) -> list[list[int]]:
        """Cut the ids of prompt + text into windows of `size` tokens of text, everything around each.

        Only the first, which is what truncation leaves, unless `chunks`.
        """
        head, own = ids[: self.prompt], ids[self.prompt :]
        starts = range(0, max(len(own), 1), size) if chunks else (0,)
        return [[*self.before, *head, *own[start : start + size], *self.after] for start in starts]


def marks_of(tokenizer: Any, prompt: str) -> Marks | None:
    """Find what a tokenizer puts around a text; None where it does not simply surround it."""
    sample = "a b"
    bare = ids_of(tokenizer, [sample])[0]
    full = tokenizer([sample], padding=False, truncation=False)["input_ids"][0]
    starts = [n for n in range(len(full) - len(bare) + 1) if full[n : n + len(bare)] == bare]
    if not bare or not starts:
        return None
    first = starts[0]
    pad = tokenizer.pad_token_id
    return Marks(
        before=full[:first],
        after=full[first + len(bare) :],
        prompt=len(ids_of(tokenizer, [prompt])[0]) if prompt else 0,
        pad=0 if pad is None else pad,
        left=tokenizer.padding_side == "left",
    )


class _Open:
    """The texts of which windows are still computed, and which window every name stands for."""

    def __init__(self) -> None:
        self.texts: dict[int, tuple[bool, list[int], dict[int, Vectors]]] = {}  # long, weights, vectors
        self.window: dict[int, tuple[int, int]] = {}  # name: row, place
        self._names = 0

    def start(self, row: int, long: bool, weights: list[int]) -> list[int]:
        """Take a text, and give a name for each of its windows."""
        names = list(range(self._names, self._names + len(weights)))
        self._names += len(weights)
        self.texts[row] = (long, weights, {})
        self.window |= {name: (row, place) for place, name in enumerate(names)}
        return names

    def close(self, batch: Batch, vectors: Vectors) -> Iterator[Encoded]:
        """Give the texts that are whole with this batch; those of several windows as weighted means."""
        rows, whole, too_long = [], [], []
        for name, vector in zip(batch.names, vectors, strict=True):
            row, place = self.window.pop(name)
            long, weights, parts = self.texts[row]
            parts[place] = vector
            if len(parts) == len(weights):
                del self.texts[row]
                rows.append(row)
                too_long.append(long)
                whole.append(_mean(weights, parts))
        if rows:
            yield np.array(rows, dtype=np.int64), np.stack(whole), np.array(too_long, dtype=bool)


class PaddedTransformer:
    """A sentence-transformers model whose first module is a padded transformer."""

    def __init__(
        self,
        model: Any,
        marks: Marks,
        *,
        prompt: str,
        max_tokens: int,
        chunks: bool,
        device: str,
        dtype: torch.dtype,
        budget: int,
    ) -> None:
        """Cast the transformer's weights once; the modules behind it stay in float32."""
        self.tokenizer = model[0].tokenizer
        self.prompt, self.marks, self.chunks = prompt, marks, chunks
        self.window = max_tokens - marks.taken  # a text's own tokens that fit
        if self.window < 1:
            raise DataError(
                f"[[embed]] prompt: {marks.taken} tokens stand around every text, max_tokens = {max_tokens}; "
                "expected room for the text. Shorten the prompt, or raise max_tokens"
            )
        self.max_tokens, self.device = max_tokens, device
        self.budget = budget
        self.transformer = model[0].to(device=device, dtype=dtype).eval()
        self.heads = [module.to(device).eval() for module in list(model)[1:]]

    def encode(self, texts: Iterable[tuple[int, str]]) -> Iterator[Encoded]:
        """Give raw vectors for (row, text) pairs, one batch after the other."""
        workers = min(torch.get_num_threads(), cores()) if self.device == "cpu" else 1
        open_ = _Open()
        with one_thread_each(workers) as pool:
            running: deque[tuple[Batch, Future[Vectors]]] = deque()
            for batch in self._batches(texts, open_):
                running.append((batch, pool.submit(self._compute, batch)))
                if len(running) > workers * AHEAD:
                    done, vectors = running.popleft()
                    yield from open_.close(done, vectors.result())
            for done, vectors in running:
                yield from open_.close(done, vectors.result())

    def _batches(self, texts: Iterable[tuple[int, str]], open_: _Open) -> Iterator[Batch]:
        """Tokenise, cut long texts, and give batches as they become full."""
        buckets = Buckets(longest=self.max_tokens, budget=self.budget)
        stream = iter(texts)
        while some := list(islice(stream, TEXTS)):
            tokenised = ids_of(self.tokenizer, [self.prompt + text for _, text in some])
            for (row, _), ids in zip(some, tokenised, strict=True):
                windows = self.marks.windows(ids, self.window, chunks=self.chunks)
                long = len(ids) - self.marks.prompt > self.window
                names = open_.start(row, long, [max(len(one) - self.marks.taken, 1) for one in windows])
                for name, window in zip(names, windows, strict=True):
                    if batch := buckets.add(name, window):
                        yield batch
        yield from buckets.rest()

    def _compute(self, batch: Batch) -> Vectors:
        """Give a batch's vectors, those of its copies left out. Runs in a worker."""
        ids, mask = (
            torch.from_numpy(matrix).to(self.device)
            for matrix in batch.matrices(self.marks.pad, left=self.marks.left)
        )
        features: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "modality": "text"}
        if "token_type_ids" in self.tokenizer.model_input_names:
            features["token_type_ids"] = torch.zeros_like(ids)
        if self.prompt:
            features["prompt_length"] = len(self.marks.before) + self.marks.prompt
        with torch.inference_mode():
            features = self.transformer(features)
            for name, value in features.items():
                if isinstance(value, torch.Tensor) and value.is_floating_point():
                    features[name] = value.float()
            for head in self.heads:
                features = head(features)
            vectors: Vectors = features["sentence_embedding"][: len(batch.names)].float().cpu().numpy()
        return vectors


def _mean(weights: list[int], parts: dict[int, Vectors]) -> Vectors:
    """Average a text's windows by their token counts, summed in float64 in their order."""
    if len(weights) == 1:
        return parts[0]
    share = np.array(weights, dtype=np.float64)
    ordered = np.stack([parts[place] for place in range(len(weights))]).astype(np.float64)
    mean: Vectors = (ordered * (share / share.sum())[:, None]).sum(axis=0).astype(np.float32)
    return mean


def ids_of(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Give the token ids of texts without special tokens, uncut."""
    found: list[list[int]] = tokenizer(
        texts,
        add_special_tokens=False,
        padding=False,
        truncation=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )["input_ids"]
    return found
