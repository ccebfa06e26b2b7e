"""Finite scalar quantization: its arithmetic, its decoder against torch, and as a level after k-means."""

import sys
from pathlib import Path

import numpy as np
import pytest

from sid_schemas import DataError, MissingExtraError
from sid_tokenizers.base import Vectors
from sid_tokenizers.learned.fsq import (
    FSQ,
    Bound,
    fsq_bound,
    fsq_constants,
    fsq_digits,
    fsq_distances,
    fsq_index,
    fsq_points,
    fsq_unit,
)
from sid_tokenizers.learned.fsq_decoder import decode_slices, heads_of
from sid_tokenizers.metrics import collision_metrics
from sid_tokenizers.rq_kmeans import RQKMeans
from sid_tokenizers.rq_kmeans_fsq import RQKMeansFSQ

RECGPT = (8, 8, 8, 6, 5)
BOUNDS: list[Bound] = ["recgpt", "lucidrains"]


@pytest.fixture(scope="module")
def waves() -> Vectors:
    """Rows on a curve in 24 columns: a decoder can learn them in seconds."""
    draw = np.random.default_rng(0)
    phase = draw.uniform(0, 6, size=(400, 2))
    speeds = draw.normal(size=(2, 24))
    return np.sin(phase @ speeds).astype(np.float32)


@pytest.fixture(scope="module")
def trained(waves: Vectors) -> FSQ:
    pytest.importorskip("torch")
    return FSQ(epochs=20, learning_rate=2e-3, batch_size=64).fit(waves)


def test_ids_and_points_are_one_to_one() -> None:
    points = fsq_points(RECGPT)
    assert points.shape == (15360, 5)
    assert len(np.unique(points, axis=0)) == 15360
    assert np.array_equal(fsq_index(fsq_digits(points, RECGPT), RECGPT), np.arange(15360))
    by_hand = 3 + 1 * 8 + 7 * 64 + 5 * 512 + 4 * 3072  # RecGPT's basis
    assert fsq_index(np.array([3, 1, 7, 5, 4]), RECGPT) == by_hand


@pytest.mark.parametrize("bound", BOUNDS)
def test_every_digit_is_reached_and_none_beyond(bound: Bound) -> None:
    line = np.linspace(-12, 12, 4001, dtype=np.float32)[:, None].repeat(5, axis=1)
    digits = fsq_digits(fsq_bound(line, RECGPT, bound), RECGPT)
    for number, size in enumerate(RECGPT):
        assert np.array_equal(np.unique(digits[:, number]), np.arange(size))
        assert (np.diff(digits[:, number]) >= 0).all()
    zero = fsq_digits(fsq_bound(np.zeros((1, 5), dtype=np.float32), RECGPT, bound), RECGPT)
    assert zero.tolist() == [[4, 4, 4, 3, 2]]  # the middle, the upper one of two


@pytest.mark.parametrize("bound", BOUNDS)
def test_both_bounds_reach_all_ids(bound: Bound) -> None:
    # Squashing undone for every point of the grid, but for what lies beyond the outermost places' reach.
    half, offset, shift = fsq_constants(RECGPT, bound)
    z = np.arctanh(np.clip((fsq_points(RECGPT) + offset) / half, -0.9999, 0.9999)) - shift
    ids = fsq_index(fsq_digits(fsq_bound(z, RECGPT, bound), RECGPT), RECGPT)
    assert np.array_equal(ids, np.arange(15360))


def test_digits_are_rounded_not_truncated(monkeypatch: pytest.MonkeyPatch) -> None:
    # What the decoder takes must give the id back; float32 divides by 22, the half of 44, badly.
    sizes = (44, 3)
    back = fsq_unit(fsq_points(sizes), sizes) * np.array([22, 1], dtype=np.float32)

    def ids() -> np.ndarray:
        return fsq_index(fsq_digits(back, sizes), sizes)

    assert np.array_equal(ids(), np.arange(132))
    monkeypatch.setattr(np, "rint", np.trunc)
    assert not np.array_equal(ids(), np.arange(132)), "this test would not notice truncation"


def test_distances_are_the_slow_ones() -> None:
    sizes = (4, 3, 2)
    bounded = fsq_bound(np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32), sizes, "recgpt")
    slow = ((bounded[:, None] - fsq_points(sizes)[None]) ** 2).sum(axis=2)
    assert np.allclose(fsq_distances(bounded, sizes), slow, atol=1e-5)
    assert np.array_equal(slow.argmin(axis=1), fsq_index(fsq_digits(bounded, sizes), sizes))


