"""Whether a release is still what was published; for the command and for the flow."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sid_schemas import WarehouseError
from sid_warehouse.reader import Release, Warehouse
from sid_warehouse.verify import Finding
from sid_warehouse.verify import verify as check


@dataclass(frozen=True)
class Verified:
    """What was found. files: looked at; checks: gate checks measured again, left_out: those that were not."""

    release: Release
    findings: list[Finding]
    files: int
    checks: int
    left_out: int

    @property
    def says(self) -> str:
        """Say of an intact release what was looked at."""
        says = f"{self.release.ref} is intact: {self.files} files match their SHA-256, their schemas hold"
        says += f", {self.checks} gate checks measure as before" if self.checks else ""
        return says + (f" ({self.left_out} left out)" if self.left_out else "")

    @property
    def told(self) -> dict[str, Any]:
        """Give the same for a program to read."""
        return {
            "ref": self.release.ref,
            "intact": not self.findings,
            "files": self.files,
            "checks": self.checks,
            "left_out": self.left_out,
            "findings": [{"file": one.file, "problem": one.problem} for one in self.findings],
        }

    def check(self) -> None:
        """Raise WarehouseError naming the first finding, where there is one."""
        if self.findings:
            first = self.findings[0]
            more = f" ({len(self.findings) - 1} more: see --json)" if len(self.findings) > 1 else ""
            raise WarehouseError(
                f"{self.release.folder / first.file}: {first.problem}{more}. "
                "Restore the release from a copy, or remove its folder and run its recipe again"
            )


def verified(warehouse: Path, ref: str, *, quick: bool = False) -> Verified:
    """Re-hash every file of a release, check its schemas, and measure again what its gates checked.

    quick: hashes and schemas only.
    """
    from sid_pipelines.recheck import recheck

    release = Warehouse(warehouse).release(ref)
    findings = check(release.folder)
    # Damaged files say nothing about what the release promised.
    gates = None if quick or findings else recheck(release.folder)
    return Verified(
        release,
        gates.findings if gates else findings,
        len(release.record["files"]),
        gates.checks if gates else 0,
        gates.left_out if gates else 0,
    )
