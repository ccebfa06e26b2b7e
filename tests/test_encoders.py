"""Text encoders: a vector is the same bytes in any company, and close to what sentence-transformers gives."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sid_pipelines.encoders import Encoder, embed_all, options_of, text_encoder
from sid_pipelines.encoders.base import finished
from sid_pipelines.encoders.batches import Batch, Buckets, Shape, shape_of
from sid_pipelines.encoders.options import HashingOptions, SentenceOptions, TfidfOptions
from sid_pipelines.encoders.sentence import SentenceEncoder, cpu_flags
from sid_pipelines.encoders.tfidf import TfidfEncoder
from sid_schemas import DataError, RecipeError, SourceError
from sid_tokenizers.base import Vectors

torch = pytest.importorskip("torch")
sentence_transformers = pytest.importorskip("sentence_transformers")

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
DRAW = np.random.default_rng(0)
WORDS = ["war", "love", "The", "machine", "of", "unbelievable", "drill", "3/8", "steel", "2016", "café", "!"]
TEXTS = [" ".join(DRAW.choice(WORDS, n)) for n in [*range(34), 40, 61, 100, 128, 400]]
ITEM_TEXTS = ["The Rink (1916). Comedy, Short", "Guna (1992). Drama", "x", "A & B: <b>"]


@pytest.fixture(scope="module")
def minilm() -> dict[str, Encoder]:
    return {name: text_encoder(MINILM, {"precision": name}).encoder() for name in ("fp32", "bf16")}


@pytest.fixture(scope="module")
def reference() -> Any:
    return sentence_transformers.SentenceTransformer(str(text_encoder(MINILM).folder), device="cpu")


@pytest.fixture(scope="module")
def expected(reference: Any) -> Vectors:
    return reference.encode(TEXTS + ITEM_TEXTS)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes folders of small random transformers with MiniLM's tokeniser: 32 numbers, 64 positions."""
    import transformers
    from sentence_transformers import models

    source = text_encoder(MINILM).folder
    assert source is not None

    def make(
        name: str, pooling: str = "mean", include_prompt: bool = True, dense: bool = False, left: bool = False
    ) -> Path:
        folder = tmp_path_factory.mktemp(name)
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=30522, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=48, max_position_embeddings=64,
        )  # fmt: skip
        transformers.BertModel(config).save_pretrained(folder / "bert")
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            source, model_max_length=64, padding_side="left" if left else "right"
        )
        tokenizer.save_pretrained(folder / "bert")
        word = models.Transformer(str(folder / "bert"))
        modules = [word, models.Pooling(32, pooling_mode=pooling, include_prompt=include_prompt)]
        if dense:
            modules.append(models.Dense(32, 20))
        model = sentence_transformers.SentenceTransformer(modules=modules, device="cpu")
        model.save(str(folder / "model"))
        return folder / "model"

    return make


def fitted() -> Encoder:
    return TfidfEncoder(TfidfOptions(dim=8), ITEM_TEXTS * 3 + TEXTS)


# --- shapes


@given(st.integers(0, 3000), st.integers(8, 2048), st.integers(1, 5000))
def test_a_shape_follows_from_a_text_alone(tokens: int, longest: int, budget: int) -> None:
    tokens = min(tokens, longest)
    shape = shape_of(tokens, longest=longest, budget=budget)
    assert shape.full == (tokens == longest)
    assert tokens <= shape.length - (not shape.full)  # all rows have padding, or none has
    assert shape.length <= longest
    assert shape.rows * shape.length <= max(budget, shape.length)
    if longest > 64 and not shape.full and tokens > 8:
        assert shape.length - tokens <= max(8, tokens / 4 + 1) or shape.length == longest


@given(st.lists(st.integers(1, 70), max_size=60))
def test_every_text_comes_out_once_in_its_own_shape(lengths: list[int]) -> None:
    buckets = Buckets(longest=64, budget=128)
    batches = [b for n, k in enumerate(lengths) if (b := buckets.add(n, [7] * min(k, 64)))]
    for batch in batches:
        assert len(batch.names) == batch.shape.rows
    batches += buckets.rest()
    assert sorted(name for batch in batches for name in batch.names) == list(range(len(lengths)))
    for batch in batches:
        for ids in batch.ids:
            assert batch.shape == shape_of(len(ids), longest=64, budget=128)


