"""Mechanisms for statistics and votes: each returns what may be published, and its event.

Laplace and Gaussian noise on real numbers, and Laplace noise on whole ones, come from OpenDP, whose
samplers are exact on the numbers that a computer has, and whose randomness is the operating
system's. Discrete Gaussian noise and randomized responses come from our own cipher stream. For
whole vectors of weights see `mechanism` and `discrete`.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from lepton_flwr import _validate as check
from lepton_flwr.crypto.stream import CipherStream
from lepton_flwr.errors import ConfigError, PrivacyError
from lepton_flwr.privacy import losses
from lepton_flwr.privacy.accounting import SMALLEST_DELTA, calibrate
from lepton_flwr.privacy.discrete import DiscreteGaussianNoise
from lepton_flwr.privacy.events import (
    DiscreteGaussian,
    DiscreteLaplace,
    Event,
    Laplace,
    RandomizedResponse,
    SampledGaussian,
)

_LARGEST_VALUE = 2**52  # of whole numbers: noise on top of them still fits


@dataclass(frozen=True)
class Noised:
    """What may be published, and what it costs.

    Attributes:
        value: in the shape and kind of what was given.
        event: for a ledger or `losses.epsilon`; `event.dp_event()` is dp-accounting's.
    """

    value: np.ndarray
    event: Event


def laplace(
    values: Any, *, sensitivity: float, scale: float | None = None, epsilon: float | None = None
) -> Noised:
    """Add Laplace noise to real numbers: (epsilon, 0)-private.

    Args:
        values: numbers of any shape.
        sensitivity: most that one unit changes them by, in L1 norm, under the neighbouring
            relation that is wanted.
        scale: of the noise; or else
        epsilon: to which the scale is set.

    Raises:
        ConfigError: an argument is out of range, or OpenDP is not installed.
        PrivacyError: a value is NaN or infinite.
    """
    check.finite("sensitivity", sensitivity, above=0)
    scale = _either(scale, epsilon, lambda wanted: sensitivity / wanted)
    flat, shape = _real(values)
    dp = _opendp()
    space = dp.vector_domain(dp.atom_domain(T=float, nan=False)), dp.l1_distance(T=float)
    measurement = dp.m.make_laplace(*space, scale=scale)
    noised = np.array(measurement(flat.tolist()), dtype=np.float64).reshape(shape)
    return Noised(noised, Laplace(1 / measurement.map(sensitivity)))


def gaussian(
    values: Any,
    *,
    sensitivity: float,
    scale: float | None = None,
    epsilon: float | None = None,
    delta: float | None = None,
) -> Noised:
    """Add Gaussian noise to real numbers: (epsilon, delta)-private.

    Args:
        values: numbers of any shape.
        sensitivity: as in `laplace`, in L2 norm.
        scale: standard deviation of the noise; or else
        epsilon: with
        delta: to which it is calibrated by PLD.

    Raises:
        ConfigError: an argument is out of range, or OpenDP is not installed.
        PrivacyError: a value is NaN or infinite.
    """
    check.finite("sensitivity", sensitivity, above=0)
    scale = _either(
        scale, epsilon, lambda wanted: sensitivity * calibrate(wanted, _delta(delta), 1.0, 1)
    )
    flat, shape = _real(values)
    dp = _opendp()
    space = dp.vector_domain(dp.atom_domain(T=float, nan=False)), dp.l2_distance(T=float)
    measurement = dp.m.make_gaussian(*space, scale=scale)
    noised = np.array(measurement(flat.tolist()), dtype=np.float64).reshape(shape)
    multiplier = math.sqrt(0.5 / measurement.map(sensitivity))
    return Noised(noised, SampledGaussian(multiplier, 1.0, 1))


def discrete_laplace(
    values: Any, *, sensitivity: int, scale: float | None = None, epsilon: float | None = None
) -> Noised:
    """Add noise of mass proportional to exp(-|x| / scale) to whole numbers: (epsilon, 0)-private.

    Args and errors as in `laplace`; `sensitivity` is a whole number.
    """
    check.integer("sensitivity", sensitivity, at_least=1)
    scale = _either(scale, epsilon, lambda wanted: sensitivity / wanted)
    flat, shape = _whole(values)
    dp = _opendp()
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l1_distance(T="i64")
    measurement = dp.m.make_laplace(*space, scale=scale)
    noised = np.array(measurement(flat.tolist()), dtype=np.int64).reshape(shape)
    return Noised(noised, DiscreteLaplace(scale, sensitivity))


def discrete_gaussian(
    values: Any,
    *,
    sensitivity: float,
    scale: float | None = None,
    epsilon: float | None = None,
    delta: float | None = None,
    stream: CipherStream | None = None,
) -> Noised:
    """Add discrete Gaussian noise to whole numbers, in vectors of any length.

    Args:
        values: whole numbers of any shape.
        sensitivity: as in `gaussian`.
        scale: the parameter of the noise; or else
        epsilon: with
        delta: to which it is calibrated by RDP; see `DiscreteGaussianNoise` for what its draws
            add to delta.
        stream: None takes a key from the operating system; tests inject one.

    Raises:
        ConfigError: an argument is out of range.
        PrivacyError: a value is not a whole number, or exceeds 2^52.
    """
    check.finite("sensitivity", sensitivity, above=0)
    scale = _either(scale, epsilon, lambda wanted: sensitivity * _discrete(wanted, _delta(delta)))
    flat, shape = _whole(values)
    noise = DiscreteGaussianNoise(scale, stream).draw(flat.size)
    return Noised((flat + noise).reshape(shape), DiscreteGaussian(scale / sensitivity))


def randomized_response(
    votes: Any,
    num_buckets: int,
    *,
    epsilon: float,
    stream: CipherStream | None = None,
) -> Noised:
    """Keep each vote, or replace it by a uniformly drawn one: (epsilon, 0)-private for each.

    Every element of `votes` is the vote of another unit; the event is that of one vote.

    Args:
        votes: whole numbers from 0 to num_buckets - 1, of any shape.
        num_buckets: answers there are, at most 65,536.
        epsilon: for replacing one unit's vote.
        stream: None takes a key from the operating system; tests inject one.

    Raises:
        ConfigError: an argument is out of range.
        PrivacyError: a vote is not one of the answers.
    """
    check.integer("num_buckets", num_buckets, at_least=2, at_most=2**16)
    check.finite("epsilon", epsilon, above=0, at_most=40)
    flat, shape = _whole(votes)
    if flat.size and not 0 <= int(flat.min()) <= int(flat.max()) < num_buckets:
        raise PrivacyError(f"a vote outside 0..{num_buckets - 1}: expected one of the answers")
    stream = CipherStream() if stream is None else stream
    # Rounded up to a 2^-64th, of which 1/num_buckets draws the vote itself again.
    replaced = Fraction(num_buckets) / (Fraction(math.exp(epsilon)) + num_buckets - 1)
    threshold = min(math.ceil(replaced * 2**64), 2**64 - 1)
    chosen = stream.uint64(flat.size) < np.uint64(threshold)
    # The high half of a 64-bit product: each answer is off by less than 2^-48 of its chance.
    drawn = ((stream.uint64(flat.size) >> np.uint64(16)) * np.uint64(num_buckets)) >> np.uint64(48)
    value = np.where(chosen, drawn.astype(np.int64), flat).reshape(shape)
    return Noised(value, RandomizedResponse(threshold / 2**64, num_buckets))


def _either(scale: float | None, epsilon: float | None, of: Callable[[float], float]) -> float:
    """The scale, or what `of` makes of epsilon."""
    if (scale is None) == (epsilon is None):
        raise ConfigError(f"scale={scale}, epsilon={epsilon}: expected one of them")
    if epsilon is not None:
        scale = of(check.finite("epsilon", epsilon, above=0))
    return check.finite("scale", scale, above=0)


def _delta(delta: float | None) -> float:
    if delta is None:
        raise ConfigError("epsilon without delta: expected both")
    return check.finite("delta", delta, at_least=SMALLEST_DELTA, below=1)


@functools.lru_cache(maxsize=64)
def _discrete(epsilon: float, delta: float) -> float:
    """The smallest noise multiplier, to one part in a thousand, within (epsilon, delta)."""
    low, high = 1e-2, 1e5
    if losses.epsilon([(DiscreteGaussian(high), 1)], delta) > epsilon:
        raise ConfigError(f"epsilon={epsilon:g}: expected a target that noise of 1e5 reaches")
    while high > low * 1.001:
        middle = math.sqrt(low * high)
        enough = losses.epsilon([(DiscreteGaussian(middle), 1)], delta) <= epsilon
        low, high = (low, middle) if enough else (middle, high)
    return high


def _real(values: Any) -> tuple[np.ndarray, tuple[int, ...]]:
    array = np.asarray(values)
    if array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise PrivacyError(f"values of {array.dtype}: expected finite numbers")
    return array.astype(np.float64).reshape(-1), array.shape


def _whole(values: Any) -> tuple[np.ndarray, tuple[int, ...]]:
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise PrivacyError(f"values of {array.dtype}: expected whole numbers")
    if array.size and not -_LARGEST_VALUE <= int(array.min()) <= int(array.max()) <= _LARGEST_VALUE:
        raise PrivacyError("a value beyond 2^52: expected room for the noise")
    return array.astype(np.int64).reshape(-1), array.shape


@functools.cache
def _opendp() -> Any:
    try:
        import opendp.prelude as dp
    except ImportError:
        raise ConfigError(
            "OpenDP is not installed: pip install 'lepton-flwr[simulation]' brings it"
        ) from None
    dp.enable_features("contrib")
    return dp
