"""The report: its figures and tables say what the release holds, whatever made it, whatever its data."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import numpy as np
import plotly.graph_objects as go
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import Run, more_dump, quickly, run_append, run_chain, small_dump
from reported import Read, figures_of, page_of

from sid_flows.report import codes, collisions, drift, render, split, tree, vectors, verdict
from sid_flows.report import map as item_map
from sid_flows.report import page as page_module
from sid_flows.report.figures import embedded, plain
from sid_flows.report.markup import Markup, table
from sid_flows.report.tables import opened
from sid_warehouse.diff import Side, compare
from sid_warehouse.reader import Release

EVIL = '</script><script>alert(1)</script><a href="https://x.example">\u2028"\'&amp;%{y}'
SECTIONS = (
    "cleaning", "codes", "collisions", "tree", "map", "neighbours", "likeness", "split", "embeddings",
    "lineage", "gates",
)  # fmt: skip
QUICK = ("tokenize.epochs=2", "tokenize.hidden=[8]", "tokenize.batch_size=8")
SCHEMES: dict[str, tuple[str, ...]] = {
    "suffix": ("tokenize.vectors=text", "tokenize.levels=[3, 2]", "collisions.policy=suffix"),
    "none": (
        "tokenize.vectors=text", "tokenize.levels=[3, 2]", "collisions.policy=none",
        "gates.max_collision_rate=0.9",
    ),
    "without order": ("tokenize.vectors=text", "tokenize.tokenizer=pq", "tokenize.levels=[4, 4]"),
    "paths": ("tokenize.vectors=text", "tokenize.tokenizer=category-path"),
    "text": ("tokenize.vectors=text", "tokenize.tokenizer=text-docid", "tokenize.words=1"),
    "continuous": (
        "tokenize.vectors=text", "tokenize.tokenizer=setrec", "tokenize.n_sem=2", "tokenize.width=4", *QUICK,
    ),
    "everything": (
        "tokenize.vectors=collaborative", 'tokenize.each=["text"]', "tokenize.levels=[4, 4]",
        "tokenize.soft=3", 'pieces.schemes=["ngram", "unigram"]', "users.levels=[3, 2]",
        "users.mixtures=true",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def figures(example: Run) -> dict[str, Any]:
    return figures_of(page_of(example.release.folder))


@pytest.fixture(scope="module")
def read(example: Run) -> Read:
    return Read(page_of(example.release.folder))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of 14 items, one of them of a hostile title, with vectors of text and of behaviour."""
    folder = tmp_path_factory.mktemp("reported")
    recipe = small_dump(folder, movies=14, users=20)
    embeddings = (
        '[[embed]]\nmodel = "hashing"\ndim = 8\n'
        '[[embed]]\nmodality = "collaborative"\nmodel = "ppmi-svd"\ndim = 4\n'
    )
    recipe.write_text(recipe.read_text().replace("[tokenize]\nlevels = [4, 4]\n", embeddings))
    movies = folder / "dump" / "movies.dat"
    movies.write_text(movies.read_text().replace("Film A0", EVIL.replace(":", "")), encoding="utf-8")
    return recipe


@pytest.fixture(scope="module")
def made(two: Path) -> dict[str, Release]:
    """A release of every family of schemes."""
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        return {name: run_chain(two, two.parent / "w", *given).release for name, given in SCHEMES.items()}


# What figures say is what the release holds


def test_the_waterfall_is_the_ledger(example: Run, figures: dict[str, Any]) -> None:
    [trace] = figures["ledger"]["data"]
    steps = example.release.metrics["ledger"]
    assert trace["x"] == [50_000, 0, 0, 0, -22_671, 27_329]
    assert trace["y"] == [*(one["step"].replace("_", " ") for one in steps), "kept"]
    assert trace["measure"] == ["absolute", *["relative"] * 4, "total"]
    assert sum(trace["x"][:-1]) == trace["x"][-1] == example.release.record["rows"]["interactions"]


