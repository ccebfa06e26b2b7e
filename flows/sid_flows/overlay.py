"""A recipe laid over the one that a release was made by: what it leaves out is as it was.

Some sections are free to change; of the others a value that differs is refused, because codebooks and splits
that are published were made by them.
"""

import copy
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from sid_flows.recipe import Recipe, recipe_values, validated
from sid_schemas import RecipeError

# Naming another one of these drops the parameters that stood beside it.
NAMES = {"tokenize": "tokenizer", "collisions": "policy", "split": "protocol", "fuse": "method"}


def recipe_over(
    record: Mapping[str, Any],
    path: str | Path,
    overrides: Sequence[str],
    *,
    free: Collection[str],
    instead: str,
) -> Recipe:
    """Give a release's recipe with what another one changes of it.

    record: of the release. free: sections and dotted keys that may change. instead: what to do about
    others, for the message. Raises RecipeError naming the first key that may not change.
    """
    before, values = record["recipe"], recipe_values(path, overrides)
    merged = copy.deepcopy(dict(before))
    for name, section in values.items():
        merged[name] = _merged(name, before.get(name), section)
    recipe = validated(path, merged)
    now = _flat(recipe.as_written())
    for key, value in _flat(before).items():
        if now.get(key) != value and not _is_free(key, free):
            raise RecipeError(
                f"{path}: {key} = {now.get(key)!r} differs from {value!r}, by which {record['dataset']}"
                f"@v{record['version']} was made; leave it out. {instead}"
            )
    return recipe


def _merged(name: str, before: Any, section: Any) -> Any:
    if name == "source" or not isinstance(section, dict | list) or not before:
        return section
    if isinstance(section, list):  # [[embed]], by name
        named = {one["name"]: one for one in before}
        return [*({**named.pop(_name(one), {}), **one} for one in section), *named.values()]
    chosen = NAMES.get(name, "")
    if chosen in section and section[chosen] != before.get(chosen):
        return section
    return {**before, **section}


def _name(one: Mapping[str, Any]) -> str:
    return str(one.get("name", one.get("modality", "text")))


def _is_free(key: str, free: Collection[str]) -> bool:
    return key in free or key.partition(".")[0] in free


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Give nested sections under dotted keys; entries of a list by their name."""
    if isinstance(value, Mapping):
        pairs = [(f"{prefix}.{key}" if prefix else key, inner) for key, inner in value.items()]
    elif isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
        pairs = [(f"{prefix}.{_name(one)}", one) for one in value]
    else:
        return {prefix: value}
    return {name: found for key, inner in pairs for name, found in _flat(inner, key).items()}
