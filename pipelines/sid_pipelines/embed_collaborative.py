"""Embed collaborative: fit a model on train interactions, and give every item a vector.

Unlike the text and image stages nothing of an item itself is read: an item without a train event has no
vector of its own, and gets what the rule for missing ones gives. `present` is false for it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sid_pipelines.collaborative import CollaborativeModel, Fitted, TrainEvents, model_named
from sid_pipelines.embedded import ROWS, carried, write_embeddings
from sid_pipelines.missing import Filler, filler, filler_of
from sid_pipelines.stage import Outcome, Stage, Work, count
from sid_pipelines.vectors import StoredVectors
from sid_schemas import DataError
from sid_tokenizers.base import Vectors

FIT_SCOPE = "train interactions"
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class CollaborativeEmbedParams:
    """What embed_collaborative depends on: a model and its options, and what cold items get.

    name: of the table, embeddings_<name>. options: the model's. missing: refuse, mask, mean or map. dtype:
    float32 or float16. map_from: the embedding that "map" guesses from; its output has the role "content".
    """

    name: str
    model: str
    options: Mapping[str, Any]
    missing: str = "mask"
    dtype: str = "float32"
    map_from: str = ""


def needs_of(params: CollaborativeEmbedParams) -> tuple[str, str] | None:
    """Give the package that fits the model and the extra that brings it, or None."""
    return model_named(params.model).needs


def run(work: Work) -> Outcome:
    """Write `embeddings_<name>`, and `embeddings_<name>_<suffix>` where the model has further vectors."""
    params: CollaborativeEmbedParams = work.params
    model = model_named(params.model)(**params.options)
    items = work.inputs["clean"].read("items_clean", ["item_index", "item_id"])
    if "base" in work.inputs:
        return _without_fit(work, items)
    n_users = int(work.inputs["clean"].manifest["rows"]["users"])
    events = TrainEvents.of(work.inputs["split"].parts("interactions"), n_users, len(items))
    fitted = model.fit(events, work.progress)
    if params.missing == "refuse" and not fitted.present.all():
        _refuse(items, fitted.present, model)
    facts: dict[str, Any] = {}
    for suffix, vectors in fitted.vectors.items():
        rule = _rule(work, fitted, vectors)
        written = write_embeddings(
            work,
            name=f"{params.name}_{suffix}" if suffix else params.name,
            dim=vectors.shape[1],
            dtype=params.dtype,
            items=items,
            blocks=_blocks(vectors, fitted.present, rule),
        )
        if suffix:
            facts.setdefault("further", []).append(written)
        else:
            facts |= written | rule.facts
    facts |= {
        "modality": "collaborative",
        "model": params.model,
        "source": model.source,
        "params": dict(params.options),
        "seed": model.seed,
        "fit_scope": FIT_SCOPE,
        "fit_sha256": events.digest(),
        "events": len(events),
        "users": len(np.unique(events.users)),
        "items_fitted": int(fitted.present.sum()),
        "coverage": round(float(fitted.present.mean()), 6),
        **fitted.facts,
    }
    return Outcome(facts, summary(facts))


def _without_fit(work: Work, items: pa.Table) -> Outcome:
    """Give new items what `missing` says: the model is frozen, and has never seen them."""
    params: CollaborativeEmbedParams = work.params
    base = work.inputs["base"]
    if not len(items):
        return carried(work, params.name)
    if params.missing == "refuse":
        raise DataError(
            f"embed ({params.model}): {count(len(items), 'new item')} without a vector, since the model is "
            "frozen; expected one for every item. Build anew, with missing = 'mask', 'mean' or 'map'"
        )
    before = base.facts["embeddings"][f"embeddings_{params.name}"]
    content = StoredVectors.of(work.inputs["content"]) if params.missing == "map" else None
    none = np.zeros(len(items), dtype=bool)
    facts: dict[str, Any] = {**before, "further": []}
    for one in (before, *before.get("further", [])):
        rule = filler_of(base, one["name"], params.missing, content, dim=one["dim"])
        written = write_embeddings(
            work,
            name=one["name"].removeprefix("embeddings_"),
            dim=one["dim"],
            dtype=one["dtype"],
            items=items,
            blocks=_blocks(np.zeros((len(items), one["dim"]), dtype=np.float32), none, rule),
        )
        if one is before:
            facts |= written
        else:
            facts["further"].append({**one, **written})
    told = f"{count(len(items), 'new item')} without a vector of its own: {params.missing}"
    return Outcome(facts, f"{params.model}, not fitted again; {told}")


def summary(facts: Mapping[str, Any]) -> str:
    """Say in one line what was made of what."""
    said = f"{facts['model']}: {count(facts['items_fitted'], 'vector')} of {facts['dim']} numbers from "
    said += f"{count(facts['events'], 'train event')}"
    cold = facts["items"] - facts["items_fitted"]
    if cold:
        said += f"; {count(cold, 'item')} without one: {facts['missing_rule']}"
        if "map" in facts:
            said += f" from {count(facts['map']['items'], 'item')}, R2 {facts['map']['r2_held_out']}"
    return said


def _refuse(items: pa.Table, present: Mask, model: CollaborativeModel) -> None:
    first = items["item_id"][int(np.argmin(present))].as_py()
    raise DataError(
        f"embed ({model.name}): {count(int((~present).sum()), 'item')} without enough train events, as "
        f"item {first!r}; expected one for every item. Set missing = 'mask', 'mean' or 'map'"
    )


def _rule(work: Work, fitted: Fitted, vectors: Vectors) -> Filler:
    params: CollaborativeEmbedParams = work.params
    nothing_to_fill = params.missing == "refuse" or fitted.present.all()
    rule = "mask" if nothing_to_fill else params.missing
    content = StoredVectors.of(work.inputs["content"]) if rule == "map" else None

    def present_vectors() -> Iterator[tuple[npt.NDArray[np.int64], Vectors]]:
        rows = np.flatnonzero(fitted.present)
        for start in range(0, len(rows), ROWS):
            block = rows[start : start + ROWS]
            yield block, vectors[block]

    found = filler(present_vectors, rule, content, dim=vectors.shape[1])
    return Filler(found.mean, found.content, found.mapping, found.facts | {"missing_rule": params.missing})


def _blocks(vectors: Vectors, present: Mask, rule: Filler) -> Iterator[tuple[Vectors, Mask]]:
    for start in range(0, len(vectors), ROWS):
        block, there = vectors[start : start + ROWS].copy(), present[start : start + ROWS]
        cold = np.flatnonzero(~there)
        block[cold] = rule(cold + start)
        yield block, there


STAGE = Stage("embed_collaborative", revision=5, parents=("clean", "split"), run=run, needs=needs_of)
