"""Schemes that are an RQ-VAE and something more: what each is for, and without its loss."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import normalized_mutual_info_score
from threadpoolctl import threadpool_limits

from sid_schemas import DataError
from sid_tokenizers import GMC, Catalogue, GraphRQVAE, Letter, RQVAEUniform, Tokenizer, resolve
from sid_tokenizers.base import Codes, Vectors
from sid_tokenizers.learned.gmc import domain_numbers
from sid_tokenizers.learned.letter import to_width
from sid_tokenizers.metrics import collision_metrics, level_metrics
from sid_tokenizers.neighbours import Neighbours, cooccurrence_neighbours, cosine_neighbours, overlap

torch = pytest.importorskip("torch")

from sid_tokenizers.learned.gmc_training import contrast, even_quotas, in_turn  # noqa: E402
from sid_tokenizers.learned.letter_training import Groups, alignment, diversity  # noqa: E402
from sid_tokenizers.learned.rq_vae_network import Layers  # noqa: E402
from sid_tokenizers.learned.rq_vae_uniform_training import negative_entropy  # noqa: E402
from sid_tokenizers.learned.training import Loop, rate_factor  # noqa: E402

SHORT: dict[str, Any] = {"levels": [64, 64], "hidden": [64], "batch_size": 128, "epochs": 30}


@pytest.fixture(scope="module")
def behaviour(known: Catalogue) -> Neighbours:
    """The ten items that share most users with each."""
    assert known.events is not None
    return cooccurrence_neighbours(known.events.users, known.events.items, len(known), np.arange(len(known)))


def entropies(tokenizer: Tokenizer, X: Vectors) -> list[float]:
    codes = tokenizer.encode(X)
    return [level_metrics(codes[:, level], k)["entropy_ratio"] for level, k in enumerate(tokenizer.levels)]


def numbers(*shape: int, seed: int = 0) -> Any:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


# --- the loop


def loop(parameters: Any, rows: int = 10, **more: Any) -> Loop:
    settings = {"epochs": 2, "batch_size": 4, "learning_rate": 0.1, **more}
    return Loop(parameters, rows, name="toy", generator=torch.Generator().manual_seed(0), **settings)


def test_an_epoch_takes_each_row_once_and_lowers_the_loss() -> None:
    weight, X = torch.nn.Parameter(torch.zeros(3)), numbers(10, 3)
    goal, seen = X @ torch.tensor([1.0, -2.0, 0.5]), []

    def loss_of(rows: Any) -> Any:
        seen.append(rows.tolist())
        return (X[rows] @ weight - goal[rows]).square().mean()

    turning = loop([weight], epochs=40)
    losses = [turning.epoch(loss_of) for _ in range(40)]
    assert [len(batch) for batch in seen[:3]] == [4, 4, 2]
    assert sorted(row for batch in seen[:3] for row in batch) == list(range(10))
    assert seen[:3] != seen[3:6]  # shuffled anew
    assert losses[-1] < 0.1 * losses[0]
    seen.clear()
    turning.epoch(loss_of, torch.arange(9, -1, -1))
    assert seen == [[9, 8, 7, 6], [5, 4, 3, 2], [1, 0]]


def test_the_rate_rises_then_falls_or_stays() -> None:
    rates = []
    turning = loop([torch.nn.Parameter(torch.zeros(1))], epochs=4, schedule="linear", schedule_warmup=2)
    for _ in range(4):
        for _ in range(3):
            rates.append(turning.optimizer.param_groups[0]["lr"])
            turning.optimizer.step()
            turning.scheduler.step()
    assert rates[:6] == pytest.approx([0.1 * (step + 1) / 6 for step in range(6)])
    assert rates[6:] == pytest.approx([0.1 * (12 - step) / 6 for step in range(6, 12)])
    constant = rate_factor(12, 6, "constant")
    assert [constant(step) for step in (0, 5, 11)] == pytest.approx([1 / 6, 1, 1])


def test_a_gradient_is_clipped_and_a_loss_that_is_not_finite_is_told() -> None:
    weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    loop([weight], rows=1, clip=0.5).epoch(lambda rows: 100 * weight.square().sum())
    assert float(weight.grad.norm()) == pytest.approx(0.5, rel=1e-4)
    before = weight.detach().clone()
    message = r"toy: training diverged \(loss is not finite\); lower learning_rate \(now 0.1\)"
    with pytest.raises(DataError, match=message):
        loop([weight]).epoch(lambda rows: weight.sum() * float("nan"))
    assert torch.equal(weight, before)
    with torch.no_grad():
        weight.fill_(1e30)
    with pytest.raises(DataError, match=message):
        loop([weight]).check_parameters()


# --- LETTER


def letter(**more: Any) -> Letter:
    return Letter(**{**SHORT, "levels": [64, 64, 64], "sinkhorn": 0.0, "diversity_weight": 0.0, **more})


def test_letter_codes_tell_of_behaviour(real: Vectors, known: Catalogue, behaviour: Neighbours) -> None:
    def found(cf_weight: float) -> float:
        tokenizer = letter(cf_weight=cf_weight, epochs=70, hidden=[128]).fit(real, about=known)
        return overlap(tokenizer.encode(real), behaviour) or 0.0

    assert found(0.5) > 1.25 * found(0.0)


def test_letters_diversity_brings_codes_back(real: Vectors, known: Catalogue) -> None:
    """Without k-means most codes are never near a row; a group pulls its unused codes to its used ones."""
    said = {}
    for weight in (0.0, 0.1):
        tokenizer = letter(diversity_weight=weight, cf_weight=0.0, kmeans_init=False).fit(real, about=known)
        codes = tokenizer.encode(real)
        used = [len(np.unique(column)) for column in codes.T]
        said[weight] = entropies(tokenizer, real), used, collision_metrics(codes)["distinct_sids"]
    (off, used_off, _), (on, used_on, _) = said[0.0], said[0.1]
    assert min(np.subtract(on, off)) > 0.03
    assert min(np.subtract(used_on, used_off)) >= 5


def test_alignment_is_cross_entropy_among_those_with_behaviour() -> None:
    q, cf = numbers(5, 3), numbers(5, 3, seed=1)
    cf[2] = 0
    logits = (q @ cf.T).numpy().astype(np.float64)
    there = [0, 1, 3, 4]
    slow = [0.0 if i == 2 else np.log(np.exp(logits[i, there]).sum()) - logits[i, i] for i in range(5)]
    np.testing.assert_allclose(alignment(q, cf).numpy(), slow, rtol=1e-5)
    assert alignment(q, torch.zeros(5, 3)).tolist() == [0.0] * 5


def test_diversity_is_cross_entropy_with_another_code_of_the_group() -> None:
    book = numbers(7, 3)
    codes, others = torch.tensor([0, 6, 6]), torch.tensor([3, 2, 1])
    products = (book @ book.T).numpy().astype(np.float64)
    slow = [
        np.log(np.exp(np.delete(products[code], code)).sum()) - products[code, other]
        for code, other in zip(codes.tolist(), others.tolist(), strict=True)
    ]
    np.testing.assert_allclose(diversity(book, codes, others).numpy(), slow, rtol=1e-5)


def test_groups_are_even_and_near_and_draw_others() -> None:
    centres = np.array([[0, 0], [50, 0], [0, 50]], dtype=np.float32)
    book = np.repeat(centres, 4, axis=0) + np.arange(12, dtype=np.float32)[:, None] * 0.01
    groups = Groups(book, 3, seed=0)
    codes = torch.arange(12).repeat(50)
    others = groups.others(codes, torch.Generator().manual_seed(0))
    assert (others // 4 == codes // 4).all()
    assert (others != codes).all()
    assert all(len(np.unique(others[codes == code])) == 3 for code in range(12))
    assert Groups(book[:3], 10, seed=0).others(torch.tensor([1]), torch.Generator()).item() in (0, 2)


def test_behaviour_is_made_as_wide_as_the_latent() -> None:
    cf = numbers(40, 6).numpy() * np.array([9, 5, 3, 1, 0.1, 0.1], dtype=np.float32)
    cf[3] = 0
    for width in (2, 4, 6, 9):
        made = to_width(cf, width)
        assert made.shape == (40, width)
        assert not made[3].any()
        np.testing.assert_allclose(np.linalg.norm(np.delete(made, 3, axis=0), axis=1), 1, rtol=1e-5)
    assert not to_width(cf, 9)[:, 6:].any()
    there = np.arange(40) != 3
    centred = cf[there] - cf[there].mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    wide = to_width(cf, 9)[there]
    np.testing.assert_allclose(wide @ wide.T, unit @ unit.T, atol=1e-4)  # turned, nothing lost
    assert not to_width(np.zeros((5, 3), dtype=np.float32), 2).any()


def test_behaviour_made_as_wide_has_the_same_bytes_on_any_number_of_cores() -> None:
    cf = numbers(20_000, 256).numpy()

    def on(cores: int) -> bytes:
        with threadpool_limits(cores):
            return to_width(cf, 32).tobytes()

    assert on(1) == on(2)


def test_letter_needs_behaviour_and_encodes_without(real: Vectors, known: Catalogue) -> None:
    some = np.arange(200)
    with pytest.raises(DataError, match=r"letter is fitted on cf too: pass about=Catalogue\(cf=...\)"):
        letter().fit(real[some])
    tokenizer = letter(levels=[8, 8], epochs=2).fit(real[some], about=known.rows(some))
    assert tokenizer.encode(real[200:]).shape == (len(real) - 200, 2)


# --- UniGRec


def uniform(**more: Any) -> RQVAEUniform:
    return RQVAEUniform(**{**SHORT, **more})


@pytest.fixture(scope="module")
def soft(real: Vectors) -> RQVAEUniform:
    return uniform().fit(real)


def test_uniformity_evens_out_codes(real: Vectors, soft: RQVAEUniform) -> None:
    off = entropies(uniform(uniformity=0.0).fit(real), real)
    assert min(np.subtract(entropies(soft, real), off)) > 0.002
    assert min(entropies(soft, real)) > 0.97


def test_soft_codes_are_those_of_training(real: Vectors, soft: RQVAEUniform) -> None:
    hard = soft.encode(real)
    codes, share = soft.encode_soft(real, 64)
    np.testing.assert_allclose(share.sum(axis=2), 1, atol=1e-5)
    assert np.array_equal(codes[:, :, 0], hard)
    assert (share[:, :, 0] >= share.max(axis=2) - 1e-6).all()  # or it would be put first without being so
    cold, whole = soft.encode_soft(real, 1, temperature=1e-3)
    assert np.array_equal(cold[:, :, 0], hard)
    assert (whole > 0.99).mean() > 0.99
    np.testing.assert_array_equal(share, soft.encode_soft(real, 64, temperature=soft.temperature_)[1])


def test_residuals_are_taken_after_the_soft_code(real: Vectors, soft: RQVAEUniform) -> None:
    residual = soft._to_latent(real).astype(np.float64)
    for level, book in enumerate(soft.codebooks_):
        far = ((residual[:, None] - book[None]) ** 2).sum(axis=2)  # the slow twin
        assert (far.argmin(axis=1) == soft.encode(real)[:, level]).mean() > 0.999
        share = np.exp(-(far - far.min(axis=1, keepdims=True)) / soft.temperature_)
        residual = residual - share / share.sum(axis=1, keepdims=True) @ book
    prefixes = soft.encode(real)[:, :1]
    same = soft.distances(real, prefixes)
    assert np.array_equal(soft.distances(real, (prefixes + 1) % 64), same)  # only their length matters
    latent, hard = soft._to_latent(real), soft.codebooks_[0][prefixes[:, 0]]
    after_hard = ((latent - hard)[:, None] - soft.codebooks_[1][None]) ** 2
    assert (after_hard.sum(axis=2).argmin(axis=1) != same.argmin(axis=1)).any()


def test_a_last_digit_makes_its_codes_unique(real: Vectors, known: Catalogue) -> None:
    tokenizer = uniform(levels=[64] * 3).fit(real)
    codes = tokenizer.encode(real)
    assert len(np.unique(codes, axis=0)) < len(real)
    done = resolve(codes, real, tokenizer, policy="suffix-from-zero", item_ids=known.item_ids)
    assert done.sids.shape == (len(real), 4)
    assert len(np.unique(done.sids, axis=0)) == len(real)
    assert 0 < done.sids[:, 3].max() < 100


def test_negative_entropy_is_least_where_codes_are_even() -> None:
    even, one = torch.full((4, 8), 1 / 8), torch.eye(8)[[0, 0, 0, 0]]
    assert float(negative_entropy(even, torch.ones(4))) == pytest.approx(-np.log(8))
    assert float(negative_entropy(one, torch.ones(4))) == pytest.approx(0, abs=1e-6)
    # What weighs nothing does not count.
    assert float(negative_entropy(torch.eye(8)[:4], torch.tensor([1.0, 0, 0, 0]))) == pytest.approx(
        0, abs=1e-6
    )


# --- GMC


@pytest.mark.parametrize(("codes_each", "weight"), [(16, 0.1), (64, 0.3)])
def test_level_1_tells_domains_apart_and_codes_are_shared(
    real: Vectors, known: Catalogue, codes_each: int, weight: float
) -> None:
    """The second is the weight of the preset, which has 64 codes a level: 0.1 does little there."""
    domains = domain_numbers(known, "category")

    def told(weight: float) -> tuple[Codes, list[float]]:
        levels = [codes_each, codes_each]
        tokenizer = GMC(**{**SHORT, "levels": levels}, contrast_weight=weight, domain_from="category")
        codes = tokenizer.fit(real, about=known).encode(real)
        return codes, [float(normalized_mutual_info_score(domains, column)) for column in codes.T]

    (_, off), (codes, on) = told(0.0), told(weight)
    assert on[0] > off[0] + 0.15
    assert on[0] > on[1] + 0.2
    used_by = [len(np.unique(domains[codes[:, 1] == code])) for code in np.unique(codes[:, 1])]
    assert np.mean(np.array(used_by) > 1) > 0.5


def test_contrast_is_the_slow_one() -> None:
    z, domains = numbers(7, 3), torch.tensor([0, 1, 0, 2, 1, 0, -1])
    unit = (z / z.norm(dim=1, keepdim=True)).numpy().astype(np.float64)
    slow = []
    for i, own in enumerate(domains.tolist()):
        terms = np.exp(unit @ unit[i] / 0.5)
        others = [j for j in range(7) if j != i and domains[j] == own >= 0]
        total = terms.sum() - terms[i]
        slow.append(-np.mean([np.log(terms[j] / total) for j in others]) if others else 0.0)
    leaf = z.clone().requires_grad_()
    found = contrast(leaf, domains, 0.5)
    np.testing.assert_allclose(found.detach().numpy(), slow, rtol=1e-5)
    found.sum().backward()
    assert torch.isfinite(leaf.grad).all()
    assert contrast(z, torch.zeros(7, dtype=torch.long), 0.5).tolist() == [0.0] * 7  # one domain, no contrast


def test_batches_hold_all_domains() -> None:
    groups = [np.arange(60), np.arange(60, 100), np.arange(100, 103)]
    rows = in_turn(groups, np.random.default_rng(0))
    assert len(rows) == 103
    domain = np.searchsorted([60, 100], rows, side="right")
    assert np.bincount(domain).tolist() == [45, 46, 12]  # of three rows each comes four times
    assert np.bincount(rows).max() == 4
    for start in range(0, 100, 20):
        assert np.bincount(domain[start : start + 20], minlength=3).min() >= 1
    assert even_quotas(np.array([4, 4]), 8).tolist() == [4, 4]


def test_the_domain_is_the_catalogues_or_the_broadest_category(known: Catalogue) -> None:
    about = Catalogue(["a", "b", "c"], domains=["y", "x", "y"], categories=[["q"], [], ["p", "q"]])
    assert domain_numbers(about, "domain").tolist() == [1, 0, 1]
    assert domain_numbers(about, "category").tolist() == [1, -1, 0]
    with pytest.raises(DataError, match="domain_from: expected one of domain, category, got 'title'"):
        GMC(domain_from="title").check_params()  # type: ignore[arg-type]


# --- MMGRec


def test_the_graph_adds_to_what_bpr_teaches(real: Vectors, known: Catalogue, behaviour: Neighbours) -> None:
    """Off side: the same network without neighbours, by the same BPR, which does most of it.

    Mean over three seeds of how many of the ten items nearest by users are among the ten nearest by vectors:
    0.048 with neighbours, 0.039 without; what codes keep of it is hardly more than the noise of a seed.
    """
    from sid_pipelines.fusion import InMemory, Modality, fusion_named

    assert known.events is not None
    every, there = np.arange(len(real)), np.ones(len(real), dtype=bool)
    train = np.bincount(known.events.items, minlength=len(real)) > 0
    found: dict[bool, list[float]] = {True: [], False: []}
    for neighbours, seed in product(found, range(3)):
        settings = {"epochs": 20, "negatives": 2, "hidden": 64, "dim": 32, "neighbours": neighbours}
        graph = fusion_named("graph")(**settings, seed=seed)
        fitted = graph.fit({"text": Modality(InMemory(real), there, "text")}, train, None, known.events)
        vectors = fitted.transform({"text": real}, {"text": there}, every)
        near = cosine_neighbours([(0, vectors)], every, vectors)[1]
        same = [len(np.intersect1d(a, b[b >= 0])) for a, b in zip(near, behaviour[1], strict=True)]
        found[neighbours].append(float(np.mean(same)) / 10)
    assert np.mean(found[True]) > 1.1 * np.mean(found[False])


def test_its_decoder_has_sigmoids(real: Vectors) -> None:
    layers = Layers([6, 9, 4], torch.Generator().manual_seed(0), activation="sigmoid")
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.uniform_(-9, 9, generator=torch.Generator().manual_seed(3))
    x = numbers(50, 6) * 30
    expected = layers.linear[1](torch.sigmoid(layers.linear[0](x)))
    np.testing.assert_allclose(layers(x).detach().numpy(), expected.detach().numpy())
    np.testing.assert_allclose(layers.to_numpy()(x.numpy()), expected.detach().numpy(), atol=1e-4)
    tokenizer = GraphRQVAE(levels=[8, 8], epochs=1).fit(real[:100])
    assert (tokenizer.encoder_.activation, tokenizer.decoder_.activation) == ("relu", "sigmoid")


def test_the_fourth_digit_is_the_order_of_popularity(real: Vectors, known: Catalogue) -> None:
    """Policy `suffix` counts items from 1 too, but in their order of ids."""
    assert known.popularity is not None
    popularity = known.popularity
    tokenizer = GraphRQVAE(levels=[8, 8], epochs=2).fit(real)
    codes = tokenizer.encode(real)
    key = codes[:, 0] * 8 + codes[:, 1]
    groups = [np.flatnonzero(key == prefix) for prefix in np.unique(key)]

    def rising(policy: str, **more: Any) -> int:
        """Give in how many groups some item has a higher digit than one that is less popular."""
        done = resolve(codes, real, tokenizer, policy=policy, item_ids=known.item_ids, **more)
        assert len(np.unique(done.sids, axis=0)) == len(real)
        found = 0
        for rows in groups:
            ordered = rows[np.argsort(done.sids[rows, 2])]
            found += bool((np.diff(popularity[ordered]) > 0).any())
            if policy == "suffix-popularity":
                assert done.sids[ordered, 2].tolist() == list(range(1, len(rows) + 1))
        return found

    assert rising("suffix-popularity", popularity=popularity) == 0
    assert rising("suffix") > len(groups) / 2
