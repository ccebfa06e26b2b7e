"""The command line: every command helps, speaks JSON, and says what is wrong in one line."""

import ctypes
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import EXAMPLE, QUERY, ROOT, Run, environment, run_chain, sidmill, small_dump, write_dump

from sid_pipelines.collaborative import MODELS
from sid_pipelines.fusion import FUSIONS
from sid_tokenizers import POLICIES, TOKENIZERS

COMMANDS = [
    "run", "plan", "append", "retokenize", "releases", "show", "diff", "sql", "verify", "tag", "tags",
    "rollback", "gc", "catalog", "export",
    "sources", "fetch", "protocols", "tokenizers", "policies", "pieces", "embeddings",
    "formats",
]  # fmt: skip


def fails(*arguments: str, code: int) -> str:
    done = sidmill(*arguments, check=False)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("sidmill: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    return done.stderr


@pytest.fixture(scope="module")
def warehouse(example: Run) -> str:
    return str(example.plan.warehouse)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    done = sidmill(command, "--help")
    assert "Usage:" in done.stdout
    assert "--json" in done.stdout


def test_no_command_lists_them_all() -> None:
    done = sidmill("--help")
    assert all(f" {command} " in done.stdout for command in COMMANDS)
    assert sidmill("--version").stdout.startswith("sidmill 0.")


def test_a_run_with_nothing_to_do_says_so_without_prefect(warehouse: str) -> None:
    code = (
        "import sys; from sidmill.cli import main; sys.argv[1:] = sys.argv[1:]\n"
        "try: main()\nfinally: print('prefect' in sys.modules, 'torch' in sys.modules)"
    )
    arguments = ["run", str(EXAMPLE), "--warehouse", warehouse]
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True)
    lines = done.stdout.splitlines()
    assert lines == ["nothing to do: all 10 stages are done, published as movietweetings@v1", "False False"]
    told = json.loads(sidmill(*arguments, "--json").stdout)
    assert (told["status"], told["dataset"], told["version"]) == ("unchanged", "movietweetings", 1)
    until = json.loads(sidmill(*arguments, "--until", "clean", "--json").stdout)
    assert until == {"status": "unchanged", "stage": "clean"}


def test_a_lost_catalog_is_rebuilt_by_a_run_with_nothing_to_do(example: Run, tmp_path: Path) -> None:
    shutil.copytree(example.plan.warehouse, tmp_path / "w")
    (tmp_path / "w/catalog.duckdb").unlink()
    sidmill("run", str(EXAMPLE), "--warehouse", str(tmp_path / "w"))
    assert sidmill("sql", QUERY, "--warehouse", str(tmp_path / "w")).stdout.count("<a_") == 5


def test_plan_says_what_would_run_and_why(warehouse: str) -> None:
    rows = json.loads(
        sidmill("plan", str(EXAMPLE), "--warehouse", warehouse, "--json", "--set", "tokenize.seed=2").stdout
    )
    status = {row["stage"]: row["status"] for row in rows}
    assert [stage for stage in status if status[stage] == "run"] == [
        "tokenize",
        "collisions",
        "gates",
        "publish",
    ]
    why = {row["stage"]: row["why"] for row in rows}
    assert why["tokenize"] == "changed: params.seed"
    assert why["collisions"] == "tokenize will run"
    table = sidmill("plan", str(EXAMPLE), "--warehouse", warehouse).stdout
    assert all(line.startswith(row["stage"]) for line, row in zip(table.splitlines()[1:], rows, strict=True))


@pytest.mark.parametrize(
    ("override", "first"),
    [
        ("clean.k_core=4", "clean"),
        ("clean.max_reject_rate=0.5", None),
        ("engine.memory=1GiB", None),
        ("split.seed=1", "split"),
        ("embed.template={title}", "text"),
        ('pairs.kinds=["swing"]', "pairs"),
        ("embed.dims=128", "embed text"),
        ("embed.text.normalize=false", "embed text"),
        ("tokenize.levels=[32, 32, 32]", "tokenize"),
        ("collisions.policy=none", "collisions"),
        ("gates.max_collision_rate=0.5", "gates"),
    ],
)
def test_a_key_re_runs_from_its_stage_on(warehouse: str, override: str, first: str | None) -> None:
    rows = json.loads(
        sidmill("plan", str(EXAMPLE), "--warehouse", warehouse, "--json", "--set", override).stdout
    )
    assert next((row["stage"] for row in rows if row["status"] == "run"), None) == first


