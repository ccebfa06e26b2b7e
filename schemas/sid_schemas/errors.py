"""Every error a user can meet. Each message is one line: what, where, expected against got, what to do.

SidmillError              exit code 1
├── RecipeError           exit code 2: the recipe or the command line asks for something that is not there
├── SourceError           a raw file is missing, broken or of another format
├── DataError             the data cannot be used as asked (nothing left, too few items, NaN)
├── WarehouseError        a warehouse, stage or release is missing, damaged or not writable
│   └── UnreachableError  an object store did not answer; the same may succeed later
├── MissingExtraError     an optional package is not installed; the message has the pip line
└── GateRefusedError      exit code 3: a quality gate refused the release
"""


class SidmillError(Exception):
    """The root of all errors that are the user's to mend, never a defect of ours."""

    exit_code = 1


class RecipeError(SidmillError):
    """A recipe, override or reference that cannot be understood."""

    exit_code = 2


class SourceError(SidmillError):
    """A raw file that is missing, broken or not of the declared format."""


class DataError(SidmillError):
    """Data that is readable but cannot be used as asked."""


class WarehouseError(SidmillError):
    """A warehouse, stage output or release that is missing, damaged or not writable."""


class UnreachableError(WarehouseError):
    """An object store that did not answer, or said that it is busy: the same may succeed later."""


class MissingExtraError(SidmillError):
    """An optional package that is not installed."""

    def __init__(self, purpose: str, extra: str) -> None:
        """Name what needs the package and the extra that brings it."""
        super().__init__(f"{purpose} needs an optional package. Run: pip install 'sidmill[{extra}]'")


class GateRefusedError(SidmillError):
    """A release that a quality gate refused; nothing was published."""

    exit_code = 3
