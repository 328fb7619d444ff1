"""Gaussian noise and Poisson sampling from a cipher stream: the randomness privacy rests on."""

import math
from fractions import Fraction

import numpy as np

from lepton_flwr import _validate as check
from lepton_flwr.crypto.stream import CipherStream
from lepton_flwr.errors import ConfigError
from lepton_flwr.privacy import ziggurat

_CHUNK = 2**14
_LARGEST_STDDEV = 2.0**58  # 9.42 standard deviations, the largest draw, still fit an int64


class GaussianNoise:
    """Independent Gaussian draws from cipher bits.

    Float64 draws are made by the Box-Muller transform, with 64 random bits for a radius and as many
    for an angle, so a pair of draws misses the tail beyond 9.42 standard deviations (mass 2^-64).
    Float32 draws are made by a ziggurat, which is faster and misses less; see `ziggurat.fill`. A
    float has gaps that the ideal Gaussian has not (Mironov 2012): add float draws to
    values that are themselves rounded, and prefer `rounded` on an integer grid wherever the release
    can live on one.

    Args:
        stream: None takes a key from the operating system, which is what anything that protects
            a release uses; tests inject a keyed stream. Not safe to share between threads.
    """

    def __init__(self, stream: CipherStream | None = None) -> None:
        self._stream = CipherStream() if stream is None else stream

    def standard_normal(
        self, shape: int | tuple[int, ...], dtype: type[np.floating] = np.float64
    ) -> np.ndarray:
        """Draws of N(0, 1) in `shape`, of float64 or float32."""
        draws = np.empty(shape, dtype)
        self.fill(draws.reshape(-1), 1.0)
        return draws

    def fill(self, out: np.ndarray, stddev: float) -> None:
        """Overwrite `out` by draws of N(0, stddev^2).

        Args:
            out: float64 or float32, shape (d,), contiguous.
            stddev: the standard deviation.
        """
        if out.dtype == np.float32:
            ziggurat.fill(self._stream, out, stddev)
            return
        for start in range(0, out.size, _CHUNK):  # small enough to stay in cache
            self._fill(out[start : start + _CHUNK], stddev)

    def _fill(self, out: np.ndarray, stddev: float) -> None:
        pairs = (out.size + 1) // 2
        radius = self._stream.uint64(pairs).astype(np.float64)
        radius += 1.0
        radius *= 2.0**-64
        np.log(radius, out=radius)
        radius *= -2.0
        np.sqrt(radius, out=radius)
        radius *= stddev
        angle = self._stream.uint64(pairs).astype(np.float64)
        angle *= 2.0 * math.pi * 2.0**-64
        np.multiply(radius, np.cos(angle), out=out[:pairs])
        np.sin(angle, out=angle)
        np.multiply(radius[: out.size - pairs], angle[: out.size - pairs], out=out[pairs:])

    def rounded(self, shape: int | tuple[int, ...], stddev: float) -> np.ndarray:
        """Draws of N(0, stddev^2), each rounded to the nearest integer, int64.

        Added to integers these give exactly the rounded sum of integer and continuous draw, so
        rounding is post-processing and costs no privacy.

        Raises:
            ConfigError: `stddev` is negative, not finite, or too large for int64.
        """
        check.finite("stddev", stddev, at_least=0, at_most=_LARGEST_STDDEV)
        return np.rint(stddev * self.standard_normal(shape)).astype(np.int64)


def poisson_sample(
    stream: CipherStream, num_records: int, sampling_probability: float
) -> np.ndarray:
    """Choose each record independently: the sampling that amplification by sampling assumes.

    A record is chosen when its 64 uniform bits are below floor(q 2^64), so the probability is q
    for q >= 2^-11 (such floats are multiples of 2^-64), and otherwise below q by under 2^-64.

    Args:
        stream: an OS-keyed stream wherever the sample protects a release.
        num_records: number of records.
        sampling_probability: q, in (0, 1].

    Returns:
        Increasing indices of the chosen records, int64, possibly none.

    Raises:
        ConfigError: an argument is out of range.
    """
    check.integer("num_records", num_records, at_least=0)
    check.finite("sampling_probability", sampling_probability, above=0, at_most=1)
    threshold = int(Fraction(sampling_probability) * 2**64)
    if threshold == 2**64:
        return np.arange(num_records, dtype=np.int64)
    if threshold == 0:
        raise ConfigError(
            f"sampling_probability={sampling_probability:g}: expected at least 2^-64, for no "
            "record would ever be chosen"
        )
    return np.flatnonzero(stream.uint64(num_records) < np.uint64(threshold)).astype(np.int64)