def test_bars_of_codes_are_the_sids_counted(example: Run, figures: dict[str, Any]) -> None:
    sids = example.release.table("sids")["sid"].to_pylist()
    for level in range(3):
        [trace] = figures[f"usage-{level + 1}"]["data"]
        own = Counter(sid[level] for sid in sids)
        assert trace["y"] == sorted(own.values(), reverse=True)
        told = {
            int(name.removeprefix("code ")): y
            for name, y in zip(trace["customdata"], trace["y"], strict=True)
        }
        assert told == own
        even = figures[f"usage-{level + 1}"]["layout"]["shapes"][0]
        assert even["y0"] == pytest.approx(1342 / 64, rel=1e-5)


def test_dead_codes_stand_last_and_are_seen() -> None:
    heights, widths, told = codes.bars(np.array([3, 0, 7, 0]))
    assert (heights, told) == ([7, 3, 0, 0], ["code 2", "code 0", "code 1", "code 3"])
    assert widths.tolist() == [1, 1, 1, 1]
    many = np.arange(10_000, dtype=np.int64)
    heights, widths, told = codes.bars(many)
    assert len(heights) == codes.BARS
    assert sum(h * w for h, w in zip(heights, widths.tolist(), strict=True)) == pytest.approx(many.sum())
    assert told[0] == "codes 1 to 19 by use"
    level = {"level": 1, "codes": 64, "used": 60, "dead": 4, "max_count": 9}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codes, "counted", lambda *given: np.array([1] * 60 + [0] * 4))
        [drawn] = figures_of(codes.usage(None, level)).values()  # type: ignore[arg-type]
    dead = drawn["layout"]["shapes"][1]
    assert (dead["x0"], dead["x1"], dead["type"]) == (60, 64, "rect")


def test_collision_groups_are_counted_before_and_after(
    example: Run, figures: dict[str, Any], read: Read
) -> None:
    sids = example.release.table("sids").to_pylist()
    groups = Counter(Counter(tuple(row["codes"]) for row in sids).values())
    before, after = figures["groups"]["data"]
    assert dict(zip(before["x"], before["y"], strict=True)) == {"2": 2 * groups[2], "3": 3, "4": 4}
    assert sum(before["y"]) == example.release.metrics["collisions"]["before"]["collided_items"] == 71
    assert after["y"] == [0, 0, 0]
    assert read.row("collided items") == ["collided items", "71", "0"]
    largest = next(row for row in read.rows if row and row[0] == "50-34-10")
    assert largest[1] == "4"
    assert "Paranormal Activity 4 (2012)" in largest[2]
    assert collisions.binned({1: 9, 2: 4, 12: 1, 4000: 2}) == [8, 0, 0, 0, 12, 0, 0, 0, 8000]


def test_the_tree_holds_every_item_at_each_depth(example: Run, figures: dict[str, Any]) -> None:
    [trace] = figures["tree"]["data"]
    boxes = list(zip(trace["ids"], trace["parents"], trace["customdata"], strict=True))
    items = {name: told[0] for name, _, told in boxes}
    children: dict[str, int] = Counter()
    for _, parent, told in boxes[1:]:
        children[parent] += told[0]
    assert items["all"] == children["all"] == 1342
    assert all(items[parent] == number for parent, number in children.items())  # no SID ends before another
    prefixes = Counter("-".join(map(str, sid[:d])) for sid in _sids(example) for d in (1, 2, 3))
    named = {name: number for name, number in items.items() if "other" not in name and name != "all"}
    assert named == {name: prefixes[name] for name in named}
    assert sum("-" not in name for name in named) == tree.WIDTH[0]
    assert len(boxes) < 2_000
    # The most popular item of the largest first code.
    rows = {row["item_index"]: row for row in example.release.table("items").to_pylist()}
    own = [n for n, sid in enumerate(_sids(example)) if str(sid[0]) == trace["ids"][1]]
    best = max(own, key=lambda n: (rows[n]["popularity_train"], -n))
    assert trace["customdata"][1][2].split("<br>")[0] == rows[best]["title"]


