"""Answers by vote with Gaussian noise: GNMax, as in "Scalable Private Learning with PATE".

Papernot, Song, Mironov, Raghunathan, Talwar, Erlingsson: ICLR 2018, arXiv 1802.08908. Every
participant casts one vote for each query; the noised counts decide.

The neighbouring relation is that of the rest of this package, adding or removing one record of one
participant, or all its records, the participants staying: that may turn one participant's vote
from any class into any other, for every query. Counts then move by sqrt(2) in L2 norm. Nothing is
assumed of how the votes fall: the cost is independent of the data, which is what may be published
beside the answers, and a vote on which all agree costs as much as one that is tied.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from lepton_flwr import _validate as check
from lepton_flwr.errors import PrivacyError
from lepton_flwr.privacy.accounting import calibrate
from lepton_flwr.privacy.events import Event, SampledGaussian, Unbounded
from lepton_flwr.privacy.noise import GaussianNoise

ABSTAINED = -1
SENSITIVITY = math.sqrt(2)  # of the counts of one query, L2, when one vote changes
_GRID = 2**20  # noise steps per vote: rounding to them is post-processing, and ties are rare
_MOST = 2**40  # more than any count, and with room for the noise


class Decision(NamedTuple):
    """Answers, and how far ahead they were.

    Attributes:
        labels: int64 (queries,), classes.
        margins: float64 (queries,): votes between the first and the second, as released.
    """

    labels: np.ndarray
    margins: np.ndarray


@dataclass(frozen=True)
class GNMax:
    """The class with the largest noised count (section 4.1).

    **Guarantee**: `release` on one query satisfies Renyi differential privacy of order a with
    epsilon a / stddev^2 (proposition 8), if the noise is not injected.

    Attributes:
        stddev: standard deviation of the noise on each count, in votes.
    """

    stddev: float

    def __post_init__(self) -> None:
        check.finite("votes.stddev", self.stddev, above=0, at_most=1e6)

    @classmethod
    def calibrated(cls, epsilon: float, delta: float, queries: int) -> Self:
        """The least noise with which so many answers stay within (epsilon, delta).

        Raises:
            ConfigError: an argument is out of range.
        """
        return cls(SENSITIVITY * calibrate(epsilon, delta, 1.0, queries))

    def event(self, queries: int) -> Event:
        """What so many answers cost."""
        return SampledGaussian(self.stddev, 1.0, queries, sensitivity_factor=SENSITIVITY)

    def release(self, counts: np.ndarray, noise: GaussianNoise | None = None) -> np.ndarray:
        """Answer.

        Args:
            counts: int64 (queries, classes), the votes for each class.
            noise: None draws from a generator keyed by the operating system; tests inject one.

        Returns:
            int64 (queries,), classes.

        Raises:
            PrivacyError: these are no counts.
        """
        return self.decide(counts, noise).labels

    def decide(self, counts: np.ndarray, noise: GaussianNoise | None = None) -> Decision:
        """As `release`, with the noised margins.

        They cost nothing: the proof of proposition 8 is that of releasing all noised counts, of
        which answer and margin are functions.
        """
        return _decided(_noised(_counts(counts), self.stddev, noise), _GRID)


@dataclass(frozen=True)
class ConfidentGNMax:
    """GNMax for the queries on which enough participants seem to agree (algorithm 1).

    The largest count, noised, is compared with a threshold. Below it nothing else is released of
    that query. What a check and an answer cost is charged apart: the second only if it is given.

    **Guarantee**: the check satisfies Renyi differential privacy of order a with epsilon
    a / (2 threshold_stddev^2), since one vote moves the largest count by at most 1; the answer is
    that of GNMax. Which queries are answered depends on earlier noise: for Gaussian releases that
    costs nothing (Smith and Thakurta 2022, arXiv 2210.17520).

    Attributes:
        threshold: votes that the largest count must reach, noise included.
        threshold_stddev: standard deviation of the noise of that check, in votes.
        answer: the mechanism of the answers.
    """

    threshold: float
    threshold_stddev: float
    answer: GNMax

    def __post_init__(self) -> None:
        check.finite("votes.threshold", self.threshold, above=0, at_most=_MOST)
        check.finite("votes.threshold_stddev", self.threshold_stddev, above=0, at_most=1e6)

    @classmethod
    def calibrated(cls, threshold: float, epsilon: float, delta: float, queries: int) -> Self:
        """The least noise within (epsilon, delta) if all are answered; half of it for the checks.

        Raises:
            ConfigError: an argument is out of range.
        """
        noise = calibrate(epsilon, delta, 1.0, 2 * queries)  # a check and an answer cost the same
        return cls(threshold, noise, GNMax(SENSITIVITY * noise))

    def event(self, queries: int) -> Event:
        """What so many checks cost."""
        return SampledGaussian(self.threshold_stddev, 1.0, queries)

    def passes(self, counts: np.ndarray, noise: GaussianNoise | None = None) -> np.ndarray:
        """Which queries may be answered: bool (queries,). Args and errors as in `GNMax.release`."""
        largest = _counts(counts).max(axis=1)
        noised: np.ndarray = _noised(largest, self.threshold_stddev, noise)
        return noised >= round(self.threshold * _GRID)


@dataclass(frozen=True)
class Plurality:
    """The class with the most votes, without noise and without differential privacy."""

    def event(self, _: int) -> Event:
        """An unbounded loss: a ledger with a limit refuses it."""
        return Unbounded()

    def release(self, counts: np.ndarray) -> np.ndarray:
        """Answer; of classes with as many votes the first."""
        return self.decide(counts).labels

    def decide(self, counts: np.ndarray, _: GaussianNoise | None = None) -> Decision:
        """As `release`, with the exact margins."""
        return _decided(_counts(counts), 1)


@dataclass(frozen=True)
class MeanProbabilities:
    """The participants' probabilities, averaged, with Gaussian noise on their sum.

    Two points of the simplex are at most sqrt(2) apart, so that one participant moves the sum as
    far as one vote does: the cost is that of `GNMax`, and the answer holds more.

    **Guarantee**: as in `GNMax`; without noise there is none.

    Attributes:
        stddev: standard deviation of the noise on each sum, where a certain vote is 1; 0 releases
            the exact sums.
    """

    stddev: float = 0.0

    def __post_init__(self) -> None:
        check.finite("votes.stddev", self.stddev, at_least=0, at_most=1e6)

    def event(self, queries: int) -> Event:
        """What so many averages cost."""
        return GNMax(self.stddev).event(queries) if self.stddev else Unbounded()

    def release(
        self, sums: np.ndarray, scale: float, participants: int, noise: GaussianNoise | None = None
    ) -> np.ndarray:
        """Average.

        Args:
            sums: int64 (queries, classes): sums of probabilities in grid units, each
                participant's rounded to the grid by itself.
            scale: grid units per 1.0.
            participants: how many were added up.
            noise: as in `GNMax.release`.

        Returns:
            float64 (queries, classes), each row on the simplex.

        Raises:
            PrivacyError: the sums are no such sums.
        """
        check.finite("scale", scale, above=0)
        check.integer("participants", participants, at_least=1)
        values = _matrix(sums).astype(np.float64)
        if self.stddev:
            # Rounding moves each of a participant's coordinates by 1/2 before and after a change.
            moved = SENSITIVITY * scale * (1 + 1e-9) + math.sqrt(sums.shape[1])
            noise = GaussianNoise() if noise is None else noise
            values = (sums + noise.rounded(sums.shape, self.stddev / SENSITIVITY * moved)) * 1.0
        mean = np.clip(values / (scale * participants), 0.0, 1.0)
        whole = mean.sum(axis=1, keepdims=True)
        even: np.ndarray = np.full_like(mean, 1 / mean.shape[1])
        np.divide(mean, whole, out=even, where=whole > 0)
        return even


Mechanism = GNMax | ConfidentGNMax | Plurality


def ballots(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """One participant's votes: int64 (queries, classes), a single 1 in every row.

    Raises:
        PrivacyError: a label is no class: it would count more or less than one vote.
    """
    check.integer("num_classes", num_classes, at_least=2)
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise PrivacyError(f"labels of {labels.dtype}{labels.shape}: expected whole numbers (n,)")
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise PrivacyError(f"a label outside 0 to {num_classes - 1}: expected a class")
    votes: np.ndarray = (labels[:, None] == np.arange(num_classes)).astype(np.int64)
    return votes


def shares(probabilities: np.ndarray, num_classes: int) -> np.ndarray:
    """One participant's probabilities: float64 (queries, classes), each row on the simplex.

    Raises:
        PrivacyError: they are no probabilities: they would count for more than one participant.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != num_classes:
        raise PrivacyError(
            f"probabilities of shape {values.shape}: expected (queries, {num_classes})"
        )
    if not np.isfinite(values).all() or (values < 0).any():
        raise PrivacyError("probabilities: expected finite numbers >= 0")
    whole = values.sum(axis=1, keepdims=True)
    if (np.abs(whole - 1) > 1e-3).any():
        raise PrivacyError("probabilities of a query: expected a sum of 1")
    exact: np.ndarray = values / whole
    return exact


def _noised(counts: np.ndarray, stddev: float, noise: GaussianNoise | None) -> np.ndarray:
    """Counts and noise in 2^-20 of a vote: a continuous draw, rounded together with the count."""
    noise = GaussianNoise() if noise is None else noise
    noised: np.ndarray = counts * _GRID + noise.rounded(counts.shape, stddev * _GRID)
    return noised


def _decided(counts: np.ndarray, scale: int) -> Decision:
    two = np.partition(counts, -2, axis=1)[:, -2:]
    return Decision(counts.argmax(axis=1), (two[:, 1] - two[:, 0]) / scale)


def _counts(counts: np.ndarray) -> np.ndarray:
    counts = _matrix(counts)
    if counts.size and not 0 <= int(counts.min()) <= int(counts.max()) < _MOST:
        raise PrivacyError("counts of votes: expected whole numbers >= 0")
    return counts


def _matrix(values: np.ndarray) -> np.ndarray:
    if values.dtype != np.int64 or values.ndim != 2 or values.shape[1] < 2:
        raise PrivacyError(
            f"sums of {values.dtype}{values.shape}: expected int64 (queries, classes), the whole "
            "numbers on which the sensitivity is computed"
        )
    return values
