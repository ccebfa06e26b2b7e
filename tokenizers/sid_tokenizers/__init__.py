"""Turn vectors into semantic IDs: fit, encode, decode, save, load; then resolve what collides.

Arrays in, codes out. This package knows no dump, no warehouse and, outside a scheme's own door, no
torch.

>>> import numpy as np
>>> X = np.random.default_rng(0).normal(size=(200, 8)).astype("float32")
>>> codes = RQKMeans(levels=[16, 16], seed=0).fit(X).encode(X)
>>> codes.shape
(200, 2)
"""

from sid_tokenizers.base import Tokenizer, Traits
from sid_tokenizers.collisions import POLICIES, Resolution, resolve
from sid_tokenizers.fsq import FSQ
from sid_tokenizers.opq import OPQ
from sid_tokenizers.pq import PQ
from sid_tokenizers.registry import TOKENIZERS, load, tokenizer_named
from sid_tokenizers.rq_kmeans import RQKMeans
from sid_tokenizers.rq_kmeans_balanced import RQKMeansBalanced
from sid_tokenizers.rq_kmeans_fsq import RQKMeansFSQ
from sid_tokenizers.rq_kmeans_plus import RQKMeansPlus
from sid_tokenizers.rq_vae import RQVAE
from sid_tokenizers.rvq_ema import RVQEMA
from sid_tokenizers.trie import Trie
from sid_tokenizers.vocabulary import Vocabulary

__all__ = [
    "FSQ",
    "OPQ",
    "POLICIES",
    "PQ",
    "RQVAE",
    "RVQEMA",
    "TOKENIZERS",
    "RQKMeans",
    "RQKMeansBalanced",
    "RQKMeansFSQ",
    "RQKMeansPlus",
    "Resolution",
    "Tokenizer",
    "Traits",
    "Trie",
    "Vocabulary",
    "load",
    "resolve",
    "tokenizer_named",
]