def test_heights_of_the_tree_add_up(figures: dict[str, Any]) -> None:
    [trace] = figures["tree"]["data"]
    assert trace["branchvalues"] == "remainder"
    assert sum(trace["values"][1:]) == pytest.approx(1, rel=1e-3)
    height = dict(zip(trace["ids"], trace["values"], strict=True))
    inner = set(trace["parents"])
    assert all((height[name] == 0) == (name in inner) for name in trace["ids"] if name != "all")


def test_the_map_is_a_pca_of_the_tokenized_vectors(example: Run, figures: dict[str, Any], read: Read) -> None:
    X = np.stack(example.release.table("embeddings_text")["vector"].to_numpy()).astype(np.float64)
    X -= X.mean(axis=0)
    values = np.linalg.eigvalsh(X.T @ X)[::-1]
    traces = figures["map"]["data"]
    assert sum(len(one["x"]) for one in traces) == 1342
    for place, axis in enumerate(("xaxis", "yaxis")):
        share = values[place] / values.sum()
        assert figures["map"]["layout"][axis]["title"]["text"] == f"{share:.1%} of the variance"
        spread = np.concatenate([one["xy"[place]] for one in traces]).var()
        assert spread * 1342 == pytest.approx(values[place], rel=1e-3)
    first = Counter(sid[0] for sid in _sids(example))
    sizes = {one["name"]: len(one["x"]) for one in traces[1:]}
    tokens = {plain(f"<a_{code}>"): n for code, n in first.items()}
    assert sizes == {name: tokens[name] for name in sizes}
    assert sorted(sizes.values(), reverse=True) == sorted(first.values(), reverse=True)[:8]
    assert (
        f"1,342 items; vectors: text. The two directions hold {values[:2].sum() / values.sum():.1%}"
        in read.text
    )


def test_neighbours_are_the_nearest_there_are(example: Run) -> None:
    release = example.release
    X = np.stack(release.table("embeddings_text")["vector"].to_numpy())
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    popularity = release.table("items")["popularity_train"].to_pylist()
    order = sorted(range(1342), key=lambda n: (-popularity[n], n))
    with opened(Side.of(release)) as tables:
        from sid_flows.report import neighbours

        examples = neighbours.chosen(tables)
        looked = vectors.look(tables, [one.item for one in examples])
        assert looked is not None
        assert [one.item for one in examples[:2]] == order[:2]
        known = [n for n in order if popularity[n]]
        half = len(known) // 2
        assert [one.item for one in examples[2:]] == [*known[half : half + 2], *known[-2:]]
        assert [one.why for one in examples] == ["popular"] * 2 + ["middling"] * 2 + ["tail"] * 2
        for one in examples:
            scores = unit @ unit[one.item]
            scores[one.item] = -1
            near = np.argsort(-scores, kind="stable")[: vectors.NEAR]
            assert [item for item, _ in looked.near[one.item]] == near.tolist()
            assert [score for _, score in looked.near[one.item]] == pytest.approx(scores[near], abs=1e-4)
            sids = _sids(example)
            shared = [_prefix(sids[one.item], sid) for sid in sids]
            alike = sorted(set(range(1342)) - {one.item}, key=lambda n: (-shared[n], -popularity[n], n))
            assert neighbours.siblings(tables, one.item) == [(n, shared[n]) for n in alike[: vectors.NEAR]]


