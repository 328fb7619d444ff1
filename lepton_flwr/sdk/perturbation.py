"""Local differential privacy: each record's features and label are perturbed once, by their holder.

The features of a record are cut to a ball and get Laplace or Gaussian noise; its label is kept or
replaced at random (k-ary randomized response, Kairouz, Bonawitz, Ramage 2016, arXiv:1602.07387).
Whatever is done with the perturbed records afterwards costs nothing more.
"""

import math
from dataclasses import dataclass

import numpy as np

from lepton_flwr import _validate as check
from lepton_flwr.data.federated import ClientData
from lepton_flwr.errors import PrivacyError
from lepton_flwr.privacy import losses
from lepton_flwr.privacy.events import DiscreteGaussian, Event
from lepton_flwr.privacy.mechanisms import (
    Noised,
    discrete_gaussian,
    laplace,
    randomized_response,
)
from lepton_flwr.sdk.preparation import DEVIATIONS
from lepton_flwr.sdk.settings import GAUSSIAN, LAPLACE

SPREAD = 1 / DEVIATIONS  # standard deviation of a number among the features
LABEL_SHARE = 0.4  # of what the statistics leave
_SLACK = 0.999  # for the grid of the accountant
_GRID = 2**20
_NOTHING = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Perturbation:
    """How every record is perturbed.

    Attributes:
        mechanism: "laplace" or "gaussian".
        radius: of the ball that a record's features are cut to, in L1 norm for Laplace and L2 norm
            for Gaussian noise.
        noise_multiplier: scale (Laplace) or standard deviation (Gaussian) of the noise over twice
            the radius, which is how far two records can be apart.
        label_epsilon: of the randomized response.
        num_classes: answers of the randomized response.

    **Guarantee**: what `apply` returns of a record is private under replacing that record by any
    other: `events` are its two releases.
    """

    mechanism: str
    radius: float
    noise_multiplier: float
    label_epsilon: float
    num_classes: int

    def __post_init__(self) -> None:
        check.choice("mechanism", self.mechanism, (LAPLACE, GAUSSIAN))
        check.finite("radius", self.radius, above=0)
        check.finite("noise_multiplier", self.noise_multiplier, above=0)
        check.finite("label_epsilon", self.label_epsilon, above=0, at_most=40)
        check.integer("num_classes", self.num_classes, at_least=2)

    @classmethod
    def within(
        cls,
        mechanism: str,
        epsilon: float,
        delta: float,
        *,
        beside: tuple[Event, int],
        num_features: int,
        num_classes: int,
    ) -> "Perturbation":
        """The one that spends what `beside` has left.

        Args:
            mechanism: "laplace" or "gaussian".
            epsilon: of all releases together.
            delta: likewise.
            beside: what the statistics released, and how often.
            num_features: d; the radius is the norm of d features of one deviation each, whatever
                the records are.
            num_classes: of the label.

        Raises:
            PrivacyError: nothing is left.
        """
        # Half of delta for the statistics, half for the features: the sum of epsilons is a bound.
        left = (epsilon - losses.epsilon([beside], delta / 2)) * _SLACK
        if left <= 0:
            raise PrivacyError(
                f"epsilon={epsilon:g}: the statistics leave nothing for the perturbation; raise "
                "epsilon, or lower statistics_share"
            )
        label = min(left * LABEL_SHARE, 40.0)
        rest = left - label
        if mechanism == LAPLACE:
            radius, noise = SPREAD * num_features, 1 / rest
        else:
            one = discrete_gaussian(_NOTHING, sensitivity=1.0, epsilon=rest, delta=delta / 2)
            radius, noise = SPREAD * math.sqrt(num_features), _multiplier(one)
        return cls(mechanism, radius, noise, label, num_classes)

    @property
    def noise_scale(self) -> float:
        """Of the noise on each feature."""
        return 2 * self.radius * self.noise_multiplier

    @property
    def shrinkage(self) -> float:
        """What a perturbed feature is multiplied by: the share of its variance that is no noise.

        It makes what is expected of the true one (regression calibration), so that a model of
        perturbed features fits true ones.
        """
        variance = self.noise_scale**2 * (2 if self.mechanism == LAPLACE else 1)
        return SPREAD**2 / (SPREAD**2 + variance)

    @property
    def events(self) -> tuple[Event, ...]:
        """What `apply` releases of one record."""
        nothing = np.zeros((0, 1))
        return self._noised(nothing)[1], self._answered(_NOTHING).event

    def apply(self, rows: ClientData) -> ClientData:
        """Perturb the training rows; held-out rows stay as they are.

        Args:
            rows: of one participant.

        Returns:
            Rows of the same shapes, float32 and int32.
        """
        flat = rows.x_train.reshape(len(rows.x_train), -1).astype(np.float64)
        order = 1 if self.mechanism == LAPLACE else 2
        norms = np.linalg.norm(flat, ord=order, axis=1, keepdims=True)
        flat = flat * np.minimum(1.0, self.radius / np.maximum(norms, 1e-300))
        noised = self._noised(flat)[0] * self.shrinkage
        return ClientData(
            noised.reshape(rows.x_train.shape).astype(np.float32),
            self._answered(rows.y_train).value.astype(np.int32),
            rows.x_test,
            rows.y_test,
        )

    def _noised(self, features: np.ndarray) -> tuple[np.ndarray, Event]:
        """Records within the radius, float64 (n, features), with noise; and its event."""
        if self.mechanism == LAPLACE:
            noised = laplace(features, sensitivity=2 * self.radius, scale=self.noise_scale)
            return noised.value, noised.event
        # Discrete noise, for it is exact on whole numbers and fast: a grid of so many units.
        unit = self.radius / _GRID
        sensitivity = 2 * _GRID + math.sqrt(features.shape[1])  # of two records, each rounded
        noised = discrete_gaussian(
            np.rint(features / unit).astype(np.int64),
            sensitivity=sensitivity,
            scale=self.noise_multiplier * sensitivity,
        )
        return noised.value * unit, noised.event

    def _answered(self, classes: np.ndarray) -> Noised:
        return randomized_response(classes, self.num_classes, epsilon=self.label_epsilon)


def _multiplier(noised: Noised) -> float:
    if not isinstance(noised.event, DiscreteGaussian):
        raise PrivacyError("discrete Gaussian noise: expected its own event")
    return noised.event.noise_multiplier
