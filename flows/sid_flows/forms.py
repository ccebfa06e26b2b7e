"""What parameters of flows may be, so that Prefect's UI offers it in a form.

Names of formats come from what there is; of stages a type checker wants them written out, and a test
compares them with the chain.
"""

from typing import Annotated, Literal, get_args

from pydantic import Field

from sid_pipelines.chain import PUBLISH
from sid_pipelines.exports import FORMATS
from sid_pipelines.trainers import TRAINERS

StageName = Literal[
    "ingest", "clean", "split", "text", "sequences", "pairs", "embed", "fuse", "tokenize", "collisions",
    "pieces", "users", "gates", "publish",
]  # fmt: skip
Until = StageName | None
FormatName = Annotated[str, Field(json_schema_extra={"enum": [*FORMATS, *sorted(TRAINERS)]})]
STAGES = get_args(StageName)


def stop_after(until: Until) -> str | None:
    """Give the stage to stop after; None where the last one is meant, or none."""
    return None if until == PUBLISH else until