def test_the_timeline_has_every_event_of_each_split(example: Run, figures: dict[str, Any]) -> None:
    drawn = {one["name"]: sum(one["y"]) for one in figures["timeline"]["data"]}
    assert drawn == example.release.metrics["split"]["audit"]["events"]
    events = example.release.table("interactions", ["ts", "split"]).to_pylist()
    with opened(Side.of(example.release)) as tables:
        edges, counts = split.timeline(tables)
    assert len(edges) <= split.BINS + 1
    assert edges[0] <= min(one["ts"] for one in events) <= max(one["ts"] for one in events) <= edges[-1]
    for name, values in counts.items():
        own = [one["ts"] for one in events if one["split"] == name]
        assert values.tolist() == np.histogram(own, bins=edges)[0].tolist()
    assert {b - a for a, b in pairwise(edges[1:-1])} == {2 * split.DAY}


def test_figures_are_what_plotly_knows(figures: dict[str, Any]) -> None:
    named = {"ledger", "usage-1", "usage-2", "usage-3", "groups", "tree", "map", "timeline"}
    assert set(figures) == named
    for drawn in figures.values():
        text = json.dumps(drawn)
        colours = {word for word in text.split('"') if word.startswith("@")}
        for colour in colours:
            text = text.replace(f'"{colour}"', '"#123456"')
        made = json.loads(text)
        made["layout"].pop("narrow", None)
        go.Figure(made)  # raises for what it does not know


def test_numbers_stand_in_tables_too(example: Run, read: Read) -> None:
    assert read.row("k_core")[:5] == ["k_core", "27,329", "2,311", "1,342", "22,671"]
    assert read.row("train")[:2] == ["train", "22,707"]
    gates = [row for row in read.rows if len(row) == 5 and row[0] in ("ok", "warning")]
    checks = Counter(one["check"] for one in example.release.record["gates"])
    assert Counter(row[1] for row in gates) - checks == Counter(
        row[1] for row in gates if row[1] not in checks
    )
    assert sum(checks.values()) == 182
    assert all(name in read.text for name in checks)
    seconds = next(row for row in read.rows if row and row[0] == "tokenize")[3]
    assert seconds == f"{example.release.record['stages']['tokenize']['seconds']:,.1f}"
    words = read.text.split("The IDs are sound")
    assert len(words) == 2
    assert read.row("✓")  # and so on, each with what good looks like


# The page


def test_the_same_release_gives_the_same_page(example: Run) -> None:
    side = Side.of(example.release)
    page = render(side)
    assert page == render(side)
    # Its own page was made before it had a number.
    draft = replace(side, record={k: v for k, v in side.record.items() if k != "version"})
    assert render(draft) == page_of(example.release.folder)


def test_the_page_lets_nothing_in_or_out(example: Run) -> None:
    page = page_of(example.release.folder)
    read = Read(page)
    policy = page.partition('Content-Security-Policy" content="')[2].partition('"')[0]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    assert "unsafe-inline" not in policy.partition("style-src")[0]
    kinds = Counter(one.get("type") for one in read.scripts)
    assert kinds == {"application/json": 8, "text/plain": 1, None: 1}
    assert not {"src", "onclick", "onerror", "onload"} & read.attributes
    assert not {"img", "link", "iframe", "object", "form", "base", "embed"} & set(read.tags)
    assert not [word for word in ("http://", "https://", "url(", "@import") if word in page]
    assert 1_900_000 < len(page) < 2_400_000


def test_json_in_the_page_ends_no_script() -> None:
    text = embedded({"t": EVIL, "n": float("inf"), "x": 0.1234567891})
    assert not {"<", ">", "&", "\u2028"} & set(text)
    assert json.loads(text) == {"t": EVIL, "n": None, "x": 0.123457}
    assert plain("<b>&lt;") == "&lt;b&gt;&amp;lt;"
    cells = table(["a"], [[EVIL], [Markup("<b>x</b>")]])
    assert "<script" not in cells
    assert "<b>x</b>" in cells


