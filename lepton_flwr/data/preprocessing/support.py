"""Where a noised histogram has records: bins, alone or in blocks, that noise alone rarely fills."""

import math
from statistics import NormalDist

import numpy as np

FAILURE = 1e-3  # chance that, of all empty bins and blocks of one release, any passes


def threshold(stddev: float, tests: int) -> float:
    """A count that none of `tests` empty bins reaches, but with probability `FAILURE`.

    The union bound over Gaussian tails; without noise, more than half a record.
    """
    if stddev == 0:
        return 0.5
    return stddev * NormalDist().inv_cdf(1 - FAILURE / max(tests, 1))


def num_blocks(bins: int) -> int:
    """Bins and blocks that `support` tests."""
    total = 0
    while bins:
        total += bins
        bins //= 2
    return total


def support(counts: np.ndarray, stddev: float, tests: int) -> tuple[int, int] | None:
    """First and one past the last bin that records were found in.

    Blocks of 1, 2, 4, ... adjacent bins are tested, each against the noise of its sum: records that
    are spread thinly are found in wide blocks, those on one value in a single bin. Of blocks within
    each other the smallest that passes counts.

    Args:
        counts: noised, shape (bins,).
        stddev: of the noise of one bin; 0 for exact counts.
        tests: how many blocks are tested in this release, in all columns.

    Returns:
        None where no block passes.
    """
    cut = threshold(stddev, tests)
    found: np.ndarray = np.zeros(
        len(counts), dtype=bool
    )  # blocks of this level with a block that passed
    low, high = len(counts), 0
    sums, width = np.asarray(counts, dtype=np.float64), 1
    while len(sums):
        passes = sums >= cut * math.sqrt(width)
        own = np.flatnonzero(passes & ~found)
        if own.size:
            low, high = min(low, own[0] * width), max(high, (own[-1] + 1) * width)
        pairs = len(sums) // 2
        found = np.any((found | passes)[: 2 * pairs].reshape(pairs, 2), axis=1)
        sums, width = sums[: 2 * pairs].reshape(pairs, 2).sum(axis=1), 2 * width
    return (int(low), int(high)) if high else None
