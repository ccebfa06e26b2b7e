"""One contract for every tokenizer, on vectors whose structure is known and on real ones."""

import inspect
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fabricated import CODERS, fit
from sklearn.base import clone

from sid_schemas import DataError, RecipeError
from sid_tokenizers import RQKMeans, Tokenizer, load, tokenizer_named
from sid_tokenizers.base import Vectors, content_hashes, content_order
from sid_tokenizers.blocks import cores
from sid_tokenizers.clusters import cluster_means, nearest
from sid_tokenizers.exchange import exchange
from sid_tokenizers.kmeans import kmeans
from sid_tokenizers.metrics import (
    collision_metrics,
    duplicate_vectors,
    level_metrics,
    purity_by_prefix,
    reconstruction,
)
from sid_tokenizers.neighbours import cooccurrence_neighbours, cosine_neighbours, neighbour_overlap, overlap

# Another value than the default for every parameter of every scheme, small enough to be fitted at once.
OTHER_VALUES: dict[str, object] = {
    "levels": [5, 3],
    "seed": 9,
    "n_init": 2,
    "max_iter": 7,
    "tol": 0.5,
    "exchanges": 2,
    "normalize_residuals": True,
    "batch_size": 20,
    "method": "greedy",
    "remember": False,
    "decay": 0.85,
    "epochs": 3,
    "kmeans_init": False,
    "dead_threshold": 1.5,
    "restart": False,
    "rounds": 3,
    "init": "identity",
    "fsq_levels": [3, 2],
    "slices": 2,
    "bound": "lucidrains",
    "learning_rate": 2.5e-3,
    "standardize": False,
    "kmeans_levels": [5, 3],
    "hidden": [6],
    "latent": 3,
    "beta": 0.5,
    "level_mean": False,
    "residual_grad": "none",
    "gradient": "rotation",
    "sinkhorn": 0.05,
    "unique": 0.25,
    "autoencoder_epochs": 2,
    "polish_epochs": 2,
    "max_steps": 40,
    "weight_decay": 1e-3,
    "optimizer": "adagrad",
    "schedule": "constant",
    "schedule_warmup": 1,
    "normalize_input": "scale",
    "restart_dead": False,
    "check_every": 1,
    "refit_steps": 1,
    "balance": 0.5,
    "clip": 2.0,
    "kmeans_rows": 50,
    "keep_from": 0.25,
    "device": "cpu",  # the only one there is everywhere
    "preset": "tiger",
    "decoder": "plain",
    "decoder_epochs": 2,
    "vocab_size": 32_128,
    "gate_hidden": 5,
    "content_weight": 0.7,
    "cf_weight": 0.6,
    "gate_weight": 0.5,
    "anchor_weight": 0.4,
    "balance_weight": 0.3,
    "warmup_epochs": 1,
    "phase1_epochs": 2,
    "diversity_weight": 0.2,
    "clusters": 2,
    "uniformity": 0.3,
    "warm": 0.4,
    "cold": 0.02,
    "contrast_weight": 0.3,
    "temperature": 0.2,
    "domain_from": "category",
    "balanced": False,
    "orthogonality": 0.2,
    "load_balance": 0.3,
}
OTHER_FOR = {("rq-kmeans-plus", "init"): "plain"}


def other_values(scheme: type[Tokenizer]) -> dict[str, object]:
    names = inspect.signature(scheme).parameters
    return {name: OTHER_FOR.get((scheme.name, name), OTHER_VALUES[name]) for name in names}


def test_other_values_are_not_the_defaults() -> None:
    for scheme in CODERS.values():
        defaults = scheme().get_params()
        same = {name for name, value in other_values(scheme).items() if value == defaults[name]}
        assert same <= {"device"}, scheme.name


def grid(centres: int = 4, offsets: int = 3, copies: int = 5) -> tuple[Vectors, np.ndarray]:
    """Far centres plus near offsets plus a little noise: level 1 must find the former, level 2 the latter."""
    draw = np.random.default_rng(0)
    coarse = draw.normal(size=(centres, 6)) * 100
    fine = draw.normal(size=(offsets, 6)) * 5
    truth = np.array([(c, o) for c in range(centres) for o in range(offsets) for _ in range(copies)])
    X = coarse[truth[:, 0]] + fine[truth[:, 1]] + draw.normal(size=(len(truth), 6)) * 0.01
    return X.astype(np.float32), truth


