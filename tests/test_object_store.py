"""Warehouses on s3://, against a real S3 server on loopback: moto's, behind a gate that can misbehave."""

import dataclasses
import errno
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import duckdb
import pytest
from helpers import Run
from moto.server import DomainDispatcherApplication, create_backend_app
from s3fs import S3FileSystem
from typer.testing import CliRunner
from werkzeug.serving import WSGIRequestHandler, make_server

import sidmill
from sid_flows.execute import finish
from sid_flows.recipe import warehouse_path
from sid_schemas import MissingExtraError, RecipeError, WarehouseError
from sid_warehouse import catalog, copies, files, objects, origin, releases, tagging, tags
from sid_warehouse.names import Ref
from sid_warehouse.objects import Objects
from sid_warehouse.reader import Warehouse
from sid_warehouse.verify import verify
from sidmill.cli import app, main

SECRET = "wJalrMARKERneverToBeSeen"
LISTING = "list-type=2"
# Without the first moto takes us for a stranger, without the second for a form; it looks no further.
HEADERS = {"Authorization": "AWS x:y", "Content-Type": "application/octet-stream"}


class Gate:
    """A WSGI app before moto's: makes conditional puts atomic, as in S3, and misbehaves where a test asks.

    before: called with each request (method, path); what it gives is answered instead. lost: paths that are
    put, but answered with an error. ignored: headers that it drops. requests: what came.
    """

    def __init__(self) -> None:
        self.app = DomainDispatcherApplication(create_backend_app)
        self.lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        self.before: Callable[[str, str], str | None] = lambda method, path: None
        self.lost: list[str] = []
        self.ignored: tuple[str, ...] = ()
        self.requests: list[tuple[str, str]] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))
        if (code := self.before(method, path)) is not None:
            return refuse(start_response, code)
        if LISTING in environ["QUERY_STRING"]:
            environ["QUERY_STRING"] += "&max-keys=2"  # so that every listing has pages
        for header in self.ignored:
            environ.pop(header, None)
        with self.lock:
            answer = list(self.app(environ, start_response))
        if method == "PUT" and path in self.lost:
            self.lost.remove(path)
            return refuse(start_response, "InternalError", "500 Internal Server Error", replace=True)
        return answer


def refuse(start: Any, code: str, status: str = "403 Forbidden", *, replace: bool = False) -> list[bytes]:
    body = f"<Error><Code>{code}</Code><Message>{code}, {SECRET}</Message></Error>".encode()
    start(status, [("Content-Type", "application/xml")], *([(None, None, None)] if replace else []))
    return [body]


class Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        pass


@dataclasses.dataclass
class Store:
    """The server, and a bucket of the test's own."""

    gate: Gate
    endpoint: str
    bucket: str
    tmp: Path
    setenv: Callable[[str, str], None]

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/some/prefix"

    def machine(self, name: str) -> Path:
        """Give the work folder that a machine of this name has for the warehouse."""
        self.setenv("SIDMILL_WORK", str(self.tmp / name))
        return warehouse_path(self.url)

    def path(self, key: str) -> str:
        return f"/{self.bucket}/some/prefix/{key}"

    def ask(self, method: str, path: str, data: bytes | None = None) -> bytes | None:
        """Send a request past the code under test; None where it is refused."""
        request = Request(self.endpoint + path, data, HEADERS, method=method)
        try:
            with urlopen(request) as answer:
                return bytes(answer.read())
        except HTTPError:
            return None

    def put(self, key: str, data: bytes) -> None:
        assert self.ask("PUT", self.path(key), data) is not None

    def get(self, key: str) -> bytes | None:
        return self.ask("GET", self.path(key))

    def count(self, method: str, part: str = "") -> int:
        return sum(one == method and part in path for one, path in self.gate.requests)


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Gate, str]]:
    gate = Gate()
    serving = make_server("127.0.0.1", 0, gate, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=serving.serve_forever, daemon=True)
    thread.start()
    yield gate, f"http://127.0.0.1:{serving.server_port}"
    serving.shutdown()
    thread.join()
    S3FileSystem.clear_instance_cache()  # or another module's server would be looked for where this one was


