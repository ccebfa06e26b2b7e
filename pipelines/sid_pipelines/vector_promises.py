"""What a release promises of an embedding: how many vectors may be zero, alike or missing, as [gates] has it.

promises.py has what it promises of the IDs that are made of them.
"""

from sid_pipelines.failing import repeats, sought
from sid_schemas import Check


def vector_promises(
    table: str, max_zero: float, max_duplicate: float | None, min_coverage: float | None
) -> list[Check]:
    """Give the checks of one embedding, over the items that have the modality; None for any share."""
    distinct = "(count(*) filter (where present) - count(distinct hash(vector)) filter (where present))"
    zero = "present and list_max(list_transform(vector, lambda x: abs(x))) = 0"
    checks = [
        Check(
            table,
            "zero_vectors",
            f"count(*) filter (where {zero}) / greatest(count(*) filter (where present), 1)",
            "share of vectors that are zero; [gates] max_zero_vectors allows some",
            minimum=0,
            maximum=max_zero,
            failing=zero,
        )
    ]
    if max_duplicate is not None:
        check = Check(
            table,
            "duplicate_vectors",
            f"{distinct} / greatest(count(*) filter (where present), 1)",
            "share of vectors that repeat another item's; no quantizer separates them",
            minimum=0,
            maximum=max_duplicate,
        )
        checks.append(sought(check, repeats(table, "hash(vector)", "present")))
    if min_coverage is not None:
        coverage = "count(*) filter (where present) / count(*)"
        why = "share of items that have this modality"
        checks.append(Check(table, "coverage", coverage, why, minimum=min_coverage, failing="not present"))
    return checks
