"""What an attack's scores prove about a mechanism: a lower bound on epsilon, with its confidence.

An audit refutes a wrong claim; it never proves a right one. Who trains sits in `training.audit`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from lepton_flwr import _validate as check
from lepton_flwr.errors import PrivacyError
from lepton_flwr.privacy.accounting import (
    LARGEST_NOISE,
    SMALLEST_NOISE,
    SampledGaussian,
    epsilon_of,
)

FAILURE_PROBABILITY = 1e-6
_LEARNING = 4  # one score in so many chooses the threshold
_FEWEST = 40
_EPSILONS = np.concatenate([np.linspace(0, 4, 81), np.linspace(4.25, 30, 104)])
_GRID = 1e-2  # connecting the dots is exact on the grid, and second order between
_TOLERANCE = 1e-4
_GAUSS = NormalDist()


@dataclass(frozen=True)
class Evidence:
    """Rates of one attack that hold together with probability at least 1 - failure_probability.

    Attributes:
        true_positives: lower bound of the chance to accuse when the record is inside.
        false_positives: upper bound of the chance to accuse when it is not.
        failure_probability: chance that one of the two is wrong.
    """

    true_positives: float
    false_positives: float
    failure_probability: float

    @property
    def mu(self) -> float:
        """The least mu of a Gaussian trade-off curve above these rates (Dong et al. 2022, eq. 6).

        Zero where the attack does no better than chance.
        """
        if not (self.true_positives > 0 and self.false_positives < 1):
            return 0.0
        return max(_quantile(self.true_positives) - _quantile(self.false_positives), 0.0)

    def epsilon(self, delta: float) -> float:
        """What every (epsilon, delta)-private mechanism with these rates must exceed.

        From P[accused | inside] <= e^epsilon P[accused | outside] + delta and the same for the
        complements (Kairouz et al. 2015, Theorem 2.1). No more than the logarithm of the number of
        trials can come out.
        """
        pairs = (
            (self.true_positives, self.false_positives),
            (1 - self.false_positives, 1 - self.true_positives),
        )
        return max(0.0, *(math.log((p - delta) / q) for p, q in pairs if p > delta and q > 0))


def distinguish(
    inside: np.ndarray, outside: np.ndarray, failure_probability: float = FAILURE_PROBABILITY
) -> Evidence:
    """Bound the rates of the attack that accuses whenever the score exceeds a threshold.

    The first quarter of the scores chooses the threshold; the rest, which have no part in that
    choice, are counted, and each rate gets a one-sided bound of Clopper and Pearson (1934) that
    fails with half of `failure_probability`.

    Args:
        inside: scores of independent trials with the record, shape (trials,); larger accuses.
        outside: of trials without it.
        failure_probability: chance that a bound is wrong.

    Raises:
        PrivacyError: fewer than 40 trials of either kind, or a score that is NaN.
    """
    check.finite("failure_probability", failure_probability, above=0, below=1)
    scores = [np.asarray(s, dtype=np.float64).ravel() for s in (inside, outside)]
    if min(s.size for s in scores) < _FEWEST:
        raise PrivacyError(
            f"{scores[0].size} scores with the record and {scores[1].size} without: expected at "
            f"least {_FEWEST} of each"
        )
    if any(np.isnan(s).any() for s in scores):
        raise PrivacyError("a score is NaN: expected numbers; training has diverged")
    learning = [np.sort(s[: s.size // _LEARNING]) for s in scores]
    counted = [s[s.size // _LEARNING :] for s in scores]
    each = failure_probability / 2

    def promise(threshold: float) -> float:
        hits = [s.size - int(np.searchsorted(s, threshold, "right")) for s in learning]
        return _separation(_evidence(hits, [s.size for s in learning], each))

    candidates = np.unique(np.concatenate(learning))
    middles = (candidates[:-1] + candidates[1:]) / 2 if candidates.size > 1 else candidates
    threshold = max(middles.tolist(), key=promise)
    hits = [int(np.sum(s > threshold)) for s in counted]
    return _evidence(hits, [s.size for s in counted], each)


def _evidence(hits: list[int], sizes: list[int], each: float) -> Evidence:
    low = clopper_pearson(hits[0], sizes[0], each)[0]
    high = clopper_pearson(hits[1], sizes[1], each)[1]
    return Evidence(low, high, 2 * each)


def clopper_pearson(hits: int, trials: int, failure_probability: float) -> tuple[float, float]:
    """Two one-sided bounds of a proportion, each of which fails with `failure_probability`."""
    from scipy.special import betaincinv

    missed = trials - hits
    low = float(betaincinv(hits, missed + 1, failure_probability)) if hits else 0.0
    high = 1 - float(betaincinv(missed, hits + 1, failure_probability)) if missed else 1.0
    return low, high


def noise_ceiling(evidence: Evidence, sampling_probability: float, steps: int) -> float:
    """The largest noise multiplier that allows this evidence.

    Any mechanism whose privacy profile is no worse than that of `steps` Gaussian releases under
    Poisson sampling with more noise than this would have to contradict the evidence. Tight for the
    Gaussian mechanism itself: with q = 1 it is sqrt(steps) / mu (Nasr et al. 2023, section 5.2);
    otherwise the evidence is compared with the curve of the PLD accountant.

    Returns:
        A noise multiplier of at least 0.1, where the search ends; infinity if the attack failed.
    """
    if evidence.mu == 0:
        return math.inf
    if sampling_probability == 1:
        return max(math.sqrt(steps) / evidence.mu, SMALLEST_NOISE)
    low, high = SMALLEST_NOISE, 1.0
    while _allowed(evidence, high, sampling_probability, steps):
        low, high = high, 2 * high
        if high > LARGEST_NOISE:
            return math.inf
    while high > low * (1 + _TOLERANCE):
        middle = math.sqrt(low * high)
        if _allowed(evidence, middle, sampling_probability, steps):
            low = middle
        else:
            high = middle
    return high


def _allowed(evidence: Evidence, noise_multiplier: float, q: float, steps: int) -> bool:
    from dp_accounting.pld import privacy_loss_distribution as pld

    distribution: Any = pld.from_gaussian_mechanism(
        noise_multiplier, sampling_prob=q, value_discretization_interval=_GRID
    )
    deltas = np.asarray(distribution.self_compose(steps).get_delta_for_epsilon(_EPSILONS))
    odds = np.exp(_EPSILONS)
    accused = odds * evidence.false_positives + deltas
    spared = odds * (1 - evidence.true_positives) + deltas
    return bool(
        evidence.true_positives <= accused.min() and 1 - evidence.false_positives <= spared.min()
    )


@dataclass(frozen=True)
class AuditReport:
    """What an audit found.

    Attributes:
        mechanism: what was claimed, for one round of `steps_per_round` releases.
        delta: the delta of both epsilons.
        claimed_epsilon: by the PLD accountant.
        attack: the attack that proved most.
        evidence: its rates.
        noise_multiplier: the largest noise multiplier that allows them; see `noise_ceiling`.
        epsilon: what the claimed mechanism would have with that noise: a lower bound on epsilon
            of any mechanism that differs from the claimed one in its noise or its sensitivity.
        failure_probability: chance that a mechanism as claimed is refuted.
    """

    mechanism: SampledGaussian
    delta: float
    claimed_epsilon: float
    attack: str
    evidence: Evidence
    noise_multiplier: float
    epsilon: float
    failure_probability: float

    @property
    def refuted(self) -> bool:
        """Whether the evidence contradicts the claim."""
        return self.noise_multiplier < self.mechanism.noise_multiplier

    def sentence(self) -> str:
        """The finding in one sentence."""
        found = "contradicts" if self.refuted else "does not contradict"
        return (
            f"The attack by {self.attack} shows epsilon of at least {self.epsilon:.3g} at delta "
            f"{self.delta:g}, which {found} the claimed {self.claimed_epsilon:.3g} (wrong with "
            f"probability at most {self.failure_probability:g})."
        )


def judge(
    scores: Mapping[str, tuple[np.ndarray, np.ndarray]],
    mechanism: SampledGaussian,
    delta: float,
    failure_probability: float = FAILURE_PROBABILITY,
) -> AuditReport:
    """Compare the strongest of several attacks with a claim.

    Args:
        scores: by attack, those with the record and those without it; see `distinguish`. The
            attacks share `failure_probability` equally.
        mechanism: the claim, all of its steps in one round.
        delta: where epsilon is read off.
        failure_probability: chance that a mechanism as claimed is refuted.

    **Guarantee**: a mechanism that keeps the claim is refuted with probability at most
    `failure_probability`, whatever the attacks are, if trials are independent.
    """
    if not scores:
        raise PrivacyError("no attack: expected at least one")
    found = {
        attack: distinguish(*pair, failure_probability / len(scores))
        for attack, pair in scores.items()
    }
    q, steps = mechanism.sampling_probability, mechanism.steps_per_round
    ceilings = {attack: noise_ceiling(e, q, steps) for attack, e in found.items()}
    attack = min(ceilings, key=ceilings.__getitem__)
    noise = ceilings[attack]
    shown = SampledGaussian(noise, q, 1) if math.isfinite(noise) else None
    return AuditReport(
        mechanism,
        delta,
        epsilon_of(mechanism, delta, steps),
        attack,
        found[attack],
        noise,
        epsilon_of(shown, delta, steps) if shown else 0.0,
        failure_probability,
    )


def _separation(evidence: Evidence) -> float:
    if not (evidence.true_positives > 0 and evidence.false_positives < 1):
        return -math.inf
    return _quantile(evidence.true_positives) - _quantile(evidence.false_positives)


def _quantile(probability: float) -> float:
    if probability <= 0:
        return -math.inf
    return math.inf if probability >= 1 else _GAUSS.inv_cdf(probability)
