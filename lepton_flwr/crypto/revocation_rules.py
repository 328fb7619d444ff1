"""When a device goes on without a recent revocation list."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from lepton_flwr.errors import ConfigError


@dataclass(frozen=True)
class RevocationRules:
    """The table `[revocation]` of a policy: when a device goes on without a recent list.

    Attributes:
        required: refuse to go on without a list of every authority on the roster.
        allow_expired: go on with a list after the time when a newer one was due.
    """

    required: bool = True
    allow_expired: bool = False

    @classmethod
    def from_table(cls, table: object) -> Self:
        """The rules of a table of booleans.

        Raises:
            ConfigError: it is no table, has an unknown key, or a value is no boolean.
        """
        names = list(cls.__dataclass_fields__)
        if not isinstance(table, Mapping) or not set(table) <= set(names):
            raise ConfigError(f"[revocation]: expected a table with keys out of {names}")
        if not all(isinstance(value, bool) for value in table.values()):
            raise ConfigError("[revocation]: expected true or false")
        return cls(**table)
