"""Where a noised histogram has records: bins, alone or in blocks, that noise alone rarely fills."""

import math
from statistics import NormalDist

import numpy as np

FAILURE = 0.01  # chance that, of one column's empty bins and blocks in one release, any passes
TAIL = 0.02  # share of the records that may lie beyond the bounds, beside what noise hides


def threshold(stddev: float, tests: int) -> float:
    """A count that none of `tests` empty bins reaches, but with probability `FAILURE`.

    The union bound over Gaussian tails; without noise, half a record.
    """
    if stddev == 0:
        return 0.5
    return stddev * NormalDist().inv_cdf(1 - FAILURE / max(tests, 1))


def num_blocks(bins: int, widest: int) -> int:
    """Bins and blocks that `support` tests."""
    total, width = 0, 1
    while bins and width <= widest:
        total, bins, width = total + bins, bins // 2, 2 * width
    return total


def support(counts: np.ndarray, stddev: float, widest: int) -> tuple[int, int] | None:
    """First and one past the last bin that records were found in.

    Blocks of 1, 2, 4, ... adjacent bins are tested, each against the noise of its sum: records that
    are spread thinly are found in wide blocks, those on one value in a single bin. What smaller
    blocks were found in does not count again for a wider one.

    Args:
        counts: noised, shape (bins,).
        stddev: of the noise of one bin; 0 for exact counts.
        widest: bins of the widest block.

    Returns:
        None where no block passes.
    """
    cut = threshold(stddev, num_blocks(len(counts), widest))
    found = np.zeros(len(counts), dtype=bool)
    width = 1
    while width <= min(widest, len(counts)):
        for start in range(0, len(counts) - width + 1, width):
            block = slice(start, start + width)
            rest = ~found[block]
            left = int(rest.sum())
            if left and counts[block][rest].sum() >= cut * math.sqrt(left):
                found[block] = True
        width *= 2
    bins = np.flatnonzero(found)
    return (int(bins[0]), int(bins[-1]) + 1) if bins.size else None


def cover(counts: np.ndarray, stddev: float, around: tuple[int, int]) -> tuple[int, int]:
    """Widen a range of bins until hardly any records can be seen beyond it.

    It grows on the side beyond which more are counted, until there are `TAIL` of all and one
    deviation of the noise of what is beyond, at most.

    Args:
        counts: noised, shape (bins,).
        stddev: of the noise of one bin; 0 for exact counts.
        around: first and one past the last bin to start from, as `support` found them.
    """
    low, high = around
    total = max(float(counts.sum()), 0.0)
    while low > 0 or high < len(counts):
        below, above = float(counts[:low].sum()), float(counts[high:].sum())
        slack = stddev * math.sqrt(low + len(counts) - high)
        if below + above <= (TAIL * total + slack if stddev else 0.5):
            break
        grow_low = high == len(counts) or (low > 0 and below > above)
        low, high = (low - 1, high) if grow_low else (low, high + 1)
    return low, high