def test_numpy_decodes_as_torch_does(trained: FSQ) -> None:
    import torch

    from sid_tokenizers.learned.fsq_training import FSQNetwork

    network = FSQNetwork(24, RECGPT, 4, "recgpt")
    network.load_state_dict({k: torch.from_numpy(v) for k, v in trained.weights_.items() if k != "standard"})
    network.eval()
    ids = np.random.default_rng(0).integers(0, 15360, size=(64, 4))
    points = fsq_unit(fsq_points(RECGPT), RECGPT)[ids]
    with torch.no_grad():
        theirs = network.decode(torch.from_numpy(points)).numpy()
    assert np.allclose(decode_slices(points, trained.weights_), theirs, atol=1e-4)
    assert [heads_of(width) for width in (96, 6, 7, 11, 192)] == [8, 6, 7, 1, 8]


def test_the_network_codes_as_encode_does(trained: FSQ, waves: Vectors) -> None:
    import torch

    from sid_tokenizers.learned.fsq_training import FSQNetwork

    network = FSQNetwork(24, RECGPT, 4, "recgpt")
    network.load_state_dict({k: torch.from_numpy(v) for k, v in trained.weights_.items() if k != "standard"})
    network.eval()
    shift, scale = trained.weights_["standard"]
    with torch.no_grad():
        theirs = network(torch.from_numpy((waves - shift) / scale)).numpy() * scale + shift
    assert np.allclose(trained.decode(trained.encode(waves)), theirs, atol=1e-3)


def test_training_helps(trained: FSQ, waves: Vectors) -> None:
    untrained = FSQ(epochs=0).fit(waves)
    before, after = (np.abs(waves - t.decode(t.encode(waves))).mean() for t in (untrained, trained))
    assert after < 0.6 * before
    assert len(np.unique(trained.encode(waves), axis=0)) > 350


def test_small_numbers_need_standardizing(waves: Vectors) -> None:
    pytest.importorskip("torch")
    small = waves / 100
    with_it, without = (FSQ(epochs=1, standardize=flag).fit(small).encode(small) for flag in (True, False))
    assert len(np.unique(with_it, axis=0)) > 300
    assert len(np.unique(without, axis=0)) < 20


def test_the_encoder_stands_still_for_other_catalogues(trained: FSQ) -> None:
    other = np.random.default_rng(5).normal(size=(3000, 24)).astype(np.float32) * 3
    codes = trained.encode(other)
    assert codes.shape == (3000, 4)
    assert codes.min() >= 0
    assert codes.max() < 15360
    assert np.array_equal(trained.encode(other[::-1])[::-1], codes)
    for level in (0, 3):
        distances = trained.distances(other[:100], codes[:100, :level])
        assert np.array_equal(distances.argmin(axis=1), codes[:100, level])


def test_same_seed_same_weights_and_nothing_else_is_touched(waves: Vectors) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(3)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    first = FSQ(epochs=1).fit(waves).encode(waves)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    torch.manual_seed(4)
    order = np.random.default_rng(1).permutation(len(waves))
    assert np.array_equal(FSQ(epochs=1).fit(waves[order]).encode(waves), first)
    assert not np.array_equal(FSQ(epochs=1, seed=1).fit(waves).encode(waves), first)
    heavy = FSQ(epochs=1).fit(waves, sample_weight=np.arange(len(waves)))
    assert not np.array_equal(heavy.encode(waves), first)


def test_a_saved_one_needs_no_torch(
    trained: FSQ, waves: Vectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes, decoded = trained.encode(waves), trained.decode(trained.encode(waves))
    trained.save(tmp_path)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "sid_tokenizers.learned.fsq_training", raising=False)
    again = FSQ.load(tmp_path)
    assert np.array_equal(again.encode(waves), codes)
    assert np.array_equal(again.decode(codes), decoded)
    with pytest.raises(MissingExtraError, match=r"Tokenizer 'fsq' \(torch\)"):
        FSQ().fit(waves)


def test_missing_slices_are_the_middle(trained: FSQ, waves: Vectors) -> None:
    codes = trained.encode(waves)
    middle = 4 + 4 * 8 + 4 * 64 + 3 * 512 + 2 * 3072
    filled = codes.copy()
    filled[:, 2:] = middle
    assert np.array_equal(trained.decode(codes[:, :2]), trained.decode(filled))


def test_real_vectors(real: Vectors) -> None:
    pytest.importorskip("torch")
    untrained, trained = (FSQ(epochs=epochs, learning_rate=1e-3).fit(real) for epochs in (0, 2))
    before, after = (np.abs(real - t.decode(t.encode(real))).mean() for t in (untrained, trained))
    assert after < before
    ids = trained.encode(real)
    assert ids.shape == (1342, 4)
    assert 0 <= ids.min() <= ids.max() < 15360
    points = fsq_points(RECGPT)[ids]
    assert np.array_equal(fsq_index(fsq_digits(points, RECGPT), RECGPT), ids)
    assert np.array_equal(trained.encode(real[7:8]), ids[7:8])


