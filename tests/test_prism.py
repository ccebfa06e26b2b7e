"""PRISM: gates follow popularity, codes follow tags and all are in use; and none with its rule off."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from sid_schemas import DataError
from sid_tokenizers import PRISM, Catalogue
from sid_tokenizers.base import Vectors
from sid_tokenizers.learned.perceptron import Perceptron, layer_norm
from sid_tokenizers.learned.prism import gate_values, popularity_scores, tag_numbers
from sid_tokenizers.metrics import level_metrics, purity_by_prefix

torch = pytest.importorskip("torch")

from sid_tokenizers.learned import prism_network as networks  # noqa: E402
from sid_tokenizers.learned.rq_vae_network import Layers, imbalance  # noqa: E402

QUICK = {"levels": [32, 32, 32], "hidden": [128, 64], "warmup_epochs": 3, "phase1_epochs": 6, "epochs": 15}


@pytest.fixture(scope="module")
def stacked(real: Vectors, known: Catalogue) -> Vectors:
    assert known.cf is not None
    return np.concatenate([real, known.cf], axis=1)


@pytest.fixture(scope="module")
def fitted(stacked: Vectors, known: Catalogue) -> PRISM:
    return prism().fit(stacked, about=known)


def prism(**more: object) -> PRISM:
    return PRISM(**{**QUICK, **more})  # type: ignore[arg-type]


def purity(tokenizer: PRISM, X: Vectors, about: Catalogue) -> tuple[float, float]:
    """Purity of level-1 codes by the first tag, and what it is by chance."""
    assert about.categories is not None
    found = purity_by_prefix(tokenizer.encode(X)[:, :1], tag_numbers(about.categories, 0))[0]
    return float(found["purity"]), float(found["shuffled"])


def test_gates_rise_with_popularity(fitted: PRISM, stacked: Vectors, known: Catalogue) -> None:
    assert spearmanr(fitted.gates(stacked), known.popularity)[0] > 0.4
    without = prism(gate_weight=0.0).fit(stacked, about=known)
    assert spearmanr(without.gates(stacked), known.popularity)[0] < 0.2


def test_level_1_knows_the_tags(fitted: PRISM, stacked: Vectors, known: Catalogue) -> None:
    found, chance = purity(fitted, stacked, known)
    without, _ = purity(prism(anchor_weight=0.0).fit(stacked, about=known), stacked, known)
    assert found > chance + 0.2
    assert found > without + 0.1


def test_every_code_is_in_use(stacked: Vectors, known: Catalogue) -> None:
    def used(restart: bool) -> list[int]:
        tokenizer = prism(levels=[128] * 3, restart=restart).fit(stacked, about=known)
        return [len(np.unique(column)) for column in tokenizer.encode(stacked).T]

    assert min(used(True)) > 0.95 * 128
    assert min(used(False)) < 0.6 * 128


def test_balance_evens_out_the_use(stacked: Vectors, known: Catalogue) -> None:
    """Entropy of the codes of one level over three seeds; a weight of 0.5 shows best what 0.1 does."""

    def evenness(balance: float) -> float:
        settings = {"levels": [32], "anchor_weight": 0.0, "restart": False, "balance_weight": balance}
        fits = [prism(**settings, seed=seed).fit(stacked, about=known) for seed in range(3)]
        return float(np.mean([level_metrics(one.encode(stacked)[:, 0], 32)["entropy_ratio"] for one in fits]))

    assert evenness(0.5) > evenness(0.0) + 0.15


def test_both_parts_come_back_in_direction_and_mean_length(
    fitted: PRISM, stacked: Vectors, known: Catalogue
) -> None:
    decoded = fitted.decode(fitted.encode(stacked))
    assert decoded.shape == stacked.shape
    assert not fitted.reconstructs
    assert known.cf is not None
    own = stacked.shape[1] - known.cf.shape[1]
    gated = known.cf * gate_values(fitted.gate_, known.cf / fitted.scale_[1])
    for found, given in ((decoded[:, :own], stacked[:, :own]), (decoded[:, own:], gated)):
        lengths = [np.linalg.norm(rows, axis=1) for rows in (found, given)]
        assert np.allclose(lengths[0], lengths[1].mean(), rtol=1e-3)
        cosine = (found * given).sum(axis=1) / np.maximum(lengths[0] * lengths[1], 1e-9)
        assert cosine.mean() > 0.5


def test_numpy_runs_what_torch_learned(fitted: PRISM, stacked: Vectors) -> None:
    layers = Layers([6, 9, 7, 4], torch.Generator().manual_seed(0), normed=True)
    x = np.random.default_rng(0).normal(size=(3000, 6)).astype(np.float32)
    np.testing.assert_allclose(layers.to_numpy()(x), layers(torch.from_numpy(x)).detach(), atol=1e-5)
    normed = torch.nn.functional.layer_norm(torch.from_numpy(x), (6,))
    np.testing.assert_allclose(layer_norm(x), normed, atol=1e-5)
    gate = Perceptron((np.eye(6, dtype=np.float32) * 200,), (np.zeros(6, dtype=np.float32),))
    np.testing.assert_allclose(gate_values(gate, x), torch.sigmoid(torch.from_numpy(x) * 200), atol=1e-6)
    network = networks.Network(384, 64, fitted, torch.Generator().manual_seed(1))
    parts = {"gate_": network.gate.to_numpy(), "encoder_": network.encoder.to_numpy()}
    other = prism().set_params(**fitted.get_params())
    vars(other).update({**vars(fitted), **parts})
    content, cf = other._scaled(stacked)
    _, _, z = network(torch.from_numpy(content), torch.from_numpy(cf))
    np.testing.assert_allclose(other._to_latent(stacked), z.detach(), atol=1e-4)


def test_anchor_error_by_hand() -> None:
    """Two tags lie on two codes: an item on its own tag's is told, one half way is not."""
    book = torch.tensor([[0.0, 0.0], [6.0, 8.0]])
    rows = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0], [6.0, 8.0]])
    error = networks.anchor_error(book.clone(), book, rows, torch.tensor([0, 0, -1, 0]))
    assert error.tolist() == pytest.approx([0.0, np.log(2), 0.0, 10 / networks.TEMPERATURE], abs=1e-4)


