"""Embedding text: speed against SentenceTransformer.encode, caches, and memory, in one run on one machine.

python benchmarks/embed.py [--only speed,cache,budgets,alone] [--million] [--json FILE]

Short texts are the titles and genres of the example's 6,800 films, long ones the titles and descriptions of
Amazon's Industrial items (../shared/data/published; without them long texts are left out). MiniLM comes from
its PyPI package. `--million` measures the peak memory of the text and embed stages on 1M distinct texts.
"""

import argparse
import gzip
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
import pyarrow as pa

from sid_pipelines import embed_text
from sid_pipelines import text as text_stage
from sid_pipelines.encoders import embed_all, options_of, text_encoder
from sid_pipelines.encoders.batches import shape_of
from sid_pipelines.stage import Resources, Work
from sid_schemas.tables import ITEMS_CLEAN, TEXTS
from sid_warehouse.stages import StageOutput, StageStore

HERE = Path(__file__).parent
MOVIES = HERE.parent / "examples/data/movietweetings-50k/movies.dat.gz"
ITEMS = HERE.parents[1] / "shared/data/published/minionerec_Industrial_and_Scientific.item.json"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MILLION = 1_000_000
WORDS = [
    "Blue", "Steel", "River", "Night", "Machine", "Love", "Story", "Garden", "Winter", "Road", "Glass",
    "Paper", "Stone", "Summer", "King",
]  # fmt: skip
Row = dict[str, Any]


def short_texts(n: int) -> list[str]:
    lines = gzip.decompress(MOVIES.read_bytes()).decode().splitlines()
    fields = [line.split("::") for line in lines]
    return [f"{title}. {genres.replace('|', ', ')}" for _, title, genres in fields][:n]


def long_texts(n: int) -> list[str]:
    if not ITEMS.is_file():
        return []
    items = json.loads(ITEMS.read_text(encoding="utf-8"))
    entries = [items[key] for key in sorted(items, key=int)]
    texts = [f"{one['title']}. {text_stage.cleaned(one['description'])}" for one in entries]
    return [text for text in texts if len(text) > 200][:n]


# --- speed


def run_speed(options: argparse.Namespace) -> Iterator[tuple[str, Row]]:
    import torch
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(text_encoder(MINILM).folder), device="cpu")

    def autocast(texts: list[str]) -> np.ndarray:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return reference.encode(texts).astype(np.float32)

    ways: dict[str, Callable[[list[str]], np.ndarray]] = {
        "SentenceTransformer.encode, defaults": lambda texts: reference.encode(texts),
        "the same under bf16 autocast": autocast,
    }
    for precision in ("fp32", "bf16"):
        encoder = text_encoder(MINILM, {"precision": precision}).encoder()
        ways[f"sidmill, {precision}"] = lambda texts, encoder=encoder: embed_all(encoder, texts)
    for name, texts in (("short", short_texts(options.short)), ("long", long_texts(options.long))):
        if texts:
            yield from side_by_side(name, texts, ways, options.repeats)


def side_by_side(
    name: str, texts: list[str], ways: dict[str, Callable[[list[str]], np.ndarray]], repeats: int
) -> Iterator[tuple[str, Row]]:
    taken: dict[str, list[float]] = {way: [] for way in ways}
    vectors: dict[str, np.ndarray] = {}
    for way in ways.values():
        way(texts[:8])  # the first call loads and allocates
    for _ in range(repeats):
        for label, way in ways.items():
            started = time.perf_counter()
            vectors[label] = way(texts)
            taken[label].append(time.perf_counter() - started)
    theirs, *_ = ways
    expected = unit(vectors[theirs])
    for label in ways:
        cosine = (unit(vectors[label]) * expected).sum(axis=1)
        seconds = statistics.median(taken[label])
        yield (
            f"{name}: {label}",
            {
                "texts": len(texts),
                "items_per_s": len(texts) / seconds,
                "times_faster": statistics.median(taken[theirs]) / seconds,
                "cosine_mean": float(cosine.mean()),
                "cosine_min": float(cosine.min()),
                "seconds": taken[label],
            },
        )


def unit(X: np.ndarray) -> np.ndarray:
    return X / np.linalg.norm(X, axis=1, keepdims=True)


# --- the stage, cold, warm and with a few new items


def written(folder: Path, texts: Iterator[list[str]]) -> StageOutput:
    def batches() -> Iterator[pa.RecordBatch]:
        start = 0
        for some in texts:
            index = pa.array(range(start, start + len(some)), pa.int32())
            columns = [index, pa.array([f"{n:09d}" for n in index.to_pylist()]), pa.array(some)]
            yield pa.RecordBatch.from_arrays(columns, names=["item_index", "item_id", "text"])
            start += len(some)

    with StageStore(folder, "bench").write("text", f"{time.monotonic_ns()}", {}) as draft:
        draft.write(TEXTS, batches())
        return draft.commit({}, "")


