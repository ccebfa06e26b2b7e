"""plotly.js as it stands in the page: packed, and unpacked there by the reader's browser.

The library is 4.8 MB; gzip and base64 make 2 MB of it. The page's Content-Security-Policy names it by its
SHA-256, so that nothing else runs as a script, whatever stands in the data.
"""

import base64
import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class Library:
    """packed: gzip, base64. sha256: of the code, as a policy names it. version: as its own banner says."""

    packed: str
    sha256: str
    version: str


@cache
def library() -> Library:
    """Give plotly.js of the package that is installed; packed once in a process."""
    code = resources.files("plotly").joinpath("package_data", "plotly.min.js").read_bytes()
    packed = gzip.compress(code, compresslevel=9, mtime=0)
    banner = code[:200].decode("utf-8", "replace").partition("plotly.js v")[2]
    return Library(base64.b64encode(packed).decode("ascii"), policy_hash(code), banner.split()[0])


def policy_hash(code: bytes) -> str:
    """Give the hash of a script as a Content-Security-Policy names it.

    >>> policy_hash(b"")
    'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='
    """
    return f"sha256-{base64.b64encode(hashlib.sha256(code).digest()).decode('ascii')}"
