"""Retokenize: a new codebook under the labels of a release's, so that few items get other IDs.

Two stages. `relabel` stands where tokenize does: a tokenizer fitted as ever, under the labels that match
the codes of the release best. `churn` follows collisions and counts whose IDs changed, with these labels
and with those that the fit gave.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sid_pipelines.stage import Outcome, Stage, Work, count
from sid_schemas.tables import CODES, SOFT_SIDS
from sid_tokenizers import Tokenizer, load
from sid_tokenizers.base import Codes, Labels
from sid_tokenizers.codebooks import renamed
from sid_tokenizers.relabel import matching
from sid_tokenizers.scheme import Scheme
from sid_warehouse import files
from sid_warehouse.arrays import codes_column, matrix, padded_matrix
from sid_warehouse.churn import churn
from sid_warehouse.db import connect, view
from sid_warehouse.stages import StageOutput


@dataclass(frozen=True)
class ChurnParams:
    """Whether the labels were matched."""

    match: bool


def relabel(work: Work) -> Outcome:
    """Write `codes` and the tokenizer of role `fitted`, relabelled to match role `base`, a release.

    The parameters are those of the fit: nothing else decides what comes of it. What was measured of the fit
    holds under any labels, so it is taken over.
    """
    fitted, base = work.inputs["fitted"], work.inputs["base"]
    tokenizer = _codes_vectors(load(fitted.folder / "tokenizer"))
    labels = _labels(fitted, base, tokenizer)
    table = fitted.read("codes")
    codes = renamed(_codes(table), labels)
    place = table.column_names.index("codes")
    work.out.write(CODES, table.set_column(place, "codes", codes_column(codes)))
    if "soft_sids" in fitted.manifest["rows"]:
        work.out.write(SOFT_SIDS, _relabelled_soft(fitted.read("soft_sids"), labels))
    tokenizer.relabelled(labels).save(work.out.folder / "tokenizer")
    _write_reference(fitted.folder, work.out.folder, labels, base)
    return Outcome(dict(fitted.facts), _says(tokenizer, labels, base))


def measure_churn(work: Work) -> Outcome:
    """Count the churn of the final SIDs; it writes nothing but facts.

    The SIDs under the other labels are the same ones renamed, as if their collisions had been resolved the
    same way.
    """
    params: ChurnParams = work.params
    base, fitted, resolved = (work.inputs[name] for name in ("base", "fitted", "collisions"))
    tokenizer = _codes_vectors(load(fitted.folder / "tokenizer"))
    labels = _labels(fitted, base, tokenizer)
    levels = min(len(base.facts["collisions"]["levels"]), len(resolved.facts["levels"]))
    named = ("matched", "unmatched") if params.match else ("unmatched", "matched")
    with connect(spill=work.out.spill, memory=work.resources.duckdb) as connection:
        view(connection, "before", base.parts("sids"))
        view(connection, named[0], resolved.parts("sids"))
        back = [np.argsort(one).astype(np.int32) for one in labels]
        connection.register(named[1], _renamed_sids(resolved, back if params.match else labels))
        found = {name: churn(connection, "before", name, levels) for name in ("matched", "unmatched")}
    moved, otherwise = (found[name]["moved"] for name in named)
    of = count(found["matched"]["kept"], "SID")
    summary = f"{moved:,} of {of} moved; were labels {named[1]}, {otherwise:,} would have"
    says = _says(tokenizer, labels, base)
    if not params.match:
        says += "; published are the labels that the fit gave (--no-match)"
    facts = {"base": base.manifest["summary"], "published": named[0], "says": says}
    return Outcome(facts | found, summary)


def _codes_vectors(scheme: Scheme) -> Tokenizer:
    """Give the scheme, which the plan has seen to be one whose codes may have other labels."""
    assert isinstance(scheme, Tokenizer)
    return scheme


def _labels(fitted: StageOutput, base: StageOutput, tokenizer: Tokenizer) -> list[Labels]:
    """Give the labels that match a fit's codes to a release's, for the levels that have labels to give."""
    old, new = _codes(base.read("sids", ["codes"])), _codes(fitted.read("codes", ["codes"]))
    levels = tokenizer.levels[: tokenizer.free_levels]
    return matching(new, old, levels, ordered=tokenizer.traits.ordered)


def _says(tokenizer: Tokenizer, labels: Sequence[Labels], base: StageOutput) -> str:
    """Say how many levels have matched labels, and why not all where that is so."""
    said = f"levels labelled to match {base.manifest['summary']}: {len(labels)} of {len(tokenizer.levels)}"
    if tokenizer.free_levels < len(tokenizer.levels):
        said += f" ({tokenizer.name} has a grid, whose codes are places and have no labels to give)"
    return said


def _codes(table: pa.Table) -> Codes:
    return matrix(table["codes"]).astype(np.int32, copy=False)


def _relabelled_soft(table: pa.Table, labels: Sequence[Labels]) -> pa.Table:
    """Give soft codes, row by row of one level, under the new labels."""
    codes, levels = _codes(table).copy(), table["level"].to_numpy()
    for level, new in enumerate(labels):
        own = levels == level + 1
        codes[own] = new[codes[own]]
    return table.set_column(table.column_names.index("codes"), "codes", codes_column(codes))


def _renamed_sids(resolved: StageOutput, labels: Sequence[Labels]) -> pa.Table:
    table = resolved.read("sids", ["item_id", "sid"])
    sids = padded_matrix(table["sid"], len(resolved.facts["levels"]), -1)
    return table.set_column(1, "sid", codes_column(renamed(sids, labels)))


def _write_reference(source: Path, target: Path, labels: Sequence[Labels], base: StageOutput) -> None:
    """Write what was fitted on, and how often its items have each code, under the new labels."""
    record: dict[str, Any] = files.read_json(source / "tokenizer" / "fit.json")
    for level, new in enumerate(labels):
        counts = np.empty(len(new), dtype=np.int64)
        counts[new] = record["occupancy"][level]
        record["occupancy"][level] = counts.tolist()
    record["relabelled_to"] = base.manifest["key"]
    files.write_json(target / "tokenizer" / "fit.json", record)


RELABEL = Stage("relabel", revision=4, parents=("fitted", "base"), run=relabel)
CHURN = Stage("churn", revision=4, parents=("base", "fitted", "collisions"), run=measure_churn)
