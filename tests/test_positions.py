"""Item-level positions and block masks (DiscRec), alone and as a release's samples give them."""

from pathlib import Path

import numpy as np
import pytest
from helpers import Run, run_chain, small_dump

from sid_schemas import DataError
from sid_tokenizers.positions import block_mask, code_positions, decoder_positions, one_length


def test_positions_are_the_papers() -> None:
    length, items = 4, 20
    tokens = np.arange(items * length)
    assert code_positions(items, length).tolist() == [*(tokens % length + 1), length + 1]
    assert code_positions(items, length, eos=False).tolist() == (tokens % length + 1).tolist()
    assert code_positions(0, length).tolist() == [length + 1]
    assert decoder_positions(length).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("items", [0, 1, 5])
def test_a_mask_is_a_block_for_each_item(items: int) -> None:
    length = 3
    mask = block_mask(items, length, eos=False)
    assert np.array_equal(mask, np.kron(np.eye(items, dtype=bool), np.ones((length, length), dtype=bool)))
    ended = block_mask(items, length)
    assert np.array_equal(ended[:-1, :-1], mask)
    assert not ended[:-1, -1].any()
    item = np.arange(items * length) // length
    assert np.array_equal(ended[-1], [*(item == items - 1), True])


def test_sids_of_more_than_one_length_are_refused() -> None:
    assert one_length(np.full(5, 3)) == 3
    with pytest.raises(DataError, match="row 2: has 4 codes, row 0 has 3; expected one length"):
        one_length([3, 3, 4])
    with pytest.raises(DataError, match="got none"):
        one_length([])


def test_samples_give_positions_and_the_mask(example: Run) -> None:
    length = len(example.release.vocabulary.levels)
    plain = example.release.samples("valid", max_history=20)
    samples = example.release.samples("valid", max_history=20, positions=True)
    assert "history_positions" not in plain[0]
    mask = samples.block_mask()
    assert mask.shape == (20 * length, 20 * length)
    assert samples.block_mask(eos=True).shape == (20 * length + 1, 20 * length + 1)
    lengths = set()
    for n in range(0, len(samples), 7):
        sample = samples[n]
        history, places = sample["history"], sample["history_positions"]
        assert isinstance(history, np.ndarray)
        assert isinstance(places, np.ndarray)
        assert places.dtype == np.int64
        # A code's place is its level: the vocabulary knows which level a token is of.
        offsets = np.array([*example.release.vocabulary.offsets, len(example.release.vocabulary)])
        assert np.array_equal(places, np.where(history, np.searchsorted(offsets, history, side="right"), 0))
        assert np.array_equal(sample["target_positions"], np.arange(1, length + 1))
        lengths.add(sample["history_length"])
    assert len(lengths) > 5


def test_torch_samples_give_them_as_tensors(example: Run) -> None:
    torch = pytest.importorskip("torch")
    samples = example.release.sequences("test", max_history=5, positions=True)
    assert samples[0]["history_positions"].dtype == torch.int64
    assert samples.block_mask(eos=True).dtype == torch.bool


def test_a_release_whose_sids_differ_in_length_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small_dump(tmp_path)
    crowded = ("tokenize.levels=[3, 2]", "gates.max_collision_rate=0.9")
    release = run_chain(recipe, tmp_path / "w", *crowded, "collisions.policy=suffix-on-collision").release
    assert "target_positions" not in release.samples("train")[0]
    with pytest.raises(DataError, match="expected one length"):
        release.samples("train", positions=True)
