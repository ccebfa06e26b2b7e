"""Every tokenizer by the name that recipes use. A new scheme is one file and one line here."""

from pathlib import Path

from sid_schemas import DataError, RecipeError
from sid_tokenizers.base import Tokenizer, read_config
from sid_tokenizers.fsq import FSQ
from sid_tokenizers.opq import OPQ
from sid_tokenizers.pq import PQ
from sid_tokenizers.rq_kmeans import RQKMeans
from sid_tokenizers.rq_kmeans_balanced import RQKMeansBalanced
from sid_tokenizers.rq_kmeans_fsq import RQKMeansFSQ
from sid_tokenizers.rq_kmeans_plus import RQKMeansPlus
from sid_tokenizers.rq_vae import RQVAE
from sid_tokenizers.rvq_ema import RVQEMA

TOKENIZERS: dict[str, type[Tokenizer]] = {
    scheme.name: scheme
    for scheme in (
        RQKMeans,
        RQKMeansBalanced,
        RQKMeansPlus,
        RQVAE,
        RVQEMA,
        PQ,
        OPQ,
        FSQ,
        RQKMeansFSQ,
    )
}

# What reading makes of a file in which anything may stand.
UNFIT = (LookupError, TypeError, ValueError, AttributeError, RecursionError)


def tokenizer_named(name: str) -> type[Tokenizer]:
    """Give the class of a scheme, or raise RecipeError listing those there are."""
    if name not in TOKENIZERS:
        known = ", ".join(sorted(TOKENIZERS))
        raise RecipeError(f"no tokenizer is called {name!r}; there are: {known}")
    return TOKENIZERS[name]


def load(folder: str | Path) -> Tokenizer:
    """Load whatever tokenizer a folder holds; raises DataError where that is none that can be used.

    A name picks a class of TOKENIZERS and the rest are numbers and arrays: nothing in the files is run.
    """
    from safetensors import SafetensorError

    try:
        tokenizer = tokenizer_named(read_config(Path(folder))["tokenizer"]).load(folder)
        tokenizer.check_params()
    except (SafetensorError, OSError, *UNFIT) as error:
        raise DataError(
            f"{folder}: holds no tokenizer that can be used ({error!r}); it is damaged"
        ) from error
    return tokenizer
