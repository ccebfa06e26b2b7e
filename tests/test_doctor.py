"""Doctor: each problem is faked once and must be found with what to do; secrets are never shown."""

import errno
import importlib.metadata
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest
from helpers import Run, environment, sidmill

from sid_flows import doctor
from sid_flows.doctor import Finding, installed, machine, settings, warehouse
from sid_warehouse import files, tagging
from sid_warehouse.names import Ref

REQUIRED = [
    "numpy>=2.0", 'torch>=2.13; extra == "torch"', 'sidmill[torch]; extra == "text"',
    'minilm==0.1.0; extra == "text"', 'prefect<3.9,>=3.8.8; extra == "flows"',
    'fastapi<0.151,>=0.139; extra == "flows"', "odd)(",
]  # fmt: skip
GIB = 1 << 30


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What is installed, to be changed by the test."""
    there = {
        "sidmill": "0.1.0",
        "numpy": "2.4.6",
        "prefect": "3.8.8",
        "fastapi": "0.150.0",
        "torch": "2.13.0+cpu",
    }

    def version(name: str) -> str:
        if name not in there:
            raise importlib.metadata.PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    return there


def test_this_installation_and_machine_are_well(tmp_path: Path) -> None:
    found = doctor.diagnose(tmp_path / "w")
    assert [one for one in found if one.verdict == "problem"] == []
    assert {one.area for one in found} == {
        "python", "packages", "extras", "machine", "encoders", "settings", "warehouse"
    }  # fmt: skip
    assert found[0].says.startswith(f"Python 3.{sys.version_info[1]}.")
    assert not (tmp_path / "w").exists()
    assert list(tmp_path.iterdir()) == []


def test_an_old_python_is_a_problem() -> None:
    assert installed.python((3, 10)).verdict == "problem"
    assert installed.python((3, 11)).verdict == "ok"


def test_core_packages_are_held_against_their_ranges(versions: dict[str, str]) -> None:
    [fine] = installed.core(REQUIRED)
    assert (fine.verdict, fine.says) == ("ok", "sidmill 0.1.0; numpy 2.4.6")
    versions["numpy"] = "1.26.4"
    _, wrong = installed.core(REQUIRED)
    assert wrong == Finding(
        "packages", "problem", "numpy 1.26.4 (expected >=2.0)", "pip install --upgrade sidmill"
    )
    del versions["numpy"]
    assert [*installed.core(REQUIRED)][1].says == "numpy is missing (expected >=2.0)"


def test_extras_say_what_they_lack_and_the_pip_line(versions: dict[str, str]) -> None:
    assert installed.extra_finding("torch", REQUIRED).says == "torch: torch 2.13.0+cpu"
    text = installed.extra_finding("text", REQUIRED)
    assert (text.verdict, text.says, text.do) == (
        "note", "text: lacks minilm", "pip install 'sidmill[text]'"
    )  # fmt: skip
    versions["minilm"] = "0.2.0"
    assert installed.extra_finding("text", REQUIRED).says == "text: minilm 0.2.0 (expected ==0.1.0)"
    assert installed.extra_finding("text", REQUIRED).verdict == "note"
    del versions["prefect"]
    assert installed.extra_finding("flows", REQUIRED).says == (
        "flows: lacks prefect, which `sidmill run` needs"
    )


def test_fastapi_that_breaks_prefect_is_a_problem_of_its_own(versions: dict[str, str]) -> None:
    assert [*installed.pairs()] == []
    versions["fastapi"] = "0.165.0"
    [pair] = installed.pairs()
    assert (pair.verdict, pair.says) == ("problem", "prefect 3.8.8 does not work with fastapi 0.165.0")
    assert pair.do == "pip install 'fastapi>=0.139,<0.151'"
    assert installed.extra_finding("flows", REQUIRED).verdict == "problem"


def test_an_installation_without_metadata_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "DISTRIBUTION", "no-such-distribution")
    assert [*installed.of_installation()][-1].says == "sidmill is not installed"


def test_memory_is_held_against_what_a_recipe_asks_for() -> None:
    assert machine.memory(16 * GIB, None).verdict == "ok"
    limited = machine.memory(64 * GIB, 4 * GIB)
    assert limited.says == (
        "4.0 GiB memory, as a limit on this process allows; [engine] memory is 8GiB by default"
    )
    assert (limited.verdict, limited.do) == ("note", 'set [engine] memory = "3276MiB" in recipes')
    assert machine.memory(None, None).verdict == "note"


def test_the_least_limit_of_control_groups_counts(tmp_path: Path) -> None:
    (tmp_path / "memory/a/b").mkdir(parents=True)
    (tmp_path / "memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    (tmp_path / "memory/a/memory.limit_in_bytes").write_text("2000000000\n")
    (tmp_path / "memory/a/b/memory.limit_in_bytes").write_text("3000000000\n")
    own = tmp_path / "cgroup"
    own.write_text("4:memory:/a/b\n3:cpu:/\n")
    assert machine.limit(tmp_path, own) == 2_000_000_000
    (tmp_path / "x").mkdir()
    (tmp_path / "x/memory.max").write_text("1000000\n")
    own.write_text("0::/x\n")
    assert machine.limit(tmp_path, own) == 1_000_000
    (tmp_path / "x/memory.max").write_text("max\n")
    assert machine.limit(tmp_path, own) is None
    assert machine.limit(tmp_path, tmp_path / "none") is None


def test_cores_and_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDMILL_CORES", "two")
    assert machine.core_count().verdict == "problem"
    monkeypatch.setenv("SIDMILL_CORES", "9999")
    assert machine.core_count().verdict == "note"
    monkeypatch.setenv("SIDMILL_CORES", "1")
    assert machine.core_count().says.endswith("cores, as SIDMILL_CORES says")
    assert machine.encoding("UTF-8", "utf_8").verdict == "ok"
    assert "PYTHONUTF8=1" in machine.encoding("ascii", "utf-8").do


def test_encoders_are_found_in_packages_and_the_hubs_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hub/models--org--name/snapshots/abc").mkdir(parents=True)
    (tmp_path / "hub/models--org--broken/snapshots").mkdir(parents=True)
    found = machine.encoders({"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"})
    assert found.says == (
        "here without download: all-MiniLM-L6-v2 (its package), org/name (cache); HF_HUB_OFFLINE is set"
    )
    monkeypatch.setattr(machine, "MINILM", "no_such_package")
    nothing = machine.encoders({"HF_HUB_CACHE": str(tmp_path / "none")})
    assert nothing.verdict == "note"
    assert "pip install 'sidmill[text]'" in nothing.do


def test_prefects_settings() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        [there] = settings.prefect({"PREFECT_API_URL": f"http://me:secret@127.0.0.1:{port}/api"})
    assert there.says == f"Prefect's server at http://127.0.0.1:{port} answers; its home in the warehouse"
    [gone] = settings.prefect({"PREFECT_API_URL": f"http://me:secret@127.0.0.1:{port}/api"})
    assert (gone.verdict, "secret" in gone.says) == ("problem", False)
    [none] = settings.prefect({"PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false"})
    assert none.verdict == "problem"
    fine, hasty = settings.prefect(
        {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "20", "PREFECT_HOME": "/p"}
    )
    assert (fine.verdict, fine.says.endswith("PREFECT_HOME=/p")) == ("ok", True)
    assert (hasty.verdict, "20 s" in hasty.says) == ("note", True)


def test_analytics_that_somebody_turned_on_are_noted() -> None:
    assert settings.analytics({}).verdict == "ok"
    assert settings.analytics({"GX_ANALYTICS_ENABLED": "", "DO_NOT_TRACK": "1"}).verdict == "ok"
    found = settings.analytics({"GX_ANALYTICS_ENABLED": "true", "DO_NOT_TRACK": "0"})
    assert (found.verdict, found.do) == ("note", "unset GX_ANALYTICS_ENABLED DO_NOT_TRACK")


def test_credentials_are_said_to_be_there_and_never_shown(tmp_path: Path) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text("aws_secret_access_key = hidden1")
    given = {
        "AWS_ACCESS_KEY_ID": "hidden2",
        "AWS_SECRET_ACCESS_KEY": "hidden3",
        "AWS_ENDPOINT_URL": "https://user:hidden4@minio.example:9000/x?sig=hidden5",
    }
    found = settings.store(given, tmp_path)
    assert found.says == (
        "credentials for an object store: a key in the environment, "
        f"the file {tmp_path}/.aws/credentials, at https://minio.example:9000"
    )
    assert settings.store({}, tmp_path / "none").says.startswith("no credentials")
    assert settings.without_secrets("http://[bad") == "(no URL)"


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    for free, verdict in ((0.5, "problem"), (5, "note"), (50, "ok")):
        told = usage(100 * GIB, 0, int(free * GIB))
        monkeypatch.setattr(shutil, "disk_usage", lambda folder, told=told: told)
        assert warehouse.room(tmp_path).verdict == verdict


def test_a_file_system_that_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.EPERM, "no")

    assert warehouse.abilities(tmp_path).verdict == "ok"
    monkeypatch.setattr(os, "link", refuse)
    assert "has no hard links" in warehouse.abilities(tmp_path).says
    monkeypatch.setattr(warehouse.fcntl, "flock", refuse)
    broken = warehouse.abilities(tmp_path)
    assert (broken.verdict, "locks a file, links a file" in broken.says) == ("problem", True)
    monkeypatch.setattr(Path, "mkdir", refuse)
    said = warehouse.abilities(tmp_path)
    assert (said.verdict, said.says.endswith("is read-only for us")) == ("note", True)
    assert list(tmp_path.iterdir()) == []


def test_the_state_of_a_warehouse(small: Run, tmp_path: Path) -> None:
    place = shutil.copytree(small.plan.warehouse, tmp_path / "w")
    tagging.move(place, Ref.parse("small@v1"), "production")
    sidmill("catalog", "-w", str(place))
    assert {one.verdict for one in warehouse.inside(place)} == {"ok"}
    leftover = place / f"{files.TEMPORARY}{socket.gethostname()}-{2**22 + 5}-abc"
    leftover.mkdir()
    shutil.copytree(place / "releases/small/v1", place / "releases/small/v2")
    (place / "releases/small/v2/release.json").write_text("{")
    found = [*warehouse.inside(place)]
    said = {one.verdict: one.says for one in found}
    assert "release.json" in said["problem"]
    tag = place / "tags/small/production.json"
    shutil.copyfile(tag, tmp_path / "tag.json")
    before = files.read_json(tag)
    before["version"] = 2  # the damaged one
    tag.unlink()
    files.write_json(tag, before)
    assert [one.says for one in warehouse.inside(place)] == [one.says for one in found]
    shutil.copyfile(tmp_path / "tag.json", tag)
    notes = [one.says for one in found if one.verdict == "note"]
    assert notes[-1] == f"unfinished folders of killed processes: 1, as {leftover.name}"
    shutil.rmtree(place / "releases/small/v2")
    shutil.rmtree(place / "releases/small/v1")
    lost = [one for one in warehouse.inside(place) if one.verdict == "problem"]
    assert [one.says for one in lost] == ["tag small@production names v1, which is gone"]
    assert lost[0].do == "`sidmill tag small@vN production` names a release"
    stale = [one.says for one in warehouse.inside(place) if "catalog" in one.says]
    assert stale == ["catalog.duckdb does not show the releases there are"]


def test_a_warehouse_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert [one.verdict for one in warehouse.of_warehouse(tmp_path / "file")][-1] == "problem"
    last = [*warehouse.of_warehouse(tmp_path / "none/below")][-1]
    assert (last.verdict, last.do) == ("note", "`sidmill run RECIPE` makes it")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/releases").touch()
    [odd] = [one for one in warehouse.of_warehouse(tmp_path / "odd") if one.verdict == "problem"]
    assert odd.says == f"{tmp_path}/odd/releases: is no folder"
    (tmp_path / "store").mkdir()
    files.write_json(tmp_path / "store/origin.json", {"url": "s3://bucket/x"})
    assert "s3://bucket/x, which is not asked here" in next(warehouse.in_store(tmp_path / "store")).says


def test_what_raises_is_a_problem_and_the_rest_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", "~nosuchuser/x")
    found = doctor.diagnose(tmp_path / ("w" * 300))
    problems = [one for one in found if one.verdict == "problem"]
    assert [one.area for one in problems] == ["encoders", "warehouse"]
    assert "(RuntimeError: Could not determine home directory.)" in problems[0].says
    assert "(OSError: [Errno 36] File name too long" in problems[1].says
    assert {"python", "packages", "machine", "settings"} < {one.area for one in found}


def test_the_command_is_fast_imports_nothing_heavy_and_exits_with_1_for_a_problem(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom sidmill.cli import main\ntry: main()\n"
        "finally: print({'torch', 'prefect', 'great_expectations'} & set(sys.modules), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "doctor", "-w", str(tmp_path), "--json"]
    started = time.process_time(), os.times().children_user
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True)
    assert os.times().children_user - started[1] < 3
    assert done.stderr == "set()\n"
    told = json.loads(done.stdout)
    assert (told["problems"], told["warehouse"]) == (0, str(tmp_path))
    assert set(told["findings"][0]) == {"area", "verdict", "says", "do"}
    (tmp_path / "file").touch()
    bad = sidmill("doctor", "-w", str(tmp_path / "file"), check=False)
    assert (bad.returncode, bad.stderr) == (1, "")
    assert f"  PROBLEM  {tmp_path}/file: is no folder\n           -> name a folder" in bad.stdout
    assert bad.stdout.splitlines()[-1].startswith("1 problems, ")
