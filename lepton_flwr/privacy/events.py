"""Releases as accountants see them: plain values that compose, and that a ledger can keep.

dp-accounting is imported inside functions, for it takes one to two seconds.
"""

import bisect
import dataclasses
import enum
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from lepton_flwr import _validate as check
from lepton_flwr.errors import ConfigError

BATCH_MULTIPLE = 8  # of batch sizes: shapes that vector units like


class Unit(enum.Enum):
    """Whose participation a guarantee hides."""

    RECORD = "record"
    CLIENT = "client"


class Neighbours(enum.Enum):
    """Which two data sets a guarantee makes hard to tell apart."""

    ADD_OR_REMOVE_ONE = "adding or removing"
    REPLACE_ONE = "replacing"


@dataclass(frozen=True)
class SampledGaussian:
    """Gaussian noise on a sum over a Poisson sample, several times a round.

    Truncation: a sample larger than the batch is cut to it, uniformly. A unit can then displace
    another from the sum, so one step is accounted as

        (1 - t) * [sensitivity 1, probability q]  +  t * [sensitivity 2, probability q]

    with t the chance that the others alone fill the batch, which no single unit changes. This is
    the mixture of Ganesh et al. 2025 (arXiv 2508.15089) and of dp-accounting, with q in place of
    the slightly smaller chance of a unit to survive the cut: it grows with t, so a bound of t does.

    Attributes:
        noise_multiplier: standard deviation of the noise over the bound of one unit's part.
        sampling_probability: q, chance of each unit to be in a step's sample; 1 is the plain
            Gaussian mechanism.
        steps_per_round: releases per round.
        truncation_probability: t or a bound of it, see `truncation_probability`; 0 if samples are
            never cut.
        sensitivity_factor: how far one unit moves the sum, in bounds of one unit's part. It is 2
            where microbatches of several examples are clipped as one and a unit changes one of
            them: it moves that clipped mean from one side of the ball to the other.
        neighbours: the neighbouring relation.
    """

    noise_multiplier: float
    sampling_probability: float
    steps_per_round: int
    truncation_probability: float = 0.0
    sensitivity_factor: float = 1.0
    neighbours: Neighbours = Neighbours.ADD_OR_REMOVE_ONE

    def __post_init__(self) -> None:
        check.finite("noise_multiplier", self.noise_multiplier, above=0)
        check.finite("sampling_probability", self.sampling_probability, above=0, at_most=1)
        check.integer("steps_per_round", self.steps_per_round, at_least=1)
        check.finite("truncation_probability", self.truncation_probability, at_least=0, at_most=1)
        check.finite("sensitivity_factor", self.sensitivity_factor, at_least=1)

    @classmethod
    def truncated(
        cls,
        noise_multiplier: float,
        sampling_probability: float,
        steps_per_round: int,
        *,
        truncated_batch_size: int,
        num_records: int,
    ) -> Self:
        """Samples of `num_records` records, cut to `truncated_batch_size`."""
        cut = truncation_probability(num_records, sampling_probability, truncated_batch_size)
        return cls(noise_multiplier, sampling_probability, steps_per_round, cut)

    @property
    def effective_noise(self) -> float:
        """Standard deviation of the noise over the sensitivity of the sum."""
        return self.noise_multiplier / self.sensitivity_factor

    def dp_event(self) -> Any:
        """One round as dp-accounting's `DpEvent`; its accountants know no truncation by chance."""
        import dp_accounting as dp

        if self.truncation_probability:
            return dp.UnsupportedDpEvent()
        event = dp.GaussianDpEvent(self.effective_noise)
        if self.sampling_probability < 1:
            event = dp.PoissonSampledDpEvent(self.sampling_probability, event)
        return dp.SelfComposedDpEvent(event, self.steps_per_round)


@dataclass(frozen=True)
class Laplace:
    """Laplace noise on real numbers.

    Attributes:
        noise_multiplier: scale of the noise over the L1 sensitivity, which is that of the
            neighbouring relation for which epsilon is wanted.
    """

    noise_multiplier: float

    def __post_init__(self) -> None:
        check.finite("noise_multiplier", self.noise_multiplier, above=0)

    def dp_event(self) -> Any:
        """As dp-accounting's `DpEvent`."""
        import dp_accounting as dp

        return dp.LaplaceDpEvent(self.noise_multiplier)


@dataclass(frozen=True)
class DiscreteLaplace:
    """Noise of mass proportional to exp(-|x| / scale) on whole numbers.

    Attributes:
        scale: of the noise.
        sensitivity: L1, a whole number.
    """

    scale: float
    sensitivity: int

    def __post_init__(self) -> None:
        check.finite("scale", self.scale, above=0)
        check.integer("sensitivity", self.sensitivity, at_least=1)

    def dp_event(self) -> Any:
        """As dp-accounting's `DpEvent`."""
        from dp_accounting import dp_event  # which the package does not lift

        return dp_event.DiscreteLaplaceDpEvent(1 / self.scale, self.sensitivity)


