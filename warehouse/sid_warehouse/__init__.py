"""Where tables live: write-once stage outputs, immutable releases, the DuckDB catalog, and readers.

    files -> parquet -> stages -> releases -> catalog
                                      └-> reader, samples: what training code opens

It knows how tables are kept, not how they are made.
"""

from sid_warehouse.reader import Release, Warehouse, open_warehouse

__all__ = ["Release", "Warehouse", "open_warehouse"]
