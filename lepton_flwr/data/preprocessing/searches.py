"""What is asked of one column, question by question, until it can be fitted.

A search is a generator: it yields a part of the next question, is sent the reply, and returns the
fitted column, or None if too few records were found in it.
"""

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Self

import numpy as np

from lepton_flwr import _validate as check
from lepton_flwr.config import IMPUTE, DataConfig
from lepton_flwr.data.preprocessing.columns import Column
from lepton_flwr.data.preprocessing.preprocessor import (
    MOST_OTHERS,
    FittedCategory,
    FittedNumber,
)
from lepton_flwr.data.preprocessing.questions import (
    NAME_BYTES,
    Bins,
    Hashes,
    Listed,
    Magnitudes,
    Moments,
    Names,
    Part,
)
from lepton_flwr.data.preprocessing.support import cover, support, threshold
from lepton_flwr.errors import DataError

PRIVATE_BINS, EXACT_BINS = 64, 1024
PRIVATE_HASH_BITS = 10
EXACT_HASH_BITS = (12, 9, 9, 9, 9)  # 48 in all
MAX_DISTINCT = 1024  # hashes that are followed without privacy
PASSES = 6  # of 1,024 bins: finer than a float


@dataclass(frozen=True)
class Options:
    """What is fitted.

    Attributes:
        impute: what stands for a missing number, "mean" or "median". With privacy the median is
            that of a noised histogram of 64 bins.
        scale: divide numbers by their standard deviation; otherwise they are centred only.
        deviations: by how many of them.
        indicators: add a feature for missing values to the columns that have some.
        most_frequent: a missing category counts as the most frequent one; otherwise it has a
            feature of its own.
        max_categories: most categories of one column that have a feature of their own; the most
            frequent ones.
        most_others: most features that all other categories share, with privacy.
    """

    impute: str = "mean"
    scale: bool = True
    deviations: float = 1.0
    indicators: bool = True
    most_frequent: bool = False
    max_categories: int = 100
    most_others: int = 64

    def __post_init__(self) -> None:
        check.finite("deviations", self.deviations, above=0)
        check.choice("impute", self.impute, IMPUTE)
        check.integer("max_categories", self.max_categories, at_least=1, at_most=1000)
        check.integer("most_others", self.most_others, at_least=1, at_most=MOST_OTHERS)

    @classmethod
    def of(cls, data: DataConfig) -> Self:
        """What a run's settings say of it."""
        return cls(impute=data.impute, deviations=data.deviations)


@dataclass(frozen=True)
class Reply:
    """The sum of the participants' answers to one part.

    Attributes:
        values: in units of 1.0, shape (part.size,).
        rows: records in all, noised as the values are; 0 if the question did not ask for them.
        stddev: of the noise of each number; 0 if they are exact.
    """

    values: np.ndarray
    rows: float
    stddev: float

    def holds(self, index: int) -> bool:
        """Whether the number at an index is more than noise, see `support.threshold`."""
        return bool(self.values[index] >= threshold(self.stddev, 1))


Search = Generator[Part, Reply, FittedNumber | FittedCategory | None]


