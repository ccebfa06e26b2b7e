"""Tables of keys: what a recipe or `--set` may say, its type in plain words, default and meaning."""

import inspect
import types
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from handbook.meanings import meanings, parameters_of
from handbook.words import code, plain, table, toml

MOMENT = "time such as `2016-10-01`, or milliseconds"
SIMPLE = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "`true` or `false`",
    date: "date",
    datetime: "date and time",
}
COMMON = {  # what keys mean wherever their class does not say
    "seed": "of every draw",
    "epochs": "passes over what is trained on",
    "batch_size": "rows of a step",
    "learning_rate": "of the optimizer",
    "weight_decay": "of the optimizer",
    "normalize": "scale each vector to length 1",
    "device": "where torch trains: cpu, cuda, cuda:1, mps",
}
UNSET = inspect.Parameter.empty


def type_of(annotation: Any) -> str:
    """Give a type as users write it.

    >>> type_of(list[int]), type_of(Literal["a", "b"] | None), type_of(Annotated[float, Ge(0), Le(1)])
    ('list of whole numbers', '`"a"` or `"b"`', 'number from 0 to 1')
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _bounded(type_of(inner[0]), inner[1:])
    if origin in (Union, types.UnionType):
        kinds = [type_of(one) for one in inner if one is not type(None)]
        return " or ".join(dict.fromkeys(kinds))
    if origin is Literal:
        return " or ".join(code(toml(one)) for one in inner)
    if origin in (list, tuple, Sequence) or annotation in (list, tuple, Sequence):
        one = type_of(inner[0]) if inner else ""
        return f"list of {_several(one)}" if one and one != "any value" else "list"
    if origin in (dict, Mapping) or annotation is dict:
        return f"table of {_several(type_of(inner[1]))}" if inner else "table"
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return "whole number, or table"  # k_core: one number for both sides, or each its own
    if origin is not None and hasattr(origin, "__value__"):
        return type_of(origin.__value__)
    if hasattr(annotation, "__value__"):
        return type_of(annotation.__value__)
    return SIMPLE.get(annotation, "any value")


def _several(one: str) -> str:
    return {"text": "texts", "whole number": "whole numbers", "number": "numbers"}.get(one, one)


def _bounded(kind: str, notes: Sequence[Any]) -> str:
    least: Any = None
    most: Any = None
    for note in notes:
        if getattr(getattr(note, "func", None), "__name__", "") == "_milliseconds":
            return MOMENT
        for one in getattr(note, "metadata", [note]):
            least = getattr(one, "ge", None) if isinstance(one, Ge) else least
            most = getattr(one, "le", None) if isinstance(one, Le) else most
            if isinstance(one, Gt):
                return f"{kind} over {one.gt}"
            if isinstance(one, Lt):
                return f"{kind} under {one.lt}"
    if least is not None and most is not None:
        return f"{kind} from {least} to {most}"
    return f"{kind}, {least} or more" if least is not None else kind


def default_of(value: Any) -> str:
    """Give a default; nothing where a key has to be given, or where leaving it out is the default."""
    if value is None or value is UNSET or value is PydanticUndefined:
        return "" if value is None else "must be given"
    if isinstance(value, BaseModel):
        return code(toml(value.model_dump(mode="json", exclude_none=True)))
    if isinstance(value, list) and value and isinstance(value[0], BaseModel):
        return "one for text"
    return code(toml(value))


def model_rows(
    model: type[BaseModel], *, skip: Sequence[str] = (), also: Sequence[type] = ()
) -> list[list[str]]:
    """Give a row for each key of a pydantic model: key, type, default, meaning."""
    keys = [name for name in model.model_fields if name not in skip]
    told = _told(model, keys, also)
    rows = []
    for name in keys:
        field = model.model_fields[name]
        kind = field.annotation if not field.metadata else Annotated[field.annotation, *field.metadata]
        default = field.get_default(call_default_factory=True)
        rows.append([code(name), type_of(kind), default_of(default), plain(told.get(name, ""))])
    return rows


def parameter_rows(owner: type, *, skip: Sequence[str] = (), also: Sequence[type] = ()) -> list[list[str]]:
    """Give a row for each parameter of a constructor: key, type, default, meaning."""
    given = {name: one for name, one in parameters_of(owner).items() if name not in skip}
    told = _told(owner, list(given), also)
    return [
        [code(name), type_of(one.annotation), default_of(one.default), plain(told.get(name, ""))]
        for name, one in given.items()
    ]


def _told(owner: type, keys: list[str], also: Sequence[type]) -> dict[str, str]:
    told = meanings(owner, keys)
    for other in also:
        for name, text in meanings(other, keys).items():
            if not told.get(name) or "`Settings`" in told[name]:
                told[name] = text
    return {**{name: COMMON[name] for name in keys if name in COMMON}, **told}


def key_table(rows: Sequence[Sequence[str]]) -> str:
    """Give the table of some keys, or a line that there are none."""
    return table(["key", "type", "default", "meaning"], rows) if rows else "It has no keys of its own."
