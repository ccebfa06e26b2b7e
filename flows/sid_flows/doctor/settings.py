"""Settings in the environment that change what commands do: Prefect's, Great Expectations', object stores'.

That a secret is set is said, never what it is.
"""

import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from sid_flows.doctor.finding import Finding
from sid_flows.doctor.installed import version_of

WAIT = 0.5  # seconds for a Prefect server to answer
SLOW = 60  # seconds: the first start of Prefect's own server takes 16 on an idle machine
FALSE = ("0", "false", "no", "off")
ROLES = {
    "AWS_ACCESS_KEY_ID": "a key in the environment",
    "AWS_PROFILE": "a named profile",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "a web identity",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "the container's role",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": "the container's role",
}


def of_settings() -> Iterator[Finding]:
    """Give what is found in the environment."""
    if version_of("prefect"):
        yield from prefect(os.environ)
    yield analytics(os.environ)
    yield store(os.environ, Path.home())


def prefect(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Give what Prefect would do: ask a server, or start one of its own."""
    url = environment.get("PREFECT_API_URL", "")
    ephemeral = environment.get("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", "true").lower() not in FALSE
    home = environment.get("PREFECT_HOME")
    where = f"PREFECT_HOME={home}" if home else "its home in the warehouse"
    if url:
        shown = without_secrets(url)
        if reachable(url):
            yield Finding("settings", "ok", f"Prefect's server at {shown} answers; {where}")
        else:
            do = "start it with `prefect server start`, or unset PREFECT_API_URL"
            yield Finding("settings", "problem", f"PREFECT_API_URL={shown}: nothing answers there", do)
    elif not ephemeral:
        said = "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE is off and no PREFECT_API_URL is set: no run can start"
        yield Finding("settings", "problem", said, "unset the former, or name a server by the latter")
    else:
        yield Finding("settings", "ok", f"Prefect starts a server of its own for each run; {where}")
    patience = environment.get("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS")
    if patience and not (patience.isdigit() and int(patience) >= SLOW):
        said = f"Prefect's own server is given {patience} s to start; a first start may take longer"
        do = "unset PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS; sidmill sets 300"
        yield Finding("settings", "note", said, do)


def analytics(environment: Mapping[str, str]) -> Finding:
    """Say whether somebody turned on what sidmill turns off: reports to the makers of its libraries."""
    names = ("PREFECT_SERVER_ANALYTICS_ENABLED", "GX_ANALYTICS_ENABLED")
    asked = [name for name in names if environment.get(name, "").lower() not in (*FALSE, "")]
    if environment.get("DO_NOT_TRACK", "1").lower() in (*FALSE, ""):
        asked.append("DO_NOT_TRACK")
    if asked:
        said = f"the environment turns on what sidmill turns off: {', '.join(asked)}"
        return Finding("settings", "note", said, f"unset {' '.join(asked)}")
    return Finding("settings", "ok", "no usage reports: Prefect's and Great Expectations' analytics are off")


def store(environment: Mapping[str, str], home: Path) -> Finding:
    """Say what an object store would be asked with, for warehouses on s3://."""
    found = list(dict.fromkeys(said for name, said in ROLES.items() if environment.get(name)))
    shared = environment.get("AWS_SHARED_CREDENTIALS_FILE") or str(home / ".aws" / "credentials")
    if Path(shared).is_file():
        found.append(f"the file {shared}")
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    at = f", at {without_secrets(endpoint)}" if endpoint else ""
    if not found:
        said = (
            f"no credentials for an object store in the environment{at}; a machine's role is not looked for"
        )
        return Finding("settings", "ok", said)
    return Finding("settings", "ok", f"credentials for an object store: {', '.join(found)}{at}")


def without_secrets(url: str) -> str:
    """Give scheme, host and port of a URL and nothing else of it, as it may hold a password."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(no URL)"
    return f"{parts.scheme}://{parts.hostname or ''}{port}"


def reachable(url: str) -> bool:
    """Say whether something listens where a URL points; nothing is asked of it."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=WAIT).close()
    except (OSError, ValueError):
        return False
    return True
