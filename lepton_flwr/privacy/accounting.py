"""Epsilon of a run: privacy loss distributions (PLD), with Renyi DP (RDP) reported beside them.

dp-accounting is imported inside functions, for it takes one to two seconds.
"""

import bisect
import enum
import functools
import logging
import math
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

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
BATCH_MULTIPLE = 8  # of suggested batch sizes: shapes that vector units like


class BudgetError(PrivacyError):
    """The next round would exceed the privacy budget."""


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
        return f"{self.mechanism.neighbours.value} {whole}"

    @property
    def sampling(self) -> str:
        """The sampling that the accountant was told of, in words."""
        q, cut = self.mechanism.sampling_probability, self.mechanism.truncation_probability
        text = f"Poisson sampling with probability {q:g}" if q < 1 else "no sampling"
        return text + (f", cut to a fixed size with probability {cut:.2g} at most" if cut else "")

    def sentence(self) -> str:
        """The guarantee in one sentence."""
        steps = self.rounds * self.mechanism.steps_per_round
        factor = self.mechanism.sensitivity_factor
        over = "" if factor == 1 else f" over {factor:g} times the clip norm"
        up = math.ceil(self.epsilon * 1000) / 1000 if math.isfinite(self.epsilon) else math.inf
        text = (
            f"What was published is ({up:g}, {self.delta:g})-differentially private under "
            f"{self.neighbours}, by the {self.accountant} accountant for {steps} Gaussian releases "
            f"with noise multiplier {self.mechanism.noise_multiplier:g}{over} and {self.sampling}"
        )
        return text + (
            f", assuming that {' and '.join(self.assumptions)}." if self.assumptions else "."
        )


def epsilon_of(mechanism: SampledGaussian, delta: float, steps: int) -> float:
    """Epsilon of `steps` releases by the PLD accountant.

    Pessimistic: losses are discretised by connecting the dots (Doroshenko et al. 2022) on a grid
    of 1e-3, coarser only where epsilon exceeds 200.

    Raises:
        ConfigError: `delta` is outside [1e-11, 1), or `steps` is negative.
    """
    check.finite("delta", delta, at_least=SMALLEST_DELTA, below=1)
    check.integer("steps", steps, at_least=0)
    return _pld_epsilon(_step_of(mechanism), delta, steps)


def epsilon_rdp_of(mechanism: SampledGaussian, delta: float, steps: int) -> float:
    """Epsilon of `steps` releases by the RDP accountant: looser, and widely published.

    It accounts for exactly what `epsilon_of` does, truncation and relation included.

    Raises:
        ConfigError: `delta` is outside [1e-11, 1), or `steps` is negative.
    """
    check.finite("delta", delta, at_least=SMALLEST_DELTA, below=1)
    check.integer("steps", steps, at_least=0)
    return _rdp_epsilon(_step_of(mechanism), delta, steps)


def calibrate(
    epsilon: float,
    delta: float,
    sampling_probability: float,
    steps: int,
    *,
    truncation_probability: float = 0.0,
    sensitivity_factor: float = 1.0,
    neighbours: Neighbours = Neighbours.ADD_OR_REMOVE_ONE,
) -> float:
    """The smallest noise multiplier, to one part in a thousand, that keeps `steps` in budget.

    The keyword arguments are those of `SampledGaussian`.

    Returns:
        A noise multiplier of at least 0.1 whose `epsilon_of` is at most `epsilon`, never above.

    Raises:
        ConfigError: an argument is out of range, or no noise multiplier up to 1e5 suffices.
    """
    check.finite("epsilon", epsilon, above=0)
    check.integer("steps", steps, at_least=1)
    mechanism = SampledGaussian(
        1.0,
        sampling_probability,
        1,
        truncation_probability=truncation_probability,
        sensitivity_factor=sensitivity_factor,
        neighbours=neighbours,
    )

    def enough(noise_multiplier: float) -> bool:
        noisy = replace(mechanism, noise_multiplier=noise_multiplier)
        return epsilon_of(noisy, delta, steps) <= epsilon

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


@dataclass(frozen=True)
class _Step:
    """One release, as the accountants see it: two mechanisms that differ by what may happen.

    Attributes:
        noise: standard deviation over the sensitivity.
        q: sampling probability.
        truncated: chance that a unit displaces another, so that the sensitivity is doubled.
        neighbours: the neighbouring relation.
    """

    noise: float
    q: float
    truncated: float
    neighbours: Neighbours


def _step_of(mechanism: SampledGaussian) -> _Step:
    noise, q = mechanism.effective_noise, mechanism.sampling_probability
    truncated, neighbours = mechanism.truncation_probability, mechanism.neighbours
    if q == 1 and neighbours is Neighbours.REPLACE_ONE and truncated == 0:
        # A replaced unit moves the sum twice as far, which dp-accounting's RDP does not know.
        return _Step(noise / 2, 1.0, 0.0, Neighbours.ADD_OR_REMOVE_ONE)
    return _Step(noise, q, truncated, neighbours)


