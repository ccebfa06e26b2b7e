"""Products whose rows round alike wherever they stand, whatever the machine's BLAS does."""

import numpy as np
import pytest

from sid_tokenizers import products
from sid_tokenizers.blocks import one_core_products
from sid_tokenizers.products import padded, places, product


@pytest.mark.parametrize("k", [1, 3, 8, 12, 16, 64, 257])
@pytest.mark.parametrize("d", [3, 65, 384])
def test_a_row_has_its_numbers_wherever_it_stands(k: int, d: int) -> None:
    draw = np.random.default_rng(k)
    right = draw.standard_normal((k, d), dtype=np.float32).T
    row = draw.standard_normal((1, d), dtype=np.float32)
    with one_core_products():
        alone = product(row, right)
        for n in (2, 7, 64, 500, 2048):
            rows = draw.standard_normal((n, d), dtype=np.float32)
            held = draw.choice(n, size=max(n // 3, 1), replace=False)
            rows[held] = row
            found = product(rows, right)
            assert found.shape == (n, k)
            assert (found[held] == alone).all()
            np.testing.assert_allclose(found, rows.astype(np.float64) @ right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lanes", [(1, 1), (12, 6), (8, 3)])
def test_rows_stand_where_all_are_rounded_alike(
    lanes: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "_lanes", lambda: lanes)
    group, alike = lanes
    for n in (0, 1, 5, 6, 7, 100, 2048):
        stand = np.arange(padded(n, 10**6))[places(n)]
        assert len(stand) == n
        assert (stand % group < alike).all()
        assert (np.diff(stand) > 0).all()
        assert padded(n, 10**6) % group == 0
    draw = np.random.default_rng(0)
    left, right = (draw.standard_normal(shape, dtype=np.float32) for shape in ((100, 8), (8, 5)))
    np.testing.assert_allclose(product(left, right), left @ right, rtol=1e-5, atol=1e-5)


def test_how_a_blas_rounds_is_found_by_equal_rows() -> None:
    products._lanes.cache_clear()
    group, alike = products._lanes()
    assert 1 <= alike <= group
    assert (group == 1) == (alike == group)
