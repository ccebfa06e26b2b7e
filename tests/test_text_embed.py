"""Text and its embedding: templates, what shops leave in their texts, and the stage cold, warm and killed."""

import ast
import gzip
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers import ROOT, run_chain, write_dump
from hypothesis import given
from hypothesis import strategies as st

from sid_pipelines import embed_text, text
from sid_pipelines.embed_text import TextEmbedParams
from sid_pipelines.encoders import embed_all, options_of, text_encoder
from sid_pipelines.stage import Resources, Work
from sid_pipelines.text import TextParams, cleaned, fill, parse
from sid_pipelines.vectors import read_vectors
from sid_schemas import DataError, RecipeError, Table
from sid_schemas.tables import INTERACTIONS, ITEMS_CLEAN, TEXTS
from sid_warehouse.stages import StageOutput, StageStore

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
DATA = ROOT.parent / "shared" / "data"
ITEM = {"title": "The Rink (1916)", "category_path": ["Comedy", "Short"], "brand": None, "price": 12.5}
STRINGS = ["The Rink (1916). Comedy", "Guna (1992)", "war film", "The Rink (1916). Comedy", "x " * 300, "Kid"]


# --- templates


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("{title}. {genres}", "The Rink (1916). Comedy, Short"),
        ("{title} by {brand}: {genres}", "The Rink (1916): Comedy, Short"),
        ("{brand}: {title}", "The Rink (1916)"),
        ("{title} [{brand}] ({genres})", "The Rink (1916) (Comedy, Short)"),
        ("{genres} ({brand})", "Comedy, Short"),
        ("Title: {title}; price: {price}", "Title: The Rink (1916); price: 12.5"),
        ("{title}\n  {categories}", "The Rink (1916) Comedy, Short"),
        ("{{{title}}}", "{The Rink (1916)}"),
        ("{description}", ""),
    ],
)
@pytest.mark.parametrize("clean", [True, False])
def test_the_template_is_filled(template: str, filled: str, clean: bool) -> None:
    assert fill(parse(template), ITEM, clean=clean) == filled


@pytest.mark.parametrize(
    "template", ["{titel}", "no field", "{title", "{}", "{title.__class__}", "{0}", "{title!r}", "{title:>9}"]
)
def test_a_template_that_is_none_is_refused(template: str) -> None:
    with pytest.raises(RecipeError, match="template = "):
        parse(template)


# --- what shops leave in their texts


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("Plain, with  blanks\tand\nlines", "Plain, with blanks and lines"),
        (r'["Great \ud83d\ude00 film"]', "Great \N{GRINNING FACE} film"),  # as json.dumps writes it
        (r'["half \ud83d of one"]', "half \N{REPLACEMENT CHARACTER} of one"),
        ("['a', {[1]: 2}]", "a', {[1]: 2}"),
        ("[']']", "]"),
        ('["Heroes"] (2004)', '["Heroes"] (2004)'),
        ("<a " + "=" * 20_000 + "<", "<a " + "=" * 20_000 + "<"),  # in no time
        ("Tom &amp; Jerry&#39;s &quot;best&quot; 5&deg;", 'Tom & Jerry\'s "best" 5°'),
        ("R&amp;amp;D, AT&T; Q&A", "R&D, AT&T Q&A"),
        ("1997 Cream's bassist &vocalist; ", "1997 Cream's bassist &vocalist"),
        ('<div class="aplus"><h4>Card</h4>Box<br/>of 50</div>', "Card Box of 50"),
        ("keep <300V DC, < 5%, a<b and 3 > 2", "keep <300V DC, < 5%, a<b and 3 > 2"),
        ("a <!-- note --> b <script>var x = '<b>';</script>c<STYLE>p{}</STYLE>", "a b c"),
        ('cut off <a href="http://www.am', "cut off"),
        ("&lt;b&gt;bold&lt;/b&gt; &lt; 5", "bold < 5"),
        ("['one', 'two']", "one two"),
        ("[\"it's one\", 'two']", "it's one two"),
        ("[]", ""),
        ("['']", ""),
        ("[['Home', 'Garden'], ['Tools']]", "Home Garden Tools"),
        ("['size 5\\' x 6\\'', 'a\\nb\\\\nc']", "size 5' x 6' a b c"),
        ("['broken 5' pole', 'two \\n three']", "broken 5' pole two three"),
        ("['cut off in the mid", "cut off in the mid"),
        ("[Open Resin] XYZprinting", "[Open Resin] XYZprinting"),
        ("[REC] 2", "[REC] 2"),
        ("a\x00b\x07c\x9f\u200bd\ufeff so\xadft\xa0blank", "a b c d soft blank"),
        ("", ""),
    ],
)
def test_a_text_is_cleaned(raw: str, plain: str) -> None:
    assert cleaned(raw) == plain


