"""Epsilon of a run: privacy loss distributions (PLD), with Renyi DP (RDP) reported beside them.

dp-accounting is imported inside functions, for it takes one to two seconds.
"""

import bisect
import enum
import functools
import math
from dataclasses import dataclass
from typing import Any

from lepton_flwr import _validate as check
from lepton_flwr.errors import ConfigError, PrivacyError

ACCOUNTANT = "PLD"
GRID = 1e-3
SMALLEST_DELTA = 1e-11  # below it, round-off of the convolutions (about 1e-15) would show
SMALLEST_NOISE = 0.1
LARGEST_NOISE = 1e5
_GRID_POINTS = 200_000  # per epsilon: beyond epsilon 200 the grid becomes coarser, never optimistic
_FEW_ORDERS = (2.0, 3.0, 4.0, 8.0, 16.0, 32.0)  # quick, for the size of the grid only
_TOLERANCE = 5e-4


class BudgetError(PrivacyError):
    """The next round would exceed the privacy budget."""


class Unit(enum.Enum):
    """Whose participation a guarantee hides."""

    RECORD = "record"
    CLIENT = "client"


@dataclass(frozen=True)
class SampledGaussian:
    """Gaussian noise on a sum over a Poisson sample, several times a round.

    Attributes:
        noise_multiplier: standard deviation of the noise over the sensitivity of the sum.
        sampling_probability: chance of each unit to be in a step's sample; 1 is the plain
            Gaussian mechanism.
        steps_per_round: releases per round.
    """

    noise_multiplier: float
    sampling_probability: float
    steps_per_round: int

    def __post_init__(self) -> None:
        check.finite("noise_multiplier", self.noise_multiplier, above=0)
        check.finite("sampling_probability", self.sampling_probability, above=0, at_most=1)
        check.integer("steps_per_round", self.steps_per_round, at_least=1)


@dataclass(frozen=True)
class PrivacyStatement:
    """Everything a guarantee must say to mean something.

    Attributes:
        unit: what is hidden.
        epsilon: the bound on the privacy loss, by `accountant`.
        delta: the chance that the bound does not cover.
        mechanism: noise, sampling and releases per round.
        rounds: rounds spent.
        accountant: how epsilon was computed.
        assumptions: what must hold, each a clause that can follow "assuming that".
    """

    unit: Unit
    epsilon: float
    delta: float
    mechanism: SampledGaussian
    rounds: int
    accountant: str = ACCOUNTANT
    assumptions: tuple[str, ...] = ()

    @property
    def neighbours(self) -> str:
        """The neighbouring relation, in words."""
        whole = "one record of one client" if self.unit is Unit.RECORD else "one client's records"
        return f"adding or removing {whole}"

    @property
    def sampling(self) -> str:
        """The sampling that the accountant was told of, in words."""
        q = self.mechanism.sampling_probability
        return f"Poisson sampling with probability {q:g}" if q < 1 else "no sampling"

    def sentence(self) -> str:
        """The guarantee in one sentence."""
        steps = self.rounds * self.mechanism.steps_per_round
        up = math.ceil(self.epsilon * 1000) / 1000 if math.isfinite(self.epsilon) else math.inf
        text = (
            f"What was published is ({up:g}, {self.delta:g})-differentially private under "
            f"{self.neighbours}, by the {self.accountant} accountant for {steps} Gaussian releases "
            f"with noise multiplier {self.mechanism.noise_multiplier:g} and {self.sampling}"
        )
        return text + (
            f", assuming that {' and '.join(self.assumptions)}." if self.assumptions else "."
        )


def epsilon_of(mechanism: SampledGaussian, delta: float, steps: int) -> float:
    """Epsilon of `steps` releases by the PLD accountant, adding or removing one unit.

    Pessimistic: losses are discretised by connecting the dots (Doroshenko et al. 2022) on a grid
    of 1e-3, coarser only where epsilon exceeds 200.

    Raises:
        ConfigError: `delta` is outside [1e-11, 1), or `steps` is negative.
    """
    check.finite("delta", delta, at_least=SMALLEST_DELTA, below=1)
    check.integer("steps", steps, at_least=0)
    return _pld_epsilon(mechanism.noise_multiplier, mechanism.sampling_probability, delta, steps)


def epsilon_rdp_of(mechanism: SampledGaussian, delta: float, steps: int) -> float:
    """Epsilon of `steps` releases by the RDP accountant: looser, and widely published.

    Raises:
        ConfigError: `delta` is outside [1e-11, 1), or `steps` is negative.
    """
    check.finite("delta", delta, at_least=SMALLEST_DELTA, below=1)
    check.integer("steps", steps, at_least=0)
    return _rdp_epsilon(mechanism.noise_multiplier, mechanism.sampling_probability, delta, steps)


