"""The Python reference: what users open, by signature and docstring."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import sidmill
from handbook.words import plain, prose
from sid_tokenizers import Tokenizer
from sid_tokenizers.sid_items import SidItems
from sid_tokenizers.trie import Trie
from sid_tokenizers.vocabulary import Vocabulary
from sid_warehouse.reader import Release, Warehouse
from sid_warehouse.samples import Samples

WIDE = 90
WIDE = 90
DOORS: dict[type, str] = {
    Warehouse: "`sidmill.open(PATH)` gives it.",
    Release: "`sidmill.open(PATH).release(REF)` gives it.",
    Samples: "`release.samples(SPLIT)` gives it; `release.sequences(SPLIT)` gives the same to torch.",
    Vocabulary: "`release.vocabulary` gives it.",
    Trie: "`release.trie()` gives it.",
    SidItems: "`release.sid_items()` gives it.",
    Tokenizer: "`release.tokenizer()` gives a fitted one; `sid_tokenizers` has all classes.",
}


def page() -> str:
    """Give the page."""
    return f"""\
# Python doors

`import sidmill` loads nothing but its own file; a release is read without torch, Prefect or
Great Expectations. [Loading](../loading.md) has the loader in use, [Identifiers](../identifiers.md) the
tables.

```python
import sidmill

release = sidmill.open("warehouse/data").release("movietweetings")
release.table("sids").slice(0, 3).to_pylist()
release.samples("train")[0]
release.trie().item(release.table("sids")["sid"][0].as_py())
```

## sidmill.open

{_signed("sidmill.open", sidmill.open)}

{chr(10).join(_class(owner, how) for owner, how in DOORS.items())}
"""


def _class(owner: type, how: str) -> str:
    parts = [f"## {owner.__name__}", f"{how} {plain(_first(owner))}"]
    for name, made in _public(owner):
        told = made.fget if isinstance(made, property) else made
        parts.append(f"### {owner.__name__}.{name}")
        if isinstance(made, property):
            parts += [f"```text\n{name}: {_returned(told)}\n```", prose(inspect.getdoc(told) or "")]
        else:
            parts.append(_signed(name, made))
    return "\n\n".join(parts) + "\n"


def _first(owner: type) -> str:
    return " ".join(inspect.cleandoc(owner.__doc__ or "").split("\n\n")[0].split())


def _public(owner: type) -> Iterator[tuple[str, Any]]:
    """Yield the methods and properties of a class and of those of ours that it is made of."""
    seen = set()
    for base in owner.__mro__:
        for name, made in vars(base).items() if base.__module__.startswith("sid_") else ():
            told = made.__func__ if isinstance(made, classmethod | staticmethod) else made
            shown = inspect.isfunction(told) or isinstance(told, property)
            if name[0] != "_" and name not in seen and shown and inspect.getdoc(told):
                seen.add(name)
                yield name, told


def _signed(name: str, made: Callable[..., Any]) -> str:
    """Give a function's signature as it is written, and its docstring."""
    [told] = ast.parse(textwrap.dedent(inspect.getsource(made))).body
    assert isinstance(told, ast.FunctionDef)
    told.args.args = [one for one in told.args.args if one.arg not in ("self", "cls")]
    arguments = ast.unparse(told.args)
    text = f"{name}({arguments}) -> {_returned(made)}"
    if len(text) > WIDE:
        text = textwrap.fill(text, WIDE, subsequent_indent="    ", break_long_words=False)
    return f"```text\n{text}\n```\n\n{prose(inspect.getdoc(made) or '')}"


def _returned(made: Any) -> str:
    """Give what a function gives, as it is written."""
    [told] = ast.parse(textwrap.dedent(inspect.getsource(made))).body
    assert isinstance(told, ast.FunctionDef)
    return ast.unparse(told.returns).strip("'") if told.returns else ""
