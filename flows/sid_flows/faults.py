"""Which errors may pass by themselves, so that the same is worth another attempt. The one rule there is.

A SidmillError is the user's to mend, and no attempt mends it: a recipe, data, a gate. The exception is
UnreachableError, of an object store that did not answer. Of all others, those of the network pass.
"""

import errno
import socket
import ssl
from collections.abc import Iterator

from sid_schemas import SidmillError
from sid_schemas.errors import UnreachableError

RETRIES = 4
FIRST, FACTOR, JITTER = 10.0, 2.0, 0.5  # seconds before the second attempt, times so much before each further
NETWORK = {
    errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH,
    errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH, errno.ENOTCONN, errno.ETIMEDOUT,
    errno.ESTALE, errno.EREMOTEIO,
}  # fmt: skip
# Of packages that may not be installed, so by name; whoever raises one of these was not answered.
BOTO = {"ConnectionError", "HTTPClientError"}  # with EndpointConnectionError and the timeouts
SETTINGS = {"SSLError", "ProxyConnectionError"}  # of these two kinds, but no attempt mends them


def delays() -> list[float]:
    """Give the seconds before each further attempt.

    >>> delays()
    [10.0, 20.0, 40.0, 80.0]
    """
    return [FIRST * FACTOR**number for number in range(RETRIES)]


def may_pass(error: BaseException) -> bool:
    """Say whether another attempt may succeed.

    >>> may_pass(ConnectionResetError()), may_pass(OSError(errno.ENOSPC, "disk full")), may_pass(KeyError())
    (True, False, False)
    """
    for one in _chain(error):
        if isinstance(one, SidmillError):  # it says what those below it mean
            return isinstance(one, UnreachableError)
        if isinstance(one, BrokenPipeError | ssl.SSLError):  # a reader that left; a certificate, a protocol
            return False
        if isinstance(one, ConnectionError | socket.gaierror | socket.herror):
            return True
        if isinstance(one, OSError) and one.errno in NETWORK:
            return True
        kinds = {kind.__name__ for kind in type(one).__mro__ if kind.__module__ == "botocore.exceptions"}
        if kinds & BOTO:
            return not kinds & SETTINGS
    return False


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Give an error and what it was raised from."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__
