"""Drift: do the codebooks still fit what arrives? New items against those that were fitted on.

The population stability index (PSI) of a level is sum (p - q) ln(p / q) over its codes, p being the shares of
new items, q of fitted ones; from 0.25 on it is usually read as a shift (industry convention, secondary
knowledge). Few items scatter over many codes by chance alone, so each PSI stands beside what as many items
drawn from q would give, and only what exceeds both counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sid_tokenizers.base import Codes
from sid_tokenizers.collisions import group_sizes

DRAWS, SEED = 200, 0
QUANTILE = 0.99
PRIOR = 0.5  # added to every count, so that no share is 0 (Krichevsky and Trofimov)
Counts = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Limits:
    """Beyond which retraining is called for; None where a number is only reported.

    max_psi: of any level. max_error_ratio: mean relative reconstruction error of new items over that of the
    fitted ones. max_pressure: share of new items whose codes another item has. max_cold_users: share of the
    users in the dump that no earlier release knows.
    """

    max_psi: float | None = 0.25
    max_error_ratio: float | None = 1.5
    max_pressure: float | None = 0.5
    max_cold_users: float | None = None


def drift_of(
    codes: Codes,
    published: Codes,
    occupancy: Sequence[Sequence[int]],
    *,
    error: Mapping[str, float] | None,
    fitted_error: Mapping[str, float] | None,
    pressure_before: float,
    cold_user_rate: float | None,
    codebooks: bool,
) -> dict[str, Any]:
    """Give what tells of drift, None where a number means nothing.

    codes: of new items; published: of those before. occupancy: see `occupancy_drift`. error, fitted_error: of
    reconstruction. pressure_before: share of published items whose codes another had. codebooks: False where
    the scheme has none, so that no two items have the same codes.
    """
    ratio = None
    if error and fitted_error and fitted_error["relative_error"] > 0:
        ratio = error["relative_error"] / fitted_error["relative_error"]
    return {
        "items": len(codes),
        "levels": occupancy_drift(codes, occupancy) if codebooks and len(codes) else [],
        "pressure": pressure(codes, published) if codebooks else None,
        "pressure_before": pressure_before if codebooks else None,
        "cold_user_rate": cold_user_rate,
        "reconstruction": error,
        "error_ratio": ratio,
    }


def occupancy_drift(codes: Codes, reference: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """Give PSI and KL divergence (nats, new from fitted) of each level, and the PSI that chance gives.

    codes: (n, L) of new items. reference: how many fitted items have each code, level by level.
    psi_by_chance: the 99 % quantile over 200 seeded draws of n items from the reference.
    """
    draw = np.random.default_rng(SEED)
    found = []
    for level, fitted in enumerate(reference):
        known = np.asarray(fitted, dtype=np.int64)
        counts = np.bincount(codes[:, level], minlength=len(known))
        share = smoothed(known)
        chance = [psi(draw.multinomial(len(codes), share), known) for _ in range(DRAWS)]
        p = smoothed(counts)
        found.append(
            {
                "level": level + 1,
                "psi": psi(counts, known),
                "psi_by_chance": float(np.quantile(chance, QUANTILE)),
                "kl": float((p * np.log(p / share)).sum()),
                "unused_before": int(((counts > 0) & (known == 0)).sum()),
            }
        )
    return found


def psi(counts: Counts, reference: Counts) -> float:
    """Give the population stability index of counts against a reference, both smoothed.

    >>> same = np.array([30, 50, 20])
    >>> psi(same, same * 10) < 0.01 < psi(same[::-1], same)
    True
    """
    p, q = smoothed(counts), smoothed(reference)
    return float(((p - q) * np.log(p / q)).sum())


def smoothed(counts: Counts) -> Shares:
    """Give counts as shares, none of them 0."""
    shares: Shares = (counts + PRIOR) / (counts.sum() + PRIOR * len(counts))
    return shares


def pressure(codes: Codes, published: Codes) -> float:
    """Give the share of new items whose codes another item has, published or new."""
    _, size = group_sizes(np.concatenate([published, codes]))
    return float((size[len(published) :] > 1).mean()) if len(codes) else 0.0


def reasons(drift: Mapping[str, Any], limits: Limits) -> list[str]:
    """Say why retraining is called for, one line each; nothing where all is well."""
    said = []
    for one in drift["levels"]:
        if limits.max_psi is not None and one["psi"] > max(limits.max_psi, one["psi_by_chance"]):
            said.append(
                f"new items spread otherwise over the codes of level {one['level']}: PSI {one['psi']:.2f}, "
                f"allowed {limits.max_psi:g}, by chance up to {one['psi_by_chance']:.2f}"
            )
    error = "the codebooks fit new items worse: error {:.2f} times that of fitted items, allowed {:g}"
    short = "SIDs run short: {:.0%} of new items have codes that another item has, allowed {:.0%}"
    bounds = (
        ("error_ratio", limits.max_error_ratio, error),
        ("pressure", limits.max_pressure, short),
        ("cold_user_rate", limits.max_cold_users, "{:.0%} of the users are new, allowed {:.0%}"),
    )
    for name, limit, words in bounds:
        value = drift.get(name)
        if limit is not None and value is not None and value > limit:
            said.append(words.format(value, limit))
    return said