def calibrate(epsilon: float, delta: float, sampling_probability: float, steps: int) -> float:
    """The smallest noise multiplier, to one part in a thousand, that keeps `steps` in budget.

    Returns:
        A noise multiplier of at least 0.1 whose `epsilon_of` is at most `epsilon`, never above.

    Raises:
        ConfigError: an argument is out of range, or no noise multiplier up to 1e5 suffices.
    """
    check.finite("epsilon", epsilon, above=0)
    check.integer("steps", steps, at_least=1)

    def enough(noise_multiplier: float) -> bool:
        mechanism = SampledGaussian(noise_multiplier, sampling_probability, 1)
        return epsilon_of(mechanism, delta, steps) <= epsilon

    high = 1.0
    while not enough(high):
        high *= 2
        if high > LARGEST_NOISE:
            raise ConfigError(
                f"epsilon={epsilon:g} with delta={delta:g}, sampling probability "
                f"{sampling_probability:g} and {steps} steps: expected a target that a noise "
                f"multiplier up to {LARGEST_NOISE:g} reaches; raise epsilon or take fewer steps"
            )
    low = high / 2
    while enough(low):
        if low <= SMALLEST_NOISE:
            return low
        high, low = low, max(low / 2, SMALLEST_NOISE)
    while high > low * (1 + _TOLERANCE):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


class BudgetMeter:
    """Counts rounds against a limit and refuses the round that would exceed it.

    Args:
        mechanism: what one round releases.
        delta: the delta of the whole run.
        limit_epsilon: the most that the whole run may spend.

    **Guarantee**: `epsilon` never exceeds `limit_epsilon`, if `spend_round` is called *before*
    each round's first release and the round is not run when it raises.
    """

    def __init__(self, mechanism: SampledGaussian, delta: float, limit_epsilon: float) -> None:
        self.mechanism = mechanism
        self.delta = check.finite("delta", delta, at_least=SMALLEST_DELTA, below=1)
        self.limit_epsilon = check.finite("limit_epsilon", limit_epsilon, above=0)
        self.rounds = 0

    def epsilon_after(self, rounds: int) -> float:
        """PLD epsilon of `rounds` rounds in all."""
        return epsilon_of(self.mechanism, self.delta, rounds * self.mechanism.steps_per_round)

    def affordable(self, rounds: int) -> int:
        """How many of `rounds` rounds, none spent yet, the limit allows."""
        return bisect.bisect_right(range(1, rounds + 1), self.limit_epsilon, key=self.epsilon_after)

    @property
    def epsilon(self) -> float:
        """PLD epsilon of the rounds spent so far."""
        return self.epsilon_after(self.rounds)

    @property
    def epsilon_rdp(self) -> float:
        """RDP epsilon of the rounds spent so far."""
        steps = self.rounds * self.mechanism.steps_per_round
        return epsilon_rdp_of(self.mechanism, self.delta, steps)

    def spend_round(self) -> float:
        """Charge one round and return the epsilon after it.

        Raises:
            BudgetError: the round would exceed the limit; nothing is charged.
        """
        spent = self.check_round()
        self.rounds += 1
        return spent

    def check_round(self) -> float:
        """The epsilon that one more round would bring; charges nothing.

        Raises:
            BudgetError: it would exceed the limit.
        """
        spent = self.epsilon_after(self.rounds + 1)
        if not spent <= self.limit_epsilon:
            raise BudgetError(
                f"round {self.rounds + 1} would bring epsilon to {spent:.4g}: expected at most "
                f"{self.limit_epsilon:g} (delta {self.delta:g}); more noise or fewer rounds"
            )
        return spent

    def statement(self, unit: Unit, assumptions: tuple[str, ...] = ()) -> PrivacyStatement:
        """What the rounds spent so far guarantee."""
        return PrivacyStatement(
            unit, self.epsilon, self.delta, self.mechanism, self.rounds, assumptions=assumptions
        )


@functools.lru_cache(maxsize=16)
def _loss_distribution(stddev: float, q: float, grid: float) -> Any:
    from dp_accounting.pld import privacy_loss_distribution as pld

    return pld.from_gaussian_mechanism(
        stddev,
        sampling_prob=q,
        value_discretization_interval=grid,
        pessimistic_estimate=True,
        use_connect_dots=True,
    )


@functools.lru_cache(maxsize=4096)
def _pld_epsilon(noise: float, q: float, delta: float, steps: int) -> float:
    if steps == 0:
        return 0.0
    rough = _rdp_epsilon(noise, q, delta, steps, _FEW_ORDERS)
    coarser = math.ceil(math.log2(max(rough / (_GRID_POINTS * GRID), 1.0)))
    grid = GRID * 2.0**coarser
    if q == 1:  # composed Gaussians are one Gaussian
        composed = _loss_distribution(noise / math.sqrt(steps), 1.0, grid)
    else:
        composed = _loss_distribution(noise, q, grid).self_compose(steps)
    return float(composed.get_epsilon_for_delta(delta))


@functools.lru_cache(maxsize=4096)
def _rdp_epsilon(
    noise: float, q: float, delta: float, steps: int, orders: tuple[float, ...] | None = None
) -> float:
    if steps == 0:
        return 0.0
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    event = GaussianDpEvent(noise)
    accountant = RdpAccountant(orders)
    accountant.compose(event if q == 1 else PoissonSampledDpEvent(q, event), steps)
    return float(accountant.get_epsilon(delta))
