"""Pieces learned by SentencePiece: SIDs are words of a character for each code, seen more or less often.

Unlike grams.py's groups the pieces differ in length: items that are seen often come to have few, and rare
ones share theirs. Every code keeps a piece of its own, so that SIDs never seen can be written too.
"""

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt

from sid_schemas import DataError
from sid_tokenizers.base import Codes
from sid_tokenizers.catalogue import Events
from sid_tokenizers.indexers.paths import padded
from sid_tokenizers.pieces.base import Counts, Spelled
from sid_tokenizers.pieces.model_bytes import without_paths
from sid_tokenizers.pieces.substrings import frequent_runs
from sid_tokenizers.residual import check_at_least
from sid_tokenizers.scheme import Traits

FIRST = 0xF0000  # of the private characters of plane 15
CHARACTERS = 65_534  # that are there
THREADS = 4  # a constant: sums of shares depend on how many there are
MODEL = "pieces.model"
TRAITS = Traits(inputs=(), package="sentencepiece", extra="pieces")


class SentencePieces(Spelled):
    """Pieces of a SentencePiece model; ids are its own, 0 being <unk>, which no SID needs.

    Learns `model_`: the model's bytes, which `save` writes as `pieces.model` for SentencePiece's own loaders.
    In it code c of a level is the character U+F0000 + c + the codes of all levels before. A code that no SID
    has counts as seen once, by itself.
    """

    kind: ClassVar[Literal["unigram", "bpe"]]
    model_: bytes

    def _fit(self, sids: Codes, weight: Counts, sequences: Events | None) -> None:
        codes = sum(self.levels)
        if codes > CHARACTERS:
            raise DataError(f"{self.name}: has characters for {CHARACTERS} codes, but levels have {codes}")
        if self.most <= codes:
            raise DataError(
                f"table_size: expected {codes + 1} or more, a row for each code and <unk>, got {self.most}"
            )
        seen = weight > 0
        with tempfile.TemporaryDirectory() as folder:
            self.model_ = self._trained(sids[seen], weight[seen], Path(folder))
        vars(self).pop("_processor", None)

    def _trained(self, sids: Codes, weight: Counts, folder: Path) -> bytes:
        import sentencepiece

        unseen = np.setdiff1d(np.arange(sum(self.levels)), sids + self.starts)
        _write(folder / "sids.tsv", self._words(sids), weight)
        _write(folder / "codes.tsv", [chr(FIRST + code) for code in unseen], np.ones_like(unseen))
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            input=[str(folder / "sids.tsv"), str(folder / "codes.tsv")],
            input_format="tsv",
            model_writer=model,
            model_type=self.kind,
            vocab_size=self.most,
            hard_vocab_limit=False,
            character_coverage=1.0,
            max_sentencepiece_length=len(self.levels),
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            split_by_unicode_script=False,
            split_by_number=False,
            split_by_whitespace=False,
            shuffle_input_sentence=False,
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            num_threads=THREADS,
            minloglevel=2,
            **self._options(sids, weight, folder),
        )
        return without_paths(model.getvalue())

    def _options(self, sids: Codes, weight: Counts, folder: Path) -> dict[str, Any]:
        """Give what the trainer of this kind is told beside."""
        return {}

    def _words(self, sids: Codes) -> list[str]:
        """Give SIDs as words: all characters at once, then cut."""
        length = len(self.levels)
        text = (sids + (FIRST + self.starts)).astype("<u4").tobytes().decode("utf-32-le")
        return [text[start : start + length] for start in range(0, len(text), length)]

    @property
    def processor(self) -> Any:
        """Give SentencePiece's own object."""
        import sentencepiece

        if not hasattr(self, "_processor"):
            self._fitted()
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=self.model_)
        return self._processor

    @property
    def size(self) -> int:
        """Give the rows of the table."""
        return int(self.processor.vocab_size())

    def _pieces(self, sids: Codes) -> Codes:
        return padded(self.processor.encode(self._words(sids)))

    def _spelling(self) -> list[tuple[int, ...]]:
        texts = self.processor.id_to_piece(list(range(1, self.size)))
        return [(), *(tuple(ord(character) - FIRST for character in text) for text in texts)]

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json`, an empty `tokenizer.safetensors` and the model as `pieces.model`."""
        super().save(folder)
        (Path(folder) / MODEL).write_bytes(self.model_)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read back what `save` wrote; raises DataError where the model is missing or is none."""
        loaded = super().load(folder)
        path = Path(folder) / MODEL
        try:
            loaded.model_ = path.read_bytes()
            assert loaded.size
        except (OSError, RuntimeError) as error:
            raise DataError(f"{path}: cannot be read as a SentencePiece model ({error})") from error
        return loaded

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {}

    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        """Take nothing back; `load` reads the model."""


class Unigram(SentencePieces):
    """SentencePiece's unigram model: the pieces under which SIDs, as often as they are seen, are likeliest.

    table_size: see `Pieces`, the model's vocab_size; there are fewer pieces where no more help. seeds: pieces
    that training starts from, for each row of the table; it drops the least useful. SentencePiece starts from
    a million of its own, of which nearly all are missed here: see substrings.py. seed: without effect.
    """

    name: ClassVar[str] = "unigram"
    paper: ClassVar[str] = "Singh et al. 2023, Better Generalization with Semantic IDs [S]; its seeds [D]"
    traits: ClassVar[Traits] = TRAITS
    kind: ClassVar[Literal["unigram", "bpe"]] = "unigram"

    def __init__(self, *, table_size: int = 0, seeds: int = 8, seed: int = 0) -> None:
        """Store the parameters; `fit` checks them."""
        self.table_size = table_size
        self.seeds = seeds
        self.seed = seed

    def check_params(self) -> None:
        """Raise DataError naming a parameter that is out of range."""
        super().check_params()
        check_at_least(self, seeds=1)

    def _options(self, sids: Codes, weight: Counts, folder: Path) -> dict[str, Any]:
        words = self._words(sids)
        runs = frequent_runs(sids, weight, self.seeds * self.most)
        codes = np.zeros(sum(self.levels), dtype=np.int64)
        np.add.at(codes, (sids + self.starts).ravel(), weight.repeat(sids.shape[1]))
        texts = [chr(FIRST + code) for code in range(len(codes))]
        texts += [words[row][start:stop] for (row, start, stop), _ in runs]
        scores = [(stop - start) * count for (_, start, stop), count in runs]
        _write(folder / "seeds.tsv", texts, np.concatenate([np.maximum(codes, 1), scores]).astype(np.int64))
        return {"seed_sentencepieces_file": str(folder / "seeds.tsv")}


class BPE(SentencePieces):
    """SentencePiece's byte-pair encoding: the two neighbours seen most often become one, again and again.

    table_size: see `Pieces`, the model's vocab_size. seed: without effect.
    """

    name: ClassVar[str] = "bpe"
    paper: ClassVar[str] = "Singh et al. 2023, Better Generalization with Semantic IDs [S]"
    traits: ClassVar[Traits] = TRAITS
    kind: ClassVar[Literal["unigram", "bpe"]] = "bpe"

    def __init__(self, *, table_size: int = 0, seed: int = 0) -> None:
        """Store the parameters; `fit` checks them."""
        self.table_size = table_size
        self.seed = seed


def _write(path: Path, texts: Sequence[str], counts: Counts) -> None:
    """Write texts and how often each counts, as SentencePiece reads them."""
    lines = (f"{text}\t{count}\n" for text, count in zip(texts, counts.tolist(), strict=True))
    path.write_text("".join(lines), encoding="utf-8")