@given(st.text())
def test_what_is_cleaned_has_nothing_left_to_clean_but_what_was_escaped(raw: str) -> None:
    plain = cleaned(raw)
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]|  |^ | $", plain)
    if not re.search(r"[<&\[\x00-\x1f\x7f-\x9f\xad\u200b-\u200f\u2060\ufeff]", raw):
        assert plain == " ".join(raw.split())


@given(st.lists(st.text(st.characters(codec="ascii", exclude_characters="<&[\\"), min_size=1), min_size=1))
def test_a_list_written_as_text_is_read_back(values: list[str]) -> None:
    assert cleaned(str(values)) == cleaned(" ".join(values))


LEFT = re.compile(r"""^\[['"]|['"]\]$|</?(?:br|b|div|span|p|strong|li|i)\b[^<>]*>|&(?:[a-z]+|#\d+);|\\[nt]""")


def real_texts() -> Iterator[tuple[str, list[str]]]:
    items = json.loads((DATA / "published/minionerec_Industrial_and_Scientific.item.json").read_text())
    yield "industrial", [str(item[name]) for item in items.values() for name in ("title", "description")]
    with gzip.open(DATA / "amazon2018/meta_Gift_Cards.json.gz", "rt") as lines:
        cards = [json.loads(line) for line in lines]
    yield (
        "gift cards",
        [one for card in cards for one in [card["title"], *card["description"], *card["feature"]]],
    )
    music = []
    with gzip.open(DATA / "amazon2014/meta_Digital_Music.json.gz", "rt") as lines:
        for line, _ in zip(lines, range(3000), strict=False):
            music.append(str(ast.literal_eval(line).get("description") or ""))
    yield "music", music


@pytest.mark.realdata
@pytest.mark.skipif(not DATA.is_dir(), reason=f"the dumps are not there: {DATA}")
def test_real_shop_texts_are_clean_afterwards() -> None:
    for name, raw in real_texts():
        dirty = [one for one in raw if LEFT.search(one)]
        assert len(dirty) > (15 if name == "music" else 50), name  # else this test proves nothing
        plain = [cleaned(one) for one in raw]
        assert [one[:200] for one in plain if LEFT.search(one)] == []
        words = [sum(len(re.findall(r"[A-Za-z]{4,}", one)) for one in some) for some in (raw, plain)]
        assert words[1] > 0.9 * words[0], name  # and what they say is still there


# --- stages

EMPTY: dict[str, Any] = {"string": "", "list<element: string>": [], "list<item: string>": []}


def output(store: Path, stage: str, table: Table, rows: pa.Table, facts: Any = None) -> StageOutput:
    with StageStore(store, "test").write(stage, "key", {}) as draft:
        draft.write(table, rows.to_batches(max_chunksize=7))
        return draft.commit(facts or {}, "")


def run_stage(store: Path, module: Any, params: Any, inputs: dict[str, StageOutput], key: str) -> StageOutput:
    with StageStore(store, "test").write(module.STAGE.name, key, {}) as draft:
        work = Work(params, inputs, draft, Resources(cache=store / "cache"), lambda done, total: None)
        outcome = module.run(work)
        return draft.commit(outcome.facts, outcome.summary)


def texts_of(store: Path, strings: list[str]) -> StageOutput:
    index = pa.array(range(len(strings)), pa.int32())
    rows = pa.table({"item_index": index, "item_id": [f"i{n}" for n in range(len(strings))], "text": strings})
    return output(store, "text", TEXTS, rows, {"template_sha256": "t" * 64})


def params_of(model: str = "hashing", missing: str = "refuse", dtype: str = "float32", **given: Any) -> Any:
    found = text_encoder(model, given)
    options = {**vars(options_of(model)()), **given}
    return TextEmbedParams(
        "text", model, options, found.fingerprint(), missing, dtype, str(found.folder or "")
    )


def embed(store: Path, strings: list[str], params: Any, key: str = "a", **inputs: StageOutput) -> StageOutput:
    folder = store / f"texts-{key}"
    return run_stage(store, embed_text, params, {"text": texts_of(folder, strings), **inputs}, key)


