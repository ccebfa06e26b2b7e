"""Raw lines: numbered right, whatever the chunking; broken files told apart exactly."""

import gzip
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sid_pipelines.sources.lines import LineReader
from sid_schemas import SourceError


def read(path: Path, encoding: str = "utf-8", chunk: int = 16) -> list[tuple[int, str]]:
    batches = LineReader(path, encoding=encoding, chunk=chunk).batches()
    return [(row["source_row"], row["raw"]) for batch in batches for row in batch.to_pylist()]


TEXT = st.text(st.characters(exclude_characters="\r\n\ufeff", exclude_categories=("Cs",)), max_size=30)


@given(lines=st.lists(TEXT, min_size=1, max_size=20), chunk=st.integers(1, 40), packed=st.booleans())
def test_lines_come_back_with_their_numbers(lines: list[str], chunk: int, packed: bool) -> None:
    content = "".join(f"{line}\n" for line in lines).encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lines"
        path.write_bytes(gzip.compress(content) if packed else content)
        assert read(path, chunk=chunk) == list(enumerate(lines, start=1))


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"a\nb", ["a", "b"]),  # no line end at the end
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"\xef\xbb\xbfa\nb\n", ["a", "b"]),  # a byte order mark
        (b"a\n\nb\n", ["a", "", "b"]),
        (b"a\0b\n", ["a\0b"]),
        (("é" * 40 + "\n").encode() * 2, ["é" * 40] * 2),  # characters across chunks
    ],
)
def test_line_ends_and_marks(tmp_path: Path, content: bytes, lines: list[str]) -> None:
    path = tmp_path / "lines"
    path.write_bytes(content)
    assert [line for _, line in read(path)] == lines


def test_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes("Fantômas\nAmélie\n".encode("latin-1"))
    assert [line for _, line in read(path, "latin-1", chunk=3)] == ["Fantômas", "Amélie"]


def test_a_character_cut_in_half_at_the_end_is_told(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes("one\ntwo\nthree".encode("utf-16-le")[:-1])
    with pytest.raises(SourceError, match="expected utf-16"):
        read(path, "utf-16-le", chunk=100)
    path.write_bytes("one\ntwo\nthree".encode("utf-16"))
    assert [line for _, line in read(path, "utf-16", chunk=5)] == ["one", "two", "three"]
    path.write_bytes("a\nb\ncé\n".encode("latin-1"))
    with pytest.raises(SourceError, match=r"row 3: byte .* at offset 1 of the row is not ascii"):
        read(path, "ascii", chunk=1000)


def test_bytes_of_another_encoding_name_the_row(tmp_path: Path) -> None:
    path = tmp_path / "movies.dat"
    path.write_bytes(b"one\ntwo\n" + "Fantômas\n".encode("latin-1"))
    with pytest.raises(
        SourceError, match=r"movies\.dat, row 3: byte b'\\xf4' at offset 4 of the row is not utf-8"
    ):
        read(path)
    with pytest.raises(SourceError, match=r'row 3.*encoding = "latin-1"'):
        read(path, chunk=10_000)


def test_a_truncated_gzip_says_how_far_it_was_readable(tmp_path: Path) -> None:
    path = tmp_path / "ratings.dat.gz"
    packed = gzip.compress("".join(f"{n}::{n}\n" for n in range(50_000)).encode())
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(
        SourceError, match=r"row [\d,]+: the gzip stream ends here.* [\d,]+ lines were readable"
    ) as caught:
        read(path, chunk=4096)
    readable = int(str(caught.value).split(" lines were readable")[0].split()[-1].replace(",", ""))
    assert 10_000 < readable < 40_000


@pytest.mark.parametrize("chunk", [1, 7, 16, 1000])
@pytest.mark.parametrize(
    ("content", "row"),
    [
        ('a,b\nx,1\ny,5" disk\nz,2\nz,3\n', 3),
        ('a,b\nx,1\ny,"2\nz,3', 3),
        ('a,b\n"x\nx",1\ny,"2""\nz,3\n', 4),
        ('a,b"', 1),
        ('"', 1),
    ],
)
def test_a_quote_that_is_never_closed_is_refused_where_it_is_opened(
    tmp_path: Path, content: str, row: int, chunk: int
) -> None:
    path = tmp_path / "e.csv"
    path.write_text(content)
    with pytest.raises(
        SourceError, match=rf"e\.csv, row {row}: a quote is opened here and never closed"
    ) as told:
        list(LineReader(path, quote='"', chunk=chunk).batches())
    assert "multiline" in str(told.value)
    path.write_bytes(gzip.compress(content.encode())[:-3])  # cut off, so that the quote may have gone on
    reader = LineReader(path, quote='"', chunk=chunk, truncated="keep")
    list(reader.batches())
    assert reader.cut is not None
    assert reader.cut == (row, "".join(content.splitlines(keepends=True)[row - 1 :]))


@pytest.mark.parametrize("chunk", [1, 5, 64, 1000])
@pytest.mark.parametrize("lines", [3, 4, 5, 9])
def test_a_record_of_too_many_lines_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: int, chunk: int
) -> None:
    monkeypatch.setattr("sid_pipelines.sources.lines.LONGEST_RECORD", 4)
    path = tmp_path / "e.csv"
    value = "\n".join(["x"] * lines)
    path.write_text(f'a,b\n"1\n2",3\n"{value}",1\ny,2\n')
    reader = LineReader(path, quote='"', chunk=chunk)
    if lines <= 4:
        records = [line for batch in reader.batches() for line in batch.column(1).to_pylist()]
        assert records == ["a,b", '"1\n2",3', f'"{value}",1', "y,2"]
        return
    with pytest.raises(SourceError, match=r"row 4: a quote is opened here and not closed within 4 lines"):
        list(reader.batches())


@pytest.mark.parametrize("quote", [None, '"'])
def test_a_stream_cut_at_a_line_end_is_cut_off_but_ends_in_no_line(tmp_path: Path, quote: str | None) -> None:
    path = tmp_path / "e.csv.gz"
    path.write_bytes(gzip.compress(b"a\nb\n")[:-3])
    reader = LineReader(path, truncated="keep", quote=quote)
    assert [line for batch in reader.batches() for line in batch.column(1).to_pylist()] == ["a", "b"]
    assert reader.cut == (3, "")


def test_a_damaged_gzip_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "ratings.dat.gz"
    packed = bytearray(gzip.compress(b"x::y\n" * 1000))
    packed[-6] ^= 1  # the checksum
    path.write_bytes(packed)
    with pytest.raises(SourceError, match="stream is damaged"):
        read(path)


@pytest.mark.parametrize("packed", [False, True])
def test_an_empty_file_is_an_error(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "ratings.dat"
    path.write_bytes(gzip.compress(b"") if packed else b"")
    with pytest.raises(SourceError, match="is empty"):
        read(path)
