"""A warehouse on s3://: a local work folder whose releases and tags are those of a place in an object store.

    s3://bucket/prefix/releases/<dataset>/v<N>/claim.json, <files>, release.json (the commit)
    s3://bucket/prefix/tags/<dataset>/<name>.json
    <work folder>/origin.json      {"url": "s3://bucket/prefix"}
    <work folder>/releases, tags   copies of those in use, laid out as in any warehouse

Everything else (stages, cache, catalog) is local. Here is what the place holds; uploads.py publishes to it,
copies.py brings its releases here.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sid_schemas import RecipeError, WarehouseError
from sid_warehouse import files, records
from sid_warehouse.names import DATASET, VERSION
from sid_warehouse.objects import Objects
from sid_warehouse.records import Record

NAME = "origin.json"
URL = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[A-Za-z0-9_=+-][A-Za-z0-9._=+-]*)*)/?")
THREADS = 4
PROBE = "releases/conditional.json"


def is_url(text: str) -> bool:
    """Say whether this names an object store, well or badly, and no folder."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text) is not None


def work_folder(url: str) -> Path:
    """Give the local folder of a warehouse on s3://, making it where it is new.

    It lies in $SIDMILL_WORK, else in ~/.cache/sidmill. Raises RecipeError for what is no plain
    s3://BUCKET/PREFIX; the message never repeats the URL, which may hold a password.
    """
    bucket, prefix = _parse(url)
    url = f"s3://{bucket}/{prefix}".rstrip("/")
    root = Path(os.environ.get("SIDMILL_WORK") or "~/.cache/sidmill").expanduser().absolute()
    folder = root / f"{bucket}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
    if not (folder / NAME).exists():
        with files.writing(folder) as scratch, files.explained(folder):
            files.write_json(scratch / NAME, {"url": url})
            (scratch / NAME).replace(folder / NAME)
    return folder


def _parse(url: str) -> tuple[str, str]:
    """Give bucket and prefix; the prefix is "" or ends in a slash."""
    match = URL.fullmatch(url)
    if not match or ".." in match[1]:
        raise RecipeError(
            "--warehouse: expected a folder or s3://BUCKET/PREFIX, in letters, digits and '._=+-', no part "
            "starting with '.'. Credentials come from the environment's AWS chain, the endpoint from "
            "AWS_ENDPOINT_URL: neither they nor a query belong into the URL"
        )
    prefix = match[2].strip("/")
    return match[1], f"{prefix}/" if prefix else ""


def of(warehouse: Path) -> "Origin | None":
    """Give the origin of a work folder; None for a warehouse that is all local."""
    path = warehouse / NAME
    if not path.is_file():
        return None
    found = files.read_json(path)
    url = found.get("url") if isinstance(found, dict) else None
    if not isinstance(url, str) or not URL.fullmatch(url):
        raise WarehouseError(f"{path}: expected the url of a warehouse on s3://. Remove {warehouse}")
    return Origin(url)


class Origin:
    """The place in an object store that a work folder stands for."""

    def __init__(self, url: str) -> None:
        """Take the place; nothing is asked of the store yet."""
        self.url = url
        self.objects = Objects(*_parse(url))

    def names(self, key: str) -> list[str]:
        """Give the names of what lies directly below a key, sorted."""
        return self.objects.names(key)

    def read_json(self, key: str) -> tuple[Any, str] | None:
        """Give a JSON object's value and its ETag, or None where there is none."""
        found = self.objects.get(key)
        if found is None:
            return None
        try:
            return json.loads(found[0]), found[1]
        except (ValueError, RecursionError):
            raise WarehouseError(f"{self.url}/{key}: cannot be read as JSON; the object is damaged") from None

    def put_json(
        self, key: str, value: Any, *, if_none_match: bool = False, if_match: str | None = None
    ) -> str | None:
        """Write a JSON object and give its ETag; None where the condition does not hold.

        if_none_match: only where there is none. if_match: only over the one with this ETag.
        """
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        return self.objects.put(key, text.encode(), if_none_match=if_none_match, if_match=if_match)

    def check_conditional(self, *, if_match: bool = False) -> None:
        """Raise WarehouseError where the store writes although a condition says not to.

        if_match: also where the condition is If-Match, which moving a tag needs and publishing does not.
        """
        note = {"about": "a store that overwrites this against a condition can take no releases and no tags"}
        written = self.put_json(PROBE, note, if_none_match=True)  # the first time, rightly so
        ignored = "If-None-Match" if written and self.put_json(PROBE, note, if_none_match=True) else ""
        if if_match and not ignored and self.put_json(PROBE, note, if_match='"no such etag"'):
            ignored = "If-Match"
        if ignored:
            raise WarehouseError(
                f"{self.url}: the store ignores conditional writes ({ignored}), so that writers would "
                "overwrite each other. Use a store that has them, or a folder"
            )

    def datasets(self) -> list[str]:
        """Give the data sets that have releases, in order."""
        named = (name for name in self.names("releases") if DATASET.fullmatch(name))
        return [name for name in named if self.latest(name)]

    def numbers(self, dataset: str) -> list[int]:
        """Give the numbers that publishers took, ascending, even where nothing was published."""
        matches = (VERSION.fullmatch(name) for name in self.names(f"releases/{dataset}"))
        return sorted(int(match[1]) for match in matches if match)

    def latest(self, dataset: str) -> Record | None:
        """Give the record of the largest published version, or None."""
        found = (self.record(dataset, number) for number in reversed(self.numbers(dataset)))
        return next((record for record in found if record), None)

    def records(self, dataset: str) -> dict[int, Record]:
        """Give the records of all published releases by version, ascending."""
        numbers = self.numbers(dataset)
        found = together(lambda number: self.record(dataset, number), numbers)
        return {number: record for number, record in zip(numbers, found, strict=True) if record}

    def record(self, dataset: str, version: int) -> Record | None:
        """Give a release's record; None where it is not published. Raises WarehouseError for an unfit one."""
        key = record_key(dataset, version)
        found = self.read_json(key)
        if found is None or found[0] == {"abandoned": True}:
            return None
        where = f"{self.url}/{key}"
        record = records.check(found[0], where)
        if (record["dataset"], record["version"]) != (dataset, version):
            raise WarehouseError(f"{where}: is {record['dataset']}@v{record['version']}'s; restore it")
        return record

    def everything(self) -> list[Record]:
        """Give the records of all releases, by data set and version."""
        return [record for name in self.datasets() for record in self.records(name).values()]


def record_key(dataset: str, version: int) -> str:
    """Give the key of a release's record."""
    return f"releases/{dataset}/v{version}/{records.NAME}"


def together(work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Do the same to several things at a time, and give the results in order; the first error ends it."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, items))