def test_gate_error_and_imbalance_by_hand() -> None:
    gates = torch.tensor([[0.0, 0.5], [0.5, 1.0]])  # means 0.25 and 0.75: a variance of 0.0625
    error = networks.gate_error(gates, torch.tensor([0.25, 0.5]))
    lack = networks.SPREAD_WEIGHT * (networks.SPREAD**2 - 0.0625)
    assert error.tolist() == pytest.approx([lack, 0.0625 + lack])
    book = torch.tensor([[0.0], [9.0], [99.0]])
    for rows, expected in (([[0.0], [9.0], [99.0]], 0), ([[9.0], [9.0]], 2)):
        found = imbalance(networks.soft_use(torch.tensor(rows), book))
        assert float(found) == pytest.approx(expected, abs=1e-4)


def test_popularity_and_tags_by_hand() -> None:
    assert popularity_scores(np.array([5, 5, 5])).tolist() == [0.5, 0.5, 0.5]
    assert tag_numbers([["a", "y"], ["b"], ["a", "x"]], 1).tolist() == [1, -1, 0]
    assert tag_numbers([["a"]], 5).tolist() == [-1]


def test_fewer_tags_than_levels(stacked: Vectors, known: Catalogue) -> None:
    bare = replace(known, categories=[[] for _ in known.item_ids])
    codes = prism(epochs=2).fit(stacked, about=bare).encode(stacked)
    assert len(np.unique(codes, axis=0)) > 0.5 * len(stacked)


def test_saved_and_loaded_it_has_the_same_gates(fitted: PRISM, stacked: Vectors, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    again = PRISM.load(tmp_path)
    assert np.array_equal(again.gates(stacked), fitted.gates(stacked))
    assert np.array_equal(again.encode(stacked), fitted.encode(stacked))


def test_what_is_missing_is_named(real: Vectors, stacked: Vectors, known: Catalogue) -> None:
    with pytest.raises(DataError, match=r"prism is fitted on popularity too: pass about=Catalogue\(popul"):
        prism().fit(stacked, about=replace(known, popularity=None))
    with pytest.raises(DataError, match="expected more than 64 columns, the last 64 those of cf, got 64"):
        prism().fit(real[:, :64], about=known)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("decay", 1.0), ("hidden", [4, 0]), ("anchor_weight", -1), ("epochs", 1.5), ("learning_rate", 0.0)],
)
def test_parameters_are_checked(parameter: str, value: object) -> None:
    with pytest.raises(DataError, match=parameter):
        PRISM().set_params(**{parameter: value}).check_params()


def test_divergence_is_told(stacked: Vectors, known: Catalogue) -> None:
    with pytest.raises(DataError, match=r"prism: training diverged .* lower learning_rate \(now 1e\+"):
        prism(learning_rate=1e30).fit(stacked, about=known)
