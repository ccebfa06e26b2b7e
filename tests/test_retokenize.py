"""New labels for old codebooks: the contract of relabelling, the matching, and whole retokenized releases."""

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricated import CODERS, fit
from helpers import Run, inside
from hypothesis import given
from hypothesis import strategies as st
from test_tokenizers import grid, make

from sid_flows.execute import execute, finish
from sid_flows.plan import Plan
from sid_flows.report.changes import churn as churn_section
from sid_flows.report.changes import verdicts
from sid_flows.retokenize import plan_retokenize
from sid_schemas import DataError, RecipeError
from sid_tokenizers import RQKMeans, Tokenizer, load
from sid_tokenizers.base import Codes, Vectors
from sid_tokenizers.codebooks import renamed
from sid_tokenizers.relabel import best, matching
from sid_warehouse import files
from sid_warehouse.arrays import matrix
from sid_warehouse.diff import compare
from sid_warehouse.reader import Release
from sid_warehouse.stages import StageOutput

NO_LABELS = {"fsq": 0, "rq-kmeans+fsq": 2}  # levels that can be relabelled, where that is not all


@pytest.fixture(params=sorted(CODERS))
def scheme(request: pytest.FixtureRequest) -> type[Tokenizer]:
    return CODERS[request.param]


def labels_of(tokenizer: Tokenizer, seed: int = 0) -> list[Any]:
    draw = np.random.default_rng(seed)
    return [draw.permutation(tokenizer.levels[level]) for level in range(tokenizer.free_levels)]


# Three distinct rows for more codes: some codes are twins, which only the order of learning tells apart.
TWINS = np.repeat(np.eye(6, dtype=np.float32)[:3], 4, axis=0)


@pytest.mark.parametrize("X", [grid()[0], TWINS], ids=["structure", "twins"])
def test_relabelling_changes_labels_and_nothing_else(
    scheme: type[Tokenizer], X: Vectors, tmp_path: Path
) -> None:
    tokenizer = fit(make(scheme, [5, 4]), X)
    assert tokenizer.free_levels == NO_LABELS.get(scheme.name, len(tokenizer.levels))
    labels = labels_of(tokenizer)
    other = tokenizer.relabelled(labels)
    codes = tokenizer.encode(X)
    expected = renamed(codes, labels)
    assert np.array_equal(other.encode(X), expected)
    assert np.array_equal(other.decode(expected), tokenizer.decode(codes))
    for level, k in enumerate(tokenizer.levels):
        own = labels[level] if level < len(labels) else np.arange(k)
        before = tokenizer.distances(X, codes[:, :level])
        assert np.allclose(other.distances(X, expected[:, :level])[:, own], before, atol=1e-4)
    if scheme.traits.soft:
        soft, share = tokenizer.encode_soft(X, 3)
        new, new_share = other.encode_soft(X, 3)
        assert np.array_equal(new[:, :, 0], expected)
        assert np.allclose(new_share, share, atol=1e-4)
        if X is not TWINS:  # equal distances have no order
            assert (new == np.stack([labels[n][soft[:, n]] for n in range(len(labels))], axis=1)).all()
    assert np.array_equal(tokenizer.encode(X), codes)  # the original is as it was
    other.save(tmp_path / "once")
    load(tmp_path / "once").save(tmp_path / "twice")
    for name in ("tokenizer.json", "tokenizer.safetensors"):
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "twice" / name).read_bytes()
    assert np.array_equal(load(tmp_path / "twice").encode(X), expected)
    back = load(tmp_path / "once").relabelled([np.argsort(one) for one in labels])
    assert np.array_equal(back.encode(X), codes)
    assert np.array_equal(fit(other, X).encode(X), codes)  # a fit forgets labels


