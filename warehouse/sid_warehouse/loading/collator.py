"""From samples to what a transformer takes: input_ids, attention_mask, labels. Needs torch, no transformers.

Token ids stay as they are in vocabulary.json. Padding goes out, also inside items where SIDs differ in
length, and comes back on the asked side, up to the batch's longest.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError, MissingExtraError, RecipeError
from sid_warehouse.loading.batch import Batch

try:
    import torch
    from torch.utils.data import default_collate
except ImportError as error:
    raise MissingExtraError("Collating a batch", "torch") from error

Tokens = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
IGNORED = -100  # the label that torch's cross entropy leaves out
MODELS = ("encoder-decoder", "decoder-only")
LABELS = ("target", "all", "none")


class Collator:
    """A `collate_fn` for map-style samples, for batches of a stream, and for plain lists of samples.

    encoder-decoder (T5): input_ids are [bos] history [eos], labels target [eos]; the model makes its
    decoder's inputs of the labels. decoder-only: input_ids are [bos] history target [eos] in one row, labels
    are as long; the model shifts them itself.

    pad, bos, eos: token ids, as `release.vocabulary` has them; None for no such token. length: tokens of
    input_ids, instead of the batch's longest. padding: the side of input_ids that is filled up; labels of an
    encoder-decoder always are on the right. labels: of a decoder-only model, "target" with its eos, "all" the
    history too, or "none" for prompts: the history alone, to generate from.
    """

    def __init__(
        self,
        model: str = "encoder-decoder",
        *,
        pad: int = 0,
        bos: int | None = None,
        eos: int | None = None,
        length: int | None = None,
        padding: str = "right",
        labels: str = "target",
    ) -> None:
        """Check the options; raises RecipeError for what is none."""
        for name, given, among in (
            ("model", model, MODELS),
            ("padding", padding, ("left", "right")),
            ("labels", labels, LABELS),
        ):
            if given not in among:
                raise RecipeError(f"{name}: expected {', '.join(among)}; got {given!r}")
        if model == "encoder-decoder" and labels == "all":
            raise RecipeError("labels: an encoder-decoder has 'target' or 'none'; got 'all'")
        if pad in (bos, eos):
            raise RecipeError(
                f"pad: expected a token that is neither bos nor eos, as padding goes out; got {pad} for "
                "both. Take those of release.vocabulary"
            )
        self.model, self.pad, self.bos, self.eos = model, pad, bos, eos
        self.length, self.padding, self.labels = length, padding, labels

    def __call__(
        self, batch: Batch | Mapping[str, torch.Tensor] | Sequence[Mapping[str, Any]]
    ) -> dict[str, torch.Tensor]:
        """Give input_ids, attention_mask and labels, (n, length) int64, and all else that samples have.

        labels are -100 where nothing is to be learned. Raises DataError where `length` is too short,
        or where history or target was taken out of the samples.
        """
        tensors = _stacked(batch)
        if not {"history", "target"} <= tensors.keys():
            raise DataError(
                "collator: expected samples with history and target, got "
                f"{', '.join(tensors) or 'none'}. For transformers' Trainer say "
                "TrainingArguments(remove_unused_columns=False)"
            )
        history, target = tensors.pop("history").numpy(), tensors.pop("target").numpy()
        if self.model == "encoder-decoder":
            inputs = self._inputs(_joined(history, first=self.bos, last=self.eos))
            if self.labels != "none":
                asked = _joined(target, last=self.eos)
                inputs["labels"] = _packed(asked, asked != self.pad, IGNORED)[0]
        elif self.labels == "none":
            inputs = self._inputs(_joined(history, first=self.bos))
        else:
            both = _joined(np.concatenate([history, target], axis=1), first=self.bos, last=self.eos)
            prompt = history.shape[1] + (self.bos is not None)
            inputs = self._inputs(both, learned_from=0 if self.labels == "all" else prompt)
        return {name: torch.from_numpy(values) for name, values in inputs.items()} | tensors

    def _inputs(self, tokens: Tokens, learned_from: int | None = None) -> dict[str, Tokens]:
        """Pack rows of tokens. learned_from: the column from which on they are labels too; None for none."""
        real = tokens != self.pad
        ids, there = _packed(tokens, real, self.pad, width=self.length, side=self.padding)
        inputs = {"input_ids": ids, "attention_mask": there.astype(np.int64)}
        if learned_from is not None:
            learned = tokens.copy()
            learned[:, :learned_from] = IGNORED
            inputs["labels"] = _packed(learned, real, IGNORED, width=self.length, side=self.padding)[0]
        return inputs


def _stacked(batch: Any) -> dict[str, torch.Tensor]:
    if isinstance(batch, Batch):
        batch = batch.arrays
    elif not isinstance(batch, Mapping):
        batch = default_collate(list(batch))
    return {name: torch.as_tensor(value) for name, value in batch.items()}


def _joined(tokens: Tokens, *, first: int | None = None, last: int | None = None) -> Tokens:
    """Put a token before and one behind every row, where there are such."""
    columns = [np.full((len(tokens), 1), token) for token in (first, last) if token is not None]
    before, behind = columns[: first is not None], columns[first is not None :]
    return np.concatenate([*before, tokens, *behind], axis=1)


def _packed(
    tokens: Tokens, real: Mask, fill: int, *, width: int | None = None, side: str = "right"
) -> tuple[Tokens, Mask]:
    """Leave out what is not real and fill up rows on one side: (n, width), and where tokens are."""
    lengths = real.sum(axis=1, keepdims=True)
    longest = int(lengths.max(initial=0))
    if width is not None and width < longest:
        raise DataError(
            f"length: a sample has {longest} tokens, expected at most {width}. Lower max_history, or let "
            "every batch be as long as its longest with length=None"
        )
    width = longest if width is None else width
    there = np.arange(width) >= width - lengths if side == "left" else np.arange(width) < lengths
    packed = np.full(there.shape, fill, dtype=np.int64)
    packed[there] = tokens[real]
    return packed, there