@pytest.mark.parametrize("name", SCHEMES)
def test_every_family_of_schemes_has_a_page(made: dict[str, Release], name: str) -> None:
    release = made[name]
    page = page_of(release.folder)
    read, figures = Read(page), figures_of(page)
    assert all(f'<section id="{one}">' in page for one in SECTIONS)
    # The hostile title is told, and is nothing but a title.
    assert len(read.scripts) == len(figures) + 2
    assert read.tags.count("a") == page.count('<a href="#') + 1  # and the one to skip to the content
    assert "alert(1)" in read.text
    texts = [text for one in figures["map"]["data"] for text in one["text"]]
    assert next(text for text in texts if "alert(1)" in text).startswith("&lt;/script&gt;&lt;script&gt;")
    assert sum(len(one["x"]) for one in figures["map"]["data"]) == 14
    assert sum(sum(one["y"]) for one in figures["timeline"]["data"]) == release.record["rows"]["interactions"]
    levels = release.metrics["collisions"]["levels"]
    continuous = name == "continuous"
    assert ("tree" in figures) is not continuous
    assert (f"usage-{len(levels)}" in figures) is not continuous
    if not continuous:
        [trace] = figures["tree"]["data"]
        first = [
            told[0]
            for parent, told in zip(trace["parents"], trace["customdata"], strict=True)
            if parent == "all"
        ]
        assert sum(first) == 14
    if name == "none":
        assert figures["groups"]["data"][0]["y"] == figures["groups"]["data"][1]["y"]
        assert "Unique IDs" in page.partition('class="verdict is-look"')[2].partition("</div>")[0]


def test_a_suffix_ends_some_sids_before_others(made: dict[str, Release]) -> None:
    release = made["suffix"]
    sids = release.table("sids")["sid"].to_pylist()
    figures = figures_of(page_of(release.folder))
    [last] = figures["usage-3"]["data"]
    assert sum(last["y"]) == sum(len(sid) == 3 for sid in sids)


def test_what_lies_beside_sids_is_told(made: dict[str, Release]) -> None:
    page = page_of(made["everything"].folder)
    read, metrics = Read(page), made["everything"].metrics
    assert [one for one in ("each", "soft", "pieces", "users") if f'<section id="{one}">' not in page] == []
    assert ["text", "rq-kmeans", "2"] in [row[:3] for row in read.rows]
    scheme = metrics["pieces"]["schemes"]["ngram"]
    assert read.row("ngram")[1:3] == [f"{scheme['table_size']}", f"{scheme['used']}"]
    assert read.row("users with a train event")[1] == str(metrics["users"]["users"])
    soft = made["everything"].table("soft_sids").to_pylist()
    own = np.mean([row["probabilities"][0] for row in soft if row["level"] == 1])
    assert f"{own:.3f}" in [cell for row in read.rows for cell in row]
    assert '<section id="item_paths">' in page_of(made["paths"].folder)
    docids = made["text"].table("docids")["docid"].to_pylist()
    assert sum(docid in Read(page_of(made["text"].folder)).text for docid in docids) == 8


