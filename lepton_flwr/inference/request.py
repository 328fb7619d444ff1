"""What one who asks for a poll wants: which mechanism, at what cost, within what limit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from lepton_flwr import _validate as check
from lepton_flwr.errors import ConfigError
from lepton_flwr.privacy.events import Unit
from lepton_flwr.privacy.ledger import Limit, Limits
from lepton_flwr.privacy.votes import (
    ConfidentGNMax,
    GNMax,
    MeanProbabilities,
    Mechanism,
    Plurality,
)


@dataclass(frozen=True)
class Request:
    """A poll to be asked.

    Attributes:
        epsilon: what all answers together may cost a participant; None asks for exact ones, which
            are not private.
        delta: of that epsilon, and of all that is reported.
        limit: the most that the ledger of the one who asks may come to, per record and, in what it
            accounts so, per participant, with all that it held before; None is `epsilon`.
        threshold: votes that the leading class needs, else a query stays unanswered; 0 for none.
        probabilities: ask for averaged probabilities in place of votes.
    """

    epsilon: float | None
    delta: float = 1e-5
    limit: float | None = None
    threshold: float = 0.0
    probabilities: bool = False

    def __post_init__(self) -> None:
        check.finite("delta", self.delta, at_least=1e-11, below=1)
        check.finite("threshold", self.threshold, at_least=0)
        if not isinstance(self.probabilities, bool):
            raise ConfigError(f"probabilities={self.probabilities!r}: expected true or false")
        if self.threshold and self.probabilities:
            raise ConfigError("threshold and probabilities contradict each other: give one of them")
        if self.epsilon is None:
            if self.threshold or self.limit is not None:
                raise ConfigError("threshold, limit: of answers without privacy: expected neither")
            return
        check.finite("epsilon", self.epsilon, above=0)
        if self.limit is not None and check.finite("limit", self.limit) < self.epsilon:
            raise ConfigError(
                f"limit={self.limit:g}: expected at least the {self.epsilon:g} of the answers"
            )

    def votes(self, queries: int) -> Mechanism:
        """The mechanism of so many answers by vote, with the least noise that the cost allows."""
        if self.epsilon is None:
            return Plurality()
        if self.threshold:
            return ConfidentGNMax.calibrated(self.threshold, self.epsilon, self.delta, queries)
        return GNMax.calibrated(self.epsilon, self.delta, queries)

    def averages(self, queries: int) -> MeanProbabilities:
        """Likewise of averaged probabilities."""
        if self.epsilon is None:
            return MeanProbabilities()
        return MeanProbabilities(GNMax.calibrated(self.epsilon, self.delta, queries).stddev)

    @property
    def limits(self) -> Limits:
        """What the ledger of the one who asks is to keep to."""
        if self.epsilon is None:
            return {}
        limit = (Limit(self.epsilon if self.limit is None else self.limit, self.delta),)
        return {Unit.RECORD: limit, Unit.CLIENT: limit}

    def to_plain(self) -> dict[str, Any]:
        """As JSON can hold it; `from_plain` is the inverse."""
        return dict(vars(self))

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Read what was written.

        Raises:
            ConfigError: a field is missing, unknown or out of range.
        """
        if not isinstance(plain, Mapping) or set(plain) != set(cls.__dataclass_fields__):
            raise ConfigError(f"poll: expected {', '.join(cls.__dataclass_fields__)}")
        return cls(**plain)
