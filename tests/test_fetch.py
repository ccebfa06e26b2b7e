"""Downloads: whole or absent, resumed, checked, from the first place that has the file; all local."""

import fcntl
import hashlib
import json
import os
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit

import pytest
from helpers import inside
from typer.testing import CliRunner

from sid_pipelines import download, fetch, public_dumps
from sid_pipelines.fetch import Fetched, fetch_file, mirrors_of, ready, recipe_lines, recipe_source
from sid_pipelines.public_dumps import DUMPS, Dump, DumpFile, dump_named, menu, menu_table
from sid_pipelines.sources import SOURCES
from sid_schemas import RecipeError, SourceError
from sidmill import cli
from sidmill.app import StoppedError

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NEWER = CONTENT[::-1]
NAME = "dump.dat"


@dataclass
class Site:
    """What the server does, and what it was asked: (path, Range, If-Range) of each request."""

    files: dict[str, bytes] = field(default_factory=lambda: {f"/{NAME}": CONTENT})
    ranges: bool = True
    etag: str | None = '"one"'
    cuts: list[int] = field(default_factory=list)  # the n-th answer stops after so many bytes
    statuses: list[int] = field(default_factory=list)  # the n-th answer is this status, 0 is as usual
    redirects: dict[str, str] = field(default_factory=dict)
    lengths: bool = True
    shift: int = 0  # of where a range starts, as a broken server has it
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    url: str = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted, condition = request.headers["Range"], request.headers["If-Range"]
        self.asked.append((request.path, wanted, condition))
        status = self.statuses.pop(0) if self.statuses else 0
        if request.path in self.redirects:
            request.send_response(302)
            request.send_header("Location", self.redirects[request.path])
            request.end_headers()
            return
        if status or request.path not in self.files:
            request.send_error(status or 404)
            return
        body = self.files[request.path]
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if not self.ranges or (condition and condition != self.etag):
            start = 0
        if start and start >= len(body):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(body)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start + self.shift}-{len(body) - 1}/{len(body)}")
        if self.lengths:
            request.send_header("Content-Length", str(len(body) - start))
        if self.etag:
            request.send_header("ETag", self.etag)
        request.end_headers()
        cut = self.cuts.pop(0) if self.cuts else len(body)
        request.wfile.write(body[start:][:cut])
        request.close_connection = True


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.answer(self)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE", 0.0)
    for name in (fetch.MIRROR, "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")


def a_dump(*urls: str, sha256: str | None = SHA256, name: str = NAME) -> Dump:
    return Dump("test", "movietweetings", "MIT", (DumpFile(name, urls, sha256, len(CONTENT)),))


def bring(dump: Dump, folder: Path, **options: Any) -> Fetched:
    return fetch_file(dump, dump.files[0], folder, **options)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def refused(dump: Dump, folder: Path, **options: Any) -> str:
    with pytest.raises(SourceError) as caught:
        bring(dump, folder, **options)
    assert "\n" not in str(caught.value)
    assert not (folder / dump.files[0].name).exists()
    return str(caught.value)


def test_a_file_is_downloaded_checked_and_then_named(site: Site, tmp_path: Path) -> None:
    steps: list[tuple[int, int | None]] = []
    there: list[bool] = []

    def progress(done: int, total: int | None) -> None:
        steps.append((done, total))
        there.append((tmp_path / "new" / NAME).exists())

    url = f"{site.url}/{NAME}"
    fetched = bring(a_dump(url), tmp_path / "new", progress=progress)
    assert (fetched.path.read_bytes(), fetched.sha256) == (CONTENT, SHA256)
    assert (fetched.bytes, fetched.place) == (len(CONTENT), url)
    assert steps[0] == (0, len(CONTENT))
    assert steps[-1] == (len(CONTENT), len(CONTENT))
    assert not any(there)  # never a partial file under the final name
    assert names(tmp_path / "new") == {NAME}
    assert fetched.summary == f"256,000 bytes from {url}, SHA-256 as the table of dumps has it"


def test_a_cut_download_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    site.cuts = [100_000, 50_000]
    assert bring(a_dump(f"{site.url}/{NAME}"), tmp_path).path.read_bytes() == CONTENT
    assert site.asked == [
        (f"/{NAME}", None, None),
        (f"/{NAME}", "bytes=100000-", '"one"'),
        (f"/{NAME}", "bytes=150000-", '"one"'),
    ]
    assert names(tmp_path) == {NAME}


