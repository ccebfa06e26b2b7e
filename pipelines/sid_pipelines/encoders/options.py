"""What a recipe may say to a text encoder. Defaults live only here; the recipe reads the constructors."""

from dataclasses import dataclass
from typing import Literal

from sid_schemas import DataError

HASHING, TFIDF = "hashing", "tfidf-svd"  # models that are code, not files
WIDEST = 65_536  # numbers of a hashed vector
LEAST_WINDOW = 8  # tokens: windows below this hold hardly a word beside their marks


@dataclass(frozen=True)
class SentenceOptions:
    """Options of a sentence-transformers or model2vec model.

    revision: of a hub model, a commit or tag; "" takes the hub's newest. prompt: text put before every
    text, such as "passage: ". max_tokens: 0 for the model's own limit. long: what is done with a longer
    text, "truncate", or "chunks": windows of max_tokens each, their vectors averaged by token counts.
    normalize: to length 1. dims: Matryoshka truncation to the first numbers, 0 for all; then normalised
    again where normalize says so. precision: "auto" is bf16 where the machine computes in it, else fp32.

    device: "auto" takes a GPU where there is one.
    """

    revision: str = ""
    prompt: str = ""
    max_tokens: int = 0
    long: Literal["truncate", "chunks"] = "truncate"
    normalize: bool = True
    dims: int = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def check_params(self) -> None:
        """Raise DataError for a number that cannot be meant."""
        if self.max_tokens and self.max_tokens < LEAST_WINDOW:
            raise DataError(f"max_tokens = {self.max_tokens}: expected 0 or at least {LEAST_WINDOW}")
        if self.dims < 0:
            raise DataError(f"dims = {self.dims}: expected 0 (all) or more")


@dataclass(frozen=True)
class HashingOptions:
    """Options of "hashing": words and letter n-grams, hashed. words, letters: the longest n-gram of each.

    dim: numbers of a vector.
    """

    dim: int = 256
    words: int = 2
    letters: int = 4
    normalize: bool = True

    def check_params(self) -> None:
        """Raise DataError for a number that cannot be meant."""
        if not 1 <= self.dim <= WIDEST:
            raise DataError(f"dim = {self.dim}: expected 1 to {WIDEST}")
        if min(self.words, self.letters) < 0 or self.words + self.letters < 1 or self.letters in (1, 2):
            raise DataError(
                f"words = {self.words}, letters = {self.letters}: expected words >= 0, letters 0 or >= 3, "
                "and one of them above 0"
            )


@dataclass(frozen=True)
class TfidfOptions:
    """Options of "tfidf-svd". dim: fewer where texts or words are fewer. min_df: texts a word must be in.

    words: the longest n-gram. seed: of the randomized SVD.
    """

    dim: int = 256
    words: int = 2
    min_df: int = 2
    seed: int = 0
    normalize: bool = True

    def check_params(self) -> None:
        """Raise DataError for a number that cannot be meant."""
        for name, least in (("dim", 1), ("words", 1), ("min_df", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise DataError(f"{name} = {getattr(self, name)}: expected {least} or more")


def options_of(model: str) -> type:
    """Give the dataclass whose fields are the options of a text model."""
    return {HASHING: HashingOptions, TFIDF: TfidfOptions}.get(model, SentenceOptions)