def test_an_append_tells_of_changes_and_drift(
    made: dict[str, Release], two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quickly(monkeypatch)
    delta = more_dump(tmp_path)
    movies = [f"{m:07d}::New {m} (1999)::Drama" for m in range(20, 23)]
    (delta.parent / "dump" / "movies.dat").write_text(
        "".join(f"{line}\n" for line in movies), encoding="utf-8"
    )
    ratings = [
        f"{user}::{movie:07d}::7::{1_400_000_000 + user + movie}"
        for user in (1, 2, 30, 31)
        for movie in (20, 21, 22)
    ]
    (delta.parent / "dump" / "ratings.dat").write_text(
        "".join(f"{line}\n" for line in ratings), encoding="utf-8"
    )
    grown = run_append(delta, two.parent / "w", base=made["suffix"].ref).release
    page = page_of(grown.folder)
    read, found = Read(page), grown.metrics["collisions"]["drift"]
    assert f"Changes since {made['suffix'].ref}" in read.text
    assert "No SID moved of the 14 items in both." in read.text
    assert read.row("items")[1:5] == ["14", "17", "14", "3"]
    psi, chance = figures_of(page)["psi"]["data"]
    assert psi["y"] == pytest.approx([one["psi"] for one in found["levels"]], rel=1e-5)
    assert chance["y"] == pytest.approx([one["psi_by_chance"] for one in found["levels"]], rel=1e-5)
    limit = figures_of(page)["psi"]["layout"]["shapes"][0]
    assert limit["y0"] == found["limits"]["max_psi"] == 0.25
    assert read.row("new items")[1] == "3"
    assert len(found["retrain"]) == 2
    assert all(f"{why[1:]}." in read.text for why in found["retrain"])
    side = Side.of(grown)
    points = {one.what: one.state for one in _points(side, compare(made["suffix"], grown))}
    assert points["IDs kept"] == points["Test set"] == "good"
    assert points["Drift"] == ("look" if found["retrain"] else "good")


# The verdict


def _points(side: Side, changes: Any = None) -> list[verdict.Point]:
    with opened(side) as tables:
        return list(verdict.points_of(tables, changes))


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("Gates", ("record", "gates", 0, "verdict", "warning")),
        ("Unique IDs", ("metrics", "collisions", "after", "collided_items", 3)),
        ("Collisions before", ("metrics", "collisions", "before", "collided_items", 200)),
        ("Codes", ("metrics", "tokenizer", "levels", 0, "dead", 20)),
        ("Codes", ("metrics", "tokenizer", "levels", 2, "perplexity_share", 0.2)),
        ("Like items, like IDs", ("metrics", "collisions", "neighbour_overlap_at_10", 0.02)),
        ("Reconstruction", ("metrics", "tokenizer", "fit_items", 1200)),
        ("Leaks", ("metrics", "audit", 0, "verdict", "breach")),
        ("Raw data", ("metrics", "rejects", 600)),
    ],
)
def test_each_point_is_seen_alone(example: Run, what: str, change: tuple[Any, ...]) -> None:
    side = Side.of(example.release)
    assert {one.state for one in _points(side)} == {"good", "told"}
    of, *path, last, value = change
    known = json.loads(json.dumps(getattr(side, of)))
    place = known
    for key in path:
        place = place[key]
    place[last] = value
    points = _points(replace(side, **{of: known}))
    assert [one.what for one in points if one.state == "look"] == [what]
    assert verdict.judged(points)[0] == "look"


def test_harm_to_a_trained_model_is_bad(example: Run) -> None:
    side = Side.of(example.release)
    changes = compare(example.release, example.release, events=False)
    changes["token_ids_moved"] = 5
    points = _points(side, changes)
    assert [one.what for one in points if one.state == "bad"] == ["Token ids"]
    assert verdict.judged(points)[0] == "bad"


# Large releases


def test_what_is_read_of_vectors_is_bounded(example: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "READ", 384 * 500)
    monkeypatch.setattr(vectors, "BLOCK", 100)
    monkeypatch.setattr(vectors, "SAMPLE", 50)
    with opened(Side.of(example.release)) as tables:
        looked = vectors.look(tables, [1300])
        assert looked is not None
        assert looked.read == 448  # of one row group, the first third
        assert 25 <= len(looked.sample) <= 50
        assert len(looked.near[1300]) == vectors.NEAR
        assert max(item for item, _ in looked.near[1300]) < 448
        page = item_map.items_map(tables, looked)
    assert f"{len(looked.sample)} items of 1,342, evenly from the first of each row group" in page


def test_equal_vectors_have_no_directions() -> None:
    rng = np.random.default_rng(0)
    for X in (
        np.ones((10, 100)),
        np.full((9, 100), 0.1),
        np.zeros((5, 300)),
        np.ones((1, 80)),
        np.ones((4, 3)),
    ):
        found, shares = vectors.principal(X.astype(np.float32))
        assert (found.shape, found.any(), shares) == ((len(X), 2), False, [0.0, 0.0])
    two = np.repeat(rng.normal(size=(2, 100)), 5, axis=0).astype(np.float32)
    found, shares = vectors.principal(two)
    assert shares == pytest.approx([1, 0])
    assert abs(found[0, 0] - found[5, 0]) == pytest.approx(np.linalg.norm(two[0] - two[5]))


