"""Publishing is all or nothing: killed, refused by the disk or raced, readers see a whole release.

kill_harness.py does the work in processes of its own; here is what must come of it. `make test` takes a
sample of the publisher's calls, `make proof` all of them.
"""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from atomic_world import prepare
from helpers import Run
from kill_harness import kills, run

from sid_schemas import WarehouseError
from sid_warehouse import files

MEMORY = Path(
    "/dev/shm"
)  # a kill loses nothing that is not on a disk yet, and syncing takes most of the time
SOME = {
    "kill": {"task": "kill", "every": 18, "offset": 5, "recover_every": 6},
    "random": {"task": "kill_at_random", "n": 8, "recover_every": 4},
    "record last": {"task": "kill", "sabotage": "record last", "only": "/v2/", "offset": 9, "every": 150},
    "record first": {"task": "kill", "sabotage": "record first", "only": "/v2/", "offset": 9, "every": 150},
    "catalog in place": {"task": "kill", "sabotage": "catalog in place", "only": "write /catalog.duckdb"},
    "ENOSPC": {"task": "fail", "error": "ENOSPC", "does": ["make"], "stays": True, "every": 40, "offset": 4},
    "EACCES": {"task": "fail", "error": "EACCES", "does": ["read", "make"], "stays": False, "every": 90},
    "EROFS": {
        "task": "fail", "error": "EROFS", "does": ["make", "remove"], "stays": True, "every": 75, "offset": 40
    },
    "locked out": {"task": "lock_out"},
    "limit": {"task": "limit", "sizes": [3_000, 2_500_000, 3_500_000]},
    "Arrow": {"task": "limit_stages", "sizes": [500], "override": "clean.k_core=1", "until": "clean"},
    "safetensors": {
        "task": "limit_stages", "sizes": [500], "override": "tokenize.seed=7", "until": "tokenize"
    },
    "same": {"task": "race", "rounds": 3, "same": True},
    "different": {"task": "race", "rounds": 3, "same": False},
    "readers": {"task": "readers", "publishes": 20},
}  # fmt: skip


@pytest.fixture(scope="module")
def world(small: Run) -> Iterator[Path]:
    """A world to publish in."""
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as name:
        Path(name).chmod(0o755)  # for `lock_out`, which is nobody where we are root
        prepare(Path(name) / "world", small.plan.warehouse.parent)
        yield Path(name) / "world"


@pytest.fixture(scope="module")
def found(world: Path) -> dict[str, dict[str, Any]]:
    """What came of each task of SOME, done one after the other in one process."""
    return dict(zip(SOME, run(world, *SOME.values()), strict=True))


def held(result: dict[str, Any]) -> None:
    assert result["failures"] == []
    assert result["survived"] == result["tried"] > 0


# Killed


def test_a_publisher_killed_at_its_calls_leaves_the_old_or_the_new_release(
    found: dict[str, dict[str, Any]],
) -> None:
    held(found["kill"])
    assert found["kill"]["calls"] > 300
    assert set(found["kill"]["outcomes"]) == {"killed, old release seen", "killed, new release seen"}


def test_a_publisher_killed_at_random_moments_does_too(found: dict[str, dict[str, Any]]) -> None:
    held(found["random"])
    assert sum(n for how, n in found["random"]["outcomes"].items() if how.startswith("killed")) > 4


@pytest.mark.parametrize(
    ("sabotage", "said"),
    [
        ("record last", "there are folders ['v1', 'v2'] for versions [1]"),
        ("record first", "v2 lacks, has too much or has otherwise: "),
        ("catalog in place", "the catalog does not answer: "),
    ],
)
def test_the_harness_finds_a_publish_that_is_not_atomic(
    found: dict[str, dict[str, Any]], sabotage: str, said: str
) -> None:
    result = found[sabotage]
    assert result["survived"] == 0 < result["tried"]
    for failure in result["failures"]:
        assert any(problem.startswith(said) for problem in failure["problems"]), failure


# Refused


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("ENOSPC", "No space left on device"),
        ("EACCES", "Permission denied"),
        ("EROFS", "Read-only file system"),
        ("locked out", "Permission denied"),
        ("limit", "File too large"),
    ],
)
def test_what_the_disk_refuses_is_one_line_and_no_release(
    found: dict[str, dict[str, Any]], error: str, said: str
) -> None:
    held(found[error])
    assert any(f"cannot be written ({said}). Mend" in line for line in found[error]["refusals"])


def test_a_disk_that_fills_up_under_duckdb_leaves_the_new_release_and_the_old_catalog(
    found: dict[str, dict[str, Any]],
) -> None:
    """Its largest file is the report, above 2,000,000 bytes; the catalog is above 3,500,000."""
    outcomes = found["limit"]["outcomes"]
    assert outcomes == {"refused, old release seen": 1, "refused, new release seen": 2}


