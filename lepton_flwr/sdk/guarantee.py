"""What a client promises about each record, in numbers and in words."""

import math
from dataclasses import dataclass

from lepton_flwr.config import RunConfig
from lepton_flwr.privacy import losses
from lepton_flwr.privacy.accounting import ACCOUNTANT
from lepton_flwr.privacy.events import Event, SampledGaussian
from lepton_flwr.sdk.perturbation import Perturbation
from lepton_flwr.sdk.preparation import Basis
from lepton_flwr.sdk.settings import TRAINING

_UNIT = "record"
_PUBLIC = (
    "Taken as public: names and kinds of the columns, the label's values, and how many rows each "
    "participant has. Held-out rows, which only the evaluation in the report reads, are not among "
    "these records."
)


@dataclass(frozen=True)
class Guarantee:
    """A statement of differential privacy, with everything that it needs to mean something.

    Attributes:
        mechanism: "training", "laplace" or "gaussian".
        unit: whose participation is hidden.
        neighbours: what may change about it.
        epsilon: bound of the privacy loss of all releases together.
        delta: the chance that the bound does not cover.
        accountant: how epsilon was computed.
        noise_multiplier: of each step of training; 0 if inputs are perturbed instead.
        text: all of it in sentences, with the consequences.
    """

    mechanism: str
    unit: str
    neighbours: str
    epsilon: float
    delta: float
    accountant: str
    noise_multiplier: float
    text: str

    def __str__(self) -> str:
        return self.text


def of_training(config: RunConfig, statistics: tuple[SampledGaussian, int] | None) -> Guarantee:
    """Noise in every step of training, which the run was calibrated with, beside statistics.

    Args:
        config: the run.
        statistics: a release and how many there are; None where none is asked.
    """
    record, delta, q = config.dp.record, config.dp.delta, config.train.sampling_probability
    noise, steps = record.noise_multiplier, config.rounds * config.train.local_steps
    training = (SampledGaussian(noise, q, config.train.local_steps), config.rounds)
    releases = [training] if statistics is None else [statistics, training]
    epsilon = losses.epsilon(releases, delta)
    beside = "" if statistics is None else f"{_statistics(statistics)} and "
    neighbours = "adding or removing one record of one participant"
    sampling = f"with Poisson sampling of probability {q:g}" if q < 1 else "without sampling"
    return Guarantee(
        TRAINING,
        _UNIT,
        neighbours,
        epsilon,
        delta,
        ACCOUNTANT,
        noise,
        _sentences(
            f"Training noise (DP-SGD): all that leaves the participants, and so the model, is "
            f"({_up(epsilon)}, {delta:g})-differentially private under {neighbours}, by the "
            f"{ACCOUNTANT} accountant, over {beside}{steps} Gaussian steps "
            f"of training with noise multiplier {noise:.4g}, {sampling}.",
            "Each participant adds its noise itself: the promise holds even if the server and all "
            "others work together.",
        ),
    )


def of_inputs(basis: Basis, perturbation: Perturbation) -> Guarantee:
    """Noise on every record, once."""
    delta, statistics = basis.config.dp.delta, basis.statistics
    events: list[tuple[Event, int]] = [(event, 1) for event in perturbation.events]
    epsilon = losses.epsilon([statistics, *events], delta)
    neighbours = "replacing one record of one participant by an empty one"
    kind = perturbation.mechanism.capitalize()
    return Guarantee(
        perturbation.mechanism,
        _UNIT,
        neighbours,
        epsilon,
        delta,
        ACCOUNTANT,
        0.0,
        _sentences(
            f"Perturbed inputs ({kind} noise): each record's features are cut to a norm of "
            f"{perturbation.radius:.3g} and get noise of scale {perturbation.noise_scale:.3g}, its "
            f"label is answered at random with epsilon {perturbation.label_epsilon:.3g}, once.",
            f"The perturbed records and {_statistics(statistics)} together are "
            f"({_up(epsilon)}, {delta:g})-differentially private under {neighbours}, by the "
            f"{ACCOUNTANT} accountant, whatever is done with them; the perturbed records alone "
            "under replacing a record by any other.",
            "The price: each record hides by itself, so that the model is much less accurate than "
            "with noise in training; at an epsilon of a few, often no better than the most "
            f'frequent class. mechanism="{TRAINING}" is for models.',
        ),
    )


def _sentences(*sentences: str) -> str:
    return " ".join([*sentences, _PUBLIC])


def _statistics(statistics: tuple[SampledGaussian, int]) -> str:
    event, times = statistics
    return (
        f"{times} Gaussian releases of preprocessing statistics with noise multiplier "
        f"{event.noise_multiplier:.4g}"
    )


def _up(epsilon: float) -> str:
    return f"{math.ceil(epsilon * 1000) / 1000:g}"
