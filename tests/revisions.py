"""Which code makes each stage's output, as one hash, so that no change goes without a new revision.

The hash covers the stage's module, the one that runs it by shards where there is one, and every module of
ours that these import, however far, without comments and docstrings. `make lock` records it, and refuses
where the revision was not raised.
"""

import ast
import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from sid_pipelines import publish
from sid_pipelines.chain import APPENDING, CHAIN
from sid_pipelines.retokenize import CHURN, RELABEL
from sid_pipelines.sharded import SHARDED
from sid_pipelines.stage import Outcome, Stage

LOCK = Path(__file__).with_name("revisions.json")
OURS = ("sid_schemas", "sid_tokenizers", "sid_warehouse", "sid_pipelines")
# These carry work to and from a stage; they do not shape what it writes.
NEUTRAL = {
    "sid_schemas.errors", "sid_pipelines.stage", "sid_warehouse.stages", "sid_warehouse.files",
    "sid_warehouse.reader",  # what users train from; stages read tables with sid_warehouse.parquet
    "sid_pipelines.sharded", "sid_pipelines.sharded.job", "sid_pipelines.sharded.committed",
    "sid_pipelines.sharded.inline", "sid_pipelines.sharded.shards",
}  # fmt: skip


Revisions = dict[str, dict[str, Any]]
Read = dict[str, tuple[list[str], str]]  # of each module: what it imports, and its code


def current() -> Revisions:
    """Give revision and code hash of every stage, and of publish."""
    stages = {
        stage.name: (stage.revision, [one.__module__ for one in _runs(stage)])
        for stage in (*CHAIN, *APPENDING, RELABEL, CHURN)
    }
    stages["publish"] = (publish.REVISION, [publish.__name__])
    read: Read = {}
    return {
        name: {"revision": revision, "code": code_hash(modules, read)}
        for name, (revision, modules) in stages.items()
    }


def _runs(stage: Stage) -> list[Callable[..., Outcome]]:
    """Give what runs a stage: here, and by shards."""
    return [stage.run, *([SHARDED[stage.name]] if stage.name in SHARDED else [])]


def code_hash(modules: Sequence[str], read: Read) -> str:
    """Give the hash over modules and all of ours that they import; read: modules looked at already."""
    seen: dict[str, str] = {}
    pending = list(modules)
    while pending:
        name = pending.pop()
        if name in seen or name in NEUTRAL:
            continue
        if name not in read:
            tree = _parse(name)
            read[name] = _imports(tree), ast.dump(_without_docstrings(_without_wiring(tree)))
        imports, seen[name] = read[name]
        pending += imports
    return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()[:16]


def _parse(name: str) -> ast.Module:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


def _imports(tree: ast.Module) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in OURS:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.append(inner if _is_module(inner) else node.module)
    return found


@cache
def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _without_wiring(tree: ast.Module) -> ast.Module:
    """Leave out `STAGE = Stage(...)`: parents are in every key, the rest shapes no output."""
    tree.body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "STAGE")
    ]
    return tree


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                node.body = body[1:]  # type: ignore[attr-defined]
    return tree


def problems(locked: Revisions, now: Revisions) -> list[str]:
    """Give a line for each stage whose code changed without a higher revision."""
    return [
        f"the code of stage {name!r} changed: raise its revision (now {now[name]['revision']}), "
        "then run `make lock`"
        for name in now
        if name in locked
        and locked[name]["code"] != now[name]["code"]
        and locked[name]["revision"] >= now[name]["revision"]
    ]


def main() -> int:
    """Record the present code, unless a revision is missing."""
    now = current()
    found = problems(json.loads(LOCK.read_text()) if LOCK.exists() else {}, now)
    for problem in found:
        print(problem, file=sys.stderr)
    if not found:
        LOCK.write_text(json.dumps(now, indent=2) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