@pytest.mark.parametrize("writer", ["Arrow", "safetensors"])
def test_a_stage_that_cannot_be_written_is_absent(found: dict[str, dict[str, Any]], writer: str) -> None:
    held(found[writer])
    [line] = found[writer]["refusals"]
    assert "cannot be written (File too large). Mend" in line


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), PermissionError(13, "no")])
def test_a_refusal_elsewhere_is_not_the_warehouses(tmp_path: Path, error: OSError) -> None:
    error.filename = "/elsewhere/file"
    with pytest.raises(OSError, match="elsewhere"), files.explained(tmp_path):
        raise error
    error.filename = str(tmp_path / "inside")
    with pytest.raises(WarehouseError, match="cannot be written"), files.explained(tmp_path):
        raise error


# Not alone


@pytest.mark.parametrize("what", ["same", "different"])
def test_publishers_at_once_publish_each_release_once(found: dict[str, dict[str, Any]], what: str) -> None:
    held(found[what])


def test_readers_of_an_old_release_are_never_disturbed(found: dict[str, dict[str, Any]]) -> None:
    assert found["readers"]["problems"] == []
    assert min(found["readers"]["rounds"]) > 3  # a busy machine gives few


# All of it


@pytest.mark.proof
def test_no_kill_tears_a_release() -> None:
    """Every call, the next run after each; and 200 random moments, on a real disk."""
    result = kills(200)
    held(result)
    assert result["tried"] == result["calls"] + 200


@pytest.mark.proof
def test_no_kill_tears_an_append_or_its_base(small: Run, tmp_path: Path) -> None:
    """Its files are links to the base's, so that what damaged one would damage the other."""
    prepare(tmp_path, small.plan.warehouse.parent, append=True)
    at_calls, at_random, limited = run(
        tmp_path,
        {"task": "kill", "recover_every": 5},
        {"task": "kill_at_random", "n": 50, "recover_every": 2},
        {"task": "limit", "sizes": [0, *(int(1000 * 2**n) for n in range(14))]},
    )
    for result in (at_calls, at_random, limited):
        held(result)


@pytest.mark.proof
@pytest.mark.parametrize(
    ("error", "does", "stays"),
    [
        ("ENOSPC", ["make"], True),
        ("ENOSPC", ["make"], False),
        ("EDQUOT", ["make"], True),
        ("EIO", ["read", "make", "remove"], False),
        ("EACCES", ["read", "make", "remove"], False),
        ("EROFS", ["make", "remove"], True),
    ],
)
def test_no_refusal_tears_a_release(world: Path, error: str, does: list[str], stays: bool) -> None:
    [result] = run(world, {"task": "fail", "error": error, "does": does, "stays": stays})
    held(result)


@pytest.mark.proof
def test_no_limit_tears_a_release(world: Path) -> None:
    sizes = [0, 1, *(int(1000 * 1.3**n) for n in range(35))]
    published, staged = run(
        world,
        {"task": "limit", "sizes": sizes},
        {"task": "limit_stages", "sizes": [0, 500, 2_000, 4_000, 8_000], "override": "clean.k_core=1"},
    )
    held(published)
    held(staged)
    assert set(published["outcomes"]) == {
        "refused, old release seen",
        "refused, new release seen",
        "finished, new release seen",
    }


@pytest.mark.proof
def test_publishers_race_often(world: Path) -> None:
    for result in run(
        world,
        {"task": "race", "rounds": 30, "same": True, "publishers": 3},
        {"task": "race", "rounds": 30, "same": False, "publishers": 3},
    ):
        held(result)


SMALL_DISK = ["unshare", "--mount", "sh", "-c"]
MOUNTED = 'mount -t tmpfs -o size=64m tmpfs "$0" && '


@pytest.mark.proof
def test_a_full_disk_tears_no_release(tmp_path: Path) -> None:
    """A real one: a tmpfs of 64 MiB in a mount namespace of its own, full but for some bytes."""
    disk = str(tmp_path)
    probe = subprocess.run([*SMALL_DISK, f"{MOUNTED} true", disk], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip(f"no small disk can be mounted here: {probe.stderr.decode()}")
    free = [0, 5_000, 50_000, *range(100_000, 3_000_000, 200_000), 20_000_000]
    # Of the command, "$1" "$2" "$3" are Python, the harness and the world, which must be made there first.
    before = [*SMALL_DISK, f'{MOUNTED} "$1" "$2" "$3" && exec "$@"', disk]
    [result] = run(tmp_path / "world", {"task": "fill", "free": free}, before=before)
    held(result)
    assert set(result["outcomes"]) == {
        "refused, old release seen",
        "refused, new release seen",
        "finished, new release seen",
    }
    assert any("(No space left on device)" in line for line in result["refusals"])
