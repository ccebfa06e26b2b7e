"""SIDs cut into pieces of several codes, each a row of one table of embeddings.

The ways are those of "Better Generalization with Semantic IDs" and of ActionPiece. A new way is one file and
one line here.
"""

from pathlib import Path

from sid_schemas import DataError, RecipeError
from sid_tokenizers.pieces.action_piece import ActionPiece
from sid_tokenizers.pieces.base import Pieces
from sid_tokenizers.pieces.grams import NGram, PrefixNGram
from sid_tokenizers.pieces.sentence_piece import BPE, Unigram
from sid_tokenizers.registry import UNFIT
from sid_tokenizers.scheme import read_config

__all__ = [
    "BPE",
    "PIECES",
    "ActionPiece",
    "NGram",
    "Pieces",
    "PrefixNGram",
    "Unigram",
    "load",
    "pieces_named",
]

PIECES: dict[str, type[Pieces]] = {way.name: way for way in (NGram, PrefixNGram, Unigram, BPE, ActionPiece)}


def pieces_named(name: str) -> type[Pieces]:
    """Give the class of a way, or raise RecipeError listing those there are."""
    if name not in PIECES:
        raise RecipeError(f"no pieces are called {name!r}; there are: {', '.join(sorted(PIECES))}")
    return PIECES[name]


def load(folder: str | Path) -> Pieces:
    """Load whatever pieces a folder holds; raises DataError for files that cannot be used. None is run."""
    from safetensors import SafetensorError

    try:
        pieces = pieces_named(read_config(Path(folder))["tokenizer"]).load(folder)
        pieces.check_params()
    except (SafetensorError, OSError, *UNFIT) as error:
        raise DataError(
            f"{folder}: holds no pieces that can be used ({error!r}); they are damaged"
        ) from error
    return pieces