def test_tokenizers_and_policies_are_listed() -> None:
    listed = {row["tokenizer"]: row for row in json.loads(sidmill("tokenizers", "--json").stdout)}
    assert set(listed) == set(TOKENIZERS)
    assert listed["pq"]["ordered"] is False
    assert "torch" in listed["rq-vae"]["needs"]
    assert listed["rq-kmeans"]["parameters"]["levels"] == [256, 256, 256]
    table = sidmill("tokenizers").stdout
    assert all(name in table for name in TOKENIZERS)
    assert "TIGER" in table
    chosen = {row["policy"]: row for row in json.loads(sidmill("policies", "--json").stdout)}
    assert set(chosen) == set(POLICIES)
    assert chosen["suffix-on-collision"]["length"] == "L or L+1"
    assert chosen["capacity"]["unique"] is False
    assert "next-nearest" in sidmill("policies").stdout


def test_what_makes_vectors_is_listed() -> None:
    listed = {row["model"]: row for row in json.loads(sidmill("embeddings", "--json").stdout)}
    assert {*MODELS, *FUSIONS, "hashing", "tfidf-svd", "FILE.onnx"} <= set(listed)
    assert listed["sasrec"]["needs"] == "collaborative"
    assert listed["als"]["options"]["dim"] == 64
    assert "LightGCN" in sidmill("embeddings").stdout


def test_splits_do_not_re_embed(warehouse: str) -> None:
    rows = json.loads(
        sidmill("plan", str(EXAMPLE), "--warehouse", warehouse, "--json", "--set", "split.seed=1").stdout
    )
    assert {row["stage"]: row["status"] for row in rows}["embed text"] == "done"


def test_sql_prints_a_table_or_json(warehouse: str) -> None:
    printed = sidmill("sql", QUERY, "--warehouse", warehouse).stdout.splitlines()
    assert printed[0].split() == ["text", "title"]
    assert len(printed) == 6
    rows = json.loads(sidmill("sql", QUERY, "--warehouse", warehouse, "--json").stdout)
    assert [set(row) for row in rows] == [{"text", "title"}] * 5
    assert "nope" in fails("sql", "from nope", "--warehouse", warehouse, code=1)
    assert "read-only" in fails("sql", "drop schema movietweetings cascade", "--warehouse", warehouse, code=1)


def test_sql_json_loses_no_column(warehouse: str) -> None:
    query = "select 1 as a, 2 as a, 'nan'::double as b"
    assert json.loads(sidmill("sql", query, "--warehouse", warehouse, "--json").stdout) == [
        {"a": 1, "a_1": 2, "b": None}
    ]


def test_a_catalog_that_is_none_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "catalog.duckdb").write_text("not a database")
    assert "sql: " in fails("sql", "select 1", "--warehouse", str(tmp_path), code=1)


def test_a_stricter_limit_is_not_passed_over(tmp_path: Path) -> None:
    recipe = small_dump(tmp_path)
    with (tmp_path / "dump" / "ratings.dat").open("a") as file:
        file.write("bad\n")
    run_chain(recipe, tmp_path / "w", "clean.max_reject_rate=0.5")
    arguments = ("run", str(recipe), "--warehouse", str(tmp_path / "w"), "--set")
    assert "nothing to do" in sidmill(*arguments, "clean.max_reject_rate=0.5").stdout
    assert "1 of 61 rows rejected" in fails(*arguments, "clean.max_reject_rate=0.0", code=1)


def test_cleaning_needs_no_encoder(tmp_path: Path) -> None:
    recipe = small_dump(tmp_path)
    nowhere = ("embed.model=nobody/nothing",)
    assert run_chain(recipe, tmp_path / "w", *nowhere, until="clean").outputs["clean"]


def test_show_and_releases(warehouse: str) -> None:
    shown = sidmill("show", "movietweetings", "--warehouse", warehouse).stdout
    for words in ("movietweetings@v1", "k_core", "27329", "next-nearest", "gate checks hold"):
        assert words in shown
    told = json.loads(sidmill("show", "movietweetings@v1", "--warehouse", warehouse, "--json").stdout)
    assert told["metrics"]["collisions"]["after"]["max_group"] == 1
    [row] = json.loads(sidmill("releases", "--warehouse", warehouse, "--json").stdout)
    assert (row["ref"], row["items"], row["collisions"]) == ("movietweetings@v1", 1342, 0)
    assert "movietweetings@v1" in sidmill("releases", "--warehouse", warehouse).stdout


def test_verify(warehouse: str, tmp_path: Path) -> None:
    assert "is intact" in sidmill("verify", "movietweetings", "--warehouse", warehouse).stdout
    spoilt = tmp_path / "w"
    shutil.copytree(Path(warehouse) / "releases", spoilt / "releases")
    part = spoilt / "releases/movietweetings/v1/sids/part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-1] + b"!")
    message = fails("verify", "movietweetings", "--warehouse", str(spoilt), code=1)
    assert f"{part}: expected SHA-256" in message
    done = sidmill("verify", "movietweetings", "--warehouse", str(spoilt), "--json", check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)["findings"][0]["file"] == "sids/part-00000.parquet"