def test_rows_without_a_text_copy_the_first() -> None:
    batch = Batch(Shape(3, 4, False), [0, 1], [[5, 6, 7], [8]])
    ids, mask = batch.matrices(0, left=False)
    assert ids.tolist() == [[5, 6, 7, 0], [8, 0, 0, 0], [5, 6, 7, 0]]
    assert mask.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 0]]
    ids, mask = batch.matrices(9, left=True)
    assert ids.tolist() == [[9, 5, 6, 7], [9, 9, 9, 8], [9, 5, 6, 7]]
    assert mask.tolist() == [[0, 1, 1, 1], [0, 0, 0, 1], [0, 1, 1, 1]]


# --- the same bytes in any company


def assert_alone(encoder: Encoder, texts: list[str], singles: list[int]) -> None:
    whole = embed_all(encoder, texts)
    order = np.random.default_rng(1).permutation(len(texts))
    assert embed_all(encoder, [texts[n] for n in order]).tobytes() == whole[order].tobytes()
    for n in singles:
        assert embed_all(encoder, [texts[n]]).tobytes() == whole[n : n + 1].tobytes(), texts[n][:40]
    assert embed_all(encoder, texts[::3]).tobytes() == whole[::3].tobytes()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_minilm_gives_the_same_bytes_in_any_company(minilm: dict[str, Encoder], precision: str) -> None:
    assert_alone(minilm[precision], TEXTS, [0, 7, 20, 35, 38])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_place_in_a_batch_gives_the_same_bytes(minilm: dict[str, Encoder], precision: str) -> None:
    """A batch of 25 x 20, one of 4 x 128, one of 2 x 256 full rows: texts in several places of each."""
    texts = [f"{'war ' * 16}{word}" for word in WORDS] + [f"{'love ' * 15}{w} film" for w in WORDS[:9]]
    texts += [f"{'steel ' * 115}{word}" for word in WORDS[:4]] + ["drill " * 400, "war " * 400]
    first = embed_all(minilm[precision], texts)
    for shift in (1, 2):
        rolled = embed_all(minilm[precision], texts[shift:] + texts[:shift])
        assert np.roll(rolled, shift, axis=0).tobytes() == first.tobytes()


def test_the_number_of_threads_leaves_no_trace(minilm: dict[str, Encoder]) -> None:
    before = torch.get_num_threads()
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append(embed_all(minilm["bf16"], TEXTS[:20]).tobytes())
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert len(set(found)) == 1


