"""What every table of sidmill looks like, what must hold for it, and the errors that say it does not.

The lowest layer: it imports nothing else of ours, and Great Expectations only inside `suites`.
"""

from sid_schemas.checks import Check, checks_of
from sid_schemas.errors import (
    DataError,
    GateRefusedError,
    MissingExtraError,
    RecipeError,
    SidmillError,
    SourceError,
    WarehouseError,
)
from sid_schemas.tables import TABLES, Column, Table, embeddings_table

__all__ = [
    "TABLES",
    "Check",
    "Column",
    "DataError",
    "GateRefusedError",
    "MissingExtraError",
    "RecipeError",
    "SidmillError",
    "SourceError",
    "Table",
    "WarehouseError",
    "checks_of",
    "embeddings_table",
]