@pytest.mark.parametrize("sha256", [SHA256, None])
def test_a_later_fetch_goes_on_where_an_earlier_one_stopped(
    site: Site, tmp_path: Path, sha256: str | None
) -> None:
    site.cuts, site.statuses = [100_000], [0, 404]
    dump = a_dump(f"{site.url}/{NAME}", sha256=sha256)
    assert "HTTP 404" in refused(dump, tmp_path)
    assert names(tmp_path) == {f"{NAME}.part", f"{NAME}.part.json"}
    assert (tmp_path / f"{NAME}.part").read_bytes() == CONTENT[:100_000]
    assert bring(dump, tmp_path).sha256 == SHA256
    assert site.asked[-1] == (f"/{NAME}", "bytes=100000-", '"one"')


def test_a_server_without_ranges_sends_the_whole_again(site: Site, tmp_path: Path) -> None:
    site.ranges, site.cuts = False, [100_000, 200_000]
    assert bring(a_dump(f"{site.url}/{NAME}"), tmp_path).path.read_bytes() == CONTENT
    assert [wanted for _, wanted, _ in site.asked] == [None, "bytes=100000-", "bytes=200000-"]


def test_a_file_that_changed_in_between_is_not_mixed(site: Site, tmp_path: Path) -> None:
    site.cuts, site.statuses = [100_000], [0, 404]
    dump = a_dump(f"{site.url}/{NAME}", sha256=None)
    refused(dump, tmp_path)
    site.files[f"/{NAME}"], site.etag = NEWER, '"two"'
    assert bring(dump, tmp_path).path.read_bytes() == NEWER
    assert site.asked[-1] == (f"/{NAME}", "bytes=100000-", '"one"')


def test_without_a_pin_and_without_an_etag_nothing_is_resumed(site: Site, tmp_path: Path) -> None:
    site.cuts, site.etag = [100_000], None
    assert bring(a_dump(f"{site.url}/{NAME}", sha256=None), tmp_path).path.read_bytes() == CONTENT
    assert [wanted for _, wanted, _ in site.asked] == [None, None]
    weak = a_dump(f"{site.url}/{NAME}", sha256=None)
    site.cuts, site.etag, site.asked = [100_000], 'W/"one"', []
    bring(weak, tmp_path / "weak")
    assert [wanted for _, wanted, _ in site.asked] == [None, None]


