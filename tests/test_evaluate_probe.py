"""The probe of `sidmill evaluate`: against slow twins, and on data where SIDs are known to matter or not."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Run

from sid_pipelines.evaluation.codes import END, Codes
from sid_pipelines.evaluation.decoding import answers, search
from sid_pipelines.evaluation.network import Network
from sid_pipelines.evaluation.probe import _short, probe
from sid_pipelines.evaluation.questions import Exam, Questions
from sid_pipelines.evaluation.settings import Settings
from sid_pipelines.evaluation.training import Pieces, loss_of, train
from sid_pipelines.probes import Lists
from sid_schemas import DataError, RecipeError

TINY = Settings(steps=30, width=16, layers=2, heads=2, history=4, batch_size=8, beams=64)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def codes_of(rows: list[list[int]], sizes: tuple[int, ...], slots: list[int] | None = None) -> Codes:
    """Make codes as a release has them, level after level."""
    sids = np.full((len(rows), len(sizes)), -1, np.int32)
    for row, sid in zip(sids, rows, strict=True):
        row[: len(sid)] = sid
    offsets = tuple(int(n) for n in np.cumsum([2, *sizes[:-1]]))
    return Codes(sids, np.array(slots or [0] * len(rows), np.int32), sizes, offsets)


FIXED = codes_of([[a, b, c] for a in range(3) for b in range(3) for c in range(2)], (3, 3, 2))
ENDING = codes_of(
    [[0], [0, 1], [0, 1, 2], [1, 0], [1, 2, 0], [2], [2, 2, 2], [2, 2, 1], [1, 1, 1]], (3, 3, 3)
)
SHARED = codes_of([[0, 1], [0, 1], [1, 0], [1, 1], [0, 1], [2, 0]], (3, 2), slots=[2, 0, 0, 0, 1, 0])
# One level that all places share, as category paths and titles have it.
WORDS = replace(ENDING, sizes=(5, 5, 5), offsets=(2, 2, 2))
KINDS = {"fixed": FIXED, "ending": ENDING, "shared": SHARED, "words": WORDS}


def made(codes: Codes, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    network = Network(codes, TINY)
    with torch.no_grad():
        network.tokens.mul_(20)  # far from level, so that an error shows
        for block in network.blocks:
            block.nearness.normal_(std=2.0)  # type: ignore[union-attr, operator]
    return network.eval()


def histories(n_items: int, *sizes: int) -> list[np.ndarray]:
    draw = np.random.default_rng(1)
    return [draw.integers(0, n_items, size) for size in sizes]


def likelihoods(network: Network, codes: Codes, history: np.ndarray) -> np.ndarray:
    """Give every item's log-likelihood by a whole pass over history and item: no cache, no beam."""
    n = len(codes.sids)
    rows = np.concatenate([np.tile(history, (n, 1)), np.arange(n)[:, None]], axis=1).astype(np.int64)
    with torch.no_grad():
        states, _ = network(torch.from_numpy(codes.tokens[rows]))
        total = torch.zeros(n)
        for place in range(codes.width):
            at = len(history) * codes.width + place
            chances = network.logits(states[:, at], place).log_softmax(-1)
            label = torch.from_numpy(codes.labels[:, place])
            own = chances.gather(1, label.clamp(min=0)[:, None])[:, 0]
            total += torch.where(label < 0, 0.0, own)
    return total.numpy()


# Against slow twins


@pytest.mark.parametrize("codes", KINDS.values(), ids=KINDS)
def test_beam_search_ranks_all_sids_by_likelihood(codes: Codes) -> None:
    """With as many beams as SIDs nothing is cut off; histories of several lengths share a batch."""
    network = made(codes)
    asked = histories(len(codes.sids), 0, 1, 3, 4, 2)
    found = search(network, codes, asked, 64)
    for history, sids in zip(asked, found, strict=True):
        chances = likelihoods(network, codes, history)
        _, first = np.unique(codes.sids, axis=0, return_index=True)  # items that share a SID are as likely
        best = first[np.argsort(-chances[first])]
        assert sids[: len(best)].tolist() == codes.sids[best].tolist()
        assert (sids[len(best) :] == -1).all()


