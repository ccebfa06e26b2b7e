"""Fusions: one contract for all, golden maths, the stage, and what is better on real data."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers import ROOT
from hypothesis import given
from hypothesis import strategies as st

from sid_pipelines import fuse
from sid_pipelines.embedded import write_embeddings
from sid_pipelines.fuse import FuseParams
from sid_pipelines.fusion import FUSIONS, Fitted, InMemory, Modality, fusion_named, load_fusion
from sid_pipelines.fusion.adaln import adaln
from sid_pipelines.fusion.base import Fusion
from sid_pipelines.fusion.whitening import Whitening
from sid_pipelines.probes import cooccurrence_recall_at, nearest, unit_rows
from sid_pipelines.stage import Resources, Work
from sid_schemas import DataError, MissingExtraError, RecipeError
from sid_schemas.tables import INTERACTIONS, ITEM_PAIRS
from sid_tokenizers import Events
from sid_warehouse.stages import StageOutput, StageStore

N, TASTES = 400, 6
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "concat": ("concat", {}),
    "concat, whitened": (
        "concat",
        {
            "whiten": {"text": "zca", "image": "pca", "collaborative": "none"},
            "dims": {"image": 5},
            "weights": {"text": 2.0, "image": 0.5},
            "shrinkage": 0.1,
            "unit_blocks": False,
            "normalize": False,
        },
    ),
    "pca": ("pca", {"dim": 9}),
    "pca, whitened": ("pca", {"dim": 9, "whiten_out": True, "whiten": "pca", "dims": 7}),
    "adaln": ("adaln-infonce", {"epochs": 20, "batch_size": 64}),
    "cf-align": ("cf-align", {"epochs": 20, "batch_size": 64}),
    "cf-align, both": (
        "cf-align",
        {"epochs": 5, "batch_size": 64, "output": "both", "hidden": 16, "unit": True, "temperature": 0.1},
    ),
    "pairs": ("pairs-contrastive", {"epochs": 5, "batch_size": 64}),
    "graph": ("graph", {"epochs": 5, "batch_size": 200, "hidden": 16, "dim": 7}),
    "pairs, hidden": ("pairs-contrastive", {"epochs": 3, "batch_size": 64, "hidden": 16, "dim": 10}),
}
every_method = pytest.mark.parametrize("method", METHODS)


class Planted:
    """Items with six tastes: text tells them noisily, posters three of them, behaviour four."""

    def __init__(self, n: int = N) -> None:
        draw = np.random.default_rng(1)
        tastes = draw.standard_normal((n, TASTES)).astype(np.float32)

        def seen(columns: slice, dim: int, noise: float) -> np.ndarray:
            told = tastes[:, columns]
            mixed = told @ draw.standard_normal((told.shape[1], dim)) + 0.7
            return (mixed + noise * draw.standard_normal((n, dim))).astype(np.float32)

        self.tastes = tastes
        self.train = draw.random(n) < 0.75
        self.vectors = {
            "text": seen(slice(0, 6), 24, 1.5),
            "image": seen(slice(0, 3), 12, 1.0),
            "collaborative": seen(slice(0, 4), 8, 0.3),
        }
        self.there = {
            "text": draw.random(n) < 0.95,
            "image": draw.random(n) < 0.6,
            "collaborative": self.train & (draw.random(n) < 0.9),
        }
        self.there["text"][:3] = self.there["image"][:3] = self.there["collaborative"][:3] = False
        near = nearest(tastes[:, :4], top=4)  # what is bought together
        self.pairs = np.stack([np.repeat(np.arange(n), 4), near.ravel()], axis=1)
        people = draw.standard_normal((150, TASTES))  # each has the five train items they like most
        liked = np.where(self.train, people[:, :4] @ tastes[:, :4].T, -np.inf)
        self.events = Events(np.repeat(np.arange(150), 5), np.argsort(-liked, axis=1)[:, :5].ravel())
        for name, there in self.there.items():
            self.vectors[name][~there] = 0.0

    def inputs(self, names: tuple[str, ...]) -> dict[str, Modality]:
        return {name: Modality(InMemory(self.vectors[name]), self.there[name], name) for name in names}

    def names(self, method: str) -> tuple[str, ...]:
        return (
            ("text", "image")
            if METHODS[method][0] in ("pairs-contrastive", "graph")
            else ("text", "image", "collaborative")
        )

    def fit(self, method: str, **options: Any) -> Fitted:
        if METHODS[method][0] not in ("concat", "pca"):
            pytest.importorskip("torch")
        fusion = made(method, **options)
        pairs = self.pairs if fusion.needs_pairs else None
        return fusion.fit(self.inputs(self.names(method)), self.train, pairs, self.events)

    def vectors_of(self, names: Any) -> dict[str, np.ndarray]:
        return {name: self.vectors[name] for name in names}

    def there_of(self, names: Any) -> dict[str, np.ndarray]:
        return {name: self.there[name] for name in names}

    def transform(self, fitted: Fitted, rows: Any = slice(None)) -> np.ndarray:
        return fitted.transform(
            {name: self.vectors[name][rows] for name in fitted.dims},
            {name: self.there[name][rows] for name in fitted.dims},
        )


def made(method: str, **options: Any) -> Fusion:
    name, own = METHODS[method]
    return fusion_named(name)(**{**own, **options})


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted()


@pytest.fixture(scope="module")
def fits(planted: Planted) -> Mapping[str, Fitted]:
    """Every method fitted once, when it is asked for."""

    class Kept(dict[str, Fitted]):
        def __missing__(self, method: str) -> Fitted:
            self[method] = planted.fit(method)
            return self[method]

    return Kept()


# --- the contract of all methods


@every_method
def test_vectors_are_finite_and_zero_only_where_nothing_is_there(
    planted: Planted, fits: Mapping[str, Fitted], method: str
) -> None:
    fitted = fits[method]
    there = {name: planted.there[name] for name in fitted.dims}
    tables = fitted.tables({name: planted.vectors[name] for name in fitted.dims}, there)
    assert {name: Y.shape[1] for name, (Y, _) in tables.items()} == fitted.widths
    for name, (Y, mask) in tables.items():
        assert Y.dtype == np.float32
        assert Y.shape == (N, fitted.widths[name])
        assert np.isfinite(Y).all()
        assert (Y.any(axis=1) == mask).all()
        assert not mask[:3].any()
        assert mask.mean() > 0.9
        if getattr(fitted.fusion, "normalize", True):
            np.testing.assert_allclose(np.linalg.norm(Y[mask], axis=1), 1, rtol=1e-5)


@every_method
def test_the_same_call_gives_the_same_bytes(
    planted: Planted, fits: Mapping[str, Fitted], method: str
) -> None:
    again = planted.fit(method)
    assert again.facts == fits[method].facts
    assert planted.transform(again).tobytes() == planted.transform(fits[method]).tobytes()


@every_method
def test_what_is_saved_transforms_the_same(
    planted: Planted, fits: Mapping[str, Fitted], method: str, tmp_path: Path
) -> None:
    fits[method].save(tmp_path)
    loaded = load_fusion(tmp_path)
    assert planted.transform(loaded).tobytes() == planted.transform(fits[method]).tobytes()
    assert loaded.fusion == fits[method].fusion
    assert loaded.facts == fits[method].facts
    assert loaded.kinds == fits[method].kinds
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fusion.json", "fusion.safetensors"]


@every_method
def test_where_blocks_are_cut_does_not_matter(
    planted: Planted, fits: Mapping[str, Fitted], method: str
) -> None:
    whole = planted.transform(fits[method])
    cuts = [0, 1, 2, 5, 66, 67, 131, 300, N]
    parts = [planted.transform(fits[method], slice(*ends)) for ends in pairwise(cuts)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


@every_method
def test_only_items_with_a_train_event_are_fitted_on(
    planted: Planted, fits: Mapping[str, Fitted], method: str
) -> None:
    other = Planted()
    for name in other.vectors:
        other.vectors[name][~other.train] = 100.0
        other.there[name] = other.there[name] | ~other.train
    again = other.fit(method)
    assert again.facts == fits[method].facts
    assert all(np.array_equal(again.arrays[name], array) for name, array in fits[method].arrays.items())
    other.vectors["text"][
        np.flatnonzero(other.train & other.there["text"] & other.there["collaborative"])[0]
    ] += 1
    assert other.fit(method).facts["fit_sha256"] != fits[method].facts["fit_sha256"]


@every_method
def test_what_stands_in_the_rows_of_missing_modalities_does_not_matter(
    planted: Planted, fits: Mapping[str, Fitted], method: str
) -> None:
    other = Planted()
    for name, there in other.there.items():
        other.vectors[name][~there] = 7.0
    assert other.fit(method).facts == fits[method].facts
    assert other.transform(fits[method]).tobytes() == planted.transform(fits[method]).tobytes()


@every_method
def test_at_most_so_many_items_are_fitted_on(planted: Planted, method: str) -> None:
    few = planted.fit(method, fit_items=120)
    assert few.facts["fit_items"] == 120
    assert few.facts["fit_items_in_scope"] > 120
    assert few.facts["fit_scope"] == "items with a train event"
    other = planted.fit(method, fit_items=120, seed=1)
    assert other.facts["seed"] == 1
    assert other.facts["fit_sha256"] != few.facts["fit_sha256"]


@every_method
def test_facts_are_json(fits: Mapping[str, Fitted], method: str) -> None:
    json.dumps(fits[method].facts, allow_nan=False)


def test_a_saved_fusion_is_used_without_torch(fits: Mapping[str, Fitted], tmp_path: Path) -> None:
    fits["adaln"].save(tmp_path)
    code = (
        "import sys, numpy as np; from sid_pipelines.fusion import load_fusion; "
        f"fitted = load_fusion({str(tmp_path)!r}); n = 3; "
        "made = fitted.transform({k: np.ones((n, d), np.float32) for k, d in fitted.dims.items()}, "
        "{k: np.ones(n, bool) for k in fitted.dims}); print(made.shape, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(3, 16) False\n"


# --- what is refused


@pytest.mark.parametrize(
    ("method", "options", "inputs", "named"),
    [
        ("concat", {"weights": {"txet": 1.0}}, None, "txet"),
        ("concat", {"weights": {"text": 0.0}}, None, "weights"),
        ("concat", {"whiten": "cholesky"}, None, "cholesky"),
        ("concat", {"whiten": {"image": "cholesky"}}, None, "cholesky"),
        ("concat", {"dims": {"image": -1}}, None, "dims"),
        ("concat", {"dims": 3, "whiten": "zca"}, None, "dims"),
        ("concat", {"shrinkage": 1.5}, None, "shrinkage"),
        ("concat", {"seed": -1}, None, "seed"),
        ("concat", {"fit_items": -1}, None, "fit_items"),
        ("concat", {}, {}, "input"),
        ("pca", {"dim": 0}, None, "dim"),
        ("adaln", {"temperature": 0.0}, None, "temperature"),
        ("adaln", {"whiten": "cholesky"}, None, "cholesky"),
        ("adaln", {}, {"text": "text"}, "collaborative"),
        ("adaln", {}, {"a": "collaborative", "b": "collaborative", "text": "text"}, "collaborative"),
        ("adaln", {}, {"a": "collaborative"}, "text or image"),
        ("cf-align", {"output": "content"}, None, "output"),
        ("cf-align", {"share": 1.0}, None, "share"),
        ("cf-align", {"hidden": -1}, None, "hidden"),
        ("cf-align", {"epochs": 0}, None, "epochs"),
        ("cf-align", {"batch_size": 1}, None, "batch_size"),
        ("cf-align", {"max_steps": -1}, None, "max_steps"),
        ("cf-align", {"learning_rate": 0.0}, None, "learning_rate"),
        ("pairs", {}, None, "collaborative"),
        ("pairs", {"dim": -1}, {"text": "text"}, "dim"),
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(
    method: str, options: dict[str, Any], inputs: dict[str, str] | None, named: str
) -> None:
    every = {name: name for name in ("text", "image", "collaborative")}
    with pytest.raises(DataError, match=named):
        made(method, **options).check_params(every if inputs is None else inputs)


def test_what_the_data_does_not_allow_is_refused(planted: Planted) -> None:
    inputs = planted.inputs(("text", "image"))
    for options, named in (({"dims": 13}, "dims"), ({"dims": {"image": 13}}, "dims")):
        with pytest.raises(DataError, match=named):
            made("concat", **options).fit(inputs, planted.train)
    with pytest.raises(DataError, match="at most 36"):
        made("pca", dim=37).fit(inputs, planted.train)
    with pytest.raises(DataError, match="0 items can be fitted on"):
        made("concat").fit(inputs, np.zeros(N, dtype=bool))
    with pytest.raises(DataError, match="as many items"):
        made("concat").fit(inputs, planted.train[:-1])
    empty = {"image": replace(inputs["image"], present=np.zeros(N, dtype=bool)), "text": inputs["text"]}
    with pytest.raises(DataError, match="no fit item has input 'image'"):
        made("concat").fit(empty, planted.train)
    with pytest.raises(DataError, match="expected item pairs"):
        made("pairs").fit(inputs, planted.train)
    fitted = made("concat").fit(inputs, planted.train)
    with pytest.raises(DataError, match="expected inputs text, image"):
        fitted.transform({"text": planted.vectors["text"]}, {"text": planted.there["text"]})
    with pytest.raises(DataError, match=r"expected shape \(400, 12\), got \(400, 24\)"):
        fitted.transform(
            {"text": planted.vectors["text"], "image": planted.vectors["text"]},
            {"text": planted.there["text"], "image": planted.there["text"]},
        )


def test_pairs_that_leave_the_fit_items_are_not_used(planted: Planted) -> None:
    pytest.importorskip("torch")
    cold = np.flatnonzero(~planted.train)
    with pytest.raises(DataError, match="can be fitted on"):
        made("pairs").fit(planted.inputs(("text",)), planted.train, np.stack([cold, cold[::-1]], axis=1))
    own = np.flatnonzero(planted.train)[:5]
    own = np.stack([own, own], axis=1)
    with pytest.raises(DataError, match="0 pairs lie among"):
        made("pairs").fit(planted.inputs(("text",)), np.ones(N, dtype=bool), own)


def test_a_missing_package_is_named_with_its_extra(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"'adaln-infonce' \(torch\).*sidmill\[torch\]"):
        made("adaln").fit(planted.inputs(("text", "collaborative")), planted.train)
    made("concat").fit(planted.inputs(("text", "collaborative")), planted.train)


def test_unknown_names_and_damaged_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="'conact'; there are: concat, pca"):
        fusion_named("conact")
    with pytest.raises(DataError, match=r"holds no fusion"):
        load_fusion(tmp_path)
    (tmp_path / "fusion.json").write_text('{"format": 99}')
    with pytest.raises(DataError, match="format 1, got 99"):
        load_fusion(tmp_path)


def test_every_method_says_where_it_is_from() -> None:
    for name, fusion in FUSIONS.items():
        assert fusion.name == name
        assert "[D]" in fusion.source
        assert any(mark in fusion.source for mark in ("[P]", "[S]", "[C]"))
        assert fusion.needs in (None, ("torch", "torch"))
        if name not in ("concat", "pca"):
            assert fusion.needs


# --- golden maths


@given(st.integers(2, 12), st.integers(0, 2**16))
def test_whitened_rows_have_the_identity_as_covariance(d: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    X = (draw.standard_normal((200, d)) @ draw.standard_normal((d, d)) + draw.standard_normal(d)).astype("f4")
    if np.linalg.cond(np.cov(X.T, ddof=0).reshape(d, d)) > 1e5:
        return
    for kind in ("pca", "zca"):
        Y = Whitening.learned(X, kind)[0](X)
        np.testing.assert_allclose(np.cov(Y.T, ddof=0).reshape(d, d), np.eye(d), atol=0.02)
        np.testing.assert_allclose(Y.mean(axis=0), 0, atol=0.02)
    scaled = Whitening.learned(X, "pca", shrinkage=1.0)[0](X)  # a turn, and one number
    np.testing.assert_allclose(
        np.linalg.norm(scaled, axis=1), np.linalg.norm(Whitening.learned(X, "scale")[0](X), axis=1), rtol=1e-3
    )
    kept = [Whitening.learned(X, "none", dims=k)[1] for k in range(1, d + 1)]
    assert kept == sorted(kept)
    assert kept[-1] == pytest.approx(1)


def test_zca_is_the_whitening_nearest_to_what_was(planted: Planted) -> None:
    X = planted.vectors["text"][planted.there["text"]]
    zca, pca = (Whitening.learned(X, kind)[0] for kind in ("zca", "pca"))
    np.testing.assert_allclose(zca.matrix, zca.matrix.T, atol=1e-5)
    centred = X - X.mean(axis=0)
    assert np.square(zca(X) - centred).sum() < np.square(pca(X) - centred).sum()


def test_directions_have_declared_signs_and_none_are_made_of_nothing() -> None:
    X = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    X = np.concatenate([X, X[:, :1], np.ones((50, 1), np.float32)], axis=1)  # of rank 3
    matrix = Whitening.learned(X, "none", dims=3)[0].matrix
    assert (matrix[np.abs(matrix).argmax(axis=0), np.arange(3)] > 0).all()
    whitened = Whitening.learned(X, "pca")[0](X)
    np.testing.assert_allclose(whitened[:, 3:], 0, atol=1e-6)
    assert not Whitening.learned(np.ones((4, 2), np.float32), "pca")[0](np.ones((4, 2), np.float32)).any()


@pytest.mark.parametrize("unit", [True, False])
def test_a_weight_is_the_share_of_squared_length(planted: Planted, unit: bool) -> None:
    names = ("text", "collaborative")
    fitted = fusion_named("concat")(
        weights={"text": 3.0}, unit_blocks=unit, normalize=False, whiten="pca", shrinkage=0.2
    ).fit(planted.inputs(names), planted.train)
    assert fitted.facts["weights"] == {"text": 0.75, "collaborative": 0.25}
    both = planted.train & planted.there["text"] & planted.there["collaborative"]
    Y = planted.transform(fitted, both)
    assert np.square(Y[:, :24]).sum(axis=1).mean() == pytest.approx(0.75, rel=1e-3 if unit else 0.05)
    assert np.square(Y[:, 24:]).sum(axis=1).mean() == pytest.approx(0.25, rel=1e-3 if unit else 0.05)


def test_lengths_stay_comparable_where_a_modality_is_missing(planted: Planted) -> None:
    options = {"weights": {"text": 1.0, "collaborative": 3.0}, "normalize": False}
    alone = planted.there["text"] & ~planted.there["collaborative"]
    for rescaled, length in ((True, 1.0), (False, 0.25)):
        fusion = fusion_named("concat")(rescale_missing=rescaled, **options)
        fitted = fusion.fit(planted.inputs(("text", "collaborative")), planted.train)
        Y = planted.transform(fitted, alone)
        assert not Y[:, 24:].any()
        np.testing.assert_allclose(np.square(Y).sum(axis=1), length, rtol=1e-4)


def test_pca_keeps_what_varies_most(planted: Planted) -> None:
    inputs = planted.inputs(("text", "image"))
    shares = []
    for dim in (2, 8, 36):
        fitted = fusion_named("pca")(dim=dim, normalize=False).fit(inputs, planted.train)
        shares.append(fitted.facts["explained_variance_pca"])
    assert shares[0] < shares[1] < shares[2] == 1.0
    plain = fusion_named("concat")(normalize=False).fit(inputs, planted.train)
    near = np.linalg.norm(planted.transform(fitted)[:, None, :] - planted.transform(fitted)[None], axis=2)
    far = np.linalg.norm(planted.transform(plain)[:, None, :] - planted.transform(plain)[None], axis=2)
    some = planted.there["text"] | planted.there["image"]
    np.testing.assert_allclose(near[some][:, some], far[some][:, some], atol=1e-4)


def test_adaln_is_the_formula() -> None:
    draw = np.random.default_rng(0)
    arrays = {f"weight_{part}": draw.standard_normal((5, 7)).astype("f4") for part in "wst"}
    arrays |= {f"bias_{part}": draw.standard_normal(5).astype("f4") for part in "wst"}
    X = draw.standard_normal((11, 7)).astype(np.float32)
    for x, found in zip(X, adaln(arrays, X), strict=True):
        h = arrays["weight_w"] @ x + arrays["bias_w"]
        normal = (h - h.mean()) / np.sqrt(h.var() + 1e-5)
        s, t = (arrays[f"weight_{part}"] @ x + arrays[f"bias_{part}"] for part in "st")
        np.testing.assert_allclose(found, (1 + s) * normal + t, rtol=1e-4, atol=1e-5)


def test_info_nce_is_the_formula() -> None:
    torch = pytest.importorskip("torch")
    from sid_pipelines.fusion.training import info_nce

    draw = np.random.default_rng(0)
    A, B = draw.standard_normal((2, 6, 4)).astype(np.float32)
    taken = np.zeros((6, 6), dtype=bool)
    taken[0, 3] = taken[4, 2] = True

    def slow(A: np.ndarray, B: np.ndarray, taken: np.ndarray) -> float:
        total = 0.0
        for i in range(6):
            like = [A[i] @ B[j] / np.linalg.norm(A[i]) / np.linalg.norm(B[j]) / 0.07 for j in range(6)]
            others = [np.exp(like[j]) for j in range(6) if not taken[i, j]]
            total -= like[i] - np.log(sum(others))
        return total / 6

    expected = (slow(A, B, taken) + slow(B, A, taken.T)) / 2
    found = info_nce(torch.from_numpy(A), torch.from_numpy(B), 0.07, torch.from_numpy(taken))
    assert float(found) == pytest.approx(expected, rel=1e-4)


# --- what training is for


def test_adaln_finds_items_by_behaviour(planted: Planted, fits: Mapping[str, Fitted]) -> None:
    """Row 16: E_T of an item comes nearest to its E_C; also for items that were not trained on."""
    fitted = fits["adaln"]
    assert fitted.facts["top_1"]["trained"] > 5 * fitted.facts["top_1"]["untrained"]
    assert fitted.facts["losses"]["last"] < fitted.facts["losses"]["first"]
    Y, there = planted.transform(fitted), planted.there
    cold = there["text"] & ~there["collaborative"]
    assert np.array_equal(Y[cold, :8], Y[cold, 8:])
    known = there["collaborative"] & ~there["text"] & ~there["image"]
    assert known.any()
    assert np.array_equal(Y[known, :8], Y[known, 8:])
    tables = fitted.tables({name: planted.vectors[name] for name in fitted.dims}, planted.there)
    content, has_content = tables["content"]
    assert np.array_equal(has_content, there["text"] | there["image"])
    np.testing.assert_allclose(content[has_content] * 0.5**0.5, Y[has_content, 8:], rtol=1e-6)


def test_training_is_kept_from_items_held_out_and_still_helps_them(planted: Planted) -> None:
    """Items that are not fitted on come nearer to their neighbours by behaviour, by content alone."""
    pytest.importorskip("torch")
    inputs = planted.inputs(("text", "collaborative"))
    fitted_on = planted.train & (np.arange(N) % 5 > 0)
    queries = planted.there["text"] & ~fitted_on
    tastes = nearest(planted.tastes[:, :4], top=10)
    wanted = np.array([(i, j) for i in np.flatnonzero(queries) for j in tastes[i]])

    def found(Y: np.ndarray) -> float:
        return cooccurrence_recall_at(Y, wanted, top=10)

    before = found(planted.vectors["text"])
    assert found(planted.transform(made("cf-align", epochs=60).fit(inputs, fitted_on))) > before
    adapted = made("adaln", epochs=60, learning_rate=1e-2).fit(inputs, fitted_on)
    content = adapted.tables(planted.vectors_of(inputs), planted.there_of(inputs))["content"][0]
    assert found(content) > before


def test_pairs_bring_held_out_pairs_together(planted: Planted) -> None:
    pytest.importorskip("torch")
    held_out = np.random.default_rng(0).random(len(planted.pairs)) < 0.2
    has = planted.there["text"][planted.pairs].all(axis=1)
    inputs = planted.inputs(("text",))
    wanted = planted.pairs[held_out & has]
    before = cooccurrence_recall_at(planted.vectors["text"], wanted, top=10)
    for method in ("pairs", "pairs, hidden"):
        fitted = made(method, epochs=40).fit(inputs, planted.train, planted.pairs[~held_out])
        assert cooccurrence_recall_at(planted.transform(fitted), wanted, top=10) > 1.1 * before
    still = made("pairs", epochs=1, learning_rate=1e-12).fit(inputs, planted.train, planted.pairs)
    start = fusion_named("concat")(unit_blocks=False).fit(inputs, planted.train)
    assert still.facts["pairs"] < len(planted.pairs)
    likeness = np.einsum("ij,ij->i", planted.transform(still), planted.transform(start))
    np.testing.assert_allclose(likeness[planted.there["text"]], 1, atol=0.01)  # f is zero at the start


# --- the stage


@pytest.fixture
def parents(planted: Planted, tmp_path: Path) -> dict[str, StageOutput]:
    """What fuse reads, as the stages before it write it."""
    store = StageStore(tmp_path / "w", "d")
    items = pa.table(
        {"item_index": pa.array(range(N), pa.int32()), "item_id": [f"i{n:03}" for n in range(N)]}
    )
    made_of: dict[str, StageOutput] = {}
    for name in ("text", "image", "collaborative"):
        with store.write(f"embed_{name}", "0", {}) as draft:
            work = Work(None, {}, draft, Resources(), lambda done, total: None)
            blocks = [(planted.vectors[name], planted.there[name])]
            facts = write_embeddings(
                work, name=name, dim=blocks[0][0].shape[1], dtype="float32", items=items, blocks=blocks
            )
            made_of[f"embed:{name}"] = draft.commit(facts, "")
    known = np.flatnonzero(planted.train)
    events = {
        field.name: pa.nulls(len(known), field.type).fill_null("" if field.type == pa.string() else 0)
        for field in INTERACTIONS.arrow()
    }
    events |= {
        "user_index": pa.array(np.zeros(len(known), np.int32)),
        "item_index": pa.array(known.astype(np.int32)),
        "split": pa.array(["train"] * len(known)),
    }
    pairs = {
        "item_index": pa.array(planted.pairs[:, 0].astype(np.int32)),
        "other_index": pa.array(planted.pairs[:, 1].astype(np.int32)),
        "kind": pa.array(["swing" if n % 2 else "u2i" for n in range(len(planted.pairs))]),
        "score": pa.nulls(len(planted.pairs), pa.float64()),
    }
    for stage, table, columns in (("split", INTERACTIONS, events), ("pairs", ITEM_PAIRS, pairs)):
        with store.write(stage, "0", {}) as draft:
            draft.write(table, pa.table(columns))
            made_of[stage] = draft.commit({}, "")
    return made_of


def fused(
    parents: dict[str, StageOutput], folder: Path, method: str, *inputs: str, **options: Any
) -> tuple[StageOutput, str]:
    params = FuseParams(method, fusion_named(method)(**options).params(), inputs)
    with StageStore(folder, "d").write("fuse", "0", {}) as draft:
        outcome = fuse.run(Work(params, parents, draft, Resources(), lambda done, total: None))
        return draft.commit(outcome.facts, outcome.summary), outcome.summary


def test_the_stage_writes_vectors_coverage_and_the_transform(
    planted: Planted, parents: dict[str, StageOutput], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("text", "image", "collaborative")
    output, summary = fused(parents, tmp_path / "one", "concat", *names)
    table = output.read("embeddings_fused")
    vectors = np.stack(table["vector"].to_numpy())
    present = np.logical_or.reduce([planted.there[name] for name in names])
    assert np.array_equal(table["present"].to_numpy(), present)
    assert not vectors[~present].any()
    facts = output.facts
    assert (facts["name"], facts["dim"], facts["items"], facts["method"]) == (
        "embeddings_fused",
        44,
        N,
        "concat",
    )
    assert facts["missing"] == facts["items_with"]["none"] == (~present).sum()
    assert sum(facts["items_with"].values()) == N
    both = planted.there["text"] & planted.there["image"] & ~planted.there["collaborative"]
    assert facts["items_with"]["text+image"] == both.sum()
    assert facts["inputs"]["image"]["coverage"] == pytest.approx(planted.there["image"].mean())
    assert facts["inputs"]["image"]["modality"] == "image"
    assert facts["fit_items"] == (planted.train & present).sum()
    assert facts["zero_vectors"] == 0
    assert "concat of text 9" in summary
    assert "without any" in summary
    loaded = load_fusion(output.folder / "fusion")
    assert planted.transform(loaded).tobytes() == vectors.tobytes()

    monkeypatch.setattr(fuse, "ROWS", 37)
    again, _ = fused(parents, tmp_path / "two", "concat", *names)
    assert np.stack(again.read("embeddings_fused")["vector"].to_numpy()).tobytes() == vectors.tobytes()
    assert again.facts == facts


def test_the_stage_writes_further_tables(
    planted: Planted, parents: dict[str, StageOutput], tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    output, _ = fused(parents, tmp_path / "o", "adaln-infonce", "text", "collaborative", epochs=3)
    content = output.read("embeddings_fused_content")
    assert np.array_equal(content["present"].to_numpy(), planted.there["text"])
    (further,) = output.facts["further"]
    assert (further["name"], further["dim"]) == ("embeddings_fused_content", 8)
    assert further["present"] == planted.there["text"].sum()
    assert output.facts["dim"] == 16


def test_the_stage_takes_pairs_of_the_kinds_that_are_named(
    planted: Planted, parents: dict[str, StageOutput], tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    counts = {}
    for place, kinds in enumerate([(), ("swing",), ("u2i",), ("swing", "u2i")]):
        output, _ = fused(parents, tmp_path / str(place), "pairs-contrastive", "text", kinds=kinds, epochs=1)
        counts[kinds] = output.facts["pairs"]
    assert counts[()] == counts[("swing", "u2i")] > max(counts[("swing",)], counts[("u2i",)]) > 0
    with pytest.raises(DataError, match="no kind 'swings'; there are: swing, u2i"):
        fused(parents, tmp_path / "x", "pairs-contrastive", "text", kinds=("swings",))


def test_what_was_put_in_place_is_used_but_not_fitted_on(
    planted: Planted, parents: dict[str, StageOutput], tmp_path: Path
) -> None:
    """An item whose vector was mapped from content is fused with it; it is not `present` by that alone."""
    plain, _ = fused(parents, tmp_path / "a", "concat", "text", "collaborative")
    table = parents["embed:collaborative"].read("embeddings_collaborative")
    filled = np.where(
        planted.there["collaborative"][:, None], planted.vectors["collaborative"], np.float32(1)
    )
    store = StageStore(tmp_path / "b", "d")
    with store.write("embed_collaborative", "0", {}) as draft:
        work = Work(None, {}, draft, Resources(), lambda done, total: None)
        facts = write_embeddings(
            work,
            name="collaborative",
            dim=8,
            dtype="float32",
            items=table.select(["item_index", "item_id"]),
            blocks=[(filled, planted.there["collaborative"])],
        )
        mapped = draft.commit(facts, "")
    output, _ = fused(
        {**parents, "embed:collaborative": mapped}, tmp_path / "c", "concat", "text", "collaborative"
    )
    for fact in ("fit_items", "fit_sha256", "weights"):
        assert output.facts[fact] == plain.facts[fact]
    assert output.facts["items_with"] == plain.facts["items_with"]
    before, after = (np.stack(o.read("embeddings_fused")["vector"].to_numpy()) for o in (plain, output))
    known = planted.there["collaborative"]
    assert np.array_equal(before[known], after[known])
    cold = ~known & planted.there["text"]
    assert (after[cold][:, 24:].any(axis=1)).all()
    assert not before[cold][:, 24:].any()
    assert np.array_equal(
        output.read("embeddings_fused")["present"].to_numpy(), known | planted.there["text"]
    )


def test_the_graph_fusion_knows_its_fit_items_and_takes_new_ones(
    planted: Planted, fits: Mapping[str, Fitted]
) -> None:
    """A fit item has its neighbours in its vector; without them it is made like a new one."""
    pytest.importorskip("torch")
    fitted = fits["graph"]
    known = fitted.arrays["fit:items"]
    assert np.array_equal(
        known, np.flatnonzero(planted.train & (planted.there["text"] | planted.there["image"]))
    )
    blocks, there = planted.vectors_of(fitted.dims), planted.there_of(fitted.dims)
    own = fitted.transform(blocks, there)
    put = fitted.transform(blocks, there, np.arange(N))
    assert np.array_equal(put[known], fitted.arrays["fit:vectors"])
    new = np.setdiff1d(np.arange(N), known)
    assert np.array_equal(put[new], own[new])
    rows = np.array([known[3], new[5], known[0]])
    some = fitted.transform(
        *({name: one[rows] for name, one in part.items()} for part in (blocks, there)), rows
    )
    assert np.array_equal(some, put[rows])
    # Without neighbours there is nothing to know of an item but its content.
    alone = planted.fit("graph", neighbours=False)
    assert np.allclose(
        alone.transform(blocks, there, np.arange(N)), alone.transform(blocks, there), atol=1e-4
    )
    assert not np.allclose(put[known], own[known], atol=0.05)


def test_the_graph_fusion_says_what_it_lacks(planted: Planted) -> None:
    pytest.importorskip("torch")
    graph = made("graph")
    with pytest.raises(DataError, match="'graph': expected train events, got none"):
        graph.fit(planted.inputs(("text",)), planted.train)
    with pytest.raises(
        DataError, match="text and image inputs alone, because behaviour comes from the events"
    ):
        graph.check_params({"text": "text", "cf": "collaborative"})
    nothing = np.empty(0, dtype=np.int64)
    with pytest.raises(DataError, match="the fit items have no train event"):
        graph.fit(planted.inputs(("text",)), planted.train, None, Events(nothing, nothing))


# --- real data


@pytest.fixture(scope="module")
def quality() -> Any:
    """The benchmark's functions, so that the tests measure what the table in the docs does."""
    spec = importlib.util.spec_from_file_location(
        "embedding_quality", ROOT / "benchmarks" / "embedding_quality.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def real_inputs(
    quality: Any, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """MiniLM's and PPMI-SVD's vectors of one data set; those of MovieTweetings' texts are the example's."""
    pytest.importorskip("sentence_transformers")
    if not quality.DATA[request.param][1].is_dir():
        pytest.skip(f"the dump is not there: {quality.DATA[request.param][1]}")
    quality.CACHE = tmp_path_factory.mktemp("cache")
    data = quality.known(request.param)
    inputs = quality.Inputs(data)
    if request.param == "movietweetings":
        items = request.getfixturevalue("example").outputs["clean"].read("items_clean")
        assert items["item_id"].to_pylist() == data.ids
        texts = request.getfixturevalue("real")
    else:
        texts = quality.text_vectors(data)
    inputs.add("text", "text", texts, np.ones(len(data.ids), dtype=bool))
    inputs.add("ppmi-svd", "collaborative", *quality.collaborative_vectors(data, "ppmi-svd"))
    return inputs


@pytest.mark.realdata
@pytest.mark.parametrize(
    "real_inputs", [pytest.param("ml-100k", marks=pytest.mark.proof), "movietweetings"], indirect=True
)
def test_fused_vectors_beat_each_alone(quality: Any, real_inputs: Any) -> None:
    """Settings chosen on valid events, measured on test events; and what each of the others is for."""
    data, names = real_inputs.data, ("text", "ppmi-svd")
    text, behaviour = (real_inputs.vectors[name][0] for name in names)
    pairs = data.pairs("test")

    def found(vectors: np.ndarray) -> float:
        return float(cooccurrence_recall_at(vectors, pairs))

    agree, chance = quality.label_agreement(text, data.labels)
    assert agree > chance + 0.3
    by_chance = 20 / (len(text) - 1)
    assert found(behaviour) > 3 * by_chance
    settings = quality.candidates(("text",), "ppmi-svd", ("scale",))[:6:2]  # three weights, unit blocks
    chosen = quality.chosen(real_inputs, names, settings)
    concat = found(real_inputs.fuse(fusion_named("concat")(**chosen), names))
    assert concat > found(text)
    assert concat > found(behaviour)

    pytest.importorskip("torch")
    projected = real_inputs.fuse(fusion_named("cf-align")(), names)
    assert found(projected) > found(text)
    held_by_text = real_inputs.fuse(
        fusion_named("pairs-contrastive")(max_steps=100), ("text",), quality.train_pairs(data)
    )
    assert found(held_by_text) > 1.1 * found(text)
    adapted = real_inputs.fuse(fusion_named("adaln-infonce")(), names)
    assert found(adapted) > found(text)
    there = real_inputs.vectors["ppmi-svd"][1]
    naive = np.concatenate([unit_rows(text), unit_rows(behaviour)], axis=1)
    by_concat = quality.recovered(naive, behaviour, there)
    assert quality.recovered(adapted, behaviour, there) > by_concat  # row 16, on items it was trained on