@pytest.mark.parametrize(
    "case", [{"dense": True}, {"pooling": "cls"}, {"pooling": "lasttoken", "left": True}]
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_other_modules_too(tiny: Callable[..., Path], case: dict[str, Any], precision: str) -> None:
    folder = tiny("case", **case)
    encoder = text_encoder(str(folder), {"precision": precision, "normalize": False}).encoder()
    assert isinstance(encoder, SentenceEncoder)
    assert_alone(encoder, TEXTS[:38], list(range(0, 38, 5)))
    assert encoder.loaded[1] is not None  # not one by one
    if case.get("left"):
        return  # BERT counts positions from the padding on: theirs depend on the batch
    fresh = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    assert_close(
        embed_all(encoder, TEXTS[:38]), fresh.encode(TEXTS[:38]), 1e-6 if precision == "fp32" else 0.01
    )


# --- what sentence-transformers gives


def assert_close(ours: Vectors, theirs: Vectors, gap: float) -> None:
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    assert ((ours * theirs).sum(axis=1) / norms).min() > 1 - gap


@pytest.mark.parametrize(("precision", "gap"), [("fp32", 1e-6), ("bf16", 5e-4)])
def test_vectors_are_those_of_sentence_transformers(
    minilm: dict[str, Encoder], expected: Vectors, precision: str, gap: float
) -> None:
    assert_close(embed_all(minilm[precision], TEXTS + ITEM_TEXTS), expected, gap)


@pytest.mark.parametrize("include", [True, False])
def test_a_prompt_is_as_in_sentence_transformers(tiny: Callable[..., Path], include: bool) -> None:
    folder = tiny("prompt", include_prompt=include)
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    ours = embed_all(text_encoder(str(folder), {"prompt": "passage: ", "precision": "fp32"}).encoder(), TEXTS)
    assert_close(ours, model.encode(TEXTS, prompt="passage: "), 1e-6)
    assert np.abs(ours - unit(model.encode(TEXTS))).max() > 1e-3


def test_a_model_that_has_a_default_prompt_uses_it(tiny: Callable[..., Path]) -> None:
    folder = tiny("default")
    config = json.loads((folder / "config_sentence_transformers.json").read_text())
    config |= {"prompts": {"item": "item: "}, "default_prompt_name": "item"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(config))
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    ours = embed_all(text_encoder(str(folder), {"precision": "fp32"}).encoder(), TEXTS[:9])
    assert_close(ours, model.encode(TEXTS[:9]), 1e-6)
    assert_close(ours, model.encode(TEXTS[:9], prompt="item: "), 1e-6)


def unit(X: Vectors) -> Vectors:
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def test_long_texts_are_truncated_or_averaged_over_their_windows(tiny: Callable[..., Path]) -> None:
    folder = tiny("long")
    options = {"precision": "fp32", "max_tokens": 16, "normalize": False}
    cut, mean = (
        text_encoder(str(folder), {**options, "long": rule}).encoder() for rule in ("truncate", "chunks")
    )
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    tokenizer = model.tokenizer
    text = " ".join(WORDS[n % 5] for n in range(36))
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    windows = [ids[start : start + 14] for start in range(0, len(ids), 14)]
    assert len(windows) == 3

    def vector(window: list[int]) -> Vectors:
        row = torch.tensor([[tokenizer.cls_token_id, *window, tokenizer.sep_token_id]])
        features = {"input_ids": row, "attention_mask": torch.ones_like(row)}
        with torch.inference_mode():
            return model(features)["sentence_embedding"][0].numpy()

    expected = np.average([vector(w) for w in windows], axis=0, weights=[len(w) for w in windows])
    [(_, raw, long)] = mean.encode([(0, text)])
    assert np.allclose(raw[0], expected, atol=1e-6)
    assert long.tolist() == [True]
    [(_, raw, long)] = cut.encode([(0, text)])
    assert np.allclose(raw[0], vector(windows[0]), atol=1e-6)
    assert long.tolist() == [True]
    [(_, raw, long)] = cut.encode([(4, " ".join(WORDS[:1] * 14))])  # exactly what fits
    assert long.tolist() == [False]
    model.max_seq_length = 16
    assert_close(embed_all(cut, TEXTS), model.encode(TEXTS), 1e-6)
    assert_alone(mean, TEXTS, [3, 20, 36, 38])


def test_a_prompt_stands_before_every_window(tiny: Callable[..., Path]) -> None:
    folder = tiny("windows", include_prompt=False)
    options = {"precision": "fp32", "max_tokens": 16, "long": "chunks", "prompt": "passage: "}
    encoder = text_encoder(str(folder), options).encoder()
    text = " ".join(["war"] * 24)  # two windows of 12, all alike
    one, two = embed_all(encoder, [" ".join(["war"] * 12), text])
    assert np.allclose(one, two, atol=1e-6)


def test_dims_cut_and_normalise_again(minilm: dict[str, Encoder], reference: Any) -> None:
    cut = text_encoder(MINILM, {"precision": "fp32", "dims": 64}).encoder()
    assert isinstance(cut, SentenceEncoder)
    cut.__dict__["loaded"] = minilm["fp32"].loaded  # type: ignore[attr-defined]
    ours = embed_all(cut, TEXTS[:8])
    assert np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-6)
    assert_close(ours, reference.encode(TEXTS[:8], truncate_dim=64), 1e-6)
    raw = embed_all(minilm["fp32"], TEXTS[:8])
    assert np.allclose(finished(raw * 3, normalize=False, dims=5), raw[:, :5] * 3)


# --- other kinds of models


def test_modules_that_we_do_not_know_are_embedded_one_by_one(tmp_path: Path) -> None:
    from sentence_transformers import models

    bag = models.BoW(vocab=sorted({word.lower() for word in WORDS}))
    model = sentence_transformers.SentenceTransformer(modules=[bag], device="cpu")
    model.save(str(tmp_path / "bag"))
    encoder = text_encoder(str(tmp_path / "bag"), {"normalize": False}).encoder()
    assert isinstance(encoder, SentenceEncoder)
    assert (encoder.kind, encoder.precision) == ("one by one", "fp32")
    assert np.array_equal(embed_all(encoder, TEXTS[:9]), model.encode(TEXTS[:9]))
    with pytest.raises(DataError, match="'chunks' is for transformers"):
        text_encoder(str(tmp_path / "bag"), {"long": "chunks"}).encoder()


