"""What a device lets its data be spent on: the `[privacy]` table of its policy."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from lepton_flwr import _validate as check
from lepton_flwr.errors import ConfigError
from lepton_flwr.privacy.events import Unit
from lepton_flwr.privacy.ledger import Limit

# What a server says of the noise that it adds to the sum, in the configuration of a training round.
CLIENT_NOISE = "client-noise-multiplier"


@dataclass(frozen=True)
class PrivacyPolicy:
    """Limits that a device sets for itself; what is not set is counted and not limited.

    Attributes:
        delta: at which every epsilon is computed.
        max_record_epsilon: the most per record, in all, of one data set.
        max_client_epsilon: the most for this device as a whole, in all. Amplification by the
            server's choice of clients does not count: this device cannot check it, and it knows
            when it was chosen.
        period_days: length of the period of the two below.
        max_record_epsilon_per_period: the most per record in any such period.
        max_client_epsilon_per_period: the most for this device in any such period.
        ledger: absolute path of the ledger; empty is `ledger.db` in the device's folder.
        ledger_head: absolute path of its head; empty is beside the ledger. Elsewhere, it also
            notices when both would be put back from one copy.
    """

    delta: float = 1e-5
    max_record_epsilon: float | None = None
    max_client_epsilon: float | None = None
    period_days: float | None = None
    max_record_epsilon_per_period: float | None = None
    max_client_epsilon_per_period: float | None = None
    ledger: str = ""
    ledger_head: str = ""

    def __post_init__(self) -> None:
        _ = self.limits  # refused here, not in the middle of a run
        per_period = (self.max_record_epsilon_per_period, self.max_client_epsilon_per_period)
        if (self.period_days is None) != (per_period == (None, None)):
            raise ConfigError(
                "privacy.period_days: expected with a maximum per period, and not without one"
            )
        for name in ("ledger", "ledger_head"):
            value = getattr(self, name)
            if not isinstance(value, str) or (value and not Path(value).is_absolute()):
                raise ConfigError(f"privacy.{name}={value!r}: expected an absolute path")

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Self:
        """Read the table.

        Raises:
            ConfigError: an unknown key, or a value outside its range.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(table) - set(known))
        if unknown:
            raise ConfigError(f"privacy.{unknown[0]}: expected one of {', '.join(known)}")
        return cls(**table)

    @property
    def limits(self) -> dict[Unit, tuple[Limit, ...]]:
        """What a ledger is to keep to."""
        table = {
            Unit.RECORD: (self.max_record_epsilon, self.max_record_epsilon_per_period),
            Unit.CLIENT: (self.max_client_epsilon, self.max_client_epsilon_per_period),
        }
        found = {}
        for unit, (total, per_period) in table.items():
            limits = [Limit(total, self.delta)] if total is not None else []
            if per_period is not None:
                limits.append(Limit(per_period, self.delta, self.period_days))
            found[unit] = tuple(limits)
        check.finite("privacy.delta", self.delta, above=0, below=1)
        return found

    def to_toml(self) -> str:
        """The table; empty if nothing is set."""
        lines = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                text = f"'{value}'" if isinstance(value, str) else repr(value)
                lines.append(f"{field.name} = {text}")
        return "\n".join(["[privacy]", *lines, ""]) if lines else ""
