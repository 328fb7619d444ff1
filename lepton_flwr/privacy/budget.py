"""What a run may spend, and what it can state about what it spent."""

import math
from dataclasses import dataclass

from lepton_flwr.privacy.accounting import (
    ACCOUNTANT,
    SampledGaussian,
    Unit,
)


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
        epsilon_before: what other runs had spent of the same data before; `epsilon` covers it.
        statistics: one release of the statistics that preprocessing needed; None if it needed
            none. `epsilon` covers them.
        statistics_releases: how many there were.
    """

    unit: Unit
    epsilon: float
    delta: float
    mechanism: SampledGaussian
    rounds: int
    accountant: str = ACCOUNTANT
    assumptions: tuple[str, ...] = ()
    epsilon_before: float = 0.0
    statistics: SampledGaussian | None = None
    statistics_releases: int = 0

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
        if self.statistics is not None:
            text += (
                f", and {self.statistics_releases} Gaussian releases of statistics for "
                f"preprocessing with noise multiplier {self.statistics.noise_multiplier:.4g}"
            )
        if self.epsilon_before > 0:
            text += f", with the epsilon of {self.epsilon_before:.3g} that earlier runs had spent"
        return text + (
            f", assuming that {' and '.join(self.assumptions)}." if self.assumptions else "."
        )