@pytest.fixture(params=sorted(CODERS))
def scheme(request: pytest.FixtureRequest) -> type[Tokenizer]:
    return CODERS[request.param]


def make(scheme: type[Tokenizer], levels: list[int]) -> Tokenizer:
    """Make a scheme that codes with about these levels and is fitted in a second or so."""
    match scheme.name:
        case "fsq":
            params: dict[str, object] = {"fsq_levels": [4, 3], "slices": len(levels), "epochs": 1}
        case "opq":
            params = {"levels": levels, "rounds": 4}
        case "rq-kmeans+fsq":
            params = {"kmeans_levels": levels, "fsq_levels": [2, 2]}
        case "rq-vae":
            params = {"levels": levels, "hidden": [32], "latent": 8, "max_steps": 30, "autoencoder_epochs": 3}
            params |= {"epochs": 5, "polish_epochs": 2}
        case "rq-kmeans-plus":
            params = {"levels": levels, "hidden": [8], "epochs": 2, "decoder_epochs": 2, "init": "plain"}
        case "letter" | "gmc" | "rq-vae-uniform" | "graph-rq-vae":
            params = {"levels": levels, "hidden": [16], "latent": 8, "epochs": 5, "batch_size": 256}
        case "prism":
            params = {"levels": levels, "hidden": [16], "latent": 8, "epochs": 3}
            params |= {"warmup_epochs": 1, "phase1_epochs": 1}
        case "moe-pq":
            params = {"levels": levels, "hidden": [16], "latent": 8, "epochs": 3}
            params |= {"autoencoder_epochs": 1, "decoder_epochs": 1}
        case _:
            params = {"levels": levels}
    return scheme(**params)


RESIDUAL = ["rq-kmeans", "rq-kmeans-balanced", "rq-kmeans+fsq", "rvq-ema"]


def test_init_only_stores(scheme: type[Tokenizer]) -> None:
    given = other_values(scheme)
    tokenizer = scheme(**given)
    assert tokenizer.get_params() == given
    assert not [name for name in vars(tokenizer) if name.endswith("_")]
    assert clone(tokenizer).get_params() == given
    assert tokenizer.set_params(seed=3).get_params()["seed"] == 3
    with pytest.raises(ValueError, match="no parameter 'sead'"):
        tokenizer.set_params(sead=3)


def test_it_says_what_it_is(scheme: type[Tokenizer]) -> None:
    assert tokenizer_named(scheme.name) is scheme
    assert scheme.paper
    assert scheme.traits.gives == "codes"
    assert len(scheme().levels) >= 3
    assert scheme.__doc__


def test_codes_and_shapes(scheme: type[Tokenizer], real: Vectors) -> None:
    tokenizer = fit(make(scheme, [32, 16, 8]), real)
    codes = tokenizer.encode(real)
    assert codes.shape == (len(real), len(tokenizer.levels))
    assert codes.dtype == np.int32
    assert (codes >= 0).all()
    assert (codes.max(axis=0) < tokenizer.levels).all()
    decoded = tokenizer.decode(codes)
    assert decoded.shape == real.shape
    assert decoded.dtype == np.float32
    # Blocks are encoded as the whole is.
    assert np.array_equal(tokenizer.encode(real[:7]), codes[:7])
    assert tokenizer.encode(real[:0]).shape == (0, len(tokenizer.levels))


@pytest.mark.parametrize("name", RESIDUAL)
def test_known_structure_is_found(name: str) -> None:
    X, truth = grid()
    codes = make(CODERS[name], [4, 3]).fit(X).encode(X)
    for level in (0, 1):
        known = map(tuple, truth[:, : level + 1].tolist())
        found = map(tuple, codes[:, : level + 1].tolist())
        pairs = set(zip(known, found, strict=True))
        assert len(pairs) == len({t for t, _ in pairs}) == len({c for _, c in pairs})


@pytest.mark.parametrize("name", [*RESIDUAL, "pq", "opq"])
def test_more_levels_reconstruct_better(name: str, real: Vectors) -> None:
    errors = []
    for levels in ([16], [16, 16], [16, 16, 16]):
        tokenizer = make(CODERS[name], levels).fit(real)
        found = reconstruction(real, tokenizer.decode(tokenizer.encode(real)))
        assert found
        errors.append(found["relative_error"])
    assert errors[0] > errors[1] > errors[2]


