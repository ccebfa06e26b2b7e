"""Several releases as one table: metrics in columns, everybody ranked by NDCG@10, what may be concluded.

A difference counts where it is larger than what seeds alone do: the root of the sum of both squared spreads.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import hypot, sqrt
from typing import Any

Standing = Mapping[str, Any]
COLUMNS = ("", "Recall@10", "NDCG@10", "NDCG@10 over random IDs", "parameters", "CPU seconds")


def metric_rows(found: Sequence[Standing]) -> Iterator[list[Any]]:
    """Give the metrics as rows: name, then each release's value."""
    for name in found[0]["metrics"]:
        values = [one["metrics"][name] for one in found]
        if any(value is not None for value in values):
            yield [name, *(_short(value) for value in values)]


def ranking(found: Sequence[Standing]) -> list[dict[str, Any]]:
    """Give everybody who answered, best NDCG@10 first: SIDs of each release, random IDs, baselines.

    Baselines stand once where all releases were asked the same, else once for each.
    """
    rows = []
    for one in found:
        probe = one["probe"]
        for ids in ("released", "random") if "none" not in probe else ():
            runs = probe[ids]["runs"]
            rows.append(
                {
                    "name": f"{one['ref']} {_made(one)}"
                    if ids == "released"
                    else f"{one['ref']}, random IDs",
                    "kind": ids,
                    "ref": one["ref"],
                    "recall_at_10": probe[ids]["recall_at_10"],
                    "ndcg_at_10": probe[ids]["ndcg_at_10"],
                    "parameters": runs[0]["parameters"],
                    "cpu_seconds": sum(run["cpu_seconds"] for run in runs) / len(runs),
                }
            )
            if ids == "released":
                most = probe["random"]["ndcg_at_10"]["mean"]
                rows[-1]["over_random"] = probe[ids]["ndcg_at_10"]["mean"] - most
    same = same_questions(found)
    for one in found[:1] if same else found:
        for name, score in one["baselines"].items():
            named = name if same else f"{one['ref']}, {name}"
            measures = {key: {"mean": value, "spread": None} for key, value in score.items()}
            rows.append({"name": named, "kind": "baseline", "ref": None if same else one["ref"], **measures})
    return sorted(rows, key=lambda row: (-row["ndcg_at_10"]["mean"], row["name"]))


