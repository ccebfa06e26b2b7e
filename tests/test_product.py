"""Product quantization with and without a learned rotation."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sid_schemas import DataError
from sid_tokenizers.base import Tokenizer, Vectors
from sid_tokenizers.opq import OPQ, balanced_axes, procrustes
from sid_tokenizers.pq import PQ

LEVELS = [16, 16, 16, 16]


@pytest.fixture(scope="module")
def pq(real: Vectors) -> PQ:
    return PQ(levels=LEVELS).fit(real)


@pytest.fixture(scope="module")
def opq(real: Vectors) -> OPQ:
    return OPQ(levels=LEVELS, rounds=10).fit(real)


def error(tokenizer: Tokenizer, X: Vectors) -> float:
    return float(np.square(X - tokenizer.decode(tokenizer.encode(X))).sum(axis=1).mean())


def test_pq_is_k_means_piece_by_piece(pq: PQ, real: Vectors) -> None:
    from sklearn.cluster import KMeans

    theirs = 0.0
    for piece in np.array_split(real, 4, axis=1):  # as nanopq does it
        theirs += KMeans(16, n_init=2, random_state=0).fit(np.ascontiguousarray(piece)).inertia_
    assert error(pq, real) * len(real) <= theirs * 1.01


def test_codes_are_the_nearest_of_each_piece(pq: PQ, real: Vectors) -> None:
    codes = pq.encode(real[:50])
    for level, piece in enumerate(np.array_split(real[:50], 4, axis=1)):
        slow = ((piece[:, None] - pq.codebooks_[level][None]) ** 2).sum(axis=2)
        assert np.array_equal(codes[:, level], slow.argmin(axis=1))
        assert np.allclose(pq.distances(real[:50], codes[:, :level]), slow, atol=1e-5)


@pytest.mark.parametrize("scheme", ["pq", "opq"])
def test_pieces_without_code_are_the_mean(scheme: str, request: pytest.FixtureRequest, real: Vectors) -> None:
    tokenizer = request.getfixturevalue(scheme)
    codes = tokenizer.encode(real)
    assert np.allclose(tokenizer.decode(codes[:, :0]), real.mean(axis=0), atol=1e-5)
    errors = [float(np.square(real - tokenizer.decode(codes[:, :p])).sum()) for p in range(5)]
    assert all(more < fewer for fewer, more in pairwise(errors))


def test_the_rotation_helps_and_is_one(pq: PQ, opq: OPQ, real: Vectors) -> None:
    assert error(opq, real) < 0.95 * error(pq, real)
    assert np.allclose(opq.rotation_ @ opq.rotation_.T, np.eye(real.shape[1]), atol=1e-4)
    assert (np.diff(opq.errors_) <= 1e-5 * opq.errors_[0]).all()
    assert error(opq, real) <= opq.errors_[-1] * (1 + 1e-5)


def test_without_rotation_it_is_pq(pq: PQ, real: Vectors) -> None:
    plain = OPQ(levels=LEVELS, rounds=0, init="identity").fit(real)
    assert error(plain, real) == pytest.approx(error(pq, real), rel=0.005)


def test_procrustes_finds_a_known_rotation() -> None:
    draw = np.random.default_rng(0)
    rotation = np.linalg.qr(draw.normal(size=(6, 6)))[0]
    X = draw.normal(size=(40, 6)).astype(np.float32)
    noise = np.zeros(40)
    noise[:5] = 1.0
    Y = (X @ rotation + noise[:, None] * draw.normal(size=(40, 6))).astype(np.float32)
    assert np.allclose(procrustes(X, Y, 1.0 - noise), rotation, atol=1e-5)
    assert not np.allclose(procrustes(X, Y, None), rotation, atol=1e-2), "the weight must matter"


def test_eigenvalues_are_dealt_out_evenly() -> None:
    # Variances 16, 8, 4, 2: pieces of two are even as (16, 2) and (8, 4), not as they come.
    X = np.diag(np.sqrt([16.0, 8.0, 4.0, 2.0])).astype(np.float32)
    axes = balanced_axes(X, 2, None)
    variances = np.diag(axes.T @ X.T @ X @ axes).reshape(2, 2)
    assert np.allclose(variances.prod(axis=1), [32, 32], rtol=1e-4)


def test_a_known_rotation_is_undone() -> None:
    # Two independent values in each half, then mixed: PQ must split across them, OPQ can turn back.
    draw = np.random.default_rng(0)
    values = draw.normal(size=(4, 2)) * 5
    halves = np.concatenate([values[draw.integers(0, 4, 400)], values[draw.integers(0, 4, 400)]], axis=1)
    mixed = (halves @ np.linalg.qr(draw.normal(size=(4, 4)))[0]).astype(np.float32)
    plain, turned = PQ(levels=[4, 4]).fit(mixed), OPQ(levels=[4, 4], rounds=50).fit(mixed)
    assert error(turned, mixed) < 0.5 * error(plain, mixed)


@pytest.mark.parametrize("scheme", [PQ, OPQ])
def test_uneven_pieces_save_and_load(scheme: type[PQ], tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(60, 7)).astype(np.float32)
    fitted = scheme(levels=[5, 4, 3]).fit(X, sample_weight=np.arange(60))
    assert [book.shape[1] for book in fitted.codebooks_] == [3, 2, 2]
    fitted.save(tmp_path)
    again = scheme.load(tmp_path)
    assert np.array_equal(again.encode(X), fitted.encode(X))
    assert np.array_equal(again.decode(again.encode(X)), fitted.decode(fitted.encode(X)))
    soft, _ = fitted.encode_soft(X, 2)
    assert np.array_equal(soft[..., 0], fitted.encode(X))


@pytest.mark.parametrize("scheme", [PQ, OPQ])
def test_row_order_and_odd_rows(scheme: type[PQ]) -> None:
    X = np.random.default_rng(0).normal(size=(80, 6)).astype(np.float32)
    order = np.random.default_rng(1).permutation(80)
    codes = scheme(levels=[6, 5]).fit(X).encode(X)
    assert np.array_equal(scheme(levels=[6, 5]).fit(X[order]).encode(X), codes)
    constant = scheme(levels=[3, 2]).fit(np.ones((5, 4)))
    assert np.allclose(constant.decode(constant.encode(np.ones((2, 4)))), 1, atol=1e-6)


def test_bad_input_is_refused() -> None:
    X = np.zeros((9, 2), dtype=np.float32)
    with pytest.raises(DataError, match="3 pieces cannot be cut from 2 columns; give 2 levels or fewer"):
        PQ(levels=[2, 2, 2]).fit(X)
    with pytest.raises(DataError, match=r"levels\[0\] asks for 10 codes"):
        OPQ(levels=[10, 2]).fit(X)
    with pytest.raises(DataError, match="init: expected 'pca' or 'identity', got 'none'"):
        OPQ(levels=[2], init="none").check_params()  # type: ignore[arg-type]