@pytest.fixture(scope="module")
def token_vectors() -> tuple[Any, Vectors]:
    from tokenizers import Tokenizer

    source = text_encoder(MINILM).folder
    assert source is not None
    vectors = np.random.default_rng(0).standard_normal((30522, 24), dtype=np.float32)
    return Tokenizer.from_file(str(source / "tokenizer.json")), vectors


def test_static_embeddings_of_sentence_transformers(
    token_vectors: tuple[Any, Vectors], tmp_path: Path
) -> None:
    from sentence_transformers import models

    tokenizer, vectors = token_vectors
    module = models.StaticEmbedding(tokenizer, embedding_weights=vectors)
    model = sentence_transformers.SentenceTransformer(modules=[module], device="cpu")
    model.save(str(tmp_path / "static"))
    encoder = text_encoder(str(tmp_path / "static"), {"normalize": False}).encoder()
    assert isinstance(encoder, SentenceEncoder)
    assert encoder.kind == "static"
    texts = [*TEXTS[1:], *(f"film {n}" for n in range(1200))]
    assert_alone(encoder, texts, list(range(0, 40, 7)))
    assert np.allclose(embed_all(encoder, texts[:50]), model.encode(texts[:50]), atol=1e-6)


def test_model2vec(token_vectors: tuple[Any, Vectors], tmp_path: Path) -> None:
    model2vec = pytest.importorskip("model2vec")
    tokenizer, vectors = token_vectors
    model = model2vec.StaticModel(vectors, tokenizer, max_length=50)
    model.save_pretrained(tmp_path / "m2v")
    found = text_encoder(str(tmp_path / "m2v"), {"normalize": False})
    assert found.needs() == ("model2vec", "static")
    encoder = found.encoder()
    texts = [*TEXTS, *(f"film {n}" for n in range(1200))]
    assert_alone(encoder, texts, list(range(0, 39, 7)))
    assert np.array_equal(embed_all(encoder, texts[:60]), model.encode(texts[:60]))
    [(_, _, long)] = encoder.encode(enumerate(TEXTS))
    model.tokenizer.no_truncation()
    assert long.tolist() == [len(model.tokenize([text])[0]) > 50 for text in TEXTS]
    with pytest.raises(DataError, match="'chunks' is for transformers"):
        text_encoder(str(tmp_path / "m2v"), {"long": "chunks"}).encoder()


def test_hashing_knows_words_and_letters() -> None:
    encoder = text_encoder("hashing", {"dim": 256}).encoder()
    assert_alone(encoder, TEXTS, list(range(0, 39, 7)))
    near = embed_all(encoder, ["Steel drill 3/8", "drill, steel", "steele drills", "Guna (1992). Drama", ""])
    likeness = near @ near[0]
    assert likeness[1] > likeness[2] > 0.25 > abs(likeness[3])
    assert not near[4].any()
    assert text_encoder("hashing", {}).fingerprint() == ""
    wide = embed_all(
        text_encoder("hashing", {"dim": 4096, "letters": 0, "words": 1}).encoder(), ["a b", "b a"]
    )
    assert np.array_equal(wide[0], wide[1])


def test_tfidf_is_fitted_once_and_the_same_every_time() -> None:
    encoder = fitted()
    assert_alone(encoder, TEXTS, list(range(0, 39, 7)))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    assert embed_all(fitted(), TEXTS).tobytes() == embed_all(encoder, TEXTS).tobytes()
    torch.set_num_threads(before)
    vectors = embed_all(encoder, ["steel drill", "drill of steel", "Guna drama", "zzz"])
    assert vectors[0] @ vectors[1] > 0.8 > abs(vectors[0] @ vectors[2])
    assert not vectors[3].any()


def test_tfidf_with_nothing_to_learn_says_so() -> None:
    with pytest.raises(DataError, match="share no word"):
        TfidfEncoder(TfidfOptions(), ["a", "b"])
    with pytest.raises(DataError, match="leave no direction"):
        TfidfEncoder(TfidfOptions(), ["a", "a"])


# --- finding, naming


def test_an_encoder_is_found_in_its_package_or_folder() -> None:
    packaged = text_encoder(MINILM, {}, Path("/nowhere"))
    assert packaged.folder is not None
    local = text_encoder(str(packaged.folder), {}, Path("/nowhere"))
    relative = text_encoder("model", {}, packaged.folder.parent)
    assert packaged.fingerprint() == local.fingerprint() == relative.fingerprint()
    assert packaged.needs() == ("sentence_transformers", "text")