@pytest.mark.parametrize("more", [{"learning_rate": 1e30}, {"learning_rate": 1e30, "batch_size": 400}])
def test_divergence_is_told(waves: Vectors, more: dict[str, float]) -> None:
    pytest.importorskip("torch")
    message = r"fsq: training diverged \(loss is not finite\); lower learning_rate \(now 1e\+30\)"
    with pytest.raises(DataError, match=message):
        FSQ(epochs=1, **more).fit(waves)  # type: ignore[arg-type]


def test_fsq_refuses() -> None:
    X = np.zeros((6, 10), dtype=np.float32)
    with pytest.raises(DataError, match="slices: 10 columns cannot be cut into 4 equal slices"):
        FSQ().fit(X)
    with pytest.raises(DataError, match="fsq_levels: expected sizes >= 2"):
        FSQ(fsq_levels=(8, 1)).check_params()
    with pytest.raises(DataError, match="bound"):
        FSQ(bound="none").check_params()  # type: ignore[arg-type]
    with pytest.raises(DataError, match="only 0 items"):
        FSQ().fit(X[:0])
    assert FSQ(fsq_levels=(4, 4), slices=3).levels == [16, 16, 16]


def test_a_grid_after_k_means_parts_colliding_items(real: Vectors) -> None:
    plain = RQKMeans(levels=[16, 16]).fit(real)
    gridded = RQKMeansFSQ(kmeans_levels=[16, 16], fsq_levels=[4, 4, 4]).fit(real)
    codes = gridded.encode(real)
    assert gridded.levels == [16, 16, 64]
    assert np.array_equal(codes[:, :2], plain.encode(real))
    rate, rest = (collision_metrics(c)["collision_rate"] for c in (plain.encode(real), codes))
    assert rest < 0.5 * rate
    errors = [np.square(real - t.decode(t.encode(real))).sum() for t in (plain, gridded)]
    assert errors[1] < errors[0]
    for level in range(3):
        distances = gridded.distances(real, codes[:, :level])
        assert np.array_equal(distances.argmin(axis=1), codes[:, level])


def test_a_grid_of_one_cell_is_plain_k_means(real: Vectors) -> None:
    plain = RQKMeans(levels=[16, 16]).fit(real)
    off = RQKMeansFSQ(kmeans_levels=[16, 16], fsq_levels=[1, 1, 1]).fit(real)
    codes = off.encode(real)
    assert np.array_equal(codes[:, :2], plain.encode(real))
    assert (codes[:, 2] == 0).all()


def test_two_items_alone_in_a_cluster_are_parted() -> None:
    draw = np.random.default_rng(0)
    centres, step = draw.normal(size=(20, 5)) * 50, draw.normal(size=(20, 5))
    X = np.concatenate([centres + step, centres - step]).astype(np.float32)
    codes = RQKMeansFSQ(kmeans_levels=[20], fsq_levels=[2, 2, 2], n_init=20).fit(X).encode(X)
    assert len(np.unique(codes[:, 0])) == 20
    assert len(np.unique(codes, axis=0)) == 40


def test_the_grid_level_keeps_the_contract(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(70, 4)).astype(np.float32)
    order = np.random.default_rng(1).permutation(70)
    fitted = RQKMeansFSQ(kmeans_levels=[5, 4]).fit(X, sample_weight=np.arange(70))
    again = RQKMeansFSQ(kmeans_levels=[5, 4]).fit(X[order], sample_weight=np.arange(70)[order])
    assert np.array_equal(again.encode(X), fitted.encode(X))
    fitted.save(tmp_path)
    loaded = RQKMeansFSQ.load(tmp_path)
    assert np.array_equal(loaded.encode(X), fitted.encode(X))
    assert np.array_equal(loaded.decode(loaded.encode(X)), fitted.decode(fitted.encode(X)))
    constant = RQKMeansFSQ(kmeans_levels=[3]).fit(np.ones((6, 3)))
    assert np.allclose(constant.decode(constant.encode(np.ones((1, 3)))), 1)
    with pytest.raises(DataError, match="3 numbers cannot be had from 2 columns"):
        RQKMeansFSQ(kmeans_levels=[2]).fit(np.ones((6, 2)))
    with pytest.raises(DataError, match="kmeans_levels: expected 1 to 26 sizes"):
        RQKMeansFSQ(kmeans_levels=[]).check_params()
    with pytest.raises(DataError, match="asks for 9 codes"):
        RQKMeansFSQ(kmeans_levels=[9]).fit(np.ones((6, 4)))
