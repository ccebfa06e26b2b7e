"""The door to transformers' generate: a LogitsProcessor that lets a model write only SIDs of the release.

The masks are trie_mask.py's, of numpy; here stands what Hugging Face adds: token ids of any tokenizer,
prompts, end tokens, and rows that beam search keeps although nothing valid is left for them.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError, MissingExtraError
from sid_tokenizers.trie_mask import TrieMask

try:
    import torch
    from transformers import LogitsProcessor
except ImportError as error:
    raise MissingExtraError("Constrained decoding with transformers", "transformers") from error

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]


class SidLogitsProcessor(LogitsProcessor):
    """Gives every token that leads to no SID the score -inf; what it leaves, it leaves as it is.

    mask: over the SIDs. token_ids: of each place, the token id of every code there, (sizes[place],) each.
    end: the token that may follow a complete SID, and must where no longer SID goes on.

    Where an item begins is told in one of two ways. prompt_length: after so many tokens of every row: 1 for
    an encoder-decoder model, whose decoder is given a start token, and the width of `input_ids`, padding
    included, for a decoder-only one. begin: after the last token of this kind, row by row; a row that has
    none yet, or has closed its item with `end`, is free to write anything but codes.

    A row whose item is no beginning of a SID may only end, at score 0. Beam search makes such rows where
    there are fewer SIDs than beams, at a score of -inf, so that everything else comes before them; rows that
    have ended are of this kind too. The beams that generate gives beyond all SIDs, at a score of about -1e9,
    are repeated, unfinished or empty: `codes` gives what is unfinished as nothing. in_place: write into the
    scores that are given, which is faster, but spoils `output_logits` of a search without beams.

    Scores are probabilities over the whole vocabulary; with `renormalize_logits=True`, generate makes them
    probabilities over what is allowed. SIDs of one length L need no `end` if `max_new_tokens=L`.
    """

    def __init__(
        self,
        mask: TrieMask,
        token_ids: Sequence[npt.ArrayLike],
        *,
        end: int,
        prompt_length: int = 1,
        begin: int | None = None,
        in_place: bool = False,
    ) -> None:
        """Check token ids; raises DataError where two codes of a place, or a code and `end`, share one."""
        self.mask, self.end, self.begin = mask, end, begin
        self.prompt_length, self.in_place = prompt_length, in_place
        self._places = [_Place(np.asarray(ids, dtype=np.int64), end) for ids in token_ids]
        sizes = tuple(len(place.ids) for place in self._places)
        if sizes != mask.sizes:
            raise DataError(f"token ids: expected {mask.sizes} codes by place, got {sizes}")
        self._all = torch.from_numpy(np.unique(np.concatenate([place.ids for place in self._places])))
        self._width = max(int(self._all.max()), end) + 1

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Mask scores (rows, vocabulary) of what comes after input_ids (rows, tokens so far).

        Raises ValueError where the vocabulary lacks a code or `end`, or where `prompt_length` is wrong.
        """
        if scores.shape[1] < self._width:
            raise ValueError(
                f"scores: expected {self._width} tokens or more, got {scores.shape[1]}. Give the model as "
                "many: model.resize_token_embeddings(len(tokenizer)), or vocab_size=len(release.vocabulary)"
            )
        written = input_ids.cpu().numpy()
        if self.begin is None:
            item = self._after_prompt(written)
            if item.shape[1] > self.mask.length and not (item == self.end).any():
                raise ValueError(  # no row that was masked from its beginning is so long without an end
                    f"prompt_length: got {item.shape[1]} tokens after {self.prompt_length}, more than an "
                    f"item has; expected {written.shape[1]}, the width of input_ids, for a decoder-only model"
                )
            return self._item(item, scores, in_place=self.in_place)
        since = self._since_begin(written)
        if len(since) and since[0] >= 0 and (since == since[0]).all():
            return self._item(_last(written, since[0]), scores, in_place=self.in_place)
        out = scores if self.in_place else scores.clone()
        for depth in np.unique(since).tolist():
            rows = torch.from_numpy(np.flatnonzero(since == depth)).to(scores.device)
            if depth < 0:
                out[rows[:, None], self._all.to(scores.device)] = -torch.inf
            else:
                out[rows] = self._item(_last(written[since == depth], depth), scores[rows], in_place=True)
        return out

    def codes(self, sequences: torch.Tensor) -> I32:
        """Give the SIDs that stand in what generate gave (n, tokens): codes (n, length), -1 after the end.

        All -1 where what was written is no SID: nothing, or one that is not complete.
        """
        written = sequences.cpu().numpy()
        if self.begin is None:
            out = self._codes(self._after_prompt(written))
        else:
            out = np.full((len(written), self.mask.length), -1, dtype=np.int32)
            for row, at in enumerate(_last_place(written == self.begin)):
                if at >= 0:
                    out[row] = self._codes(written[row : row + 1, at + 1 :])[0]
        out[self.mask.find(out) < 0] = -1
        return out

    def _item(self, item: I64, scores: torch.Tensor, *, in_place: bool) -> torch.Tensor:
        """Mask scores of rows whose items have all the same number of tokens: (rows, tokens of the item)."""
        place, device = item.shape[1], scores.device
        nodes = self.mask.walk(self._codes(item)[:, :place]) if place else self.mask.start(len(item))
        if place > self.mask.length:
            nodes = np.full_like(nodes, -1)
        ends, dead = (torch.from_numpy(rows).to(device) for rows in (self.mask.ends(nodes), nodes < 0))
        ending = scores[:, self.end].masked_fill(~ends, -torch.inf).masked_fill(dead, 0.0)
        goes_on = place < self.mask.length
        if not goes_on:
            out = self._nothing(scores, in_place=in_place)
        elif self.mask.has_table(place):
            which = self._places[place].index(device)
            allowed = torch.from_numpy(self.mask.rows(nodes, place=place)).to(device)
            block = torch.where(allowed, scores[:, which], -torch.inf)
            out = self._nothing(scores, in_place=in_place)
            out[:, which] = block
        else:
            rows, codes = self.mask.pairs(nodes)
            tokens = self._places[place].ids[codes]
            cells = torch.from_numpy(rows).to(device), torch.from_numpy(tokens).to(device)
            kept = scores[cells]
            out = self._nothing(scores, in_place=in_place)
            out[cells] = kept
        out[:, self.end] = ending
        return out

    @staticmethod
    def _nothing(scores: torch.Tensor, *, in_place: bool) -> torch.Tensor:
        return scores.fill_(-torch.inf) if in_place else torch.full_like(scores, -torch.inf)

    def _codes(self, item: I64) -> I32:
        """Give the codes of token ids (n, w): (n, length), -1 from the first on that is none."""
        out = np.full((len(item), self.mask.length), -1, dtype=np.int32)
        going = np.ones(len(item), dtype=bool)
        for place in range(min(item.shape[1], self.mask.length)):
            codes = self._places[place].codes(item[:, place])
            going &= codes >= 0
            out[going, place] = codes[going]
        return out

    def _after_prompt(self, written: I64) -> I64:
        if written.shape[1] < self.prompt_length:
            raise ValueError(
                f"prompt_length: expected rows of {self.prompt_length} or more tokens, got "
                f"{written.shape[1]}. It is the width of input_ids for a decoder-only model, else 1"
            )
        return written[:, self.prompt_length :]

    def _since_begin(self, written: I64) -> I64:
        """Give how many tokens came since each row's item began: (n,); -1 where it is in none."""
        window = written[:, -(self.mask.length + 1) :]
        at = _last_place(window == self.begin)
        closed = _last_place(window == self.end) > at
        return np.where((at < 0) | closed, -1, window.shape[1] - 1 - at)