def test_books_of_a_relabelled_tokenizer_lie_by_label(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    X, _ = grid()
    tokenizer = RQKMeans(levels=[4, 3]).fit(X)
    labels = labels_of(tokenizer)
    tokenizer.relabelled(labels).save(tmp_path)
    arrays = load_file(tmp_path / "tokenizer.safetensors")
    for level, own in enumerate(labels):
        assert np.array_equal(arrays[f"codebook_{level}"][own], tokenizer.codebooks_[level])


def test_labels_that_are_none_are_refused(scheme: type[Tokenizer]) -> None:
    tokenizer = fit(make(scheme, [5, 4]), grid()[0])
    if scheme.name in NO_LABELS:
        more = [np.arange(k) for k in tokenizer.levels]
        with pytest.raises(DataError, match="codes of a grid are places and keep their numbers"):
            tokenizer.relabelled(more)
    else:
        for wrong in (
            [0, 1, 2, 3, 3],
            [0, 1, 2, 3],
            [0.0, 1.0, 2.0, 3.0, 4.0],
            [[0, 1], [2, 3]],
            [1, 2, 3, 4, 5],
        ):
            with pytest.raises(DataError, match="labels of level 1: expected 0 to 4 in any order"):
                tokenizer.relabelled([wrong])
    with pytest.raises(DataError, match="not fitted"):
        make(scheme, [5, 4]).relabelled([])


@given(st.integers(1, 5).flatmap(lambda k: st.lists(st.lists(st.integers(0, 4), min_size=k, max_size=k),
                                                   min_size=k, max_size=k)))  # fmt: skip
def test_the_best_labels_are_as_good_as_any(counts: list[list[int]]) -> None:
    table, k = np.array(counts, dtype=np.float64), len(counts)
    found = best(table)
    assert sorted(found.tolist()) == list(range(k))
    worth = {
        p: (table[range(k), p].sum(), sum(np.array(p) == range(k))) for p in itertools.permutations(range(k))
    }
    assert worth[tuple(found.tolist())] == max(worth.values())  # and of the best it leaves most labels alone


def codes_like(draw: np.random.Generator, n: int, k: int, levels: int = 3) -> Codes:
    return draw.integers(0, k, size=(n, levels)).astype(np.int32)


@pytest.mark.parametrize("ordered", [True, False])
def test_a_renaming_is_undone(ordered: bool) -> None:
    draw = np.random.default_rng(0)
    old = codes_like(draw, 500, 7)
    names = [draw.permutation(7) for _ in range(3)]
    labels = matching(renamed(old, names), old, [7, 7, 7], ordered=ordered)
    assert np.array_equal(renamed(renamed(old, names), labels), old)
    again = matching(old, old, [7, 7, 9])  # codes 7 and 8 stand for nothing
    assert [one.tolist() for one in again] == [list(range(7)), list(range(7)), list(range(9))]


def slow_matching(new: Codes, old: Codes, k: int, *, ordered: bool) -> int:
    """Give how many items keep their code of the last level, whatever labels it gets."""
    agree = (new[:, :-1] == old[:, :-1]).all(axis=1) if ordered else np.ones(len(new), dtype=bool)
    last = [np.array(p)[new[:, -1]] == old[:, -1] for p in itertools.permutations(range(k))]
    return max(int((one & agree).sum()) for one in last)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_the_second_level_follows_the_first(ordered: bool, seed: int) -> None:
    draw = np.random.default_rng(seed)
    old, new = codes_like(draw, 60, 4, 2), codes_like(draw, 60, 4, 2)
    labels = matching(new, old, [4, 4], ordered=ordered)
    matched = renamed(new, labels)
    assert int((matched[:, 0] == old[:, 0]).sum()) == slow_matching(new[:, :1], old[:, :1], 4, ordered=False)
    first = np.column_stack([matched[:, 0], new[:, 1]])
    agree = (matched[:, 0] == old[:, 0]) | (not ordered)
    kept = int(((matched[:, 1] == old[:, 1]) & agree).sum())
    assert kept == slow_matching(first, old, 4, ordered=ordered)
    mixed = draw.permutation(60)
    again = matching(new[mixed], old[mixed], [4, 4], ordered=ordered)
    assert all(np.array_equal(one, other) for one, other in zip(labels, again, strict=True))


def test_levels_of_other_sizes_and_other_lengths() -> None:
    old = np.array([[0, 1], [0, 1], [5, 2], [1, 0]])
    [smaller] = matching([[0], [0], [1], [2]], old, [3])  # label 5 is not to be had
    assert smaller.tolist() == [0, 2, 1]  # codes 0 and 2 have theirs; what is left goes to code 1
    larger, second = matching([[7, 0, 0], [7, 0, 0], [0, 1, 0], [3, 2, 0]], old, [8, 3, 4])
    assert (larger[7], larger[0], larger[3]) == (0, 5, 1)
    assert sorted(larger.tolist()) == list(range(8))
    assert second.tolist() == [1, 2, 0]
    with pytest.raises(DataError, match="codes of the same items, got 1 and 2 rows"):
        matching([[0]], [[0], [1]], [2])
    with pytest.raises(DataError, match=r"new: expected codes \(n, levels\), got float64"):
        matching([[0.5]], [[0]], [2])


CHURNS = ("matched", "unmatched")
Both = dict[str, tuple[dict[str, StageOutput], Release]]


@pytest.fixture(scope="module")
def place(small: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe and a warehouse that holds release small@v1, for this file to add to."""
    folder = tmp_path_factory.mktemp("retokenize")
    shutil.copytree(small.plan.warehouse, folder / "warehouse")
    (folder / "recipe.toml").write_text('dataset = "small"\n[tokenize]\nseed = 1\n')
    return folder


def planned(place: Path, ref: str, *overrides: str, match: bool = True) -> Plan:
    return plan_retokenize(ref, place / "recipe.toml", place / "warehouse", overrides, match=match)


def retokenized(plan: Plan) -> tuple[dict[str, StageOutput], Release]:
    outputs: dict[str, StageOutput] = {}
    for one in plan.stages:
        outputs[one.label] = execute(plan, one, outputs)
    record = finish(plan, outputs)
    return outputs, Release(plan.warehouse / "releases" / "small" / f"v{record['version']}")


@pytest.fixture(scope="module")
def both(place: Path) -> Both:
    """What retokenize makes of small@v1 with another seed, labels matched and not."""
    return {name: retokenized(planned(place, "small@v1", match=name == "matched")) for name in CHURNS}


def test_only_codes_and_what_follows_from_them_is_made(small: Run, both: Both) -> None:
    outputs, release = both["matched"]
    assert list(outputs) == ["fit", "tokenize", "collisions", "churn", "gates"]
    assert list(both["unmatched"][0]) == ["tokenize", "collisions", "churn", "gates"]
    assert (release.record["kind"], release.record["base"]) == (
        "retokenize",
        {"version": 1, "fingerprint": small.release.record["fingerprint"]},
    )
    made = ("sids/", "sid_to_items/", "tokenizer/", "collisions/", "trie", "vocabulary")
    told = ("gates.json", "metrics.json", "report.html", "release.md")
    before, after = small.release.record["files"], release.record["files"]
    assert before.keys() == after.keys()
    for name, entry in before.items():
        if not name.startswith(made) and name not in told:
            assert after[name]["sha256"] == entry["sha256"], name
    assert set(release.record["stages"]) == {*small.release.record["stages"], "fit", "churn"}
    assert release.record["recipe"]["tokenize"]["seed"] == 1
    assert release.record["recipe"]["source"] == small.release.record["recipe"]["source"]
    assert release.metrics["audit"] == small.release.metrics["audit"]


def test_the_matched_codes_are_the_fitted_ones_renamed(both: Both, small: Run) -> None:
    outputs, release = both["matched"]
    fitted, matched = (matrix(outputs[label].read("codes")["codes"]) for label in ("fit", "tokenize"))
    for level in range(fitted.shape[1]):
        pairs = set(zip(fitted[:, level].tolist(), matched[:, level].tolist(), strict=True))
        assert len(pairs) == len(set(fitted[:, level])) == len(set(matched[:, level]))
    vectors = np.stack(release.table("embeddings_text")["vector"].to_numpy())
    assert np.array_equal(release.tokenizer().encode(vectors), matched)
    assert np.array_equal(matrix(release.table("sids")["codes"]), matched)
    assert np.array_equal(matrix(both["unmatched"][1].table("sids")["codes"]), fitted)
    old = matrix(small.release.table("sids")["codes"])
    assert (matched == old).sum() > (fitted == old).sum()
    occupancy = files.read_json(release.folder / "tokenizer" / "fit.json")["occupancy"]
    seen = outputs["fit"].read("codes")["fitted"].to_numpy()
    for level, counts in enumerate(occupancy):
        assert counts == np.bincount(matched[seen, level], minlength=4).tolist()


def test_churn_is_what_a_diff_counts(small: Run, both: Both) -> None:
    """Each release's churn is its own, and what it says of the other labels is the other release's."""
    for name, (outputs, release) in both.items():
        facts = outputs["churn"].facts
        assert facts["published"] == name
        assert ("--no-match" in facts["says"]) == (name == "unmatched")
        found = compare(small.release, release)
        assert found["notes"] == []
        assert facts[name] == {key: one for key, one in found["sids"].items() if key != "examples"}
        assert found["test_frozen"]
        assert {one["name"] for one in found["recipe"]} == {"tokenize.seed"}
    matched, unmatched = (both[name][0]["churn"].facts for name in CHURNS)
    for name in CHURNS:
        assert matched[name] == unmatched[name]
    assert matched["matched"]["levels"][0]["changed"] < matched["unmatched"]["levels"][0]["changed"]
    page = "".join(churn_section(matched))
    assert "Levels labelled to match small@v1: 2 of 2." in page
    assert f"{matched['unmatched']['share']:.1%}" in page


def test_the_same_again_is_nothing_to_do(place: Path, both: Both) -> None:
    for name, (_, release) in both.items():
        again = planned(place, "small@v1", match=name == "matched")
        assert again.complete
        assert again.published == release.record
        # Also where the release itself is named, as without a version the latest is.
        assert planned(place, release.ref, match=name == "matched").published == release.record
    built = planned(place, "small@v1", "tokenize.seed=0")
    assert built.published is not None
    assert built.published["version"] == 1
    assert planned(place, "small@v1", "tokenize.seed=0", "collisions.policy=suffix").published is None
    other = planned(place, both["matched"][1].ref, "tokenize.seed=5")
    assert other.published is None
    assert other.base is not None
    assert other.base.manifest["summary"] == both["matched"][1].ref


def test_the_same_bytes_anywhere(small: Run, place: Path, both: Both, tmp_path: Path) -> None:
    shutil.copytree(small.plan.warehouse / "releases", tmp_path / "warehouse" / "releases")
    shutil.copy(place / "recipe.toml", tmp_path)
    plan, (outputs, release) = planned(tmp_path, "small"), both["matched"]
    assert plan.fingerprint == release.record["fingerprint"]
    for label, again in until_churn(plan).items():
        assert again.manifest["files"] == outputs[label].manifest["files"], label
        assert again.facts == outputs[label].facts, label


def until_churn(plan: Plan) -> dict[str, StageOutput]:
    outputs: dict[str, StageOutput] = {}
    for one in plan.stages:
        if one.label != "gates":
            outputs[one.label] = execute(plan, one, outputs)
    return outputs


def test_what_has_no_labels_says_so(place: Path) -> None:
    overrides = ["tokenizer=rq-kmeans+fsq", "kmeans_levels=[4]", "fsq_levels=[3, 2]"]
    outputs = until_churn(planned(place, "small@v1", *(f"tokenize.{one}" for one in overrides)))
    assert outputs["churn"].facts["says"] == (
        "levels labelled to match small@v1: 1 of 2 "
        "(rq-kmeans+fsq has a grid, whose codes are places and have no labels to give)"
    )
    fitted, matched = (matrix(outputs[label].read("codes")["codes"]) for label in ("fit", "tokenize"))
    assert np.array_equal(fitted[:, 1], matched[:, 1])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("clean.k_core=3", r"clean.k_core.user = 3 differs from 2, by which small@v1 was made"),
        ("split.seed=4", r"split.seed = 4 differs from 0, .*A retokenize changes \[tokenize\]"),
        ("embed=[{template='{title}'}]", r"embed.text.template = '{title}' differs from"),
        ("source={kind='movielens', path='dump'}", r"source.kind = 'movielens' differs"),
        ("tokenize.vectors=image", r"tokenize.vectors = 'image': there are: text"),
    ],
)
def test_what_would_change_more_is_refused(place: Path, override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        planned(place, "small@v1", override)


def test_where_the_dump_lies_is_of_no_matter(place: Path, both: Both) -> None:
    elsewhere = "source={kind='movietweetings', path='elsewhere'}"
    assert planned(place, "small@v1", elsewhere).published == both["matched"][1].record


def test_the_diff_command(place: Path, small: Run, both: Both) -> None:
    release = both["unmatched"][1]
    found = compare(small.release, release, shown=None)
    arguments = ("diff", "small@v1", release.ref, "-w", str(place / "warehouse"))
    done = inside(*arguments, "--json", "--all", "--exit-code", check=False)
    assert json.loads(done.stdout) == json.loads(json.dumps(found))
    moved = found["sids"]["moved"]
    assert moved == len(found["sids"]["examples"]) > 0
    assert done.returncode == 1
    kept = found["sids"]["kept"]
    assert f"{moved} of {kept} items in both moved to another SID." in list(verdicts(found))
    told = inside("diff", "small@v1", both["matched"][1].ref, "--exit-code", *arguments[3:])
    assert "tokenize.seed" in told.stdout
    assert f"No SID moved of the {kept} items in both." in told.stdout  # on so few items, all can be matched
