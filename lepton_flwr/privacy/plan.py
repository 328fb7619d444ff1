"""What DP-SGD on one data set costs before it is run."""

import math
from dataclasses import dataclass

from lepton_flwr import _validate as check
from lepton_flwr.errors import ConfigError
from lepton_flwr.privacy.accounting import (
    Neighbours,
    SampledGaussian,
    Unit,
    calibrate,
    epsilon_of,
    epsilon_rdp_of,
    suggest_batch_size,
)
from lepton_flwr.privacy.budget import PrivacyStatement


@dataclass(frozen=True)
class Plan:
    """A plan and its price.

    Attributes:
        mechanism: one step's noise and sampling.
        steps: in all.
        rounds: over which they are spread.
        delta: of all steps.
        epsilon: by PLD.
        epsilon_rdp: by RDP.
        batch_size: to which samples can be cut for 1 % more epsilon at most.
    """

    mechanism: SampledGaussian
    steps: int
    rounds: int
    delta: float
    epsilon: float
    epsilon_rdp: float
    batch_size: int

    def rows(self) -> list[tuple[str, str]]:
        """Names and values, for people."""
        per_round = math.ceil(self.steps / self.rounds)
        return [
            ("noise multiplier", f"{self.mechanism.noise_multiplier:.4g}"),
            ("sampling probability", f"{self.mechanism.sampling_probability:.6g}"),
            ("steps", f"{self.steps} in all, {per_round} a round"),
            ("delta", f"{self.delta:g}"),
            ("epsilon (PLD)", f"{self.epsilon:.4f}"),
            ("epsilon (RDP)", f"{self.epsilon_rdp:.4f}"),
            ("samples cut to", f"{self.batch_size} records, for 1 % more epsilon at most"),
        ]

    def sentence(self) -> str:
        """The guarantee in one sentence."""
        sentence = PrivacyStatement(
            Unit.RECORD, self.epsilon, self.delta, self.mechanism, self.steps
        ).sentence()
        return sentence.replace("What was published is", "What is published would be")


def make_plan(
    records: int,
    batch: float,
    epochs: float,
    *,
    epsilon: float | None = None,
    noise_multiplier: float | None = None,
    delta: float | None = None,
    rounds: int = 1,
    replace_one: bool = False,
) -> Plan:
    """Plan DP-SGD with Poisson sampling.

    Args:
        records: of the data set.
        batch: expected records in a batch.
        epochs: passes over the data, in all.
        epsilon: to calibrate the noise to; or else
        noise_multiplier: to compute epsilon of.
        delta: None is a tenth of 1/records, at most 1e-5.
        rounds: over which the steps are spread.
        replace_one: for replacing a record instead of adding or removing one.

    Raises:
        ConfigError: an argument is out of range, both or neither of `epsilon` and
            `noise_multiplier` are given.
    """
    check.integer("records", records, at_least=1)
    check.finite("batch", batch, above=0, at_most=records)
    check.finite("epochs", epochs, above=0)
    check.integer("rounds", rounds, at_least=1)
    if (epsilon is None) == (noise_multiplier is None):
        raise ConfigError("expected one of epsilon and noise: the other is computed")
    delta = min(1e-5, 0.1 / records) if delta is None else delta
    q, neighbours = batch / records, _relation(replace_one)
    steps = max(math.ceil(epochs * records / batch - 1e-9), rounds)
    if noise_multiplier is None and epsilon is not None:
        noise_multiplier = calibrate(epsilon, delta, q, steps, neighbours=neighbours)
    mechanism = SampledGaussian(noise_multiplier or 0.0, q, 1, neighbours=neighbours)
    return Plan(
        mechanism,
        steps,
        rounds,
        delta,
        epsilon_of(mechanism, delta, steps),
        epsilon_rdp_of(mechanism, delta, steps),
        suggest_batch_size(mechanism, records, delta, steps),
    )


def _relation(replace_one: bool) -> Neighbours:
    return Neighbours.REPLACE_ONE if replace_one else Neighbours.ADD_OR_REMOVE_ONE