def test_an_item_without_a_vector_has_no_neighbours_by_cosine(example: Run, tmp_path: Path) -> None:
    from sid_flows.report import neighbours

    side = Side.of(example.release)
    name = example.release.metrics["tokenizer"]["vectors"]
    shutil.copytree(side.tables[name] / name, tmp_path / name)
    [part] = (tmp_path / name).glob("*.parquet")
    table = pq.read_table(part)
    has = table["present"].to_pylist()
    X = np.stack(table["vector"].to_numpy())
    has[7], X[9] = False, 0
    drawn = pa.FixedSizeListArray.from_arrays(
        pa.array(X.ravel(), table.schema.field("vector").type.value_type), 384
    )
    for column, values in (("present", pa.array(has)), ("vector", drawn)):
        place = table.column_names.index(column)
        table = table.set_column(place, table.schema.field(column), values)
    pq.write_table(table, part)
    with opened(replace(side, tables={**side.tables, name: tmp_path})) as tables:
        looked = vectors.look(tables, [9, 8, 7])
        assert looked is not None
        assert list(looked.near) == [8]
        assert 7 not in [item for item, _ in looked.near[8]]
        examples = [neighbours.Example(item, "popular", 1) for item in (7, 8, 9)]
        page = neighbours.neighbours(tables, examples, looked)
        assert page.count(neighbours.VECTORLESS) == 2
        assert neighbours.NONE in neighbours.neighbours(tables, [], looked)


def test_names_of_embeddings_are_escaped(example: Run) -> None:
    limits = {"max_psi": 0.25, "max_error_ratio": None, "max_pressure": None, "max_cold_users": None}
    level = {"level": 1, "psi": 0.1, "psi_by_chance": 0.1, "kl": 0.1, "unused_before": 0}
    drifted = {"retrain": [], "items": 3, "levels": [level], "limits": limits}
    with opened(Side.of(example.release)) as tables:
        sids = {EVIL: {"collisions": {"drift": drifted}}}
        told = SimpleNamespace(metrics={**tables.metrics, "sids": sids})
        page = drift.drift(told)  # type: ignore[arg-type]
    assert page is not None
    assert "<script>alert" not in page
    assert [one for one in Read(page).tags if one in ("h3", "a", "script")] == ["h3", "script"]


def test_without_vectors_the_page_says_so(example: Run) -> None:
    side = Side.of(example.release)
    tables = {name: folder for name, folder in side.tables.items() if not name.startswith("embeddings_")}
    page = render(replace(side, tables=tables))
    assert "The release has no vectors that were tokenized" in page
    assert "map" not in figures_of(page)
    assert "by cosine" not in [cell for row in Read(page).rows for cell in row]


def test_what_needs_too_much_memory_is_left_out_and_the_rest_stands(
    example: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def starved(*given: Any) -> Any:
        raise duckdb.OutOfMemoryException("failed to allocate")

    monkeypatch.setattr(tree, "descended", starved)
    monkeypatch.setattr(page_module, "chosen", starved)
    page = render(Side.of(example.release))
    assert set(figures_of(page)) == {"ledger", "usage-1", "usage-2", "usage-3", "groups", "map", "timeline"}
    assert page.count("Left out: it needs more memory than a report may have.") == 1
    assert "<article" not in page
    assert "No examples: no item could be chosen" in page


def _sids(run: Run) -> list[list[int]]:
    sids: list[list[int]] = run.release.table("sids")["sid"].to_pylist()
    return sids


def _prefix(a: list[int], b: list[int]) -> int:
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), len(a))
