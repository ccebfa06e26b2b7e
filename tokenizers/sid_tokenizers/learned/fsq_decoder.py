"""The decoder of FSQ in numpy, as torch computes it outside training.

It is here so that a saved tokenizer needs no torch: fsq_training.py holds the same network to be
trained, and a test holds one against the other. Weights go by torch's names.
"""

import math

import numpy as np

from sid_tokenizers.base import Vectors
from sid_tokenizers.products import product

LAYERS = 2
MAX_HEADS = 8
NORM_EPS = 1e-5  # torch's LayerNorm

Weights = dict[str, Vectors]


def heads_of(width: int) -> int:
    """Give the most heads, 8 at most (RecGPT), that share a width evenly."""
    return max(heads for heads in range(1, MAX_HEADS + 1) if width % heads == 0)


def decode_slices(points: Vectors, weights: Weights) -> Vectors:
    """Give vectors for grid points in -1 .. 1: (n, slices, numbers) -> (n, d) float32.

    Each slice is a token; after the transformer's layers the last token alone makes the vector.
    """
    tokens: Vectors = linear(points, weights, "expand") + weights["position"]
    for layer in range(LAYERS):
        tokens = encoder_layer(tokens, weights, f"transformer.layers.{layer}")
    hidden = np.maximum(linear(tokens[:, -1], weights, "head.0"), 0.0)
    return linear(hidden, weights, "head.2")


def encoder_layer(tokens: Vectors, weights: Weights, name: str) -> Vectors:
    """Attend and feed forward, each followed by its norm: (n, slices, w) -> (n, slices, w)."""
    tokens = norm(tokens + attention(tokens, weights, f"{name}.self_attn"), weights, f"{name}.norm1")
    wide = np.maximum(linear(tokens, weights, f"{name}.linear1"), 0.0)
    return norm(tokens + linear(wide, weights, f"{name}.linear2"), weights, f"{name}.norm2")


def attention(tokens: Vectors, weights: Weights, name: str) -> Vectors:
    """Let every token look at all: (n, slices, w) -> (n, slices, w)."""
    n, slices, width = tokens.shape
    heads = heads_of(width)
    mixed = times(tokens, weights[f"{name}.in_proj_weight"]) + weights[f"{name}.in_proj_bias"]
    # (3, n, heads, slices, width of a head)
    query, key, value = mixed.reshape(n, slices, 3, heads, width // heads).transpose(2, 0, 3, 1, 4)
    scores = query @ key.swapaxes(-1, -2) / np.float32(math.sqrt(width // heads))
    share = np.exp(scores - scores.max(axis=-1, keepdims=True))
    share /= share.sum(axis=-1, keepdims=True)
    joined = (share @ value).transpose(0, 2, 1, 3).reshape(n, slices, width)
    return linear(joined, weights, f"{name}.out_proj")


def norm(tokens: Vectors, weights: Weights, name: str) -> Vectors:
    """Scale each token to mean 0 and variance 1, then by what was learned."""
    centred = tokens - tokens.mean(axis=-1, keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + np.float32(NORM_EPS))
    scaled: Vectors = centred / deviation * weights[f"{name}.weight"]
    return scaled + weights[f"{name}.bias"]


def linear(rows: Vectors, weights: Weights, name: str) -> Vectors:
    """Give rows times the matrix of a layer plus its bias."""
    return times(rows, weights[f"{name}.weight"]) + weights[f"{name}.bias"]


def times(rows: Vectors, weight: Vectors) -> Vectors:
    """Give rows times a matrix as torch keeps it: (..., in), (out, in) -> (..., out)."""
    return product(rows.reshape(-1, rows.shape[-1]), weight.T).reshape(*rows.shape[:-1], len(weight))
