"""The command line: every command helps, speaks JSON, and says what is wrong in one line."""

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from helpers import (
    EXAMPLE,
    QUERY,
    ROOT,
    Run,
    environment,
    hear_the_signal,
    inside,
    more_dump,
    quickly,
    run_append,
    run_chain,
    sidmill,
    small_dump,
    write_dump,
)

from sid_pipelines.collaborative import MODELS
from sid_pipelines.fusion import FUSIONS
from sid_tokenizers import POLICIES, TOKENIZERS
from sid_warehouse import files, tagging
from sid_warehouse.names import Ref
from sidmill.app import app
from sidmill.cli import main
from sidmill.completing import BEFORE
from sidmill.grouping import GUESSED, PANELS, Commands

COMMANDS = [name for names in PANELS.values() for name in names]


def fails(*arguments: str, code: int) -> str:
    done = inside(*arguments, check=False)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("sidmill: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    return done.stderr


@pytest.fixture(scope="module")
def warehouse(example: Run) -> str:
    return str(example.plan.warehouse)


def here(*arguments: str) -> int:
    """Run the command in this process; give its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["sidmill", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
    return int(caught.value.code or 0)


def test_every_command_is_in_a_panel_has_help_and_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    group = typer.main.get_command(app)
    assert sorted(COMMANDS) == sorted(group.commands)  # type: ignore[attr-defined]
    monkeypatch.setenv("COLUMNS", "80")
    for command in COMMANDS:
        assert here(command, "--help") == 0
        told = capsys.readouterr().out
        assert told.startswith(f"Usage: sidmill {command} ")
        assert "--json" in told


def test_help_lists_commands_in_panels_a_line_for_each(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert here("--help") == 0
    told = capsys.readouterr().out
    lines = told.partition("Build:\n")[2].splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  ")] == COMMANDS
    assert [line[:-1] for line in lines if line and line[0] != " "] == list(PANELS)[1:]
    assert not [line for line in lines if "..." in line]
    assert all(line.endswith(".") for line in lines if line.startswith("  "))
    assert not set(GUESSED) & {line.split()[0] for line in lines if line.strip()}
    assert inside("--version").stdout.startswith("sidmill 0.")


def test_a_new_command_is_listed_too() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, Commands)
    group.commands["brandnew"] = group.commands["show"]
    assert group.panels()[-1] == ("Others", ["brandnew"])
    assert group.list_commands(None) == [*COMMANDS, "brandnew"]


@pytest.mark.parametrize(("guess", "command"), GUESSED.items())
def test_a_guessed_name_is_the_command(guess: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert guess not in COMMANDS
    assert here(guess, "--help") == 0
    guessed = capsys.readouterr().out
    assert here(command, "--help") == 0
    assert guessed.partition("\n")[2] == capsys.readouterr().out.partition("\n")[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["relase"], "Did you mean 'releases'?"),
        (["tokenizer"], "Did you mean 'tokenizers'"),
        (["run", "--warehose", "x"], "--warehouse"),
        (["export", "x", "--fromat", "y"], "--format"),
    ],
)
def test_what_is_mistyped_is_answered_by_the_nearest(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert here(*arguments) == 2
    assert said in capsys.readouterr().err


def test_every_command_prints_one_json_value(
    small: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of retokenize, which would run Prefect, test_retokenize.py has the JSON."""
    place = shutil.copytree(small.plan.warehouse, tmp_path / "w")
    recipe, more = small.plan.warehouse.parent / "recipe.toml", more_dump(tmp_path / "more")
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        run_append(more, place)
    to = {name: str(tmp_path / name) for name in ("export", "suites", "report.html")}
    given = {
        "fetch": [], "plan": [str(recipe)], "run": [str(recipe)], "append": [str(more)],
        "releases": [], "show": ["small"], "report": ["small", "--to", to["report.html"]],
        "diff": ["small@v1", "small"], "evaluate": ["small@v1", "--no-probe"],
        "sql": ["select 1 as a where false"], "verify": ["small", "--quick"], "doctor": [],
        "tag": ["small@v1", "production"], "tags": [], "rollback": ["small@production"], "gc": [],
        "catalog": [],
        "export": ["small@v1", "--format", "events", "--to", to["export"]],
        "suites": ["small@v1", "--to", to["suites"]],
    }  # fmt: skip
    menus = PANELS["What a recipe may name"]
    assert {*given, *menus, "retokenize"} == set(COMMANDS)
    assert here("catalog", "-w", str(place)) == 0
    assert here("tag", "small@v2", "production", "-w", str(place)) == 0
    capsys.readouterr()
    for command in (*given, *menus):
        at = [] if command in (*menus, "fetch") else ["-w", str(place)]
        code = here(command, *given.get(command, []), *at, "--json")
        told = capsys.readouterr()
        assert (code, told.err) == (0, ""), command
        assert json.loads(told.out) is not None, command


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["show", "small@v9"], 2),
        (["releases", "-w", "/none"], 1),
        (["sql", "from nope"], 1),
        (["rollback", "small@none"], 2),
        (["run", "/none.toml"], 2),
    ],
)
def test_an_error_with_json_is_still_one_line_and_no_json(
    small: Run, arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    at = [] if "-w" in arguments else ["-w", str(small.plan.warehouse)]
    found = here(*arguments, *at, "--json")
    told = capsys.readouterr()
    assert (found, told.out, told.err.count("\n")) == (code, "", 1)
    assert told.err.startswith("sidmill: ")


def completed(
    capsys: pytest.CaptureFixture[str], place: Path, shell: str, *words: str, **more: str
) -> list[str]:
    """Ask as a shell's script does: bash gives words, which it divides at each @, others the line."""
    divided = [part for word in words for part in (re.split("(@)", word) if "@" in word else [word])]
    divided = [part for n, part in enumerate(divided) if part or n == len(divided) - 1]
    if divided[-1] == "" and len(divided) > 1 and divided[-2] == "@":
        divided = divided[:-1]
    given = {"_SIDMILL_COMPLETE": f"complete_{shell}", "SIDMILL_WAREHOUSE": str(place), **more}
    given |= {"COMP_WORDS": "\n".join(["sidmill", *divided]), "COMP_CWORD": str(len(divided))}
    given |= {"_TYPER_COMPLETE_ARGS": " ".join(["sidmill", *words])}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        patch.delenv(BEFORE, raising=False)
        patch.setattr(sys, "argv", ["sidmill"])
        with pytest.raises(SystemExit):
            main()
        patch.delenv(BEFORE, raising=False)
    return capsys.readouterr().out.split()


def test_the_shell_completes_commands_and_values(
    small: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = shutil.copytree(small.plan.warehouse, tmp_path / "w")
    tagging.move(place, Ref.parse("small@v1"), "production")
    both = ["small@production", "small@v1"]

    def bash(*words: str) -> list[str]:
        return completed(capsys, place, "bash", *words)

    assert bash("rel") == ["releases"]
    assert bash("show", "") == ["small", *both]
    assert bash("show", "small@") == ["production", "v1"]
    assert bash("show", "small@p") == ["production"]
    assert bash("diff", "small@v1", "small@v") == ["v1"]
    assert bash("rollback", "s") == ["small@production"]
    assert bash("tag", "small@v1", "p") == ["production"]
    assert bash("tags", "") == ["small"]
    assert bash("append", "r.toml", "--base", "small@v") == ["v1"]
    assert bash("evaluate", "small@v1", "small@") == ["production", "v1"]
    assert bash("export", "small@v1", "--format", "lc") == ["lc-rec"]
    assert bash("run", "r.toml", "--until", "cl") == ["clean"]
    assert bash("run", "r.toml", "--engine", "b") == ["beam"]
    assert bash("fetch", "ml-1m") == ["ml-1m"]
    assert bash("show", "small@v1", "--js") == ["--json"]
    assert completed(capsys, tmp_path / "none", "bash", "show", "") == []
    fish = completed(capsys, place, "fish", "show", "small@", _TYPER_COMPLETE_FISH_ACTION="get-args")
    assert [word for word in fish if "@" in word] == both
    zsh = " ".join(completed(capsys, place, "zsh", "show", "small@"))
    assert all(f'"{ref}"' in zsh for ref in both)


def test_bash_itself_completes_and_nothing_heavy_is_loaded(small: Run) -> None:
    """The script that `--install-completion` installs, in a bash that divides words as bash does."""
    command = Path(sys.executable).parent / "sidmill"
    script = f"""
        sidmill() {{ {command} "$@"; }}
        source <(_SIDMILL_COMPLETE=source_bash {command})
        export SIDMILL_WAREHOUSE={small.plan.warehouse} PATH={command.parent}:$PATH
        COMP_WORDS=(sidmill show small @ v) COMP_CWORD=4
        _sidmill_completion sidmill
        echo "${{COMPREPLY[@]}}"
        complete -p sidmill"""
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env=environment(), check=True
    )
    assert done.stdout.splitlines() == ["v1", "complete -o default -F _sidmill_completion sidmill"]
    assert done.stderr == ""


def test_a_warehouse_in_a_store_is_completed_from_its_copies_alone(
    small: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = {"SIDMILL_WORK": str(tmp_path), "SIDMILL_WAREHOUSE": "s3://bucket/x"}
    assert completed(capsys, tmp_path, "bash", "show", "", **work) == []
    assert list(tmp_path.iterdir()) == []
    shutil.copytree(small.plan.warehouse / "releases", tmp_path / "bucket-1/releases")
    (tmp_path / "bucket-1/origin.json").write_text('{"url": "s3://bucket/x"}')
    assert completed(capsys, tmp_path, "bash", "show", "", **work) == ["small", "small@v1"]


def test_ctrl_c_ends_a_query_that_is_under_way(small: Run) -> None:
    query = "select count(*) from range(100000000000) as t(i) where sqrt(i) > 3"
    command = [sys.executable, "-m", "sidmill", "sql", query, "-w", str(small.plan.warehouse)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, env=environment(), preexec_fn=hear_the_signal
    ) as run:
        spent = 0.0
        while spent < 4 and run.poll() is None:  # seconds at work: all imported, and the query under way
            time.sleep(0.2)
            stat = Path(f"/proc/{run.pid}/stat").read_text().rpartition(")")[2].split()
            spent = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
        run.send_signal(signal.SIGINT)
        try:
            out, said = run.communicate(timeout=60)
        finally:
            run.kill()
    assert (run.returncode, out) == (130, b"")
    assert said.startswith(b"sidmill: stopped; ")


@pytest.mark.parametrize("command", ["verify", "export", "diff", "gc", "sql", "fetch"])
def test_ctrl_c_is_one_line_and_130(
    small: Run,
    tmp_path: Path,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ctrl-C in the middle, at the files that each reads or writes last; what is half written is gone."""

    def pressed(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    place, to = shutil.copytree(small.plan.warehouse, tmp_path / "w"), str(tmp_path / "to")
    at = ["-w", str(place)]
    patches = {
        "verify": ("sid_warehouse.files.hashes", ["small", *at]),
        "export": ("sid_warehouse.files.sync_tree", ["small", "--format", "lc-rec", "--to", to, *at]),
        "diff": ("sidmill.commands.compare.compare", ["small", "small", *at]),
        "gc": ("sid_warehouse.garbage.find", [*at]),
        "sql": ("sidmill.commands.inspect.print_table", ["select 1", *at]),
        "fetch": ("sid_pipelines.fetch.fetch_file", ["ml-100k", "--to", to]),
    }  # fmt: skip
    name, arguments = patches[command]
    assert here("catalog", *at) == 0
    capsys.readouterr()
    monkeypatch.setattr(name, pressed)
    assert here(command, *arguments) == 130
    told = capsys.readouterr()
    assert told.err.startswith("sidmill: stopped; ")
    assert told.err.count("\n") == 1
    assert not list(tmp_path.rglob(f"{files.TEMPORARY}*"))


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
    told = json.loads(inside(*arguments, "--json").stdout)
    assert (told["status"], told["dataset"], told["version"]) == ("unchanged", "movietweetings", 1)
    until = json.loads(inside(*arguments, "--until", "clean", "--json").stdout)
    assert until == {"status": "unchanged", "stage": "clean"}


def test_a_lost_catalog_is_rebuilt_by_a_run_with_nothing_to_do(example: Run, tmp_path: Path) -> None:
    shutil.copytree(example.plan.warehouse, tmp_path / "w")
    (tmp_path / "w/catalog.duckdb").unlink()
    inside("run", str(EXAMPLE), "--warehouse", str(tmp_path / "w"))
    assert inside("sql", QUERY, "--warehouse", str(tmp_path / "w")).stdout.count("<a_") == 5


def test_plan_says_what_would_run_and_why(warehouse: str) -> None:
    rows = json.loads(
        inside("plan", str(EXAMPLE), "--warehouse", warehouse, "--json", "--set", "tokenize.seed=2").stdout
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
    table = inside("plan", str(EXAMPLE), "--warehouse", warehouse).stdout
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
        inside("plan", str(EXAMPLE), "--warehouse", warehouse, "--json", "--set", override).stdout
    )
    assert next((row["stage"] for row in rows if row["status"] == "run"), None) == first


def test_tokenizers_and_policies_are_listed() -> None:
    listed = {row["tokenizer"]: row for row in json.loads(inside("tokenizers", "--json").stdout)}
    assert set(listed) == set(TOKENIZERS)
    assert listed["pq"]["ordered"] is False
    assert "torch" in listed["rq-vae"]["needs"]
    assert listed["rq-kmeans"]["parameters"]["levels"] == [256, 256, 256]
    table = inside("tokenizers").stdout
    assert all(name in table for name in TOKENIZERS)
    assert "TIGER" in table
    chosen = {row["policy"]: row for row in json.loads(inside("policies", "--json").stdout)}
    assert set(chosen) == set(POLICIES)
    assert chosen["suffix-on-collision"]["length"] == "L or L+1"
    assert chosen["capacity"]["unique"] is False
    assert "next-nearest" in inside("policies").stdout


def test_what_makes_vectors_is_listed() -> None:
    listed = {row["model"]: row for row in json.loads(inside("embeddings", "--json").stdout)}
    assert {*MODELS, *FUSIONS, "hashing", "tfidf-svd", "FILE.onnx"} <= set(listed)
    assert listed["sasrec"]["needs"] == "collaborative"
    assert listed["als"]["options"]["dim"] == 64
    assert "LightGCN" in inside("embeddings").stdout


def test_splits_do_not_re_embed(warehouse: str) -> None:
    rows = json.loads(
        inside("plan", str(EXAMPLE), "--warehouse", warehouse, "--json", "--set", "split.seed=1").stdout
    )
    assert {row["stage"]: row["status"] for row in rows}["embed text"] == "done"


def test_sql_prints_a_table_or_json(warehouse: str) -> None:
    printed = inside("sql", QUERY, "--warehouse", warehouse).stdout.splitlines()
    assert printed[0].split() == ["text", "title"]
    assert len(printed) == 6
    rows = json.loads(inside("sql", QUERY, "--warehouse", warehouse, "--json").stdout)
    assert [set(row) for row in rows] == [{"text", "title"}] * 5
    assert "nope" in fails("sql", "from nope", "--warehouse", warehouse, code=1)
    assert "read-only" in fails("sql", "drop schema movietweetings cascade", "--warehouse", warehouse, code=1)


def test_sql_json_loses_no_column(warehouse: str) -> None:
    query = "select 1 as a, 2 as a, 'nan'::double as b"
    assert json.loads(inside("sql", query, "--warehouse", warehouse, "--json").stdout) == [
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
    assert "nothing to do" in inside(*arguments, "clean.max_reject_rate=0.5").stdout
    assert "1 of 61 rows rejected" in fails(*arguments, "clean.max_reject_rate=0.0", code=1)


def test_cleaning_needs_no_encoder(tmp_path: Path) -> None:
    recipe = small_dump(tmp_path)
    nowhere = ("embed.model=nobody/nothing",)
    assert run_chain(recipe, tmp_path / "w", *nowhere, until="clean").outputs["clean"]


def test_show_and_releases(warehouse: str) -> None:
    shown = inside("show", "movietweetings", "--warehouse", warehouse).stdout
    for words in ("movietweetings@v1", "k_core", "27329", "next-nearest", "gate checks hold"):
        assert words in shown
    told = json.loads(inside("show", "movietweetings@v1", "--warehouse", warehouse, "--json").stdout)
    assert told["metrics"]["collisions"]["after"]["max_group"] == 1
    [row] = json.loads(inside("releases", "--warehouse", warehouse, "--json").stdout)
    assert (row["ref"], row["items"], row["collisions"]) == ("movietweetings@v1", 1342, 0)
    assert "movietweetings@v1" in inside("releases", "--warehouse", warehouse).stdout


def test_verify(warehouse: str, tmp_path: Path) -> None:
    assert "is intact" in inside("verify", "movietweetings", "--warehouse", warehouse).stdout
    spoilt = tmp_path / "w"
    shutil.copytree(Path(warehouse) / "releases", spoilt / "releases")
    part = spoilt / "releases/movietweetings/v1/sids/part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-1] + b"!")
    message = fails("verify", "movietweetings", "--warehouse", str(spoilt), code=1)
    assert f"{part}: expected SHA-256" in message
    done = inside("verify", "movietweetings", "--warehouse", str(spoilt), "--json", check=False)
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


@pytest.mark.parametrize("arguments", [("show", "nothing@v9", "--json"), ("fly",), ("run", "/none.toml")])
def test_a_process_ends_with_the_code_and_complains_to_stderr_alone(
    warehouse: str, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What most tests here see in this process, by `helpers.inside`, a shell sees too."""
    at = ["--warehouse", warehouse] if len(arguments) > 1 else []
    monkeypatch.setenv("COLUMNS", "80")
    done, told = sidmill(*arguments, *at, check=False), inside(*arguments, *at, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert (told.returncode, told.stdout, told.stderr) == (2, "", done.stderr)


def test_a_process_prints_its_json_to_stdout_alone(warehouse: str) -> None:
    done = sidmill("releases", "--warehouse", warehouse, "--json")
    assert json.loads(done.stdout)[0]["ref"] == "movietweetings@v1"
    assert done.stderr == ""


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
    printed = inside("sql", QUERY, "--warehouse", warehouse).stdout
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
