"""Epsilon of a run: privacy loss distributions (PLD), with Renyi DP (RDP) reported beside them."""

import bisect
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from lepton_flwr import _validate as check
from lepton_flwr.errors import ConfigError, PrivacyError
from lepton_flwr.failures import Failure
from lepton_flwr.privacy import losses
from lepton_flwr.privacy.events import (
    Event,
    Neighbours,
    SampledGaussian,
    Unit,
    batch_size,
    truncation_probability,
)

__all__ = [
    "ACCOUNTANT",
    "SMALLEST_DELTA",
    "BudgetError",
    "Neighbours",
    "SampledGaussian",
    "Unit",
    "batch_size",
    "calibrate",
    "epsilon_of",
    "epsilon_rdp_of",
    "suggest_batch_size",
    "tolerable_truncation",
    "truncation_probability",
]
ACCOUNTANT = "PLD"
SMALLEST_DELTA = 1e-11  # below it, round-off of the convolutions (about 1e-15) would show
SMALLEST_NOISE = 0.1
LARGEST_NOISE = 1e5
_TOLERANCE = 5e-4
_NO_EPSILON = 1e-30  # stands for zero in logarithms
_LARGEST_STRIDE = math.log(2)


class BudgetError(PrivacyError):
    """The next release would exceed the privacy budget."""

    failure = Failure.BUDGET


def epsilon_of(mechanism: SampledGaussian, delta: float, steps: int) -> float:
    """Epsilon of `steps` releases by the PLD accountant.

    Pessimistic: losses are discretised by connecting the dots (Doroshenko et al. 2022) on a grid
    of 1e-3, coarser only where epsilon exceeds 200.

    Raises:
        ConfigError: `delta` is outside [1e-11, 1), or `steps` is negative.
    """
    check.finite("delta", delta, at_least=SMALLEST_DELTA, below=1)
    check.integer("steps", steps, at_least=0)
    return losses.epsilon([(replace(mechanism, steps_per_round=1), steps)], delta)


def epsilon_rdp_of(mechanism: SampledGaussian, delta: float, steps: int) -> float:
    """Epsilon of `steps` releases by the RDP accountant: looser, and widely published.

    It accounts for exactly what `epsilon_of` does, truncation and relation included.

    Raises:
        ConfigError: `delta` is outside [1e-11, 1), or `steps` is negative.
    """
    check.finite("delta", delta, at_least=SMALLEST_DELTA, below=1)
    check.integer("steps", steps, at_least=0)
    return losses.epsilon([(replace(mechanism, steps_per_round=1), steps)], delta, renyi=True)


def calibrate(
    epsilon: float,
    delta: float,
    sampling_probability: float,
    steps: int,
    *,
    truncation_probability: float = 0.0,
    sensitivity_factor: float = 1.0,
    neighbours: Neighbours = Neighbours.ADD_OR_REMOVE_ONE,
    also: Sequence[tuple[Event, int]] = (),
) -> float:
    """The smallest noise multiplier, to one part in a thousand, that keeps `steps` in budget.

    The keyword arguments are those of `SampledGaussian`; `also` are other releases, each so many
    times, that the same budget pays for.

    Returns:
        A noise multiplier of at least 0.1 whose `epsilon_of` is at most `epsilon`, never above.

    Raises:
        ConfigError: an argument is out of range, or no noise multiplier up to 1e5 suffices.
    """
    check.finite("epsilon", epsilon, above=0)
    check.finite("delta", delta, at_least=SMALLEST_DELTA, below=1)
    check.integer("steps", steps, at_least=1)
    mechanism = SampledGaussian(
        1.0,
        sampling_probability,
        1,
        truncation_probability=truncation_probability,
        sensitivity_factor=sensitivity_factor,
        neighbours=neighbours,
    )

    def excess(noise_multiplier: float) -> float:
        """Log of epsilon over the target: nearly linear in the log of the noise."""
        noisy = replace(mechanism, noise_multiplier=noise_multiplier)
        spent = losses.epsilon([(noisy, steps), *also], delta)
        return math.log(max(spent, _NO_EPSILON) / epsilon)

    noise, too_little, enough = 1.0, None, None
    stride = 1.01
    while too_little is None or enough is None:
        found = excess(noise)
        if found > 0 and noise >= LARGEST_NOISE:
            raise ConfigError(
                f"epsilon={epsilon:g} with delta={delta:g}, sampling probability "
                f"{sampling_probability:g} and {steps} steps: expected a target that a noise "
                f"multiplier up to {LARGEST_NOISE:g} reaches; raise epsilon or take fewer steps"
            )
        if found > 0:
            too_little = noise, found
            step = stride * math.exp(min(found, _LARGEST_STRIDE))
            noise = min(noise * step, LARGEST_NOISE)
            stride *= stride  # what `also` spends stays, so the excess may hardly fall
        elif noise <= SMALLEST_NOISE:
            return noise
        else:
            enough = noise, found
            noise = max(noise / 1.01 * math.exp(max(found, -_LARGEST_STRIDE)), SMALLEST_NOISE)
    return _between(too_little, enough, excess)


def _between(
    too_little: tuple[float, float], enough: tuple[float, float], excess: Callable[[float], float]
) -> float:
    """Narrow two pairs of noise and excess to the tolerance; returns the noise that is enough."""
    for turn in itertools.count():
        (low, above), (high, below) = too_little, enough
        if high <= low * (1 + _TOLERANCE):
            break
        share = above / (above - below) if turn % 4 < 3 and below > -math.inf else 0.5
        crossing = low * (high / low) ** share
        # A little to either side in turn, so that both ends close in.
        noise = crossing * (1 + _TOLERANCE / 3) ** (1 if turn % 2 == 0 else -1)
        if not low < noise < high:
            noise = math.sqrt(low * high)
        found = excess(noise)
        if found > 0:
            too_little = noise, found
        else:
            enough = noise, found
    return enough[0]


@functools.lru_cache(maxsize=256)
def tolerable_truncation(
    mechanism: SampledGaussian, delta: float, steps: int, slack: float = 0.01
) -> float:
    """The largest power of two that truncation may happen with at almost no price.

    Args:
        mechanism: noise, sampling and relation; its own truncation is left aside.
        delta: of all steps.
        steps: releases in all.
        slack: how much larger epsilon may become, as a share of what it is without truncation.

    Returns:
        A `truncation_probability` of at most 1/2; `batch_size` turns it into a size.

    Raises:
        ConfigError: an argument is out of range.
    """
    check.finite("slack", slack, above=0)
    check.integer("steps", steps, at_least=1)

    def epsilon(cut: float) -> float:
        return epsilon_of(replace(mechanism, truncation_probability=cut), delta, steps)

    allowed = epsilon(0.0) * (1 + slack)
    power = bisect.bisect_left(range(1, 100), True, key=lambda p: epsilon(2.0**-p) <= allowed)
    return 2.0 ** -(1 + power)


def suggest_batch_size(
    mechanism: SampledGaussian, num_records: int, delta: float, steps: int, slack: float = 0.01
) -> int:
    """The smallest multiple of 8 that samples can be cut to at almost no price.

    Args and errors as in `tolerable_truncation`, whose answer it keeps to.
    """
    tolerable = tolerable_truncation(mechanism, delta, steps, slack)
    return batch_size(num_records, mechanism.sampling_probability, tolerable)
