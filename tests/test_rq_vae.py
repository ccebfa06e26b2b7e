"""RQ-VAE and RQ-KMeans+: losses against slow twins, what each guard is for, and use without torch."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from sid_schemas import DataError
from sid_tokenizers.base import Tokenizer, Vectors
from sid_tokenizers.learned.perceptron import Scaling
from sid_tokenizers.learned.rq_kmeans_plus import RQKMeansPlus
from sid_tokenizers.learned.rq_vae import RQVAE
from sid_tokenizers.learned.rq_vae_settings import PRESETS, Settings
from sid_tokenizers.rq_kmeans import RQKMeans

torch = pytest.importorskip("torch")

from sid_tokenizers.learned import rq_vae_network as networks  # noqa: E402
from sid_tokenizers.learned import rq_vae_training as loop  # noqa: E402

SMALL = Settings(hidden=(7,), latent=3)
REAL_EPOCHS = 30  # for 1342 vectors of 384 columns and 3 x 256 codes
QUICK = {"hidden": [32], "latent": 8, "epochs": 6, "autoencoder_epochs": 6, "polish_epochs": 2}


@pytest.fixture(scope="module")
def digits() -> Vectors:
    """1797 real vectors of 64 columns: handwritten digits."""
    return load_digits().data.astype(np.float32)


@pytest.fixture(scope="module")
def fitted(digits: Vectors) -> RQVAE:
    return RQVAE(levels=[32, 16], check_every=3, **QUICK).fit(digits)


def network(settings: Settings = SMALL, dim: int = 5) -> networks.Network:
    made = networks.Network(dim, [4, 3], settings, torch.Generator().manual_seed(1))
    with torch.no_grad():  # codes as large as latents, so that every term counts
        for book in made.codebooks:
            book.mul_(4)
    return made


def batch(n: int = 9, dim: int = 5) -> "torch.Tensor":
    return torch.from_numpy(np.random.default_rng(2).normal(size=(n, dim)).astype(np.float32))


def slow_losses(
    made: networks.Network, x: Vectors, settings: Settings
) -> tuple[Vectors, Vectors, np.ndarray]:
    """Row by row and code by code, from the formula."""
    books = [book.detach().numpy() for book in made.codebooks]
    reconstruction, quantization, codes = [], [], []
    for row in x:
        z = residual = made.encoder.to_numpy()(row[None])[0]
        total, terms, own = np.zeros_like(z), [], []
        for book in books:
            own.append(min(range(len(book)), key=lambda k: float(((residual - book[k]) ** 2).sum())))
            q = book[own[-1]]
            terms.append((1 + settings.beta) * ((residual - q) ** 2).mean())
            total, residual = total + q, residual - q
        decoded = made.decoder.to_numpy()(total[None])[0]
        reconstruction.append(((decoded - row) ** 2).mean())
        quantization.append(np.mean(terms) if settings.level_mean else np.sum(terms))
        codes.append(own)
    return np.array(reconstruction), np.array(quantization), np.array(codes)


@pytest.mark.parametrize("level_mean", [False, True])
@pytest.mark.parametrize("gradient", ["ste", "rotation"])
def test_losses_equal_a_slow_twin(level_mean: bool, gradient: str) -> None:
    settings = replace(SMALL, level_mean=level_mean, gradient=gradient, beta=0.4)
    made, x = network(settings), batch()
    found = networks.losses(made, x, settings)
    reconstruction, quantization, codes = slow_losses(made, x.numpy(), settings)
    assert np.array_equal(found.codes.numpy(), codes)
    np.testing.assert_allclose(found.reconstruction.detach().numpy(), reconstruction, rtol=1e-5)
    np.testing.assert_allclose(found.quantization.detach().numpy(), quantization, rtol=1e-5)
    rows = reconstruction + quantization
    assert networks.mean_loss(found.by_row(), None).item() == pytest.approx(rows.mean(), rel=1e-5)
    weight = np.arange(len(x), dtype=np.float32)
    weighted = networks.mean_loss(found.by_row(), torch.from_numpy(weight)).item()
    assert weighted == pytest.approx(np.average(rows, weights=weight), rel=1e-5)


@pytest.mark.parametrize(("residual_grad", "levels_felt"), [("full", 2), ("none", 1)])
def test_which_commitments_reach_the_encoder(residual_grad: str, levels_felt: int) -> None:
    settings = replace(SMALL, residual_grad=residual_grad)
    z = batch(dim=3).requires_grad_()
    books = [book.detach().requires_grad_() for book in network().codebooks]
    codes, _, loss = networks.quantize(z, books, settings, sinkhorn=False)
    loss.sum().backward()
    # d/dz of beta * mean((r - q)^2), r being z minus constants
    residual, expected = z.detach(), torch.zeros_like(z)
    for level, book in enumerate(books):
        residual = residual - book.detach()[codes[:, level]]
        expected += settings.beta * 2 / 3 * residual * (level < levels_felt)
    torch.testing.assert_close(z.grad, expected)
    assert all(float(book.grad.abs().sum()) > 0 for book in books)  # every level's codes learn, whichever


def test_straight_through_and_rotation() -> None:
    z, q, seen = batch(dim=3), batch(dim=3).flip(0) * 2, batch(dim=3).roll(1, 0)
    gradients = []
    for rotate in (False, True):
        leaf = z.clone().requires_grad_()
        out = networks.pass_gradient(leaf, q, rotate=rotate)
        torch.testing.assert_close(out.detach(), q)
        out.backward(seen)
        gradients.append(leaf.grad)
    torch.testing.assert_close(gradients[0], seen)
    assert not torch.allclose(gradients[1], seen, atol=0.1)
    # A rotation keeps lengths and the angle to the output: only the stretch |q| / |z| is left.
    stretch = q.norm(dim=1) / z.norm(dim=1)
    torch.testing.assert_close(gradients[1].norm(dim=1), seen.norm(dim=1) * stretch)
    torch.testing.assert_close(
        (gradients[1] * z).sum(1) / z.norm(dim=1), (seen * q).sum(1) / q.norm(dim=1) * stretch
    )


def test_sinkhorn_evens_out_the_last_level_in_training_only() -> None:
    settings = replace(SMALL, sinkhorn=0.003)
    made, x = network(settings), batch(60)
    with torch.no_grad():  # two of the three codes lie far off
        made.codebooks[1].mul_(torch.tensor([[1.0], [5.0], [6.0]]))
    counts = {}
    for training_ in (True, False):
        codes = networks.losses(made, x, settings, training=training_).codes.numpy()
        counts[training_] = [np.bincount(column, minlength=4).max() for column in codes.T]
    assert counts[True][0] == counts[False][0]
    assert counts[True][1] <= 31 < 40 < counts[False][1]  # 60 rows, 3 codes


def test_crowding_is_felt_by_colliding_rows_only() -> None:
    z = torch.tensor([[0.0, 0.0], [0.1, 0.0], [5.0, 0.0], [5.0, 5.0]], requires_grad=True)
    q = torch.tensor([[0.0, 0.5], [0.0, 0.5], [5.0, 0.5], [5.0, 4.5]])
    crowded = networks.crowding(z, q, torch.tensor([[1, 2], [1, 2], [2, 1], [2, 0]]))
    room = 2 * np.sqrt(np.mean([0.25, 0.26, 0.25, 0.25]))
    np.testing.assert_allclose(crowded.detach().numpy(), [1 - 0.1 / room, 0, 0, 0], rtol=1e-4)
    crowded.sum().backward()
    assert z.grad is not None
    assert z.grad[0, 0] > 0 > z.grad[1, 0]  # a step down the gradient moves them apart
    assert not z.grad[2:].any()


def test_even_codes_are_near_and_even(digits: Vectors) -> None:
    rows, book = digits[:600], digits[600:620]
    even = loop.even_codes(rows, book, 0.003)
    nearest = loop.nearest(rows, book)[0]
    assert np.bincount(even, minlength=20).max() <= 45 < 60 < np.bincount(nearest).max()  # 30 each
    far = ((rows - book[even]) ** 2).sum() / ((rows - book[nearest]) ** 2).sum()
    assert 1 < far < 1.2


def test_restart_puts_unused_codes_on_far_rows() -> None:
    rows = np.array([[0, 0], [0, 1], [9, 9], [9, 9], [-7, 0]], dtype=np.float32)
    book = np.array([[0, 0], [50, 50], [60, 60], [70, 70]], dtype=np.float32)
    loop.restart_dead(rows, book)
    assert book.tolist() == [[0, 0], [9, 9], [-7, 0], [0, 1]]
    loop.restart_dead(rows[:2], book)  # nothing left to give: as many as there are
    assert len(book) == 4


def test_guards_keep_level_1_in_use(digits: Vectors) -> None:
    def used(**guards: bool | int) -> int:
        parameters = {"refit_steps": 0, "balance": 0, "unique": 0, **QUICK, **guards}
        codes = RQVAE(levels=[64, 16], check_every=2, **parameters).fit(digits).encode(digits)  # type: ignore[arg-type]
        return len(np.unique(codes[:, 0]))

    assert used(kmeans_init=False, restart_dead=False) < 58
    assert used(kmeans_init=True, restart_dead=False) > 58
    assert used(kmeans_init=False, restart_dead=True) > 58
    assert used(kmeans_init=True, restart_dead=True, refit_steps=2, balance=0.01) == 64


def test_presets_are_what_they_say() -> None:
    tiger, lc_rec, grid = PRESETS["tiger"], PRESETS["lc-rec"], PRESETS["grid"]
    minionerec = PRESETS["minionerec"]
    assert (tiger.hidden, tiger.latent, tiger.optimizer, tiger.learning_rate) == (
        (512, 256, 128),
        32,
        "adagrad",
        0.4,
    )
    assert (tiger.batch_size, tiger.epochs, tiger.schedule) == (1024, 20_000, "constant")
    assert (lc_rec.hidden, lc_rec.latent) == ((2048, 1024, 512, 256, 128, 64), 32)
    assert (lc_rec.level_mean, lc_rec.residual_grad, lc_rec.clip) == (True, "none", 1.0)
    assert (lc_rec.schedule, lc_rec.schedule_warmup, lc_rec.weight_decay) == ("linear", 50, 1e-4)
    assert (lc_rec.sinkhorn, lc_rec.batch_size, lc_rec.optimizer) == (0.003, 1024, "adamw")
    assert (lc_rec.learning_rate, lc_rec.epochs) == (1e-3, 10_000)
    assert minionerec == replace(
        lc_rec, sinkhorn=0.0, batch_size=20_480, weight_decay=0.0, kmeans_rows=20_480
    )
    assert (grid.optimizer, grid.learning_rate, grid.normalize_input) == ("adagrad", 1e-3, "batchnorm-l2")
    assert {name: preset.beta for name, preset in PRESETS.items() if name != "sidmill"} == dict.fromkeys(
        ("tiger", "lc-rec", "minionerec", "grid"), 0.25
    )
    assert grid.paced(batches=10) == (0, 300)
    assert replace(PRESETS["sidmill"], max_steps=50, epochs=80, autoencoder_epochs=20).paced(batches=1) == (
        10,
        40,
    )
    assert RQVAE(preset="lc-rec", epochs=7, hidden=[9]).settings == replace(lc_rec, epochs=7, hidden=(9,))
    assert RQVAE(preset="grid", epochs=7).settings.max_steps == 0


def test_every_setting_of_a_preset_can_be_given() -> None:
    plain = Settings(hidden=(), latent=0)
    set_by_presets = {
        field.name
        for field in fields(Settings)
        if any(getattr(preset, field.name) != getattr(plain, field.name) for preset in PRESETS.values())
    }
    assert set_by_presets <= set(RQVAE._parameter_names())
    assert RQVAE(clip=0.5, kmeans_rows=9, keep_from=0.1).settings == replace(
        PRESETS["sidmill"], clip=0.5, kmeans_rows=9, keep_from=0.1
    )


@pytest.mark.parametrize("preset", ["tiger", "lc-rec", "minionerec", "grid"])
def test_every_preset_trains(digits: Vectors, preset: str) -> None:
    tokenizer = RQVAE(levels=[16, 8], preset=preset, epochs=2, hidden=[16]).fit(digits)  # type: ignore[arg-type]
    codes = tokenizer.encode(digits)
    # TIGER's rate of 0.4 takes more than two epochs to come to rest.
    assert preset == "tiger" or len(np.unique(codes, axis=0)) > 20
    assert np.isfinite(tokenizer.decode(codes)).all()
    assert tokenizer.reconstructs == (preset != "grid")
    lengths = np.linalg.norm(tokenizer.scaling_(digits), axis=1)
    assert (preset == "grid") == np.allclose(lengths, 1, atol=1e-5)


def test_training_lowers_the_error(digits: Vectors) -> None:
    def error(**more: int) -> float:
        tokenizer = RQVAE(levels=[32, 16], unique=0.0, **{**QUICK, **more}).fit(digits)  # type: ignore[arg-type]
        return float(((tokenizer.decode(tokenizer.encode(digits)) - digits) ** 2).mean())

    assert error(epochs=16) < 0.92 * error(epochs=1, polish_epochs=0)


def test_the_check_with_fewest_collisions_is_kept(digits: Vectors) -> None:
    settings = {"polish_epochs": 0, "refit_steps": 0, "restart_dead": False, "learning_rate": 0.02, "seed": 3}
    tokenizer = RQVAE(levels=[16, 8], preset="lc-rec", check_every=1, **{**QUICK, **settings}).fit(digits)  # type: ignore[arg-type]
    collisions = len(digits) - len(np.unique(tokenizer.encode(digits), axis=0))
    assert collisions == tokenizer.history_[:, 1].min()
    assert tokenizer.history_[-1, 1] > collisions  # or this test tells nothing


def test_a_heavy_row_is_decoded_better(digits: Vectors) -> None:
    weight = np.ones(len(digits))
    weight[:100] = 200

    def share(sample_weight: np.ndarray | None) -> float:
        tokenizer = RQVAE(levels=[8, 4], **{**QUICK, "epochs": 15}).fit(digits, sample_weight=sample_weight)  # type: ignore[arg-type]
        error = ((tokenizer.decode(tokenizer.encode(digits)) - digits) ** 2).sum(axis=1)
        return float(error[:100].mean() / error.mean())

    assert share(weight) < 0.95 * share(None)


def test_same_seed_same_codes_and_the_users_generator_stays(digits: Vectors, fitted: RQVAE) -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    order = np.random.default_rng(1).permutation(len(digits))
    again = RQVAE(levels=[32, 16], check_every=3, **QUICK).fit(digits[order])  # type: ignore[arg-type]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert np.array_equal(again.encode(digits), fitted.encode(digits))
    for name, array in fitted._arrays().items():
        assert np.array_equal(again._arrays()[name], array), name
    other = RQVAE(levels=[32, 16], seed=1, **QUICK).fit(digits)  # type: ignore[arg-type]
    assert not np.array_equal(other.encode(digits), fitted.encode(digits))


def test_numpy_runs_what_torch_learned() -> None:
    for shortcut in (False, True):
        layers = networks.Layers([6, 9, 6], torch.Generator().manual_seed(0), shortcut=shortcut)
        with torch.no_grad():
            for parameter in layers.parameters():
                parameter.uniform_(-1, 1, generator=torch.Generator().manual_seed(3))
        x = batch(5000, 6)
        np.testing.assert_allclose(layers.to_numpy()(x.numpy()), layers(x).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("kind", ["none", "scale", "batchnorm-l2"])
def test_scaling(digits: Vectors, kind: str) -> None:
    scaling = Scaling.learned(digits, None, kind)  # type: ignore[arg-type]
    scaled = scaling(digits)
    if kind == "batchnorm-l2":
        expected = torch.nn.BatchNorm1d(64, affine=False)(torch.from_numpy(digits))
        # torch divides by n in forward, as we do
        expected = torch.nn.functional.normalize(expected, dim=1)
        np.testing.assert_allclose(scaled, expected.numpy(), atol=2e-4)
    else:
        np.testing.assert_allclose(scaling.undo(scaled), digits, atol=1e-4)
        assert kind == "none" or (scaled**2).mean() == pytest.approx(1, rel=1e-3)


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
import numpy as np
from sid_tokenizers.learned.rq_kmeans_plus import RQKMeansPlus
from sid_tokenizers.learned.rq_vae import RQVAE
from sid_schemas import MissingExtraError
folder, kind = sys.argv[1:]
scheme = {"rq-vae": RQVAE, "rq-kmeans-plus": RQKMeansPlus}[kind]
told = np.load(folder + "/told.npz")
loaded = scheme.load(folder)
assert np.array_equal(loaded.encode(told["X"]), told["codes"])
assert np.array_equal(loaded.decode(told["codes"]), told["decoded"])
assert np.array_equal(loaded.distances(told["X"], told["codes"][:, :1]), told["distances"])
try:
    scheme(levels=[4]).fit(told["X"])
except MissingExtraError as error:
    assert "pip install 'sidmill[torch]'" in str(error), error
else:
    raise SystemExit("fit without torch went through")
"""