def test_a_pinned_part_of_another_file_is_fetched_anew(site: Site, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(b"x" * 100_000)
    assert bring(a_dump(f"{site.url}/{NAME}"), tmp_path).path.read_bytes() == CONTENT
    assert [wanted for _, wanted, _ in site.asked] == ["bytes=100000-", None]


@pytest.mark.parametrize(
    ("part", "wanted"),
    [(CONTENT, ["bytes=256000-"]), (NEWER, ["bytes=256000-", None]), (CONTENT * 2, ["bytes=512000-", None])],
    ids=["whole", "whole of another", "too long"],
)
def test_a_part_with_nothing_left_to_fetch(
    site: Site, tmp_path: Path, part: bytes, wanted: list[str | None]
) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(part)
    assert bring(a_dump(f"{site.url}/{NAME}"), tmp_path).path.read_bytes() == CONTENT
    assert [asked for _, asked, _ in site.asked] == wanted


def test_a_wrong_range_is_not_appended(site: Site, tmp_path: Path) -> None:
    site.cuts, site.shift = [100_000], 1
    assert bring(a_dump(f"{site.url}/{NAME}"), tmp_path).path.read_bytes() == CONTENT
    assert [wanted for _, wanted, _ in site.asked] == [None, "bytes=100000-", None]


def test_passing_errors_are_tried_again_and_lasting_ones_are_not(site: Site, tmp_path: Path) -> None:
    site.statuses = [503, 429, 500]
    assert bring(a_dump(f"{site.url}/{NAME}"), tmp_path / "a").sha256 == SHA256
    assert len(site.asked) == 4
    site.statuses, site.asked = [503] * 50, []
    assert "HTTP 503 Service Unavailable (after 5 attempts)" in refused(
        a_dump(f"{site.url}/{NAME}"), tmp_path / "b"
    )
    site.statuses, site.asked = [403], []
    assert "HTTP 403 Forbidden" in refused(a_dump(f"{site.url}/{NAME}"), tmp_path / "c")
    assert len(site.asked) == 1
    assert names(tmp_path / "b") == names(tmp_path / "c") == set()


def test_a_server_that_always_cuts_ends_the_attempts(site: Site, tmp_path: Path) -> None:
    site.ranges, site.cuts = False, [1000] * 50
    message = refused(a_dump(f"{site.url}/{NAME}"), tmp_path)
    assert "broke off after 1,000 of 256,000 bytes (after 6 attempts)" in message


def test_a_wrong_hash_leaves_nothing(site: Site, tmp_path: Path) -> None:
    site.files[f"/{NAME}"] = NEWER
    message = refused(a_dump(f"{site.url}/{NAME}"), tmp_path)
    got = hashlib.sha256(NEWER).hexdigest()
    assert f"{site.url}/{NAME}: expected SHA-256 {SHA256} (the table of dumps), got {got}" in message
    assert "--mirror" in message
    assert names(tmp_path) == set()


def test_places_are_tried_in_order(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.files = {f"/wrong/{NAME}": NEWER, f"/second/{NAME}": CONTENT}
    urls = [f"{site.url}/{part}/{NAME}" for part in ("first", "wrong", "second", "third")]
    monkeypatch.setenv(fetch.MIRROR, f"{site.url}/environment/")
    mirrors = mirrors_of([f"{site.url}/given", str(tmp_path / "nowhere")])
    assert bring(a_dump(*urls), tmp_path / "new", mirrors=mirrors).place == urls[2]
    assert [path for path, *_ in site.asked] == [
        f"/given/{NAME}",
        f"/environment/{NAME}",
        f"/first/{NAME}",
        f"/wrong/{NAME}",
        f"/second/{NAME}",
    ]


def test_what_one_mirror_began_another_ends(site: Site, tmp_path: Path) -> None:
    site.files, site.cuts = {f"/a/{NAME}": CONTENT, f"/b/{NAME}": CONTENT}, [100_000]
    site.statuses = [0, 404]
    dump = a_dump(f"{site.url}/a/{NAME}", f"{site.url}/b/{NAME}")
    assert bring(dump, tmp_path).path.read_bytes() == CONTENT
    assert site.asked[-1] == (f"/b/{NAME}", "bytes=100000-", None)


def test_a_part_of_two_places_is_not_trusted_without_a_pin(site: Site, tmp_path: Path) -> None:
    site.files, site.cuts = {f"/a/{NAME}": NEWER, f"/b/{NAME}": CONTENT}, [100_000, 50_000]
    site.statuses = [0, 404, 0, 404]
    urls = (f"{site.url}/a/{NAME}", f"{site.url}/b/{NAME}")
    refused(a_dump(*urls), tmp_path)
    assert (tmp_path / f"{NAME}.part").stat().st_size == 150_000
    assert bring(a_dump(*urls, sha256=None), tmp_path).path.read_bytes() == NEWER


def test_every_place_is_named_when_none_has_the_file(site: Site, tmp_path: Path) -> None:
    urls = [f"{site.url}/{part}/{NAME}" for part in ("first", "second")]
    message = refused(a_dump(*urls), tmp_path / "new", mirrors=[str(tmp_path)])
    for place in (*urls, str(tmp_path / NAME)):
        assert place in message
    assert message.count("HTTP 404 Not Found") == 2
    assert "No such file or directory" in message


def test_what_waiting_does_not_mend_is_not_waited_for(tmp_path: Path) -> None:
    message = refused(a_dump("http://127.0.0.1:1/x"), tmp_path)
    assert "http://127.0.0.1:1/x: cannot be reached (Connection refused)" in message
    expired = ssl.SSLCertVerificationError(1, "certificate verify failed")
    expired.verify_message = "certificate has expired"
    for reason, words in (
        (socket.gaierror(-2, "Name or service not known"), "cannot be reached (Name or service not known)"),
        (expired, "its certificate is not trusted (certificate has expired)"),
    ):
        told = download._told(URLError(reason))
        assert isinstance(told, download.MissError)
        assert str(told) == words
    assert isinstance(download._told(TimeoutError("timed out")), download.CutError)


@pytest.mark.parametrize("form", ["folder", "file", "file url", "other name"])
def test_a_local_mirror_is_copied_and_checked_the_same(tmp_path: Path, form: str) -> None:
    there = tmp_path / "my copies" / ("renamed.bin" if form == "other name" else NAME)
    there.parent.mkdir()
    there.write_bytes(CONTENT)
    mirror = {"folder": str(there.parent), "file url": there.parent.as_uri()}.get(form, str(there))
    fetched = bring(a_dump(), tmp_path / "new", mirrors=mirrors_of([mirror]))
    assert (fetched.path.read_bytes(), fetched.place) == (CONTENT, str(there))
    assert not fetched.path.is_symlink()
    assert fetched.path.stat().st_ino != there.stat().st_ino
    there.write_bytes(NEWER)
    assert f"{there}: expected SHA-256" in refused(a_dump(), tmp_path / "other", mirrors=[mirror])
    assert there.read_bytes() == NEWER


def test_a_mirror_without_the_file_costs_no_part(site: Site, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:100_000])
    bring(a_dump(f"{site.url}/{NAME}"), tmp_path, mirrors=[str(tmp_path / "nowhere")])
    assert site.asked == [(f"/{NAME}", "bytes=100000-", None)]


def test_a_file_that_is_there_is_left_alone(site: Site, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(CONTENT)
    fetched = bring(a_dump(f"{site.url}/{NAME}"), tmp_path)
    assert fetched.summary == "already there, SHA-256 as the table of dumps has it"
    (tmp_path / NAME).write_bytes(NEWER)
    with pytest.raises(SourceError, match=f"is there already with SHA-256 .*; expected {SHA256}"):
        bring(a_dump(f"{site.url}/{NAME}"), tmp_path)
    assert (tmp_path / NAME).read_bytes() == NEWER
    assert names(tmp_path) == {NAME}
    assert not site.asked


def test_what_nobody_pinned_is_said_and_checked_the_next_time(site: Site, tmp_path: Path) -> None:
    dump = a_dump(f"{site.url}/{NAME}", sha256=None)
    fetched = bring(dump, tmp_path)
    assert fetched.pin is None
    assert f"NOT PINNED: nobody's SHA-256 to check it against; its own is {SHA256}" in fetched.summary
    note = tmp_path / f"{NAME}.sha256"
    assert note.read_text() == f"{SHA256}  {NAME}\n"
    assert bring(dump, tmp_path).summary == "already there, SHA-256 as an earlier fetch has it"
    (tmp_path / NAME).unlink()
    site.files[f"/{NAME}"] = NEWER
    message = refused(dump, tmp_path)
    assert f"expected SHA-256 {SHA256} (an earlier fetch)" in message
    assert f"if the dump was renewed, delete {note}" in message
    note.unlink()
    assert bring(dump, tmp_path).path.read_bytes() == NEWER
    note.write_text("not a hash\n")
    with pytest.raises(SourceError, match=r"expected a SHA-256 and a file name"):
        bring(dump, tmp_path)


def test_a_file_of_unknown_origin_is_not_called_checked(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(NEWER)
    fetched = bring(a_dump(sha256=None), tmp_path)
    assert fetched.summary.startswith("already there, NOT PINNED")
    assert fetched.record["pinned_by"] is None


def test_a_pin_of_the_users_own(site: Site, tmp_path: Path) -> None:
    dump = a_dump(f"{site.url}/{NAME}", sha256=None)
    wrong = hashlib.sha256(NEWER).hexdigest()
    assert f"expected SHA-256 {wrong} (--sha256)" in refused(dump, tmp_path, sha256=wrong)
    fetched = bring(dump, tmp_path, sha256=SHA256.upper())
    assert fetched.summary.endswith("SHA-256 as --sha256 has it")
    assert (tmp_path / f"{NAME}.sha256").exists()
    with pytest.raises(SourceError, match=f"holds {SHA256}, but --sha256 is {wrong}"):
        bring(dump, tmp_path, sha256=wrong)


def test_a_file_whose_end_cannot_be_known_needs_a_pin(site: Site, tmp_path: Path) -> None:
    site.lengths = False
    message = refused(a_dump(f"{site.url}/{NAME}", sha256=None), tmp_path)
    assert "does not say how long the file is" in message
    assert bring(a_dump(f"{site.url}/{NAME}"), tmp_path).sha256 == SHA256


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:,x"])
def test_redirects_lead_to_no_other_scheme(site: Site, tmp_path: Path, target: str) -> None:
    site.redirects = {f"/{NAME}": target, "/moved": f"/{NAME}x"}
    assert target in refused(a_dump(f"{site.url}/{NAME}"), tmp_path)
    site.files["/dump.datx"] = CONTENT
    assert bring(a_dump(f"{site.url}/moved"), tmp_path).sha256 == SHA256


def test_https_is_not_left_for_http() -> None:
    handler = download._Redirects()
    request = download.Request("https://example.org/a")
    with pytest.raises(download.MissError, match=r"redirects to http://example\.org/a; expected https"):
        handler.redirect_request(request, None, 302, "", {}, "http://example.org/a")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["../x", "a/b", "a\\b", "..", ""])
def test_file_names_lead_nowhere_else(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match="expected a plain file name"):
        bring(a_dump(name=name), tmp_path / "new")
    assert names(tmp_path) == set()


@pytest.mark.parametrize("mirror", ["ftp://host/x", "s3://b", "http://", "http://a b/", "https://[bad"])
def test_mirrors_are_urls_or_paths(mirror: str) -> None:
    with pytest.raises(RecipeError, match="mirror"):
        mirrors_of([mirror])


def test_two_fetches_do_not_write_one_part(site: Site, tmp_path: Path) -> None:
    with (tmp_path / f"{NAME}.part").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "another fetch is writing it" in refused(a_dump(f"{site.url}/{NAME}"), tmp_path)
    assert bring(a_dump(f"{site.url}/{NAME}"), tmp_path).sha256 == SHA256


def test_a_folder_that_cannot_be_written_is_one_line(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert "Not a directory" in refused(a_dump(f"{site.url}/{NAME}"), tmp_path / "file" / "below")


def test_a_full_disk_is_not_a_broken_connection(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(part: download.Part, chunk: bytes) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(download.Part, "write", full)
    assert "No space left on device" in refused(a_dump(f"{site.url}/{NAME}"), tmp_path)
    assert len(site.asked) == 1


# The table


def test_the_table_keeps_its_own_rules() -> None:
    assert {"ml-100k", "ml-32m", "movietweetings", "amazon-2014/Beauty", "goodreads/poetry"} <= DUMPS.keys()
    for dump in DUMPS.values():
        assert re.fullmatch(r"[a-z0-9-]+(/\w+)?", dump.name)
        assert bool(dump.files) != bool(dump.get_it)
        assert dump.licence
        assert dump.reads in {"", *(file.name for file in dump.files)}
        assert len({file.name for file in dump.files}) == len(dump.files)
        for file in dump.files:
            assert re.fullmatch(r"[\w.-]+", file.name)
            assert file.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", file.sha256)
            assert file.urls
            for url in file.urls:
                parts = urlsplit(url)
                assert parts.scheme == "https" or (parts.scheme == "http" and file.sha256)
                assert parts.path.endswith(f"/{file.name}")


def test_the_copies_that_come_with_sidmill_have_the_pins_of_the_table() -> None:
    import gzip

    from helpers import EXAMPLE

    for file in DUMPS["movietweetings-50k"].files:
        packed = EXAMPLE.parent / "data" / "movietweetings-50k" / f"{file.name}.gz"
        content = gzip.decompress(packed.read_bytes())
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (file.sha256, file.bytes)


def test_names_are_found_or_the_nearest_is_said() -> None:
    assert dump_named("ml-1m").files[0].bytes == 5_917_549
    for wrong, near in (("ml1m", "'ml-1m'"), ("amazon-2014/beauty", "'amazon-2014/Beauty'")):
        with pytest.raises(RecipeError, match=near):
            dump_named(wrong)
    with pytest.raises(RecipeError, match=r"as in goodreads/children; there are: children, comics_graphic"):
        dump_named("goodreads")


def test_what_has_no_url_says_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, place in (("retailrocket", "kaggle"), ("yelp", "yelp.com"), ("trivago", "recsys.trivago")):
        with pytest.raises(SourceError, match=f'no public URL.*{place}.*kind = "{DUMPS[name].kind}"'):
            ready(DUMPS[name])


def test_a_pin_must_fit_the_dump() -> None:
    ready(DUMPS["ml-1m"], DUMPS["ml-1m"].files[0].sha256)
    for name, pin, reason in (
        ("ml-1m", "abc", "expected 64 hexadecimal digits"),
        ("ml-1m", SHA256, "is pinned to"),
        ("movietweetings", SHA256, "has 2 files"),
    ):
        with pytest.raises(RecipeError, match=reason):
            ready(DUMPS[name], pin)


def test_the_recipe_lines_read_the_dump(tmp_path: Path) -> None:
    one, two = a_dump(), replace(a_dump(), files=(DumpFile("a", ()), DumpFile("b", ())))
    section = recipe_source(one, tmp_path)
    assert recipe_lines(one, section) == f'[source]\nkind = "movietweetings"\npath = "{tmp_path / NAME}"'
    assert recipe_source(two, tmp_path) == {"kind": "movietweetings", "path": str(tmp_path)}
    assert recipe_source(replace(two, reads="b"), tmp_path) == {
        "kind": "movietweetings",
        "path": str(tmp_path / "b"),
    }
    assert "no [source] kind reads this dump yet" in recipe_lines(one, None)
    assert recipe_source(replace(one, kind="nothing"), tmp_path) is None


def test_the_menu_lists_all_and_folds_families() -> None:
    rows = menu()
    assert [row["name"] for row in rows] == list(DUMPS)
    assert {row["readable"] for row in rows if row["kind"] in SOURCES} == {True}
    columns, table = menu_table()
    assert columns == ["name", "source kind", "size", "licence", "pinned"]
    shown = {row[0]: row for row in table}
    assert shown["ml-1m"][2:] == ["5.9 MB", public_dumps.GROUPLENS, "yes"]
    assert shown["goodreads/..."][2] == "8 parts"
    assert shown["yelp"][2] == "no public URL"
    assert [row[0] for row in menu_table("goodreads")[1]] == [name for name in DUMPS if "goodreads" in name]
    with pytest.raises(RecipeError, match="nearest"):
        menu("godreads")


# The command


def test_the_command_lists_without_and_with_json() -> None:
    for arguments in ((), ("--list",)):
        printed = inside("fetch", *arguments).stdout
        assert "ml-25m" in printed
        assert "amazon-2018/..." in printed
    rows = json.loads(inside("fetch", "--list", "goodreads", "--json").stdout)
    assert len(rows) == 8
    assert rows[0]["files"][0]["urls"]


def test_the_command_fails_in_one_line(tmp_path: Path) -> None:
    for arguments, code, words in (
        (["ml-1n"], 2, "nearest known one is 'ml-1m'"),
        (["ml-1m"], 2, "--to data/ml-1m"),
        (["yelp", "--to", str(tmp_path)], 1, "no public URL"),
        (["ml-1m", "--to", str(tmp_path), "--mirror", "ftp://x"], 2, "expected http, https, file or a path"),
    ):
        done = inside("fetch", *arguments, check=False)
        assert (done.returncode, done.stderr.count("\n"), done.stdout) == (code, 1, "")
        assert words in done.stderr


def test_the_command_fetches(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.files = {"/ratings.dat": CONTENT, "/movies.dat": NEWER}
    known = tuple(DumpFile(name[1:], (f"{site.url}{name}",)) for name in site.files)
    dump = Dump("test", "movietweetings", "MIT", known)
    monkeypatch.setattr(public_dumps, "DUMPS", {"test": dump})
    printed = CliRunner().invoke(cli.app, ["fetch", "test", "--to", str(tmp_path)]).stdout
    assert f"ratings.dat  256,000 bytes from {site.url}/ratings.dat, NOT PINNED" in printed
    assert SHA256 in printed
    assert printed.endswith(f'[source]\nkind = "movietweetings"\npath = "{tmp_path}"\n')
    again = CliRunner().invoke(cli.app, ["fetch", "test", "--to", str(tmp_path), "--json"]).stdout
    told = json.loads(again)
    assert [file["sha256"] for file in told["files"]] == [SHA256, hashlib.sha256(NEWER).hexdigest()]
    assert {file["pinned_by"] for file in told["files"]} == {"an earlier fetch"}
    assert told["source"] == {"kind": "movietweetings", "path": str(tmp_path)}
    assert len(site.asked) == 2


def test_ctrl_c_keeps_the_part(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dump = a_dump(f"{site.url}/{NAME}")
    drain = download._drain

    def interrupted(
        response: Any, part: download.Part, total: int | None, progress: download.Progress
    ) -> None:
        def stop(done: int, total: int | None) -> None:
            if done:
                raise KeyboardInterrupt

        drain(response, part, total, stop)

    with monkeypatch.context() as patch:
        patch.setattr(public_dumps, "DUMPS", {"test": dump})
        patch.setattr(download, "CHUNK", 100_000)
        patch.setattr(download, "_drain", interrupted)
        result = CliRunner().invoke(cli.app, ["fetch", "test", "--to", str(tmp_path)])
    assert isinstance(result.exception, StoppedError)
    assert (tmp_path / f"{NAME}.part").read_bytes() == CONTENT[:100_000]
    assert bring(dump, tmp_path).sha256 == SHA256
    assert site.asked[-1][1] == "bytes=100000-"
