"""What the sections of a recipe have in common: strictness, and parameters that stand beside a name."""

import inspect
from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Annotated, Any, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from sid_pipelines.protocols import PROTOCOLS
from sid_schemas import RecipeError
from sid_schemas.nearest import unknown

Rate = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


def _milliseconds(value: Any) -> Any:
    """Give a moment in a recipe (ms, an ISO text, a TOML date or time; UTC without a zone) as ms."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("expected milliseconds or a time such as 2016-10-01") from None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if isinstance(value, datetime):
        return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp() * 1000)
    return value


Moment = Annotated[int | None, BeforeValidator(_milliseconds)]


class Section(BaseModel):
    """A part of the recipe: frozen, and strict about what it holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def parameters(section: str, owner: type, given_in: BaseModel) -> dict[str, Any]:
    """Give every parameter of a constructor: those given beside the name, strictly typed, and defaults."""
    given = dict(given_in.__pydantic_extra__ or {})
    constructor = constructor_of(owner)
    for name in given:
        if name not in constructor:
            others = [kind for kind, protocol in PROTOCOLS.items() if name in constructor_of(protocol)]
            if section == "split" and others:
                raise RecipeError(f"split.{name} is a parameter of {', '.join(others)}, not of this protocol")
            known = [f"{section}.{key}" for key in [*constructor, *type(given_in).model_fields]]
            raise RecipeError(unknown(f"{section}.{name}", known))
    values = {}
    for name, one in constructor.items():
        try:
            value = given.get(name, one.default)
            if isinstance(value, list) and get_origin(one.annotation) is tuple:  # TOML has no tuples
                value = tuple(value)
            value = TypeAdapter(one.annotation).validate_python(value, strict=True)
        except ValidationError as error:
            raise ValueError(f"{name} = {given[name]!r}: {error.errors()[0]['msg']}") from None
        values[name] = list(value) if isinstance(value, tuple) else value
    return values


def check(made: Any) -> None:
    """Let an object that can check its own parameters do so."""
    if hasattr(made, "check_params"):
        made.check_params()


def constructor_of(owner: type) -> dict[str, inspect.Parameter]:
    """Give the parameters of a class by name."""
    signature = inspect.signature(owner.__init__).parameters  # type: ignore[misc]
    return {name: one for name, one in signature.items() if name != "self"}


def listed(names: Iterable[str]) -> str:
    """Give the end of a message that says what there is."""
    return f"there are: {', '.join(names) or 'none'}"