def plus(**more: object) -> RQKMeansPlus:
    settings = {"levels": [32, 16], "init": "plain", "hidden": [16], "epochs": 4, "decoder_epochs": 2, **more}
    return RQKMeansPlus(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("made", [lambda: RQVAE(levels=[32, 16], **QUICK), plus])  # type: ignore[arg-type]
def test_a_saved_tokenizer_needs_no_torch(
    digits: Vectors, tmp_path: Path, made: Callable[[], Tokenizer]
) -> None:
    tokenizer = made().fit(digits)
    tokenizer.save(tmp_path)
    codes = tokenizer.encode(digits)
    decoded, distances = tokenizer.decode(codes), tokenizer.distances(digits, codes[:, :1])
    np.savez(tmp_path / "told.npz", X=digits, codes=codes, decoded=decoded, distances=distances)
    command = [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path), tokenizer.name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("decoder", ["shortcut", "plain"])
def test_plus_starts_at_the_codes_of_kmeans(digits: Vectors, decoder: str) -> None:
    initial = RQKMeans(levels=[32, 16]).fit(digits)
    start = plus(epochs=0, decoder=decoder).fit(digits)
    codes = initial.encode(digits)
    assert np.array_equal(start.encode(digits), codes)
    same = np.allclose(start.decode(codes), initial.decode(codes), atol=1e-4)
    assert same == (decoder == "shortcut")


def test_plus_learns(digits: Vectors) -> None:
    def error(tokenizer: Tokenizer) -> float:
        return float(((tokenizer.decode(tokenizer.encode(digits)) - digits) ** 2).mean())

    start, learned = (
        plus(epochs=0).fit(digits),
        plus(epochs=10, decoder_epochs=20, learning_rate=1e-3).fit(digits),
    )
    assert error(learned) < error(start)
    assert not np.array_equal(learned.encode(digits), start.encode(digits))


def test_plus_from_balanced_kmeans(digits: Vectors) -> None:
    balanced = pytest.importorskip("sid_tokenizers.rq_kmeans_balanced")
    initial = balanced.RQKMeansBalanced(levels=[32, 16], remember=False).fit(digits)
    start = plus(init="balanced", epochs=0).fit(digits)
    assert np.array_equal(start.encode(digits), initial.encode(digits))


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        (
            RQVAE(preset="tigger"),
            "preset: expected one of sidmill, tiger, lc-rec, minionerec, grid, got 'tigger'",
        ),  # type: ignore[arg-type]
        (RQVAE(gradient="gumbel"), "gradient: expected one of ste, rotation"),  # type: ignore[arg-type]
        (RQVAE(latent=0), "latent: expected 1 or more, got 0"),
        (RQVAE(epochs=-1), "epochs: expected 0 or more"),
        (RQVAE(hidden=[4, 0]), "hidden: expected widths >= 1"),
        (RQVAE(learning_rate=0.0), "learning_rate: expected more than 0"),
        (RQVAE(balance=0.001), "balance: expected 0 or at least 0.003"),
        (RQVAE(keep_from=1.5), "keep_from: expected 0 to 1"),
        (RQVAE(device="gpu"), "device: expected cpu, cuda, cuda:0, .*, got 'gpu'"),
        (RQVAE(device="cuda:x"), "device: expected cpu"),
        (RQKMeansPlus(device="cuda:"), "device: expected cpu"),
        (RQVAE(levels=[]), "levels: expected"),
        (RQVAE(seed=-1), "seed: expected 0 or more"),
        (RQKMeansPlus(init="random"), "init: expected one of balanced, plain"),  # type: ignore[arg-type]
        (RQKMeansPlus(decoder="none"), "decoder: expected one of shortcut, plain"),  # type: ignore[arg-type]
        (RQKMeansPlus(batch_size=0), "batch_size: expected 1 or more"),
    ],
)
def test_bad_parameters_are_named(tokenizer: Tokenizer, message: str) -> None:
    with pytest.raises(DataError, match=message):
        tokenizer.fit(np.eye(300, dtype=np.float32))


