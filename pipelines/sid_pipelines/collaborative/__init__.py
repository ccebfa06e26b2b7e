"""Collaborative vectors: what train interactions say of items, one file per model.

    train events (events.py) -> model.fit -> vectors of the items that have a train event

Only als.py and bpr.py need `implicit`, only lightgcn.py, sasrec.py and item2vec.py need torch, and only to
fit; importing this package needs neither.
"""

from sid_pipelines.collaborative.als import ALS
from sid_pipelines.collaborative.base import CollaborativeModel, Fitted
from sid_pipelines.collaborative.bpr import BPR
from sid_pipelines.collaborative.events import TrainEvents
from sid_pipelines.collaborative.item2vec import Item2Vec
from sid_pipelines.collaborative.lightgcn import LightGCN
from sid_pipelines.collaborative.ppmi_svd import PPMISVD
from sid_pipelines.collaborative.sasrec import SASRec
from sid_schemas import RecipeError

__all__ = ["MODELS", "CollaborativeModel", "Fitted", "TrainEvents", "model_named"]

MODELS: dict[str, type[CollaborativeModel]] = {
    model.name: model for model in (ALS, BPR, Item2Vec, PPMISVD, LightGCN, SASRec)
}


def model_named(name: str) -> type[CollaborativeModel]:
    """Give the class of a model, or raise RecipeError listing those there are."""
    if name not in MODELS:
        raise RecipeError(f"no collaborative model is called {name!r}; there are: {', '.join(MODELS)}")
    return MODELS[name]