class _Place:
    """Token ids of the codes at one place, and back."""

    def __init__(self, ids: I64, end: int) -> None:
        self.ids = ids
        self._back = np.full(int(ids.max(initial=-1)) + 2, -1, dtype=np.int32)
        self._back[ids] = np.arange(len(ids))
        if len(np.unique(ids)) != len(ids) or end in ids:
            raise DataError("token ids: expected one of its own for each code of a place, and for the end")

    def codes(self, tokens: I64) -> I32:
        return self._back[np.clip(tokens, -1, len(self._back) - 1)]

    def index(self, device: torch.device) -> slice | torch.Tensor:
        """Give where the codes stand in a row of scores, as a slice where they stand together."""
        first = int(self.ids[0])
        if (self.ids == np.arange(first, first + len(self.ids))).all():
            return slice(first, first + len(self.ids))
        return torch.from_numpy(self.ids).to(device)


def _last(written: I64, tokens: int) -> I64:
    return written[:, written.shape[1] - tokens :]


def _last_place(found: npt.NDArray[np.bool_]) -> I64:
    """Give the last column that is true, row by row: (n,); -1 where none is."""
    width = found.shape[1]
    return np.where(found.any(axis=1), width - 1 - np.argmax(found[:, ::-1], axis=1), -1)
