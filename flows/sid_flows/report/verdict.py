"""The headline: whether the new IDs are sound, point by point, each with what good looks like.

Nothing is hidden in a score. A point is "look" where it crosses a rule of thumb of this file; what must hold
was judged by the gates before.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from sid_flows.report.gates import summary
from sid_flows.report.markup import Markup, Right, percent, sentence, table
from sid_flows.report.tables import Tables

COLLIDED = 0.1  # share of items that collide before resolution, up to which it is good
DEAD, PERPLEXITY = 0.05, 0.3  # share of dead codes at most, perplexity share of a level at least
HELD_OUT, FEW = 1.5, 50  # error of held-out items over that of fitted ones; fewer say too little
LIFT = 5.0  # overlap of neighbours over that of chance, at least; of fewer than SMALL items it says little
SMALL = 200
REJECTED = 0.01  # share of raw records
SOUND = (
    "No point below stands out. What a recommender makes of these IDs, <code>sidmill evaluate</code> says."
)
MARKS = {"good": "\u2713", "look": "!", "bad": "\u2717", "told": "\u00b7"}


@dataclass(frozen=True)
class Point:
    """One thing to know. state: good, look, bad, or told where there is no good or bad. to: its section."""

    state: str
    what: str
    value: str
    good: str
    to: str


def verdict(tables: Tables, changes: Mapping[str, Any] | None) -> str:
    """Give the headline as HTML: the verdict, the numbers, the points."""
    points = list(points_of(tables, changes))
    state, says = judged(points)
    named = [f'<a href="#{one.to}">{escape(one.what)}</a>' for one in points if one.state in ("look", "bad")]
    more = f"<p>{', '.join(named)}.</p>" if named else f"<p>{SOUND}</p>"
    rows = [
        [
            Markup(f'<span class="mark is-{one.state}" title="{one.state}">{MARKS[one.state]}</span>'),
            Markup(f'<a href="#{one.to}">{escape(one.what)}</a>'),
            one.value,
            one.good,
        ]
        for one in points
    ]
    shown = table(["", "point", "measured", "what good looks like"], rows, label="points of the verdict")
    return (
        f'<div class="verdict is-{state}"><p>{escape(says)}</p>{more}</div>{_numbers(tables)}'
        f'<div class="points">{shown}</div>'
    )


def judged(points: list[Point]) -> tuple[str, str]:
    """Give the state of all points together, and the words for it."""
    bad, look = (sum(one.state == state for one in points) for state in ("bad", "look"))
    if bad:
        return "bad", f"Not good as they are: {_points(bad)} would do harm"
    if look:
        return (
            "look",
            f"Good where {_points(look)} {'does' if look == 1 else 'do'} not matter to you: look first",
        )
    return "good", "The IDs are sound"


def points_of(tables: Tables, changes: Mapping[str, Any] | None) -> Iterator[Point]:
    """Give the points, those that matter most first."""
    warned = sum(one["verdict"] != "ok" for one in tables.record["gates"])
    told = summary(tables.record["gates"])
    yield Point("look" if warned else "good", "Gates", told, "every check holds", "gates")
    if changes is not None:
        yield from _changed(changes)
    yield from _drifted(tables)
    if tables.gives == "vectors":
        told = f"{tables.items:,} items have vectors in the place of codes"
        yield Point("told", "Unique IDs", told, "an item is found by its vectors", "collisions")
    else:
        yield from _collisions(tables)
        yield from _codes(tables)
    yield from _likeness(tables)
    yield from _data(tables)


def _changed(changes: Mapping[str, Any]) -> Iterator[Point]:
    sids, append = changes["sids"], changes["b"]["kind"] == "append"
    moved = changes["token_ids_moved"]
    if moved:
        told = f"{moved:,} items keep their SID but have other token ids"
        yield Point("bad", "Token ids", told, "none: a trained model would read other items", "changes")
    told = f"{sids['moved']:,} of {sids['kept']:,} items in both moved"
    good = "none after an append" if append else "few, as far as models are to live on"
    state = "good" if not sids["moved"] else "bad" if append else "told"
    yield Point(state, "IDs kept", told, good, "changes")
    if (frozen := changes["test_frozen"]) is not None:
        told = "frozen" if frozen else "not frozen"
        good = "frozen, so that numbers compare with those of before"
        yield Point("good" if frozen else "look", "Test set", told, good, "changes")


def _drifted(tables: Tables) -> Iterator[Point]:
    named = {name: one["collisions"] for name, one in tables.metrics.get("sids", {}).items()}
    for name, resolved in {"": tables.metrics["collisions"], **named}.items():
        if drift := resolved.get("drift"):
            what = f"Drift of {name}" if name else "Drift"
            retrain = drift["retrain"]
            told = (
                f"retrain: {'; '.join(retrain)}"
                if retrain
                else f"within limits, {drift['items']:,} new items"
            )
            yield Point("look" if retrain else "good", what, told, "no limit exceeded", "drift")


def _collisions(tables: Tables) -> Iterator[Point]:
    resolved = tables.metrics["collisions"]
    before, after = resolved["before"], resolved["after"]
    own = f"{percent(after['uniquely_identified'])} of items have an ID of their own"
    if after["collided_items"]:
        own += f"; up to {after['max_group']:,} share one"
    yield Point("look" if after["collided_items"] else "good", "Unique IDs", own, "all of them", "collisions")
    share = before["collided_items"] / max(before["items"], 1)
    told = f"{percent(share)} of items had the codes of another; {resolved['moved']:,} were moved"
    state = "look" if share > COLLIDED else "good"
    yield Point(state, "Collisions before", told, f"up to {COLLIDED:.0%}", "collisions")


def _codes(tables: Tables) -> Iterator[Point]:
    levels = tables.metrics["tokenizer"].get("levels") or []
    if not levels or tables.gives != "codes" or tables.metrics["tokenizer"].get("unique"):
        return  # where the scheme counts within its prefixes, use says nothing
    dead, codes = (sum(one[name] for one in levels) for name in ("dead", "codes"))
    lowest = min(levels, key=lambda one: one["perplexity_share"])
    told = (
        f"{dead:,} of {codes:,} dead; least even is level {lowest['level']}, perplexity "
        f"{lowest['perplexity_share']:.2f} of its codes"
    )
    state = "look" if dead > DEAD * codes or lowest["perplexity_share"] < PERPLEXITY else "good"
    yield Point(state, "Codes", told, f"up to {DEAD:.0%} dead, perplexity from {PERPLEXITY:g} on", "codes")


def _likeness(tables: Tables) -> Iterator[Point]:
    overlap = tables.metrics["collisions"].get("neighbour_overlap_at_10")
    chance = min(10 / max(tables.items - 1, 1), 1.0)
    if overlap is not None:
        told = f"{overlap:.3f} of the ten nearest by cosine are nearest by SID; by chance {chance:.4f}"
        few = tables.items < SMALL
        state = "told" if few else "good" if overlap >= LIFT * chance else "look"
        good = f"{LIFT:g} times chance or more" if not few else f"says little of fewer than {SMALL} items"
        yield Point(state, "Like items, like IDs", told, good, "likeness")
    held = tables.metrics["tokenizer"]["reconstruction"]
    if not held or not held["fit"]:
        return
    told = f"relative error {held['fit']['relative_error']:.3f} on fitted items"
    good, state = f"on held-out items up to {HELD_OUT:g} times that", "told"
    left = tables.items - int(tables.metrics["tokenizer"]["fit_items"])
    if held.get("held_out"):
        told += f", {held['held_out']['relative_error']:.3f} on held-out ones"
        if left < FEW:
            told += f" ({left:,}: too few to judge)"
        else:
            ratio = held["held_out"]["relative_error"] / max(held["fit"]["relative_error"], 1e-12)
            state = "look" if ratio > HELD_OUT else "good"
    yield Point(state, "Reconstruction", told, good, "likeness")


def _data(tables: Tables) -> Iterator[Point]:
    findings = tables.metrics["audit"]
    breaches = [one for one in findings if one["verdict"] == "breach"]
    told = (
        "; ".join(f"{one['count']:,} {one['says']}" for one in breaches) or "no breach of the split's rules"
    )
    yield Point("look" if breaches else "good", "Leaks", told, "no breach", "split")
    files = tables.metrics.get("files") or {}
    read = sum(one["rows"] + one["rejects"] for one in files.values())
    rejects = tables.metrics["rejects"]
    told = f"{rejects:,} raw rows could not be read"
    state = "look" if rejects > REJECTED * max(read, 1) else "good"
    yield Point(state, "Raw data", told, f"up to {REJECTED:.0%} of them", "cleaning")
    for one in tables.metrics.get("published_statistics", []):
        yield Point("told", "Known statistics", sentence(one["says"]), "as others counted", "cleaning")


def _numbers(tables: Tables) -> str:
    rows, resolved = tables.record["rows"], tables.metrics["collisions"]
    numbers = {name: Right(f"{rows[name]:,}") for name in ("items", "users", "interactions")}
    levels = resolved["levels"]
    if tables.gives != "vectors" and levels:
        numbers["codes an ID"] = Right(str(len(levels)))
    numbers["uniquely identified"] = Right(percent(resolved["after"]["uniquely_identified"]))
    overlap = resolved.get("neighbour_overlap_at_10")
    numbers["neighbour overlap at 10"] = Right("none" if overlap is None else f"{overlap:.3f}")
    return "<dl>" + "".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for k, v in numbers.items()) + "</dl>"


def _points(number: int) -> str:
    return "one point" if number == 1 else f"{number} points"