def test_same_seed_same_codes_whatever_the_row_order(scheme: type[Tokenizer], real: Vectors) -> None:
    first = fit(make(scheme, [16, 16]), real)
    codes = first.encode(real)
    order = np.random.default_rng(1).permutation(len(real))
    second = fit(make(scheme, [16, 16]), real[order])
    assert np.array_equal(second.encode(real[order]), codes[order])
    assert second.fit_ == first.fit_
    other = fit(make(scheme, [16, 16]).set_params(seed=1), real).encode(real)
    assert not np.array_equal(other, codes)


def test_a_second_fit_starts_afresh(scheme: type[Tokenizer], real: Vectors) -> None:
    real = real[:300]
    tokenizer = fit(fit(make(scheme, [8, 8]), grid()[0]), real)
    assert np.array_equal(tokenizer.encode(real), fit(make(scheme, [8, 8]), real).encode(real))


def test_save_and_load_keep_everything(scheme: type[Tokenizer], tmp_path: Path) -> None:
    X, _ = grid()
    given = other_values(scheme)
    tokenizer = fit(scheme(**given), X)
    tokenizer.save(tmp_path / "t")
    again = load(tmp_path / "t")
    assert type(again) is scheme
    assert again.get_params() == given
    assert again.fit_ == tokenizer.fit_
    codes = tokenizer.encode(X)
    assert np.array_equal(again.encode(X), codes)
    assert np.array_equal(again.decode(codes), tokenizer.decode(codes))
    assert np.array_equal(again.distances(X, codes[:, :1]), tokenizer.distances(X, codes[:, :1]))
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == [
        "tokenizer.json",
        "tokenizer.safetensors",
    ]


def test_distances_rank_the_own_code_first(scheme: type[Tokenizer], real: Vectors) -> None:
    tokenizer = make(scheme, [16, 8])
    if "remember" in tokenizer.get_params():  # remembered codes are balanced, not nearest
        tokenizer.set_params(remember=False)
    codes = fit(tokenizer, real).encode(real)
    for level, k in enumerate(tokenizer.levels):
        distances = tokenizer.distances(real, codes[:, :level])
        assert distances.shape == (len(real), k)
        assert (distances >= 0).all()
        own = distances[np.arange(len(real)), codes[:, level]]
        assert np.allclose(own, distances.min(axis=1), rtol=1e-4, atol=1e-5)
        assert (distances.argmin(axis=1) == codes[:, level]).mean() > 0.999


def test_soft_codes_are_probabilities_around_the_hard_one(scheme: type[Tokenizer], real: Vectors) -> None:
    real = real[:200]
    tokenizer = fit(make(scheme, [16, 8]), real)
    if not scheme.traits.soft:
        with pytest.raises(DataError, match="no soft codes"):
            tokenizer.encode_soft(real, 2)
        return
    hard = tokenizer.encode(real)
    codes, share = tokenizer.encode_soft(real, 8)
    assert codes.shape == share.shape == (200, len(tokenizer.levels), 8)
    assert np.array_equal(codes[:, :, 0], hard)
    if scheme.name != "rq-kmeans-balanced":  # which remembers codes that are not the nearest
        assert (share[:, :, 0] >= share.max(axis=2) - 1e-6).all()
    everything = tokenizer.encode_soft(real, min(tokenizer.levels))[1]
    last = everything[:, np.argmin(tokenizer.levels)]
    assert np.allclose(last.sum(axis=1), 1.0, atol=1e-5)
    assert (np.diff(share[:, :, 1:], axis=2) <= 1e-6).all()
    cold = tokenizer.encode_soft(real, 1, temperature=1e-6)[1]
    assert (cold.max(axis=2) > 0.99).mean() > 0.9
    for top, temperature in ((0, 1.0), (9, 1.0), (1, 0.0)):
        with pytest.raises(DataError, match="encode_soft: expected top 1 to 8"):
            tokenizer.encode_soft(real, top, temperature=temperature)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda X: np.where(np.arange(len(X))[:, None] == 7, np.nan, X), "row 7: holds NaN or infinity"),
        (lambda X: np.where(np.arange(len(X))[:, None] == 7, np.inf, X), "row 7: holds NaN or infinity"),
        (lambda X: X.astype(np.float64) * 1e300, "holds NaN or infinity"),
        (lambda X: X * 1e20, "numbers too large to be squared"),
        (lambda X: [[1.0, 2.0], [3.0]], "rows of different lengths"),
        (lambda X: X[0], "expected a matrix"),
        (lambda X: X.astype(str), "expected numbers"),
        (lambda X: X[:0], "only 0 items|expected at least"),
    ],
)
def test_bad_input_is_refused(scheme: type[Tokenizer], spoil: object, message: str) -> None:
    X, _ = grid()
    with pytest.raises(DataError, match=message):
        fit(make(scheme, [4, 2]), spoil(X))  # type: ignore[operator]