def test_an_encoder_that_is_nowhere_says_where_we_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        SourceError, match=r"model = 'nobody/nothing': not a model folder, not in an installed package"
    ):
        text_encoder("nobody/nothing", {}, Path("/nowhere"))


def test_a_folder_has_no_revision(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RecipeError, match="is a folder, which has none"):
        text_encoder(str(tmp_path), {"revision": "main"})


def test_planning_imports_no_torch() -> None:
    code = (
        "import sys\nfrom sid_pipelines.embed_text import TextEmbedParams, needs_of\n"
        "from sid_pipelines.encoders import options_of, text_encoder\n"
        f"found = text_encoder({MINILM!r}, vars(options_of({MINILM!r})()))\nfound.fingerprint()\n"
        f"needs_of(TextEmbedParams('text', {MINILM!r}, {{}}, '', 'refuse', 'float32', str(found.folder)))\n"
        "print([name for name in ('torch', 'transformers', 'model2vec', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_everything_that_shapes_a_raw_vector_is_in_the_identity(tiny: Callable[..., Path]) -> None:
    folder = tiny("identity")

    def identity(**options: Any) -> str:
        return json.dumps(text_encoder(str(folder), options).encoder().identity(), sort_keys=True)

    plain = identity()
    assert identity(normalize=False) == identity(dims=8) == plain
    shaping = [{"prompt": "q: "}, {"max_tokens": 16}, {"long": "chunks"}, {"precision": "fp32"}]
    shaping += [{"precision": "bf16"}] * (not can_bf16())
    assert len({plain, *(identity(**one) for one in shaping)}) == len(shaping) + (can_bf16() or 0)
    weights = folder / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    assert identity() != plain


def can_bf16() -> bool:
    return cpu_flags()["avx512_bf16"] or cpu_flags()["amx_bf16"]


def test_auto_takes_bf16_where_the_cpu_computes_in_it() -> None:
    encoder = text_encoder(MINILM).encoder()
    assert isinstance(encoder, SentenceEncoder)
    assert encoder.precision == ("bf16" if can_bf16() else "fp32")
    assert encoder.device == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        (MINILM, {"max_tokens": 3}, "max_tokens = 3: expected 0 or at least 8"),
        (MINILM, {"dims": -1}, "dims = -1"),
        ("hashing", {"dim": 0}, "dim = 0"),
        ("hashing", {"letters": 2}, "letters 0 or >= 3"),
        ("hashing", {"letters": 0, "words": 0}, "one of them above 0"),
        ("tfidf-svd", {"min_df": 0}, "min_df = 0"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(model: str, options: dict[str, int], says: str) -> None:
    with pytest.raises(DataError, match=says):
        options_of(model)(**options).check_params()


def test_each_model_has_its_own_options() -> None:
    names = {
        "hashing": HashingOptions,
        "tfidf-svd": TfidfOptions,
        MINILM: SentenceOptions,
        "x": SentenceOptions,
    }
    assert {name: options_of(name) for name in names} == names


def test_what_a_model_cannot_follow_is_refused(tiny: Callable[..., Path], tmp_path: Path) -> None:
    folder = tiny("refused")
    with pytest.raises(DataError, match="the model has 64 positions"):
        embed_all(text_encoder(str(folder), {"max_tokens": 65}).encoder(), ["a"])
    with pytest.raises(DataError, match="expected room for the text"):
        embed_all(text_encoder(str(folder), {"max_tokens": 8, "prompt": "a b c d e f g "}).encoder(), ["a"])
    if not torch.cuda.is_available():
        with pytest.raises(DataError, match="torch finds no GPU here"):
            text_encoder(str(folder), {"device": "cuda"}).encoder()
    shutil.copytree(folder, tmp_path / "copy")
    assert text_encoder(str(tmp_path / "copy")).fingerprint() == text_encoder(str(folder)).fingerprint()


def test_code_that_a_model_brings_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text('[{"idx": 0, "name": "0", "path": "", "type": "own.Transformer"}]')
    (tmp_path / "own.py").write_text("raise SystemExit('this was run')")
    with pytest.raises(SourceError, match=r"'own.Transformer' is code of the model's own"):
        text_encoder(str(tmp_path)).encoder()
