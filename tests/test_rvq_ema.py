"""The moving-average codebooks: against a slow twin, and what the start and the rebirths are for."""

import numpy as np
import pytest

from sid_schemas import DataError
from sid_tokenizers.base import Vectors
from sid_tokenizers.metrics import reconstruction
from sid_tokenizers.rq_kmeans import RQKMeans
from sid_tokenizers.rvq_ema import RVQEMA, sample_rows


def slow_batch(X: np.ndarray, books: list[dict[str, np.ndarray]], draw: np.random.Generator) -> int:
    """One batch as the formulas are written, code by code in float64; gives how many codes were reborn."""
    residual, reborn = X.astype(np.float64), 0
    for book in books:
        k = len(book["e"])
        codes = np.array([np.argmin(((row - book["e"]) ** 2).sum(axis=1)) for row in residual])
        left_over = np.array([row - book["e"][code] for row, code in zip(residual, codes, strict=True)])
        for code in range(k):
            mine = residual[codes == code]
            book["n"][code] += (1 - 0.8) * (len(mine) - book["n"][code])
            book["m"][code] += (1 - 0.8) * (mine.sum(axis=0) - book["m"][code])
        total = book["n"].sum()
        for code in range(k):
            book["e"][code] = book["m"][code] / ((book["n"][code] + 1e-5) / (total + k * 1e-5) * total)
        dead = [code for code in range(k) if book["n"][code] < 2]
        if dead:
            for code, row in zip(dead, draw.permutation(len(residual)), strict=False):
                book["e"][code] = residual[row]
                book["n"][code] = 2
                book["m"][code] = residual[row] * 2
        residual, reborn = left_over, reborn + len(dead)
    return reborn


def test_batches_are_the_slow_ones() -> None:
    X = np.random.default_rng(0).normal(size=(192, 5)).astype(np.float32)
    ours = RVQEMA(levels=[8, 6], epochs=3, batch_size=64, kmeans_init=False)
    ours._fit(X, None, None)  # in this order of rows
    draw = np.random.default_rng(0)
    books = []
    for k in (8, 6):
        bound = np.sqrt(6 / (k * 5))
        start = draw.uniform(-bound, bound, size=(k, 5)).astype(np.float32).astype(np.float64)
        books.append({"e": start, "n": np.ones(k), "m": start.copy()})
    reborn = 0
    for _ in range(3):
        order = draw.permutation(192)
        for first in range(0, 192, 64):
            reborn += slow_batch(X[order[first : first + 64]], books, draw)
    assert reborn > 0
    for found, expected in zip(ours.codebooks_, books, strict=True):
        assert np.allclose(found, expected["e"], atol=1e-4)


def used(tokenizer: RVQEMA, X: Vectors) -> list[int]:
    codes = tokenizer.fit(X).encode(X)
    return [len(np.unique(codes[:, level])) for level in range(codes.shape[1])]


def test_start_and_rebirth_keep_every_code_in_use(real: Vectors) -> None:
    levels = [64, 64, 64]
    assert used(RVQEMA(levels=levels), real) == levels
    without = used(RVQEMA(levels=levels, kmeans_init=False, restart=False), real)
    assert without[0] < 54, "the check must fail with both off"


def test_error_is_near_that_of_whole_k_means(real: Vectors) -> None:
    ours, whole = RVQEMA(levels=[32, 32]).fit(real), RQKMeans(levels=[32, 32]).fit(real)
    found, best = (reconstruction(real, t.decode(t.encode(real))) for t in (ours, whole))
    assert found
    assert best
    assert found["relative_error"] < best["relative_error"] * 1.1


def test_weight_counts_as_copies_do() -> None:
    X = np.array([[0.0], [1.0]], dtype=np.float32)
    fitted = RVQEMA(levels=[1], decay=0.0, epochs=1).fit(X, sample_weight=[1.0, 3.0])
    assert fitted.codebooks_[0][0, 0] == pytest.approx(0.75, abs=1e-4)


def test_too_small_batches_still_settle(real: Vectors) -> None:
    # Two rows per code and batch: with the reference's threshold of 2 half the codes would be drawn anew.
    assert used(RVQEMA(levels=[32], batch_size=64), real)[0] > 24


def test_constant_rows_and_few_rows() -> None:
    codes = RVQEMA(levels=[4, 2]).fit(np.ones((9, 3))).encode(np.ones((2, 3)))
    assert (codes[0] == codes[1]).all()
    assert sorted(sample_rows(4, 4, np.random.default_rng(0))) == [0, 1, 2, 3]
    assert len(sample_rows(3, 5, np.random.default_rng(0))) == 5
    with pytest.raises(DataError, match="only 3 items"):
        RVQEMA(levels=[4]).fit(np.ones((3, 2)))


@pytest.mark.parametrize(("parameter", "value"), [("decay", 1.0), ("batch_size", 0), ("dead_threshold", -1)])
def test_parameters_are_checked(parameter: str, value: float) -> None:
    with pytest.raises(DataError, match=parameter):
        RVQEMA().set_params(**{parameter: value}).check_params()