def test_wrong_usage(tmp_path: Path, warehouse: str) -> None:
    assert "cannot be read" in fails("run", str(tmp_path / "none.toml"), code=2)
    assert "--set 'x'" in fails("run", str(EXAMPLE), "--set", "x", code=2)
    assert "no stage is called 'cleen'; there are: ingest, clean" in fails(
        "run", str(EXAMPLE), "--until", "cleen", code=2
    )
    assert "nearest known one is 'clean.k_core'" in fails(
        "plan", str(EXAMPLE), "--set", "clean.kcore=3", code=2
    )
    assert "holds no release movietweetings@v9" in fails(
        "show", "movietweetings@v9", "--warehouse", warehouse, code=2
    )
    assert "expected DATASET, DATASET@vN or DATASET@TAG" in fails(
        "show", "movietweetings@X", "--warehouse", warehouse, code=2
    )
    assert sidmill("fly", check=False).returncode == 2


def test_a_warehouse_that_is_not_there(tmp_path: Path) -> None:
    for arguments in (["releases"], ["show", "x"], ["verify", "x"], ["sql", "select 1"]):
        message = fails(*arguments, "--warehouse", str(tmp_path / "none"), code=1)
        assert "no warehouse there" in message or "no catalog there" in message


def test_a_missing_dump_is_one_line(tmp_path: Path) -> None:
    recipe = write_dump(tmp_path, [], [])
    shutil.rmtree(tmp_path / "dump")
    message = fails("run", str(recipe), "--warehouse", str(tmp_path / "w"), code=1)
    assert "path = 'dump': expected a file, or a folder with the dump, found none at" in message


def give_up_root() -> None:
    """Make permission bits hold for root too: drop CAP_DAC_OVERRIDE before the command starts."""
    if os.geteuid() == 0:
        pr_capbset_drop, cap_dac_override = 24, 1
        assert ctypes.CDLL(None).prctl(pr_capbset_drop, cap_dac_override, 0, 0, 0) == 0


def test_a_read_only_warehouse_is_one_line(tmp_path: Path) -> None:
    recipe = write_dump(tmp_path, ["1::0000001::7::1000"], ["0000001::One (1901)::Drama"])
    (tmp_path / "locked").mkdir(mode=0o555)
    (tmp_path / "file").write_text("not a folder")
    for place, reason in (
        ("locked", "Permission denied"),
        ("locked/below", "Permission denied"),
        ("file", ""),
    ):
        command = [sys.executable, "-m", "sidmill", "run", str(recipe), "--warehouse", str(tmp_path / place)]
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment(), check=False, preexec_fn=give_up_root
        )
        assert done.returncode == 1, done.stderr
        assert done.stderr.startswith(f"sidmill: {tmp_path / place}: cannot be written ({reason}")
        assert "--warehouse" in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("package", "message"),
    [
        (
            "prefect",
            "Running a recipe (prefect) needs an optional package. Run: pip install 'sidmill[flows]'",
        ),
        (
            "sentence_transformers",
            "Stage 'embed_text' (sentence_transformers) needs an optional package. Run: pip",
        ),
        ("great_expectations", "Stage 'gates' (great_expectations) needs an optional package. Run: pip"),
    ],
)
def test_a_missing_extra_names_the_pip_line(tmp_path: Path, package: str, message: str) -> None:
    recipe = write_dump(tmp_path, ["1::0000001::7::1000"], ["0000001::One (1901)::Drama"])
    code = (
        "import importlib.util, sys; package = sys.argv.pop(1); sys.modules[package] = None; "
        "find = importlib.util.find_spec; "
        "importlib.util.find_spec = lambda name: None if name == package else find(name); "
        "from sidmill.cli import main; main()"
    )
    command = [sys.executable, "-c", code, package, "run", str(recipe), "--warehouse", str(tmp_path / "w")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"sidmill: {message}")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "w" / "stages").exists()


def test_the_readme_tells_the_truth(example: Run, warehouse: str) -> None:
    readme = (ROOT / "README.md").read_text()
    printed = sidmill("sql", QUERY, "--warehouse", warehouse).stdout
    for line in printed.splitlines():
        assert line.strip() in readme, f"README.md lacks {line!r}"
    block = readme.split("```python\n")[1].split("```")[0]
    code = block.replace('"warehouse/data"', repr(warehouse))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shown = [line.removeprefix("# ") for line in block.splitlines() if line.startswith("# ")]
    assert [line.rstrip() for line in done.stdout.splitlines()] == shown
    for command in COMMANDS:
        assert f"sidmill {command}" in readme
    assert "MEASURED" not in readme
    assert "NEIGHBOURS" not in readme
