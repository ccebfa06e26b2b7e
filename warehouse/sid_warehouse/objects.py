"""Objects under one prefix of an S3 bucket: the one door to s3fs, and to every error of its.

Unlike origin.py it knows no releases: only keys, bytes and conditions. Credentials, region and endpoint
come from the AWS chain (environment, profile, role of the machine) and are kept nowhere. What goes wrong
is told in our words: those of the libraries may quote an endpoint's password or a signed header.
"""

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sid_schemas import MissingExtraError, WarehouseError
from sid_schemas.errors import UnreachableError
from sid_warehouse import files

LOGGER = logging.getLogger("sidmill")
ATTEMPTS = 5  # at a conditional put that the store found in conflict with another one under way
PART = 16 << 20  # bytes; two parts of a file are in flight, so this bounds memory
MOST_PARTS = 10_000  # that S3 takes for one object
REFUSED = ("PreconditionFailed", "412")
ABSENT = ("NoSuchKey", "404")
BUSY = ("SlowDown", "Throttling", "ThrottlingException", "RequestTimeout", "TooManyRequests", "429")


class Objects:
    """The objects of a bucket whose keys start with a prefix; keys here are without it."""

    def __init__(self, bucket: str, prefix: str) -> None:
        """Take the place; nothing is asked of the store yet. prefix: "" or with a slash at its end."""
        self.bucket = bucket
        self.prefix = prefix

    def __str__(self) -> str:
        """Write the place as users do."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def names(self, under: str) -> list[str]:
        """Give the names of what lies directly below `under`, sorted: folders and objects."""
        start = len(f"{self.prefix}{under}/")
        found: set[str] = set()
        for page in self._pages(under, Delimiter="/"):
            found |= {one["Prefix"][start:-1] for one in page.get("CommonPrefixes", [])}
            found |= {one["Key"][start:] for one in page.get("Contents", [])}
        return sorted(found - {""})

    def sizes(self, under: str) -> dict[str, int]:
        """Give the size in bytes of every object below `under`, however deep, by its key."""
        start = len(self.prefix)
        found = (one for page in self._pages(under) for one in page.get("Contents", []))
        return {one["Key"][start:]: one["Size"] for one in found}

    def _pages(self, under: str, **options: str) -> Iterator[dict[str, Any]]:
        more: dict[str, str] = {}
        while True:
            with self._explained(under):
                page: dict[str, Any] = self._store.call_s3(
                    "list_objects_v2", Bucket=self.bucket, Prefix=f"{self.prefix}{under}/", **options, **more
                )
            yield page
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def get(self, key: str) -> tuple[bytes, str] | None:
        """Give an object's bytes and its ETag, or None where there is none."""
        with self._explained(key):
            from fsspec.asyn import sync

            try:
                found = self._store.call_s3("get_object", Bucket=self.bucket, Key=self.prefix + key)
            except OSError as error:
                if _code(error) in ABSENT:
                    return None
                raise
            return sync(self._store.loop, found["Body"].read), found["ETag"]

    def put(
        self, key: str, data: bytes, *, if_none_match: bool = False, if_match: str | None = None
    ) -> str | None:
        """Write an object and give its ETag; None where the condition does not hold, and nothing is written.

        if_none_match: only where there is no such object. if_match: only over the object with this ETag.
        """
        condition = {"IfNoneMatch": "*"} if if_none_match else {"IfMatch": if_match} if if_match else {}
        LOGGER.debug("put %s/%s", self, key)
        for attempt in range(ATTEMPTS):
            with self._explained(key):
                try:
                    done = self._store.call_s3(
                        "put_object", Bucket=self.bucket, Key=self.prefix + key, Body=data, **condition
                    )
                except OSError as error:
                    if _code(error) in REFUSED or (if_match and _code(error) in ABSENT):
                        return None
                    if _code(error) != "ConditionalRequestConflict" or attempt == ATTEMPTS - 1:
                        raise
                    time.sleep(0.1 * 2**attempt)
                    continue
                return str(done["ETag"])
        raise AssertionError("the last attempt returns or raises")

    def remove(self, key: str) -> None:
        """Remove an object, where there is one."""
        with self._explained(key):
            self._store.call_s3("delete_object", Bucket=self.bucket, Key=self.prefix + key)

    def upload(self, path: Path, key: str) -> None:
        """Write a file as an object, in several parts where it is large."""
        LOGGER.debug("upload %s/%s", self, key)
        with self._explained(key):
            part = max(PART, -(-path.stat().st_size // MOST_PARTS))
            self._store.put_file(str(path), self._path(key), chunksize=part)

    def download(self, key: str, path: Path) -> None:
        """Write an object to a new file; raises WarehouseError where there is none."""
        LOGGER.debug("download %s/%s", self, key)
        with self._explained(key):
            self._store.get_file(self._path(key), str(path), chunksize=PART)

    def _path(self, key: str) -> str:
        return f"{self.bucket}/{self.prefix}{key}"

    @cached_property
    def _store(self) -> Any:
        try:
            from s3fs import S3FileSystem
        except ImportError as error:
            raise MissingExtraError(f"The warehouse {self}", "s3") from error
        # Listings are never cached: others write too. s3fs keeps the client itself, for this process.
        store = S3FileSystem(use_listings_cache=False, max_concurrency=2)
        store.retries = 2  # on top of botocore's own, which the AWS settings rule
        return store

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        """Raise WarehouseError, in one line and without what the libraries say; local errors pass.

        UnreachableError where the network or the store is in trouble that may pass.
        """
        self._store  # noqa: B018 (where it is not installed, there are no errors of its to catch)
        try:
            yield
        except _client_errors() as error:
            if isinstance(error, OSError) and _is_local(error):
                raise
            kind = UnreachableError if _may_pass(error) else WarehouseError
            raise kind(f"{self}: {self._reason(error, key)}") from None

    def _reason(self, error: Exception, key: str) -> str:
        from botocore import exceptions as known

        code = _code(error)
        if code == "NoSuchBucket":
            return f"there is no bucket {self.bucket!r}; make it, or name another with --warehouse"
        if code in ABSENT:
            return f"{key} is missing in the store; restore it, or publish the release anew"
        if code == "NotImplemented":
            return f"the store cannot do what writing {key} takes (NotImplemented)"
        if _status(error) in (401, 403):
            return f"access to {key} was denied ({code}); check the credentials that the environment gives"
        if code and (_status(error) or 0) >= 500:
            return f"the store failed at {key} ({code}, HTTP {_status(error)}); run again later"
        if code:
            return f"the store refused {key} ({code}, HTTP {_status(error)}); check the bucket and AWS_REGION"
        credentials = (
            known.NoCredentialsError, known.PartialCredentialsError, known.CredentialRetrievalError,
            known.ProfileNotFound, known.TokenRetrievalError, known.SSOError,
        )  # fmt: skip
        if isinstance(error, credentials):
            return (
                f"no usable credentials in the environment's AWS chain ({type(error).__name__}); "
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            )
        if isinstance(error, OSError | known.ConnectionError | known.HTTPClientError):
            return (
                f"the store{self._endpoint()} cannot be reached ({type(error).__name__}); "
                "check the network and AWS_ENDPOINT_URL, then run again"
            )
        return f"the AWS settings in the environment cannot be used ({type(error).__name__})"

    def _endpoint(self) -> str:
        """Give the endpoint for a message, without the user and password it may hold."""
        client = getattr(self._store, "_s3", None)  # the property would connect again
        if client is None:
            return ""
        parts = urlsplit(client.meta.endpoint_url)
        return f" at {parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _client_errors() -> tuple[type[Exception], ...]:
    """Give what the client raises; ValueError is for an endpoint that is none."""
    from aiohttp import ClientError as LostError
    from botocore.exceptions import BotoCoreError, ClientError

    return (OSError, ValueError, BotoCoreError, ClientError, LostError)


def _may_pass(error: Exception) -> bool:
    """Say whether the same may succeed later: the store was not reached, was busy, or failed by itself."""
    from aiohttp import ClientError as LostError
    from botocore import exceptions as known

    if code := _code(error):
        return code in BUSY or ((_status(error) or 0) >= 500 and code != "NotImplemented")
    settings = (known.ProxyConnectionError, known.SSLError)  # no other attempt mends these
    lost = (OSError, LostError, known.ConnectionError, known.HTTPClientError)
    return isinstance(error, lost) and not isinstance(error, settings)


def _is_local(error: OSError) -> bool:
    """Say whether the disk here is in trouble, not the store."""
    return _response(error) is None and (error.errno in files.REFUSALS or error.filename is not None)


def _response(error: BaseException) -> dict[str, Any] | None:
    """Give the store's answer behind an error; s3fs keeps it in the cause."""
    for one in (error, error.__cause__):
        answer = getattr(one, "response", None)
        if isinstance(answer, dict):
            return answer
    return None


def _code(error: BaseException) -> str:
    """Give the store's error code, or "" where the store did not answer."""
    answer = _response(error)
    code = str(answer.get("Error", {}).get("Code", "unknown")) if answer else ""
    return code if re.fullmatch(r"[A-Za-z0-9.]{0,64}", code) else "unknown"


def _status(error: BaseException) -> int | None:
    answer = _response(error) or {}
    status: int | None = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status
