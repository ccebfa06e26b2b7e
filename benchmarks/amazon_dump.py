"""Write a dump in the format of Amazon-2018 reviews: gz, one JSON object a line, power-law users and items.

The texts are drawn word by word from a Zipf vocabulary, so a line is as long as a real one (about 460
bytes in All_Beauty_5) and gzip takes it down to about a third, as it does real reviews. `write_items` writes
the metadata of the items that such a dump reviews.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from isal import igzip

BLOCK = 100_000
POOL = 20_000  # texts; gzip's window sees none of them twice in a row
EXPONENT = 0.7  # popularity of rank r is proportional to (r + 10) ** -EXPONENT
DAY = 86_400


def write_dump(path: Path, reviews: int, *, seed: int = 0) -> None:
    """Write so many reviews; about 1 % are repeated lines and 0.01 % are broken."""
    rng = np.random.default_rng(seed)
    users = _power_law(rng, max(reviews // 8, 10))
    items = _power_law(rng, _items(reviews))
    texts, summaries = _texts(rng, POOL, 33), _texts(rng, POOL, 4)
    names = pa.array([f"{_word(rng).title()} {_word(rng)[0].upper()}." for _ in range(POOL)])
    partial = path.with_suffix(".partial")
    with igzip.open(partial, "wb", compresslevel=2) as file:
        for start in range(0, reviews, BLOCK):
            lines = _lines(rng, min(BLOCK, reviews - start), users, items, texts, summaries, names)
            file.write(lines)
    partial.rename(path)


def write_items(path: Path, reviews: int, *, seed: int = 0) -> None:
    """Write title, brand and category of every item that a dump of so many reviews may hold."""
    rng = np.random.default_rng(seed + 1)
    n = _items(reviews)
    titles, brands, kinds = _texts(rng, n, 6), _texts(rng, 200, 2), _texts(rng, 40, 2)
    lines = pc.binary_join_element_wise(
        '{"asin": "', _ids(np.arange(n)), '", "title": "', titles,
        '", "brand": "', brands.take(pa.array(rng.integers(0, 200, n))),
        '", "category": ["Beauty", "', kinds.take(pa.array(rng.integers(0, 40, n))), '"]}\n', "",
    )  # fmt: skip
    partial = path.with_suffix(".partial")
    with igzip.open(partial, "wb", compresslevel=2) as file:
        file.write(lines.buffers()[2].to_pybytes())
    partial.rename(path)


def _items(reviews: int) -> int:
    return max(reviews // 40, 10)


def _ids(numbers: npt.NDArray[np.int64]) -> pa.Array:
    digits = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 12, "0")
    return pc.binary_join_element_wise("A", digits, "")


def _power_law(rng: np.random.Generator, n: int) -> tuple[pa.Array, npt.NDArray[np.float64]]:
    """Give n ids such as A000000001X and the cumulative probability of each."""
    weights = (np.arange(n) + 10.0) ** -EXPONENT
    return _ids(rng.permutation(n)), np.cumsum(weights) / weights.sum()


def _draw(rng: np.random.Generator, of: tuple[pa.Array, npt.NDArray[np.float64]], n: int) -> pa.Array:
    ids, cumulative = of
    return ids.take(pa.array(np.minimum(np.searchsorted(cumulative, rng.random(n)), len(ids) - 1)))


def _word(rng: np.random.Generator) -> str:
    return "".join(rng.choice(list("etaoinshrdlu"), size=rng.integers(2, 10)))


def _texts(rng: np.random.Generator, n: int, mean: int) -> pa.Array:
    words = np.array([_word(rng) for _ in range(5000)])
    weights = 1 / np.arange(1, 5001)
    lengths = 1 + rng.geometric(1 / mean, n)
    drawn = rng.choice(words, size=lengths.sum(), p=weights / weights.sum())
    ends = np.cumsum(lengths)
    return pa.array([" ".join(drawn[end - length : end]) for end, length in zip(ends, lengths, strict=True)])


def _lines(
    rng: np.random.Generator,
    n: int,
    users: tuple[pa.Array, npt.NDArray[np.float64]],
    items: tuple[pa.Array, npt.NDArray[np.float64]],
    texts: pa.Array,
    summaries: pa.Array,
    names: pa.Array,
) -> bytes:
    def pooled(pool: pa.Array) -> pa.Array:
        return pool.take(pa.array(rng.integers(0, len(pool), n)))

    stars = pa.array(
        rng.choice(["1.0", "2.0", "3.0", "4.0", "5.0"], size=n, p=[0.08, 0.05, 0.08, 0.17, 0.62])
    )
    days = rng.integers(12_000, 17_800, n)
    times = pa.array(days * DAY)
    dates = pc.strftime(pa.array(days.astype(np.int32), pa.int32()).cast(pa.date32()), "%m %d, %Y")
    lines = pc.binary_join_element_wise(
        '{"overall": ', stars, ', "verified": true, "reviewTime": "', dates,
        '", "reviewerID": "', _draw(rng, users, n), '", "asin": "', _draw(rng, items, n),
        '", "style": {"Size:": " 7.0 oz"}, "reviewerName": "', pooled(names),
        '", "reviewText": "', pooled(texts), '", "summary": "', pooled(summaries),
        '", "unixReviewTime": ', times.cast(pa.string()), "}\n", "",
    )  # fmt: skip
    again = np.arange(n)
    repeated = np.flatnonzero(rng.random(n) < 0.01)
    again[repeated] = np.maximum(repeated - 1, 0)  # the same review twice, as All_Beauty has it
    lines = lines.take(pa.array(again))
    broken = pa.array(rng.random(n) < 0.0001)
    lines = pc.if_else(
        broken, pc.binary_join_element_wise(pc.utf8_slice_codeunits(lines, 0, 60), "\n", ""), lines
    )
    return lines.buffers()[2].to_pybytes()
