"""Every tokenizer by the name that recipes use. A new scheme is one file and one line here."""

import difflib
from pathlib import Path

from sid_schemas import DataError, RecipeError
from sid_tokenizers.indexers.category_path import CategoryPath
from sid_tokenizers.indexers.kmeans_tree import KMeansTree
from sid_tokenizers.indexers.numbered import Independent, RandomNumbers
from sid_tokenizers.indexers.sequential import Sequential
from sid_tokenizers.indexers.spectral import Spectral
from sid_tokenizers.indexers.spectral_category import SpectralCategory
from sid_tokenizers.indexers.text_ids import TextDocid, Title
from sid_tokenizers.learned.fsq import FSQ
from sid_tokenizers.learned.gmc import GMC
from sid_tokenizers.learned.graph_rq_vae import GraphRQVAE
from sid_tokenizers.learned.letter import Letter
from sid_tokenizers.learned.moe_pq import MoEPQ
from sid_tokenizers.learned.prism import PRISM
from sid_tokenizers.learned.rq_kmeans_plus import RQKMeansPlus
from sid_tokenizers.learned.rq_vae import RQVAE
from sid_tokenizers.learned.rq_vae_uniform import RQVAEUniform
from sid_tokenizers.learned.setrec import SETRec
from sid_tokenizers.opq import OPQ
from sid_tokenizers.pq import PQ
from sid_tokenizers.rq_kmeans import RQKMeans
from sid_tokenizers.rq_kmeans_balanced import RQKMeansBalanced
from sid_tokenizers.rq_kmeans_fsq import RQKMeansFSQ
from sid_tokenizers.rvq_ema import RVQEMA
from sid_tokenizers.scheme import Scheme, read_config

TOKENIZERS: dict[str, type[Scheme]] = {
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
        PRISM,
        MoEPQ,
        SETRec,
        Sequential,
        Independent,
        RandomNumbers,
        Title,
        TextDocid,
        KMeansTree,
        CategoryPath,
        Spectral,
        SpectralCategory,
        Letter,
        GMC,
        RQVAEUniform,
        GraphRQVAE,
    )
}

# What reading makes of a file in which anything may stand.
UNFIT = (LookupError, TypeError, ValueError, AttributeError, RecursionError)


def tokenizer_named(name: str) -> type[Scheme]:
    """Give the class of a scheme, or raise RecipeError naming the nearest."""
    if name not in TOKENIZERS:
        [nearest] = difflib.get_close_matches(str(name), TOKENIZERS, n=1, cutoff=0.0)
        raise RecipeError(
            f"no tokenizer is called {name!r}; the nearest is {nearest!r}. `sidmill tokenizers` lists all"
        )
    return TOKENIZERS[name]


def load(folder: str | Path) -> Scheme:
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
