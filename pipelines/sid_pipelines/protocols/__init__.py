"""Split protocols: each gives every event its label, says what it leaks, and what it must never leak.

Labels are train, valid, test and context (history only: never a target, never fitted on). What a protocol
must know of the whole data set (cut times, who is held out) is found before; then events stream through
by whole users. The rules that `forbids` and `allows` name are in audit.py.
"""

from collections.abc import Mapping
from typing import Any

from sid_pipelines.protocols.base import Labelling, Protocol
from sid_pipelines.protocols.global_time import GlobalTime
from sid_pipelines.protocols.held_out import ColdItems, UserHoldout
from sid_pipelines.protocols.own_time import LeaveKOut, LeaveOneOut, PerUserRatio, Sessions
from sid_schemas import RecipeError

__all__ = ["PROTOCOLS", "Labelling", "Protocol", "protocol_named"]

PROTOCOLS: dict[str, type[Protocol]] = {
    protocol.name: protocol
    for protocol in (LeaveOneOut, LeaveKOut, GlobalTime, PerUserRatio, UserHoldout, ColdItems, Sessions)
}


def protocol_named(name: str, params: Mapping[str, Any] | None = None) -> Protocol:
    """Give a protocol by its recipe name, parameters checked.

    Raises RecipeError for an unknown name, DataError for a parameter that is out of range.

    >>> protocol_named("leave-k-out", {"k": 3})
    LeaveKOut(k=3)
    """
    if name not in PROTOCOLS:
        raise RecipeError(f"no split protocol is called {name!r}; there are: {', '.join(PROTOCOLS)}")
    values = {
        key: tuple(value) if isinstance(value, list) else value for key, value in (params or {}).items()
    }
    protocol = PROTOCOLS[name](**values)
    protocol.check_params()
    return protocol
