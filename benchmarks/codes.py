"""Tokenizers side by side: quality and time on the same vectors in one run.

python benchmarks/codes.py [--only industrial,vae,...] [--vectors FILE.npy] [--json FILE]

Vectors are MiniLM's of the 3,686 Industrial items (made once and kept in benchmarks/.cache; the items lie
in ../shared/data/published, or give --vectors), and seeded clustered unit vectors. Peers that are not
installed are named as such: pip install k-means-constrained semantic-id rectokens.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sid_tokenizers import TOKENIZERS, RQKMeans, resolve
from sid_tokenizers.metrics import collision_metrics, level_metrics, reconstruction
from sid_tokenizers.neighbours import cosine_neighbours, overlap, sample_rows

HERE = Path(__file__).parent
ITEMS = HERE.parents[1] / "shared/data/published/minionerec_Industrial_and_Scientific.item.json"
Row = dict[str, Any]
MISSING = {"note": "not installed"}


def timed(work: Callable[[], Any], repeat: int = 1) -> tuple[float, Any]:
    """Give the median seconds of some calls, and what the last one gave."""
    taken, result = [], None
    for _ in range(repeat):
        started = time.perf_counter()
        result = work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken), result


# --- vectors


def industrial(given: Path | None) -> np.ndarray:
    path = given or HERE / ".cache" / "industrial.npy"
    if not path.exists():
        from sid_pipelines.encoders import embed_all, text_encoder

        items = json.loads(ITEMS.read_text(encoding="utf-8"))
        entries = [items[key] for key in sorted(items, key=int)]
        texts = [f"{item.get('title') or ''}. {item.get('description') or ''}" for item in entries]
        model = text_encoder("sentence-transformers/all-MiniLM-L6-v2", {"precision": "fp32"})
        path.parent.mkdir(exist_ok=True)
        np.save(path, embed_all(model.encoder(), texts))
    return np.load(path)


def clustered(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Unit vectors in 2,000 clusters of power-law sizes, which lie in 100 larger ones."""
    return np.concatenate(list(clustered_blocks(n, d, seed)))


def clustered_blocks(n: int, d: int, seed: int = 0) -> Iterator[np.ndarray]:
    draw = np.random.default_rng(seed)
    top = draw.standard_normal((100, d), dtype=np.float32)
    centres = top[draw.integers(0, 100, 2000)] + 0.7 * draw.standard_normal((2000, d), dtype=np.float32)
    share = 1 / np.arange(1, 2001) ** 0.8
    for start in range(0, n, 65_536):
        count = min(65_536, n - start)
        X = centres[draw.choice(2000, count, p=share / share.sum())]
        X += 0.5 * draw.standard_normal((count, d), dtype=np.float32)
        yield X / np.linalg.norm(X, axis=1, keepdims=True)


# --- what is measured of every tokenizer


def judge(X: np.ndarray, codes: np.ndarray, decoded: np.ndarray | None, *, ordered: bool = True) -> Row:
    queries = sample_rows(len(X), 1000)
    neighbours = cosine_neighbours([(0, X)], queries, X[queries])
    error = None if decoded is None else reconstruction(X, decoded)
    return {
        "squared_error": error and error["squared_error"],
        "collisions": collision_metrics(codes)["collision_rate"],
        "level_1_used": level_metrics(codes[:, 0], int(codes[:, 0].max()) + 1)["used"],
        "overlap_at_10": overlap(codes, neighbours, ordered=ordered),
    }


def ours(name: str, X: np.ndarray, held_out: np.ndarray | None = None, **params: Any) -> Row:
    """Fit one of our schemes on all of X; then again without every tenth row, for the held-out error."""
    scheme = TOKENIZERS[name]
    seconds, fitted = timed(lambda: scheme(**params).fit(X))
    codes = fitted.encode(X)
    decoded = fitted.decode(codes) if fitted.reconstructs else None
    row = {"seconds": seconds, **judge(X, codes, decoded, ordered=fitted.traits.ordered)}
    if held_out is not None and fitted.reconstructs:
        other = scheme(**params).fit(X[~held_out])
        rest = X[held_out]
        row["held_out_error"] = reconstruction(rest, other.decode(other.encode(rest)))["squared_error"]
    return row


