"""Jobs on Apache Beam. The only package that imports it; sid_pipelines.sharded says what a job is.

runners -> spread -> pipeline -> guard -> engine
"""

from sid_pipelines.beam.quiet import quiet
from sid_schemas import MissingExtraError

try:
    with quiet():
        from sid_pipelines.beam.engine import BeamEngine
except ModuleNotFoundError as error:
    package = (error.name or "").partition(".")[0]
    raise MissingExtraError(f"[engine] kind = 'beam' ({package})", "beam") from error

__all__ = ["BeamEngine"]