def test_the_text_stage_fills_cleans_and_counts(tmp_path: Path) -> None:
    titles = ["A &amp; B", "A & B", None, "<b>C</b>"] * 5
    fields: dict[str, Any] = {
        "item_index": range(20), "item_id": [f"{n:02d}" for n in range(20)], "title": titles,
        "category_path": [["x", ""], ["x"], [], []] * 5,
    }  # fmt: skip
    schema = ITEMS_CLEAN.arrow()
    columns = [pa.array(fields[f.name], f.type) if f.name in fields else pa.nulls(20, f.type) for f in schema]
    for place, one in enumerate(schema):
        if not one.nullable and one.name not in fields:
            columns[place] = pa.array([EMPTY.get(str(one.type), 0)] * 20, one.type)
    clean = output(tmp_path, "clean", ITEMS_CLEAN, pa.table(columns, schema=schema))
    done = run_stage(tmp_path, text, TextParams("{title}: {genres}"), {"clean": clean}, "a")
    assert done.read("texts")["text"].to_pylist() == ["A & B: x", "A & B: x", "", "C"] * 5
    assert done.facts["empty"] == 5
    assert done.facts["distinct"] == 3
    assert done.facts["template"] == "{title}: {genres}"
    assert len(done.facts["template_sha256"]) == 64
    raw = run_stage(tmp_path, text, TextParams("{title}", clean_text=False), {"clean": clean}, "b")
    assert raw.read("texts")["text"].to_pylist()[:4] == ["A &amp; B", "A & B", "", "<b>C</b>"]


def test_each_distinct_text_is_embedded_once_and_warm_is_cold(tmp_path: Path) -> None:
    cold = embed(tmp_path, STRINGS, params_of(MINILM), "cold")
    counts = ("distinct", "from_cache", "embedded", "truncated", "chunked", "missing", "duplicate_vectors")
    assert [cold.facts[name] for name in counts] == [5, 0, 5, 1, 0, 0, 1]
    assert cold.manifest["summary"] == "6 vectors of 384 numbers, 0 from the cache, 1 text truncated"
    warm = embed(tmp_path, STRINGS, params_of(MINILM), "warm")
    assert [warm.facts[name] for name in counts] == [5, 5, 0, 1, 0, 0, 1]
    assert files_of(warm) == files_of(cold)
    encoder = text_encoder(MINILM).encoder()
    assert read_vectors(cold).tobytes() == embed_all(encoder, STRINGS).tobytes()
    for name in ("model", "weights", "revision", "precision", "device", "missing_rule", "template_sha256"):
        assert name in cold.facts
    assert cold.facts["fit_scope"] == "none: the encoder is frozen"
    assert json.loads(json.dumps(cold.facts)) == cold.facts
    # Other options of what is stored need nothing new; other items only themselves.
    half = embed(tmp_path, STRINGS, params_of(MINILM, dims=64, dtype="float16", normalize=False), "half")
    assert (half.facts["embedded"], half.facts["dim"], half.facts["dtype"]) == (0, 64, "float16")
    more = embed(tmp_path, ["new", *STRINGS[::-1]], params_of(MINILM), "more")
    assert (more.facts["embedded"], more.facts["from_cache"]) == (1, 5)
    assert read_vectors(more)[1:][::-1].tobytes() == read_vectors(cold).tobytes()


def files_of(done: StageOutput) -> list[str]:
    return [entry["sha256"] for entry in done.manifest["files"].values()]


@pytest.mark.parametrize("model", ["hashing", "tiny"])
def test_what_an_item_without_text_gets(tmp_path: Path, tiny: Path, model: str) -> None:
    name = str(tiny) if model == "tiny" else model
    strings = ["war film", "", "love story", ""]
    with pytest.raises(DataError, match=r"embed: 2 items without any text, the first is item 'i1'"):
        embed(tmp_path, strings, params_of(name), "refuse")
    whole = embed_all(text_encoder(name).encoder(), strings)[[0, 2]]
    for rule in ("mask", "mean"):
        done = embed(tmp_path, strings, params_of(name, missing=rule), rule)
        filled = whole.mean(axis=0) if rule == "mean" else 0 * whole[0]
        vectors = read_vectors(done)
        assert vectors[[0, 2]].tobytes() == whole.tobytes()
        assert np.allclose(vectors[[1, 3]], filled, atol=1e-7)
        table = done.read("embeddings_text")
        assert table["present"].to_pylist() == [True, False, True, False]
        assert (done.facts["missing"], done.facts["missing_rule"]) == (2, rule)
        assert done.manifest["summary"].endswith("2 items without text")
    with pytest.raises(DataError, match="expected text for one item at least"):
        embed(tmp_path, ["", ""], params_of(name, missing="mask"), "none")


def test_more_dims_than_there_are_are_refused(tmp_path: Path, tiny: Path) -> None:
    with pytest.raises(RecipeError, match="dims = 33: the model's vectors have 32 numbers"):
        embed(tmp_path, ["a"], params_of(str(tiny), dims=33))


def test_chunks_are_counted(tmp_path: Path, tiny: Path) -> None:
    done = embed(tmp_path, STRINGS, params_of(str(tiny), long="chunks", max_tokens=16))
    assert (done.facts["truncated"], done.facts["chunked"]) == (0, 1)
    assert done.manifest["summary"].endswith("1 text cut into chunks")