def number(column: Column, options: Options, private: bool) -> Search:
    """Find bounds, then the moments within them, and the median if it is wanted."""
    bounds = _public(column)
    middle = None
    if bounds is None:
        reply = yield Magnitudes(column.name)
        bounds = _within(reply, Magnitudes.edges(), Magnitudes.widest)
        for _ in range(1 if private else PASSES):
            if bounds is None:
                return None
            edges = np.linspace(*bounds, (PRIVATE_BINS if private else EXACT_BINS) + 1)
            reply = yield Bins(column.name, tuple(edges.tolist()))
            found = _within(reply, edges, len(edges))
            if private:
                middle = found and _middle(reply.values, edges, found)
            elif found is not None and found[1] - found[0] > (bounds[1] - bounds[0]) / 8:
                bounds = found
                break
            bounds = found
        if bounds is None:
            return None
    elif private and options.impute == "median":
        edges = np.linspace(*bounds, PRIVATE_BINS + 1)
        reply = yield Bins(column.name, tuple(edges.tolist()))
        middle = _middle(reply.values, edges, bounds)

    cut = bounds if private or column.bounded else None
    centre, half = _ball(bounds, (bounds[0] + bounds[1]) / 2)
    reply = yield Moments(column.name, centre, half)
    moments = _moments(reply, centre, half)
    if moments is None:
        return None
    mean, variance, present = moments
    if not private:
        centre, half = _ball(bounds, mean)
        reply = yield Moments(column.name, centre, half)
        mean, variance, present = _moments(reply, centre, half) or moments
    if options.impute == "median" and not private:
        middle = yield from _median(column.name, bounds, round(present))
    return FittedNumber(
        column.name,
        mean=mean,
        scale=options.deviations * math.sqrt(variance) if options.scale and variance > 0 else 1.0,
        fill=middle if options.impute == "median" and middle is not None else mean,
        low=cut and cut[0],
        high=cut and cut[1],
        indicator=options.indicators and reply.holds(0),
    )


def category(column: Column, options: Options, private: bool, salt: bytes) -> Search:
    """Find the categories that occur: by hash, and without privacy by name."""
    if column.values:
        reply = yield Listed(column.name, column.values)
        counts = reply.values[1:-1]
        others = int(reply.holds(-1))
        listed = FittedCategory(column.name, values=column.values, others=others)
        return _with_missing(listed, reply, counts, options)
    if private:
        reply = yield Hashes(column.name, salt, PRIVATE_HASH_BITS)
        if not _enough(reply, reply.values[0]):
            return None
        # A slot that nothing but noise filled is a feature that is always zero: one is no harm.
        cut = reply.stddev * NormalDist().inv_cdf(1 - 2.0**-PRIVATE_HASH_BITS)
        passed = np.flatnonzero(reply.values[1:] >= cut)
        kept = np.sort(_largest(passed, reply.values[1:], options.max_categories))
        others = _others(reply, kept, options.most_others)
        if not kept.size and (options.most_frequent or others == 1):
            return None  # a feature that is the same for all, or nothing to fill in
        hashed = FittedCategory(
            column.name, slots=tuple(kept.tolist()), bits=PRIVATE_HASH_BITS, others=others
        )
        return _with_missing(hashed, reply, reply.values[1:][kept], options)
    return (yield from _by_name(column, options, salt))


def _others(reply: Reply, kept: np.ndarray, most: int) -> int:
    """How many features the rare categories share: a power of two, 1 to `most`.

    So many that, evenly spread, one noise's deviation of records is in each. Their places are
    hashes, which no record tells anything of.
    """
    left = reply.rows - reply.values[0] - reply.values[1:][kept].sum()
    return 1 << int(math.log2(min(max(left / reply.stddev, 1.0), most)))


def _by_name(column: Column, options: Options, salt: bytes) -> Search:
    hashes, depth, other = np.zeros(1, dtype=np.int64), 0, False
    for bits in EXACT_HASH_BITS:
        reply = yield Hashes(column.name, salt, bits, tuple(hashes.tolist()), depth)
        counts = reply.values[1:]
        used = np.flatnonzero(counts >= threshold(0, 1))
        kept = np.sort(_largest(used, counts, MAX_DISTINCT))
        other = other or len(kept) < len(used)
        hashes, counts = (hashes[kept >> bits] << bits) | (kept & ((1 << bits) - 1)), counts[kept]
        depth += bits
    if not len(hashes):
        return None
    kept = _largest(np.arange(len(hashes)), counts, options.max_categories)
    other = other or len(kept) < len(hashes)
    missing = reply
    reply = yield Names(column.name, salt, tuple(hashes[kept].tolist()))
    texts = _decode(column.name, reply.values.reshape(len(kept), 1 + NAME_BYTES))
    order = sorted(range(len(kept)), key=texts.__getitem__)
    values = tuple(texts[i] for i in order)
    named = FittedCategory(column.name, values=values, others=int(other))
    return _with_missing(named, missing, counts[kept][order], options)