def test_fewer_items_than_codes_are_refused(scheme: type[Tokenizer]) -> None:
    X, _ = grid()
    if scheme.name == "fsq":  # it has no codebook to fill
        fit(make(scheme, [4, 2]), X[:3])
        return
    with pytest.raises(DataError, match=r"evels\[0\] asks for 4 codes, but there are only 3 items to fit on"):
        fit(make(scheme, [4, 2]), X[:3])


def test_an_item_has_its_code_whoever_stands_beside_it(scheme: type[Tokenizer], real: Vectors) -> None:
    """Rows half way between two centroids: the last bit of a product decides, so it must be the same."""
    tokenizer = fit(make(scheme, [32, 16]), real)
    codes = tokenizer.decode(tokenizer.encode(real))
    near = np.concatenate([codes, (codes[:-1] + codes[1:]) / 2])
    near = np.concatenate([near] * (2049 // len(near) + 1))[:2049]  # the last row is a block of its own
    whole = tokenizer.encode(near)
    for rows in (slice(0, 1), slice(5, 8), slice(7, 40), slice(100, 600), slice(2048, 2049)):
        assert np.array_equal(tokenizer.encode(near[rows]), whole[rows])
    order = np.random.default_rng(0).permutation(len(near))
    assert np.array_equal(tokenizer.encode(near[order]), whole[order])


def test_weights_mean_their_proportions(scheme: type[Tokenizer], real: Vectors) -> None:
    real = real[:300]
    weight = np.random.default_rng(0).integers(1, 4, size=300).astype(np.float64)
    params = ([8, 8],)
    codes = fit(make(scheme, *params), real, sample_weight=weight).encode(real)
    for scale in (2.0**-140, 2.0**140):
        scaled = fit(make(scheme, *params), real, sample_weight=weight * scale).encode(real)
        assert np.array_equal(scaled, codes)
    order = np.random.default_rng(1).permutation(300)
    shuffled = fit(make(scheme, *params), real[order], sample_weight=weight[order])
    assert np.array_equal(shuffled.encode(real), codes)


def test_rows_without_weight_draw_no_centroids(real: Vectors) -> None:
    weight = (np.arange(len(real)) % 12 == 0).astype(np.float64)
    for exchanges in (0, 100):
        found = kmeans(real, 20, seed=0, exchanges=exchanges, weight=weight)
        alone = kmeans(real[weight > 0], 20, seed=0, exchanges=exchanges, weight=weight[weight > 0])
        assert np.array_equal(found, alone)


def test_numpys_numbers_are_parameters_too(tmp_path: Path) -> None:
    X, _ = grid()
    RQKMeans(levels=np.array([4, 3]), seed=np.int64(2), tol=np.float32(0.5)).fit(X).save(tmp_path)
    assert load(tmp_path).get_params()["levels"] == [4, 3]


def test_two_threads_may_encode_at_once(real: Vectors) -> None:
    from threadpoolctl import threadpool_info

    before = [one["num_threads"] for one in threadpool_info()]
    tokenizer = RQKMeans(levels=[16, 16]).fit(real)
    expected = tokenizer.encode(real)
    with ThreadPoolExecutor(4) as pool:
        for codes in pool.map(lambda _: tokenizer.encode(real), range(12)):
            assert np.array_equal(codes, expected)
    assert [one["num_threads"] for one in threadpool_info()] == before


def test_misuse_is_refused(scheme: type[Tokenizer], tmp_path: Path) -> None:
    X, _ = grid()
    with pytest.raises(DataError, match="not fitted"):
        make(scheme, [4]).encode(X)
    with pytest.raises(DataError, match="not fitted"):
        make(scheme, [4]).save(tmp_path)
    fitted = fit(make(scheme, [4, 2]), X)
    length = len(fitted.levels)
    with pytest.raises(DataError, match="expected 6 columns as in fit, got 5"):
        fitted.encode(X[:, :5])
    with pytest.raises(DataError, match="row 1: holds NaN"):
        fitted.encode(np.where(np.arange(len(X))[:, None] == 1, np.nan, X))
    with pytest.raises(DataError, match="expected shape"):
        fitted.decode(np.zeros((2, length + 1), dtype=int))
    with pytest.raises(DataError, match="level 1 has codes 0 to"):
        fitted.decode(np.full((2, length), 99))
    with pytest.raises(DataError, match="level 1 has codes 0 to"):
        fitted.decode(np.full((2, length), -1))
    with pytest.raises(DataError, match="expected whole numbers"):
        fitted.decode(np.full((2, length), 1.7))
    with pytest.raises(DataError, match="prefixes: expected shape"):
        fitted.distances(X, np.zeros((len(X), length), dtype=int))
    with pytest.raises(DataError, match="prefixes: expected shape"):
        fitted.distances(X, np.zeros((1, 1), dtype=int))
    with pytest.raises(DataError, match="holds no tokenizer"):
        load(tmp_path / "nowhere")
    with pytest.raises(DataError, match="seed"):
        fit(make(scheme, [4, 2]).set_params(seed=-1), X)
    with pytest.raises(DataError, match="sample_weight"):
        fit(fitted, X, sample_weight=-np.ones(len(X)))
    fitted.save(tmp_path)
    config = tmp_path / "tokenizer.json"
    config.write_text(config.read_text().replace('"format": 2', '"format": 1'))
    with pytest.raises(DataError, match="format 1"):
        load(tmp_path)
    with pytest.raises(RecipeError, match="lists all"):
        tokenizer_named("nope")


def test_levels_are_checked(scheme: type[Tokenizer]) -> None:
    names = {"fsq": "fsq_levels", "rq-kmeans+fsq": "kmeans_levels"}
    name = names.get(scheme.name, "levels")
    for wrong in ([], [0], [4, -1], [4.5], 4):
        with pytest.raises(DataError, match=name):
            scheme(**{name: wrong}).check_params()


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_are_taken(scheme: type[Tokenizer], dtype: type) -> None:
    X, _ = grid()
    X = X.astype(dtype)
    same = X.astype(np.float32)
    fitted = fit(make(scheme, [4, 3]), X)
    assert np.array_equal(fitted.encode(X), fit(make(scheme, [4, 3]), same).encode(same))


ODD = {
    "constant": np.ones((12, 6)),
    "zero": np.zeros((12, 6)),
    "one zero row": np.r_[np.zeros((1, 6)), np.random.default_rng(0).normal(size=(11, 6))],
    "few distinct": np.repeat(np.eye(6)[:3], 4, axis=0),
    "huge and tiny": np.random.default_rng(0).normal(size=(12, 6)) * np.logspace(-12, 12, 12)[:, None],
}


@pytest.mark.parametrize("case", sorted(ODD))
def test_odd_vectors_give_codes(scheme: type[Tokenizer], case: str) -> None:
    X = ODD[case].astype(np.float32)
    tokenizer = fit(make(scheme, [6, 5]), X)  # 5 and 6 are no powers of two
    codes = tokenizer.encode(X)
    assert (codes.max(axis=0) < tokenizer.levels).all()
    assert np.isfinite(tokenizer.decode(codes)).all()
    assert np.isfinite(tokenizer.distances(X, codes[:, :1])).all()
    if scheme.traits.ordered and "remember" not in tokenizer.get_params():
        rows = {tuple(row) for row in X.tolist()}
        assert len({tuple(row) for row in codes.tolist()}) <= len(rows)  # equal vectors, equal codes


def test_one_item(scheme: type[Tokenizer]) -> None:
    X = np.arange(6, dtype=np.float32)[None]
    tokenizer = fit(make(scheme, [1, 1]), X)
    codes = tokenizer.encode(X)
    assert codes.shape == (1, len(tokenizer.levels))
    assert np.isfinite(tokenizer.decode(codes)).all()


def test_weights_pull_the_centroids() -> None:
    X = np.array([[0.0], [1.0]], dtype=np.float32)
    fitted = RQKMeans(levels=[1], n_init=1).fit(X, sample_weight=[1.0, 3.0])
    assert fitted.codebooks_[0][0, 0] == pytest.approx(0.75)


def test_residuals_are_what_makes_levels_worth_it(real: Vectors) -> None:
    """OneRec's check: every code in use; and levels that see x instead of what is left fail."""
    fitted = RQKMeans(levels=[64] * 3).fit(real)
    codes = fitted.encode(real)
    for level in range(3):
        use = level_metrics(codes[:, level], 64)
        assert use["used"] == 64
        assert use["entropy_ratio"] > 0.75
    error = reconstruction(real, fitted.decode(codes))
    first = reconstruction(real, fitted.decode(codes[:, :1]))
    assert error
    assert first
    assert error["squared_error"] < 0.75 * first["squared_error"]
    blind = [kmeans(real, 64, seed=seed) for seed in range(3)]  # the residual switched off
    sums = sum(book[nearest(real, book)[0]] for book in blind)
    without = reconstruction(real, np.asarray(sums, dtype=np.float32))
    assert without
    assert without["squared_error"] > first["squared_error"]


def test_normalized_residuals_are_grids(real: Vectors) -> None:
    """GRID scales every residual to length 1, so the scale of x is lost and codes do not sum to x."""
    scaled = real * np.random.default_rng(0).uniform(0.5, 4, size=(len(real), 1)).astype(np.float32)
    params = {"levels": [16, 16], "normalize_residuals": True}
    fitted = RQKMeans(**params).fit(scaled)
    assert not fitted.reconstructs
    codes = fitted.encode(scaled)
    assert (fitted.encode(scaled * 7) == codes).mean() > 0.999
    plain = RQKMeans(levels=[16, 16]).fit(scaled)
    assert plain.reconstructs
    assert (plain.encode(scaled * 7) == plain.encode(scaled)).mean() < 0.7  # switched off, it fails
    residual = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)  # the slow twin
    for level, book in enumerate(fitted.codebooks_):
        slow = ((residual[:, None] - book[None]) ** 2).sum(axis=2).argmin(axis=1)
        assert (slow == codes[:, level]).mean() > 0.999
        residual = residual - book[codes[:, level]]
        residual /= np.linalg.norm(residual, axis=1, keepdims=True)


def test_mini_batches_come_near_the_whole(real: Vectors) -> None:
    whole = RQKMeans(levels=[32, 32]).fit(real)
    batches = RQKMeans(levels=[32, 32], batch_size=256, max_iter=10).fit(real)
    errors = [((real - one.decode(one.encode(real))) ** 2).sum() for one in (whole, batches)]
    assert errors[0] < errors[1] < 1.25 * errors[0]


def test_a_large_fit_goes_through_its_sample(real: Vectors) -> None:
    """Beyond TRIAL_ROWS * k rows seedings compete on a sample; the result is as good as without."""
    X = np.repeat(real, 3, axis=0) + np.random.default_rng(0).normal(size=(3 * len(real), 384)) * 0.01
    X = X.astype(np.float32)
    ours = nearest(X, kmeans(X, 16, seed=0))[1].sum()
    small = nearest(X, kmeans(X[::3], 16, seed=0))[1].sum()
    assert len(X) > 32 * 16
    assert ours <= small * 1.01


def test_exchanges_lower_the_error_and_reach_hartigans_optimum(real: Vectors) -> None:
    start = real[np.random.default_rng(0).choice(len(real), 64, replace=False)]
    before = nearest(real, start)[1].sum()
    after = exchange(real, start, 1000)
    codes, distances = nearest(real, after)
    assert distances.sum() < 0.9 * before
    # The slow twin: no row can move to another cluster with a gain worth naming.
    counts = np.bincount(codes, minlength=64)
    far = ((real[:, None] - after[None]) ** 2).sum(axis=2)
    for row, own in enumerate(codes):
        if counts[own] > 1:
            stay = far[row, own] * counts[own] / (counts[own] - 1)
            move = far[row] * counts / (counts + 1)
            move[own] = np.inf
            assert stay - move.min() < 1e-4
    assert np.allclose(cluster_means(real, codes, 64, None)[0], after, atol=1e-5)


def test_exchanges_help_on_rows_not_fitted_too(real: Vectors) -> None:
    held_out = np.arange(len(real)) % 5 == 0
    errors = []
    for exchanges in (0, 100):
        fitted = RQKMeans(levels=[64] * 3, exchanges=exchanges).fit(real[~held_out])
        codes = fitted.encode(real)
        error = ((real - fitted.decode(codes)) ** 2).sum(axis=1)
        errors.append((error[~held_out].mean(), error[held_out].mean()))
    assert errors[1][0] < 0.95 * errors[0][0]
    assert errors[1][1] < errors[0][1]


def test_a_weight_counts_as_that_many_rows() -> None:
    draw = np.random.default_rng(0)
    X = draw.normal(size=(60, 3)).astype(np.float32)
    weight = draw.integers(1, 4, size=60)
    start = X[:8]
    found = exchange(X, start, 1000, weight.astype(np.float64))
    many = np.repeat(X, weight, axis=0)
    assert np.allclose(cluster_means(many, nearest(many, found)[0], 8, None)[0], found, atol=1e-4)


def test_content_order_is_of_the_content_alone() -> None:
    draw = np.random.default_rng(0)
    X = draw.integers(0, 3, size=(500, 3)).astype(np.float32)  # many equal rows
    weight = draw.integers(1, 4, size=500).astype(np.float64)
    shuffle = draw.permutation(500)
    for given in (None, weight):
        order = content_order(X, given)
        other = content_order(X[shuffle], None if given is None else given[shuffle])
        assert np.array_equal(X[order], X[shuffle][other])
        if given is not None:
            assert np.array_equal(given[order], given[shuffle][other])
    assert np.array_equal(content_hashes(-X * 0), content_hashes(X * 0))
    assert len(np.unique(content_hashes(draw.normal(size=(4000, 2)).astype(np.float32)))) == 4000
    swapped = np.array([[1, 2], [2, 1]], dtype=np.float32)
    assert len(np.unique(content_hashes(swapped))) == 2


def test_nearest_is_the_slow_one(real: Vectors) -> None:
    centroids = real[:37]
    codes, distances = nearest(real, centroids)
    slow = ((real[:, None] - centroids[None]) ** 2).sum(axis=2)
    assert np.array_equal(codes, slow.argmin(axis=1))
    assert np.allclose(distances, slow.min(axis=1), atol=1e-5)


def test_cluster_means_are_the_slow_ones(real: Vectors) -> None:
    codes, _ = nearest(real, real[:20])
    means, totals = cluster_means(real, codes, 21, None)
    for cluster in range(20):
        assert np.allclose(means[cluster], real[codes == cluster].mean(axis=0), atol=1e-6)
    assert totals[20] == 0


def test_kmeans_is_no_worse_than_scikit_learns(real: Vectors) -> None:
    from sklearn.cluster import KMeans

    ours = nearest(real, kmeans(real, 64, seed=0, n_init=4))[1].sum()
    theirs = KMeans(64, n_init=4, random_state=0).fit(real).inertia_
    assert ours <= theirs * 1.01


def test_no_cluster_stays_empty() -> None:
    X = np.concatenate([np.zeros((50, 2)), np.eye(2) * 9]).astype(np.float32) + np.random.default_rng(
        0
    ).normal(size=(52, 2)).astype(np.float32)
    codes, _ = nearest(X, kmeans(X, 20, seed=0, n_init=1))
    assert len(set(codes.tolist())) == 20


def test_collision_metrics_by_hand() -> None:
    codes = np.array([[0, 1], [0, 1], [0, 1], [2, 0], [3, 3]], dtype=np.int32)
    assert collision_metrics(codes) == {
        "items": 5,
        "distinct_sids": 3,
        "collision_rate": 0.4,
        "collided_items": 3,
        "uniquely_identified": 0.4,
        "max_group": 3,
        "gini_of_groups": pytest.approx(4 / 15),
    }


def test_level_metrics_by_hand() -> None:
    found = level_metrics(np.array([0, 0, 1, 1], dtype=np.int32), 4)
    assert (found["used"], found["dead"], found["min_count"], found["max_count"]) == (2, 2, 0, 2)
    assert found["entropy"] == pytest.approx(np.log(2))
    assert found["perplexity_share"] == pytest.approx(0.5)
    assert found["gini"] == pytest.approx(0.5)
    assert found["entropy_ratio"] == pytest.approx(0.5)
    assert level_metrics(np.arange(4, dtype=np.int32), 4)["gini"] == pytest.approx(0.0)


def test_neighbour_overlap_by_hand() -> None:
    # Two tight groups of three; SIDs that follow them keep all neighbours, SIDs that cross them none.
    X = np.array([[1, 0.01 * i] for i in range(3)] + [[0.01 * i, 1] for i in range(3)], dtype=np.float32)
    along = np.array([[0, i] for i in range(3)] + [[1, i] for i in range(3)], dtype=np.int32)
    assert neighbour_overlap(X, along, top=2) == pytest.approx(1.0)
    same = np.zeros((6, 1), dtype=np.int32)
    assert neighbour_overlap(X, same, top=2) == pytest.approx(2 / 5)  # a random choice among five
    assert neighbour_overlap(X[:1], along[:1]) == 1.0


def test_cores_are_as_many_as_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for told, number in (("3", 3), ("0", 1)):
        monkeypatch.setenv("SIDMILL_CORES", told)
        assert cores() == number
    monkeypatch.setenv("SIDMILL_CORES", "two")
    with pytest.raises(DataError, match="SIDMILL_CORES, an environment variable, is 'two'; expected a whole"):
        cores()


def test_duplicate_vectors_are_counted() -> None:
    assert duplicate_vectors(np.array([[1, 2], [1, 2], [1, 3], [1, 2]], dtype=np.float32)) == 2


def test_neighbours_come_block_by_block_as_at_once(real: Vectors) -> None:
    queries = np.arange(0, len(real), 50)
    whole = cosine_neighbours([(0, real)], queries, real[queries])
    blocks = [(start, real[start : start + 100]) for start in range(0, len(real), 100)]
    parts = cosine_neighbours(blocks, queries, real[queries])
    unit = real / np.linalg.norm(real, axis=1, keepdims=True)
    for query, row, other in zip(queries, whole[1], parts[1], strict=True):
        likeness = unit @ unit[query]
        likeness[query] = -2
        tenth = np.sort(likeness)[-10]
        assert query not in row
        assert len(set(row.tolist())) == len(set(other.tolist())) == 10
        assert (likeness[row] >= tenth - 1e-5).all()
        assert (likeness[other] >= tenth - 1e-5).all()


def test_unordered_codes_are_near_by_what_they_share() -> None:
    sids = np.array([[0, 1, 2], [9, 1, 2], [0, 8, 8]], dtype=np.int32)
    neighbours = (np.array([0]), np.array([[1]]))
    assert overlap(sids, neighbours, ordered=False) == 1.0  # shares two codes; the other shares one
    assert overlap(sids, neighbours) == 0.0  # but no prefix


def test_cooccurrence_by_hand() -> None:
    # Items 0 and 1 share both users; item 2 shares one of two with each; item 3 is alone; 4 unseen.
    users = np.array([0, 1, 0, 1, 0, 2, 3, 0])
    items = np.array([0, 0, 1, 1, 2, 2, 3, 1])  # (0, 1) twice: counts once
    _, found = cooccurrence_neighbours(users, items, 5, np.arange(5), top=2)
    assert found.tolist() == [[1, 2], [0, 2], [0, 1], [-1, -1], [-1, -1]]
    assert overlap(np.zeros((5, 1), dtype=np.int32), (np.arange(3, 5), found[3:])) is None


def test_purity_by_hand() -> None:
    sids = np.array([[0, 0], [0, 1], [0, 1], [1, 0], [1, 1]], dtype=np.int32)
    labels = np.array([0, 1, 1, 2, -1])
    found = purity_by_prefix(sids, labels)
    assert [row["purity"] for row in found] == [pytest.approx(3 / 4), 1.0]
    assert purity_by_prefix(sids, np.full(5, -1)) == []
