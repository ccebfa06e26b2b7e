"""Turn vectors into semantic IDs: fit, encode, decode, save, load; then resolve what collides.

Arrays in, codes out. This package knows no dump, no warehouse and, outside a scheme's own door, no
torch.

>>> import numpy as np
>>> X = np.random.default_rng(0).normal(size=(200, 8)).astype("float32")
>>> codes = RQKMeans(levels=[16, 16], seed=0).fit(X).encode(X)
>>> codes.shape
(200, 2)
"""

from sid_tokenizers.base import Tokenizer
from sid_tokenizers.catalogue import Catalogue, Events
from sid_tokenizers.collisions import POLICIES, Resolution, resolve
from sid_tokenizers.continuous import Continuous
from sid_tokenizers.indexer import Indexer
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
from sid_tokenizers.registry import TOKENIZERS, load, tokenizer_named
from sid_tokenizers.rq_kmeans import RQKMeans
from sid_tokenizers.rq_kmeans_balanced import RQKMeansBalanced
from sid_tokenizers.rq_kmeans_fsq import RQKMeansFSQ
from sid_tokenizers.rvq_ema import RVQEMA
from sid_tokenizers.scheme import Scheme, Traits
from sid_tokenizers.trie import Trie
from sid_tokenizers.vocabulary import Vocabulary

__all__ = [
    "FSQ",
    "GMC",
    "OPQ",
    "POLICIES",
    "PQ",
    "PRISM",
    "RQVAE",
    "RVQEMA",
    "TOKENIZERS",
    "Catalogue",
    "CategoryPath",
    "Continuous",
    "Events",
    "GraphRQVAE",
    "Independent",
    "Indexer",
    "KMeansTree",
    "Letter",
    "MoEPQ",
    "RQKMeans",
    "RQKMeansBalanced",
    "RQKMeansFSQ",
    "RQKMeansPlus",
    "RQVAEUniform",
    "RandomNumbers",
    "Resolution",
    "SETRec",
    "Scheme",
    "Sequential",
    "Spectral",
    "SpectralCategory",
    "TextDocid",
    "Title",
    "Tokenizer",
    "Traits",
    "Trie",
    "Vocabulary",
    "load",
    "resolve",
    "tokenizer_named",
]
