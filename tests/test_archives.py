"""Plain, gzip and zip give the same lines; bombs, traversal and broken archives are refused in one line."""

import gzip
import io
import itertools
import zipfile
from pathlib import Path

import pytest
from helpers import ROOT, run_chain, write_dump
from hypothesis import given
from hypothesis import strategies as st

from sid_pipelines.sources import archives, candidates
from sid_pipelines.sources.lines import LineReader, ahead
from sid_schemas import SourceError

RATINGS = [f"{u}::{m:07d}::7::1365029107" for u in range(40) for m in range(20)]
MOVIES = [f"{m:07d}::Film {m} (1950)::Drama" for m in range(20)]
DIGITAL_MUSIC = ROOT.parent / "shared" / "data" / "amazon2014" / "reviews_Digital_Music_5.json.gz"


def read(path: Path, member: str | None = None, **options: object) -> list[str]:
    reader = LineReader(path, member, **options)  # type: ignore[arg-type]
    return [line for batch in reader.batches() for line in batch.column(1).to_pylist()]


@given(content=st.binary(max_size=3000), members=st.integers(1, 3), padding=st.integers(0, 9))
def test_gzip_members_and_padding_are_one_stream(
    content: bytes, members: int, padding: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("gz") / "x.gz"
    cuts = [len(content) * n // members for n in range(members + 1)]
    parts = [gzip.compress(content[a:b]) for a, b in itertools.pairwise(cuts)]
    path.write_bytes(b"".join(parts) + b"\0" * padding)
    assert b"".join(archives.blocks(path)) == content


def test_a_zip_is_read_without_unpacking(tmp_path: Path) -> None:
    recipe = write_dump(tmp_path, RATINGS, MOVIES)
    plain = run_chain(recipe, tmp_path / "plain", until="ingest").outputs["ingest"]
    dump = tmp_path / "dump"
    with zipfile.ZipFile(tmp_path / "dump.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("ratings.dat", "movies.dat"):
            archive.write(dump / name, f"MovieTweetings-1/{name}")
            archive.writestr(f"__MACOSX/._{name}", "junk")
    zipped = run_chain(recipe, tmp_path / "zip", "source.path=dump.zip", until="ingest").outputs["ingest"]
    assert (
        zipped.manifest["rows"]
        == plain.manifest["rows"]
        == {"raw_interactions": 800, "raw_items": 20, "rejects": 0}
    )
    assert zipped.read("raw_interactions")["source_file"][0].as_py() == "dump.zip/ratings.dat"
    assert zipped.read("raw_interactions")["ts"].equals(plain.read("raw_interactions")["ts"])


@pytest.mark.parametrize(
    "name", ["../evil.dat", "/etc/ratings.dat", "a/../../ratings.dat", "C:\\ratings.dat", "..\\x"]
)
def test_a_member_that_points_out_of_the_archive_is_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "dump.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), "1::2::3::4\n")
    with pytest.raises(SourceError, match=r"dump\.zip: holds a member called .* points out of the archive"):
        candidates(tmp_path / "dump.zip")


@pytest.mark.parametrize("name", [".", "", "./.", "\\"])
def test_a_member_without_a_name_is_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "dump.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), "1::2::3::4\n")
    with pytest.raises(SourceError, match=r"dump\.zip: holds a member called .*; expected plain names"):
        candidates(tmp_path / "dump.zip")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("place", [4, 9, 40, -3])
def test_a_damaged_member_is_told_however_it_is_packed(tmp_path: Path, method: int, place: int) -> None:
    path = tmp_path / "dump.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("ratings.dat", "\n".join(RATINGS))
    start, size = 30 + len("ratings.dat"), zipfile.ZipFile(path).infolist()[0].compress_size
    spoilt = bytearray(path.read_bytes())
    spoilt[start + place % size] ^= 0xFF
    path.write_bytes(spoilt)
    with pytest.raises(
        SourceError, match=r"ratings\.dat, after row \d+: the compressed stream is damaged.*Download"
    ):
        read(path, "ratings.dat")


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "BOMB_BYTES", 1 << 20)
    bomb = b"1::2::3::4\n" * 1_000_000
    packed = tmp_path / "ratings.dat.gz"
    packed.write_bytes(gzip.compress(bomb, 9))
    with pytest.raises(SourceError, match=r"ratings\.dat\.gz: .* as a zip bomb does"):
        read(packed)
    with zipfile.ZipFile(tmp_path / "dump.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("ratings.dat", bomb)
    with pytest.raises(SourceError, match=r"dump\.zip: .* as a zip bomb does"):
        candidates(tmp_path / "dump.zip")
    monkeypatch.setattr(archives, "BOMB_RATIO", 2_000)  # what is merely repetitive passes
    assert len(read(packed)) == 1_000_000


def test_a_truncated_zip_says_so(tmp_path: Path) -> None:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ratings.dat", "\n".join(RATINGS))
    (tmp_path / "dump.zip").write_bytes(held.getvalue()[:-30])
    with pytest.raises(
        SourceError, match=r"dump\.zip: is a damaged or truncated zip archive .*Download it again"
    ):
        candidates(tmp_path / "dump.zip")
    version = held.getvalue().index(b"PK\x01\x02") + 6
    (tmp_path / "dump.zip").write_bytes(held.getvalue()[:version] + b"\x7f" + held.getvalue()[version + 1 :])
    with pytest.raises(SourceError, match=r"dump\.zip: is a damaged or truncated zip archive"):
        candidates(tmp_path / "dump.zip")
    spoilt = bytearray(held.getvalue())
    spoilt[100] ^= 0xFF
    (tmp_path / "dump.zip").write_bytes(spoilt)
    with pytest.raises(
        SourceError, match=r"dump\.zip/ratings\.dat, after row \d+: the compressed stream is damaged"
    ):
        read(tmp_path / "dump.zip", "ratings.dat")


def test_a_truncated_gzip_is_kept_where_asked(tmp_path: Path) -> None:
    recipe = write_dump(tmp_path, RATINGS, MOVIES)
    plain = (tmp_path / "dump" / "ratings.dat").read_bytes()
    path = tmp_path / "dump" / "ratings.dat.gz"
    path.write_bytes(gzip.compress(plain)[:-40])
    (tmp_path / "dump" / "ratings.dat").unlink()
    with pytest.raises(SourceError, match=r'lines were readable.*\[source\] truncated = "keep"'):
        run_chain(recipe, tmp_path / "w", until="ingest")
    done = run_chain(recipe, tmp_path / "w", "source.truncated=keep", until="ingest").outputs["ingest"]
    seen = done.facts["files"]["dump/ratings.dat.gz"]
    kept = done.read("raw_interactions")["source_row"].to_pylist()
    assert kept == list(range(1, len(kept) + 1))
    assert 0 < len(kept) < 800
    [reject] = done.read("rejects").to_pylist()
    assert reject["source_row"] == len(kept) + 1
    assert RATINGS[len(kept)].startswith(reject["raw"])
    assert reject["reason"].startswith("the gzip stream ends here")
    assert (seen["cut_off"], seen["records"], seen["rejects"]) == (True, len(kept), 1)


@pytest.mark.realdata
@pytest.mark.skipif(not DIGITAL_MUSIC.exists(), reason=f"the real dump is not there: {DIGITAL_MUSIC}")
def test_a_really_truncated_dump_gives_the_lines_it_has() -> None:
    with pytest.raises(SourceError, match=r"row 6909: the gzip stream ends here.* 6,908 lines were readable"):
        read(DIGITAL_MUSIC)
    reader = LineReader(DIGITAL_MUSIC, truncated="keep")
    assert sum(batch.num_rows for batch in reader.batches()) == 6_908
    assert reader.cut is not None
    assert reader.cut[0] == 6_909
    assert reader.cut[1].startswith('{"reviewerID"')


@pytest.mark.parametrize("chunk", [1 << 20, 8 << 20])
def test_long_lines_zeros_and_marks(tmp_path: Path, chunk: int) -> None:
    long = "x" * (10 << 20)
    path = tmp_path / "lines"
    path.write_bytes(b"\xef\xbb\xbf" + f"a\0b\r\n{long}\r\n\r\nend".encode())
    assert read(path, chunk=chunk) == ["a\0b", long, "", "end"]


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sid_pipelines.sources.lines.LONGEST", 1000)
    path = tmp_path / "lines"
    path.write_text("a\n" + "x" * 5000)
    with pytest.raises(SourceError, match=r"lines, row 2: the line is longer than 1,000 bytes"):
        read(path, chunk=100)


@given(
    records=st.lists(st.text(st.sampled_from('ab,"\n'), max_size=8), min_size=1, max_size=12),
    chunk=st.integers(1, 30),
)
def test_line_ends_between_quotes_end_no_line(
    records: list[str], chunk: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lines = ['"' + record.replace('"', '""') + '",x' for record in records]
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    path.write_text("".join(f"{line}\n" for line in lines))
    assert read(path, chunk=chunk, quote='"') == lines
    reader = LineReader(path, quote='"', chunk=chunk)
    rows = [row for batch in reader.batches() for row in batch.column(0).to_pylist()]
    assert rows == [1 + sum(line.count("\n") + 1 for line in lines[:n]) for n in range(len(lines))]


def test_what_fails_ahead_fails_here() -> None:
    def items() -> object:
        yield 1
        raise SourceError("broken")

    made = ahead(items())  # type: ignore[var-annotated, arg-type]
    assert next(made) == 1
    with pytest.raises(SourceError, match="broken"):
        next(made)