def tenth(X: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).permutation(len(X)) % 10 == 0


class FaissRQ:
    """faiss.ResidualQuantizer as MiniOneRec calls it (beam 1, plain training), or with its defaults."""

    def __init__(self, beam: int, *, plain: bool) -> None:
        self.beam, self.plain = beam, plain

    def fit(self, X: np.ndarray) -> "FaissRQ":
        import faiss

        self.rq = faiss.ResidualQuantizer(X.shape[1], 3, 8)
        self.rq.max_beam_size = self.beam
        self.rq.verbose = False
        if self.plain:
            self.rq.train_type = faiss.ResidualQuantizer.Train_default
        self.rq.train(X)
        return self

    def row(self, X: np.ndarray, held_out: np.ndarray | None = None) -> Row:
        seconds, _ = timed(lambda: self.fit(X))
        packed = self.rq.compute_codes(X)
        row = {"seconds": seconds, **judge(X, packed.astype(np.int32), self.rq.decode(packed))}
        if held_out is not None:
            self.fit(X[~held_out])
            rest = X[held_out]
            decoded = self.rq.decode(self.rq.compute_codes(rest))
            row["held_out_error"] = reconstruction(rest, decoded)["squared_error"]
        return row


def sklearn_residual(X: np.ndarray, held_out: np.ndarray, n_init: int) -> Row:
    from sklearn.cluster import KMeans

    def fit(Y: np.ndarray) -> list[np.ndarray]:
        residual, books = Y, []
        for level in range(3):
            found = KMeans(256, n_init=n_init, random_state=level).fit(residual)
            books.append(found.cluster_centers_.astype(np.float32))
            residual = residual - books[-1][found.labels_]
        return books

    def coded(books: list[np.ndarray], Y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        carrier = RQKMeans(levels=[256] * 3)
        carrier.codebooks_, carrier.fit_ = books, {"dim": Y.shape[1]}
        codes = carrier.encode(Y)
        return codes, carrier.decode(codes)

    seconds, books = timed(lambda: fit(X))
    row = {"seconds": seconds, **judge(X, *coded(books, X))}
    rest = X[held_out]
    row["held_out_error"] = reconstruction(rest, coded(fit(X[~held_out]), rest)[1])["squared_error"]
    return row


# --- sections


def run_industrial(options: argparse.Namespace) -> Iterator[tuple[str, Row]]:
    X = industrial(options.vectors)
    held_out = tenth(X)
    yield "faiss ResidualQuantizer, beam 1", FaissRQ(1, plain=True).row(X, held_out)
    yield "faiss ResidualQuantizer, defaults", FaissRQ(5, plain=False).row(X, held_out)
    yield "scikit-learn k-means++, n_init 1", sklearn_residual(X, held_out, 1)
    yield "rq-kmeans", ours("rq-kmeans", X, held_out)
    yield "rq-kmeans, n_init 8", ours("rq-kmeans", X, held_out, n_init=8)
    yield "rq-kmeans, GRID's normalized residuals", ours("rq-kmeans", X, normalize_residuals=True)
    yield "rq-kmeans-balanced", ours("rq-kmeans-balanced", X, held_out)
    yield "rvq-ema", ours("rvq-ema", X, held_out)
    yield "rq-kmeans+fsq (4th code of 64)", ours("rq-kmeans+fsq", X, held_out)
    yield "pq, 3 codes", ours("pq", X, held_out, levels=[256] * 3)
    yield "opq, 3 codes", ours("opq", X, held_out, levels=[256] * 3)
    yield "fsq (RecGPT)", ours("fsq", X, held_out)
    yield "PyPI semantic-id RQKMeans", semantic_id_kmeans(X)


def semantic_id_kmeans(X: np.ndarray) -> Row:
    try:
        from semantic_id.algorithms.rq_kmeans import RQKMeans as Theirs
    except ImportError:
        return MISSING
    theirs = Theirs(n_levels=3, n_clusters=256, random_state=0)
    seconds, _ = timed(lambda: theirs.fit(X))
    codes = np.asarray(theirs.encode(X), dtype=np.int32)
    return {"seconds": seconds, **judge(X, codes, np.asarray(theirs.decode(codes), dtype=np.float32))}


def run_vae(options: argparse.Namespace) -> Iterator[tuple[str, Row]]:
    X = industrial(options.vectors)
    held_out = tenth(X)
    row = ours("rq-vae", X, held_out)
    yield "rq-vae", row
    budget = max(row["seconds"], options.peer_seconds)
    yield "PyPI semantic-id RQVAE", semantic_id_vae(X, budget)
    yield "PyPI rectokens RQVAETokenizer", rectokens_vae(X, budget)
    yield "rq-kmeans-plus", ours("rq-kmeans-plus", X, held_out)


def semantic_id_vae(X: np.ndarray, budget: float) -> Row:
    try:
        from semantic_id.algorithms import rq_vae as theirs_vae
    except ImportError:
        return MISSING
    import torch

    def made(epochs: int) -> Any:
        torch.manual_seed(0)
        return theirs_vae.RQVAE(
            in_dim=X.shape[1], num_emb_list=[256] * 3, e_dim=32, layers=[512, 256, 128],
            kmeans_init=True, lr=1e-3, batch_size=1024, epochs=epochs,
        )  # fmt: skip

    start = timed(lambda: made(1).fit(X))[0]  # mostly its k-means initialisation
    epoch = (timed(lambda: made(21).fit(X))[0] - start) / 20
    epochs = max(int((budget - start) / max(epoch, 1e-4)), 1)
    seconds, theirs = timed(lambda: made(epochs).fit(X))
    codes = np.asarray(theirs.encode(X), dtype=np.int32)
    decoded = np.asarray(theirs.decode(codes), dtype=np.float32)
    return {"seconds": seconds, **judge(X, codes, decoded), "note": f"{epochs} epochs, k-means init"}


def rectokens_vae(X: np.ndarray, budget: float) -> Row:
    try:
        from rectokens.tokenizers.rqvae import RQVAETokenizer
    except ImportError:
        return MISSING
    import torch

    torch.manual_seed(0)
    theirs = RQVAETokenizer(
        input_dim=X.shape[1], latent_dim=64, hidden_dim=256, num_levels=3, codebook_size=256
    )
    optimizer = torch.optim.Adam(theirs.parameters(), lr=1e-3)
    rows, epochs = torch.from_numpy(X), 0
    started = time.perf_counter()
    while time.perf_counter() - started < budget:
        epochs += 1
        for batch in torch.randperm(len(X)).split(1024):
            out = theirs(rows[batch])
            loss = torch.nn.functional.mse_loss(out.recon, rows[batch]) + out.commitment_loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    seconds = time.perf_counter() - started
    theirs._fitted = True
    theirs.eval()
    with torch.no_grad():
        tokens = theirs.encode(rows)
        decoded = theirs.decode(tokens).numpy()
    return {
        "seconds": seconds,
        **judge(X, tokens.codes.numpy().astype(np.int32), decoded),
        "note": f"{epochs} epochs",
    }


def run_synthetic(options: argparse.Namespace) -> Iterator[tuple[str, Row]]:
    X = clustered(100_000, 384)
    for _ in range(options.repeat):
        yield "100k x 384: faiss ResidualQuantizer, beam 1", FaissRQ(1, plain=True).row(X)
        yield "100k x 384: rq-kmeans", ours("rq-kmeans", X)
    yield "100k x 384: faiss ResidualQuantizer, defaults", FaissRQ(5, plain=False).row(X)


def run_million(options: argparse.Namespace) -> Iterator[tuple[str, Row]]:
    X = clustered(1_000_000, 128)
    yield "1M x 128: faiss ResidualQuantizer, beam 1", FaissRQ(1, plain=True).row(X)
    yield "1M x 128: rq-kmeans", ours("rq-kmeans", X)
    yield "1M x 128: rq-kmeans, batches of 8192", ours("rq-kmeans", X, batch_size=8192, max_iter=2)
    yield (
        "1M x 128, one level: rq-kmeans-balanced",
        {**ours("rq-kmeans-balanced", X, levels=[256]), **sizes(X)},
    )


def sizes(X: np.ndarray) -> Row:
    return {}


def run_encode(options: argparse.Namespace) -> Iterator[tuple[str, Row]]:
    for n, d in ((100_000, 384), (300_000, 128)):
        X = clustered(n, d)
        fitted = RQKMeans(levels=[256] * 3, n_init=1, max_iter=5).fit(X[:20_000])
        books = [np.ascontiguousarray(book.T) for book in fitted.codebooks_]

        def products(X: np.ndarray = X, books: list[np.ndarray] = books) -> None:
            for start in range(0, len(X), 65_536):
                for book in books:
                    X[start : start + 65_536] @ book

        floor, _ = timed(products, options.repeat)
        seconds, _ = timed(lambda X=X, fitted=fitted: fitted.encode(X), options.repeat)
        yield f"{n:,} x {d}: three matrix products", {"seconds": floor}
        yield (
            f"{n:,} x {d}: encode, 3 x 256",
            {"seconds": seconds, "note": f"{seconds / floor:.2f} x the products"},
        )


def run_balanced(options: argparse.Namespace) -> Iterator[tuple[str, Row]]:
    skewed = clustered(5000, 128, seed=3) * np.random.default_rng(0).pareto(1.5, size=(5000, 1)).astype(
        np.float32
    )
    for name, X in (
        ("5k x 128", clustered(5000, 128)),
        ("5k x 128, skewed", skewed),
        ("20k x 128", clustered(20_000, 128)),
    ):
        yield f"{name}: rq-kmeans-balanced", balanced(X)
        yield f"{name}: PyPI k-means-constrained, 10 iterations", constrained(X)


def balanced(X: np.ndarray) -> Row:
    seconds, fitted = timed(lambda: TOKENIZERS["rq-kmeans-balanced"](levels=[256]).fit(X))
    codes = fitted.encode(X)
    counts = np.bincount(codes[:, 0], minlength=256)
    error = reconstruction(X, fitted.decode(codes))["squared_error"]
    return {"seconds": seconds, "squared_error": error, "note": f"sizes {counts.min()} to {counts.max()}"}


def constrained(X: np.ndarray) -> Row:
    try:
        from k_means_constrained import KMeansConstrained
    except ImportError:
        return MISSING
    low = len(X) // 256
    theirs = KMeansConstrained(256, size_min=low, size_max=low + 1, n_init=1, max_iter=10, random_state=0)
    seconds, _ = timed(lambda: theirs.fit(X.astype(np.float64)))
    counts = np.bincount(theirs.labels_, minlength=256)
    error = float(((X - theirs.cluster_centers_[theirs.labels_]) ** 2).sum(axis=1).mean())
    return {"seconds": seconds, "squared_error": error, "note": f"sizes {counts.min()} to {counts.max()}"}


def run_collisions(options: argparse.Namespace) -> Iterator[tuple[str, Row]]:
    """A million items of which a fifth collides, in two orders."""
    draw = np.random.default_rng(0)
    n, d = 1_000_000, 64
    fitted = RQKMeans(levels=[256] * 3, n_init=1, max_iter=10).fit(clustered(50_000, d))
    X = fitted.decode(draw.integers(0, 256, size=(n, 3)))
    twins = draw.choice(n, n // 5, replace=False)
    X[twins[: n // 10]] = X[twins[n // 10 :]]
    X += 1e-4 * draw.standard_normal((n, d), dtype=np.float32)
    ids = np.arange(n)
    codes = fitted.encode(X)
    before = collision_metrics(codes)
    yield (
        "1M x 64 before resolution",
        {"collisions": before["collision_rate"], "note": f"{before['collided_items']:,} items collide"},
    )
    shuffled = draw.permutation(n)
    for policy in ("next-nearest", "min-cost", "suffix", "suffix-on-collision"):
        seconds, done = timed(lambda policy=policy: resolve(codes, X, fitted, policy=policy, item_ids=ids))
        again = resolve(codes[shuffled], X[shuffled], fitted, policy=policy, item_ids=ids[shuffled])
        same = "same in another order" if np.array_equal(again.sids, done.sids[shuffled]) else "ORDER MATTERS"
        left = collision_metrics(done.sids)["collision_rate"]
        yield f"1M x 64: {policy}", {"seconds": seconds, "collisions": left, "note": same}


def run_ten_million(options: argparse.Namespace) -> Iterator[tuple[str, Row]]:
    """In a process of its own, so that its peak memory is its own."""
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        command = [sys.executable, __file__, "--encode-stored", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    yield "10M x 128, Parquet to codes in Parquet", json.loads(done.stdout)


def encode_stored(folder: Path, n: int = 10_000_000, d: int = 128) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from sid_pipelines.tokenize import Coded, code_blocks
    from sid_pipelines.vectors import StoredVectors
    from sid_schemas.tables import CODES
    from sid_warehouse import parquet
    from sid_warehouse.arrays import codes_column, vectors_column

    source = folder / "vectors.parquet"
    schema = pa.schema([("vector", pa.list_(pa.float32(), d))])
    with pq.ParquetWriter(source, schema, compression="none", use_dictionary=False) as writer:
        for block in clustered_blocks(n, d):
            writer.write_table(pa.table([vectors_column(block)], schema=schema))
    stored = StoredVectors([source])
    fitted = RQKMeans(levels=[256] * 3).fit(stored.rows(np.arange(0, n, 50)))
    coded = Coded(n, len(fitted.levels))

    def rows() -> Iterator[pa.RecordBatch]:
        for block in map(coded.keep, code_blocks(fitted, stored.blocks(), np.zeros(n, dtype=bool))):
            start, codes = block.start, block.codes
            index = np.arange(start, start + len(codes), dtype=np.int32)
            columns = [pa.array(index), pa.array(index).cast(pa.string()), codes_column(codes)]
            yield pa.record_batch(
                [*columns, pa.array(np.zeros(len(codes), dtype=bool))], schema=CODES.arrow()
            )

    seconds, written = timed(lambda: parquet.write(folder, CODES, rows()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    assert written == n
    error = coded.facts(fitted, np.zeros(n, dtype=bool))["reconstruction"]["held_out"]["squared_error"]
    note = f"peak memory {peak:.2f} GiB, generating and fitting included"
    print(json.dumps({"seconds": seconds, "squared_error": error, "note": note}))


SECTIONS: dict[str, Callable[[argparse.Namespace], Iterator[tuple[str, Row]]]] = {
    "industrial": run_industrial,
    "vae": run_vae,
    "encode": run_encode,
    "balanced": run_balanced,
    "synthetic": run_synthetic,
    "million": run_million,
    "collisions": run_collisions,
    "ten-million": run_ten_million,
}
COLUMNS = (
    "seconds",
    "squared_error",
    "held_out_error",
    "collisions",
    "level_1_used",
    "overlap_at_10",
    "note",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, of: %(default)s")
    parser.add_argument("--vectors", type=Path, help="Industrial vectors, (n, d) float32, as .npy")
    parser.add_argument("--repeat", type=int, default=3, help="repeats of the short ones")
    parser.add_argument(
        "--peer-seconds", type=float, default=120, help="time for the peers' RQ-VAE, at least ours"
    )
    parser.add_argument("--scratch", type=Path, help="folder for the 5 GB of the ten-million section")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    parser.add_argument("--encode-stored", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.encode_stored:
        encode_stored(options.encode_stored)
        return
    results: dict[str, list[Row]] = {}
    print(f"{'':<48}" + "".join(f"{name:>15}" for name in COLUMNS[:-1]), flush=True)
    for section in options.only.split(","):
        results[section] = []
        for name, row in SECTIONS[section](options):
            results[section].append({"name": name, **row})
            shown = "".join(f"{shorten(row.get(column)):>15}" for column in COLUMNS[:-1])
            print(f"{name:<48}{shown}  {row.get('note', '')}", flush=True)
    if options.json:
        machine = {
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "machine": platform.machine(),
        }
        options.json.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")


def shorten(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