def test_tfidf_learns_from_items_with_a_train_event_alone(tmp_path: Path) -> None:
    strings = [f"{a} {b} film" for a in ("war", "love", "blue", "steel") for b in ("night", "day", "zzz")]
    seen = [n for n, one in enumerate(strings) if not one.startswith("steel")]
    params = params_of("tfidf-svd", dim=4)
    assert embed_text.is_fitted("tfidf-svd")
    assert not embed_text.is_fitted(MINILM)
    done = embed(tmp_path, strings, params, "a", split=interactions(tmp_path / "a", seen))
    assert done.facts["fit_scope"] == "items with a train event"
    assert (done.facts["from_cache"], done.facts["dim"]) == (0, 4)
    changed = [one.replace("steel", "other words entirely") for one in strings]
    again = embed(tmp_path, changed, params, "b", split=interactions(tmp_path / "b", seen))
    assert read_vectors(again)[seen].tobytes() == read_vectors(done)[seen].tobytes()
    everything = embed(tmp_path, strings, params, "c", split=interactions(tmp_path / "c", list(range(12))))
    assert read_vectors(everything).tobytes() != read_vectors(done).tobytes()


def interactions(store: Path, seen: list[int]) -> StageOutput:
    """Items in `seen` have a train event, all have a test event."""
    schema = INTERACTIONS.arrow()
    items = [*seen, *range(12)]
    given: dict[str, Any] = {"item_index": items, "split": ["train"] * len(seen) + ["test"] * 12}
    columns = []
    for one in schema:
        if one.name in given:
            columns.append(pa.array(given[one.name], one.type))
        elif one.nullable:
            columns.append(pa.nulls(len(items), one.type))
        else:
            columns.append(pa.array([EMPTY.get(str(one.type), 0)] * len(items), one.type))
    return output(store, "split", INTERACTIONS, pa.table(columns, schema=schema))


# --- interrupted


KILLED = """
import sys
sys.path.insert(0, {tests!r})
from test_text_embed import *
embed_text.fill.__kwdefaults__["shard"] = 40
strings = [f"film number {{n}}" for n in range(400)]
params = params_of({model!r})
store = Path({store!r})
def progress(done, total):
    if done >= 150:
        print(done, flush=True)
        import time; time.sleep(60)
with StageStore(store, "test").write("embed_text", "killed", {{}}) as draft:
    inputs = {{"text": texts_of(store / "texts-killed", strings)}}
    embed_text.run(Work(params, inputs, draft, Resources(cache=store / "cache"), progress))
"""


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path, tiny: Path) -> None:
    code = KILLED.format(tests=str(ROOT / "tests"), model=str(tiny), store=str(tmp_path / "killed"))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        done = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
    strings = [f"film number {n}" for n in range(400)]
    resumed = embed(tmp_path / "killed", strings, params_of(str(tiny)), "again")
    assert 100 <= resumed.facts["from_cache"] <= done < 400
    assert resumed.facts["from_cache"] + resumed.facts["embedded"] == 400
    fresh = embed(tmp_path / "fresh", strings, params_of(str(tiny)), "fresh")
    assert files_of(resumed) == files_of(fresh)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small random transformer and MiniLM's tokeniser."""
    transformers = pytest.importorskip("transformers")
    models = pytest.importorskip("sentence_transformers.models")
    import torch
    from sentence_transformers import SentenceTransformer

    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=30522, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=512,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder / "bert")
    source = text_encoder(MINILM).folder
    transformers.AutoTokenizer.from_pretrained(source, model_max_length=512).save_pretrained(folder / "bert")
    modules = [models.Transformer(str(folder / "bert")), models.Pooling(32)]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "model"))
    return folder / "model"


# --- in the chain


def test_an_item_without_text_is_refused_by_name(tmp_path: Path) -> None:
    ratings = [f"{user}::{movie:07d}::7::{1000 + user}" for user in range(5) for movie in range(5)]
    movies = [f"{movie:07d}::{'' if movie == 3 else 'Film'}::Drama" for movie in range(5)]
    recipe = write_dump(tmp_path, ratings, movies)
    with pytest.raises(DataError, match=r"embed: 1 item without any text, the first is item '0000003'"):
        run_chain(recipe, tmp_path / "w", "embed.template={title}", until="embed")


def test_more_codes_than_train_items_are_refused(tmp_path: Path) -> None:
    ratings = [f"{user}::{movie:07d}::7::{1000 + user}" for user in range(5) for movie in range(5)]
    recipe = write_dump(tmp_path, ratings, [f"{movie:07d}::Film {movie}::Drama" for movie in range(5)])
    with pytest.raises(
        DataError, match=r"levels\[1\] asks for 64 codes, but there are only 5 items to fit on"
    ):
        run_chain(recipe, tmp_path / "w", "tokenize.levels=[4, 64]", until="tokenize")
