"""Discrete Gaussian noise from cipher bits, fast enough for the weights of a model."""

import decimal
import functools
import math
from dataclasses import dataclass

import numpy as np

from lepton_flwr import _validate as check
from lepton_flwr.crypto.stream import CipherStream

SMALLEST_STDDEV = 0.05
LARGEST_STDDEV = 2.0**40
_FINE = 512  # deviations up to here have one column for every whole number
_TAIL = 10  # deviations in the table; beyond lies a mass below 2^-75
_CHUNK = 1 << 15  # draws at a time: their temporaries stay in the processor's cache
_BITS = 256  # of the fixed-point numbers that the table is computed with


class DiscreteGaussianNoise:
    """Whole numbers x with probability proportional to exp(-x^2 / 2 stddev^2).

    An alias table (Walker 1977, Vose 1991) over integer probabilities turns 64 random bits for a
    column and 64 for its threshold into a draw. The table is computed with 256-bit integers; its
    only error is the rounding to a 2^-64th of a column. For a stddev above 512 the table chooses a
    run of 2^j numbers, of at most a 256th of the deviation, in proportion to its largest
    probability; a uniform member is then kept with the ratio of its own to that (rejection as in
    Canonne, Kamath and Steinke 2020), for which float64 is exact to 2^-50 of an event of chance
    below 1/25.

    **Guarantee**: a draw is within total variation distance 2^-64 of the discrete Gaussian for a
    stddev up to 512, and within 2^-58 above. A mechanism that makes n draws and is
    (epsilon, delta)-private with ideal noise is (epsilon, delta + (1 + e^epsilon) n 2^-58)-private
    with these.

    Args:
        stddev: the parameter, from 0.05 to 2^40; nearly the standard deviation for 1 and above.
        stream: None takes a key from the operating system, which is what anything that protects a
            release uses; tests inject a keyed stream. Not safe to share between threads.

    Raises:
        ConfigError: `stddev` is out of range.
    """

    def __init__(self, stddev: float, stream: CipherStream | None = None) -> None:
        check.finite("stddev", stddev, at_least=SMALLEST_STDDEV, at_most=LARGEST_STDDEV)
        self.stddev = float(stddev)
        self._stream = CipherStream() if stream is None else stream
        self._shift = 0
        if stddev > _FINE:
            self._shift = math.floor(math.log2(stddev / (_FINE / 2)))
        self._table = _table(self.stddev / 2**self._shift, signed=not self._shift)

    def draw(self, count: int) -> np.ndarray:
        """`count` independent draws, int64."""
        check.integer("count", count, at_least=0)
        out = np.empty(count, dtype=np.int64)
        done = 0
        while done < count:
            part = self._some(min(_CHUNK, count - done))
            out[done : done + part.size] = part
            done += part.size
        return out

    def _some(self, count: int) -> np.ndarray:
        """At most `count` draws."""
        table = self._table
        bits = self._stream.uint64(count)
        column = (bits & np.uint64(table.mask)).astype(np.intp)
        own = self._stream.uint64(count) < table.threshold[column]
        chosen = np.where(own, column, table.alias[column])
        if not self._shift:
            return chosen.astype(np.int64) - table.zero
        # The bits above those of the column: a sign, and a place within the run.
        rest = bits >> np.uint64(table.bits)
        place = ((rest >> np.uint64(1)) & np.uint64(2**self._shift - 1)).astype(np.int64)
        start = chosen.astype(np.int64) << self._shift
        exponent = place * (2.0 * start + place) / (2.0 * self.stddev**2)
        rejected = self._stream.uint64(count) < (-np.expm1(-exponent) * 2.0**64).astype(np.uint64)
        negative = (rest & np.uint64(1)).astype(bool)
        size = start + place
        kept = ~(rejected | (negative & (size == 0)))  # zero has one sign
        draws: np.ndarray = np.where(negative, -size, size)[kept]
        return draws


@dataclass(frozen=True)
class _Table:
    """Columns of equal chance, each with a threshold of 64 bits and another outcome above it."""

    threshold: np.ndarray
    alias: np.ndarray
    zero: int  # the column of zero, for signed tables

    @property
    def mask(self) -> int:
        return len(self.alias) - 1

    @property
    def bits(self) -> int:
        return self.mask.bit_length()


@functools.lru_cache(maxsize=16)
def _table(stddev: float, *, signed: bool) -> _Table:
    """Of exp(-x^2 / 2 stddev^2) on -m..m, or on 0..m if not signed."""
    largest = math.ceil(_TAIL * stddev) + 1
    half = _weights(stddev, largest)
    weights = [*half[:0:-1], *half] if signed else half
    columns = 1 << max(len(weights) - 1, 1).bit_length()
    masses = _integer_masses(weights, columns << 64)
    masses += [0] * (columns - len(masses))
    threshold, alias = _alias(masses)
    return _Table(threshold, alias, largest if signed else 0)


def _weights(stddev: float, largest: int) -> list[int]:
    """exp(-x^2 / 2 stddev^2) for x = 0..largest, as multiples of 2^-256.

    Each is the one before times a ratio that shrinks by exp(-1 / stddev^2): rounding errors add up
    to less than largest^2 of the last bit.
    """
    with decimal.localcontext(decimal.Context(prec=100)):
        variance = decimal.Decimal(stddev) ** 2
        one = decimal.Decimal(2**_BITS)
        ratio = int((-1 / (2 * variance)).exp() * one)
        shrink = int((-1 / variance).exp() * one)
    weights = [1 << _BITS]
    for _ in range(largest):
        weights.append(weights[-1] * ratio >> _BITS)
        ratio = ratio * shrink >> _BITS
    return weights


def _integer_masses(weights: list[int], total: int) -> list[int]:
    """Round `weights` to integers that add up to `total`; the largest takes the remainder."""
    whole = sum(weights)
    masses = [(2 * weight * total + whole) // (2 * whole) for weight in weights]
    at = max(range(len(masses)), key=masses.__getitem__)
    masses[at] += total - sum(masses)
    return masses


def _alias(masses: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Vose's construction on integers: exact, for masses that add up to 2^64 for each column."""
    columns, full = len(masses), 1 << 64
    left = list(masses)
    threshold, alias = [0] * columns, list(range(columns))
    small = [i for i in range(columns) if left[i] < full]
    large = [i for i in range(columns) if left[i] >= full]
    while small:
        one, other = small.pop(), large[-1]
        threshold[one], alias[one] = left[one], other
        left[other] -= full - left[one]
        if left[other] < full:
            small.append(large.pop())
    # What is left is full, and its own alias: any threshold will do.
    return np.array(threshold, dtype=np.uint64), np.array(alias, dtype=np.int64)
