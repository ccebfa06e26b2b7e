"""Releases of two engines side by side, and dumps that are worth dividing.

What must be equal: every table in order and to the bit, every file that is no Parquet, metrics to the last
character, and what release.json says but for times and where Parquet files end. sharding.py does the same for
one stage.
"""

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from helpers import write_dump

from sid_warehouse.reader import Release

BEAM = "engine.kind=beam"
# Every task is synced to its disk, which takes most of the time; None: where there is no such place.
FREE_OF_DISK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
APART = {"created", "seconds", "files", "engine"}  # of release.json: times, where parts end, what ran it


def assert_same_release(local: Release, other: Release, *, but: Collection[str] = ()) -> None:
    """Compare two releases of one data set. but: files, and what release.json says, that may differ."""
    assert other.folder != local.folder
    assert fingerprint(other) == fingerprint(local)
    assert other.tables == local.tables
    for name in local.tables:
        assert_same_table(local.table(name), other.table(name), name)
    ours, theirs = _plain_files(local.folder), _plain_files(other.folder)
    assert sorted(theirs) == sorted(ours)
    for name, content in ours.items():
        assert name in but or theirs[name] == content, name
    told, known = _told(other.folder), _told(local.folder)
    assert told.keys() == known.keys()
    for name, value in known.items():
        assert name in but or told[name] == value, f"release.json: {name}"


def fingerprint(release: Release) -> str:
    return str(json.loads((release.folder / "release.json").read_text())["fingerprint"])


def assert_same_table(local: pa.Table, other: pa.Table, name: str) -> None:
    """Compare schema, rows in order, and the bits of floats, where == takes 0.0 for -0.0."""
    assert other.schema.equals(local.schema, check_metadata=True), name
    assert len(other) == len(local), name
    for column in local.column_names:
        ours, theirs = local[column].combine_chunks(), other[column].combine_chunks()
        if not theirs.equals(ours):
            assert theirs.to_pylist() == ours.to_pylist(), f"{name}.{column}"
        assert np.array_equal(_bits(theirs), _bits(ours)), f"{name}.{column}: floats differ in their bits"


def _bits(array: pa.Array) -> np.ndarray[Any, Any]:
    """Give the bits of floats as integers, of lists too; nothing for what are no floats."""
    while (
        pa.types.is_nested(array.type) and hasattr(array, "flatten") and not isinstance(array, pa.StructArray)
    ):
        array = array.flatten()
    if not pa.types.is_floating(array.type):
        return np.empty(0, np.uint8)
    values = array.drop_null().to_numpy(zero_copy_only=False)
    return values.view(f"u{values.itemsize}")


def _plain_files(folder: Path) -> dict[str, bytes | list[str]]:
    """Give what is neither a table nor tells of times; release.md without what ran it."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    known: dict[str, bytes | list[str]] = {
        name: path.read_bytes()
        for name, path in found.items()
        if path.suffix != ".parquet" and name not in ("release.json", "report.html")
    }
    page = (folder / "release.md").read_text().splitlines()
    return known | {"release.md": [line for line in page if not line.startswith("| `engine.")]}


def _told(folder: Path) -> dict[str, Any]:
    record = _without(json.loads((folder / "release.json").read_text()), APART)
    stages = {name: _without(stage, APART) for name, stage in record["stages"].items()}
    return record | {"stages": stages, "recipe": _without(record["recipe"], APART)}


def _without(known: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in known.items() if name not in names}


def events_dump(folder: Path, *, users: int = 150, movies: int = 60, seed: int = 0) -> Path:
    """Write a dump with all that stages judge: ties, repeats, broken lines, users and movies with too little.

    Give its recipe; text is embedded by hashing, which needs no model.
    """
    draw = np.random.default_rng(seed)
    popular = 1 / np.arange(1, movies + 1)
    lines = []
    for user in range(1, users + 1):
        for movie in draw.choice(movies, size=draw.integers(1, 25), p=popular / popular.sum()):
            second = 1_300_000_000 + 86_400 * int(draw.integers(0, 40))  # whole days: ties
            lines.append(f"{user}::{movie:07d}::{int(draw.integers(0, 11))}::{second}")
    lines += [lines[n] for n in draw.integers(0, len(lines), 20)]  # as they stand there already
    lines += ["no rating", "7::0000001::99::1300000000", "8::0000002::5::soon"]
    order = draw.permutation(len(lines))
    genres = ["Drama", "Comedy|Short", "Horror", "Documentary", ""]
    titles = [
        f"{movie:07d}::Film {movie} of {movie % 7} ({1950 + movie % 60})::{genres[movie % 5]}"
        for movie in range(movies - 2)  # two are not described
    ]
    titles += [titles[3], f"{5:07d}::Another Film ({1950})::Drama"]
    recipe = write_dump(folder, [lines[n] for n in order], titles)
    recipe.write_text(
        'dataset = "events"\n[source]\nkind = "movietweetings"\npath = "dump"\n'
        "[clean]\nk_core = 4\nmax_reject_rate = 0.1\n"
        '[[embed]]\nmodel = "hashing"\ndim = 32\n'
        "[tokenize]\nlevels = [8, 8, 8]\n[gates]\nmax_duplicate_vectors = 1.0\n"
    )
    return recipe
