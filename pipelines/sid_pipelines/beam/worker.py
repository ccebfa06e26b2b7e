"""The worker process that jobs on this machine start: Beam's own, but silent.

Beam's prints its logs to the terminal of whoever started it. They still go to the runner, with each error.
"""

import logging
import os
import sys
from pathlib import Path


def main() -> None:
    """Work until the runner has no more."""
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 (Beam prints each traceback there too)
    logging.getLogger().addHandler(logging.NullHandler())  # else Beam calls logging.basicConfig
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
