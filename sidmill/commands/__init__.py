"""The commands, a file for each group of them; importing the package registers all with the app."""

from sidmill.commands import (
    append,
    build,
    compare,
    doctor,
    evaluate,
    export,
    fetch,
    inspect,
    keep,
    menus,
    report,
    suites,
    verify,
)

__all__ = [
    "append",
    "build",
    "compare",
    "doctor",
    "evaluate",
    "export",
    "fetch",
    "inspect",
    "keep",
    "menus",
    "report",
    "suites",
    "verify",
]