@pytest.mark.parametrize("codes", KINDS.values(), ids=KINDS)
def test_few_beams_keep_to_the_tree_and_one_beam_is_greedy(codes: Codes) -> None:
    network = made(codes, seed=3)
    asked = histories(len(codes.sids), 2, 4, 0)
    known = {tuple(sid) for sid in codes.sids.tolist()}
    for sids in search(network, codes, asked, 3):
        assert len({tuple(sid) for sid in sids.tolist()}) == 3
        assert {tuple(sid) for sid in sids.tolist()} <= known
    for history, sids in zip(asked, search(network, codes, asked, 1), strict=True):
        prefix: list[int] = []
        with torch.no_grad():
            for place in range(codes.width):
                written = np.full((1, 1, codes.width), END)
                written[0, 0, :place] = np.array(prefix) + np.array(codes.offsets[:place])
                rows = np.concatenate([codes.tokens[history][None], written], axis=1)
                states, _ = network(torch.from_numpy(rows))
                chances = network.logits(states[0, len(history) * codes.width + place], place)
                may = codes.tree.allowed(codes.tree.walk([prefix]), place=place)[0]
                if codes.ends:
                    may = np.append(may, codes.tree.ends(codes.tree.walk([prefix]))[0])
                code = int(np.where(may, chances.numpy(), -np.inf).argmax())
                if code == codes.sizes[place]:
                    break
                prefix.append(code)
        assert sids[0].tolist() == prefix + [-1] * (codes.width - len(prefix))


def test_the_cache_gives_what_a_whole_pass_gives() -> None:
    network, codes = made(FIXED), FIXED
    asked = histories(len(codes.sids), 1, 4)
    items = np.array([[5, 0, 0, 0], asked[1].tolist()])
    items[0, 0] = asked[0][0]
    written = torch.tensor([[[2, 5], [4, 6]], [[3, 7], [2, 5]]])  # (rows, beams, places), as tokens
    with torch.no_grad():
        read = network.read(torch.from_numpy(codes.tokens[items]), torch.tensor([1, 4]))
        first, caches = network.go_on(read, written[:, :, 0], 0, None)
        second, _ = network.go_on(read, written[:, :, 1], 1, caches)
        for row, history in enumerate(asked):
            for beam in range(2):
                last = torch.cat([written[row, beam], torch.tensor([2])])[None]
                whole = torch.cat([torch.from_numpy(codes.tokens[history]), last])[None]
                states, _ = network(whole)
                at = len(history) * codes.width
                assert torch.allclose(read.state[row], states[0, at], atol=1e-5)
                assert torch.allclose(first[row, beam], states[0, at + 1], atol=1e-5)
                assert torch.allclose(second[row, beam], states[0, at + 2], atol=1e-5)


@pytest.mark.parametrize("codes", KINDS.values(), ids=KINDS)
def test_the_loss_is_the_likelihood_of_every_target(codes: Codes) -> None:
    network = made(codes)
    items = np.array([[1, 2, 3], [4, 0, 0]])
    asked = np.array([[True, True, True], [True, False, False]])
    rows = torch.from_numpy(items)
    tokens, labels = torch.from_numpy(codes.tokens), torch.from_numpy(codes.labels)
    loss = loss_of(network, tokens[rows], labels[rows], torch.from_numpy(asked)).item()
    single = [
        likelihoods(network, codes, items[0][:0])[1],
        likelihoods(network, codes, items[0][:1])[2],
        likelihoods(network, codes, items[0][:2])[3],
        likelihoods(network, codes, items[1][:0])[4],
    ]
    assert loss == pytest.approx(-np.mean(single), abs=1e-4)


def test_items_of_one_sid_go_in_slot_order() -> None:
    asked = Questions([np.array([3])], [0], 6)
    ((_, items),) = answers(made(SHARED), SHARED, asked, 64, 4)
    there = items[items >= 0].tolist()
    assert sorted(there) == [0, 1, 2, 4, 5]  # all but the history
    place = there.index(1)
    assert there[place : place + 3] == [1, 4, 0]  # slots 0, 1, 2


def test_answers_leave_out_what_was_before_the_window_unless_users_come_back() -> None:
    whole = Questions([np.array([3])], [0], 6, before=[np.array([2, 5, 3])])
    ((_, items),) = answers(made(SHARED), SHARED, whole, 64, 4)
    assert sorted(items[items >= 0].tolist()) == [0, 1, 4]
    ((_, items),) = answers(made(SHARED), SHARED, replace(whole, come_back=True), 64, 4)
    assert sorted(items[items >= 0].tolist()) == [0, 1, 2, 3, 4, 5]


def test_short_answers_are_those_that_could_be_longer() -> None:
    asked = Questions([np.array([0, 1, 1]), np.array([2])], [5, 6], 11)
    full, nine, eight = (np.append(np.arange(n), [-1] * (10 - n)) for n in (10, 9, 8))
    assert _short([nine, full], asked) == 0  # nine others are all that there are
    assert _short([eight, nine], asked) == 2
    assert _short([nine, full], replace(asked, come_back=True)) == 1


# Pieces


