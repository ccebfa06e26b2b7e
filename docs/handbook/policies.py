"""A page for each collision policy: what it promises, needs and takes."""

import inspect
from collections.abc import Iterator

from handbook.keys import key_table, parameter_rows
from handbook.words import plain, prose, slug, table, toml
from sid_tokenizers import POLICIES, TOKENIZERS, Tokenizer
from sid_tokenizers.collisions import misfit
from sid_tokenizers.collisions.base import Policy

LENGTHS = {
    "L": "as the tokenizer's",
    "L+1": "one digit more than the tokenizer's, of every item",
    "L or L+1": "one digit more where items collide; SIDs vary in length",
}


def pages() -> Iterator[tuple[str, str]]:
    """Give path and Markdown of each page."""
    yield "policies/index.md", _menu()
    for name, policy in sorted(POLICIES.items()):
        yield f"policies/{slug(name)}.md", _page(name, policy)


def _menu() -> str:
    rows = [
        [
            f"[{name}]({slug(name)}.md)",
            plain(policy.source),
            "yes" if policy.unique else "no",
            LENGTHS[policy.length],
        ]
        for name, policy in sorted(POLICIES.items())
    ]
    return f"""\
# Collision policies

What `[collisions] policy` may be: what happens to items with equal codes.
[Tokenizers](../tokenizers.md) compares them.

{table(["policy", "of", "every SID unique", "length"], rows)}

```console
$ sidmill policies
policy ...
```
"""


def _page(name: str, policy: type[Policy]) -> str:
    made = policy()
    needs = [
        *policy.inputs,
        *(["a tokenizer whose codes decode to the vectors"] if policy.needs_reconstruction else []),
    ]
    unfit = {
        one: misfit(made, scheme()) for one, scheme in TOKENIZERS.items() if issubclass(scheme, Tokenizer)
    }
    refused = [f"- `{one}`: {plain(problem)}" for one, problem in unfit.items() if problem]
    given = "".join(f"{key} = {toml(value)}\n" for key, value in vars(made).items() if value is not None)
    return f"""\
# {name}

{plain(" ".join(inspect.cleandoc(policy.__doc__ or "").split(chr(10) * 2)[0].split()))}

- From: {plain(policy.source)}
- Every SID unique: {"yes, or it fails loudly" if policy.unique else "no"}
- Length: {LENGTHS[policy.length]}
- Needs: {", ".join(needs) or "codes and vectors alone"}

## In a recipe

```toml
[collisions]
policy = "{name}"
{given}```

{key_table(parameter_rows(policy))}

## Tokenizers of codes that it does not fit

{chr(10).join(refused) or "None: it fits every tokenizer that gives codes."}

## What it does, in full

{prose(policy.__doc__ or "")}
"""
