"""Python, our packages against the ranges that sidmill declares, and what each extra lacks.

Versions are read from the metadata that pip wrote; no package is imported.
"""

import importlib.metadata
import platform
import sys
from collections.abc import Iterator

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

from sid_flows.doctor.finding import Finding

DISTRIBUTION = "sidmill"
BUNDLES = ("all", "dev")  # extras that are no purpose of their own
RUNNING = ("flows", "quality")  # extras that `sidmill run` cannot do without
# FastAPI 0.151 breaks Prefect 3.8: first deployments, then every flow.
PAIRS = (("prefect", ">=3.8,<3.9", "fastapi", ">=0.151", "pip install 'fastapi>=0.139,<0.151'"),)


def of_installation() -> Iterator[Finding]:
    """Give what is found of Python and packages."""
    yield python(sys.version_info[:2])
    try:
        required = importlib.metadata.requires(DISTRIBUTION) or []
        extras = importlib.metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding("packages", "problem", "sidmill is not installed", "pip install sidmill")
        return
    yield from core(required)
    for extra in sorted(set(extras) - set(BUNDLES)):
        yield extra_finding(extra, required)
    yield from pairs()


def python(version: tuple[int, int]) -> Finding:
    """Say whether Python is new enough."""
    said = f"Python {platform.python_version()} on {platform.uname().system} {platform.machine()}"
    if version < (3, 11):
        return Finding("python", "problem", said, "make the environment with Python 3.11 or newer")
    return Finding("python", "ok", said)


def core(required: list[str]) -> Iterator[Finding]:
    """Compare the packages that every command needs with their ranges."""
    wrong, fit = [], []
    for one in needed("", required):
        found = version_of(one.name)
        if found is None or not one.specifier.contains(found, prereleases=True):
            wrong.append(f"{one.name} {found or 'is missing'} (expected {one.specifier})")
        else:
            fit.append(f"{one.name} {found}")
    said = f"{DISTRIBUTION} {version_of(DISTRIBUTION)}; {', '.join(fit)}"
    yield Finding("packages", "ok", said)
    if wrong:
        yield Finding("packages", "problem", ", ".join(wrong), f"pip install --upgrade {DISTRIBUTION}")


def extra_finding(extra: str, required: list[str]) -> Finding:
    """Say whether an extra is complete, and give the pip line where it is not."""
    missing, wrong, fit = [], [], []
    for one in needed(extra, required):
        found = version_of(one.name)
        if found is None:
            missing.append(one.name)
        elif one.specifier.contains(found, prereleases=True):
            fit.append(f"{one.name} {found}")
        else:
            wrong.append(f"{one.name} {found} (expected {one.specifier})")
    do = f"pip install '{DISTRIBUTION}[{extra}]'"
    if wrong:
        lacks = f"; lacks {', '.join(missing)}" if missing else ""
        verdict = "problem" if extra in RUNNING else "note"
        return Finding("extras", verdict, f"{extra}: {', '.join(wrong)}{lacks}", do)  # type: ignore[arg-type]
    if missing:
        needed_for = ", which `sidmill run` needs" if extra in RUNNING else ""
        return Finding("extras", "note", f"{extra}: lacks {', '.join(missing)}{needed_for}", do)
    return Finding("extras", "ok", f"{extra}: {', '.join(fit)}")


def pairs() -> Iterator[Finding]:
    """Find versions that are each allowed but do not work together."""
    for one, of, other, not_of, do in PAIRS:
        versions = version_of(one), version_of(other)
        if None not in versions and within(versions[0], of) and within(versions[1], not_of):
            said = f"{one} {versions[0]} does not work with {other} {versions[1]}"
            yield Finding("packages", "problem", said, do)


def needed(extra: str, required: list[str]) -> list[Requirement]:
    """Give what an extra needs, those that it includes too; "" for what is always needed."""
    found = []
    for text in required:
        try:
            one = Requirement(text)
        except InvalidRequirement:
            continue
        always = one.marker is None or one.marker.evaluate({"extra": ""})
        asked = one.marker is None or one.marker.evaluate({"extra": extra})
        if not asked or (extra and always):
            continue
        if one.name.lower() == DISTRIBUTION:
            found += [inner for name in sorted(one.extras) for inner in needed(name, required)]
        else:
            found.append(one)
    return found


def version_of(package: str) -> str | None:
    """Give the installed version, or None; a fit one that cannot be parsed counts as missing."""
    try:
        found = importlib.metadata.version(package)
        Version(found)
    except (importlib.metadata.PackageNotFoundError, InvalidVersion, TypeError):
        return None
    return found


def within(version: str | None, specifier: str) -> bool:
    """Say whether a version is in a range, such as `>=3.8,<3.9`."""
    return version is not None and Requirement(f"x{specifier}").specifier.contains(version, prereleases=True)
