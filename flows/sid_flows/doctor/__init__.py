"""What `sidmill doctor` looks at: the installation, this machine, settings, and the warehouse.

Nothing heavy is imported and nothing but a temporary folder is written, so that it answers in a second or two
where little works. Each part gives findings; what it raises becomes one.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from sid_flows.doctor.finding import Finding, Verdict
from sid_flows.doctor.installed import of_installation
from sid_flows.doctor.machine import encoders, of_machine
from sid_flows.doctor.settings import of_settings
from sid_flows.doctor.warehouse import of_warehouse

__all__ = ["Finding", "Verdict", "diagnose"]


def diagnose(place: Path) -> list[Finding]:
    """Give all findings, in the order in which they should be read. place: the warehouse's folder."""
    return [
        *_findings("packages", of_installation),
        *_findings("machine", of_machine),
        *_findings("encoders", lambda: [encoders(os.environ)]),
        *_findings("settings", of_settings),
        *_findings("warehouse", lambda: of_warehouse(place)),
    ]


def _findings(area: str, part: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Give what a part finds, and as a last problem what it raises: doctor is for unwell machines."""
    found = []
    try:
        for one in part():
            found.append(one)  # what came before an error is kept
    except Exception as error:
        said = f"could not be looked at to the end ({type(error).__name__}: {error})"
        do = "mend what it names; if it names nothing that you know, report it"
        found.append(Finding(area, "problem", said, do))
    return found
