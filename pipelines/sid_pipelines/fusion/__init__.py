"""Fusion: one vector of several modalities; each method is one file. Without [fuse] nothing is fused.

Learned on items with a train event alone; applied block by block with numpy. Torch is needed where a method
trains, never to apply it.
"""

from pathlib import Path

from sid_pipelines.fusion.adaln import AdaLN
from sid_pipelines.fusion.base import MAIN, Fitted, Fusion
from sid_pipelines.fusion.cf_align import CFAlign
from sid_pipelines.fusion.concat import Concat
from sid_pipelines.fusion.graph import Graph
from sid_pipelines.fusion.inputs import InMemory, Modality
from sid_pipelines.fusion.pairs import PairsContrastive
from sid_pipelines.fusion.pca import PCA
from sid_schemas import RecipeError
from sid_warehouse.believed import believed

__all__ = ["FUSIONS", "MAIN", "Fitted", "Fusion", "InMemory", "Modality", "fusion_named", "load_fusion"]

FUSIONS: dict[str, type[Fusion]] = {
    fusion.name: fusion for fusion in (Concat, PCA, AdaLN, CFAlign, PairsContrastive, Graph)
}


def fusion_named(name: str) -> type[Fusion]:
    """Give the class of a fusion, whose fields are its options, or raise RecipeError listing all."""
    if name not in FUSIONS:
        raise RecipeError(f"no fusion is called {name!r}; there are: {', '.join(FUSIONS)}")
    return FUSIONS[name]


def load_fusion(folder: str | Path) -> Fitted:
    """Load the fitted fusion that a folder holds; raises WarehouseError where that is none."""
    with believed(Path(folder)):
        return Fitted.load(folder, fusion_named)