def test_known_devices_pass_and_missing_ones_are_told(digits: Vectors) -> None:
    for device in ("cpu", "cuda", "cuda:0", "cuda:12", "mps"):
        RQVAE(device=device).check_params()
        RQKMeansPlus(device=device).check_params()
    with pytest.raises(DataError, match="device: torch cannot use 'cuda:99' on this machine"):
        RQVAE(levels=[4], device="cuda:99").fit(digits)


@pytest.mark.parametrize(
    "tokenizer",
    [
        RQVAE(levels=[16, 8], learning_rate=1e10),
        RQVAE(levels=[16, 8], learning_rate=1e10, autoencoder_epochs=0),
        RQVAE(levels=[16, 8], learning_rate=1e30, epochs=1, autoencoder_epochs=0, batch_size=2000),
        RQVAE(levels=[16, 8], learning_rate=1e30, epochs=0, autoencoder_epochs=1, batch_size=2000),
        RQVAE(levels=[16, 8], preset="lc-rec", hidden=[16], epochs=9, learning_rate=1e20),
        plus(learning_rate=1e20),
    ],
)
def test_divergence_is_told(digits: Vectors, tokenizer: Tokenizer) -> None:
    message = rf"{tokenizer.name}: training diverged \(loss is not finite\); lower learning_rate \(now 1e\+"
    with pytest.raises(DataError, match=message):
        tokenizer.fit(digits)


