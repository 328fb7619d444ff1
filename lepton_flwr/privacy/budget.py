"""What a run may spend, and what it can state about what it spent."""

import bisect
import math
from dataclasses import dataclass

from lepton_flwr import _validate as check
from lepton_flwr.errors import PrivacyError
from lepton_flwr.privacy.accounting import (
    ACCOUNTANT,
    SMALLEST_DELTA,
    SampledGaussian,
    Unit,
    epsilon_of,
    epsilon_rdp_of,
)


class BudgetError(PrivacyError):
    """The next round would exceed the privacy budget."""


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
