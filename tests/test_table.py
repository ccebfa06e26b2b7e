"""The table source: any format, mapped columns, units of time, and what it refuses."""

import contextlib
import csv
import gzip
import io
import itertools
import json
import re
import zipfile
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import ROOT, run_chain
from hypothesis import given, settings
from hypothesis import strategies as st

from sid_flows.recipe import load_recipe
from sid_pipelines.sources.lines import LineReader
from sid_pipelines.sources.records import Cutter, ElementReader, ParquetRecords, json_path, parse_path
from sid_schemas import RecipeError, SourceError
from sid_warehouse.db import connect
from sid_warehouse.stages import StageOutput

REAL = ROOT.parent / "shared" / "data" / "amazon2023" / "amazon_fashion_sample_5000.json"
NOON = 1_614_600_000  # 2021-03-01 12:00:00 UTC
PLAIN = 'columns = {user_id = "u", item_id = "i", ts = "t"}'


def recipe_of(folder: Path, source: str, files: Mapping[str, str | bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    recipe = folder / "recipe.toml"
    head = 'dataset = "table"\n[clean]\nmax_reject_rate = 1.0\n[source]\nkind = "table"\n'
    recipe.write_text(head + source + "\n", encoding="utf-8")
    return recipe


def ingested(folder: Path, source: str, files: Mapping[str, str | bytes]) -> StageOutput:
    return run_chain(recipe_of(folder, source, files), folder / "warehouse", until="ingest").outputs["ingest"]


def interactions(output: StageOutput, *names: str) -> list[tuple[Any, ...]]:
    rows = output.read("raw_interactions").to_pylist()
    return [tuple(row[name] for name in names) for row in rows]


def reasons(output: StageOutput) -> list[tuple[int, str]]:
    return [(row["source_row"], row["reason"]) for row in output.read("rejects").to_pylist()]


# -- one file that holds it all ----------------------------------------------------------------------


@pytest.mark.realdata
@pytest.mark.skipif(not REAL.is_file(), reason=f"needs the real Amazon sample at {REAL}")
def test_a_json_array_with_metadata_in_every_row_gives_both_tables(tmp_path: Path) -> None:
    mapping = """
        columns = {user_id = "user_id", item_id = "parent_asin", ts = "timestamp", value = "rating"}
        event = "review"
        item_columns = {item_id = "parent_asin", title = "metadata.title", price = "metadata.price", \
brand = "metadata.store", category_path = "metadata.main_category"}
        nulls = ["None", "[metadata not found]"]"""
    raw = json.loads(REAL.read_text())
    for name, path in (("as items too", f'path = "{REAL}"'), ("named", f'path = "{REAL}"\nitems = "{REAL}"')):
        output = ingested(tmp_path / name, f"{path}\n{mapping}", {})
        assert output.manifest["rows"] == {"raw_interactions": 5_000, "raw_items": 4_459, "rejects": 0}
        names = ("user_id", "item_id", "ts", "value", "source_row")
        assert interactions(output, *names) == [
            (one["user_id"], one["parent_asin"], one["timestamp"], one["rating"], row)
            for row, one in enumerate(raw, start=1)
        ]
        assert len({user for (user,) in interactions(output, "user_id")}) == 1_873
        items = {row["item_id"]: row for row in output.read("raw_items").to_pylist()}
        for one in raw:
            title = one["metadata"]["title"].strip()
            assert items[one["parent_asin"]]["title"] == (
                None if title == "[metadata not found]" else title or None
            )
        assert sum(row["title"] is None for row in items.values()) > 300


def test_rows_that_describe_an_item_in_two_ways_are_told(tmp_path: Path) -> None:
    rows = "u,i,t,title\na,x,1614600000,A hat\nb,x,1614600001,Another hat\nb,x,1614600002,A hat\n"
    output = ingested(
        tmp_path,
        f'path = "e.csv"\n{PLAIN}\nitem_columns = {{item_id = "i", title = "title"}}',
        {"e.csv": rows},
    )
    [item] = output.read("raw_items").to_pylist()
    assert (item["title"], item["source_file"]) == ("A hat", f"{tmp_path.name}/e.csv#items")
    [(row, reason)] = reasons(output)
    assert row == 3
    assert "described in another way too" in reason


# -- CSV ---------------------------------------------------------------------------------------------


def test_csv_with_quotes_and_line_ends_in_values(tmp_path: Path) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\r\n")
    rows = [
        ["u", "i", "t", "q"],
        ["a", 'x "1", y', NOON, "two\nlines, and\r\na third"],
        ["b", "z", NOON, "one"],
    ]
    writer.writerows(rows)
    source = (
        'path = "e.csv"\nmultiline = true\ncolumns = {user_id = "u", item_id = "i", ts = "t", query = "q"}'
    )
    output = ingested(tmp_path, source, {"e.csv": stream.getvalue()})
    said = [(item, query.replace("\r\n", "\n")) for item, query in interactions(output, "item_id", "query")]
    assert said == [('x "1", y', "two\nlines, and\na third"), ("z", "one")]
    assert [row for (row,) in interactions(output, "source_row")] == [2, 5]


def test_csv_without_a_header_in_another_encoding_with_another_delimiter(tmp_path: Path) -> None:
    text = "a;straße;2021-03-01 12:00\nb;x;2021-03-01T13:00:00+01:00\nc;x\n"
    source = f'path = "e.csv"\nencoding = "latin-1"\ndelimiter = ";"\nnames = ["u", "i", "t"]\n{PLAIN}'
    output = ingested(tmp_path, source, {"e.csv": text.encode("latin-1")})
    assert interactions(output, "item_id", "ts") == [("straße", NOON * 1000), ("x", NOON * 1000)]
    assert reasons(output) == [(3, "expected 3 columns, got 2")]


@pytest.mark.parametrize("odd", [False, True])
def test_where_nothing_is_quoted_a_quote_is_a_character(tmp_path: Path, odd: bool) -> None:
    text = 'u\ti\tt\na\t"x\t1614600000\nb"\ty"z\t1614600000\n' + ("c\r\tx\t1614600000\n" if odd else "")
    output = ingested(tmp_path, f'path = "e.tsv"\nquote = ""\n{PLAIN}', {"e.tsv": text})
    assert interactions(output, "user_id", "item_id") == [("a", '"x'), ('b"', 'y"z')]
    assert len(reasons(output)) == odd


def test_several_files_must_have_the_mapped_columns(tmp_path: Path) -> None:
    files = {"1.csv": "t,u,i\n1614600000,a,x\n", "2.csv": "u,sku,t\nb,y,1614600000\n"}
    with pytest.raises(SourceError, match=r"2\.csv, row 1: expected a column 'i', got 'u', 'sku', 't'"):
        ingested(tmp_path / "refused", f'path = "*.csv"\n{PLAIN}', files)
    files["2.csv"] = "extra,i,u,t\n0,y,b,1614600000\n"
    output = ingested(tmp_path / "taken", f'path = "*.csv"\n{PLAIN}', files)
    assert interactions(output, "user_id", "item_id") == [("a", "x"), ("b", "y")]


def test_a_file_may_lack_what_is_said_to_be_optional(tmp_path: Path) -> None:
    files = {"1.csv": "t,u,i,q\n1614600000,a,x,hat\n", "2.csv": "u,i,t\nb,y,1614600000\n"}
    columns = 'columns = {user_id = "u", item_id = "i", ts = "t", query = "q"}'
    source = f'path = "*.csv"\n{columns}\noptional = ["query"]'
    assert interactions(ingested(tmp_path, source, files), "query") == [("hat",), (None,)]


# -- which files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_one_zip_or_folder_may_hold_both_tables(tmp_path: Path, packed: bool) -> None:
    files = {
        "2021-events.csv": "u,i,t\na,x,1614600000\n",
        "stock.jsonl": '{"i": "x", "name": "A hat"}\n',
        "README": "!",
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    mapping = f'{PLAIN}\nitem_files = "stock*"\nitem_columns = {{item_id = "i", title = "name"}}'
    if packed:
        output = ingested(tmp_path, f'path = "dump.zip"\n{mapping}', {"dump.zip": stream.getvalue()})
    else:
        recipe_of(tmp_path / "dump", "", files)
        (tmp_path / "dump" / "recipe.toml").unlink()
        output = ingested(tmp_path, f'path = "dump"\n{mapping}', {})
    assert interactions(output, "item_id") == [("x",)]
    assert output.read("raw_items")["title"].to_pylist() == ["A hat"]


@pytest.mark.parametrize(
    ("source", "files", "message"),
    [
        (
            f'path = "e.data"\n{PLAIN}',
            {"e.data": "u,i,t\n"},
            r"path: no file there whose format its name tells",
        ),
        (f'path = "."\nfiles = "x*"\n{PLAIN}', {"e.csv": "u,i,t\n"}, r"no file called like 'x\*' there"),
        (f'path = "e.csv"\nitems = "e.csv"\n{PLAIN}', {"e.csv": "u,i,t\n"}, r"item_columns does not say"),
    ],
)
def test_files_that_cannot_be_told_are_refused(
    tmp_path: Path, source: str, files: Mapping[str, str], message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        ingested(tmp_path, source, files)


def test_a_format_may_be_said(tmp_path: Path) -> None:
    output = ingested(
        tmp_path, f'path = "e.data"\nformat = "csv"\n{PLAIN}', {"e.data": "u,i,t\na,x,1614600000\n"}
    )
    assert interactions(output, "item_id") == [("x",)]


# -- times -------------------------------------------------------------------------------------------

MOMENTS = {
    "s": [str(NOON), f"{NOON}.0", f"{NOON}.125", "1.6146e9", f" {NOON} "],
    "ms": [str(NOON * 1000), f"{NOON * 1000}.9"],
    "us": [str(NOON * 10**6 + 999), f"{NOON * 10**6}.0"],
    "iso": [
        "2021-03-01T12:00:00Z", "2021-03-01 12:00:00", "2021-03-01T12:00", "2021-03-01 14:00:00+02:00",
        "2021-03-01T06:30:00.000-0530", "2021-03-01 13:00:00,000999 +01", "2021-03-01 12:00:00 UTC",
        "2021-03-01T12:00:00.000999999Z",
    ],
}  # fmt: skip


@pytest.mark.parametrize("auto", [False, True])
@pytest.mark.parametrize("unit", MOMENTS)
def test_every_unit_of_time_is_read_and_told(tmp_path: Path, unit: str, auto: bool) -> None:
    rows = "".join(f'a,x,"{said}"\n' for said in MOMENTS[unit])
    source = f'path = "e.csv"\n{PLAIN}\ntime_unit = "{"auto" if auto else unit}"'
    output = ingested(tmp_path, source, {"e.csv": f"u,i,t\nb,x,\n{rows}"})
    late = 125 if unit == "s" else 0
    expected = [NOON * 1000 + (late if said.endswith(".125") else 0) for said in MOMENTS[unit]]
    assert [ts for (ts,) in interactions(output, "ts")] == expected
    assert [row for row, _ in reasons(output)] == [2]


def test_a_date_is_its_first_moment(tmp_path: Path) -> None:
    output = ingested(
        tmp_path, f'path = "e.csv"\n{PLAIN}', {"e.csv": "u,i,t\na,x,2021-03-01\na,x,2021-02-30\n"}
    )
    assert interactions(output, "ts") == [((NOON - 12 * 3600) * 1000,)]
    assert reasons(output) == [(3, "expected a time such as '2019-11-24T10:11:12Z' as time")]


@pytest.mark.parametrize("unit", MOMENTS)
@pytest.mark.parametrize("other", MOMENTS)
def test_units_that_are_mixed_are_refused_with_the_rows_shown(tmp_path: Path, unit: str, other: str) -> None:
    if unit == other:
        return
    rows = [MOMENTS[unit][0]] * 3 + [MOMENTS[other][0]]
    text = "u,i,t\n" + "".join(f'a,x,"{said}"\n' for said in rows)
    with pytest.raises(
        SourceError, match=r"two units. Row 2 is as declared .* 1 row is not, first row 5: .* as in"
    ):
        ingested(tmp_path, f'path = "e.csv"\n{PLAIN}', {"e.csv": text})


def test_files_of_different_units_are_refused(tmp_path: Path) -> None:
    files = {"1.csv": f"u,i,t\na,x,{NOON}\n", "2.csv": f"u,i,t\na,x,{NOON * 1000}\n"}
    message = r"2\.csv: times are unix milliseconds, but in .*1\.csv they are unix seconds; expected one unit"
    with pytest.raises(SourceError, match=message):
        ingested(tmp_path, f'path = ["1.csv", "2.csv"]\n{PLAIN}', files)


@pytest.mark.parametrize(("said", "shown"), [("17", "such as '17', '17'"), ("", "there are none")])
def test_a_unit_that_cannot_be_told_must_be_said(tmp_path: Path, said: str, shown: str) -> None:
    text = f"u,i,t\na,x,{said}\na,x,{said}\n"
    with pytest.raises(SourceError, match=rf"cannot tell the unit of times.*{shown}.*time_unit"):
        ingested(tmp_path / "refused", f'path = "e.csv"\n{PLAIN}', {"e.csv": text})
    output = ingested(tmp_path / "taken", f'path = "e.csv"\n{PLAIN}\ntime_unit = "s"', {"e.csv": text})
    assert interactions(output, "ts") == ([(17_000,), (17_000,)] if said else [])


# -- events ------------------------------------------------------------------------------------------


def test_an_event_that_is_not_mapped_is_a_reject_that_names_it(tmp_path: Path) -> None:
    text = "u,i,t,what\n" + "".join(f"a,x,{NOON},{what}\n" for what in ("view", "addtocart", "wave", ""))
    columns = 'columns = {user_id = "u", item_id = "i", ts = "t", event_type = "what"}'
    plain = ingested(tmp_path / "plain", f'path = "e.csv"\n{columns}', {"e.csv": text})
    assert interactions(plain, "event_type") == [("view",)]
    assert [reason.split(", got ")[1] for _, reason in reasons(plain)] == ["addtocart", "wave", "nothing"]
    mapping = 'events = {addtocart = "cart", wave = "skip"}'
    mapped = ingested(tmp_path / "mapped", f'path = "e.csv"\n{columns}\n{mapping}', {"e.csv": text})
    assert interactions(mapped, "event_type") == [("cart",)]
    assert [reason for _, reason in reasons(mapped)] == [
        "expected an event among addtocart, got view",
        "expected an event among addtocart, got nothing",
    ]
    [seen] = mapped.facts["files"].values()
    assert seen["skipped"] == {"the event 'wave', left out by [source] events": 1}


# -- JSON --------------------------------------------------------------------------------------------


def test_a_json_file_may_hold_an_array_or_lines(tmp_path: Path) -> None:
    rows = [{"u": "a", "i": {"id": n}, "t": NOON, "tags": ["x, y", '"[{'], "e": None} for n in range(5)]
    columns = 'columns = {user_id = "u", item_id = "i.id", ts = "t", query = "tags[1]"}'
    for name, text in {
        "array": json.dumps(rows),
        "pretty": json.dumps(rows, indent=2),
        "bom": "\ufeff \n" + json.dumps(rows),
        "lines": "\n".join(map(json.dumps, rows)),
    }.items():
        output = ingested(tmp_path / name, f'path = "e.json"\n{columns}', {"e.json": text})
        assert interactions(output, "item_id", "query", "source_row") == [
            (str(n), '"[{', n + 1) for n in range(5)
        ]


def test_a_broken_element_is_one_reject_with_its_text(tmp_path: Path) -> None:
    good = f'{{"u": "a", "i": "x", "t": {NOON}}}'
    text = f'[{good},\n  {{"u": "a", "i": }} , [1, {{"u": 2}}], {good}, null, {good},]'
    output = ingested(tmp_path, f'path = "e.json"\n{PLAIN}', {"e.json": text})
    assert interactions(output, "source_row") == [(1,), (4,), (6,)]
    rejects = output.read("rejects").to_pylist()
    assert [(row["source_row"], row["raw"]) for row in rejects] == [
        (2, '{"u": "a", "i": }'), (3, '[1, {"u": 2}]'), (5, "null"), (7, ""),
    ]  # fmt: skip  # the last follows a comma too many


@pytest.mark.parametrize(
    ("place", "old", "new", "message"),
    [
        (199, "}", "", r"element 200: does not end; expected every bracket in it closed"),
        (199, "}", "]}", r"element 200: closes more brackets than it opens"),
        (199, '"a"', '"a', r"element 200: does not end; expected every quote in it closed"),
        (199, '"a"', '"a\\"', r"element 200: does not end; expected every quote in it closed"),
        (299, "}", "", r"element 300: does not end; expected every bracket in it closed"),
        (299, "}", "}]]", r"element 300: does not end; expected as many brackets closed as opened"),
        (299, "}", "}] [", r""),  # two arrays: the first part of the next is in the reject
        (299, "}", "} ] x", r"element 300: does not end; .* nothing after it"),
        (299, "}", "},[", r"element 301: does not end; expected .* ',' or '\]' after it"),
    ],
)
@pytest.mark.parametrize("chunk", [100, 1 << 20])
def test_an_element_that_does_not_end_is_refused_and_swallows_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int, old: str, new: str, message: str, chunk: int
) -> None:
    monkeypatch.setattr("sid_pipelines.sources.records.BLOCK", chunk)
    rows = [f'{{"u": "a", "i": "x", "t": {NOON + n}}}' for n in range(300)]
    rows[place] = rows[place].replace(old, new)
    files = {"e.json": f"[{', '.join(rows)}]"}
    if not message:
        assert len(interactions(ingested(tmp_path, f'path = "e.json"\n{PLAIN}', files), "ts")) == 299
        return
    with pytest.raises(SourceError, match=f"e.json, {message}") as told:
        ingested(tmp_path, f'path = "e.json"\n{PLAIN}', files)
    assert "\n" not in str(told.value)


def test_a_packed_array_that_is_cut_off_is_an_error_or_kept(tmp_path: Path) -> None:
    rows = [{"u": f"user {n}", "i": "x", "t": NOON + n} for n in range(2_000)]
    packed = gzip.compress(json.dumps(rows).encode(), 1)[:-4000]
    with pytest.raises(SourceError, match=r"row \d+: the gzip stream ends here.*elements were readable"):
        ingested(tmp_path / "error", f'path = "e.json.gz"\n{PLAIN}', {"e.json.gz": packed})
    output = ingested(
        tmp_path / "keep", f'path = "e.json.gz"\ntruncated = "keep"\n{PLAIN}', {"e.json.gz": packed}
    )
    [(row, reason)] = reasons(output)
    assert row == len(interactions(output, "ts")) + 1 > 100
    assert "gzip stream ends" in reason


@pytest.mark.parametrize("name", ["e.json", "e.jsonl"])
def test_a_key_that_no_record_has_is_refused(tmp_path: Path, name: str) -> None:
    text = f'{{"u": "a", "i": {{"sku": "x"}}, "t": {NOON}}}\n'
    source = f'path = "{name}"\ncolumns = {{user_id = "u", item_id = "i.id", ts = "t", query = "search"}}'
    with pytest.raises(
        SourceError, match=r"expected a key 'id' for item_id = 'i.id', got 'u', 'i', 'sku', 't'"
    ):
        ingested(tmp_path / "id", source, {name: text})
    source = source.replace("i.id", "i.sku")
    with pytest.raises(SourceError, match=r"expected a key 'search' for query"):
        ingested(tmp_path / "query", source, {name: text})
    output = ingested(tmp_path / "optional", source + '\noptional = ["query"]', {name: text})
    assert interactions(output, "item_id", "query") == [("x", None)]


def slowly_cut(text: str) -> tuple[list[str], bool]:
    """Cut an array character by character, and say whether it is closed: the twin of Cutter."""
    elements, start, depth, quoted, escaped = [], 0, 1, False, False
    inner = text.lstrip(" \t\r\n")[1:]
    for place, sign in enumerate(inner):
        if escaped:
            escaped = False
            if sign == '"':
                continue
        elif sign == "\\":
            escaped = True
            continue
        if sign == '"':
            quoted = not quoted
        elif quoted:
            continue
        elif sign in "[{":
            depth += 1
        elif sign in "]}":
            depth -= 1
        elif sign == "," and depth <= 1:
            elements.append(inner[start:place])
            start = place + 1
    rest = inner[start:].strip(" \t\r\n")
    if depth != 0 or quoted or not rest.endswith("]"):
        return [*elements, rest], False
    rest = rest[:-1]
    if not elements and not rest.strip(" \t\r\n"):
        return [], True
    return [*elements, rest], True


def cut(text: str, size: int) -> tuple[list[str], bool]:
    cutter, elements = Cutter(), []
    data = text.encode()
    parts = [cutter.cut(data[start : start + size]) for start in range(0, len(data), size)]
    closed = cutter.missing() is None
    if closed:
        parts.append(cutter.finish(first=not any(len(offsets) > 1 for _, offsets in parts)))
    for content, offsets in parts:
        elements += [content[a:b].decode() for a, b in itertools.pairwise(offsets)]
    return elements if closed else [*elements, cutter.rest().decode()], closed


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('a"\\,[]{}é\n ', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('b"\\,]}', max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.lists(values, max_size=6), st.integers(1, 40), st.sampled_from([None, 1]), st.booleans())
def test_an_array_is_cut_into_its_elements_wherever_blocks_end(
    array: list[Any], size: int, indent: int | None, ascii_only: bool
) -> None:
    text = json.dumps(array, indent=indent, ensure_ascii=ascii_only)
    elements, closed = cut(f" {text}\n", size)
    assert closed
    assert [json.loads(element) for element in elements] == array


@settings(max_examples=300)
@given(st.text('ab"\\,[]{}: \n', max_size=60), st.integers(1, 20))
def test_whatever_stands_in_an_array_is_cut_as_the_twin_does_and_nothing_is_lost(
    text: str, size: int
) -> None:
    (found, closed), (slowly, closed_slowly) = cut("[" + text, size), slowly_cut("[" + text)
    elements = [element.strip(" \t\r\n") for element in found]
    assert elements == [element.strip(" \t\r\n") for element in slowly]
    assert closed == closed_slowly
    kept, whole = (re.sub(r"[ \n]", "", one) for one in (",".join(elements), text))
    assert whole == (f"{kept}]" if closed else kept)


def test_an_element_reader_counts_on_over_blocks(tmp_path: Path) -> None:
    path = tmp_path / "e.json"
    path.write_text(json.dumps([{"n": n, "text": "x" * (n % 50)} for n in range(500)]))
    batches = list(ElementReader(path, chunk=1_000).batches())
    assert len(batches) > 10
    rows = np.concatenate([batch.column(0).to_numpy() for batch in batches])
    assert rows.tolist() == list(range(1, 501))
    texts = [text for batch in batches for text in batch.column(1).to_pylist()]
    assert [json.loads(text)["n"] for text in texts] == list(range(500))


def test_bytes_that_are_no_text_are_told_by_element(tmp_path: Path) -> None:
    good = f'{{"u": "a", "i": "x", "t": {NOON}}}'
    text = f'[{good}, {{"u": "Ä", "i": "x", "t": {NOON}}}]'.encode("latin-1")
    with pytest.raises(SourceError, match=r"e.json, row 2: byte .* is not utf-8.*encoding"):
        ingested(tmp_path / "refused", f'path = "e.json"\n{PLAIN}', {"e.json": text})
    output = ingested(tmp_path / "taken", f'path = "e.json"\nencoding = "latin-1"\n{PLAIN}', {"e.json": text})
    assert interactions(output, "user_id") == [("a",), ("Ä",)]


# -- Parquet -----------------------------------------------------------------------------------------


def parquet(columns: Mapping[str, Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), stream, **options)
    return stream.getvalue()


def test_parquet_with_nested_columns(tmp_path: Path) -> None:
    events = parquet(
        {
            "who": [{"id": 1, "name": "x"}, {"id": 2, "name": None}, None],
            "a.b": ["i1", "i2", "i3"],
            "when": pa.array([NOON * 1000 + n for n in range(3)]),
            "stars": pa.array([4.5, None, 1.0]),
            "places": [[1, 2], None, []],
            "unread": ["", "", ""],
        },
        row_group_size=1,
    )
    items = parquet(
        {
            "id": pa.array(["i1", "i2"]).dictionary_encode(),
            "meta": [{"title": "Hat", "notes": ["Red.", "Warm."]}, {"title": None, "notes": []}],
            "cats": [["Clothes", "Hats"], None],
            "price": pa.array([1050, None], pa.decimal128(10, 2)),
            "pictures": [[{"large": "a.jpg"}, {"large": "b.jpg"}], []],
            "near": [{"bought": ["i2", None]}, None],
            "maker": pa.array([b"Hoof", b"\xff"]),
        }
    )
    source = """
        path = "events.parquet"
        items = "items.parquet"
        columns = {user_id = "who.id", item_id = "a.b", ts = "when", value = "stars", position = "places[1]"}
        item_columns = {item_id = "id", title = "meta.title", description = "meta.notes", \
category_path = "cats", price = "price", image_ref = "pictures[0].large", brand = "maker"}
        item_pairs = {bought = "near.bought"}"""
    for name, files, named in (
        ("plain", {"events.parquet": events, "items.parquet": items}, source),
        (
            "packed",
            {"events.parquet.gz": gzip.compress(events), "items.parquet.gz": gzip.compress(items)},
            source.replace('.parquet"', '.parquet.gz"'),
        ),
    ):
        output = ingested(tmp_path / name, named, files)
        got = interactions(output, "user_id", "item_id", "ts", "value", "position", "source_row")
        assert got == [("1", "i1", NOON * 1000, 4.5, 2, 1), ("2", "i2", NOON * 1000 + 1, None, None, 2)]
        [reject] = output.read("rejects").to_pylist()
        assert reject["source_row"] == 3
        assert json.loads(reject["raw"]) == {
            "who": None, "a.b": "i3", "when": NOON * 1000 + 2, "stars": 1.0, "places": [],
        }  # fmt: skip
        first, second = output.read("raw_items").to_pylist()
        assert (first["title"], first["description"], first["price"]) == ("Hat", "Red. Warm.", 1050.0)
        assert (first["category_path"], first["image_ref"], first["brand"]) == (
            ["Clothes", "Hats"],
            "a.jpg",
            "Hoof",
        )
        assert (second["title"], second["category_path"], second["brand"]) == (None, [], None)
        assert output.read("raw_item_pairs").to_pylist() == [
            {"item_id": "i1", "other_id": "i2", "kind": "bought"}
        ]


MOMENT = datetime(2021, 3, 1, 12, tzinfo=UTC)
TIMES = {
    "s": pa.array([NOON]),
    "float s": pa.array([NOON + 0.125]),
    "ms": pa.array([NOON * 1000], pa.uint64()),
    "us": pa.array([NOON * 10**6]),
    "text": pa.array(["2021-03-01T12:00:00Z"]),
    "seconds": pa.array([MOMENT.replace(tzinfo=None)], pa.timestamp("s")),
    "naive": pa.array([MOMENT.replace(tzinfo=None)], pa.timestamp("us")),
    "zone": pa.array([MOMENT], pa.timestamp("ms", "Europe/Berlin")),
    "ns": pa.array([MOMENT], pa.timestamp("ns", "UTC")),
    "bare ns": pa.array([MOMENT.replace(tzinfo=None)], pa.timestamp("ns")),
    "date": pa.array([date(2021, 3, 1)]),
    "string view": pa.array([str(NOON)], pa.large_string()),
}


@pytest.mark.parametrize("kind", TIMES)
def test_parquet_with_every_kind_of_time(tmp_path: Path, kind: str) -> None:
    content = parquet({"u": ["a"], "i": ["x"], "t": TIMES[kind]})
    output = ingested(tmp_path, f'path = "e.parquet"\n{PLAIN}', {"e.parquet": content})
    expected = {"date": NOON - 12 * 3600, "float s": NOON + 0.125}.get(kind, NOON)
    assert interactions(output, "ts") == [(expected * 1000,)]


@pytest.mark.parametrize("name", ["source_row", "SOURCE_ROW", "raw", "problem", "c0", "c2"])
def test_a_parquet_column_may_have_any_name(tmp_path: Path, name: str) -> None:
    content = parquet({"i": ["x", "y"], name: ["ann", "bob"], "t": [NOON, NOON]})
    source = f'path = "e.parquet"\n{PLAIN}'.replace('"u"', f'"{name}"')
    output = ingested(tmp_path, source, {"e.parquet": content})
    assert interactions(output, "user_id", "source_row") == [("ann", 1), ("bob", 2)]


def test_parquet_columns_may_differ_in_letter_case_alone(tmp_path: Path) -> None:
    content = parquet({"id": ["x", None], "ID": ["ann", "bob"], "a'b \"c": [NOON, NOON], "Id": ["?", "?"]})
    columns = """columns = {user_id = "ID", item_id = "id", ts = "a'b \\"c"}"""
    output = ingested(tmp_path, f'path = "e.parquet"\n{columns}', {"e.parquet": content})
    assert interactions(output, "user_id", "item_id") == [("ann", "x")]
    [reject] = output.read("rejects").to_pylist()
    assert json.loads(reject["raw"]) == {"ID": "bob", "id": None, "a'b \"c": NOON}


def test_parquet_fields_that_differ_in_letter_case_alone_are_refused_where_one_is_mapped(
    tmp_path: Path,
) -> None:
    who = pa.StructArray.from_arrays([["low"], ["HIGH"], ["z"]], ["id", "ID", "name"])
    content = parquet({"u": who, "i": ["x"], "t": [NOON]})
    source = f'path = "e.parquet"\n{PLAIN}'
    with pytest.raises(SourceError, match=r"'u.ID' leads to fields .* letter case \('id', 'ID'\)") as told:
        ingested(tmp_path / "one", source.replace('"u"', '"u.ID"'), {"e.parquet": content})
    assert "\n" not in str(told.value)
    output = ingested(tmp_path / "other", source.replace('"u"', '"u.name"'), {"e.parquet": content})
    assert interactions(output, "user_id") == [("z",)]


@pytest.mark.parametrize(("kind", "far"), [(pa.float64(), 2.0**53), (pa.float32(), 2.0**24)])
def test_parquet_ids_that_are_floats_are_whole_numbers_or_nothing(
    tmp_path: Path, kind: pa.DataType, far: float
) -> None:
    ids = [1.0, float("nan"), None, -0.0, 2.5, float("inf"), far - 1, far]
    events = parquet(
        {"u": pa.array(ids, kind), "i": [{"id": 7.0}] * 8, "t": [NOON] * 8, "v": pa.array([1.0] * 8)}
    )
    near = pa.array([[7.0, float("nan"), 8.0]], pa.list_(kind))
    source = """
        path = "e.parquet"
        items = "i.parquet"
        columns = {user_id = "u", item_id = "i.id", ts = "t", session_id = "u", value = "v"}
        item_columns = {item_id = "id"}
        item_pairs = {bought = "near"}"""
    files = {"e.parquet": events, "i.parquet": parquet({"id": [5], "near": near})}
    output = ingested(tmp_path, source, files)
    got = interactions(output, "user_id", "session_id", "item_id", "source_row")
    users = ["1", "0", "2.5", str(int(far) - 1)]
    assert got[:4] == [(user, user, "7", row) for user, row in zip(users, (1, 4, 5, 7), strict=True)]
    assert float(got[4][0]) == far  # no integer, as it may be another one, rounded
    assert not got[4][0].isdigit()
    assert [(row, "a user id" in reason) for row, reason in reasons(output)] == [
        (row, True) for row in (2, 3, 6)
    ]
    assert [row["other_id"] for row in output.read("raw_item_pairs").to_pylist()] == ["7", "8"]


def test_parquet_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    whole = parquet({"u": ["a"] * 100, "i": ["x"] * 100, "t": [NOON] * 100})
    for name, content, message in (
        ("cut", whole[:-200], r"cannot be read as Parquet"),
        ("text", b"u,i,t\na,x,1\n", r"cannot be read as Parquet"),
        ("empty", b"", r"cannot be read as Parquet"),
        (
            "column",
            parquet({"u": ["a"], "sku": ["x"], "t": [NOON]}),
            r"expected a column 'i', got 'u', 'sku', 't'",
        ),
        (
            "half",
            parquet({"u": ["a"], "i": ["x"], "t": np.array([1.5], np.float16)}),
            r"type that is not read here",
        ),
        ("gz", gzip.compress(whole)[:-50], r"cut off or damaged"),
    ):
        file = "e.parquet.gz" if name == "gz" else "e.parquet"
        with pytest.raises(SourceError, match=message) as told:
            ingested(tmp_path / name, f'path = "{file}"\n{PLAIN}', {file: content})
        assert "\n" not in str(told.value)


def test_a_path_that_leads_nowhere_in_parquet_shows_what_is_there(tmp_path: Path) -> None:
    content = parquet({"u": [{"id": 1}], "i": ["x"], "t": [NOON]})
    source = f'path = "e.parquet"\n{PLAIN}'.replace('"u"', '"u.key"')
    with pytest.raises(SourceError, match=r"expected a column 'u.key', got 'u struct<id: int64>'"):
        ingested(tmp_path, source, {"e.parquet": content})


def test_text_in_parquet_that_is_not_utf8_is_told(tmp_path: Path) -> None:
    offsets, data = np.array([0, 2, 3], np.int32), b"\xff\xfea"
    text = pa.StringArray.from_buffers(2, pa.py_buffer(offsets), pa.py_buffer(data))
    content = parquet({"u": text, "i": ["x", "y"], "t": [NOON, NOON]})
    with pytest.raises(SourceError, match=r"cannot be read as Parquet"):
        ingested(tmp_path, f'path = "e.parquet"\n{PLAIN}', {"e.parquet": content})


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_bytes_a_parquet_file_has_rows_come_out_or_an_error(
    tmp_path_factory: Any, data: Any
) -> None:
    content = bytearray(parquet({"u": ["a", "b"], "i": ["x", "y"], "t": [NOON, NOON + 1]}))
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("fuzz") / "e.parquet"
    path.write_bytes(content)
    with connect() as connection:
        form = ParquetRecords({"user": "u", "item": "i", "time": "t"})
        with contextlib.suppress(SourceError):
            for relation in form.relations(connection, LineReader(path)):
                assert len(connection.sql(relation.sql).fetchall()) == relation.lines


# -- options -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", r"columns: user_id and item_id and ts missing"),
        (
            'columns = {user = "u", item_id = "i", ts = "t"}',
            r"columns: 'user' is .*nearest known one is 'user_id'",
        ),
        ('columns = {user_id = "u", item_id = "i"}', r"columns: ts missing"),
        ('columns = {user_id = "u", item_id = "i", ts = ["t"]}', r"columns"),
        (
            f'{PLAIN}\nitem_columns = {{titel = "n", item_id = "i"}}',
            r"'titel' is .*nearest known one is 'title'",
        ),
        (f'{PLAIN}\nitem_columns = {{title = "n"}}', r"item_columns: item_id missing"),
        (
            f'{PLAIN}\nitem_columns = {{item_id = "i", title = ["a", "b"]}}',
            r"expected one column; only description",
        ),
        (f'{PLAIN}\nitem_pairs = {{near = "n"}}', r"item_pairs: expected item_columns"),
        (f'{PLAIN}\nevent = "viewed"', r"event: 'viewed' is no event type; the nearest known one is 'view'"),
        (f'{PLAIN}\nevents = {{a = "view"}}', r"events: expected columns to say where event_type is"),
        (f'{PLAIN}\noptional = ["title"]', r"optional: 'title' is nothing known there"),
        (f'{PLAIN}\ntime_unit = "hours"', r"time_unit = 'hours'"),
        (f'{PLAIN}\ndelimiter = "::"', r"delimiter: expected one printable ASCII character.* got '::'"),
        *(
            (f'{PLAIN}\ndelimiter = "{sign}"', r"delimiter: expected one printable ASCII character or a tab")
            for sign in ("", "\\n", "\\r", "§", "\\u0000", "\\u2028")
        ),
        *(
            (f'{PLAIN}\nquote = "{sign}"', r"quote: expected one printable ASCII character or nothing")
            for sign in ("''", "\\n", "\\r", "\\t", "«", "\\u0000")
        ),
        (f'{PLAIN}\nquote = ","', r"quote: expected another character than the delimiter"),
        (f'{PLAIN}\nquote = ""\nmultiline = true', r"multiline: expected a quote"),
        (
            f'{PLAIN}\nnames = ["u", "t"]',
            r"names: expected 'i', which is mapped as item_id, among them, got u, t",
        ),
        (f'{PLAIN}\nformat = "jsonl"'.replace('"u"', '"u..x"'), r"'u..x' is no path"),
        (f"{PLAIN}\nmultilines = true", r"unknown key 'source.multilines'; the nearest known one is"),
    ],
)
def test_options_that_do_not_go_together_are_refused_by_name(
    tmp_path: Path, source: str, message: str
) -> None:
    recipe = recipe_of(tmp_path, f'path = "e.csv"\n{source}', {})
    with pytest.raises(RecipeError, match=message) as told:
        load_recipe(recipe)
    assert "\n" not in str(told.value)


def test_paths_are_read_and_written() -> None:
    assert parse_path('a."b.c"[2].d') == ("a", "b.c", 2, "d")
    assert json_path(parse_path('a."b.c"[2].d')) == '$."a"."b.c"[2]."d"'
    for wrong in ("", ".a", "a.", "[0]", "a[", "a[x]", 'a."', "a..b", "a.*", 'a."b\\"'):
        with pytest.raises(RecipeError, match="is no path"):
            parse_path(wrong)