def table(ranked: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Give the ranking as rows of COLUMNS; the spread of seeds stands after the ±."""
    return [
        [
            row["name"],
            _with_spread(row["recall_at_10"]),
            _with_spread(row["ndcg_at_10"]),
            f"{row['over_random']:+.4f}" if "over_random" in row else "",
            f"{row['parameters']:,}" if "parameters" in row else "",
            f"{row['cpu_seconds']:.0f}" if "cpu_seconds" in row else "",
        ]
        for row in ranked
    ]


def same_questions(found: Sequence[Standing]) -> bool:
    """Say whether all were asked the same, having learned from the same."""
    return len({one["questions"]["digest"] for one in found}) == 1


def sentences(found: Sequence[Standing]) -> list[str]:
    """Give what to know when reading: what was asked, what cannot be compared, what the spread covers."""
    asked = found[0]["questions"]
    said = []
    for one in found if not same_questions(found) else found[:1]:
        told = one["questions"]
        part = told["asked"] < told["of"]
        some, how = (f" of {told['of']:,}", ", a sample by hash of the user") if part else ("", "")
        who = "" if same_questions(found) else f"{one['ref']}: "
        said.append(
            f"{who}{told['asked']:,}{some} questions of {told['split']}{how}; "
            f"{told['train_events']:,} train events to learn from"
        )
    if not same_questions(found):
        said.append(
            "WARNING: these releases differ in their questions, train events or items, so their figures do "
            "not compare; only each one's own lines do"
        )
    if asked["split"] == "test":
        said.append("test is asked: rank on valid, and ask test once, of what was chosen")
    for one in found:
        told = one["questions"]
        if told["repeats"]:
            rule = "answers may hold it" if told["come_back"] else "answers leave out what the user has"
            said.append(
                f"{one['ref']}: of {told['of']:,} targets {told['repeats']:,} are what the user has already; "
                f"{rule}"
            )
        said += [f"{one['ref']}: no {name}: {why}" for name, why in one["left_out"].items()]
        said += _short_answers(one)
        if "none" in one["probe"]:
            said.append(f"{one['ref']}: no probe: {one['probe']['none']}")
    return said + list(_verdicts(found))


def _short_answers(one: Standing) -> Iterator[str]:
    """Say where beam search found fewer items than an answer has room for."""
    runs = [] if "none" in one["probe"] else one["probe"]["released"]["runs"]
    if any(run["short"] for run in runs):
        short, asked = max(run["short"] for run in runs), one["questions"]["asked"]
        yield (
            f"{one['ref']}: {short:,} of {asked:,} answers have fewer than 10 items, beyond those that the "
            "user has; more --beams would fill them"
        )


def _verdicts(found: Sequence[Standing]) -> Iterator[str]:
    """Say of neighbours in the ranking, and of each and its random IDs, what the spread of seeds covers."""
    probed = [one for one in found if "none" not in one["probe"]]
    if not probed:
        return
    share, asked = probed[0]["probe"]["released"]["recall_at_10"]["mean"], probed[0]["questions"]["asked"]
    yield (
        f"{asked:,} questions know a Recall@10 of {share:.2f} to ±{sqrt(share * (1 - share) / asked):.3f} "
        "(one standard error); that comes on top of the spread of seeds"
    )
    if len(probed[0]["probe"]["released"]["runs"]) == 1:
        yield "one seed has no spread: nothing says which differences are chance; take --seeds 3"
        return
    for one in probed:
        gap, both = _gap(one["probe"]["released"], one["probe"]["random"])
        if gap <= both:
            yield f"{one['ref']}: its SIDs do no better than random IDs beyond the spread of seeds"
    if same_questions(found):
        best = sorted(probed, key=lambda one: -one["probe"]["released"]["ndcg_at_10"]["mean"])
        for one, other in pairwise(best):
            gap, both = _gap(one["probe"]["released"], other["probe"]["released"])
            if gap <= both:
                yield (
                    f"{one['ref']} and {other['ref']}: the difference, {gap:.4f}, is within the spread of "
                    f"seeds, {both:.4f}"
                )


def _gap(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[float, float]:
    """Give by how much one is better in NDCG@10, and the spread of that difference."""
    a, b = one["ndcg_at_10"], other["ndcg_at_10"]
    return a["mean"] - b["mean"], hypot(a["spread"], b["spread"])


def markdown(found: Sequence[Standing]) -> str:
    """Give all of it as a Markdown document."""
    metrics = [["", *(one["ref"] for one in found)], *metric_rows(found)]
    ranked = [list(COLUMNS), *table(ranking(found))]
    said = "".join(f"- {one}\n" for one in sentences(found))
    return f"# Evaluation\n\n{_markdown(ranked)}\n{said}\n## Metrics\n\n{_markdown(metrics)}"


def _markdown(rows: Sequence[Sequence[Any]]) -> str:
    """Lay rows out, the first as the head."""
    lines = ["| " + " | ".join("" if cell is None else str(cell) for cell in row) + " |" for row in rows]
    rule = "|---" + "|---:" * (len(rows[0]) - 1) + "|"
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def _made(one: Standing) -> str:
    metrics = one["metrics"]
    return f"{metrics['tokenizer']} on {metrics['vectors']}" if metrics["vectors"] else metrics["tokenizer"]


def _with_spread(measure: Mapping[str, Any]) -> str:
    spread = measure["spread"]
    return f"{measure['mean']:.4f}" + (f" ± {spread:.4f}" if spread is not None else "")


def _short(value: Any) -> Any:
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