def test_the_number_of_threads_changes_nothing(digits: Vectors) -> None:
    before, books = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        books.append(RQVAE(levels=[32, 16], **QUICK).fit(digits).codebooks_)  # type: ignore[arg-type]
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert all(np.array_equal(one, other) for one, other in zip(*books, strict=True))


def test_real_vectors_use_all_codes_and_without_guards_fewer(real: Vectors) -> None:
    codes = RQVAE(epochs=REAL_EPOCHS).fit(real).encode(real)
    assert len(np.unique(codes[:, 0])) == 256
    assert len(real) - len(np.unique(codes, axis=0)) <= 0.1 * len(real)
    bare = RQVAE(
        epochs=10, kmeans_init=False, restart_dead=False, refit_steps=0, balance=0.0, unique=0.0
    ).fit(real)
    assert len(np.unique(bare.encode(real)[:, 0])) < 200


def test_plus_on_real_vectors(real: Vectors) -> None:
    def error(tokenizer: Tokenizer) -> float:
        return float(np.square(tokenizer.decode(tokenizer.encode(real)) - real).mean())

    initial = RQKMeans(levels=[256] * 3).fit(real)
    levels = {"levels": [256] * 3, "batch_size": 256}
    off, learned = plus(**levels, epochs=0).fit(real), plus(**levels, epochs=10, decoder_epochs=20).fit(real)
    assert np.array_equal(off.encode(real), initial.encode(real))
    assert error(learned) < 0.998 * error(off)


def test_fewer_rows_than_a_batch_but_not_than_codes(digits: Vectors) -> None:
    codes = RQVAE(levels=[16, 8], **QUICK).fit(digits[:20]).encode(digits[:20])  # type: ignore[arg-type]
    assert len(np.unique(codes, axis=0)) > 15
    with pytest.raises(DataError, match=r"levels\[0\] asks for 16 codes, but there are only 15"):
        RQVAE(levels=[16, 8]).fit(digits[:15])
