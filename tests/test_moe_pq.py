"""REG4Rec's experts: codes that say different things, which without orthogonality they do not; and sets."""

from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import normalized_mutual_info_score

from sid_schemas import DataError
from sid_tokenizers import PQ, MoEPQ
from sid_tokenizers.base import Codes, Vectors
from sid_tokenizers.learned.moe_pq import codes_of, pairs_of
from sid_tokenizers.metrics import reconstruction

torch = pytest.importorskip("torch")

from sid_tokenizers.learned import moe_pq_training as loop  # noqa: E402
from sid_tokenizers.learned.rq_vae_network import imbalance  # noqa: E402

QUICK = {"levels": [16] * 4, "hidden": [64], "epochs": 15}


@pytest.fixture(scope="module")
def fitted(real: Vectors) -> MoEPQ:
    return experts().fit(real)


def experts(**more: object) -> MoEPQ:
    return MoEPQ(**{**QUICK, **more})  # type: ignore[arg-type]


def likeness(codes: Codes) -> float:
    """Mean normalized mutual information of two columns."""
    pairs = combinations(codes.T, 2)
    return float(np.mean([normalized_mutual_info_score(one, other) for one, other in pairs]))


def error(tokenizer: MoEPQ | PQ, X: Vectors, codes: Codes) -> float:
    found = reconstruction(X, tokenizer.decode(codes))
    assert found
    return found["relative_error"]


def test_experts_say_different_things(fitted: MoEPQ, real: Vectors) -> None:
    """REG4Rec's check: low NMI between the columns; and not without orthogonality."""
    shuffled = np.random.default_rng(0).permuted(fitted.encode(real), axis=0)
    assert likeness(fitted.encode(real)) < likeness(shuffled) + 0.1
    assert likeness(experts(orthogonality=0.0).fit(real).encode(real)) > likeness(shuffled) + 0.2


def test_an_sid_is_a_set_of_pairs(fitted: MoEPQ, real: Vectors) -> None:
    codes = fitted.encode(real)
    pairs, draw = pairs_of(codes), np.random.default_rng(0)
    mixed = draw.permuted(np.arange(len(pairs) * 4).reshape(-1, 4) % 4, axis=1)
    permuted = np.take_along_axis(pairs, mixed[:, :, None], axis=1)
    assert not np.array_equal(permuted, pairs)
    assert np.array_equal(codes_of(permuted), codes)
    assert not fitted.traits.ordered


def test_all_experts_and_all_codes_are_in_use(fitted: MoEPQ, real: Vectors) -> None:
    assert [len(np.unique(column)) for column in fitted.encode(real).T] == fitted.levels
    assert np.allclose(fitted.shares_, 0.25, atol=0.05)
    alone = experts(load_balance=0.0, orthogonality=0.0, epochs=0).fit(real)
    assert np.ptp(alone.shares_) > np.ptp(fitted.shares_)


def test_each_code_lowers_the_error(fitted: MoEPQ, real: Vectors) -> None:
    codes = fitted.encode(real)
    errors = [error(fitted, real, codes[:, :known]) for known in range(5)]
    assert errors == sorted(errors, reverse=True)
    pq = PQ(levels=[16] * 4).fit(real)
    assert errors[-1] < error(pq, real, pq.encode(real))


def test_the_decoder_learns_the_mean_gate(real: Vectors, fitted: MoEPQ) -> None:
    without = experts(decoder_epochs=0).fit(real)
    codes = fitted.encode(real)
    assert np.array_equal(without.encode(real), codes)
    assert error(fitted, real, codes) < error(without, real, codes)


def test_distances_are_of_the_next_expert(fitted: MoEPQ, real: Vectors) -> None:
    codes = fitted.encode(real)
    for place in range(4):
        output = fitted.experts_[place](fitted.scaling_(real))
        slow = ((output[:, None] - fitted.codebooks_[place][None]) ** 2).sum(axis=2)
        other = np.zeros_like(codes[:, :place])  # prefixes only say which
        assert np.allclose(fitted.distances(real, other), slow, rtol=1e-3, atol=1e-4)


def test_likeness_and_imbalance_by_hand() -> None:
    one = torch.tensor([[0.0], [1.0], [0.0], [1.0]])
    same, other = 5 - 3 * one, torch.tensor([[0.0], [0.0], [1.0], [1.0]])
    assert float(loop.likeness([one, same])) == pytest.approx(1)
    assert float(loop.likeness([one, other])) == pytest.approx(0, abs=1e-6)
    assert float(loop.likeness([one])) == 0
    assert float(imbalance(torch.tensor([[0.5, 0.5], [0.5, 0.5]]))) == 0
    assert float(imbalance(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))) == pytest.approx(1)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("hidden", [0]), ("latent", 0), ("orthogonality", -0.1), ("learning_rate", 0), ("decoder_epochs", -1)],
)
def test_parameters_are_checked(parameter: str, value: object) -> None:
    with pytest.raises(DataError, match=parameter):
        MoEPQ().set_params(**{parameter: value}).check_params()


@pytest.mark.parametrize("epochs", [{}, {"autoencoder_epochs": 0}, {"autoencoder_epochs": 0, "epochs": 0}])
def test_divergence_is_told(real: Vectors, epochs: dict[str, int]) -> None:
    with pytest.raises(DataError, match=r"moe-pq: training diverged .* lower learning_rate \(now 1e\+"):
        experts(**epochs, learning_rate=1e30).fit(real)