def _decode(name: str, table: np.ndarray) -> list[str]:
    """Texts out of sums of their bytes over all that hold them."""
    letters = table[:, 1:] / np.maximum(table[:, :1], 1)
    whole = np.rint(letters)
    if np.abs(letters - whole).max(initial=0) > 1e-6 or (table[:, 0] < 1).any():
        raise DataError(f"column {name!r}: two categories have the same hash: fit again")
    try:
        return [bytes(row.astype(np.uint8)).rstrip(b"\0").decode() for row in whole]
    except UnicodeDecodeError:
        raise DataError(f"column {name!r}: two categories have the same hash: fit again") from None


def _with_missing(
    fitted: FittedCategory, reply: Reply, counts: np.ndarray, options: Options
) -> FittedCategory:
    """Say what becomes of missing values, by their count and those of the categories."""
    if options.most_frequent:
        return replace(fitted, fill=int(np.argmax(counts)))
    return replace(fitted, missing=reply.holds(0))


def _largest(index: np.ndarray, counts: np.ndarray, most: int) -> np.ndarray:
    """The indices with the largest counts, ties by index."""
    return index[np.argsort(-counts[index], kind="stable")[:most]]


def _public(column: Column) -> tuple[float, float] | None:
    return None if column.low is None or column.high is None else (column.low, column.high)


def _within(reply: Reply, edges: np.ndarray, widest: int) -> tuple[float, float] | None:
    """Bounds that the records lie in, as far as the noise lets see."""
    found = support(reply.values, reply.stddev, widest)
    if found is None:
        return None
    if widest >= len(reply.values):
        found = cover(reply.values, reply.stddev, found)
    return float(edges[found[0]]), float(edges[found[1]])


def _ball(bounds: tuple[float, float], centre: float) -> tuple[float, float]:
    """A centre and a radius that covers the bounds."""
    return centre, max(bounds[1] - centre, centre - bounds[0], abs(centre) * 2.0**-50, 2.0**-100)


def _enough(reply: Reply, missing: float) -> bool:
    """Whether the values that are not missing are more than noise."""
    return bool(reply.rows - missing >= threshold(reply.stddev * math.sqrt(2), 1))


def _moments(reply: Reply, centre: float, half: float) -> tuple[float, float, float] | None:
    """Mean, variance and number of the values that are not missing; None if there are too few."""
    missing, first, second = reply.values.tolist()
    if not _enough(reply, missing):
        return None
    present = reply.rows - missing
    mean = min(max(first / present, -1.0), 1.0)
    variance = min(max(second / present, 0.0), 1.0) - mean**2
    # What is below its noise is not known to be anything else.
    variance = max(variance, reply.stddev / present, 0.0)
    return centre + half * mean, half**2 * variance, present


def _middle(counts: np.ndarray, edges: np.ndarray, bounds: tuple[float, float]) -> float:
    """The median by a noised histogram: where the cumulated counts within the bounds reach half."""
    inside = (edges[:-1] >= bounds[0]) & (edges[1:] <= bounds[1])
    heights = np.maximum(counts[inside], 0.0)
    cumulated = np.concatenate([[0.0], np.cumsum(heights)])
    ends = np.append(edges[:-1][inside], bounds[1])
    if cumulated[-1] <= 0:
        return (bounds[0] + bounds[1]) / 2
    return float(np.interp(cumulated[-1] / 2, cumulated, ends))


def _median(name: str, bounds: tuple[float, float], present: int) -> Generator[Part, Reply, float]:
    """The exact median: both middle values, by bins around them that become finer."""
    ranks = [(present - 1) // 2, present // 2]
    around = [bounds, bounds]
    for _ in range(PASSES):
        edges = np.unique([np.linspace(low, high, EXACT_BINS // 2 + 1) for low, high in around])
        if len(edges) < 2:
            break
        reply = yield Bins(name, tuple(edges.tolist()))
        cumulated = np.rint(np.cumsum(reply.values))
        places = np.searchsorted(cumulated, ranks, side="right")
        around = [(float(edges[i]), float(edges[i + 1])) for i in places.tolist()]
    return sum(low for low, _ in around) / 2
