"""One thing that doctor found."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """What is so, and what to do about it.

    area: python, packages, extras, machine, settings, encoders or warehouse. verdict: "note" for what may be
    meant so, "problem" for what makes commands fail. do: "" where nothing is to be done.
    """

    area: str
    verdict: Verdict
    says: str
    do: str = ""