@functools.lru_cache(maxsize=16)
def _gaussian_losses(noise: float, q: float, neighbours: Neighbours, grid: float) -> Any:
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import privacy_loss_distribution as pld

    return pld.from_gaussian_mechanism(
        noise,
        sampling_prob=q,
        neighboring_relation=NeighboringRelation[neighbours.name],
        value_discretization_interval=grid,
        pessimistic_estimate=True,
        use_connect_dots=True,
    )


def _losses(step: _Step, grid: float) -> Any:
    whole = _gaussian_losses(step.noise, step.q, step.neighbours, grid)
    if step.truncated == 0:
        return whole
    displaced = _gaussian_losses(step.noise / 2, step.q, Neighbours.REPLACE_ONE, grid)
    return displaced.compute_mixture(whole, step.truncated)


@functools.lru_cache(maxsize=4096)
def _pld_epsilon(step: _Step, delta: float, steps: int) -> float:
    if steps == 0:
        return 0.0
    rough = _rdp_epsilon(step, delta, steps, _FEW_ORDERS)
    coarser = math.ceil(math.log2(max(rough / (_GRID_POINTS * GRID), 1.0)))
    grid = GRID * 2.0**coarser
    if step.q == 1 and step.truncated == 0:  # composed Gaussians are one Gaussian
        composed = _losses(replace(step, noise=step.noise / math.sqrt(steps)), grid)
    else:
        composed = _losses(step, grid).self_compose(steps)
    return float(composed.get_epsilon_for_delta(delta))


@functools.lru_cache(maxsize=4096)
def _rdp_epsilon(
    step: _Step, delta: float, steps: int, orders: tuple[float, ...] | None = None
) -> float:
    if steps == 0:
        return 0.0
    from dp_accounting.rdp import compute_epsilon

    used, curve = _rdp_curve(step, orders)
    return float(compute_epsilon(used, steps * curve, delta)[0])


@functools.lru_cache(maxsize=64)
def _rdp_curve(step: _Step, orders: tuple[float, ...] | None) -> tuple[np.ndarray, np.ndarray]:
    """Orders and Renyi divergences of one step."""
    used, whole = _gaussian_rdp(step.noise, step.q, step.neighbours, orders)
    if step.truncated == 0:
        return used, whole
    # Whether the batch is full is revealed and has the same chance for both neighbours.
    _, displaced = _gaussian_rdp(step.noise / 2, step.q, Neighbours.REPLACE_ONE, orders)
    moments = np.logaddexp(
        math.log1p(-step.truncated) + (used - 1) * whole if step.truncated < 1 else -math.inf,
        math.log(step.truncated) + (used - 1) * displaced,
    )
    return used, moments / (used - 1)


def _gaussian_rdp(
    noise: float, q: float, neighbours: Neighbours, orders: tuple[float, ...] | None
) -> tuple[np.ndarray, np.ndarray]:
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant(orders)
    if neighbours is Neighbours.REPLACE_ONE and q < 1:
        return accountant.orders, _replaced_rdp(noise, q, accountant.orders)
    event = GaussianDpEvent(noise if neighbours is Neighbours.ADD_OR_REMOVE_ONE else noise / 2)
    absl = logging.getLogger("absl")
    level = absl.level
    absl.setLevel(logging.ERROR)  # it warns of every order that it leaves out
    try:
        accountant.compose(event if q == 1 else PoissonSampledDpEvent(q, event))
    finally:
        absl.setLevel(level)
    return accountant.orders, accountant.rdp


def _replaced_rdp(noise: float, q: float, orders: np.ndarray) -> np.ndarray:
    """Renyi divergence of (1-q) N(0) + q N(1) from (1-q) N(0) + q N(-1), deviation `noise`.

    The pair is the one that dp-accounting's PLD takes for REPLACE_ONE; its RDP has none. The
    trapezoidal rule on a smooth integrand that vanishes at both ends errs by far less than 1e-9.
    """
    from scipy.special import logsumexp

    low, high = -12 * noise - 2, 12 * noise + 2 * float(orders.max())  # peaks at 0 and 2 order - 1
    x, step = np.linspace(low, high, max(int(8 * (high - low) / noise), 4_000), retstep=True)
    ratio = (2 * x - 1) / (2 * noise**2), (-2 * x - 1) / (2 * noise**2)
    above, below = (np.logaddexp(math.log1p(-q), math.log(q) + r) for r in ratio)
    base = -(x**2) / (2 * noise**2) - math.log(noise * math.sqrt(2 * math.pi)) + math.log(step)
    moments = np.array([logsumexp(base + a * above + (1 - a) * below) for a in orders])
    curve: np.ndarray = moments / (orders - 1)
    return curve