@dataclass(frozen=True)
class DiscreteGaussian:
    """Noise of mass proportional to exp(-x^2 / 2 stddev^2) on whole numbers.

    A vector of any length satisfies rho-zCDP with rho = 1 / (2 noise_multiplier^2), as the
    continuous Gaussian does (Canonne, Kamath, Steinke 2020, theorem 4): that is what is accounted.

    Attributes:
        noise_multiplier: the parameter `stddev` over the L2 sensitivity.
    """

    noise_multiplier: float

    def __post_init__(self) -> None:
        check.finite("noise_multiplier", self.noise_multiplier, above=0)

    @property
    def rho(self) -> float:
        """Of zero-concentrated differential privacy."""
        return 0.5 / self.noise_multiplier**2

    def dp_event(self) -> Any:
        """As dp-accounting's `DpEvent`."""
        import dp_accounting as dp

        return dp.ZCDpEvent(self.rho)


@dataclass(frozen=True)
class RandomizedResponse:
    """A vote that is kept, or with some probability replaced by a uniformly drawn one.

    Attributes:
        noise_parameter: probability of the uniform draw.
        num_buckets: answers there are.
    """

    noise_parameter: float
    num_buckets: int

    def __post_init__(self) -> None:
        check.finite("noise_parameter", self.noise_parameter, above=0, at_most=1)
        check.integer("num_buckets", self.num_buckets, at_least=2)

    def dp_event(self) -> Any:
        """As dp-accounting's `DpEvent`."""
        import dp_accounting as dp

        return dp.RandomizedResponseDpEvent(self.noise_parameter, self.num_buckets)


@dataclass(frozen=True)
class Unbounded:
    """A release without differential privacy: its epsilon is infinite."""

    def dp_event(self) -> Any:
        """As dp-accounting's `DpEvent`."""
        import dp_accounting as dp

        return dp.NonPrivateDpEvent()


Event = (
    SampledGaussian | Laplace | DiscreteLaplace | DiscreteGaussian | RandomizedResponse | Unbounded
)
_KINDS: Mapping[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        SampledGaussian,
        Laplace,
        DiscreteLaplace,
        DiscreteGaussian,
        RandomizedResponse,
        Unbounded,
    )
}


def to_json(event: Event) -> str:
    """One line of canonical JSON; `from_json` is its inverse."""
    values = {
        field.name: value.name if isinstance(value, enum.Enum) else value
        for field in dataclasses.fields(event)
        for value in [getattr(event, field.name)]
    }
    kind = {"kind": type(event).__name__}
    return json.dumps(kind | values, sort_keys=True, separators=(",", ":"))


@functools.lru_cache(maxsize=1024)
def from_json(text: str) -> Event:
    """Read what `to_json` wrote.

    Raises:
        ConfigError: it is something else.
    """
    try:
        values = json.loads(text)
        kind = _KINDS[values.pop("kind")]
        if "neighbours" in values:
            values["neighbours"] = Neighbours[values["neighbours"]]
        return kind(**values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"not a release that can be accounted: {type(error).__name__}") from None


def truncation_probability(
    num_records: int, sampling_probability: float, truncated_batch_size: int
) -> float:
    """Chance that a Poisson sample fills a batch: P(Binomial(n, q) >= B).

    Of n records and not n - 1, so that it bounds the chance that the others fill the batch also
    for the neighbour that has one record more.

    Raises:
        ConfigError: an argument is out of range.
    """
    from scipy.stats import binom

    check.integer("num_records", num_records, at_least=1)
    check.integer("truncated_batch_size", truncated_batch_size, at_least=1)
    check.finite("sampling_probability", sampling_probability, above=0, at_most=1)
    return float(binom.sf(truncated_batch_size - 1, num_records, sampling_probability))


def batch_size(num_records: int, sampling_probability: float, largest_truncation: float) -> int:
    """The smallest multiple of 8 whose `truncation_probability` is at most `largest_truncation`.

    Raises:
        ConfigError: an argument is out of range.
    """
    check.integer("num_records", num_records, at_least=1)
    check.finite("largest_truncation", largest_truncation, at_least=0, at_most=1)

    def fits(multiple: int) -> bool:
        size = multiple * BATCH_MULTIPLE
        cut = truncation_probability(num_records, sampling_probability, size)
        return cut <= largest_truncation

    most = num_records // BATCH_MULTIPLE + 1  # holds more than all records
    return BATCH_MULTIPLE * (1 + bisect.bisect_left(range(1, most), True, key=fits))
