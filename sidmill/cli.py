"""The `sidmill` command: thin wiring from the command line to plans, runs and readers.

app.py has what commands share, commands/ the commands.
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a quality gate refused, 130 stopped by Ctrl-C,
143 by SIGTERM.
"""

import os
import sys

from sid_schemas import SidmillError
from sidmill import commands  # noqa: F401 (registers them)
from sidmill.app import app
from sidmill.completing import mend_words
from sidmill.console import complain


def main() -> None:
    """Run the command; a SidmillError becomes one line and its exit code."""
    mend_words(os.environ)
    try:
        app(prog_name="sidmill")
    except SidmillError as error:
        complain(str(error))
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
