"""Sinkhorn: spread rows evenly over columns, as softly as eps says, at low total distance.

LC-Rec's uniform semantic mapping. It works on logarithms in float64: exp(-d / eps) runs out of numbers
near eps = 0.003, and a row whose terms have all become zero can no longer be scaled.
"""

import numpy as np
import numpy.typing as npt

Plan = npt.NDArray[np.float64]

EPS = 0.003  # LC-Rec, last level
ITERATIONS = 50
LARGE = 1e100  # factors beyond it, or below its inverse, are absorbed into the logarithms
TIE = 1e-6  # relative difference of plan entries that count as equal


def sinkhorn(distances: npt.ArrayLike, *, eps: float = EPS, iterations: int = ITERATIONS) -> Plan:
    """Give the plan of a batch: (..., B, K) distances -> (..., B, K) float64; each column sums to B / K.

    Distances are centred and scaled to [-1, 1] over the batch; then rows and columns are scaled in turn.
    The rows sum to 1 only as far as `iterations` bring it about. Leading axes are separate batches.

    >>> sinkhorn([[0.0, 1.0], [0.1, 1.0]], eps=0.1).round(2)
    array([[0.73, 0.27],
           [0.27, 0.73]])
    """
    return np.asarray(np.exp(_log_plan(np.asarray(distances, dtype=np.float64), eps, iterations)))


def sinkhorn_codes(
    distances: npt.ArrayLike, *, eps: float = EPS, iterations: int = ITERATIONS
) -> npt.NDArray[np.int32]:
    """Give each row's column of greatest share: (..., B, K) -> (..., B) int32; not exactly balanced.

    A row often owns several columns whole, and rounding alone tells their shares apart; of shares that are
    equal to one in a million the nearest column is taken, then the lowest.
    """
    far = np.asarray(distances, dtype=np.float64)
    log_plan = _log_plan(far, eps, iterations)
    near_top = log_plan >= log_plan.max(axis=-1, keepdims=True) - TIE
    return np.asarray(np.where(near_top, far, np.inf).argmin(axis=-1), dtype=np.int32)


def _log_plan(distances: Plan, eps: float, iterations: int) -> Plan:
    """Give the logarithm of the plan.

    Where the factors that scale rows and columns stay within numbers, an iteration is two products with
    a plan worked out before; where they do not, they are absorbed and it is done on logarithms.
    """
    rows, columns = distances.shape[-2:]
    high = distances.max(axis=(-2, -1), keepdims=True)
    low = distances.min(axis=(-2, -1), keepdims=True)
    middle = (high + low) / 2
    log_plan = (distances - middle) / (high - middle + 1e-5) / -eps
    by_row, by_column = np.ones((*distances.shape[:-1], 1)), np.ones((*distances.shape[:-2], 1, columns))
    plan: Plan | None = None
    for _ in range(iterations):
        if plan is not None:
            with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
                next_row = 1 / (rows * (plan @ by_column.swapaxes(-2, -1)))
                next_column = 1 / (columns * (next_row.swapaxes(-2, -1) @ plan))
            if _tame(next_row) and _tame(next_column):
                by_row, by_column = next_row, next_column
                continue
            log_plan += np.log(by_row) + np.log(by_column)
        log_plan -= _log_sum(log_plan, -1) + np.log(rows)
        log_plan -= _log_sum(log_plan, -2) + np.log(columns)
        plan, by_row, by_column = np.exp(log_plan), np.ones_like(by_row), np.ones_like(by_column)
    return np.asarray(log_plan + np.log(by_row) + np.log(by_column) + np.log(rows))


def _tame(factors: Plan) -> bool:
    return bool((factors < LARGE).all() and (factors > 1 / LARGE).all())


def _log_sum(x: Plan, axis: int) -> Plan:
    top = x.max(axis=axis, keepdims=True)
    return np.asarray(np.log(np.exp(x - top).sum(axis=axis, keepdims=True)) + top)
