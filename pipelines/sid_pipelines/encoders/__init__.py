"""Text encoders: sentence-transformers models, static ones, and two that need no model at all.

places    where a model's files are, and what identifies them
options   what a recipe may say to each kind
base      what every encoder is
batches   how token ids are cut into batches so that no text's vector depends on its company
sentence  sentence-transformers; transformer.py runs its padded batches
static    model2vec and sentence-transformers' StaticEmbedding: means of token vectors
hashing   hashed words and letters, no fit
tfidf     TF-IDF and an SVD, fitted on the items with a train event
"""

from sid_pipelines.encoders.base import Encoder, embed_all
from sid_pipelines.encoders.options import HashingOptions, SentenceOptions, TfidfOptions, options_of
from sid_pipelines.encoders.places import TextModel, text_encoder

__all__ = [
    "Encoder",
    "HashingOptions",
    "SentenceOptions",
    "TextModel",
    "TfidfOptions",
    "embed_all",
    "options_of",
    "text_encoder",
]
