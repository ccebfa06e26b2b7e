"""K-means in which every code is used equally often: n // k rows each, or one more.

Unlike kmeans.py, a row need not get its nearest centroid: every code has a price, rows take the code
with the least distance plus price, and prices are tuned until demand is even. What is left over of even
is settled exactly (transport.py) or, where n * k is too much for that, greedily.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from sid_tokenizers.base import Vectors, Weights
from sid_tokenizers.blocks import one_core_products, over_blocks
from sid_tokenizers.clusters import cluster_means, squared_distances
from sid_tokenizers.kmeans import kmeans
from sid_tokenizers.products import product
from sid_tokenizers.transport import cheapest_balanced

METHODS = ("auto", "exact", "greedy", "onerec", "sinkhorn")
EXACT_CELLS = 2**25  # n * k up to which "auto" is exact: a float32 matrix of 128 MB
SAMPLE = 4  # a fit starts from one on every SAMPLE-th row,
PER_CODE = 16  # for as long as that leaves so many rows per code
START_STEPS = 10  # Lloyd's steps of the plain k-means that comes first

COLD, WARM = 0.3, 0.05  # temperature that tuning starts at, in spreads: prices unknown; nearly known
COOLING, EVEN = 0.5, 0.1  # the next temperature, once no more than this share of rows is out of place
FAR_OFF = 0.5  # share out of place at which known prices are worth less than none
ENOUGH_EXACT, ENOUGH_GREEDY = 0.005, 0.02  # share of rows beyond their code's size at which to stop
COLD_ENOUGH = 0.002  # temperature in spreads below which a step must gain a twentieth
COLDEST, MOST_TUNING = 1e-4, 30  # temperature in spreads, and steps, at which to stop anyway
TUNING = 512  # rows per code at most, from which demand is estimated
CURVATURE = 4096  # rows at most, and PER_CODE per code, from which the curvature is estimated
MANY_CODES = 1024  # beyond, where k * k is dear, steps are Sinkhorn's and "auto" is greedy

TEMPERATURE_ROWS = 4000  # rows from which a temperature is taken (so MiniOneRec's code)
SINKHORN_STEPS, SINKHORN_EVEN = 200, 1e-3  # ours; the code leaves it to ot.sinkhorn: 1000 and 1e-9

Prices = npt.NDArray[np.float32]
CodeColumn = npt.NDArray[np.int32]
Costs = Callable[[slice | npt.NDArray[np.int64]], Vectors]


def balanced_kmeans(
    X: Vectors,
    k: int,
    *,
    method: str,
    seed: int,
    n_init: int,
    max_iter: int,
    tol: float,
    weight: Weights | None = None,
) -> tuple[Vectors, CodeColumn]:
    """Give k centroids of X and each row's code; every code has n // k rows or one more.

    X: (n, d) float32 with n >= k, in an order that does not come from the caller's rows and is as good
    as random. Returns (k, d) float32 and (n,) int32. weight pulls the means; sizes count rows.
    Unlike kmeans, the codes are not those of the nearest centroids, and cannot be had from them.
    """
    if method == "auto":
        method = "exact" if len(X) * k <= EXACT_CELLS and k <= MANY_CODES else "greedy"
    if method == "onerec":
        return onerec(X, k, seed=seed, max_iter=max_iter, weight=weight)
    learn = partial(kmeans, k=k, seed=seed, n_init=n_init, exchanges=0)
    if method == "sinkhorn":
        centroids = learn(X, max_iter=max_iter, tol=tol, weight=weight)
        codes = claim(X, centroids, sinkhorn_prices(X, centroids))
        return _means(X, codes, centroids, weight), codes
    samples = [(X, weight)]
    while len(samples[0][0]) >= SAMPLE * PER_CODE * k:
        rows, mass = samples[0]
        if mass is not None and not mass[::SAMPLE].any():
            break
        samples.insert(0, (rows[::SAMPLE], None if mass is None else mass[::SAMPLE]))
    first, mass = samples[0]
    centroids, prices = learn(first, max_iter=START_STEPS, tol=tol, weight=mass), None
    for rows, mass in samples:
        refine = partial(_refine, rows, max_iter=max_iter, tol=tol, weight=mass)
        centroids, codes, prices = refine(centroids, prices, exact=False)
    if method == "exact":  # greedy turns come first because they are cheap and end almost where exact ones do
        centroids, codes, _ = refine(centroids, prices, exact=True)
    return centroids, codes


def _refine(
    X: Vectors,
    centroids: Vectors,
    prices: Prices | None,
    *,
    exact: bool,
    max_iter: int,
    tol: float,
    weight: Weights | None,
) -> tuple[Vectors, CodeColumn, Prices]:
    """Take turns of balanced codes and means, until codes stay, or the error falls by less than tol."""
    last: tuple[float, Vectors, CodeColumn] | None = None
    for _ in range(max_iter):
        prices = tune_prices(X, centroids, prices, enough=ENOUGH_EXACT if exact else ENOUGH_GREEDY)
        codes = (
            cheapest_balanced(squared_distances(X, centroids), prices)
            if exact
            else claim(X, centroids, prices)
        )
        centroids = _means(X, codes, centroids, weight)
        error = _error(X, codes, centroids, weight)
        if last is not None:
            if error >= last[0]:
                return last[1], last[2], prices
            if np.array_equal(codes, last[2]) or last[0] - error <= tol * error:
                break
        last = error, centroids, codes
    assert prices is not None
    return centroids, codes, prices


def tune_prices(X: Vectors, centroids: Vectors, prices: Prices | None, *, enough: float) -> Prices:
    """Give prices (k,) at which about equally many rows want each code: least distance plus price.

    Newton's method on the entropic dual of the transportation problem: at a temperature rows want codes
    in shares (softmax), which makes demand a smooth function of prices. Steps are damped by the share
    of rows that is out of place; once it is small, the temperature falls. (Beyond MANY_CODES codes
    the steps are Sinkhorn's: a solve would cost more than the steps it saves.) prices: known ones to start
    from, or None; they are dropped where they are far off. enough: the share of rows beyond n / k of
    their code at which to stop. Where there are more than TUNING * k rows, the first stand for all.
    """
    k = len(centroids)
    n = min(len(X), TUNING * k)
    goal = n / k
    costs = cost_blocks(X, centroids)
    some = costs(slice(0, min(n, TEMPERATURE_ROWS)))
    spread = float(np.median(some.mean(axis=1) - some.min(axis=1)))
    known = np.zeros(k, dtype=np.float32) if prices is None else prices
    if k == 1 or not spread > 0:
        return known
    temperature = (COLD if prices is None else WARM) * spread
    beyond = np.inf
    for _ in range(MOST_TUNING):
        demand, counts, curvature = _demand(costs, n, known, temperature)
        last, beyond = beyond, float(np.maximum(counts - -(-n // k), 0).sum())
        stalled = temperature < COLD_ENOUGH * spread and beyond > 0.95 * last
        if beyond <= enough * n or stalled or temperature < COLDEST * spread:
            break
        uneven = float(np.abs(demand - goal).sum()) / 2 / n
        if prices is not None and uneven > FAR_OFF:
            return tune_prices(X, centroids, None, enough=enough)
        step: npt.NDArray[np.floating[Any]]
        if curvature is None:
            step = temperature * np.log(np.maximum(demand, 0.01 * goal) / goal)
        else:
            curvature[np.diag_indices(k)] += (0.01 + uneven) * goal
            with one_core_products():
                step = temperature * np.linalg.solve(curvature, demand - goal)
        step = np.clip(step - step.mean(), -4 * temperature, 4 * temperature)
        known = (known + step).astype(np.float32)
        if uneven < EVEN:
            temperature *= COOLING
    return known


def _demand(
    costs: Costs, n: int, prices: Prices, temperature: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.float64] | None]:
    """Give how many rows want each code in shares (k,), and outright (k,), and the curvature (k, k).

    The curvature is how demand falls with prices, times the temperature. It comes from the first rows;
    beyond MANY_CODES codes there is none.
    """
    k, size = len(prices), 2048
    blocks = -(-n // size)
    shares, wanted = np.empty((blocks, k)), np.empty((blocks, k), dtype=np.int64)
    curved = -(-min(n, PER_CODE * k, CURVATURE) // size) if k <= MANY_CODES else 0
    products = np.empty((curved, k, k), dtype=np.float32)

    def work(rows: slice) -> None:
        block, number = costs(rows), rows.start // size
        block += prices
        wanted[number] = np.bincount(block.argmin(axis=1), minlength=k)
        block -= block.min(axis=1, keepdims=True)
        block *= np.float32(-1 / temperature)
        np.exp(block, out=block)
        block /= block.sum(axis=1, keepdims=True)
        shares[number] = block.sum(axis=0, dtype=np.float64)
        if number < curved:
            np.matmul(block.T, block, out=products[number])

    over_blocks(n, work, size=size)
    demand, counts = shares.sum(axis=0), wanted.sum(axis=0)
    if not curved:
        return demand, counts, None
    curvature = np.diag(shares[:curved].sum(axis=0)) - products.sum(axis=0, dtype=np.float64)
    return demand, counts, curvature * (n / min(n, curved * size))


def claim(X: Vectors, centroids: Vectors, prices: Prices, *, most: int | None = None) -> CodeColumn:
    """Give balanced codes greedily: (n, d) -> (n,) int32; not the cheapest, but in little memory.

    Rows claim the open code with the least distance plus price. A code takes first whom the second best
    would cost most; when it is full it closes, and the others claim again. Codes most in demand get the
    extra rows. Ties go to the earlier row and the lower code. With `most`, codes need not be even: each
    closes when it has so many rows.
    """
    n, k = len(X), len(centroids)
    costs = cost_blocks(X, centroids)
    codes = np.empty(n, dtype=np.int32)
    rows = np.arange(n)
    floor, extra = divmod(n, k)
    room: npt.NDArray[np.int64] | None = None if most is None else np.full(k, most)
    while len(rows):
        closed = np.float32(0) if room is None else np.where(room > 0, np.float32(0), np.float32(np.inf))
        best, regret = _best_and_regret(costs, rows, prices + closed)
        claims = np.bincount(best, minlength=k)
        if room is None:
            room = np.full(k, floor)
            room[np.argsort(-claims, kind="stable")[:extra]] += 1
        order = np.lexsort((-regret, best))
        rank = np.arange(len(rows)) - np.repeat(np.cumsum(claims) - claims, claims)
        taken = np.zeros(len(rows), dtype=bool)
        taken[order] = rank < room[best[order]]
        codes[rows[taken]] = best[taken]
        room -= np.minimum(room, claims)
        rows = rows[~taken]
    return codes


def _best_and_regret(
    costs: Costs, rows: npt.NDArray[np.int64], prices: Prices
) -> tuple[CodeColumn, npt.NDArray[np.float32]]:
    best = np.empty(len(rows), dtype=np.int32)
    regret = np.empty(len(rows), dtype=np.float32)

    def work(part: slice) -> None:
        block = costs(rows[part])
        block += prices
        own = np.arange(len(block))
        best[part] = found = block.argmin(axis=1)
        least = block[own, found]
        block[own, found] = np.inf
        regret[part] = block.min(axis=1) - least

    over_blocks(len(rows), work)
    return best, regret


def sinkhorn_prices(X: Vectors, centroids: Vectors) -> Prices:
    """Give the prices of the entropic transport plan between all rows and equally used codes.

    After MiniOneRec's full-corpus mapping. From its code: marginals 1/n and 1/k; the temperature, a
    tenth of the median (over 4000 rows) of the 90th percentile of a row's distances above its least.
    Different: sums of logarithms, so that nothing underflows. A row's best code by the plan is the one
    with the least distance plus price, so prices are all there is to keep of it.
    """
    n, k = len(X), len(centroids)
    costs = cost_blocks(X, centroids)
    some = costs(slice(0, min(n, TEMPERATURE_ROWS)))
    temperature = 0.1 * float(np.median(np.percentile(some, 90, axis=1) - some.min(axis=1)))
    prices = np.zeros(k)
    if not temperature > 0:
        return prices.astype(np.float32)
    columns = np.empty((-(-n // 2048), k))

    def work(rows: slice) -> None:
        plan = (costs(rows) + prices) / -temperature
        plan -= np.logaddexp.reduce(plan, axis=1, keepdims=True)
        columns[rows.start // 2048] = np.logaddexp.reduce(plan, axis=0)

    for _ in range(SINKHORN_STEPS):
        over_blocks(n, work, size=2048)
        excess = np.logaddexp.reduce(columns, axis=0) - np.log(n / k)
        prices += temperature * excess
        if np.abs(np.expm1(excess)).mean() <= SINKHORN_EVEN:
            break
    return prices.astype(np.float32)


def onerec(
    X: Vectors, k: int, *, seed: int, max_iter: int, weight: Weights | None = None
) -> tuple[Vectors, CodeColumn]:
    """Give centroids and codes by OneRec's Algorithm 1: code after code takes its nearest rows.

    From the paper: random centroids; code 1 takes the n / k rows nearest to it, code 2 its nearest of
    the rest, and so on, until no row changes its code. Ours: the paper leaves n mod k open, so the first
    n mod k codes take one more; ties go to the earlier row. Holds all (n, k) distances.
    """
    n = len(X)
    centroids = X[np.sort(np.random.default_rng(seed).choice(n, k, replace=False))]
    floor, extra = divmod(n, k)
    codes = np.full(n, -1, dtype=np.int32)
    for _ in range(max_iter):
        last = codes.copy()
        distances = np.ascontiguousarray(squared_distances(X, centroids).T)
        free = np.arange(n)
        for code in range(k):
            order = np.argsort(distances[code, free], kind="stable")
            size = floor + (code < extra)
            codes[free[order[:size]]] = code
            free = np.sort(free[order[size:]])
        centroids = _means(X, codes, centroids, weight)
        if np.array_equal(codes, last):
            break
    return centroids, codes


def cost_blocks(X: Vectors, centroids: Vectors) -> Costs:
    """Give a function from rows to their squared distances to all centroids, less their own norm.

    What is left out is the same for all codes of a row, so it decides nothing. The result is fresh.
    Up to EXACT_CELLS all are computed once and kept, since prices are tuned in many passes over them.
    """
    products, norms = -2.0 * centroids.T, np.einsum("ij,ij->i", centroids, centroids)
    kept = np.empty((len(X), len(centroids)) if len(X) * len(centroids) <= EXACT_CELLS else 0, np.float32)

    def keep(rows: slice) -> None:
        np.add(product(X[rows], products), norms, out=kept[rows])

    if kept.size:
        over_blocks(len(X), keep)

    def costs(rows: slice | npt.NDArray[np.int64]) -> Vectors:
        if kept.size:
            return np.array(kept[rows])
        block = product(X[rows], products)
        block += norms
        return block

    return costs


def _means(X: Vectors, codes: CodeColumn, centroids: Vectors, weight: Weights | None) -> Vectors:
    """Give the mean of each code's rows; a code whose rows all weigh nothing keeps its centroid."""
    means, totals = cluster_means(X, codes, len(centroids), weight)
    means[totals == 0] = centroids[totals == 0]
    return means


def _error(X: Vectors, codes: CodeColumn, centroids: Vectors, weight: Weights | None) -> float:
    errors = np.empty(len(X))

    def work(rows: slice) -> None:
        left = X[rows] - centroids[codes[rows]]
        errors[rows] = np.einsum("ij,ij->i", left, left)

    over_blocks(len(X), work)
    return float(errors.sum() if weight is None else errors @ weight)