def test_every_event_is_a_target_once_behind_the_items_before_it() -> None:
    sequences = [[1, 2, 3, 4, 5, 6, 7], [], [8], [9, 10, 11], [12, 13, 14, 15]]
    pieces = Pieces.of(Lists.of(sequences), 3)
    seen: list[tuple[int, ...]] = []
    for row in range(len(pieces)):
        items, asked = pieces.filled(np.array([row]))
        for place in np.flatnonzero(asked[0]):
            seen.append(tuple(items[0, : place + 1].tolist()))
            assert place <= 3
    assert sorted(one[-1] for one in seen) == list(range(1, 16))
    for one in seen:  # what stands before a target is what came before it
        (own,) = (each for each in sequences if one[-1] in each)
        assert own[own.index(one[-1]) - len(one) + 1 : own.index(one[-1]) + 1] == list(one)


def test_an_epoch_has_every_piece_once() -> None:
    pieces = Pieces.of(Lists.of([[n] * (1 + n % 5) for n in range(50)]), 20)
    batches = pieces.batches(4, np.random.default_rng(0))
    for _ in range(2):
        epoch = np.concatenate([next(batches) for _ in range(13)])
        assert sorted(epoch.tolist()) == list(range(50))


# On data whose answer is known


def planted(n_codes: int = 8, each: int = 6, users: int = 300) -> tuple[Codes, Exam]:
    """Make walks in which the first code of an item decides the first code of the next one.

    The second code is anything: 8 x 6 items, of which 6 can follow.
    """
    draw = np.random.default_rng(5)
    follows = np.roll(np.arange(n_codes), -3)
    rows = [[a, b] for a in range(n_codes) for b in range(each)]
    walks = []
    for _ in range(users):
        first, walk = int(draw.integers(n_codes)), []
        for _ in range(7):
            walk.append(first * each + int(draw.integers(each)))
            first = int(follows[first])
        walks.append(walk)
    train, last = Lists.of([walk[:6] for walk in walks]), [walk[6] for walk in walks]
    asked = Questions([np.array(walk[:6]) for walk in walks], last, len(rows))
    return codes_of(rows, (n_codes, each)), Exam(asked, train, users, 0, "planted")


def test_a_probe_finds_what_sids_say_and_random_ids_do_not() -> None:
    codes, exam = planted()
    settings = replace(TINY, steps=100, width=32, history=6, batch_size=32, beams=48, learning_rate=0.01)
    released = probe(codes, exam, settings, 0)
    random = probe(codes.dealt(0), exam, settings, 0)
    assert released["recall_at_10"] > 0.95  # 6 of 48 can follow
    assert released["ndcg_at_10"] > 0.4
    assert random["ndcg_at_10"] < released["ndcg_at_10"] / 2


def test_a_seed_gives_the_same_numbers_and_leaves_torch_as_it_was() -> None:
    codes, exam = planted(users=40)
    settings = replace(TINY, steps=5, beams=48)
    torch.manual_seed(7)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    told: list[tuple[int, int]] = []
    first = probe(codes, exam, settings, 1, lambda done, total: told.append((done, total)))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    torch.manual_seed(8)
    again, other = probe(codes, exam, settings, 1), probe(codes, exam, settings, 2)
    figures: Callable[[dict[str, Any]], dict[str, Any]] = lambda one: {  # noqa: E731
        name: one[name] for name in ("recall_at_10", "ndcg_at_10", "parameters")
    }
    assert figures(first) == figures(again)
    assert figures(first) != figures(other)
    assert told == sorted(told)
    assert told[0] == (1, 6)
    assert told[-1] == (6, 6)


def test_dealt_sids_are_the_same_sids() -> None:
    dealt = SHARED.dealt(3)
    pairs = zip(SHARED.sids.tolist(), SHARED.slots.tolist(), strict=True)
    assert sorted(pairs) == sorted(zip(dealt.sids.tolist(), dealt.slots.tolist(), strict=True))
    assert dealt.sids.tolist() != SHARED.sids.tolist()
    assert dealt.sids.tolist() == SHARED.dealt(3).sids.tolist()


def test_codes_of_a_release_are_its_sids_tree_and_items(small: Run) -> None:
    release = small.release
    codes = Codes.of(release)
    sids = release.table("sids")["sid"].to_pylist()
    assert codes.sids.tolist() == sids
    trie = release.trie()
    for name in ("offsets", "codes", "items"):
        assert np.array_equal(getattr(codes.tree.trie, name), getattr(trie, name))
    assert codes.items.of(codes.sids).lists() == release.items_of(codes.sids).lists()


@pytest.mark.parametrize(("name", "least"), [("steps", 1), ("beams", 10), ("history", 1)])
def test_a_budget_of_nothing_is_refused(name: str, least: int) -> None:
    with pytest.raises(RecipeError, match=f"--{name}: expected {least} or more, got 0"):
        Settings(**{name: 0})


def test_no_train_events_are_said() -> None:
    with pytest.raises(DataError, match="no train events"):
        train(FIXED, Lists.of([[], []]), TINY, 0, lambda done: None)
