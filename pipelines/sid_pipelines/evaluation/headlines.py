"""The metrics of a release that say most, one flat record of numbers and words."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sid_warehouse.reader import Release


def headlines(release: Release) -> dict[str, Any]:
    """Give the headline metrics, in the order in which they are shown; None where a release has none.

    "before" is before the collision policy, the rest after it. Reconstruction error: the squared error of
    what codes stand for, as a share of the vectors' own. Overlaps: how many of an item's ten nearest by SID
    are so by cosine, and by shared train users.
    """
    metrics = release.metrics
    made, solved = metrics["tokenizer"], metrics["collisions"]
    levels: Sequence[Mapping[str, Any]] = solved.get("levels") or ()
    return {
        "tokenizer": made["tokenizer"],
        "vectors": (made.get("vectors") or "").removeprefix("embeddings_") or None,
        "codes by level": "x".join(str(one["codes"]) for one in levels[:6]) + ("..." if levels[6:] else ""),
        "items": release.record["rows"]["items"],
        "length of the longest SID": len(levels),
        "collided items before": _at(solved, "before", "collided_items"),
        "collided items": _at(solved, "after", "collided_items"),
        "uniquely identified": _at(solved, "after", "uniquely_identified"),
        "items of the largest SID": _at(solved, "after", "max_group"),
        "neighbour overlap @10": solved.get("neighbour_overlap_at_10"),
        "CF neighbour overlap @10": solved.get("cf_neighbour_overlap_at_10"),
        "reconstruction error": _at(solved, "reconstruction", "relative_error"),
        "perplexity, share of codes": _mean(levels, lambda one: one["perplexity_share"]),
        "dead codes": sum(one["dead"] for one in levels) if levels else None,
    }


def _at(facts: Mapping[str, Any], *names: str) -> Any:
    """Give what stands at a path of names, or None."""
    for name in names:
        facts = (facts or {}).get(name)  # type: ignore[assignment]
    return facts


def _mean(levels: Sequence[Mapping[str, Any]], of: Callable[[Mapping[str, Any]], float]) -> float | None:
    return sum(map(of, levels)) / len(levels) if levels else None