def embedded(folder: Path, output: StageOutput, model: str, options: Row) -> tuple[float, Row]:
    found = text_encoder(model, options)
    filled = {**vars(options_of(model)()), **options}
    params = embed_text.TextEmbedParams(
        "text", model, filled, found.fingerprint(), "refuse", "float32", str(found.folder or "")
    )
    started = time.perf_counter()
    with StageStore(folder, "bench").write("embed_text", f"{time.monotonic_ns()}", {}) as draft:
        resources = Resources(cache=folder / "cache")
        work = Work(params, {"text": output}, draft, resources, lambda done, total: None)
        outcome = embed_text.run(work)
        return time.perf_counter() - started, draft.commit(outcome.facts, outcome.summary).facts


def run_cache(options: argparse.Namespace) -> Iterator[tuple[str, Row]]:
    texts = short_texts(options.short)
    new = max(len(texts) // 100, 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        old, whole = (written(folder, iter([some])) for some in (texts[:-new], texts))
        embedded(folder / "warm-up", old, MINILM, {})  # weights in the page cache, torch imported
        for label, output in (("cold", old), ("warm", old), (f"{new} new of {len(texts)}", whole)):
            seconds, facts = embedded(folder, output, MINILM, {})
            yield (
                f"stage: {label}",
                {
                    "texts": facts["items"],
                    "stage_s": seconds,
                    "embedded": facts["embedded"],
                    "from_cache": facts["from_cache"],
                },
            )


# --- what the shapes cost


def run_budgets(options: argparse.Namespace) -> Iterator[tuple[str, Row]]:
    from sid_pipelines.encoders.sentence import SentenceEncoder

    found = text_encoder(MINILM)
    budgets = (256, 512, 1024, 2048, 4096)
    encoders = {n: SentenceEncoder(found.folder, found.options, "", budget=n) for n in budgets}
    sets = {"short": short_texts(options.short), "long": long_texts(options.long)}
    for name, texts in sets.items():
        for label, some in ((name, texts), (f"{name}, 1 in 100", texts[::100])):
            if not some:
                continue
            taken: dict[int, list[float]] = {budget: [] for budget in budgets}
            for repeat in range(options.repeats + 1):
                for budget, encoder in encoders.items():
                    started = time.perf_counter()
                    embed_all(encoder, some)
                    if repeat:
                        taken[budget].append(time.perf_counter() - started)
            model = encoders[512].loaded[0]
            lengths = [
                len(ids) for ids in model.tokenizer(some, truncation=True, max_length=256)["input_ids"]
            ]
            for budget in budgets:
                yield (
                    f"{label}: {budget} tokens",
                    {
                        "texts": len(some),
                        "items_per_s": len(some) / statistics.median(taken[budget]),
                        **waste(lengths, budget),
                    },
                )


def waste(lengths: list[int], budget: int) -> Row:
    """Give the shares of computed tokens that are padding, and that are copies in batches not full."""
    rows: dict[Any, int] = {}
    for tokens in lengths:
        shape = shape_of(tokens, longest=256, budget=budget)
        rows[shape] = rows.get(shape, 0) + 1
    placed = sum(shape.length * count for shape, count in rows.items())
    computed = sum(shape.length * shape.rows * -(-count // shape.rows) for shape, count in rows.items())
    return {"padding": 1 - sum(lengths) / placed, "copies": 1 - placed / computed}


def run_alone(options: argparse.Namespace) -> Iterator[tuple[str, Row]]:
    """Prove on this machine, for every shape, that vectors are the same bytes alone and in company."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, int(n))) for n in rng.integers(0, 300, 400)]
    texts += [text.split(" ", 6)[0] * (n % 5) + text[:40] for n, text in enumerate(texts)]
    texts = list(dict.fromkeys(texts))
    for precision in ("fp32", "bf16"):
        encoder = text_encoder(MINILM, {"precision": precision}).encoder()
        whole = embed_all(encoder, texts)
        order = rng.permutation(len(texts))
        differ = (embed_all(encoder, [texts[n] for n in order]) != whole[order]).any(axis=1).sum()
        for n in range(0, len(texts), 9):
            differ += (embed_all(encoder, [texts[n]])[0] != whole[n]).any()
        yield f"alone: {precision}", {"texts": len(texts), "vectors_that_differ": int(differ)}


# --- memory


def run_million(options: argparse.Namespace) -> Iterator[tuple[str, Row]]:
    cases = [("hashing", MILLION), ("static", MILLION), ("minilm", 20_000), ("minilm", 100_000)]
    for kind, n in cases:
        if options.cases and kind not in options.cases.split(","):
            continue
        command = [sys.executable, __file__, "--child", kind, "--texts", str(n)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        yield f"{kind}: {n:,} texts", json.loads(done.stdout.splitlines()[-1])


def child(kind: str, n: int) -> Row:
    """Text and embed stages in this process alone; peak memory after each."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("SIDMILL_BENCH_TMP")) as name:
        folder = Path(name)
        clean = million_items(folder, n)
        start = peak()
        began = time.perf_counter()
        with StageStore(folder, "bench").write("text", "0", {}) as draft:
            params = text_stage.TextParams("{title}. {genres}")
            work = Work(params, {"clean": clean}, draft, Resources(), lambda done, total: None)
            outcome = text_stage.run(work)
            output = draft.commit(outcome.facts, outcome.summary)
        text_s, text_mb = time.perf_counter() - began, peak()
        model, given = {"minilm": (MINILM, {}), "hashing": ("hashing", {"dim": 384})}.get(kind, ("", {}))
        cold, facts = embedded(folder, output, model or static_model(folder), given)
        cold_mb = peak()
        row: Row = {}
        if kind != "hashing":  # which has no cache
            row["warm_s"], again = embedded(folder, output, model or str(folder / "static"), given)
            row["from_cache_warm"] = again["from_cache"]
        return {
            **row,
            "texts": n,
            "dim": facts["dim"],
            "text_s": text_s,
            "stage_s": cold,
            "items_per_s": n / cold,
            "start_mb": start,
            "text_mb": text_mb,
            "cold_mb": cold_mb,
            "peak_mb": peak(),
            "embedded": facts["embedded"],
        }


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def million_items(folder: Path, n: int) -> StageOutput:

    def batches() -> Iterator[pa.RecordBatch]:
        schema = ITEMS_CLEAN.arrow()
        rng = np.random.default_rng(0)
        for start in range(0, n, 65_536):
            some = range(start, min(start + 65_536, n))
            picks = rng.integers(0, len(WORDS), (len(some), 3))
            own: dict[str, Any] = {
                "item_index": pa.array(some, pa.int32()),
                "item_id": [f"{number:09d}" for number in some],
                "title": [f"{' '.join(WORDS[w] for w in p)} {k}" for p, k in zip(picks, some, strict=True)],
                "category_path": [["Comedy", "Drama", "War"][: 1 + k % 3] for k in some],
            }
            arrays = [
                pa.array(own[field.name], field.type) if field.name in own else empty(field, len(some))
                for field in schema
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    with StageStore(folder, "bench").write("clean", "0", {}) as draft:
        draft.write(ITEMS_CLEAN, batches())
        return draft.commit({}, "")


def empty(field: pa.Field, n: int) -> pa.Array:
    if field.nullable:
        return pa.nulls(n, field.type)
    value: Any = [] if pa.types.is_list(field.type) else "" if pa.types.is_string(field.type) else 0
    return pa.array([value] * n, field.type)


def static_model(folder: Path) -> str:
    """Make a model2vec model of MiniLM's own token vectors: 30,522 x 384."""
    from model2vec import StaticModel
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    source = text_encoder(MINILM).folder
    vectors = load_file(source / "model.safetensors")["embeddings.word_embeddings.weight"]
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    StaticModel(vectors, tokenizer).save_pretrained(folder / "static")
    return str(folder / "static")


# --- the table

SECTIONS: dict[str, Callable[[argparse.Namespace], Iterator[tuple[str, Row]]]] = {
    "speed": run_speed,
    "cache": run_cache,
    "alone": run_alone,
    "budgets": run_budgets,
    "million": run_million,
}


def machine() -> Row:
    import torch

    from sid_pipelines.encoders.sentence import cpu_flags

    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        **cpu_flags(),
        "torch": torch.__version__,
        "load_before": os.getloadavg()[0],
    }


def shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5f}" if 0.9 < value < 1.0001 else f"{value:,.2f}" if value < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default="speed,cache", help="sections: " + ", ".join(SECTIONS))
    parser.add_argument("--million", action="store_true", help="memory on 1M texts; nothing else")
    parser.add_argument("--cases", default="", help="with --million: hashing, static, minilm")
    parser.add_argument("--short", type=int, default=3000)
    parser.add_argument("--long", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--texts", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child, options.texts)))
        return
    found: dict[str, Any] = {"machine": machine(), "rows": {}}
    print(", ".join(f"{name}: {value}" for name, value in found["machine"].items()))
    for section in ["million"] if options.million else options.only.split(","):
        for label, row in SECTIONS[section](options):
            found["rows"][label] = row
            parts = [f"{name} {shown(v)}" for name, v in row.items() if not isinstance(v, list)]
            print(f"{label:<45} {', '.join(parts)}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
