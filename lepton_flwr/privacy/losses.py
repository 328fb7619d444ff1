"""Privacy losses of releases, composed: distributions (PLD) and Renyi divergences (RDP).

Any releases compose, also of different mechanisms. dp-accounting is imported inside functions, for
it takes one to two seconds; what it computes is kept for the life of the process.
"""

import functools
import logging
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lepton_flwr.errors import ConfigError
from lepton_flwr.privacy.events import (
    DiscreteGaussian,
    DiscreteLaplace,
    Event,
    Laplace,
    Neighbours,
    RandomizedResponse,
    SampledGaussian,
    Unbounded,
)

GRID = 1e-3
GRID_POINTS = 200_000  # per epsilon: beyond epsilon 200 the grid becomes coarser, never optimistic
_FEW_ORDERS = (2.0, 3.0, 4.0, 8.0, 16.0, 32.0)  # quick, for the size of the grid only


@dataclass(frozen=True)
class Step:
    """One Gaussian release: two mechanisms that differ by what may happen.

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


Atom = Step | Laplace | DiscreteLaplace | DiscreteGaussian | RandomizedResponse


def epsilon(events: Iterable[tuple[Event, int]], delta: float, *, renyi: bool = False) -> float:
    """Epsilon of releases, each so many times, by PLD or RDP.

    Discrete Gaussian vectors have no known loss distribution, only Renyi divergences: among other
    mechanisms they get half of `delta` and join the PLD as one (epsilon, delta)-private release.

    Raises:
        ConfigError: the releases are accounted under different neighbouring relations.
    """
    counts: Counter[Atom] = Counter()
    relations = set()
    for event, count in events:
        if count and isinstance(event, SampledGaussian):
            relations.add(event.neighbours)
            if len(relations) > 1:
                raise ConfigError(
                    "releases under both neighbouring relations: expected one for all of them"
                )
        if count and isinstance(event, Unbounded):
            return math.inf
        if count and not isinstance(event, Unbounded):
            atom, times = _atom(event)
            counts[atom] += times * count
    if not counts:
        return 0.0
    ordered = tuple(sorted(counts.items(), key=repr))
    return _rdp_epsilon(ordered, delta) if renyi else _pld_epsilon(ordered, delta)


def _atom(event: Event) -> tuple[Any, int]:
    """What one event repeats, and how often."""
    if not isinstance(event, SampledGaussian):
        return event, 1
    noise, q = event.effective_noise, event.sampling_probability
    cut, neighbours = event.truncation_probability, event.neighbours
    if q == 1 and neighbours is Neighbours.REPLACE_ONE and cut == 0:
        # A replaced unit moves the sum twice as far, which dp-accounting's RDP does not know.
        noise, neighbours = noise / 2, Neighbours.ADD_OR_REMOVE_ONE
    return Step(noise, q, cut, neighbours), event.steps_per_round


@functools.lru_cache(maxsize=4096)
def _pld_epsilon(counts: tuple[tuple[Any, int], ...], delta: float) -> float:
    discrete = tuple(item for item in counts if isinstance(item[0], DiscreteGaussian))
    if len(discrete) == len(counts):
        return _rdp_epsilon(counts, delta)
    rough = _rdp_epsilon(counts, delta, _FEW_ORDERS)
    coarser = math.ceil(math.log2(max(rough / (GRID_POINTS * GRID), 1.0)))
    grid = GRID * 2.0**coarser
    parts = [
        _repeated(atom, count, grid) for atom, count in counts if (atom, count) not in discrete
    ]
    if discrete:
        parts.append(_private(_rdp_epsilon(discrete, delta / 2), delta / 2, grid))
    composed = functools.reduce(lambda one, other: one.compose(other), parts)
    return float(composed.get_epsilon_for_delta(delta))


def _repeated(atom: Any, count: int, grid: float) -> Any:
    if isinstance(atom, Step) and atom.q == 1 and atom.truncated == 0:
        # Composed Gaussians are one Gaussian.
        return _losses(replace(atom, noise=atom.noise / math.sqrt(count)), grid)
    return _losses(atom, grid).self_compose(count)


def _losses(atom: Any, grid: float) -> Any:
    from dp_accounting.pld import privacy_loss_distribution as pld

    if isinstance(atom, Laplace):
        return pld.from_laplace_mechanism(atom.noise_multiplier, value_discretization_interval=grid)
    if isinstance(atom, DiscreteLaplace):
        return pld.from_discrete_laplace_mechanism(
            1 / atom.scale, atom.sensitivity, value_discretization_interval=grid
        )
    if isinstance(atom, RandomizedResponse):
        return pld.from_randomized_response(
            atom.noise_parameter, atom.num_buckets, value_discretization_interval=grid
        )
    whole = _gaussian_losses(atom.noise, atom.q, atom.neighbours, grid)
    if atom.truncated == 0:
        return whole
    displaced = _gaussian_losses(atom.noise / 2, atom.q, Neighbours.REPLACE_ONE, grid)
    return displaced.compute_mixture(whole, atom.truncated)


def _private(epsilon: float, delta: float, grid: float) -> Any:
    from dp_accounting.pld import common
    from dp_accounting.pld import privacy_loss_distribution as pld

    parameters = common.DifferentialPrivacyParameters(epsilon, delta)
    return pld.from_privacy_parameters(parameters, value_discretization_interval=grid)


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


@functools.lru_cache(maxsize=4096)
def _rdp_epsilon(
    counts: tuple[tuple[Any, int], ...], delta: float, orders: tuple[float, ...] | None = None
) -> float:
    from dp_accounting.rdp import compute_epsilon

    curves = [(_rdp_curve(atom, orders), count) for atom, count in counts]
    used = curves[0][0][0]
    total = np.sum([count * curve for (_, curve), count in curves], axis=0)
    return float(compute_epsilon(used, total, delta)[0])


@functools.lru_cache(maxsize=256)
def _rdp_curve(atom: Any, orders: tuple[float, ...] | None) -> tuple[np.ndarray, np.ndarray]:
    """Orders and Renyi divergences of one release."""
    if not isinstance(atom, Step):
        return _other_rdp(atom, orders)
    used, whole = _gaussian_rdp(atom.noise, atom.q, atom.neighbours, orders)
    if atom.truncated == 0:
        return used, whole
    # Whether the batch is full is revealed and has the same chance for both neighbours.
    _, displaced = _gaussian_rdp(atom.noise / 2, atom.q, Neighbours.REPLACE_ONE, orders)
    moments = np.logaddexp(
        math.log1p(-atom.truncated) + (used - 1) * whole if atom.truncated < 1 else -math.inf,
        math.log(atom.truncated) + (used - 1) * displaced,
    )
    return used, moments / (used - 1)


def _other_rdp(atom: Any, orders: tuple[float, ...] | None) -> tuple[np.ndarray, np.ndarray]:
    from dp_accounting import NeighboringRelation
    from dp_accounting.rdp import RdpAccountant

    votes = isinstance(atom, RandomizedResponse)
    relation = NeighboringRelation.REPLACE_ONE if votes else NeighboringRelation.ADD_OR_REMOVE_ONE
    accountant = RdpAccountant(orders, relation)
    if isinstance(atom, DiscreteLaplace):
        # (1/scale * sensitivity)-private, hence so in every Renyi order, and by Bun and Steinke
        # 2016, proposition 3.3, also epsilon^2 / 2 * order.
        pure = atom.sensitivity / atom.scale
        return accountant.orders, np.minimum(pure, 0.5 * pure**2 * accountant.orders)
    accountant.compose(atom.dp_event())
    return accountant.orders, accountant.rdp


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