@pytest.fixture
def store(
    server: tuple[Gate, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Store:
    gate, endpoint = server
    gate.reset()
    for name in [name for name in os.environ if name.startswith(("AWS_", "SIDMILL_"))]:
        monkeypatch.delenv(name)
    settings = {
        "AWS_ACCESS_KEY_ID": "a-key", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": f"t{SECRET}",
        "AWS_ENDPOINT_URL": endpoint, "AWS_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1",
        "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "HOME": str(tmp_path / "home"),
    }  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{abs(hash(request.node.nodeid)):x}"
    made = Store(gate, endpoint, bucket, tmp_path, monkeypatch.setenv)
    made.ask("PUT", f"/{bucket}")
    gate.requests.clear()
    return made


@pytest.fixture
def other_settings(store: Store) -> Iterator[Callable[[], None]]:
    """Give what makes s3fs see changed settings: it keeps clients, with those that they began with."""
    yield S3FileSystem.clear_instance_cache
    S3FileSystem.clear_instance_cache()


def publish(warehouse: Path, mark: str, **about: Any) -> dict[str, Any]:
    """Publish two files, one of which holds the mark."""
    sources = warehouse.parent / f"sources-{mark}-{threading.get_ident()}"
    sources.mkdir(parents=True, exist_ok=True)
    (sources / "same").write_text("the same in all")
    (sources / "own").write_text(mark)
    contents = {"shared.txt": sources / "same", "folder/own.txt": sources / "own"}
    return releases.publish(warehouse, "d", contents, {"fingerprint": mark, **about})


def brought(store: Store, machine: str, ref: str = "d") -> dict[str, Any]:
    """Open a release on a machine, check it in full, and give its record."""
    release = Warehouse(store.machine(machine)).release(ref)
    assert verify_files(release.folder) == []
    return release.record


def verify_files(folder: Path) -> list[str]:
    recorded = releases.read(folder)["files"]
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    wrong = [name for name, entry in recorded.items() if files.sha256(folder / name) != entry["sha256"]]
    return [*wrong, *(found ^ {*recorded, "release.json"})]


# From one machine to another


@pytest.fixture
def shared(store: Store, small: Run) -> dict[str, Any]:
    """The small release, published to the store by machine `maker`."""
    plan = dataclasses.replace(small.plan, warehouse=store.machine("maker"))
    return finish(plan, small.outputs)


def test_a_release_is_the_same_on_another_machine(store: Store, small: Run, shared: dict[str, Any]) -> None:
    store.machine("reader")
    release = sidmill.open(store.url).release("small")
    assert release.record == shared
    assert release.folder.is_relative_to(store.tmp / "reader")
    assert verify(release.folder) == []
    for table in small.release.tables:
        assert release.table(table).equals(small.release.table(table))
    assert release.trie().item(release.table("sids")["sid"][0].as_py()) == 0
    parts = str(release.folder / "sids" / "*.parquet")
    with duckdb.connect() as connection:
        [(items,)] = connection.execute("select count(*) from read_parquet(?)", [parts]).fetchall()
    assert items == shared["rows"]["sids"]


def test_what_is_there_is_not_asked_for_again(store: Store, shared: dict[str, Any]) -> None:
    there = Warehouse(store.machine("reader"))
    there.release("small")
    store.gate.requests.clear()
    there.release("small@v1")
    assert store.gate.requests == []
    there.release("small")
    assert {method for method, _ in store.gate.requests} == {"GET"}
    assert store.count("GET", "release.json") == 1
    assert store.count("GET", ".parquet") == 0


def test_commands_on_a_machine_that_has_nothing_yet(store: Store, shared: dict[str, Any]) -> None:
    store.machine("reader")

    def told(*arguments: str) -> str:
        done = CliRunner().invoke(app, [*arguments, "-w", store.url])
        assert done.exit_code == 0, done.output
        return done.stdout

    [row] = json.loads(told("releases", "--json"))
    assert (row["ref"], row["fingerprint"]) == ("small@v1", shared["fingerprint"])
    assert store.count("GET", ".parquet") == 0  # a list needs no tables
    query = "select count(*) as n from small.sids join small.items using (item_index)"
    assert json.loads(told("sql", query, "--json")) == [{"n": shared["rows"]["items"]}]
    assert json.loads(told("show", "small", "--json"))["fingerprint"] == shared["fingerprint"]
    assert json.loads(told("verify", "small@v1", "--json"))["intact"] is True


def test_the_command_itself(store: Store, shared: dict[str, Any]) -> None:
    store.machine("reader")
    query = "select version from releases where dataset = 'small' and \"latest\""
    command = [sys.executable, "-m", "sidmill", "sql", query, "--json", "--warehouse", store.url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [{"version": 1}]
    assert done.stderr == ""


def test_the_catalog_follows_what_others_publish(store: Store, small: Run, shared: dict[str, Any]) -> None:
    reader = store.machine("reader")
    copies.sync(reader)
    catalog.refresh(reader)
    assert catalog.is_current(reader)
    plan = dataclasses.replace(small.plan, warehouse=store.machine("other"))
    outputs = dict(small.outputs)
    manifest = {**outputs["gates"].manifest, "key": "another"}
    outputs["gates"] = dataclasses.replace(outputs["gates"], manifest=manifest)
    assert finish(plan, outputs)["version"] == 2
    copies.sync(reader)
    assert not catalog.is_current(reader)
    with duckdb.connect(str(catalog.refresh(reader)), read_only=True) as connection:
        found = connection.sql("select version from releases order by all").fetchall()
    assert found == [(1,), (2,)]


# Publishing


def test_versions_count_up_and_the_same_again_is_a_no_op(store: Store) -> None:
    done = [
        publish(store.machine(name), mark)["version"] for name, mark in zip("xyxyz", "abaab", strict=True)
    ]
    assert done == [1, 2, 1, 1, 2]
    assert releases.find_fingerprint(store.machine("new"), "d", "b") == brought(store, "new", "d@v2")
    store.gate.requests.clear()
    publish(store.machine("x"), "a")
    assert store.count("PUT") == store.count("PUT", "conditional.json") == 1  # nothing goes up again


def test_publishers_at_once_each_get_a_version(store: Store) -> None:
    machines = [store.machine(f"machine-{n}") for n in range(8)]
    done: list[int] = []

    def work(n: int) -> None:
        done.append(publish(machines[n], f"mark-{n}")["version"])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == list(range(1, 9))
    assert list(origin.Origin(store.url).records("d")) == sorted(done)
    marks = {brought(store, "reader", f"d@v{version}")["fingerprint"] for version in done}
    assert marks == {f"mark-{n}" for n in range(8)}


class KilledError(BaseException):
    """Ends a publisher wherever it is, as a kill does."""


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", range(5))  # probe, claim, two files, commit
def test_a_publisher_killed_anywhere_leaves_the_old_or_the_new_release(
    store: Store, monkeypatch: pytest.MonkeyPatch, call: int, after: bool
) -> None:
    publish(store.machine("x"), "old")
    calls = iter(range(100))

    def deadly(real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(self: Objects, *args: Any, **kwargs: Any) -> Any:
            now = next(calls) == call
            if now and not after:
                raise KilledError
            done = real(self, *args, **kwargs)
            if now:
                raise KilledError
            return done

        return wrapper

    with monkeypatch.context() as patch:
        for name in ("put", "upload"):
            patch.setattr(Objects, name, deadly(getattr(Objects, name)))
        with pytest.raises(KilledError):
            publish(store.machine("x"), "new")
    there = origin.of(store.machine("reader"))
    assert there is not None
    committed = call == 4 and after
    assert list(there.records("d")) == ([1, 2] if committed else [1])
    assert brought(store, "reader")["fingerprint"] == ("new" if committed else "old")
    claimed = (call, after) > (1, False)
    assert publish(store.machine("y"), "new")["version"] == (3 if claimed and not committed else 2)
    assert brought(store, "reader")["fingerprint"] == "new"
    assert publish(store.machine("x"), "old")["version"] == 1


def test_a_publisher_killed_by_the_system_at_its_commit(store: Store) -> None:
    publish(store.machine("x"), "old")
    code = (
        "import sys; from pathlib import Path; from sid_warehouse import releases\n"
        "releases.publish(Path(sys.argv[1]), 'd', {'a': Path(sys.argv[2])}, {'fingerprint': 'new'})"
    )
    (store.tmp / "a").write_text("hello")
    command = [sys.executable, "-c", code, str(store.machine("x")), str(store.tmp / "a")]
    publisher = subprocess.Popen(command)

    def kill(method: str, path: str) -> str | None:
        if (method, path) != ("PUT", store.path("releases/d/v2/release.json")):
            return None
        publisher.send_signal(signal.SIGKILL)
        return "AccessDenied"

    store.gate.before = kill
    assert publisher.wait() == -signal.SIGKILL
    store.gate.reset()
    assert store.get("releases/d/v2/a") == b"hello"
    assert brought(store, "reader")["fingerprint"] == "old"
    assert publish(store.machine("x"), "new")["version"] == 3


def test_a_commit_whose_answer_got_lost_is_a_commit(store: Store, other_settings: Callable[[], None]) -> None:
    store.setenv("AWS_MAX_ATTEMPTS", "2")
    other_settings()
    store.gate.lost = [store.path("releases/d/v1/release.json")]
    assert publish(store.machine("x"), "a")["version"] == 1
    assert store.gate.lost == []
    assert store.count("PUT", "release.json") == 2
    assert list(origin.Origin(store.url).records("d")) == [1]


def test_a_store_that_overwrites_although_told_not_to_is_refused(store: Store) -> None:
    for _ in range(2):  # the first time, and when it was told so before
        store.gate.ignored = ("HTTP_IF_NONE_MATCH",)
        with pytest.raises(WarehouseError, match=r"ignores conditional writes \(If-None-Match\)"):
            publish(store.machine("x"), "a")
        store.gate.ignored = ("HTTP_IF_MATCH",)
        with pytest.raises(WarehouseError, match=r"ignores conditional writes \(If-Match\)"):
            copies.push_tag(store.machine("x"), "d", "production", None, {})
        assert origin.Origin(store.url).numbers("d") == []
        assert store.get("tags/d/production.json") is None
        store.gate.reset()
        origin.Origin(store.url).check_conditional(if_match=True)
    publish(store.machine("x"), "a")


def test_a_large_file_goes_up_and_down_in_parts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "PART", 5 << 20)  # the smallest that S3 takes
    place, big = Objects(store.bucket, "p/"), store.tmp / "big"
    big.write_bytes(os.urandom(11 << 20))
    place.upload(big, "big")
    assert store.count("PUT") == 3
    store.gate.requests.clear()
    place.download("big", store.tmp / "back")
    assert store.count("GET") == 4  # one to learn the size
    assert files.sha256(store.tmp / "back") == files.sha256(big)


# Appends


def append(warehouse: Path, mark: str, base: int) -> dict[str, Any]:
    return publish(warehouse, mark, kind="append", base={"version": base, "fingerprint": "?"})


def test_a_base_has_one_append(tmp_path: Path, store: Store) -> None:
    for warehouse in (tmp_path / "local", store.machine("x")):
        publish(warehouse, "base")
        append(warehouse, "one", 1)
        with pytest.raises(WarehouseError, match=r"d@v1 has an append already, d@v2; .* newest, d@v2"):
            append(warehouse, "two", 1)
        assert append(warehouse, "one", 1)["version"] == 2  # the same again
        assert append(warehouse, "two", 2)["version"] == 3
        with pytest.raises(WarehouseError, match=r"newest, d@v3"):
            append(warehouse, "three", 1)
        assert publish(warehouse, "build")["version"] == 4
        assert publish(warehouse, "re", kind="retokenize", base={"version": 1})["version"] == 5


def test_of_two_local_appends_at_once_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path / "w", "base")
    rename, done = files.rename_folder, []

    def rename_late(folder: Path, target: Path) -> bool:
        if not done:  # a rival publishes between our look and our rename
            done.append(1)
            append(tmp_path / "w", "rival", 1)
        return rename(folder, target)

    monkeypatch.setattr(files, "rename_folder", rename_late)
    with pytest.raises(WarehouseError, match="d@v1 has an append already, d@v2"):
        append(tmp_path / "w", "ours", 1)
    assert releases.versions(tmp_path / "w", "d") == [1, 2]


def test_of_two_appends_at_once_to_a_store_one_is_refused(store: Store) -> None:
    publish(store.machine("x"), "base")
    ours, theirs = store.machine("x"), store.machine("y")
    rivals: list[int] = []

    def rival(method: str, path: str) -> None:
        if (method, path) == ("PUT", store.path("releases/d/v2/release.json")) and not rivals:
            rivals.append(0)
            rivals[0] = append(theirs, "rival", 1)["version"]  # all of it, before our commit arrives

    store.gate.before = rival
    with pytest.raises(WarehouseError, match="d@v1 has an append already, d@v3"):
        append(ours, "ours", 1)
    assert rivals == [3]
    assert list(origin.Origin(store.url).records("d")) == [1, 3]
    assert brought(store, "reader")["fingerprint"] == "rival"


def test_an_append_that_died_stops_no_other(store: Store) -> None:
    publish(store.machine("x"), "base")
    store.gate.before = lambda method, path: "AccessDenied" if path.endswith("v2/release.json") else None
    with pytest.raises(WarehouseError):
        append(store.machine("x"), "dead", 1)
    store.gate.reset()
    assert append(store.machine("y"), "alive", 1)["version"] == 3
    assert json.loads(store.get("releases/d/v2/release.json") or b"") == {"abandoned": True}


def test_what_the_base_has_is_linked_not_copied(tmp_path: Path) -> None:
    warehouse = tmp_path / "w"
    base = warehouse / "releases/d/v1"
    publish(warehouse, "base")
    same, new = tmp_path / "same", tmp_path / "new"
    same.write_text("the same in all")
    new.write_text("new")
    expected = {"x/shared.txt": files.sha256(same), "new.txt": files.sha256(new)}

    def again(mark: str) -> Path:
        contents = {"x/shared.txt": same, "new.txt": new}
        made = releases.publish(
            warehouse, "d", contents, {"fingerprint": mark}, expected=expected, linked_from=base
        )
        folder = warehouse / "releases/d" / f"v{made['version']}"
        assert verify_files(folder) == []
        return folder

    folder = again("linked")
    assert (folder / "x/shared.txt").samefile(base / "shared.txt")
    assert not (folder / "new.txt").samefile(new)
    (base / "shared.txt").write_text("damaged")  # and with it v2, which has it too
    folder = again("copied")
    assert (folder / "x/shared.txt").read_text() == "the same in all"


def test_a_download_links_what_an_earlier_release_has(store: Store) -> None:
    for mark in ("a", "b"):
        publish(store.machine("x"), mark)
    brought(store, "reader", "d@v1")
    store.gate.requests.clear()
    brought(store, "reader", "d@v2")
    assert store.count("GET", "shared.txt") == 0
    folder = store.machine("reader") / "releases/d"
    assert (folder / "v1/shared.txt").samefile(folder / "v2/shared.txt")
    (store.machine("reader") / "releases/d/v2").rename(store.tmp / "away")
    (folder / "v1/shared.txt").write_text("damaged")
    brought(store, "reader", "d@v2")  # fetched, as what could be linked is not what is needed
    assert store.count("GET", "shared.txt") == 1


# Tags


def test_a_tag_of_one_machine_is_every_machines(store: Store) -> None:
    for mark in ("a", "b"):
        publish(store.machine("x"), mark)
    tagging.move(store.machine("x"), Ref("d", 1), "production")
    assert brought(store, "reader", "d@production")["version"] == 1
    tagging.move(store.machine("y"), Ref("d", 2), "production")
    assert brought(store, "reader", "d@production")["version"] == 2
    tagging.rollback(store.machine("x"), Ref("d", tag="production"))  # x has not seen the last move
    copies.pull_tags(store.machine("z"))
    tag = tags.read(store.machine("z"), "d", "production")
    assert tag is not None
    assert [entry.version for entry in tag.entries] == [1, 2, 1]
    tagging.remove(store.machine("y"), Ref("d"), "production")
    copies.pull_tags(store.machine("z"))
    assert tags.names(store.machine("z"), "d") == []
    with pytest.raises(RecipeError, match="holds no release d@production; there is: d@v1, d@v2"):
        brought(store, "reader", "d@production")


def test_a_tag_that_another_moved_meanwhile_is_not_overwritten(store: Store) -> None:
    x, y = store.machine("x"), store.machine("y")
    copies.push_tag(x, "d", "production", None, {"version": 1})
    copies.push_tag(x, "d", "production", {"version": 1}, {"version": 2})
    for old in (None, {"version": 1}):  # what a machine knows that has not seen the last move
        for new in ({"version": 3}, None):
            with pytest.raises(WarehouseError, match="was moved by another meanwhile"):
                copies.push_tag(y, "d", "production", old, new)
    moved: list[int] = []

    def rival(method: str, path: str) -> None:
        if (method, path) == ("PUT", store.path("tags/d/production.json")) and not moved:
            moved.append(1)  # between the look and the write
            copies.push_tag(x, "d", "production", {"version": 2}, {"version": 4})

    store.gate.before = rival
    with pytest.raises(WarehouseError, match="was moved by another meanwhile"):
        copies.push_tag(y, "d", "production", {"version": 2}, {"version": 3})
    assert json.loads(store.get("tags/d/production.json") or b"") == {"version": 4}


# Stores that are damaged, hostile or not there


def test_a_damaged_object_is_refused_by_name(store: Store) -> None:
    publish(store.machine("x"), "a")
    good = store.get("releases/d/v1/folder/own.txt") or b""
    store.put("releases/d/v1/folder/own.txt", b"tampered")
    with pytest.raises(WarehouseError, match=r"v1/folder/own\.txt: was damaged .* expected SHA-256"):
        brought(store, "reader")
    folder = store.machine("reader") / "releases" / "d"
    assert list(folder.iterdir()) == []
    store.put("releases/d/v1/folder/own.txt", good)
    assert brought(store, "reader")["version"] == 1


def test_a_missing_object_is_named(store: Store) -> None:
    publish(store.machine("x"), "a")
    store.ask("DELETE", store.path("releases/d/v1/shared.txt"))
    with pytest.raises(WarehouseError, match=r"releases/d/v1/shared\.txt is missing in the store"):
        brought(store, "reader")


HOSTILE = [
    "../../../../evil", "/evil", "folder/../../evil", "a\\..\\evil", "nul\0", "a//evil", "", ".", "./evil",
    "release.json", "a\nb", "\ud800", "x" * 300, "folder/",
]  # fmt: skip


@pytest.fixture(scope="module")
def a_record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A record that holds; tests change copies of it."""
    return publish(tmp_path_factory.mktemp("any") / "w", "a")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_refused_before_anything_is_written(
    store: Store, a_record: dict[str, Any], name: str
) -> None:
    record = {**a_record, "files": {**a_record["files"], name: a_record["files"]["shared.txt"]}}
    store.put("releases/d/v1/release.json", json.dumps(record).encode())
    with pytest.raises(WarehouseError, match=r"release\.json: 'files'"):
        brought(store, "reader")
    assert not list(store.tmp.rglob("*evil*"))
    assert not (store.machine("reader") / "releases").exists()
    folder = store.tmp / "copied"
    folder.mkdir()
    (folder / "release.json").write_text(json.dumps(record))
    with pytest.raises(WarehouseError, match=r"release\.json: 'files'"):
        releases.read(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", "1"), ("version", True), ("version", 0), ("version", 2), ("dataset", "../d"),
        ("dataset", "e"), ("dataset", None), ("fingerprint", 3), ("format", 2), ("files", []),
        ("files", {"a": {"bytes": 1, "sha256": "?"}}), ("files", {"a": None}), ("rows", {"../x": 1}),
        ("embeddings", {"embeddings_text": {"dim": "1]; drop"}}), ("kind", "append"),
        ("base", {"version": 7}), ("base", "v1"),
    ],
)  # fmt: skip
def test_an_unfit_record_is_refused(store: Store, a_record: dict[str, Any], key: str, value: Any) -> None:
    store.put("releases/d/v1/release.json", json.dumps({**a_record, key: value}).encode())
    with pytest.raises(WarehouseError, match=r"releases/d/v1/release\.json"):
        brought(store, "reader")
    assert not (store.machine("reader") / "releases").exists()


@pytest.mark.parametrize("text", [b"{", b"\xff", b"[" * 100_000], ids=["cut", "no text", "deep"])
def test_a_damaged_record_is_refused(store: Store, text: bytes) -> None:
    store.put("releases/d/v1/release.json", text)
    with pytest.raises(WarehouseError, match=r"v1/release\.json: cannot be read as JSON"):
        brought(store, "reader")


def test_another_warehouse_in_the_same_place_is_noticed(store: Store) -> None:
    record = publish(store.machine("x"), "a")
    brought(store, "reader")
    store.put("releases/d/v1/release.json", json.dumps({**record, "fingerprint": "b"}).encode())
    with pytest.raises(WarehouseError, match=r"v1: is another release than .* Remove the folder"):
        brought(store, "reader")


def test_a_release_that_is_not_there(store: Store) -> None:
    with pytest.raises(RecipeError, match=r"holds no release d; there is: nothing yet"):
        brought(store, "reader")
    publish(store.machine("x"), "a")
    with pytest.raises(RecipeError, match=r"holds no release d@v2; there is: d@v1"):
        brought(store, "reader", "d@v2")
    with pytest.raises(RecipeError, match=r"holds no release e; there is: d"):
        brought(store, "reader", "e")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def troubles(store: Store) -> dict[str, Callable[[pytest.MonkeyPatch], None]]:
    def denied(code: str) -> Callable[[pytest.MonkeyPatch], None]:
        return lambda patch: patch.setattr(store.gate, "before", lambda method, path: code)

    def env(**settings: str) -> Callable[[pytest.MonkeyPatch], None]:
        return lambda patch: [patch.setenv(name, value) for name, value in settings.items()][:0] and None

    def anonymous(patch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            patch.delenv(name)

    def no_bucket(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(store, "bucket", "no-such-bucket")

    return {
        "denied": denied("AccessDenied"),
        "wrong key": denied("InvalidAccessKeyId"),
        "wrong secret": denied("SignatureDoesNotMatch"),
        "odd": denied(f"{SECRET} {SECRET}"),
        "down": env(AWS_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}"),
        "down, password": env(AWS_ENDPOINT_URL=f"http://me:{SECRET}@127.0.0.1:{free_port()}"),
        "no endpoint": env(AWS_ENDPOINT_URL=f"{SECRET} is no URL"),
        "no profile": env(AWS_PROFILE="missing"),
        "anonymous": anonymous,
        "no bucket": no_bucket,
    }


TOLD = {
    "denied": r"access to .* was denied \(AccessDenied\)",
    "wrong key": r"access to .* was denied \(InvalidAccessKeyId\)",
    "wrong secret": r"access to .* was denied \(SignatureDoesNotMatch\)",
    "odd": r"access to .* was denied \(unknown\)",
    "down": r"the store at http://127\.0\.0\.1:\d+ cannot be reached",
    "down, password": r"the store at http://127\.0\.0\.1:\d+ cannot be reached",
    "no endpoint": r"the AWS settings in the environment cannot be used",
    "no profile": r"no usable credentials",
    "anonymous": r"no usable credentials in the environment's AWS chain",
    "no bucket": r"there is no bucket 'no-such-bucket'",
}


@pytest.mark.parametrize("trouble", TOLD)
def test_a_store_in_trouble_gives_one_line_and_no_secret(
    store: Store, monkeypatch: pytest.MonkeyPatch, other_settings: Callable[[], None], trouble: str
) -> None:
    troubles(store)[trouble](monkeypatch)
    other_settings()
    for act in (lambda: publish(store.machine("x"), "a"), lambda: brought(store, "reader")):
        with pytest.raises(WarehouseError, match=TOLD[trouble]) as caught:
            act()
        message = str(caught.value)
        assert message.startswith(f"s3://{store.bucket}/some/prefix: ")
        assert "\n" not in message
        assert SECRET not in message
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


def test_the_command_tells_in_one_line_that_the_store_is_down(
    store: Store,
    other_settings: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store.machine("reader")
    store.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    other_settings()
    monkeypatch.setattr(sys, "argv", ["sidmill", "sql", "select 1", "--warehouse", store.url])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    printed = capsys.readouterr()
    [line] = printed.err.splitlines()
    assert line.startswith(f"sidmill: {store.url}: the store at http://127.0.0.1:")
    assert printed.out == ""


def test_without_the_extra_the_error_says_how_to_get_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sidmill\[s3\]'"):
        brought(store, "reader")


def test_a_full_disk_is_told_as_such(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(store.machine("x"), "a")

    def full(self: Objects, key: str, path: Path) -> None:
        with self._explained(key):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Objects, "download", full)
    with pytest.raises(WarehouseError, match=r"cannot be written \(No space left on device\)"):
        brought(store, "reader")


# Secrets and URLs


def test_credentials_are_nowhere(
    store: Store, shared: dict[str, Any], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG, logger="sidmill")
    publish(store.machine("maker"), "a")
    for command in (["releases"], ["sql", "from releases"], ["show", "small"], ["releases", "--json"]):
        store.machine("reader")
        assert SECRET not in CliRunner().invoke(app, [*command, "-w", store.url]).output
    assert any("upload" in record.getMessage() for record in caplog.records)
    assert SECRET not in caplog.text
    printed = capfd.readouterr()
    assert SECRET not in printed.out + printed.err
    local = [path for path in store.tmp.rglob("*") if path.is_file()]
    objects = {path for method, path in store.gate.requests if method == "PUT"}
    assert {"origin.json", "release.json", catalog.NAME} <= {path.name for path in local}
    assert {"claim.json", "release.json"} <= {path.rpartition("/")[2] for path in objects}
    for path in local:
        assert SECRET.encode() not in path.read_bytes(), path
    for name in objects:
        assert SECRET.encode() not in (store.ask("GET", name) or SECRET.encode()), name


@pytest.mark.parametrize(
    "url",
    [
        f"s3://key:{SECRET}@bucket/prefix", f"s3://key:{SECRET}/x@bucket/prefix", f"s3://bucket/{SECRET}?a=b",
        f"s3://bucket/p#{SECRET}", "s3://bucket/../other", "s3://bucket/a/../b", "s3://bucket/a//b", "s3://",
        "s3://b", "s3:///prefix", "s3:/bucket/prefix", "s3://Bucket/p", "s3://a..b/p", "s3://bucket/%2e%2e",
        "s3://bucket/a b", "gs://bucket/p", "http://bucket/p", "s3://bucket/.hidden", "s3://bucket/a\n",
    ],
)  # fmt: skip
def test_a_url_that_is_none_is_refused_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("SIDMILL_WORK", str(tmp_path / "work"))
    for open_it in (warehouse_path, sidmill.open):
        with pytest.raises(RecipeError, match="expected a folder or s3://BUCKET/PREFIX") as caught:
            open_it(url)
        assert SECRET not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_each_place_has_a_work_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDMILL_WORK", str(tmp_path / "work"))
    urls = ["s3://bucket", "s3://bucket/a", "s3://bucket/a/b", "s3://other/a"]
    folders = [warehouse_path(url) for url in urls]
    assert len(set(folders)) == len(urls)
    assert {folder.parent for folder in folders} == {tmp_path / "work"}
    assert warehouse_path("s3://bucket/a/") == folders[1]
    assert warehouse_path(str(folders[1])) == folders[1]  # its own folder is as good a name
    for url, folder in zip(urls, folders, strict=True):
        found = origin.of(folder)
        assert found is not None
        assert found.url == url
        assert json.loads((folder / "origin.json").read_text()) == {"url": url}
    assert origin.of(tmp_path) is None
    monkeypatch.delenv("SIDMILL_WORK")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert warehouse_path("s3://bucket").parent == tmp_path / "home" / ".cache" / "sidmill"


@pytest.mark.parametrize("content", ["{}", "[]", '{"url": "s3://key:secret@bucket"}', '{"url": "file:///"}'])
def test_an_origin_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "origin.json").write_text(content)
    with pytest.raises(WarehouseError, match="expected the url of a warehouse"):
        copies.bring(tmp_path, Ref("d"))
